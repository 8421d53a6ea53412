//! From a reference to the commit that it leads to right now.

use std::path::Path;

use rbuild_llb::GitSource;

use super::GitError;
use super::program::Git;
use super::remote::Remote;
use crate::local::WorkerError;

/// The hexadecimal digits of an object's name, in repositories of either kind.
const NAME_LENGTHS: [usize; 2] = [40, 64];
/// The name of the default branch, whatever it is called.
const DEFAULT: &str = "HEAD";

/// What a reference led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::local::source) struct Pinned {
    pub(in crate::local::source) commit: String,
    /// The annotated tag that leads to it.
    pub(super) tag: Option<String>,
    /// The reference's full name; none where the commit itself was named.
    pub(super) name: Option<String>,
}

impl Pinned {
    /// What has to be fetched.
    pub(super) fn object(&self) -> &str {
        self.tag.as_deref().unwrap_or(&self.commit)
    }
}

/// Whether a word is the whole name of an object.
pub(super) fn is_object_name(word: &str) -> bool {
    NAME_LENGTHS.contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Asks `ask` for what [`list`] says of a name, unless the reference says it all.
pub(super) fn resolve(
    remote: &Remote,
    source: &GitSource,
    ask: impl FnOnce(&str) -> Result<String, WorkerError>,
) -> Result<Pinned, WorkerError> {
    let git_ref = source.git_ref.as_str();
    check_reference(git_ref)?;
    let checksum = source.checksum.as_deref().unwrap_or_default();
    if !checksum.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(GitError::InvalidChecksum { checksum: checksum.to_owned() }.into());
    }
    let pinned = if is_object_name(git_ref) {
        Pinned { commit: git_ref.to_owned(), tag: None, name: None }
    } else {
        find(remote, git_ref, &ask(if git_ref.is_empty() { DEFAULT } else { git_ref })?)?
    };
    check_sum(&pinned, checksum)?;
    Ok(pinned)
}

/// A name that git takes for a reference and nothing else.
fn check_reference(git_ref: &str) -> Result<(), GitError> {
    let is_odd = |letter: char| letter.is_control() || " ~^:?*[\\".contains(letter);
    if git_ref.starts_with('-') || git_ref.contains(is_odd) || git_ref.contains("..") {
        return Err(GitError::Reference { git_ref: git_ref.to_owned() });
    }
    Ok(())
}

/// Asks the remote for a name, and for the commit behind it if it is a tag.
pub(super) fn list(
    git: &Git<'_>,
    remote: &Remote,
    name: &str,
    directory: &Path,
) -> Result<String, WorkerError> {
    let peeled = format!("{name}^{{}}");
    let call = git.call(directory).args(&["ls-remote", "--symref", "--", &remote.url, name, &peeled]);
    call.run().map_err(|error| fetch_failed(remote, error))
}

fn find(remote: &Remote, git_ref: &str, listing: &str) -> Result<Pinned, GitError> {
    let listing = Listing::parse(listing);
    let found = if git_ref.is_empty() { listing.head() } else { listing.find(git_ref) };
    let remote = remote.url.clone();
    found.ok_or_else(|| match git_ref {
        "" => GitError::NoDefaultBranch { remote },
        _ => GitError::NoSuchReference { remote, git_ref: git_ref.to_owned() },
    })
}

/// Says of a failure of git's that the remote is in it.
pub(super) fn fetch_failed(remote: &Remote, error: WorkerError) -> WorkerError {
    match error {
        WorkerError::Git(source @ GitError::Failed { .. }) => {
            GitError::Fetch { remote: remote.url.clone(), source: Box::new(source) }.into()
        }
        error => error,
    }
}

fn check_sum(pinned: &Pinned, checksum: &str) -> Result<(), GitError> {
    let names: Vec<&str> = [Some(pinned.object()), pinned.tag.as_ref().map(|_| pinned.commit.as_str())]
        .into_iter()
        .flatten()
        .collect();
    if names.iter().any(|name| name.starts_with(checksum)) {
        return Ok(());
    }
    Err(GitError::Checksum { expected: checksum.to_owned(), found: names.join(" or ") })
}

