//! From an archive to a directory.
//!
//! What a stranger's archive may do: make files, directories, links and special files beneath one directory.
//! It never reaches anything else, because every path is resolved beneath that directory by descriptor, the
//! last name is never followed, and what is in the way of an entry is removed before, not written through.
//!
//! Order of work on each entry: make it new and private, fill it, then owner, then mode and extended
//! attributes (a change of owner clears set-id bits and file capabilities), then time. The times of
//! directories come last of all.
//!
//! * The entry of the root itself is ignored: its mode is not the image's (as Docker does).
//! * Leading slashes and `.` mean nothing, `..` is resolved in the text; where it would leave the root, the
//!   archive is refused.
//! * A later entry replaces an earlier one; only a directory on a directory keeps what is in it.
//! * Whiteouts speak of lower layers only. One for a name that this archive holds, too, hides just what is
//!   below that.
//! * Attributes other than `security.capability`, `user.*` and access lists are dropped, overlayfs's own
//!   always: they would let an archive redirect paths.

mod attributes;
mod make;

use std::ffi::OsString;
use std::io::{BufRead, Read};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use rbuild_image::DiffId;
use rustix::fs::{FileType, makedev};

pub(crate) use self::attributes::is_welcome;
use super::archive::TREE_DEPTH_MAX;
use super::error::{Error, Refusal};
use super::parents::Parents;
use super::read_ahead::read_ahead;
use super::reader::{Entry, Kind, TarReader, Time};
use super::whiteout::{Mark, OverlayXattrs, mark_of};
use super::{LAYER_SIZE_BYTES_MAX, bytes_path};
use crate::fail_point::FailPoint;
use crate::root_dir::{At as _, RootDir};

/// The longest name that Linux file systems take.
pub(crate) const NAME_BYTES_MAX: usize = 255;

/// How archives are applied.
#[derive(Debug, Clone, Copy)]
pub struct ApplyOptions<'a> {
    /// What whiteout names mean.
    pub form: Form,
    /// The layers beneath, top first, when they are known. Needed for hard links to their files; attributes
    /// of directories that the archive does not mention come from them.
    pub lowers: &'a [RootDir],
    /// Who owns what is made.
    pub owners: Owners,
    /// Whether what is in the way of an entry may go. Otherwise a directory goes for nothing else, and nothing else for a directory.
    pub replaces: bool,
    /// What becomes of devices that this process may not make.
    pub devices: Devices,
    /// How much is too much.
    pub limits: Limits,
    /// Ends the work when it becomes true.
    pub cancel: Option<&'a AtomicBool>,
}

/// What whiteout names in an archive mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The archive is a layer and the target an empty directory: whiteouts become overlayfs's.
    Overlay(OverlayXattrs),
    /// The archive is just an archive, as for `ADD`: every name is a file's.
    Literal,
    /// The archive is a layer and the target the whole tree that it stands on: what whiteouts name is removed, and nothing else
    /// happens.
    Removals,
    /// The rest of the same, to be done after the removals.
    Additions,
}

/// Who owns what an archive's entries become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Whom the archive names.
    Keep,
    /// One owner for all.
    All {
        /// The owner.
        uid: u32,
        /// The owning group.
        gid: u32,
    },
    /// This process, which may not change owners: a user namespace with a single id.
    Squash,
}

/// What becomes of a device that this process may not make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Devices {
    /// An empty file in its place, as other rootless engines do.
    Placeholder,
    /// Nothing.
    Skip,
    /// The archive fails.
    Refuse,
}

/// What an archive may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries.
    pub entries: u64,
    /// Bytes of file contents, holes of sparse files included.
    pub content_bytes: u64,
    /// Names in a path.
    pub depth: usize,
    /// Bytes of extended attributes per entry.
    pub xattr_bytes: usize,
}

impl Default for Limits {
    /// More than any honest image needs: 20 million entries, [`LAYER_SIZE_BYTES_MAX`].
    fn default() -> Self {
        Self {
            entries: 20_000_000,
            content_bytes: LAYER_SIZE_BYTES_MAX,
            depth: TREE_DEPTH_MAX,
            xattr_bytes: 256 * 1024,
        }
    }
}

