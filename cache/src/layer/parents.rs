//! Finding, and where need be making, the directory that an entry goes into.
//!
//! The archive's paths are resolved in what has been unpacked so far, on top of the layers below where those
//! are known. A directory that only they hold is made here with their attributes, as overlayfs would copy it
//! up; a symlink that only they hold is followed, so that `lib/x` over a base with `lib -> usr/lib` lands in
//! `usr/lib`. What exists nowhere is made with mode 0755, owned by root, and reported.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, fchmod, fchown, fstat, mkdirat, openat,
    readlinkat, statat, unlinkat, utimensat,
};
use rustix::fs::{Gid, Uid};
use rustix::io::Errno;

use super::error::Error;
use super::merged::{Found, Merged};
use super::reader::Time;
use super::whiteout::{OverlayXattrs, is_whiteout, make_opaque};
use crate::root_dir::{At, PathError, RootDir, SYMLINK_DEPTH_MAX};

/// A directory in the target.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) dir: Rc<OwnedFd>,
    /// Its path without symlinks.
    pub(super) path: PathBuf,
}

/// A directory that had to be made although the archive did not say how.
#[derive(Debug)]
pub(super) struct Implied {
    pub(super) path: PathBuf,
    /// Its time, when a lower layer has it.
    pub(super) mtime: Option<Time>,
}

/// Resolves directories of one target.
#[derive(Debug)]
pub(super) struct Parents<'a> {
    target: &'a RootDir,
    lowers: Option<Merged<'a>>,
    /// The form of whiteouts in the target, when it has any.
    xattrs: Option<OverlayXattrs>,
    /// Whether owners are set at all.
    chown: bool,
    last: Option<(PathBuf, Place)>,
    pub(super) implied: Vec<Implied>,
}

impl<'a> Parents<'a> {
    pub(super) fn new(
        target: &'a RootDir,
        lowers: &'a [RootDir],
        xattrs: Option<OverlayXattrs>,
        chown: bool,
    ) -> Self {
        let lowers = xattrs.filter(|_| !lowers.is_empty()).map(|xattrs| Merged { layers: lowers, xattrs });
        Self { target, lowers, xattrs, chown, last: None, implied: Vec::new() }
    }

    /// The directory at `path`, a relative path of plain names.
    ///
    /// Archives list the entries of a directory in a row, so the last answer is kept.
    pub(super) fn get(&mut self, path: &Path) -> Result<&Place, Error> {
        let place = match self.last.take() {
            Some((last, place)) if last == path => place,
            _ => self.resolve(path)?,
        };
        Ok(&self.last.insert((path.to_owned(), place)).1)
    }

    /// To be called when a directory or a symlink was removed or replaced, or a symlink made.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }

    /// The file that lower layers show at a path without symlinks.
    pub(super) fn lower_file(&self, path: &Path) -> Result<Option<Box<Found>>, PathError> {
        self.lowers.map_or(Ok(None), |lowers| lowers.lookup(path))
    }

    fn resolve(&mut self, path: &Path) -> Result<Place, Error> {
        let mut walk = Walk {
            place: Place { dir: Rc::new(self.target.open_dir("/")?), path: PathBuf::new() },
            pending: path.iter().map(OsStr::to_owned).collect(),
            links: 0,
        };
        while let Some(name) = walk.pending.pop_front() {
            self.step(&mut walk, &name).map_err(|step| step.at(path))?;
        }
        Ok(walk.place)
    }

    fn step(&mut self, walk: &mut Walk, name: &OsStr) -> Result<(), StepError> {
        if name == ".." {
            return self.leave(walk);
        }
        let stat = match statat(&walk.place.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return self.step_below(walk, name),
            stat => stat?,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => walk.enter(name),
            FileType::Symlink => {
                let target = readlinkat(&walk.place.dir, name, Vec::new())?;
                self.follow(walk, &OsString::from_vec(target.into_bytes()))
            }
            _ if self.is_whiteout(walk, name, &stat)? => {
                unlinkat(&walk.place.dir, name, AtFlags::empty())?;
                self.make(walk, name, None)?;
                self.xattrs
                    .map_or(Ok(()), |xattrs| make_opaque(walk.place.dir.as_fd(), OsStr::new("."), xattrs))?;
                Ok(())
            }
            _ => Err(Errno::NOTDIR.into()),
        }
    }

    /// A name that the target does not have.
    fn step_below(&mut self, walk: &mut Walk, name: &OsStr) -> Result<(), StepError> {
        let Some(found) = self.lower_file(&walk.place.path.join(name))? else {
            return self.make(walk, name, None);
        };
        match FileType::from_raw_mode(found.stat.st_mode) {
            FileType::Directory => self.make(walk, name, Some(&found.stat)),
            FileType::Symlink => {
                let target = readlinkat(&found.dir, &found.name, Vec::new())?;
                self.follow(walk, &OsString::from_vec(target.into_bytes()))
            }
            _ => Err(Errno::NOTDIR.into()),
        }
    }

