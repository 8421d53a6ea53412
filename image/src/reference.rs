//! Image references: what people type, normalised as Docker normalises it.
//!
//! ```text
//! alpine                      docker.io/library/alpine:latest
//! team/app:1                  docker.io/team/app:1
//! 127.0.0.1:5000/app@sha256:… 127.0.0.1:5000/app@sha256:…
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::{Digest, ParseDigestError};

const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
/// The distribution specification's limits.
const REPOSITORY_LENGTH_MAX: usize = 255;
const TAG_LENGTH_MAX: usize = 128;

/// The name of an image: registry, repository, and a tag or a digest, or both (the digest then decides).
///
/// Always normalised, so that two spellings of one name are equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a string is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseReferenceError {
    /// Nothing was given.
    #[error("an image reference cannot be empty")]
    Empty,
    /// A character or a form that the grammar does not have.
    #[error("invalid reference format: `{0}`")]
    Malformed(String),
    /// Docker's rule: repositories are lower case.
    #[error("invalid reference format: repository name `{0}` must be lowercase")]
    UpperCase(String),
    /// Longer than registries accept.
    #[error("repository name `{0}` is longer than {REPOSITORY_LENGTH_MAX} characters")]
    TooLong(String),
    /// What follows the `@` is not a digest.
    #[error("invalid digest in reference")]
    Digest(#[from] ParseDigestError),
}

impl Reference {
    /// The registry's host, with its port if one was given: `docker.io`, `127.0.0.1:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository within the registry: `library/alpine`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if the reference has one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if the reference is pinned.
    pub const fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The same name pinned to a digest. The tag stays, for people to read.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// The same repository, and in it what has this tag.
    #[must_use]
    pub fn with_tag(&self, tag: &str) -> Self {
        Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() }
    }

    /// The short form that people type: without `docker.io/library/` where that is implied.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let (name, suffix) = full.split_at(self.registry.len() + 1 + self.repository.len());
        format!("{}{suffix}", self.short_name().unwrap_or(name))
    }

    /// The repository without the parts of the name that are read into it.
    fn short_name(&self) -> Option<&str> {
        let official = self.repository.strip_prefix("library/");
        let candidates = official.into_iter().chain([self.repository.as_str()]);
        candidates.into_iter().find(|name| {
            let (registry, repository) = split_registry(name);
            registry == self.registry && repository == self.repository
        })
    }

    /// The repository in its short form, without tag and digest.
    pub fn familiar_name(&self) -> String {
        Self { tag: None, digest: None, ..self.clone() }.familiar()
    }
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(ParseReferenceError::Empty);
        }
        let malformed = || ParseReferenceError::Malformed(text.to_owned());
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if !tag.is_none_or(is_tag) {
            return Err(malformed());
        }
        let (registry, repository) = split_registry(name);
        check_repository(text, &repository)?;
        if !is_registry(registry) {
            return Err(malformed());
        }
        let tag = tag.or_else(|| digest.is_none().then_some(DEFAULT_TAG)).map(str::to_owned);
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

/// The first component is a host if it looks like one: it has a dot, a colon or an upper-case letter, or is
/// `localhost`.
fn split_registry(name: &str) -> (&str, String) {
    match name.split_once('/') {
        Some((host, rest)) if is_host_like(host) => {
            let host = if host == "index.docker.io" { DEFAULT_REGISTRY } else { host };
            let bare = host == DEFAULT_REGISTRY && !rest.contains('/');
            (host, if bare { format!("library/{rest}") } else { rest.to_owned() })
        }
        Some(_) => (DEFAULT_REGISTRY, name.to_owned()),
        None => (DEFAULT_REGISTRY, format!("library/{name}")),
    }
}

