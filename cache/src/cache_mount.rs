//! Directories that steps keep things in from one build to the next: cache mounts.
//!
//! ```text
//! cache-mounts/<key>-<number>/    one instance; whoever uses it holds a lock on this directory
//! cache-mounts/<key>-<number>/fs  what steps see; `new` until it is complete, and `filling` is locked meanwhile
//! ```
//!
//! Users that share hold the lock together, others alone. `fs` appears with its first content by a rename, so what a crash
//! leaves half-filled is not used but filled again. An instance may be removed at any time that nobody uses it: who opened it
//! meanwhile sees that his lock is on what is gone, and opens it anew.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::fail_point::FailPoint;
use crate::lock::{is_at, wait_for};
use crate::mutable::{Mutable, MutableKind};
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

/// A cache mount, as a step asks for it.
#[derive(Debug, Clone, Copy)]
pub struct CacheMountSpec<'a> {
    /// What tells it from others: its id and what it begins as.
    pub key: CacheKey,
    /// What it is called.
    pub id: &'a str,
    /// The digest of what it begins as, if not empty.
    pub base: Option<[u8; 32]>,
    /// Who else may use it.
    pub sharing: CacheMountSharing,
}

/// An instance of a cache mount, in use until this is dropped.
#[derive(Debug)]
pub struct CacheMount {
    directory: PathBuf,
    store: Store,
    #[expect(dead_code, reason = "held for its drop")]
    lock: File,
}

impl Drop for CacheMount {
    fn drop(&mut self) {
        // What cannot be recorded now is counted the next time that all is.
        drop(self.store.record_change(&self.directory));
    }
}

impl CacheMount {
    /// What steps see: a directory as a rule, a file where that is what the cache began as.
    pub fn path(&self) -> PathBuf {
        self.directory.join("fs")
    }
}

impl Store {
    /// Takes an instance of a cache mount. `fill` makes the path that it is given, with what a new instance holds.
    ///
    /// # Errors
    /// `fill`'s. [`Error::Cancelled`] soon after `cancel` became true. When the store cannot be written.
    pub fn cache_mount<E: From<Error>>(
        &self,
        spec: &CacheMountSpec<'_>,
        cancel: &AtomicBool,
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<CacheMount, E> {
        let mount = self.take_instance(spec, cancel)?;
        self.record_use(&mount.directory, spec.id, spec.base)?;
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

    /// Takes an instance that there is, for nobody else or with those who share; `None` when others are using it.
    ///
    /// # Errors
    /// When it cannot be opened or locked.
    pub fn take_cache_mount(
        &self,
        mount: &Mutable,
        sharing: CacheMountSharing,
    ) -> Result<Option<CacheMount>> {
        debug_assert_eq!(mount.kind, MutableKind::CacheMount);
        let taken = CacheMount::try_take(self, &mount.path, sharing)?;
        if taken.is_some() {
            self.record_use(&mount.path, &mount.name, mount.base)?;
        }
        Ok(taken)
    }

    fn take_instance(&self, spec: &CacheMountSpec<'_>, cancel: &AtomicBool) -> Result<CacheMount> {
        let mut number = 0;
        loop {
            let name = format!("{}-{number}", spec.key);
            let directory = self.0.layout.mutable(MutableKind::CacheMount, &name);
            let attempt = || CacheMount::try_take(self, &directory, spec.sharing);
            if spec.sharing == CacheMountSharing::Locked {
                return wait_for(&directory, cancel, attempt);
            }
            if let Some(mount) = attempt()? {
                return Ok(mount);
            }
            // Somebody uses it right now, so there are at most as many as there are steps running.
            number += 1;
        }
    }
}

impl CacheMount {
    /// Opens and locks an instance, which is made if it is not there; `None` when others are in the way.
    fn try_take(store: &Store, directory: &Path, sharing: CacheMountSharing) -> Result<Option<Self>> {
        loop {
            fs::create_dir_all(directory).at("create", directory)?;
            let lock = match File::open(directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.at("open", directory)?,
            };
            if try_lock(&lock, operation(sharing), directory)?.is_none() {
                return Ok(None);
            }
            if is_at(&lock, directory)? {
                return Ok(Some(Self { directory: directory.to_owned(), store: store.clone(), lock }));
            }
        }
    }

    /// Gives it other content: `fill` makes the path that it is given. Until that is done, and if it fails, the old one stays.
    /// The caller has the instance for nobody else.
    ///
    /// # Errors
    /// `fill`'s, and when the store cannot be written.
    pub fn replace<E: From<Error>>(
        &self,
        store: &Store,
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        fill(&self.begin_filling()?)?;
        store.discard(&self.path())?;
        Ok(self.end_filling()?)
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

    fn spec(sharing: CacheMountSharing) -> CacheMountSpec<'static> {
        CacheMountSpec { key: CacheKey([7; 32]), id: "c", base: None, sharing }
    }

    fn take(store: &Store, sharing: CacheMountSharing) -> CacheMount {
        let fill = |path: &Path| -> Result<()> { Ok(fs::create_dir(path).at("create", path)?) };
        store.cache_mount(&spec(sharing), &AtomicBool::new(false), fill).unwrap()
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
        assert!(first.path().ends_with(format!("{}-0/fs", CacheKey([7; 32]))));
        assert!(
            take(&store, CacheMountSharing::Shared).path().ends_with(format!("{}-1/fs", CacheKey([7; 32])))
        );
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
            store.cache_mount(&spec(CacheMountSharing::Locked), &AtomicBool::new(true), |_| Ok(()));
        assert!(matches!(cancelled, Err(Error::Cancelled { .. })));
    }

    #[test]
    fn content_is_replaced_as_a_whole_or_not_at_all() {
        let store = TestStore::new();
        let mount = take(&store, CacheMountSharing::Locked);
        fs::write(mount.path().join("old"), "").unwrap();
        let failing = |path: &Path| -> Result<()> {
            fs::create_dir(path).unwrap();
            Err(Error::NameInUse(String::new()))
        };
        assert!(mount.replace(&store, failing).is_err());
        assert!(mount.path().join("old").exists());
        mount.replace(&store, |path| -> Result<()> { Ok(fs::create_dir(path).at("create", path)?) }).unwrap();
        assert!(mount.path().exists() && !mount.path().join("old").exists());
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
        assert!(store.cache_mount(&spec(CacheMountSharing::Shared), &cancel, refused).is_err());
        let mount = take(&store, CacheMountSharing::Shared);
        assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 0);
        assert!(!mount.path().with_file_name(NEW).exists());
    }
}
