//! What the parts of one action share: settings, counters, warnings.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rbuild_cache::root_dir::{At, Mode, RootDir};
use rustix::fs::{Timespec, futimens};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use super::attributes::{Ids, changed_owner, modified_at, timespec};
use super::{FileError, FileOptions, Graft, Progress, Stats, WARNINGS_MAX, Warning};

/// Progress is told at each multiple of this.
const PROGRESS_STEP_ENTRIES: u64 = 256;
const PROGRESS_STEP_BYTES: u64 = 1 << 20;

/// One action under way.
pub(super) struct Run<'a> {
    pub(super) options: &'a FileOptions<'a>,
    /// Who owns what this process makes.
    pub(super) own: Ids,
    /// Bits that the kernel takes from the mode of what this process makes; all if they are not known.
    pub(super) umask: u32,
    entries: AtomicU64,
    bytes: AtomicU64,
    warnings: Mutex<Vec<Warning>>,
    made: Mutex<Vec<(OwnedFd, Timespec)>>,
    pub(super) graft: Mutex<Option<Graft>>,
}

impl<'a> Run<'a> {
    pub(super) fn new(options: &'a FileOptions<'a>) -> Self {
        Self {
            options,
            own: Ids { uid: geteuid().as_raw(), gid: getegid().as_raw() },
            umask: umask().unwrap_or(0o777),
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            warnings: Mutex::default(),
            made: Mutex::default(),
            graft: Mutex::default(),
        }
    }

    /// An error if the build was cancelled.
    pub(super) fn check_cancelled(&self) -> Result<(), FileError> {
        if self.options.cancel.load(Ordering::Relaxed) { Err(FileError::Cancelled) } else { Ok(()) }
    }

    /// Counts one entry and its size.
    pub(super) fn count(&self, bytes: u64) {
        self.count_many(1, bytes);
    }

    /// Counts entries and their size, and tells at each step of progress.
    pub(super) fn count_many(&self, entries: u64, bytes: u64) {
        let now = Progress {
            entries: self.entries.fetch_add(entries, Ordering::Relaxed) + entries,
            bytes: self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes,
        };
        let passed = |now: u64, added: u64, step: u64| now / step > (now - added) / step;
        if passed(now.entries, entries, PROGRESS_STEP_ENTRIES)
            || passed(now.bytes, bytes, PROGRESS_STEP_BYTES)
        {
            (self.options.progress)(now);
        }
    }

    pub(super) fn warn(&self, warning: Warning) {
        let mut warnings = lock(&self.warnings);
        if warnings.len() < WARNINGS_MAX && !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    /// The time of what is made: the action's, or else the build's.
    pub(super) fn time(&self, timestamp_ns: Option<i64>) -> Timespec {
        timespec(timestamp_ns.unwrap_or(self.options.now_ns))
    }

    /// Makes a directory and those above it that are missing, with these attributes.
    ///
    /// Their times are set when the action is done, because what is put into them changes them.
    pub(super) fn make_dirs(&self, dest: &RootDir, path: &Path, new: &NewDir) -> Result<OwnedFd, FileError> {
        let mut created = |dir: BorrowedFd<'_>, _: &Path| {
            self.count(0);
            changed_owner(dir, new.ids, self.options.single_id)?;
            lock(&self.made).push((dir.try_clone_to_owned()?, new.time));
            Ok::<_, io::Error>(())
        };
        dest.create_dir_all(path, Mode::from_raw_mode(new.mode), &mut created).map_err(|error| {
            match error.errno() {
                Some(Errno::NOTDIR) => FileError::NotADirectory { path: path.to_owned() },
                _ => error.into(),
            }
        })
    }

    /// Sets the times that had to wait, and returns what was done.
    pub(super) fn finish(self) -> Result<Stats, FileError> {
        for (dir, time) in self.made.into_inner().unwrap_or_else(PoisonError::into_inner) {
            futimens(dir.as_fd(), &modified_at(time)).at("set the time of", "a directory")?;
        }
        let total = Progress { entries: self.entries.into_inner(), bytes: self.bytes.into_inner() };
        let warnings = self.warnings.into_inner().unwrap_or_else(PoisonError::into_inner);
        let graft = self.graft.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Stats { total, warnings, graft })
    }
}

/// How directories are made that the source does not describe.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewDir {
    pub(super) mode: u32,
    pub(super) ids: Ids,
    pub(super) time: Timespec,
}

/// Locks; what a panicking thread left behind is still good enough to fail with.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The process's umask, read where reading it does not change it.
fn umask() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(line.trim(), 8).ok()
}
