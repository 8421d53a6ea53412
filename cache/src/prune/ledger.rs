//! What the cache takes at most, known without counting: what it took at the last count, and all that was added since.
//!
//! Who measures a layer or a directory adds the size in the transaction that records it; a [`Collector`](super::Collector) adds the
//! blobs that its handle took in. What becomes cache in another way makes the count void: an image is removed, or a process died
//! that had not added its blobs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, Row, Transaction};

use crate::db::Failure;
use crate::{Result, Store};

/// Blobs take whole blocks of the file system.
const BLOCK_BYTES: u64 = 4096;

/// What a handle has added to the store, for whoever keeps it to a limit.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    blob_bytes: AtomicU64,
    listener: Mutex<Option<SyncSender<()>>>,
}

/// The ledger's row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ledger {
    added_bytes: u64,
    counted: Option<Count>,
    voided: i64,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    cache_bytes: u64,
    added_bytes: u64,
    at: i64,
}

impl Growth {
    /// Says that a blob was taken in.
    pub(crate) fn add_blob(&self, size_bytes: u64) {
        self.blob_bytes.fetch_add(size_bytes.next_multiple_of(BLOCK_BYTES), Ordering::Relaxed);
        self.announce();
    }

    /// Says that there is something new to be counted.
    pub(crate) fn announce(&self) {
        if let Some(listener) = &*self.listener.lock().unwrap_or_else(PoisonError::into_inner) {
            // One that has not yet heard of what was before hears of both.
            let _: Result<(), _> = listener.try_send(());
        }
    }

    /// Is told when something is new, until [`Growth::hush`].
    pub(super) fn listen(&self) -> Receiver<()> {
        let (sender, receiver) = sync_channel(1);
        *self.listener.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }

    pub(super) fn hush(&self) {
        *self.listener.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Ledger {
    /// What the cache takes at most; `None` when it has to be counted.
    pub(super) fn cache_bytes_max(&self) -> Option<u64> {
        let count = self.counted?;
        Some(count.cache_bytes.saturating_add(self.added_bytes.saturating_sub(count.added_bytes)))
    }

    /// When it was last counted, Unix seconds.
    pub(super) fn counted_at(&self) -> Option<i64> {
        self.counted.map(|count| count.at)
    }

    pub(super) fn read(db: &Connection) -> Result<Self, Failure> {
        let sql = "SELECT added_bytes, counted_bytes, counted_added_bytes, counted_at, voided FROM ledger";
        Ok(db.prepare_cached(sql)?.query_row((), read_row)?)
    }
}

impl Store {
    /// Adds the blobs that a handle took in since it was last asked. `self` may be another handle.
    pub(super) fn settle(&self, growth: &Growth) -> Result<()> {
        let bytes = growth.blob_bytes.swap(0, Ordering::Relaxed);
        if bytes == 0 {
            return Ok(());
        }
        self.0.db.write("add up blobs", |db| add(db, i64::try_from(bytes).unwrap_or(i64::MAX)))
    }

    /// Records a count that began when the ledger was as `seen`.
    pub(super) fn record_count(&self, seen: &Ledger, cache_bytes: u64) -> Result<()> {
        let at = self.now_seconds();
        self.0.db.write("record what the cache takes", |db| {
            let sql = "UPDATE ledger SET counted_bytes = ?1, counted_added_bytes = ?2, counted_at = ?3
                WHERE voided = ?4";
            let row = (cache_bytes.cast_signed(), seen.added_bytes.cast_signed(), at, seen.voided);
            Ok(db.prepare_cached(sql)?.execute(row).map(drop)?)
        })
    }
}

/// Adds what a layer or a directory takes, or takes more than before.
pub(crate) fn add(db: &Transaction<'_>, bytes: i64) -> Result<(), Failure> {
    let sql = "UPDATE ledger SET added_bytes = added_bytes + ?1";
    Ok(db.prepare_cached(sql)?.execute([bytes.max(0)]).map(drop)?)
}

/// Says that the cache has grown by nobody knows how much.
pub(crate) fn void(db: &Transaction<'_>) -> Result<(), Failure> {
    let sql = "UPDATE ledger SET counted_bytes = NULL, voided = voided + 1";
    Ok(db.prepare_cached(sql)?.execute(()).map(drop)?)
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<Ledger> {
    let bytes = |column| Ok::<_, rusqlite::Error>(row.get::<_, i64>(column)?.cast_unsigned());
    let counted: Option<i64> = row.get(1)?;
    let (added_bytes, at) = (bytes(2)?, row.get(3)?);
    let count = |cache_bytes: i64| Count { cache_bytes: cache_bytes.cast_unsigned(), added_bytes, at };
    Ok(Ledger { added_bytes: bytes(0)?, counted: counted.map(count), voided: row.get(4)? })
}
