//! Directories that steps change, and that no result names: cache mounts, and mirrors of git repositories.
//!
//! Each has a row: what it is called, what it began as, when it was used last, and what it takes on disk, which is counted after
//! each use. A directory without a row is empty, or was made by an interrupted
//! process and is used again under the same name.
//!
//! Whoever uses one holds its lock; what is locked is not removed.

use std::fs::File;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Row, params};

use crate::db::Failure;
use crate::lease::seconds;
use crate::lock::{Flock, LockFile, try_flock};
use crate::root_dir::At as _;
use crate::{CacheKey, Error, Result, Store};

/// What a directory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MutableKind {
    /// A cache mount of `RUN` steps.
    CacheMount,
    /// A bare repository with what was fetched of a remote.
    GitMirror,
}

/// A directory that steps change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutable {
    /// What it is for.
    pub kind: MutableKind,
    /// What it is called where it is used: the id of a cache mount, the address of a repository without credentials.
    pub name: String,
    /// The digest of what it began as, if it was not empty.
    pub base: Option<[u8; 32]>,
    /// Where it is.
    pub path: PathBuf,
    /// What it took on disk when that was last counted.
    pub size_bytes: u64,
    /// When it was made, Unix seconds.
    pub created: i64,
    /// When it was last taken, Unix seconds.
    pub last_used: i64,
    /// The stamp of the last use.
    pub(crate) stamp: i64,
}

/// The digits of a key that an id begins with.
const ID_DIGITS: usize = 12;
const KEY_DIGITS: usize = 64;

impl MutableKind {
    const ALL: [Self; 2] = [Self::CacheMount, Self::GitMirror];

    /// The directory of the store that they are in.
    pub(crate) const fn directory(self) -> &'static str {
        match self {
            Self::CacheMount => "cache-mounts",
            Self::GitMirror => "git",
        }
    }
}

impl Mutable {
    /// What people call it: the beginning of its key, and which of several instances it is.
    pub fn id(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let (key, number) = name.split_at_checked(KEY_DIGITS).unwrap_or((&name, ""));
        format!("{}{number}", &key[..ID_DIGITS.min(key.len())])
    }
}

impl Store {
    /// The directories of a kind, the last used first.
    ///
    /// # Errors
    /// When the metadata cannot be read, or the size of one cannot be counted.
    pub fn mutables(&self, kind: MutableKind) -> Result<Vec<Mutable>> {
        self.measure()?;
        let mut found = self.0.db.read("list directories", |db| self.read_mutables(db))?;
        found.retain(|mutable| mutable.kind == kind);
        found.sort_by_key(|mutable| std::cmp::Reverse(mutable.last_used));
        Ok(found)
    }

    /// Says that the mirror of a git repository is being used, and where it is. The caller holds the lock on `key`.
    ///
    /// # Errors
    /// When the metadata cannot be written.
    pub fn git_mirror(&self, key: &CacheKey, address: &str) -> Result<PathBuf> {
        let path = self.0.layout.mutable(MutableKind::GitMirror, &key.to_string());
        self.record_use(&path, address, None)?;
        Ok(path)
    }

    /// Says that a directory is being used, by whoever holds its lock.
    pub(crate) fn record_use(&self, path: &Path, name: &str, base: Option<[u8; 32]>) -> Result<()> {
        let stamp = self.stamp();
        let path = self.relative(path);
        self.0.db.write("record the use of a directory", |db| {
            let sql = "INSERT INTO mutable (path, name, base, created, last_used)
                VALUES (?1, ?2, ?3, ?4, ?4) ON CONFLICT (path) DO UPDATE SET
                last_used = max(last_used + 1, excluded.last_used)";
            Ok(db.prepare_cached(sql)?.execute(params![path, name, base, stamp]).map(drop)?)
        })
    }

    /// Says that a directory was changed, so that it is counted again. To be called after a use.
    ///
    /// # Errors
    /// When the metadata cannot be written.
    pub fn record_change(&self, path: &Path) -> Result<()> {
        self.0.db.write("record a change of a directory", |db| {
            let sql = "UPDATE mutable SET changes = changes + 1 WHERE path = ?1";
            Ok(db.prepare_cached(sql)?.execute([self.relative(path)]).map(drop)?)
        })?;
        self.0.growth.announce();
        Ok(())
    }

    pub(crate) fn read_mutables(&self, db: &Connection) -> Result<Vec<Mutable>, Failure> {
        let sql = "SELECT path, name, base, disk_size_bytes, created, last_used FROM mutable
            ORDER BY path";
        let mut statement = db.prepare_cached(sql)?;
        let rows = statement.query_map((), |row| Ok((row.get::<_, String>(0)?, read_row(row)?)))?;
        rows.map(|row| {
            let (path, mutable) = row?;
            let kind = MutableKind::ALL.into_iter().find(|kind| path.starts_with(kind.directory()));
            let kind = kind.ok_or_else(|| Error::Damaged { table: "mutable", found: path.clone() })?;
            Ok(Mutable { kind, path: self.root().join(path), ..mutable })
        })
        .collect()
    }