/// What `git ls-remote --symref` printed.
struct Listing<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Listing<'a> {
    fn parse(text: &'a str) -> Self {
        Self(text.lines().filter_map(|line| line.split_once('\t')).collect())
    }

    fn object(&self, name: &str) -> Option<&'a str> {
        let found = self.0.iter().find(|(object, listed)| *listed == name && is_object_name(object));
        found.map(|(object, _)| *object)
    }

    /// The default branch.
    fn head(&self) -> Option<Pinned> {
        let commit = self.object(DEFAULT)?.to_owned();
        let branch = self
            .0
            .iter()
            .find_map(|(object, name)| object.strip_prefix("ref: ").filter(|_| *name == DEFAULT));
        Some(Pinned { commit, tag: None, name: branch.map(str::to_owned) })
    }

    /// A name as BuildKit reads it: in full below `refs/`, else a branch, else a tag.
    fn find(&self, git_ref: &str) -> Option<Pinned> {
        let below = |prefix: &str| format!("{prefix}{}", git_ref.strip_prefix(prefix).unwrap_or(git_ref));
        let names = [below("refs/"), below("refs/heads/"), below("refs/tags/")];
        let (name, object) = names.into_iter().find_map(|name| Some((name.clone(), self.object(&name)?)))?;
        let peeled = self.object(&format!("{name}^{{}}"));
        let pinned = match peeled {
            Some(commit) => {
                Pinned { commit: commit.to_owned(), tag: Some(object.to_owned()), name: Some(name) }
            }
            None => Pinned { commit: object.to_owned(), tag: None, name: Some(name) },
        };
        Some(pinned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn pinned(commit: &str, tag: Option<&str>, name: &str) -> Pinned {
        Pinned { commit: commit.into(), tag: tag.map(str::to_owned), name: Some(name.into()) }
    }

    #[test]
    fn names_are_found_as_buildkit_finds_them() {
        let text = format!(
            "{A}\trefs/heads/v1\n{B}\trefs/tags/v1\n{A}\trefs/pull/1/head\n{B}\trefs/tags/v2\n{A}\trefs/tags/v2^{{}}\n"
        );
        let listing = Listing::parse(&text);
        assert_eq!(listing.find("v1"), Some(pinned(A, None, "refs/heads/v1")));
        assert_eq!(listing.find("tags/v1"), Some(pinned(B, None, "refs/tags/v1")));
        assert_eq!(listing.find("refs/tags/v1"), Some(pinned(B, None, "refs/tags/v1")));
        assert_eq!(listing.find("pull/1/head"), Some(pinned(A, None, "refs/pull/1/head")));
        assert_eq!(listing.find("v2"), Some(pinned(A, Some(B), "refs/tags/v2")));
        assert_eq!(listing.find("v3"), None);
    }

    #[test]
    fn the_default_branch_has_a_name_if_it_says_so() {
        let text = format!("ref: refs/heads/trunk\tHEAD\n{A}\tHEAD\n");
        assert_eq!(Listing::parse(&text).head(), Some(pinned(A, None, "refs/heads/trunk")));
        let text = format!("{A}\tHEAD\n");
        assert_eq!(Listing::parse(&text).head().unwrap().name, None);
        assert_eq!(Listing::parse("").head(), None);
    }

    #[test]
    fn references_cannot_be_options_or_expressions() {
        for git_ref in ["-x", "--upload-pack=x", "a b", "a^{}", "a:b", "a..b", "*", "a\nb"] {
            assert!(check_reference(git_ref).is_err(), "{git_ref}");
        }
        for git_ref in ["", "main", "refs/pull/1/head", "a/b-c_d.e", "v1.0+x"] {
            assert!(check_reference(git_ref).is_ok(), "{git_ref}");
        }
    }

    #[test]
    fn a_checksum_is_a_prefix_of_the_commit_or_of_its_tag() {
        let tagged = pinned(A, Some(B), "refs/tags/v1");
        assert!(check_sum(&tagged, "aaaa").is_ok() && check_sum(&tagged, B).is_ok());
        assert!(check_sum(&tagged, "").is_ok());
        let error = check_sum(&tagged, "cc").unwrap_err().to_string();
        assert_eq!(error, format!("expected checksum to match cc, got {B} or {A}"));
    }
}
