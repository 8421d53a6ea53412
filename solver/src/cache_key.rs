//! What makes two steps the same.
//!
//! A step has a *definition key*: what it does, and the definition keys of its inputs. It is known before
//! anything runs. And it has a *content key*: what it does, and what its inputs really contain. It is known once they
//! are there, and finds the step's result again when an input was made anew and came out the same; what the step added then lies
//! on what was made anew. Merges and diffs have none ([`cache_map::has_content_key`]).
//!
//! Both start from the op's digest. What is in it, and what is not:
//!
//! | op | in the key | not in the key, and why |
//! |---|---|---|
//! | all | the domain `rbuild.<op>.v<n>`; which of the inputs, by position, is used for what | name, source lines, internal, ignore-cache: they do not change the result. Memory and CPU limits: they say how fast, not what |
//! | exec | arguments; environment in its order; directory; user; host name; names of extra hosts; ulimits; parent cgroup; accepted exit codes; stub removal; network; security; platform; devices | proxy variables and addresses of extra hosts: they differ between machines that make the same. `-v`, `--trust-ca`, `--security-opt`, and that a machine had no network for a step that may have one: they are the machine's, and a step that asks for them to see what it may do is not run again |
//! | exec, secrets | id, variable name, whether optional | the value: it must not leave a trace, and a new token is not a new build |
//! | exec, every mount | target, read-only, which output it becomes, kind | |
//! | exec, bind mount | as a selection, what it shows | the selector's text where the content is hashed: two paths with the same files are the same |
//! | exec, cache mount | that it is one | id, sharing and contents: a cache must not change the result, only the time it takes |
//! | exec, tmpfs mount | its size: a step can fail for want of it | |
//! | exec, secret mount | id, owner, mode, whether optional | the value, as above |
//! | exec, ssh mount | id, owner, mode, whether optional | the agent behind it and its keys |
//! | copy | the last component of the source (what a file is called afterwards), or all of it with `--parents`; destination; owner; mode; every option; include and exclude patterns; explicit timestamp | the source's directory, `.dockerignore`, files that are not selected, how the instruction was written |
//! | mkfile, mkdir, symlink, rm | all fields: path, mode, data, owner, options, explicit timestamp | |
//! | file ops, merge, diff | | platform: files are copied alike on all, so platforms share the work |
//! | merge, diff | which inputs, in their order | |
//! | image | manifest digest; layer limit; platform | name and tag: two names of one manifest are one image. Where to look for it |
//! | OCI layout | as image | the layout's name |
//! | all sources | that files cannot be given to others than root, where that is so | |
//! | git | commit; subdirectory; submodules; commit times; whether `.git` is kept, and then the remote, which is written in it | the remote otherwise, the branch or tag, the expected commit, credentials, host keys: the commit says it all |
//! | http | what the worker pins it to (content digest, last modified); file name, mode, owner | URL, headers, credentials, ETag, the expected digest |
//! | local | the content digest of the files a step selects, in the place of a definition key | the directory's name and path, patterns, hints |
//!
//! An input enters the definition key as its own definition key, its output's number and the [`Selection`] taken of
//! it; a local source as the content digest of the selection. It enters the content key as the content digest of the
//! selection. Modification times are in no content digest.
//!
//! Where an input is taken whole although the op names paths in it (it is base and source of one copy, a mount whose
//! changes are kept), the selection no longer says which paths, and the op's digest holds them in full.
//!
//! Hashes are made with [`KeyHasher`] field by field: never from `Debug` or serialised output, which change for reasons
//! of their own. Golden keys in `testdata/digests` hold each op's form.

mod ops;

use std::fmt;

use rbuild_image::KeyHasher;
use rbuild_llb::{OpDigest, OutputIndex, Vertex};
use serde::{Deserialize, Serialize};

use crate::cache_map::{self, SelectedPath, Selection};

/// A definition key or a content key: the name of a record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct CacheKey(pub [u8; 32]);

/// A text that is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a cache key is 64 hex digits")]
pub struct ParseCacheKeyError;

