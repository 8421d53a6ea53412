//! The digest of what a step is given: files chosen from a tree, by what they are and hold.
//!
//! | in the digest | not in it, and why |
//! |---|---|
//! | names, relative to the selection | where the selection is: the step says so itself |
//! | type, permission bits with set-id and sticky bits | times: a fresh checkout has new ones |
//! | owner and group | those of a build context, which count as 0:0, as they do in the image |
//! | size, content, link target, device numbers | inode numbers, link counts, holes |
//! | `security.capability`, access lists and attributes of no special namespace | labels (`security.*`): the machine's; overlay marks; in a build context capabilities and access lists, too |
//! | in a layer: whiteouts, opaque marks, the root's own attributes | overlayfs's other marks; which names are one file |
//!
//! A directory's digest is made of its own attributes and its entries' names and digests, so equal subtrees
//! have equal digests wherever they are. The content digest of a file is the plain BLAKE3 of its bytes.
//!
//! How it is done: directories are listed level by level (`walk`), then all files are looked at in small groups
//! (`file`), both on the given pool and without nesting, then digests are folded from the bottom up
//! (`fold`). Files that [`StatCache`] knows and whose attributes are unchanged are not read, nor are those that a layer says to hold something.

mod file;
mod fold;
mod known;
mod scan;
mod seen;
mod stat_cache;
mod tree;
mod walk;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use rayon::ThreadPool;
use thiserror::Error;

pub use self::fold::Folded;
pub use self::known::{KnownContext, KnownFile, KnownFiles};
pub(crate) use self::scan::{LayerEntry, LayerScan, scan_layer};
pub use self::seen::{Seen, SeenGroup};
pub use self::stat_cache::{DirectoryId, MemoryStatCache, StatCache};
pub(crate) use self::tree::digest_of_tree;
pub use self::tree::{KnownContents, content_of, digest_of_directory};
use self::walk::Walk;
use crate::layer::OverlayXattrs;
pub use crate::layer::TREE_DEPTH_MAX;
use crate::root_dir::{FileType, PathError, RootDir};
use crate::snapshot::KnownLayers;

/// A BLAKE3 value.
pub type Blake3 = [u8; 32];

/// Computing a content digest failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The file system refused something. A selected path that does not exist is told by
    /// [`PathError::is_not_found`].
    #[error(transparent)]
    Path(#[from] PathError),
    /// More directories in each other than rbuild walks.
    #[error("`{}` is nested deeper than {TREE_DEPTH_MAX} directories", path.display())]
    TooDeep {
        /// The directory.
        path: PathBuf,
    },
    /// The work was cancelled.
    #[error("cancelled")]
    Cancelled,
}

/// What a filter says about a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It counts. If it is a directory, what is in it is asked about.
    Take,
    /// It counts, and all that is in it; nobody is asked.
    TakeTree,
    /// It does not count, but things in it may. If one does, so does the directory.
    Skip,
    /// Neither it nor anything in it counts.
    SkipTree,
}

/// Chooses among what is below a selected path, by the path relative to that and whether it is a directory.
/// Called on several threads.
pub type Filter<'a> = &'a (dyn Fn(&Path, bool) -> Verdict + Sync);

/// A path whose tree is digested.
#[derive(Clone, Copy)]
pub struct Selected<'a> {
    /// Where it is in the root; symlinks in its directories are followed.
    pub path: &'a Path,
    /// What it counts as: nothing where the step names the path itself, the name that was found where the
    /// step has a pattern.
    pub name: &'a Path,
    /// Whether a symlink at its end is followed.
    pub follow_links: bool,
    /// Of a directory, only what is in it counts, not its own owner, mode and attributes.
    pub contents_only: bool,
    /// What of it counts; `None` is all.
    pub filter: Option<Filter<'a>>,
}

impl<'a> Selected<'a> {
    /// All of what a path leads to, symlinks followed.
    pub fn tree(path: &'a Path) -> Self {
        Self { path, name: Path::new(""), follow_links: true, contents_only: false, filter: None }
    }
}

impl std::fmt::Debug for Selected<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Selected").field("path", &self.path).field("name", &self.name).finish_non_exhaustive()
    }
}

