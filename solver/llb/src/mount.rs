//! Mounts as a build declares them. What the executor mounts is its own type; the solver resolves one to the other.

use serde::{Deserialize, Serialize};

use crate::{InputIndex, OutputIndex};

/// A file system that an exec sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The input that it shows; `None` starts empty.
    pub input: Option<InputIndex>,
    /// The path within the input.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// Where it is seen, absolute.
    pub target: String,
    /// The output that what was written becomes; `None` discards it.
    pub output: Option<OutputIndex>,
    /// Whether writing fails.
    pub readonly: bool,
    /// What kind of file system.
    pub kind: MountKind,
}

/// What a mount is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    /// A tree of the build.
    Bind,
    /// A directory that outlives the build.
    Cache {
        /// Which; a build argument may put a name space before it.
        id: String,
        /// Who may use it at the same time.
        sharing: CacheSharing,
    },
    /// Memory.
    Tmpfs {
        /// The most it may hold; `None` leaves it to the kernel.
        size_bytes: Option<u64>,
    },
    /// A secret as a file.
    Secret(SecretFile),
    /// The socket of an ssh agent.
    Ssh(SshSocket),
}

/// Who may use a cache mount at the same time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheSharing {
    /// Everyone.
    #[default]
    Shared,
    /// One; others get a directory of their own.
    Private,
    /// One; others wait.
    Locked,
}

/// A secret as a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretFile {
    /// Which secret.
    pub id: String,
    /// The file's owner.
    pub uid: u32,
    /// The file's group.
    pub gid: u32,
    /// The file's permission bits.
    pub mode: u32,
    /// Whether the step goes on without it.
    pub optional: bool,
}

/// The socket of an ssh agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshSocket {
    /// Which agent; `default` is the user's own.
    pub id: String,
    /// The socket's owner.
    pub uid: u32,
    /// The socket's group.
    pub gid: u32,
    /// The socket's permission bits.
    pub mode: u32,
    /// Whether the step goes on without it.
    pub optional: bool,
}