impl From<CacheKey> for String {
    fn from(key: CacheKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for CacheKey {
    type Error = ParseCacheKeyError;

    fn try_from(text: String) -> Result<Self, ParseCacheKeyError> {
        let mut key = [0; 32];
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != key.len() || !rest.is_empty() {
            return Err(ParseCacheKeyError);
        }
        for (byte, pair) in key.iter_mut().zip(pairs) {
            let digits = str::from_utf8(pair).map_err(|_| ParseCacheKeyError)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| ParseCacheKeyError)?;
        }
        Ok(Self(key))
    }
}

/// The digest of files, without modification times.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContentDigest(pub [u8; 32]);

/// What a source was pinned to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SourceIdentity(pub [u8; 32]);

fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8; 32]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

impl fmt::Debug for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

impl fmt::Debug for SourceIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

/// What one input, or the pinned source itself, brings into a definition key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Contribution {
    /// What a source is pinned to.
    Identity(SourceIdentity),
    /// An output of a step.
    Definition {
        /// The step's definition key.
        key: CacheKey,
        /// Which output.
        output: OutputIndex,
        /// What is taken of it.
        selection: Selection,
    },
    /// Files of a local source.
    Content(ContentDigest),
}

impl Contribution {
    /// The digest of files of a local source, if that is what it is.
    pub fn content(&self) -> Option<[u8; 32]> {
        match self {
            Self::Content(digest) => Some(digest.0),
            Self::Identity(_) | Self::Definition { .. } => None,
        }
    }
}

/// All that a definition key is made of. It is kept with the record, so that a later miss can be explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyTrace {
    /// What the step does.
    pub op: OpDigest,
    /// What its inputs bring, in their order.
    pub inputs: Vec<Contribution>,
}

impl KeyTrace {
    /// The definition key.
    pub fn key(&self) -> CacheKey {
        definition_key(self.op, &self.inputs)
    }
}

/// The digest of what a vertex does, by the table above.
pub fn op_digest(vertex: &Vertex) -> OpDigest {
    op_digest_with(vertex, &cache_map::selections(vertex))
}

/// The same, when it is already known what is taken of each input.
pub(crate) fn op_digest_with(vertex: &Vertex, selections: &[Selection]) -> OpDigest {
    ops::digest(vertex, selections)
}

/// The key of a step by what it does and by where its inputs come from.
pub fn definition_key(op: OpDigest, contributions: &[Contribution]) -> CacheKey {
    let mut hasher = KeyHasher::new("rbuild.definition-key.v1");
    hasher.bytes(&op.0).list(contributions, |hasher, contribution| match contribution {
        Contribution::Identity(identity) => {
            hasher.number(0u8).bytes(&identity.0);
        }
        Contribution::Definition { key, output, selection } => {
            hasher.number(1u8).bytes(&key.0).number(output.0);
            feed_selection(hasher, selection);
        }
        Contribution::Content(digest) => {
            hasher.number(2u8).bytes(&digest.0);
        }
    });
    CacheKey(hasher.finish())
}

/// The key of a step by what it does and by what its inputs contain.
pub fn content_key(op: OpDigest, contents: &[ContentDigest]) -> CacheKey {
    let mut hasher = KeyHasher::new("rbuild.content-key.v1");
    hasher.bytes(&op.0).list(contents, |hasher, digest| {
        hasher.bytes(&digest.0);
    });
    CacheKey(hasher.finish())
}

/// The digest of a selection of nothing: an input that an op does not name.
pub(crate) fn nothing() -> ContentDigest {
    ContentDigest(KeyHasher::new("rbuild.nothing.v1").finish())
}

fn feed_selection(hasher: &mut KeyHasher, selection: &Selection) {
    match selection {
        Selection::Whole => {
            hasher.number(0u8);
        }
        Selection::Paths(paths) => {
            hasher.number(1u8).list(paths, feed_path);
        }
    }
}

fn feed_path(hasher: &mut KeyHasher, selected: &SelectedPath) {
    let SelectedPath { path, wildcard, follow_links, contents_only, parents, include, exclude } = selected;
    hasher.str(path).number(*wildcard).number(*follow_links).number(*contents_only).number(*parents);
    for patterns in [include, exclude] {
        hasher.list(patterns, |hasher, pattern| {
            hasher.str(pattern);
        });
    }
}