fn is_host_like(component: &str) -> bool {
    component == "localhost"
        || component.contains(['.', ':'])
        || component.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_registry(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            if !address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':') {
                return false;
            }
            ("v6", port.strip_prefix(':').or_else(|| port.is_empty().then_some("0")))
        }
        None => host.split_once(':').map_or((host, Some("0")), |(name, port)| (name, Some(port))),
    };
    let is_label = |label: &str| {
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        edge(label.as_bytes().first())
            && edge(label.as_bytes().last())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    name.split('.').all(is_label) && port.is_some_and(|port| port.parse::<u16>().is_ok())
}

fn is_tag(tag: &str) -> bool {
    let mut bytes = tag.bytes();
    tag.len() <= TAG_LENGTH_MAX
        && bytes.next().is_some_and(|first| first.is_ascii_alphanumeric() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

fn check_repository(text: &str, repository: &str) -> Result<(), ParseReferenceError> {
    if repository.len() > REPOSITORY_LENGTH_MAX {
        return Err(ParseReferenceError::TooLong(repository.to_owned()));
    }
    if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(ParseReferenceError::UpperCase(repository.to_owned()));
    }
    if repository.split('/').all(is_path_component) {
        Ok(())
    } else {
        Err(ParseReferenceError::Malformed(text.to_owned()))
    }
}

/// `[a-z0-9]+` joined by `.`, `_`, `__` or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let edges = [component.bytes().next(), component.bytes().next_back()];
    if !edges.iter().all(|edge| edge.is_some_and(is_word)) {
        return false;
    }
    component.split(|character: char| character.is_ascii_alphanumeric()).all(|separator| {
        matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
    })
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        self.tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn references_are_normalised() {
        let pinned = format!("alpine@{DIGEST}");
        let both = format!("ghcr.io/a/b:1@{DIGEST}");
        let cases = [
            ("alpine", "docker.io/library/alpine:latest".to_owned(), "alpine:latest".to_owned()),
            ("alpine:3.20", "docker.io/library/alpine:3.20".into(), "alpine:3.20".into()),
            ("team/app", "docker.io/team/app:latest".into(), "team/app:latest".into()),
            ("docker.io/alpine", "docker.io/library/alpine:latest".into(), "alpine:latest".into()),
            ("index.docker.io/x/y", "docker.io/x/y:latest".into(), "x/y:latest".into()),
            ("localhost/app", "localhost/app:latest".into(), "localhost/app:latest".into()),
            ("localhost:5000/a/b:c", "localhost:5000/a/b:c".into(), "localhost:5000/a/b:c".into()),
            ("[::1]:5000/a", "[::1]:5000/a:latest".into(), "[::1]:5000/a:latest".into()),
            (pinned.as_str(), format!("docker.io/library/alpine@{DIGEST}"), format!("alpine@{DIGEST}")),
            (both.as_str(), both.clone(), both.clone()),
            // What is short must mean the same.
            ("library/a/b", "docker.io/library/a/b:latest".into(), "library/a/b:latest".into()),
            (
                "docker.io/localhost/a",
                "docker.io/localhost/a:latest".into(),
                "docker.io/localhost/a:latest".into(),
            ),
            ("a__b/c-d--e.f", "docker.io/a__b/c-d--e.f:latest".into(), "a__b/c-d--e.f:latest".into()),
        ];
        for (text, full, familiar) in &cases {
            let reference: Reference = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((reference.to_string(), reference.familiar()), (full.clone(), familiar.clone()));
            for written in [full, familiar] {
                assert_eq!(written.parse().as_ref(), Ok(&reference));
            }
        }
    }

    #[test]
    fn malformed_references_are_refused() {
        let long = "a".repeat(REPOSITORY_LENGTH_MAX + 1);
        let cases = [
            "",
            ":tag",
            "a:",
            "a:b:c",
            "a//b",
            "/a",
            "a/",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "A",
            "x/Y",
            "a b",
            "a@",
            "a@b",
            "host.com:port/a",
            "host.:1/a",
            "a:.tag",
            "a\n",
            &long,
        ];
        for text in cases {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn upper_case_names_say_so() {
        assert_eq!("Base".parse::<Reference>(), Err(ParseReferenceError::UpperCase("library/Base".into())));
    }
}
