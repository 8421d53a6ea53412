//! Copies one entry of a directory that is not a directory itself.

use std::collections::hash_map::Entry;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rbuild_cache::root_dir::{At, FileType, OFlags, PathError, Stat};
use rustix::fs::{AtFlags, Mode, fstat, linkat, mknodat, openat, readlinkat, statat, symlinkat};
use rustix::io::Errno;

use super::attributes::Attributes;
use super::content::{self, Buffer, ContentError};
use super::run::lock;
use super::tree::{Dest, Dir, TreeCopy};
use super::{FileError, SourceKind};

/// Not waiting for the other end of a fifo that took the file's place.
const OPEN_SOURCE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);
const CREATE: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// One entry on its way.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    pub(super) dir: &'a Dir,
    /// Its name in the source.
    pub(super) name: &'a OsStr,
    pub(super) dest: &'a Dest,
    /// Its name in the destination.
    pub(super) dest_name: &'a OsStr,
    /// For errors, and for links within the copy: relative to the destination's top.
    pub(super) path: &'a Path,
}

impl TreeCopy<'_> {
    /// Copies the entry `name` of a directory under the same name.
    pub(super) fn entry(
        &self,
        dir: &Dir,
        name: &OsStr,
        kind: FileType,
        buffer: &mut Buffer,
    ) -> Result<(), FileError> {
        let dest = self.dest(dir)?;
        let path = dir.path.join(name);
        self.item(&Item { dir, name, dest, dest_name: name, path: &path }, kind, buffer)
    }

    /// Copies one entry, whatever it is but a directory.
    pub(super) fn item(&self, item: &Item<'_>, kind: FileType, buffer: &mut Buffer) -> Result<(), FileError> {
        match kind {
            FileType::RegularFile => self.file(item, buffer),
            FileType::Symlink => self.symlink(item),
            FileType::Socket if self.changes.kind == SourceKind::Context => self.empty_file(item),
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo | FileType::Socket => {
                self.special(item, kind)
            }
            _ => Err(FileError::UnknownKind { path: item.path.to_owned() }),
        }
    }

    fn file(&self, item: &Item<'_>, buffer: &mut Buffer) -> Result<(), FileError> {
        let from = openat(&item.dir.source, item.name, OPEN_SOURCE, Mode::empty()).at("open", item.path)?;
        let stat = fstat(&from).at("read the attributes of", item.path)?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(FileError::Changed { path: item.path.to_owned() });
        }
        let attributes = self.changes.attributes(&stat);
        let Some(to) = self.create_or_link(item, &stat, &attributes)? else { return Ok(()) };
        let files = (from.as_fd(), to.as_fd());
        let size =
            content::copy(self.run, self.ladder, files, &stat, buffer).map_err(|error| match error {
                ContentError::Read(errno) => failed("read", item.path, errno),
                ContentError::Write(errno) => failed("write", item.path, errno),
                ContentError::Cancelled => FileError::Cancelled,
            })?;
        attributes
            .give_to_file(self.run, to.as_fd(), item.dest.birth)
            .at("set the attributes of", item.path)?;
        self.capabilities(from.as_fd(), to.as_fd(), item.path)?;
        attributes.give_time(to.as_fd()).at("set the time of", item.path)?;
        self.run.count(size);
        Ok(())
    }

    /// The new file; or `None` when the file has another name, which was copied before, and this is now a link to that.
    ///
    /// The first name of a file is made while the table is locked, so whoever finds it there can link to it, though its content
    /// may still be on the way.
    fn create_or_link(
        &self,
        item: &Item<'_>,
        stat: &Stat,
        attributes: &Attributes,
    ) -> Result<Option<OwnedFd>, FileError> {
        if stat.st_nlink < 2 {
            return self.create(item, attributes).map(Some);
        }
        let mut links = lock(&self.links);
        match links.entry((stat.st_dev, stat.st_ino)) {
            Entry::Vacant(first) => {
                let file = self.create(item, attributes)?;
                first.insert(item.path.to_owned());
                Ok(Some(file))
            }
            Entry::Occupied(first) => {
                let first = first.get().clone();
                drop(links);
                if self.link(item, &first)? { Ok(None) } else { self.create(item, attributes).map(Some) }
            }
        }
    }

    /// Whether the link could be made; a file may have only so many names.
    fn link(&self, item: &Item<'_>, first: &Path) -> Result<bool, FileError> {
        let top = self.top.as_fd();
        let link = || linkat(top, first, &item.dest.fd, item.dest_name, AtFlags::empty());
        let made = match link() {
            Err(Errno::EXIST) => {
                self.clear(item.dest, item.dest_name, item.path)?;
                link()
            }
            made => made,
        };
        match made {
            Ok(()) => {
                self.run.count(0);
                Ok(true)
            }
            Err(Errno::MLINK | Errno::NAMETOOLONG | Errno::XDEV) => Ok(false),
            Err(errno) => Err(failed("link", item.path, errno)),
        }
    }

    fn create(&self, item: &Item<'_>, attributes: &Attributes) -> Result<OwnedFd, FileError> {
        let mode = Mode::from_raw_mode(attributes.mode & 0o777);
        let create = || openat(&item.dest.fd, item.dest_name, CREATE, mode);
        self.replacing(item, create).map_err(|error| named("create", item.path, error))
    }

    /// Makes something where nothing is. Most often nothing is, so that is only looked into when it fails.
    fn replacing<T>(&self, item: &Item<'_>, make: impl Fn() -> Result<T, Errno>) -> Result<T, MakeError> {
        match make() {
            Err(Errno::EXIST) => {
                self.clear(item.dest, item.dest_name, item.path)?;
                Ok(make()?)
            }
            made => Ok(made?),
        }
    }

    fn symlink(&self, item: &Item<'_>) -> Result<(), FileError> {
        let stat = self.stat(item)?;
        let target = readlinkat(&item.dir.source, item.name, Vec::new()).at("read the link", item.path)?;
        let make = || symlinkat(target.as_c_str(), &item.dest.fd, item.dest_name);
        self.replacing(item, make).map_err(|error| named("create the link", item.path, error))?;
        self.finish(item, &stat, true)
    }

    fn special(&self, item: &Item<'_>, kind: FileType) -> Result<(), FileError> {
        let stat = self.stat(item)?;
        let make = || mknodat(&item.dest.fd, item.dest_name, kind, Mode::empty(), stat.st_rdev);
        self.replacing(item, make).map_err(|error| named("create the device", item.path, error))?;
        self.finish(item, &stat, false)
    }

    fn empty_file(&self, item: &Item<'_>) -> Result<(), FileError> {
        let stat = self.stat(item)?;
        drop(self.create(item, &self.changes.attributes(&stat))?);
        self.finish(item, &stat, false)
    }

    fn stat(&self, item: &Item<'_>) -> Result<Stat, FileError> {
        Ok(statat(&item.dir.source, item.name, AtFlags::SYMLINK_NOFOLLOW)
            .at("read the attributes of", item.path)?)
    }

    fn finish(&self, item: &Item<'_>, stat: &Stat, is_link: bool) -> Result<(), FileError> {
        let attributes = self.changes.attributes(stat);
        let given = attributes.give_to_name(self.run, item.dest.fd.as_fd(), item.dest_name, is_link);
        given.at("set the attributes of", item.path)?;
        self.run.count(0);
        Ok(())
    }
}

/// Why something could not be made: the call failed, or room could not be made for it.
enum MakeError {
    Call(Errno),
    Room(FileError),
}

impl From<Errno> for MakeError {
    fn from(errno: Errno) -> Self {
        Self::Call(errno)
    }
}

impl From<FileError> for MakeError {
    fn from(error: FileError) -> Self {
        Self::Room(error)
    }
}

fn named(verb: &'static str, path: &Path, error: MakeError) -> FileError {
    match error {
        MakeError::Call(errno) => failed(verb, path, errno),
        MakeError::Room(error) => error,
    }
}

fn failed(verb: &'static str, path: &Path, errno: Errno) -> FileError {
    PathError { verb, path: path.to_owned(), source: errno.into() }.into()
}
