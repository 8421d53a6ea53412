//! Directories that steps keep things in from one build to the next: cache mounts.
//!
//! ```text
//! cache-mounts/<key>-<number>/    one instance; whoever uses it holds a lock on this directory
//! cache-mounts/<key>-<number>/fs  what steps see; `new` until it is complete, and `filling` is locked meanwhile
//! ```
//!
//! Users that share hold the lock together, others alone. `fs` appears with its first content by a rename, so what a crash
//! leaves half-filled is not used but filled again. All of it may be deleted at any time that nobody uses it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::fail_point::FailPoint;
use crate::lock::wait_for;
use crate::root_dir::{At as _, RootDir};
use crate::{CacheKey, Error, Result, Store};

/// What `fs` is called until it is complete.
const NEW: &str = "new";

/// Who else may use a cache mount at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheMountSharing {
    /// All who share.
    Shared,
    /// Nobody; a second user gets an instance of its own.
    Private,
    /// Nobody; a second user waits.
    Locked,
}

/// An instance of a cache mount, in use until this is dropped.
#[derive(Debug)]
pub struct CacheMount {
    directory: PathBuf,
    lock: File,
}

impl CacheMount {
    /// What steps see: a directory as a rule, a file where that is what the cache began as.
    pub fn path(&self) -> PathBuf {
        self.directory.join("fs")
    }
}

impl Store {
    /// Takes an instance of the cache mount `key`. `fill` makes the path that it is given, with what a new instance holds.
    ///
    /// # Errors
    /// `fill`'s. [`Error::Cancelled`] soon after `cancel` became true. When the store cannot be written.
    pub fn cache_mount<E: From<Error>>(
        &self,
        key: &CacheKey,
        sharing: CacheMountSharing,
        cancel: &AtomicBool,
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<CacheMount, E> {
        let mount = self.take_instance(key, sharing, cancel)?;
        if !mount.is_filled() {
            // Those who share it begin at the same time, and one of them fills it for all.
            let _filling = mount.lock_filling(cancel)?;
            if !mount.is_filled() {
                fill(&mount.begin_filling()?)?;
                mount.end_filling()?;
            }
        }
        Ok(mount)
    }

    fn take_instance(
        &self,
        key: &CacheKey,
        sharing: CacheMountSharing,
        cancel: &AtomicBool,
    ) -> Result<CacheMount> {
        let mut number = 0;
        loop {
            let mount = CacheMount::open(self.0.layout.cache_mount(key, number))?;
            let try_lock = || mount.try_lock(operation(sharing));
            if sharing == CacheMountSharing::Locked {
                wait_for(&mount.directory, cancel, try_lock)?;
                return Ok(mount);
            }
            if try_lock()?.is_some() {
                return Ok(mount);
            }
            // Somebody uses it right now, so there are at most as many as there are steps running.
            number += 1;
        }
    }
}

impl CacheMount {
    fn open(directory: PathBuf) -> Result<Self> {
        fs::create_dir_all(&directory).at("create", &directory)?;
        let lock = File::open(&directory).at("open", &directory)?;
        Ok(Self { directory, lock })
    }

    fn try_lock(&self, operation: FlockOperation) -> Result<Option<()>> {
        try_lock(&self.lock, operation, &self.directory)
    }

    /// A lock beside that of the users, which those who share cannot have alone.
    fn lock_filling(&self, cancel: &AtomicBool) -> Result<File> {
        let path = self.directory.join("filling");
        let file = File::create(&path).at("open", &path)?;
        wait_for(&path, cancel, || try_lock(&file, FlockOperation::NonBlockingLockExclusive, &path))?;
        Ok(file)
    }

    fn is_filled(&self) -> bool {
        self.path().symlink_metadata().is_ok()
    }

    /// Removes what an earlier attempt left, and returns the path to fill.
    fn begin_filling(&self) -> Result<PathBuf> {
        let root = RootDir::open(&self.directory)?;
        if root.exists(NEW)? {
            root.remove_all(NEW)?;
        }
        Ok(self.directory.join(NEW))
    }

