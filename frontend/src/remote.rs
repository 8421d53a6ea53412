//! Sources that are on the network, of ADD and as contexts: which words are, and what they say.

use std::collections::BTreeMap;

use rbuild_image::Digest;
use rbuild_llb::{
    Builder, CopyAction, Definition, Edge, FileAction, FileInput, FileOp, FileStep, GitSource, HttpSource,
    InputIndex, Meta, Op, OutputIndex, SourceOp, Vertex, without_credentials,
};

use crate::args::EPOCH;
use crate::error::{Error, ErrorKind};
use crate::lint::parse_bool;

/// What a file is called whose URL does not say: for ADD, and as a named context.
const UNNAMED: &str = "__unnamed__";
const UNNAMED_CONTEXT: &str = "download";
/// What a file is called that is the main context. A Dockerfile in its place is read from it.
pub const CONTEXT_FILE: &str = "context";
/// Files from the network are their owner's alone.
const HTTP_FILE_MODE: u32 = 0o600;
/// The build argument that keeps `.git` of the main context.
const KEEP_GIT_DIR: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";
/// A repository that a context, but not ADD, may name without a scheme.
const GITHUB: &str = "github.com/";
/// The secrets that hold credentials for git over HTTP, and the agent for git over ssh.
const GIT_TOKEN_SECRET: &str = "GIT_AUTH_TOKEN";
const GIT_HEADER_SECRET: &str = "GIT_AUTH_HEADER";
const SSH_AGENT: &str = "default";

/// A build context on the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteContext {
    /// A git repository.
    Git(GitSource),
    /// A tree of one file.
    File(HttpSource),
    /// What is in an archive.
    Archive(HttpSource),
}

impl RemoteContext {
    /// What is given as the main context, if it is an address. Whether a file is an archive is for the caller to see.
    ///
    /// Two build arguments say how a repository is taken: one keeps `.git`; where one time is asked for, files are as old as
    /// their commit.
    ///
    /// # Errors
    /// When it is a git URL that cannot be read.
    pub fn main(text: &str, build_args: &BTreeMap<String, String>) -> Result<Option<Self>, Error> {
        let keep_git_dir = build_args.get(KEEP_GIT_DIR).and_then(|value| parse_bool(value));
        let mut context = Self::parse(text, keep_git_dir, |_| CONTEXT_FILE.to_owned())?;
        if let Some(Self::Git(source)) = &mut context {
            source.mtime_of_commit |= build_args.get(EPOCH).is_some_and(|value| !value.is_empty());
        }
        Ok(context)
    }

    /// What is given as a named context, if it is an address.
    ///
    /// # Errors
    /// As for [`main`](Self::main).
    pub fn named(text: &str) -> Result<Option<Self>, Error> {
        Self::parse(text, None, |url| file_name(url, UNNAMED_CONTEXT))
    }

    fn parse(
        text: &str,
        keep_git_dir: Option<bool>,
        name: impl FnOnce(&str) -> String,
    ) -> Result<Option<Self>, Error> {
        let completed = text.starts_with(GITHUB).then(|| format!("https://{text}"));
        let is_git = completed.is_some() || is_git(text);
        let url = completed.as_deref().unwrap_or(text);
        if is_git {
            return Ok(Some(Self::Git(git_source(url, keep_git_dir, None)?)));
        }
        Ok(is_http(url).then(|| Self::File(http_file(url, name(url), None))))
    }

    /// What has to be fetched.
    pub fn source(&self) -> SourceOp {
        match self {
            Self::Git(source) => SourceOp::Git(source.clone()),
            Self::File(source) | Self::Archive(source) => SourceOp::Http(source.clone()),
        }
    }

    /// What a display calls the work to have it.
    pub fn title(&self) -> String {
        let what = match self {
            Self::Git(source) => format!("git source {}", without_credentials(&source.remote)),
            Self::File(source) | Self::Archive(source) => {
                format!("remote build context {}", without_credentials(&source.url))
            }
        };
        format!("[internal] load {what}")
    }

