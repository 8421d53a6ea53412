//! Path resolution by hand: one component at a time, each opened with `O_PATH | O_NOFOLLOW`.
//!
//! It gives what `openat2(RESOLVE_IN_ROOT)` gives, on kernels and in sandboxes that lack it, and two things
//! that call cannot: the resolved path, and making the directories that are missing. `..` goes back to the
//! descriptor it came from rather than to what the file system calls the parent, so a directory that somebody
//! renames meanwhile leads nowhere else.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, fstat, openat, readlinkat};
use rustix::io::Errno;

use super::SYMLINK_DEPTH_MAX;

/// Where a path led: a directory, and perhaps a name in it that is not a directory or does not exist.
pub(super) struct Place<'root> {
    root: BorrowedFd<'root>,
    dirs: Vec<(OsString, OwnedFd)>,
    name: Option<OsString>,
}

impl Place<'_> {
    /// The directory reached.
    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.dirs.last().map_or(self.root, |(_, fd)| fd.as_fd())
    }

    /// The name in [`Self::dir`], or `.` when the directory itself was meant.
    pub(super) fn name(&self) -> &OsStr {
        self.name.as_deref().unwrap_or(OsStr::new("."))
    }

    /// The path from the root, free of symlinks and dots; empty for the root.
    pub(super) fn path(&self) -> PathBuf {
        self.dirs.iter().map(|(name, _)| name).chain(&self.name).collect()
    }
}

/// What to do with a symlink at the end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    Follow,
    Keep,
}

/// Called with a directory and a name in it that does not exist, and the path of that name; may make a directory.
pub(super) type Missing<'a> = &'a mut dyn FnMut(BorrowedFd<'_>, &OsStr, &Path) -> Result<(), Errno>;

/// Resolves `path` beneath `root`. A name that is missing at the end is no error.
pub(super) fn walk<'root>(root: BorrowedFd<'root>, path: &Path, last: Last) -> Result<Place<'root>, Errno> {
    Walk::new(root, path, last).run(None)
}

/// Resolves `path` beneath `root` and lets `missing` make what does not exist, the last name included.
pub(super) fn walk_making<'root>(
    root: BorrowedFd<'root>,
    path: &Path,
    missing: Missing<'_>,
) -> Result<Place<'root>, Errno> {
    Walk::new(root, path, Last::Follow).run(Some(missing))
}

struct Walk<'root> {
    place: Place<'root>,
    pending: VecDeque<OsString>,
    links: usize,
    last: Last,
}

enum Found {
    Directory(OwnedFd),
    Symlink(OwnedFd),
    Other,
    Nothing,
}

impl<'root> Walk<'root> {
    fn new(root: BorrowedFd<'root>, path: &Path, last: Last) -> Self {
        let place = Place { root, dirs: Vec::new(), name: None };
        Self { place, pending: components(path.as_os_str()).collect(), links: 0, last }
    }

    fn run(mut self, mut missing: Option<Missing<'_>>) -> Result<Place<'root>, Errno> {
        while let Some(name) = self.pending.pop_front() {
            match name.as_bytes() {
                b"." => {}
                b".." => drop(self.place.dirs.pop()),
                _ => self.step(name, &mut missing)?,
            }
        }
        Ok(self.place)
    }

    fn step(&mut self, name: OsString, missing: &mut Option<Missing<'_>>) -> Result<(), Errno> {
        let at_end = self.pending.is_empty();
        match (self.find(&name)?, missing) {
            (Found::Directory(fd), _) => self.place.dirs.push((name, fd)),
            (Found::Symlink(_) | Found::Other, _) if at_end && self.last == Last::Keep => {
                self.place.name = Some(name);
            }
            (Found::Symlink(link), _) => self.follow(&link)?,
            (Found::Nothing, Some(missing)) => self.make(name, missing)?,
            (Found::Other | Found::Nothing, None) if at_end => self.place.name = Some(name),
            (Found::Other, _) => return Err(Errno::NOTDIR),
            (Found::Nothing, None) => return Err(Errno::NOENT),
        }
        Ok(())
    }

    fn find(&self, name: &OsStr) -> Result<Found, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match openat(self.place.dir(), name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(Found::Nothing),
            Err(errno) => return Err(errno),
        };
        Ok(match FileType::from_raw_mode(fstat(&fd)?.st_mode) {
            FileType::Directory => Found::Directory(fd),
            FileType::Symlink => Found::Symlink(fd),
            _ => Found::Other,
        })
    }

    fn follow(&mut self, link: &OwnedFd) -> Result<(), Errno> {
        self.links += 1;
        if self.links > SYMLINK_DEPTH_MAX {
            return Err(Errno::LOOP);
        }
        let target = OsString::from_vec(readlinkat(link, "", Vec::new())?.into_bytes());
        if target.as_bytes().starts_with(b"/") {
            self.place.dirs.clear();
        }
        for component in components(&target).collect::<Vec<_>>().into_iter().rev() {
            self.pending.push_front(component);
        }
        Ok(())
    }

    fn make(&mut self, name: OsString, missing: Missing<'_>) -> Result<(), Errno> {
        missing(self.place.dir(), &name, &self.place.path().join(&name))?;
        match self.find(&name)? {
            Found::Directory(fd) => self.place.dirs.push((name, fd)),
            _ => return Err(Errno::NOTDIR),
        }
        Ok(())
    }
}

/// The names of a path. A slash at the end asks for a directory, which a final `.` expresses.
fn components(path: &OsStr) -> impl Iterator<Item = OsString> + '_ {
    let bytes = path.as_bytes();
    let directory = bytes.ends_with(b"/").then(|| OsString::from("."));
    bytes
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty())
        .map(|name| OsStr::from_bytes(name).to_owned())
        .chain(directory)
}
