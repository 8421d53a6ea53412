//! The cache's size is kept to, while builds write.
//!
//! A [`Collector`] looks now and then whether the disk has lost a *chunk* of its free space since it was last checked, which costs
//! one system call; only then is the store read. What goes is chosen in the order of BuildKit's rules: first what is easily made
//! again and was not used for two days, then whatever was used longest ago. It stops a chunk below the limit, so that the next
//! chunk fits. What is in use stays, even if that means that the limit is not kept to.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::OptionalExtension as _;

use super::{Item, ItemKind, PrunePolicy, SpaceLimits};
use crate::root_dir::At as _;
use crate::{Result, Store};

/// How often the disk is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long after a check another is made even if the disk has not lost space: somebody else may have freed as much, seconds.
const CHECK_AGE_MAX: i64 = 3600;
/// How long what is easily made again is kept at least, seconds.
const EASY_AGE_MIN: i64 = 48 * 3600;
/// A chunk is this part of the limit.
const CHUNK_PARTS: u64 = 16;

/// How much the cache may take, in bytes, without what images and containers need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimit(pub u64);

/// The cache takes more than it may, as all of it is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow {
    /// What it takes.
    pub cache_bytes: u64,
    /// What it may take.
    pub limit: CacheLimit,
}

/// A file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// What ordinary users can write yet.
    pub free_bytes: u64,
    /// All of it.
    pub size_bytes: u64,
}

/// Keeps a store's cache to a limit, in a thread of its own, until it is finished or dropped.
#[derive(Debug)]
pub struct Collector {
    stopped: Arc<Stopped>,
    thread: Option<JoinHandle<Result<Option<Overflow>>>>,
}

#[derive(Debug, Default)]
struct Stopped {
    flag: Mutex<bool>,
    changed: Condvar,
}

/// The last check of a store.
#[derive(Debug, Clone, Copy)]
struct Checked {
    at: i64,
    free_bytes: u64,
    limit_bytes: u64,
}

impl CacheLimit {
    const fn chunk_bytes(self) -> u64 {
        self.0 / CHUNK_PARTS
    }
}

impl Store {
    /// The file system that the store is on.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn disk(&self) -> Result<Disk> {
        let disk = rustix::fs::statvfs(self.root()).at("ask for the free space of", self.root())?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        Ok(Disk { free_bytes: bytes(disk.f_bavail), size_bytes: bytes(disk.f_blocks) })
    }

    /// Begins to keep the cache to a limit.
    pub fn collect_garbage(&self, limit: CacheLimit) -> Collector {
        let stopped = Arc::<Stopped>::default();
        let (store, flag) = (self.clone(), Arc::clone(&stopped));
        let work = move || collect_until_stopped(&store, limit, &flag);
        // Without a thread, the next build collects.
        let thread = thread::Builder::new().name("gc".to_owned()).spawn(work).ok();
        Collector { stopped, thread }
    }

    /// Forgets what is too much, if it is time to look.
    fn collect_if_due(&self, limit: CacheLimit) -> Result<Option<Overflow>> {
        let (disk, now) = (self.disk()?, (self.0.options.now)());
        let is_due = |last: Checked| {
            let lost_bytes = last.free_bytes.saturating_sub(disk.free_bytes);
            lost_bytes >= limit.chunk_bytes() || now - last.at >= CHECK_AGE_MAX || limit.0 < last.limit_bytes
        };
        if !self.last_check()?.is_none_or(is_due) {
            return Ok(None);
        }
        let easy = |item: &Item| {
            matches!(
                item.kind,
                ItemKind::CacheMount | ItemKind::GitMirror | ItemKind::Source | ItemKind::Leftover
            )
        };
        let kept = limit.0 - limit.chunk_bytes();
        let limits = Some(SpaceLimits { max_used_bytes: Some(kept), ..SpaceLimits::default() });
        let policies = [
            PrunePolicy { selects: Some(&easy), unused_since: Some(now - EASY_AGE_MIN), limits, all: false },
            PrunePolicy { limits, ..PrunePolicy::default() },
        ];
        let mut report = self.plan_prune(&policies)?;
        if !report.removals.is_empty() {
            report = self.prune(&policies)?;
        }
        self.record_check(Checked { at: now, free_bytes: self.disk()?.free_bytes, limit_bytes: limit.0 })?;
        let cache_bytes = report.cache_bytes;
        Ok((cache_bytes > limit.0).then_some(Overflow { cache_bytes, limit }))
    }

    fn last_check(&self) -> Result<Option<Checked>> {
        let read = |row: &rusqlite::Row<'_>| {
            let bytes = |index| Ok::<_, rusqlite::Error>(row.get::<_, i64>(index)?.cast_unsigned());
            Ok(Checked { at: row.get(0)?, free_bytes: bytes(1)?, limit_bytes: bytes(2)? })
        };
        self.0.db.read("read of the last check", |db| {
            let sql = "SELECT at, free_bytes, limit_bytes FROM gc_check";
            Ok(db.prepare_cached(sql)?.query_row((), read).optional()?)
        })
    }

    fn record_check(&self, check: Checked) -> Result<()> {
        self.0.db.write("record a check", |db| {
            let sql =
                "INSERT OR REPLACE INTO gc_check (id, at, free_bytes, limit_bytes) VALUES (1, ?1, ?2, ?3)";
            let row = (check.at, check.free_bytes.cast_signed(), check.limit_bytes.cast_signed());
            Ok(db.prepare_cached(sql)?.execute(row).map(drop)?)
        })
    }
}

/// Looks now, every interval, and once more at the end.
fn collect_until_stopped(store: &Store, limit: CacheLimit, stopped: &Stopped) -> Result<Option<Overflow>> {
    // A connection of its own, so that no step waits for it.
    let store = Store::open(store.root(), &store.0.options)?;
    let mut overflow = None;
    loop {
        overflow = store.collect_if_due(limit)?.or(overflow);
        let flag = stopped.flag.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = stopped.changed.wait_timeout_while(flag, INTERVAL, |stopped| !*stopped);
        if *waited.unwrap_or_else(PoisonError::into_inner).0 {
            return Ok(store.collect_if_due(limit)?.or(overflow));
        }
    }
}

impl Collector {
    /// Looks once more, and stops. Says if the limit could not be kept to.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn finish(mut self) -> Result<Option<Overflow>> {
        self.stop();
        let ended = self.thread.take().map(JoinHandle::join);
        ended.map_or(Ok(None), |ended| ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }

    fn stop(&self) {
        *self.stopped.flag.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stopped.changed.notify_all();
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop();
    }
}