    /// The context alone, to read what is in it.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn definition(&self) -> Result<Definition, Error> {
        let mut builder = Builder::new();
        let edge = self.add_to(&mut builder);
        Ok(builder.finish(Some(edge)).map_err(ErrorKind::Definition)?)
    }

    /// Adds the context to a graph.
    pub(crate) fn add_to(&self, builder: &mut Builder) -> Edge {
        let meta = Meta { name: self.title(), internal: true, ..Meta::default() };
        let mut add = |op, inputs| {
            let vertex = Vertex { op, inputs, platform: None, meta: meta.clone() };
            Edge::from(builder.add(vertex))
        };
        let fetched = add(Op::Source(self.source()), Vec::new());
        let Self::Archive(file) = self else { return fetched };
        let from = FileInput::Input(InputIndex(0));
        let unpack =
            CopyAction { attempt_unpack: true, ..CopyAction::new(from, format!("/{}", file.filename), "/") };
        let action = FileAction::Copy(unpack);
        let step = FileStep { base: FileInput::Scratch, action, output: Some(OutputIndex(0)) };
        add(Op::File(FileOp { steps: vec![step] }), vec![fetched])
    }
}

/// What a word of ADD names on the network, if it does.
pub(crate) fn add_source(
    word: &str,
    keep_git_dir: Option<bool>,
    checksum: Option<&str>,
) -> Result<Option<SourceOp>, Error> {
    if is_git(word) {
        return Ok(Some(SourceOp::Git(git_source(word, keep_git_dir, checksum)?)));
    }
    if !is_http(word) {
        return Ok(None);
    }
    let checksum = checksum.map(str::parse::<Digest>).transpose().map_err(ErrorKind::Checksum)?;
    Ok(Some(SourceOp::Http(http_file(word, file_name(word, UNNAMED), checksum))))
}

fn http_file(url: &str, filename: String, checksum: Option<Digest>) -> HttpSource {
    HttpSource {
        url: url.to_owned(),
        checksum,
        filename,
        mode: HTTP_FILE_MODE,
        uid: 0,
        gid: 0,
        auth_header_secret: None,
        headers: Vec::new(),
    }
}

/// Whether a source is a git repository: by its scheme, as `user@host:path`, or over HTTP by a path that ends in
/// `.git`. `github.com/x/y` without a scheme is a local path.
pub(crate) fn is_git(source: &str) -> bool {
    let location = location(source);
    if has_http_scheme(source) {
        return location.ends_with(".git");
    }
    location.starts_with("git://") || location.starts_with("ssh://") || is_scp_like(location)
}

/// Whether a source is a file of a web server.
pub(crate) fn is_http(source: &str) -> bool {
    has_http_scheme(source) && !is_git(source)
}

/// Whether a source is on the network.
pub(crate) fn is_remote(source: &str) -> bool {
    is_git(source) || is_http(source)
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
fn file_name(url: &str, unnamed: &str) -> String {
    let path =
        location(url).split_once("://").and_then(|(_, rest)| rest.split_once('/')).map(|(_, path)| path);
    let name = path.and_then(|path| path.trim_end_matches('/').rsplit('/').next()).map(decode);
    let name = name.filter(|name| !matches!(name.as_str(), "" | "." | "..") && !name.contains(['/', '\0']));
    name.unwrap_or_else(|| unnamed.to_owned())
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

/// What a git URL says: `remote#ref:subdir`, or `remote?branch=…&subdir=…`.
fn git_source(url: &str, keep_git_dir: Option<bool>, checksum: Option<&str>) -> Result<GitSource, Error> {
    let (before, fragment) = url.split_once('#').map_or((url, None), |(url, part)| (url, Some(part)));
    let (remote, query) = before.split_once('?').map_or((before, None), |(url, part)| (url, Some(part)));
    let mut source = GitSource {
        remote: remote.to_owned(),
        checksum: checksum.map(str::to_owned),
        keep_git_dir: keep_git_dir.unwrap_or(false),
        ..GitSource::default()
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
            ("https://host/..%2F..%2Fetc%2Fpasswd", "__unnamed__"),
            ("https://host/%2E%2e", "__unnamed__"),
            ("https://host/%2e", "__unnamed__"),
            ("https://host/a%00b", "__unnamed__"),
            ("https://host/x/%2e%2e/", "__unnamed__"),
        ];
        for (url, name) in cases {
            assert_eq!(file_name(url, UNNAMED), name, "{url}");
        }
    }
}