impl ApplyOptions<'_> {
    /// A layer into an empty upper directory, owners kept.
    pub fn layer(xattrs: OverlayXattrs) -> Self {
        Self::new(Form::Overlay(xattrs))
    }

    /// An archive for `ADD`, owners kept.
    pub fn literal() -> Self {
        Self::new(Form::Literal)
    }

    /// One half of a layer onto the tree that it stands on.
    pub(crate) fn onto_tree(form: Form) -> Self {
        Self::new(form)
    }

    fn new(form: Form) -> Self {
        let (owners, devices) = (Owners::Keep, Devices::Placeholder);
        Self { form, lowers: &[], owners, replaces: true, devices, limits: Limits::default(), cancel: None }
    }
}

/// What was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The digest of the archive, all its bytes.
    pub diff_id: DiffId,
    /// Its size.
    pub size_bytes: u64,
    /// Entries.
    pub entries: u64,
    /// Bytes of file contents.
    pub content_bytes: u64,
    /// Directories that the archive put something into without describing them.
    pub implied: Vec<PathBuf>,
    /// Devices that could not be made.
    pub devices_replaced: Vec<PathBuf>,
    /// Extended attributes that the file system would not take.
    pub xattrs_refused: u64,
}

/// Applies a tar, already decompressed, to a directory.
///
/// On an error the directory is left as it is then; discarding it is up to the caller.
pub fn apply(
    tar: &mut (dyn Read + Send),
    target: &RootDir,
    options: &ApplyOptions<'_>,
) -> Result<Applied, Error> {
    let (applier, archive) = apply_to(tar, Applier::new(target, options), options)?;
    Ok(Applied {
        implied: applier.parents.implied.into_iter().map(|implied| implied.path).collect(),
        devices_replaced: applier.devices_replaced,
        xattrs_refused: applier.xattrs_refused,
        ..archive
    })
}

/// Applies a tar, already decompressed, to whatever takes its entries. What only that knows is not said.
pub(crate) fn apply_to<T: Target>(
    tar: &mut (dyn Read + Send),
    target: T,
    options: &ApplyOptions<'_>,
) -> Result<(T, Applied), Error> {
    let (driver, digest, size_bytes) = read_ahead(tar, |ahead| {
        let mut driver = Driver { options, target, entries: 0, content_bytes: 0 };
        driver.run(ahead)?;
        Ok(driver)
    })?;
    let Driver { target, entries, content_bytes, .. } = driver;
    let applied = Applied {
        diff_id: DiffId(digest),
        size_bytes,
        entries,
        content_bytes,
        implied: Vec::new(),
        devices_replaced: Vec::new(),
        xattrs_refused: 0,
    };
    Ok((target, applied))
}

/// Where the entries of an archive go. Paths are relative, of plain names.
pub(crate) trait Target {
    /// Makes what an entry describes.
    fn make(&mut self, tar: &mut TarReader<impl BufRead>, entry: &Entry, path: &Path) -> Result<(), Error>;

    /// Does what a whiteout or an opaque mark at a path says.
    fn mark(&mut self, mark: Mark<'_>, path: &Path) -> Result<(), Error>;

    /// Does what has to wait until all is there.
    fn end(&mut self) -> Result<(), Error>;
}

/// Takes the entries from an archive.
struct Driver<'a, T> {
    options: &'a ApplyOptions<'a>,
    target: T,
    entries: u64,
    content_bytes: u64,
}

/// What makes files of entries.
struct Applier<'a> {
    options: &'a ApplyOptions<'a>,
    target: &'a RootDir,
    parents: Parents<'a>,
    /// Directories with the times they are to have, in the order of the archive.
    directory_times: Vec<(PathBuf, Time)>,
    devices_replaced: Vec<PathBuf>,
    xattrs_refused: u64,
}

/// A directory and the name in it that an entry makes.
struct Spot {
    dir: Rc<OwnedFd>,
    name: OsString,
    /// The path for messages.
    path: PathBuf,
}

/// What was in the way of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Directory,
    Whiteout,
    Other,
}