    fn follow(&self, walk: &mut Walk, target: &OsStr) -> Result<(), StepError> {
        walk.links += 1;
        if walk.links > SYMLINK_DEPTH_MAX {
            return Err(Errno::LOOP.into());
        }
        if Path::new(target).is_absolute() {
            walk.place = Place { dir: Rc::new(self.target.open_dir("/")?), path: PathBuf::new() };
        }
        let names = Path::new(target).components().filter_map(|component| match component {
            Component::Normal(_) | Component::ParentDir => Some(component.as_os_str().to_owned()),
            _ => None,
        });
        walk.pending = names.chain(walk.pending.drain(..)).collect();
        Ok(())
    }

    /// Goes back up, which only the target of a symlink can ask for.
    fn leave(&self, walk: &mut Walk) -> Result<(), StepError> {
        walk.place.path.pop();
        walk.place.dir = Rc::new(self.target.open_dir(&walk.place.path)?);
        Ok(())
    }

    fn make(&mut self, walk: &mut Walk, name: &OsStr, like: Option<&Stat>) -> Result<(), StepError> {
        mkdirat(&walk.place.dir, name, Mode::RWXU)?;
        walk.enter(name)?;
        let dir = walk.place.dir.as_fd();
        let mode = like.map_or(0o755, |stat| stat.st_mode & 0o7777);
        if let Some(stat) = like.filter(|_| self.chown) {
            fchown(dir, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
        }
        fchmod(dir, Mode::from_raw_mode(mode))?;
        let mtime = like.map(time_of);
        self.implied.push(Implied { path: walk.place.path.clone(), mtime });
        Ok(())
    }

    fn is_whiteout(&self, walk: &Walk, name: &OsStr, stat: &Stat) -> Result<bool, Errno> {
        let dir = walk.place.dir.as_fd();
        self.xattrs.map_or(Ok(false), |xattrs| is_whiteout(dir, name, stat, xattrs))
    }
}

struct Walk {
    place: Place,
    pending: VecDeque<OsString>,
    links: usize,
}

impl Walk {
    fn enter(&mut self, name: &OsStr) -> Result<(), StepError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.place.dir = Rc::new(openat(&self.place.dir, name, flags, Mode::empty())?);
        self.place.path.push(name);
        Ok(())
    }
}

/// An error on the way, which gets the whole path as its subject.
enum StepError {
    Errno(Errno),
    Path(PathError),
}

impl StepError {
    fn at(self, path: &Path) -> Error {
        match self {
            Self::Errno(errno) => {
                PathError { verb: "enter", path: path.to_owned(), source: errno.into() }.into()
            }
            Self::Path(error) => error.into(),
        }
    }
}

impl From<Errno> for StepError {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<PathError> for StepError {
    fn from(error: PathError) -> Self {
        Self::Path(error)
    }
}

/// The modification time of a file.
pub(super) fn time_of(stat: &Stat) -> Time {
    Time { seconds: stat.st_mtime, nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) }
}

/// Sets the modification time of `name`, and the access time to the same. A symlink is not followed.
pub(super) fn set_time(dir: BorrowedFd<'_>, name: &OsStr, time: Time) -> Result<(), Errno> {
    let at = Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanoseconds) };
    let times = Timestamps { last_access: at, last_modification: at };
    utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)
}

/// Gives directories of `layer` the mode, owner and time that the same paths have in `below`, where they are
/// directories there.
///
/// For directories that an archive put something into without describing them
/// ([`Applied::implied`](super::Applied)), when the layer was unpacked before it was known what it stands on.
pub fn copy_directory_attributes(below: &RootDir, layer: &RootDir, paths: &[PathBuf]) -> Result<(), Error> {
    for path in paths {
        let stat = match below.lstat(path) {
            Err(error) if error.is_not_found() => continue,
            stat => stat?,
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            continue;
        }
        let dir = layer.open_dir(path)?;
        let now = fstat(&dir).at("read the attributes of", path)?;
        if (now.st_uid, now.st_gid) != (stat.st_uid, stat.st_gid) {
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            fchown(&dir, Some(uid), Some(gid)).at("change the owner of", path)?;
        }
        fchmod(&dir, Mode::from_raw_mode(stat.st_mode & 0o7777)).at("change the mode of", path)?;
        set_time(dir.as_fd(), OsStr::new("."), time_of(&stat)).at("set the times of", path)?;
    }
    Ok(())
}
