//! Sources: how files come into a build.

use rbuild_image::{Digest, Reference};
use serde::{Deserialize, Serialize};

/// Brings files into the build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceOp {
    /// An image of a registry or of this store.
    Image(ImageSource),
    /// A directory of the machine that the build was asked on: the context.
    Local(LocalSource),
    /// A git repository.
    Git(GitSource),
    /// A file from a web server.
    Http(HttpSource),
    /// An image in an OCI image layout.
    OciLayout(OciLayoutSource),
}

/// An image as a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSource {
    /// Which image. Pinned to the digest of its manifest once a frontend has resolved it.
    pub reference: Reference,
    /// Where to look.
    pub resolve_mode: ResolveMode,
    /// Take only the lowest so many layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_limit: Option<u32>,
}

/// Where an image is looked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResolveMode {
    /// In the store first, in the registry if it is not there.
    #[default]
    Default,
    /// In the registry, even if the store has it (`--pull`).
    ForcePull,
    /// Only in the store.
    PreferLocal,
    /// In the registry, and in the store if the registry cannot be reached.
    Newer,
}

/// A local directory as a source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LocalSource {
    /// Which directory, by the name the caller gave it: `context`, or a named context.
    pub name: String,
    /// Take only what matches one of these, where there are any.
    pub include: Vec<String>,
    /// Leave out what matches these, `.dockerignore` rules: the last match wins, `!` takes back.
    pub exclude: Vec<String>,
    /// Only these paths are ever read, and what symlinks among them lead to; empty means all.
    pub follow_paths: Vec<String>,
    /// A hint under which transfers of the same directory are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_key_hint: Option<String>,
}

/// A URL that can be shown: without user and password. The user of ssh is whose account it is, and stays.
pub fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let Some(at) = rest[..end].rfind('@') else { return url.to_owned() };
    let user = rest[..at].split(':').next().filter(|_| scheme == "ssh");
    let user = user.map(|user| format!("{user}@")).unwrap_or_default();
    format!("{scheme}://{user}{}", &rest[at + 1..])
}

/// A git repository as a source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitSource {
    /// The repository. Credentials in it are no part of a key.
    pub remote: String,
    /// Branch, tag or commit; empty is the default branch.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub git_ref: String,
    /// The directory of it to take.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subdir: String,
    /// The commit that it must be, in full or a prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// Keep `.git`.
    #[serde(default)]
    pub keep_git_dir: bool,
    /// Leave out submodules.
    #[serde(default)]
    pub skip_submodules: bool,
    /// The secret that holds a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_token_secret: Option<String>,
    /// The secret that holds a whole authorization header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_header_secret: Option<String>,
    /// The ssh agent to use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_id: Option<String>,
    /// The host keys to accept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_hosts: Option<String>,
    /// Give files the commit's time rather than that of the checkout.
    #[serde(default)]
    pub mtime_of_commit: bool,
}

/// A file from a web server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpSource {
    /// `http://` or `https://`.
    pub url: String,
    /// What its content must be. With it, no network is needed to know the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Digest>,
    /// What the file is called.
    pub filename: String,
    /// Its permission bits.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// The secret that holds an authorization header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_header_secret: Option<String>,
    /// Further request headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
}

/// An image in an OCI image layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OciLayoutSource {
    /// The layout, by the name the caller gave it.
    pub store: String,
    /// The manifest in it.
    pub digest: Digest,
    /// Take only the lowest so many layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_limit: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_shown() {
        let cases = [
            ("https://u:p@host/a@b", "https://host/a@b"),
            ("https://u@host?x=@", "https://host?x=@"),
            ("https://host/a@b", "https://host/a@b"),
            ("ssh://git:p@host/a", "ssh://git@host/a"),
            ("git@host:a", "git@host:a"),
        ];
        for (url, shown) in cases {
            assert_eq!(without_credentials(url), shown);
        }
    }
}
