//! Mounts as resolved: where they come from, where they go, what they forbid.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};
use serde::{Deserialize, Serialize};

/// The root file system of a container.
#[derive(Debug)]
pub enum Root {
    /// A mount attached to nothing yet, as `fsmount` and `open_tree(OPEN_TREE_CLONE)` make them. It can be used once.
    Detached(OwnedFd),
    /// A directory of the host.
    Directory(PathBuf),
    /// A directory that is changed itself. The process has no namespaces of its own.
    Plain(PlainRoot),
}

/// A plain directory as a root, for where nothing can be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainRoot {
    /// The directory.
    pub root: PathBuf,
    /// An empty one on the same file system, of no use to anybody else.
    pub scratch: PathBuf,
}

/// One mount of a container, besides those that every container has.
#[derive(Debug)]
pub struct Mount {
    /// Where, in the container. Resolved inside the root: a symbolic link cannot lead out of it.
    pub target: PathBuf,
    /// What.
    pub source: MountSource,
    /// What is forbidden below it.
    pub flags: MountFlags,
}

/// What a mount shows.
#[derive(Debug)]
pub enum MountSource {
    /// A directory or file of the host, with what is mounted below it.
    Bind(PathBuf),
    /// The same, already open (`O_PATH` will do).
    BindOpen(OwnedFd),
    /// A file or directory that is itself moved there, and back when the process has ended. In a [`PlainRoot`] on the same file
    /// system only.
    Moved(PathBuf),
    /// A mount attached to nothing yet.
    Detached(OwnedFd),
    /// What is at a path in a mount attached to nothing yet; resolved inside that mount. Init attaches it first, as the kernel
    /// copies a part only of what is attached in its own namespace.
    Within {
        /// The mount.
        mount: OwnedFd,
        /// The path in it.
        path: PathBuf,
    },
    /// An empty file system in memory.
    Tmpfs(TmpfsOptions),
}

/// What an empty file system in memory is like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TmpfsOptions {
    /// The most it may hold; half of the memory when not given.
    pub size_bytes: Option<u64>,
    /// How many files and directories it may hold; as many as pages fit in half of the memory when not given.
    pub inodes_max: Option<u64>,
    /// The permissions of its top directory; when not given those of the directory that it covers, or for all users where there is
    /// none.
    pub mode: Option<u32>,
    /// Whose its top directory is; root's when not given.
    pub uid: Option<u32>,
    /// The group of its top directory; root's when not given.
    pub gid: Option<u32>,
}

/// What a mount forbids. A bind applies them to the mounts below it too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountFlags {
    /// No writing.
    pub readonly: bool,
    /// Set-user-id bits are without effect.
    pub nosuid: bool,
    /// Device files cannot be opened.
    pub nodev: bool,
    /// Programs cannot be executed.
    pub noexec: bool,
}

/// The directories and the empty files that must exist in a root for the mounts that all containers of a kind have.
///
/// A store that puts them into a layer below all others spares each start their making and removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stubs {
    /// What they are called together.
    pub name: &'static str,
    /// Directories, relative to the root.
    pub directories: &'static [&'static str],
    /// Files, relative to the root.
    pub files: &'static [&'static str],
}

impl Stubs {
    /// Those of a step of a build.
    pub const STEP: Self = Self {
        name: "step",
        directories: &["dev", "etc", "proc", "sys"],
        files: &["etc/hosts", "etc/resolv.conf"],
    };
    /// Those of a container.
    pub const CONTAINER: Self =
        Self { name: "container", files: &["etc/hostname", "etc/hosts", "etc/resolv.conf"], ..Self::STEP };
}

/// A file system of its own, attached to nothing. An option without a value is a flag.
pub(crate) fn filesystem(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", kind)?;
    for (key, value) in options {
        if value.is_empty() {
            fsconfig_set_flag(&context, *key)?;
        } else {
            fsconfig_set_string(&context, *key, *value)?;
        }
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}