    /// Removes a directory that nobody uses, and its row. Returns whether it did.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove_mutable(&self, mutable: &Mutable) -> Result<bool> {
        self.lock_mutable(mutable)?.map_or(Ok(false), |lock| self.forget_mutable(mutable, &lock, None))
    }

    /// As [`remove_mutable`](Self::remove_mutable), unless it was used since `mutable` was read.
    pub(crate) fn remove_unused_mutable(&self, mutable: &Mutable) -> Result<bool> {
        let stamp = Some(mutable.stamp);
        self.lock_mutable(mutable)?.map_or(Ok(false), |lock| self.forget_mutable(mutable, &lock, stamp))
    }

    /// Removes a directory that was locked, and its row if it still has this stamp.
    fn forget_mutable(&self, mutable: &Mutable, lock: &MutableLock, stamp: Option<i64>) -> Result<bool> {
        // Where there was nothing to lock, somebody may have made it since, and be using it.
        let is_gone = matches!(lock, MutableLock::Gone);
        let stamp = if is_gone { Some(mutable.stamp) } else { stamp };
        self.0.db.write("forget a directory", |db| {
            let path = self.relative(&mutable.path);
            let sql = "DELETE FROM mutable WHERE path = ?1 AND last_used = ifnull(?2, last_used)";
            db.prepare_cached(sql)?.execute((&path, stamp))?;
            let sql = "SELECT NOT EXISTS (SELECT 1 FROM mutable WHERE path = ?1)";
            let is_forgotten = db.prepare_cached(sql)?.query_row([path], |row| row.get(0))?;
            if is_forgotten && !is_gone {
                self.discard(&mutable.path)?;
            }
            Ok(is_forgotten)
        })
    }

    /// Whether somebody holds the lock of a directory right now.
    ///
    /// # Errors
    /// When its lock cannot be tried.
    pub fn is_in_use(&self, mutable: &Mutable) -> Result<bool> {
        Ok(self.lock_mutable(mutable)?.is_none())
    }

    fn lock_mutable(&self, mutable: &Mutable) -> Result<Option<MutableLock>> {
        match mutable.kind {
            MutableKind::CacheMount => {
                let lock = match File::open(&mutable.path) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                        return Ok(Some(MutableLock::Gone));
                    }
                    opened => opened.at("open", &mutable.path)?,
                };
                let taken = try_flock(&lock, &mutable.path)? == Flock::Taken;
                Ok(taken.then_some(MutableLock::Directory(lock)))
            }
            MutableKind::GitMirror => {
                let name = mutable.path.file_name().unwrap_or_default();
                let lock = LockFile::try_lock(self.0.layout.directory("locks").join(name))?;
                Ok(lock.map(MutableLock::Key))
            }
        }
    }

    /// How a path of the store is written in the metadata.
    pub(crate) fn relative(&self, path: &Path) -> String {
        path.strip_prefix(self.root()).unwrap_or(path).to_string_lossy().into_owned()
    }
}

/// Held while a directory is removed.
#[derive(Debug)]
enum MutableLock {
    Directory(#[expect(dead_code, reason = "held for its drop")] File),
    Key(#[expect(dead_code, reason = "held for its drop")] LockFile),
    /// The directory is not there, and nothing is locked.
    Gone,
}

/// A row without its path.
fn read_row(row: &Row<'_>) -> rusqlite::Result<Mutable> {
    let stamp = row.get(5)?;
    Ok(Mutable {
        kind: MutableKind::CacheMount,
        name: row.get(1)?,
        base: row.get(2)?,
        path: PathBuf::new(),
        size_bytes: u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0),
        created: seconds(row.get(4)?),
        last_used: seconds(stamp),
        stamp,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::testing::TestStore;
    use crate::{CacheMount, CacheMountSharing, CacheMountSpec};

    fn take(store: &Store) -> CacheMount {
        let sharing = CacheMountSharing::Shared;
        let spec = CacheMountSpec { key: CacheKey([1; 32]), id: "c", base: None, sharing };
        let fill = |path: &Path| -> Result<()> { Ok(fs::create_dir(path).at("create", path)?) };
        store.cache_mount(&spec, &AtomicBool::new(false), fill).unwrap()
    }

    fn listed(store: &Store) -> Vec<Mutable> {
        store.mutables(MutableKind::CacheMount).unwrap()
    }

    #[test]
    fn what_is_made_while_it_is_removed_stays() {
        let store = TestStore::new();
        drop(take(&store));
        let mutable = listed(&store).remove(0);
        fs::remove_dir_all(&mutable.path).unwrap();
        let lock = store.lock_mutable(&mutable).unwrap().unwrap();
        let used = take(&store);
        for stamp in [None, Some(mutable.stamp)] {
            assert!(!store.forget_mutable(&mutable, &lock, stamp).unwrap());
        }
        assert!(used.path().exists() && listed(&store).len() == 1);
    }

    #[test]
    fn what_is_gone_is_forgotten_and_what_was_used_since_is_not() {
        let store = TestStore::new();
        drop(take(&store));
        let old = listed(&store).remove(0);
        drop(take(&store));
        assert!(!store.remove_unused_mutable(&old).unwrap() && old.path.exists());
        fs::remove_dir_all(&old.path).unwrap();
        assert!(store.remove_mutable(&listed(&store).remove(0)).unwrap());
        assert_eq!(listed(&store), []);
    }
}
