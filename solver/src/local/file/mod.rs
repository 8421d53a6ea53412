//! What COPY, ADD and WORKDIR do to a tree.
//!
//! [`apply`] carries out one [`FileAction`] on a mounted tree. Every path is resolved beneath its [`RootDir`], so nothing in
//! a tree or in a context can lead out of it. In reading order:
//!
//! 1. `copy.rs`: which sources, and where each goes; the rules people trip over are there.
//! 2. `source.rs` finds sources: wildcards, symlinks, what a `.dockerignore` hides.
//! 3. `tree.rs` copies a directory, in parallel, with `filter.rs` to say what of it.
//! 4. `graft.rs` takes one as a tree instead, where layers can be trees;
//! 5. `unpack.rs` unpacks an archive, into a directory or a tree;
//! 6. `entry.rs` copies one file, link or device; `content.rs` its bytes; `attributes.rs` the rest.
//!
//! The rules are BuildKit's as observed, with its bugs left out; a test beside the code holds each.

mod attributes;
mod chmod;
mod content;
mod copy;
mod entry;
mod error;
mod filter;
mod graft;
mod mkdir;
mod mkfile;
mod owner;
mod rm;
mod run;
mod source;
mod symlink;
mod tree;
mod unpack;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use rbuild_cache::content_digest::{KnownContents, KnownContext};
use rbuild_cache::root_dir::RootDir;
use rbuild_cache::tree::grow::PackedTree;
use rbuild_cache::tree::{NamesByDirectory, Tree};
use rbuild_cache::{ActiveSnapshot, KnownLayers};
use rbuild_llb::pattern::Patterns;
use rbuild_llb::{FileAction, FileInput};

pub use self::chmod::{ModeChange, ParseModeError};
pub use self::error::FileError;
use self::run::Run;
pub(super) use self::source::find as find_sources;

/// A tree that an action reads from.
#[derive(Debug, Clone, Copy)]
pub struct CopySource<'a> {
    /// The tree.
    pub root: &'a RootDir,
    /// What it is: it decides what of a file's attributes is worth keeping.
    pub kind: SourceKind,
    /// What of it is not to be seen: the `.dockerignore` of a context.
    pub exclude: Option<&'a Patterns>,
    /// What its layers say of it, if it has any.
    pub layers: Option<&'a KnownLayers>,
}

/// What a tree that is copied from is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// A stage or an image: owners and file capabilities mean something.
    Tree,
    /// Files of the host: owners are the host's and count as 0:0, capabilities are dropped, and a socket is copied as an empty
    /// file.
    Context,
}

/// Gives the tree that an action means by an input; `None` is the empty tree.
pub type Trees<'t, 'a> = &'t dyn Fn(FileInput) -> Option<CopySource<'a>>;

/// How to carry out actions.
#[derive(Clone, Copy)]
pub struct FileOptions<'a> {
    /// The time of the build, Unix nanoseconds: the modification time of what an action makes rather than copies.
    pub now_ns: i64,
    /// Set to stop.
    pub cancel: &'a AtomicBool,
    /// Told what has been copied so far, from several threads, in steps of many files or bytes.
    pub progress: &'a (dyn Fn(Progress) + Sync),
    /// Where directories are copied in parallel.
    pub pool: &'a rayon::ThreadPool,
    /// What becomes of directories.
    pub directories: Directories<'a>,
    /// What is known of the files of a context.
    pub known: Option<&'a KnownContext<'a>>,
    /// There is one user id only (rootless without a range): owners cannot be set, and that they cannot is no error.
    pub single_id: bool,
}

/// Says of a directory what of it has to be copied.
pub type Compare<'a> = dyn Fn(&Planned) -> Result<Option<NamesByDirectory>, FileError> + Sync + 'a;

/// What becomes of a directory, or an archive, that is all that an action copies.
#[derive(Clone, Copy)]
pub enum Directories<'a> {
    /// It is copied.
    Copied,
    /// With so many files or more, it is left to be taken as a tree ([`Stats::graft`]), where trees can be mounted.
    Planned {
        /// How many.
        files_min: usize,
        /// The layer that it is to be in.
        layer: &'a ActiveSnapshot,
    },
    /// With so many files or more, only what this says of it is copied; all, where it says nothing.
    Compared {
        /// How many.
        files_min: usize,
        /// Says what has to be copied.
        compare: &'a Compare<'a>,
    },
}