    fn end_filling(&self) -> Result<()> {
        FailPoint::CacheMountRename.reach().at("fill", self.path())?;
        fs::rename(self.directory.join(NEW), self.path()).at("fill", self.path())?;
        Ok(FailPoint::CacheMountNamed.reach().at("fill", self.path())?)
    }
}

fn try_lock(file: &File, operation: FlockOperation, path: &Path) -> Result<Option<()>> {
    match flock(file, operation) {
        Err(Errno::WOULDBLOCK) => Ok(None),
        other => Ok(Some(other.at("lock", path)?)),
    }
}

const fn operation(sharing: CacheMountSharing) -> FlockOperation {
    match sharing {
        CacheMountSharing::Shared => FlockOperation::NonBlockingLockShared,
        CacheMountSharing::Private | CacheMountSharing::Locked => FlockOperation::NonBlockingLockExclusive,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestStore;

    const KEY: CacheKey = CacheKey([7; 32]);

    fn take(store: &Store, sharing: CacheMountSharing) -> CacheMount {
        let fill = |path: &Path| -> Result<()> { Ok(fs::create_dir(path).at("create", path)?) };
        store.cache_mount(&KEY, sharing, &AtomicBool::new(false), fill).unwrap()
    }

    #[test]
    fn who_shares_gets_the_same_and_who_does_not_another() {
        let store = TestStore::new();
        let first = take(&store, CacheMountSharing::Shared);
        assert_eq!(take(&store, CacheMountSharing::Shared).path(), first.path());
        let other = take(&store, CacheMountSharing::Private);
        assert_ne!(other.path(), first.path());
        assert_ne!(take(&store, CacheMountSharing::Private).path(), other.path());
        drop((first, other));
        // What is free is used again.
        let first = take(&store, CacheMountSharing::Private);
        assert!(first.path().ends_with(format!("{KEY}-0/fs")));
        assert!(take(&store, CacheMountSharing::Shared).path().ends_with(format!("{KEY}-1/fs")));
    }

    #[test]
    fn all_who_begin_to_share_at_once_share() {
        for _ in 0..50 {
            let store = TestStore::new();
            let barrier = std::sync::Barrier::new(4);
            let paths: Vec<_> = std::thread::scope(|scope| {
                let user = || {
                    barrier.wait();
                    let mount = take(&store, CacheMountSharing::Shared);
                    // Nobody leaves before all have come.
                    barrier.wait();
                    mount.path()
                };
                let users: Vec<_> = (0..4).map(|_| scope.spawn(user)).collect();
                users.into_iter().map(|user| user.join().unwrap()).collect()
            });
            assert!(paths.iter().all(|path| *path == paths[0]), "{paths:?}");
        }
    }

    #[test]
    fn who_locks_waits_for_all_others() {
        let store = TestStore::new();
        for sharing in [CacheMountSharing::Shared, CacheMountSharing::Locked] {
            let held = take(&store, sharing);
            let waited = std::thread::scope(|scope| {
                let waiter = scope.spawn(|| take(&store, CacheMountSharing::Locked).path());
                let path = held.path();
                drop(held);
                waiter.join().unwrap() == path
            });
            assert!(waited);
        }
        let _held = take(&store, CacheMountSharing::Locked);
        let cancelled =
            store.cache_mount(&KEY, CacheMountSharing::Locked, &AtomicBool::new(true), |_| Ok(()));
        assert!(matches!(cancelled, Err(Error::Cancelled { .. })));
    }

    #[test]
    fn what_was_left_half_filled_is_filled_again() {
        let store = TestStore::new();
        let refused = |path: &Path| -> Result<()> {
            fs::create_dir(path).unwrap();
            fs::write(path.join("half"), "x").unwrap();
            Err(Error::NameInUse(String::new()))
        };
        let cancel = AtomicBool::new(false);
        assert!(store.cache_mount(&KEY, CacheMountSharing::Shared, &cancel, refused).is_err());
        let mount = take(&store, CacheMountSharing::Shared);
        assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 0);
        assert!(!mount.path().with_file_name(NEW).exists());
    }
}
