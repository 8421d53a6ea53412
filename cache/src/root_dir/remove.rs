//! Removal of a tree by descriptor, without following a link and without a limit on depth.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, chmod, openat, renameat_with, unlinkat};
use rustix::io::Errno;

use super::{list, proc_path};

/// Below this depth a directory is first moved up, so that descriptors and stack stay bounded.
const REMOVE_DEPTH_MAX: usize = 128;

/// How often a directory is emptied that is not empty then. Each time it gets flatter, unless somebody fills it.
const BUSY_TRIES_MAX: u32 = 10_000;

/// Removes `name` in `parent`: a file, a symlink, or a directory with all that is in it. Absent is no error.
pub(super) fn remove(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => remove_dir(parent, name),
        Err(errno) => Err(errno),
    }
}

fn remove_dir(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    let dir = open_for_removal(parent, name)?;
    let mut moved = 0;
    for _ in 0..BUSY_TRIES_MAX {
        let before = moved;
        Emptying { top: dir.as_fd(), moved: &mut moved }.empty(dir.as_fd(), 0)?;
        if moved > before {
            continue;
        }
        match unlinkat(parent, name, AtFlags::REMOVEDIR) {
            // Somebody else who removes the same tree has moved something up meanwhile.
            Err(Errno::NOTEMPTY) => {}
            removed => return absent_is_fine(removed),
        }
    }
    Err(Errno::NOTEMPTY)
}

struct Emptying<'a> {
    top: BorrowedFd<'a>,
    /// How many directories were moved to the top; also the next name to try there.
    moved: &'a mut u64,
}

impl Emptying<'_> {
    fn empty(&mut self, dir: BorrowedFd<'_>, depth: usize) -> Result<(), Errno> {
        let entries = match list(dir) {
            // Of one that somebody else has removed meanwhile.
            Err(Errno::NOENT) => return Ok(()),
            entries => entries?,
        };
        for (name, kind) in entries {
            if kind == FileType::Directory {
                self.remove_child(dir, &name, depth)?;
            } else {
                remove_leaf(dir, &name)?;
            }
        }
        Ok(())
    }

    fn remove_child(&mut self, dir: BorrowedFd<'_>, name: &OsStr, depth: usize) -> Result<(), Errno> {
        if depth >= REMOVE_DEPTH_MAX {
            return self.move_up(dir, name);
        }
        let child = match open_for_removal(dir, name) {
            Err(Errno::NOENT) => return Ok(()),
            child => child?,
        };
        self.empty(child.as_fd(), depth + 1)?;
        match unlinkat(dir, name, AtFlags::REMOVEDIR) {
            // Somebody else has given the name to another one. The next round meets it.
            Err(Errno::NOTEMPTY) => Ok(()),
            removed => absent_is_fine(removed),
        }
    }

    fn move_up(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
        loop {
            *self.moved += 1;
            let new_name = format!(".deep-{}", self.moved);
            match renameat_with(dir, name, self.top, &new_name, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                result => return absent_is_fine(result),
            }
        }
    }
}

fn remove_leaf(dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    absent_is_fine(unlinkat(dir, name, AtFlags::empty()))
}

fn absent_is_fine(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}

/// Opens a directory to empty it. Whoever owns it but took its permissions away gives them back first.
fn open_for_removal(parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(parent, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            let closed = openat(parent, name, flags | OFlags::PATH, Mode::empty())?;
            chmod(proc_path(&closed), Mode::RWXU)?;
            openat(&closed, ".", flags, Mode::empty())
        }
        dir => dir,
    }
}
