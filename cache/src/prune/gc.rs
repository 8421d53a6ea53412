//! The cache's size is kept to, while builds write.
//!
//! A [`Collector`] is told of every layer, blob and cache mount that its build adds, measures it, and compares what the cache takes at
//! most ([`ledger`](super::ledger)) with the limit: one row. Only when that is too much is the store read. What goes is chosen in
//! the order of BuildKit's rules: first what is easily made again and was not used for two days, then whatever was used longest ago. It
//! stops a chunk below the limit, so that the next chunk fits.
//!
//! So the cache takes no more than the limit, or than what running builds have used, whichever is more, beside what was written in
//! the last moment. When a build ends that has used more than the limit, what it used goes as well, so the limit holds
//! whenever nothing runs.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{Item, ItemKind, PrunePolicy, SpaceLimits};
use crate::root_dir::At as _;
use crate::{Lease, Result, Store};

/// How long it has to be quiet before a look: so that many small steps, which write to the metadata themselves, are looked at together.
const QUIET: Duration = Duration::from_millis(10);
/// After so many things that came without a quiet moment, a look is made all the same.
const UNQUIET_MAX: u32 = 32;
/// How long a count is trusted, seconds: what nobody has told of is found at least then.
const COUNT_AGE_MAX: i64 = 24 * 3600;
/// How long what is easily made again is kept at least, seconds.
const EASY_AGE_MIN: i64 = 48 * 3600;
/// A chunk is this part of the limit.
const CHUNK_PARTS: u64 = 16;

/// How much the cache may take, in bytes, without what images and containers need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimit(pub u64);

/// The cache took more than it may, as all of it was in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow {
    /// What it took.
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
    store: Store,
    limit: CacheLimit,
    thread: Option<JoinHandle<Result<Option<Overflow>>>>,
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
        let (store, growth) = (self.clone(), self.0.growth.listen());
        let work = move || collect_until_hushed(&store, limit, &growth);
        // Without a thread, all is done at the end.
        let thread = thread::Builder::new().name("gc".to_owned()).spawn(work).ok();
        Collector { store: self.clone(), limit, thread }
    }

    /// Forgets what is too much, if anything is. What was in use at the last look is only looked at again once the cache has
    /// grown by a chunk.
    fn keep_to(&self, limit: CacheLimit, last: Option<Overflow>) -> Result<Option<Overflow>> {
        self.measure()?;
        let ledger = self.ledger()?;
        let bearable = last.map_or(limit.0, |last| last.cache_bytes.saturating_add(limit.chunk_bytes()));
        let now = self.now_seconds();
        let is_fresh = ledger.counted_at().is_some_and(|at| now.saturating_sub(at) < COUNT_AGE_MAX);
        if is_fresh && ledger.cache_bytes_max().is_some_and(|bytes| bytes <= bearable) {
            return Ok(last);
        }
        let cache_bytes = self.collect(limit, now)?;
        Ok((cache_bytes > limit.0).then_some(Overflow { cache_bytes, limit }))
    }

    /// Forgets until a chunk is free, if the limit is exceeded. Returns what the cache takes then.
    fn collect(&self, limit: CacheLimit, now: i64) -> Result<u64> {
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
        Ok(self.prune_above(limit.0.saturating_add(1), &policies)?.cache_bytes)
    }
}

/// Looks whenever something was added.
fn collect_until_hushed(store: &Store, limit: CacheLimit, growth: &Receiver<()>) -> Result<Option<Overflow>> {
    let (mut own, mut overflow) = (None, None);
    while wait_for_growth(growth) {
        // A connection of its own, so that no step waits for it; a build that adds nothing does without.
        let own = match &own {
            Some(own) => own,
            None => own.insert(Store::open(store.root(), &store.0.options)?),
        };
        own.settle(&store.0.growth)?;
        overflow = own.keep_to(limit, overflow)?;
    }
    Ok(overflow)
}

/// Waits until something was added and it is quiet. False when nothing more will come.
fn wait_for_growth(growth: &Receiver<()>) -> bool {
    if growth.recv().is_err() {
        return false;
    }
    for _ in 0..UNQUIET_MAX {
        match growth.recv_timeout(QUIET) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => break,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
    true
}

impl Collector {
    /// Looks once more, stops, and gives the lease back. When the cache takes more than it may, as the build that had the lease has used
    /// all of it, what it used goes then: that is returned.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn finish(mut self, lease: Lease) -> Result<Option<Overflow>> {
        let ended = self.stop()?;
        self.store.settle(&self.store.0.growth)?;
        let overflow = self.store.keep_to(self.limit, ended)?;
        drop(lease);
        if overflow.is_some() {
            self.store.keep_to(self.limit, None)?;
        }
        Ok(overflow)
    }

    fn stop(&mut self) -> Result<Option<Overflow>> {
        self.store.0.growth.hush();
        let ended = self.thread.take().map(JoinHandle::join);
        ended.map_or(Ok(None), |ended| ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.store.0.growth.hush();
    }
}
