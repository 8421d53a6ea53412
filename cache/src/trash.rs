//! Removing trees without waiting for it.
//!
//! To free a block can take milliseconds (ext4 with `discard` waits for the device, each time), and a layer in the making has
//! at least five directories. So what is to go is first renamed into `trash/`, which costs nothing, and removed from there
//! by threads of its own, many at once, as they do nothing but wait. What they have not removed when the process ends,
//! a later one does.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

use crate::fail_point::FailPoint;
use crate::root_dir::{At, PathError, RootDir, list};
use crate::store::unique_name;
use crate::{Result, Store};

/// They wait for the device, not for a processor.
const THREADS: usize = 16;

/// Directories nested deeper than this are removed by one thread without recursion: whoever wrote a layer also chose its depth.
const PARALLEL_DEPTH_MAX: usize = 32;

/// The threads that remove. Started when there is something to remove.
#[derive(Debug, Default)]
pub(crate) struct Removers(OnceLock<Option<ThreadPool>>);

impl Removers {
    /// `None` when no thread can be started.
    fn pool(&self) -> Option<&ThreadPool> {
        let start = || {
            ThreadPoolBuilder::new()
                .num_threads(THREADS)
                .thread_name(|index| format!("remove-{index}"))
                .build()
                .ok()
        };
        self.0.get_or_init(start).as_ref()
    }
}

impl Store {
    /// Removes a file or a tree, which is on the file system of the store: its name at once, the rest in the background. That it
    /// does not exist is no error.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn discard(&self, path: &Path) -> Result<()> {
        let trash = self.0.layout.directory("trash");
        let name = unique_name();
        FailPoint::TrashRename.reach().at("remove", path)?;
        let moved = fs::rename(path, trash.join(&name));
        if moved.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
            return Ok(());
        }
        moved.at("remove", path)?;
        if let Some(pool) = self.0.removers.pool() {
            // What cannot be removed stays in the trash, for the clean-up to report.
            pool.spawn(move || drop(remove(&trash, &name)));
        }
        Ok(())
    }

    /// Starts to remove what other processes have left in the trash.
    pub(crate) fn empty_trash_later(&self) {
        let trash = self.0.layout.directory("trash");
        let is_empty = fs::read_dir(&trash).is_ok_and(|mut entries| entries.next().is_none());
        if !is_empty && let Some(pool) = self.0.removers.pool() {
            pool.spawn(move || drop(empty(&trash)));
        }
    }

    /// Removes what is in the trash, and waits for it. Others may be doing so as well.
    pub(crate) fn empty_trash(&self) -> Result<()> {
        let trash = self.0.layout.directory("trash");
        Ok(self.0.removers.pool().map_or_else(|| empty(&trash), |pool| pool.install(|| empty(&trash)))?)
    }
}

fn empty(trash: &Path) -> Result<(), PathError> {
    let directory = RootDir::open(trash)?.open_dir("")?;
    remove_entries(&directory, 0).at("empty", trash)
}

fn remove(trash: &Path, name: &str) -> Result<(), PathError> {
    FailPoint::TrashRemove.reach().at("remove", trash.join(name))?;
    let directory = RootDir::open(trash)?.open_dir("")?;
    remove_entry(&directory, OsStr::new(name), 0).at("remove", trash.join(name))
}

/// Removes all that is in a directory, which is nested `depth` deep.
fn remove_entries(directory: &OwnedFd, depth: usize) -> Result<(), Errno> {
    let entries = match list(directory.as_fd()) {
        // The kernel lists nothing of a directory that somebody else has removed meanwhile.
        Err(Errno::NOENT) => return Ok(()),
        entries => entries?,
    };
    entries.into_par_iter().try_for_each(|(name, kind)| match kind {
        FileType::Directory => remove_entry(directory, &name, depth),
        _ => gone(unlinkat(directory, &name, AtFlags::empty())),
    })
}

fn remove_entry(parent: &OwnedFd, name: &OsStr, depth: usize) -> Result<(), Errno> {
    if depth >= PARALLEL_DEPTH_MAX {
        let parent = RootDir::from_fd(parent.try_clone().map_err(|_| Errno::MFILE)?);
        return gone(parent.remove_all(name).map_err(|error| error.errno().unwrap_or(Errno::IO)));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(parent, name, flags, Mode::empty()) {
        Err(Errno::NOTDIR | Errno::LOOP) => return gone(unlinkat(parent, name, AtFlags::empty())),
        Err(Errno::NOENT) => return Ok(()),
        directory => remove_entries(&directory?, depth + 1)?,
    }
    gone(unlinkat(parent, name, AtFlags::REMOVEDIR))
}

/// What somebody else has removed meanwhile is as good as removed.
fn gone(removed: Result<(), Errno>) -> Result<(), Errno> {
    if removed == Err(Errno::NOENT) { Ok(()) } else { removed }
}

#[cfg(test)]
mod tests;