/// Whose the files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TreeOwner {
    /// Root's, without capabilities and access lists: a build context.
    Zero = 1,
    /// As the tree says: a snapshot. Rows of a stat cache with a 0 are of snapshots, too, without their access lists.
    Keep = 2,
}

/// How a digest is computed.
#[derive(Clone, Copy)]
pub struct DigestOptions<'a> {
    /// Where the work is done.
    pub pool: &'a ThreadPool,
    /// Whose the files are.
    pub owner: TreeOwner,
    /// What is known of files from before.
    pub memory: Option<Memory<'a>>,
    /// What is known of a snapshot's.
    pub layers: Option<&'a KnownLayers>,
    /// Ends the work when it becomes true.
    pub cancel: Option<&'a AtomicBool>,
}

/// A stat cache and the time at which it is used.
#[derive(Clone, Copy)]
pub struct Memory<'a> {
    /// What is known.
    pub cache: &'a dyn StatCache,
    /// The time before the walk, in Unix nanoseconds. A file that changed later, or shortly before, is not
    /// remembered: it could change again without a trace.
    pub now_ns: i64,
}

impl std::fmt::Debug for DigestOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DigestOptions").field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Memory<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("now_ns", &self.now_ns).finish_non_exhaustive()
    }
}

/// The digest of a selection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeDigest {
    /// The digest.
    pub digest: Blake3,
    /// Files of all types that count, directories among them.
    pub files: u64,
    /// The sizes of the regular files that count, together.
    pub size_bytes: u64,
    /// How many bytes were read for it.
    pub read_bytes: u64,
}

/// What counts of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeEntry {
    /// Its type.
    pub kind: FileType,
    /// Permission bits.
    pub mode: u32,
    /// The owner that counts.
    pub uid: u32,
    /// The group that counts.
    pub gid: u32,
    /// The size of a regular file.
    pub size_bytes: u64,
    /// The device numbers of a device.
    pub device: u64,
    /// The BLAKE3 of a file's content or a symlink's target.
    pub content: Option<Blake3>,
    /// The digest of its extended attributes, if it has any that count.
    pub xattrs: Option<Blake3>,
}

/// Digests what is selected of a tree. The order of the selected paths matters.
pub fn digest_tree(
    root: &RootDir,
    selected: &[Selected<'_>],
    options: &DigestOptions<'_>,
) -> Result<TreeDigest, Error> {
    look_at_tree(root, selected, options).map(|(digest, _)| digest)
}

/// The same, with what it was made of.
pub fn look_at_tree(
    root: &RootDir,
    selected: &[Selected<'_>],
    options: &DigestOptions<'_>,
) -> Result<(TreeDigest, Seen), Error> {
    digest(root, selected, options, None)
}

/// Digests a layer's directory in the form of an overlay upper directory; deletions count as what they are.
///
/// The digest of a stack of layers is made of these.
pub fn digest_layer(
    layer: &RootDir,
    xattrs: OverlayXattrs,
    options: &DigestOptions<'_>,
) -> Result<TreeDigest, Error> {
    digest(layer, &[Selected::tree(Path::new(""))], options, Some(xattrs)).map(|(digest, _)| digest)
}

/// The digest of what a symbolic link is: where it leads.
pub fn digest_of_link(target: &[u8]) -> Blake3 {
    *blake3::hash(target).as_bytes()
}

/// The digest of what a file holds, and how much that is.
pub(crate) fn content_digest(file: &std::fs::File) -> std::io::Result<(Blake3, u64)> {
    use std::os::fd::AsFd as _;
    Ok(file::content_digest(file.as_fd())?)
}

fn digest(
    root: &RootDir,
    selected: &[Selected<'_>],
    options: &DigestOptions<'_>,
    marks: Option<OverlayXattrs>,
) -> Result<(TreeDigest, Seen), Error> {
    options.pool.install(|| {
        let mut walk = Walk::new(root, options, marks);
        let tops = walk.run(selected)?;
        let looked = file::look(&walk, &tops, selected)?;
        let (digest, folded) = fold::fold(&walk, &tops, &looked, selected);
        Ok((digest, Seen::new(walk, tops, looked, folded, selected)))
    })
}

#[cfg(test)]
mod tests;
