//! Sources of ADD that are on the network: which words are, and what they say.

use rbuild_llb::GitSource;

use crate::error::{Error, ErrorKind};
use crate::lint::parse_bool;

/// What a file is called whose URL does not say.
const UNNAMED: &str = "__unnamed__";
/// The secrets that hold credentials for git over HTTP, and the agent for git over ssh.
const GIT_TOKEN_SECRET: &str = "GIT_AUTH_TOKEN";
const GIT_HEADER_SECRET: &str = "GIT_AUTH_HEADER";
const SSH_AGENT: &str = "default";

/// Whether a source is a git repository: by its scheme, as `user@host:path`, or over HTTP by a path that ends in
/// `.git`. `github.com/x/y` without a scheme is a local path.
pub(super) fn is_git(source: &str) -> bool {
    let location = location(source);
    if has_http_scheme(source) {
        return location.ends_with(".git");
    }
    location.starts_with("git://") || location.starts_with("ssh://") || is_scp_like(location)
}

/// Whether a source is a file of a web server.
pub(super) fn is_http(source: &str) -> bool {
    has_http_scheme(source) && !is_git(source)
}

fn has_http_scheme(source: &str) -> bool {
    source.starts_with("http://") || source.starts_with("https://")
}

/// A URL without query and fragment.
fn location(source: &str) -> &str {
    source.split(['#', '?']).next().unwrap_or(source)
}

/// `git@host:path`.
fn is_scp_like(location: &str) -> bool {
    let Some((user, rest)) = location.split_once('@') else { return false };
    let is_word = |text: &str, more: &str| {
        !text.is_empty() && text.chars().all(|letter| letter.is_ascii_alphanumeric() || more.contains(letter))
    };
    is_word(user, "-_") && rest.split_once(':').is_some_and(|(host, _)| is_word(host, "-_."))
}

/// The last part of a URL's path.
pub(super) fn file_name(url: &str) -> String {
    let path =
        location(url).split_once("://").and_then(|(_, rest)| rest.split_once('/')).map(|(_, path)| path);
    let name = path.and_then(|path| path.trim_end_matches('/').rsplit('/').next()).map(decode);
    let name = name.filter(|name| !matches!(name.as_str(), "" | "." | "..") && !name.contains(['/', '\0']));
    name.unwrap_or_else(|| UNNAMED.to_owned())
}

/// Resolves `%20` and the like, where what comes out is text.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|pair| str::from_utf8(pair).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

/// A URL that can be shown.
pub(super) fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => url.to_owned(),
    }
}

/// What a git URL says: `remote#ref:subdir`, or `remote?branch=…&subdir=…`.
pub(super) fn git_source(
    url: &str,
    keep_git_dir: Option<bool>,
    checksum: Option<&str>,
) -> Result<GitSource, Error> {
    let (before, fragment) = url.split_once('#').map_or((url, None), |(url, part)| (url, Some(part)));
    let (remote, query) = before.split_once('?').map_or((before, None), |(url, part)| (url, Some(part)));
    let mut source = GitSource {
        remote: remote.to_owned(),
        git_ref: String::new(),
        subdir: String::new(),
        checksum: checksum.map(str::to_owned),
        keep_git_dir: keep_git_dir.unwrap_or(false),
        skip_submodules: false,
        auth_token_secret: None,
        auth_header_secret: None,
        ssh_id: None,
        known_hosts: None,
        mtime_of_commit: false,
    };
    if has_http_scheme(remote) {
        source.auth_token_secret = Some(GIT_TOKEN_SECRET.to_owned());
        source.auth_header_secret = Some(GIT_HEADER_SECRET.to_owned());
    } else if !remote.starts_with("git://") {
        source.ssh_id = Some(SSH_AGENT.to_owned());
    }
    if let Some((git_ref, subdir)) = fragment.map(|text| text.split_once(':').unwrap_or((text, ""))) {
        git_ref.clone_into(&mut source.git_ref);
        subdir.clone_into(&mut source.subdir);
    }
    let mut by_commit = false;
    for (key, value) in query.into_iter().flat_map(|query| query.split('&')).filter_map(pair) {
        let error = |reason: String| ErrorKind::GitReference { url: without_credentials(url), reason };
        by_commit |= apply(&mut source, keep_git_dir, key, &value).map_err(error)?;
    }
    if by_commit && let Some(commit) = &source.checksum {
        source.git_ref.clone_from(commit);
    }
    Ok(source)
}

