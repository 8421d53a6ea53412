//! Removing trees without waiting for it.
//!
//! To free a block can take milliseconds (ext4 with `discard` waits for the device, each time), and a layer in the making has
//! at least five directories. So what is to go is first renamed into `trash/`, which costs nothing, and removed from there
//! by a thread of its own. A directory with much in it is emptied by many at once, as they do nothing but wait; to start those takes longer than to
//! remove what a step leaves. What is not removed when the process ends, a later one removes.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, OnceLock};
use std::thread;

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

/// What one thread removes of a directory; more is for many.
const ENTRIES_OF_ONE_MAX: usize = 16;

/// Directories nested deeper than this are removed by one thread without recursion: whoever wrote a layer also chose its depth.
const PARALLEL_DEPTH_MAX: usize = 32;

/// The threads that remove, each kind started when there is something for it, if threads can be. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Removers(Arc<Threads>);

#[derive(Debug, Default)]
struct Threads {
    /// One that does what it is given, one after the other. It is of no pool: while such a thread waits for others it begins with what comes next, so
    /// that a long queue would be nested on its stack.
    one: OnceLock<Option<Sender<Work>>>,
    many: OnceLock<Option<ThreadPool>>,
}

type Work = Box<dyn FnOnce() + Send>;

impl Removers {
    /// Does it in the background; not at all when no thread can be started.
    fn spawn(&self, work: impl FnOnce(&Self) + Send + 'static) {
        if let Some(one) = self.0.one.get_or_init(start_one) {
            let this = self.clone();
            // It ends with the last of these.
            drop(one.send(Box::new(move || work(&this))));
        }
    }

    fn many(&self) -> Option<&ThreadPool> {
        self.0.many.get_or_init(start_many).as_ref()
    }

    /// Removes all that is in a directory, which is nested `depth` deep.
    fn remove_entries(&self, directory: &OwnedFd, depth: usize) -> Result<(), Errno> {
        let entries = match list(directory.as_fd()) {
            // The kernel lists nothing of a directory that somebody else has removed meanwhile.
            Err(Errno::NOENT) => return Ok(()),
            entries => entries?,
        };
        let remove = |(name, kind): (OsString, FileType)| match kind {
            FileType::Directory => self.remove_entry(directory, &name, depth),
            _ => gone(unlinkat(directory, &name, AtFlags::empty())),
        };
        match self.many_for(entries.len()) {
            Some(many) => many.install(|| entries.into_par_iter().try_for_each(remove)),
            None => entries.into_iter().try_for_each(remove),
        }
    }

    /// Who removes so many entries, unless whoever asks does it.
    fn many_for(&self, entries: usize) -> Option<&ThreadPool> {
        if entries > ENTRIES_OF_ONE_MAX { self.many() } else { None }
    }

    fn remove_entry(&self, parent: &OwnedFd, name: &OsStr, depth: usize) -> Result<(), Errno> {
        if depth >= PARALLEL_DEPTH_MAX {
            let parent = RootDir::from_fd(parent.try_clone().map_err(|_| Errno::MFILE)?);
            return gone(parent.remove_all(name).map_err(|error| error.errno().unwrap_or(Errno::IO)));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(parent, name, flags, Mode::empty()) {
            Err(Errno::NOTDIR | Errno::LOOP) => return gone(unlinkat(parent, name, AtFlags::empty())),
            Err(Errno::NOENT) => return Ok(()),
            directory => self.remove_entries(&directory?, depth + 1)?,
        }
        gone(unlinkat(parent, name, AtFlags::REMOVEDIR))
    }

    fn empty(&self, trash: &Path) -> Result<(), PathError> {
        let directory = RootDir::open(trash)?.open_dir("")?;
        self.remove_entries(&directory, 0).at("empty", trash)
    }

    fn remove(&self, trash: &Path, name: &str) -> Result<(), PathError> {
        FailPoint::TrashRemove.reach().at("remove", trash.join(name))?;
        let directory = RootDir::open(trash)?.open_dir("")?;
        self.remove_entry(&directory, OsStr::new(name), 0).at("remove", trash.join(name))
    }
}

/// `None` when no thread can be started.
fn start_one() -> Option<Sender<Work>> {
    let (sender, receiver) = mpsc::channel::<Work>();
    let serve = move || receiver.into_iter().for_each(|work| work());
    thread::Builder::new().name("remove".to_owned()).spawn(serve).ok()?;
    Some(sender)
}

/// `None` when no thread can be started.
fn start_many() -> Option<ThreadPool> {
    let name = |index| format!("remove-{index}");
    ThreadPoolBuilder::new().num_threads(THREADS).thread_name(name).build().ok()
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
        // What cannot be removed stays in the trash, for the clean-up to report.
        self.0.removers.spawn(move |removers| drop(removers.remove(&trash, &name)));
        Ok(())
    }

    /// Starts to remove what other processes have left in the trash.
    pub(crate) fn empty_trash_later(&self) {
        let trash = self.0.layout.directory("trash");
        let is_empty = fs::read_dir(&trash).is_ok_and(|mut entries| entries.next().is_none());
        if !is_empty {
            self.0.removers.spawn(move |removers| drop(removers.empty(&trash)));
        }
    }

    /// Removes what is in the trash, and waits for it. Others may be doing so as well.
    pub(crate) fn empty_trash(&self) -> Result<()> {
        Ok(self.0.removers.empty(&self.0.layout.directory("trash"))?)
    }
}

/// What somebody else has removed meanwhile is as good as removed.
fn gone(removed: Result<(), Errno>) -> Result<(), Errno> {
    if removed == Err(Errno::NOENT) { Ok(()) } else { removed }
}

#[cfg(test)]
mod tests;