impl std::fmt::Debug for Directories<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Copied => "Copied",
            Self::Planned { .. } => "Planned",
            Self::Compared { .. } => "Compared",
        })
    }
}

impl std::fmt::Debug for FileOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { now_ns, directories, single_id, .. } = self;
        f.debug_struct("FileOptions")
            .field("now_ns", now_ns)
            .field("directories", directories)
            .field("single_id", single_id)
            .finish_non_exhaustive()
    }
}

/// How much one action has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Files, links, devices and directories made.
    pub entries: u64,
    /// The size of the files.
    pub bytes: u64,
}

/// What an action did.
#[derive(Debug, Default)]
pub struct Stats {
    /// How much.
    pub total: Progress,
    /// What went differently from what was probably meant; at most [`WARNINGS_MAX`].
    pub warnings: Vec<Warning>,
    /// What is still to be put into the tree.
    pub graft: Option<Graft>,
}

/// What goes into a directory of the tree, nothing of which is in its way.
#[derive(Debug)]
pub enum Graft {
    /// A directory.
    Planned(Planned),
    /// An archive.
    Unpacked {
        /// The directory of the tree that all of it goes into.
        path: PathBuf,
        /// What goes in there.
        tree: PackedTree,
    },
}

/// A directory that was looked at and not copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The directory of the tree that all of it goes into, and that is empty.
    pub path: PathBuf,
    /// What goes in there.
    pub tree: Tree,
    /// What is known of directories of it, see [`PlannedTree`](rbuild_cache::tree::grow::PlannedTree).
    pub known: KnownContents,
    /// The directory below the root that was copied from that has all of it, by the same names.
    pub source: PathBuf,
    /// Whether all of it is what the build had seen of a context before.
    pub is_as_seen: bool,
}

/// The most warnings that one action returns.
pub const WARNINGS_MAX: usize = 64;

/// Something that is no error in a Dockerfile, and seldom intended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// A user who is not in `/etc/passwd`. Root was taken.
    #[error("user `{name}` is not in `/etc/passwd`: 0 is used")]
    UnknownUser {
        /// The name.
        name: String,
    },
    /// A group that is not in `/etc/group`. The user's own was taken.
    #[error("group `{name}` is not in `/etc/group`: {used} is used")]
    UnknownGroup {
        /// The name.
        name: String,
        /// The group id taken.
        used: u32,
    },
    /// A wildcard that matches nothing. Nothing was copied.
    #[error("`{pattern}` matches nothing")]
    NothingMatched {
        /// The pattern as it was written.
        pattern: String,
    },
    /// A device in an archive that this process may not make. An empty file is in its place.
    #[error("the device `{}` could not be made: an empty file is in its place", path.display())]
    DeviceReplaced {
        /// The device, relative to the destination.
        path: PathBuf,
    },
    /// The destination does not take file capabilities.
    #[error("the capabilities of `{}` were not kept", path.display())]
    CapabilitiesLost {
        /// The file, relative to what was copied.
        path: PathBuf,
    },
}

/// Carries out one action on the tree `dest`.
///
/// `trees` gives the trees that the action names: what it copies from, and where it looks up owners; `None` stands for the
/// empty tree. On an error `dest` holds part of the result, and is to be discarded.
///
/// # Errors
/// When the action cannot be done, or was cancelled.
pub fn apply(
    action: &FileAction,
    dest: &RootDir,
    trees: Trees<'_, '_>,
    options: &FileOptions<'_>,
) -> Result<Stats, FileError> {
    let run = Run::new(options);
    match action {
        FileAction::Copy(action) => copy::copy(&run, action, dest, trees)?,
        FileAction::Mkfile(action) => mkfile::mkfile(&run, action, dest, trees)?,
        FileAction::Mkdir(action) => mkdir::mkdir(&run, action, dest, trees)?,
        FileAction::Rm(action) => rm::rm(&run, action, dest)?,
        FileAction::Symlink(action) => symlink::symlink(&run, action, dest, trees)?,
    }
    run.finish()
}