fn pair(text: &str) -> Option<(&str, String)> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (!key.is_empty()).then(|| (key, decode(value)))
}

/// Applies one part of the query. Whether it asks to fetch by commit.
fn apply(source: &mut GitSource, keep_git_dir: Option<bool>, key: &str, value: &str) -> Result<bool, String> {
    let flag = || {
        let parsed = if value.is_empty() { Some(true) } else { parse_bool(value) };
        parsed.ok_or_else(|| format!("`{key}={value}` is neither true nor false"))
    };
    match key {
        "ref" => set(&mut source.git_ref, key, value.to_owned())?,
        "tag" => set(&mut source.git_ref, key, format!("refs/tags/{value}"))?,
        "branch" => set(&mut source.git_ref, key, format!("refs/heads/{value}"))?,
        "subdir" => set(&mut source.subdir, key, value.to_owned())?,
        "checksum" | "commit" => {
            let checksum = source.checksum.get_or_insert_with(|| value.to_owned());
            if checksum != value {
                return Err(format!("checksum mismatch: `{checksum}` and `{value}`"));
            }
        }
        "keep-git-dir" => {
            let keep = flag()?;
            if keep_git_dir.is_some_and(|given| given != keep) {
                return Err("inconsistent keep-git-dir".to_owned());
            }
            source.keep_git_dir = keep;
        }
        "submodules" => source.skip_submodules = !flag()?,
        "mtime" => match value {
            "checkout" | "commit" => source.mtime_of_commit = value == "commit",
            _ => return Err(format!("unknown mtime `{value}` (expected checkout or commit)")),
        },
        "fetch-by-commit" => return flag(),
        _ => return Err(format!("unknown query key `{key}`")),
    }
    Ok(false)
}

fn set(slot: &mut String, key: &str, value: String) -> Result<(), String> {
    if !slot.is_empty() && *slot != value {
        return Err(format!("`{key}` conflicts with `{slot}`"));
    }
    *slot = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_and_http_are_told_apart() {
        let git = [
            "git@github.com:a/b.git",
            "user@host.example:path",
            "ssh://git@host/a",
            "git://host/a",
            "https://host/a.git",
            "https://host/a.git#main:sub",
            "https://host/a.git?branch=x",
        ];
        let http = ["https://host/a", "http://host/a.git/b", "https://host/a?x=.git"];
        let local = ["github.com/a/b", "a@b", "@scope:x", "./a.git", "git"];
        assert!(git.iter().all(|url| is_git(url) && !is_http(url)));
        assert!(http.iter().all(|url| is_http(url) && !is_git(url)));
        assert!(local.iter().all(|url| !is_http(url) && !is_git(url)));
    }

    #[test]
    fn files_are_named_by_their_url() {
        let cases = [
            ("https://host/a/b.tar?x=/c", "b.tar"),
            ("https://host/a%20b", "a b"),
            ("https://host/", "__unnamed__"),
            ("https://host", "__unnamed__"),
            ("https://host/a/..", "__unnamed__"),
            ("https://host/a%2Fb", "__unnamed__"),
        ];
        for (url, name) in cases {
            assert_eq!(file_name(url), name, "{url}");
        }
    }

    #[test]
    fn credentials_are_not_shown() {
        assert_eq!(without_credentials("https://u:p@host/a@b"), "https://host/a@b");
        assert_eq!(without_credentials("https://host/a@b"), "https://host/a@b");
    }
}
