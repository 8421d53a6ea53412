//! Locks on files that come and go.
//!
//! A lock file is removed by its holder, while it holds it. So whoever gets the lock on a file checks that the path still
//! leads to *that* file; otherwise it has locked what no newcomer can find, and starts again.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::fail_point::FailPoint;
use crate::root_dir::{At, PathError};
use crate::{CacheKey, Error, Result, Store};

/// How long a waiter sleeps between two tries: at first, and at most. Waiting is for a step of a build, which takes seconds;
/// a blocking call could not be interrupted.
const WAIT_MIN: Duration = Duration::from_millis(1);
const WAIT_MAX: Duration = Duration::from_millis(25);

/// The right to work on a cache key, against all other threads and processes. Given back on drop.
#[derive(Debug)]
pub struct KeyLock(#[expect(dead_code, reason = "held for its drop")] LockFile);

impl Store {
    /// Waits until no other thread or process works on the key.
    ///
    /// Who waited should look the key up again before starting.
    ///
    /// # Errors
    /// [`Error::Cancelled`] soon after `cancel` became true.
    pub fn lock_key(&self, key: &CacheKey, cancel: &AtomicBool) -> Result<KeyLock> {
        wait_for(&self.key_path(key), cancel, || self.try_lock_key(key))
    }

    /// Takes the lock on a key unless another thread or process has it.
    ///
    /// # Errors
    /// When the lock file cannot be made.
    pub fn try_lock_key(&self, key: &CacheKey) -> Result<Option<KeyLock>> {
        Ok(LockFile::try_lock(self.key_path(key))?.map(KeyLock))
    }

    fn key_path(&self, key: &CacheKey) -> PathBuf {
        self.0.layout.directory("locks").join(key.to_string())
    }
}

/// Tries until it gets what another thread or process holds. `path` is what is waited for.
pub(crate) fn wait_for<T>(
    path: &Path,
    cancel: &AtomicBool,
    mut attempt: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let mut wait = WAIT_MIN;
    loop {
        if let Some(taken) = attempt()? {
            return Ok(taken);
        }
        if cancel.load(Ordering::Relaxed) {
            return Err(Error::Cancelled { path: path.to_owned() });
        }
        thread::sleep(wait);
        wait = (wait * 2).min(WAIT_MAX);
    }
}

/// A file that exists while its lock is held.
#[derive(Debug)]
pub(crate) struct LockFile {
    path: PathBuf,
    file: File,
    renamed: bool,
}

impl LockFile {
    /// Makes and locks the file; `None` when somebody else holds it.
    pub(crate) fn try_lock(path: PathBuf) -> Result<Option<Self>, PathError> {
        loop {
            let file =
                OpenOptions::new().write(true).create(true).truncate(false).open(&path).at("open", &path)?;
            FailPoint::LockFile.reach().at("open", &path)?;
            match try_flock(&file, &path)? {
                Flock::Held => return Ok(None),
                Flock::Stale => {}
                Flock::Taken => return Ok(Some(Self { path, file, renamed: false })),
            }
        }
    }

    pub(crate) const fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Says that the file has been renamed, so that its old name is not removed: it may be somebody else's by now.
    pub(crate) const fn renamed(&mut self) {
        self.renamed = true;
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        if !self.renamed {
            // Left behind, the file is an unlocked name, which is harmless.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// What became of an attempt at a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flock {
    /// It is ours, and the path still leads to the file.
    Taken,
    /// Somebody else has it.
    Held,
    /// It was ours to take, but the path leads elsewhere by now.
    Stale,
}

/// Whose a file is that exists while its lock is held.
#[derive(Debug)]
pub(crate) enum Holder {
    /// A process that lives; the file, open.
    Live(File),
    /// One that is gone: the file has been removed.
    Dead,
    /// Nobody's: it is gone by now.
    Nobody,
}

/// Finds out whose a file is.
pub(crate) fn holder(path: &Path) -> Result<Holder, PathError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Holder::Nobody),
        opened => opened.at("open", path)?,
    };
    match try_flock(&file, path)? {
        Flock::Held => Ok(Holder::Live(file)),
        Flock::Stale => Ok(Holder::Nobody),
        Flock::Taken => {
            fs::remove_file(path).at("remove", path)?;
            Ok(Holder::Dead)
        }
    }
}

/// Tries to lock a file or directory that was opened by `path`, exclusively.
pub(crate) fn try_flock(file: &File, path: &Path) -> Result<Flock, PathError> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Ok(Flock::Held),
        Err(errno) => Err(errno).at("lock", path),
        Ok(()) if is_at(file, path)? => Ok(Flock::Taken),
        Ok(()) => Ok(Flock::Stale),
    }
}

/// Whether `path` leads to this file.
pub(crate) fn is_at(file: &File, path: &Path) -> Result<bool, PathError> {
    let ours = file.metadata().at("read the attributes of", path)?;
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).at("read the attributes of", path),
        Ok(found) => Ok((found.dev(), found.ino()) == (ours.dev(), ours.ino())),
    }
}

#[cfg(test)]
mod tests;