impl<T: Target> Driver<'_, T> {
    fn run(&mut self, input: impl BufRead) -> Result<(), Error> {
        let mut tar = TarReader::new(input);
        while let Some(entry) = tar.next_entry()? {
            if self.options.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed)) {
                return Err(Error::Cancelled);
            }
            self.entry(&mut tar, &entry)?;
        }
        self.target.end()
    }

    fn entry(&mut self, tar: &mut TarReader<impl BufRead>, entry: &Entry) -> Result<(), Error> {
        let path = path_in_root(&entry.path)?;
        FailPoint::LayerEntry.reach().at("make", &path)?;
        self.check_limits(entry, &path)?;
        let Some(name) = path.file_name() else {
            let is_dir = entry.kind == Kind::Directory;
            return if is_dir { Ok(()) } else { Err(Error::refused("/", Refusal::ReplacesRoot)) };
        };
        match (self.options.form, mark_of(name)) {
            (Form::Literal, _) | (Form::Overlay(_) | Form::Additions, Mark::Plain) => {
                self.target.make(tar, entry, &path)
            }
            (_, Mark::Invalid) => Err(Error::refused(&path, Refusal::WhiteoutOfNothing)),
            (_, Mark::Plain | Mark::Reserved) | (Form::Additions, _) => Ok(()),
            (_, mark) => self.target.mark(mark, &path),
        }
    }

    fn check_limits(&mut self, entry: &Entry, path: &Path) -> Result<(), Error> {
        let limits = &self.options.limits;
        self.entries += 1;
        if self.entries > limits.entries {
            return Err(Error::limit(path, "entries", limits.entries));
        }
        if path.iter().count() > limits.depth {
            return Err(Error::limit(path, "names in a path", limits.depth as u64));
        }
        let xattr_bytes: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        if xattr_bytes > limits.xattr_bytes {
            return Err(Error::limit(path, "bytes of extended attributes", limits.xattr_bytes as u64));
        }
        if let Kind::File { size_bytes, .. } = entry.kind {
            self.content_bytes = self.content_bytes.saturating_add(size_bytes);
            if self.content_bytes > limits.content_bytes {
                return Err(Error::limit(path, "bytes of content", limits.content_bytes));
            }
        }
        Ok(())
    }
}

/// A path as an archive means it: relative, of plain names.
pub(crate) fn path_in_root(written: &[u8]) -> Result<PathBuf, Error> {
    let written = bytes_path(written);
    let mut path = PathBuf::new();
    for component in written.components() {
        match component {
            Component::Normal(name) if name.len() > NAME_BYTES_MAX => {
                return Err(Error::limit(written, "bytes in a name", NAME_BYTES_MAX as u64));
            }
            Component::Normal(name) => path.push(name),
            Component::ParentDir if !path.pop() => {
                return Err(Error::refused(written, Refusal::LeadsOut));
            }
            _ => {}
        }
    }
    Ok(path)
}

impl<'a> Applier<'a> {
    fn new(target: &'a RootDir, options: &'a ApplyOptions<'a>) -> Self {
        let xattrs = match options.form {
            Form::Overlay(xattrs) => Some(xattrs),
            Form::Literal | Form::Removals | Form::Additions => None,
        };
        let parents = Parents::new(target, options.lowers, xattrs, options.owners != Owners::Squash);
        let (directory_times, devices_replaced) = (Vec::new(), Vec::new());
        Self { options, target, parents, directory_times, devices_replaced, xattrs_refused: 0 }
    }

    fn spot(&mut self, path: &Path) -> Result<Spot, Error> {
        let (above, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
        let place = self.parents.get(above)?;
        Ok(Spot { dir: Rc::clone(&place.dir), name: name.to_owned(), path: place.path.join(name) })
    }
}

impl Target for Applier<'_> {
    fn make(&mut self, tar: &mut TarReader<impl BufRead>, entry: &Entry, path: &Path) -> Result<(), Error> {
        let spot = self.spot(path)?;
        match &entry.kind {
            Kind::File { .. } => self.file(tar, entry, &spot),
            Kind::Directory => self.directory(entry, &spot),
            Kind::Symlink { target } => self.symlink(entry, &spot, target),
            Kind::HardLink { target } => self.hard_link(&spot, target),
            Kind::Device { block, major, minor } => {
                let kind = if *block { FileType::BlockDevice } else { FileType::CharacterDevice };
                self.device(entry, &spot, kind, makedev(*major, *minor))
            }
            Kind::Fifo => self.node(entry, &spot, FileType::Fifo, 0),
        }
    }

    fn mark(&mut self, mark: Mark<'_>, path: &Path) -> Result<(), Error> {
        match (self.options.form, mark) {
            (Form::Overlay(xattrs), Mark::Whiteout(hidden)) => {
                self.whiteout(&path.with_file_name(hidden), xattrs)
            }
            (Form::Overlay(xattrs), Mark::Opaque) => self.opaque(path, xattrs),
            (Form::Removals, Mark::Whiteout(hidden)) => self.remove(&path.with_file_name(hidden)),
            (Form::Removals, Mark::Opaque) => self.empty(path.parent().unwrap_or(Path::new(""))),
            _ => Ok(()),
        }
    }

    fn end(&mut self) -> Result<(), Error> {
        self.set_directory_times()
    }
}
