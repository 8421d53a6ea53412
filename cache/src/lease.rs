//! What keeps prune away from what is in use.
//!
//! A lease is a file named by when it began, whose lock its process holds. Prune leaves alone whatever was used since
//! the oldest live lease began, and every use is stamped: rows in `last_used`, blobs in their modification time. So
//! a build takes one lease at its start, and no step has to say which of its inputs it will still need. Other commands have one while they
//! read layers or make what has no name yet: a container that runs has its row instead, and keeps prune from nothing else.
//!
//! A lease is taken under a shared lock on `leases.lock`, and the leases are read with that lock alone, so that none is half made then.
//! They are read after what could be taken, so that whoever has just written or used it has a lease by then. What is used under a lease that began
//! after that gets another stamp, and prune takes nothing whose stamp has changed.

use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};

use crate::layout::Layout;
use crate::lock::{Holder, LockFile, holder};
use crate::prune::ledger;
use crate::root_dir::At;
use crate::store::unique_name;
use crate::{Result, Store};

const NANOSECONDS: i64 = 1_000_000_000;

/// While this lives, nothing that the store hands out or takes in is pruned. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Lease(#[expect(dead_code, reason = "held for its drop")] Arc<LeaseFile>);

#[derive(Debug)]
pub(crate) struct LeaseFile {
    #[expect(dead_code, reason = "held for its drop")]
    file: LockFile,
    started: i64,
}

/// Since when things have been in use by somebody.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InUseSince {
    /// By the stamps of rows, Unix nanoseconds.
    pub(crate) stamp: i64,
    /// By the time stamps of files.
    pub(crate) modified: SystemTime,
}

impl InUseSince {
    /// Of two answers the one that covers more.
    pub(crate) fn earlier(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) => {
                let (stamp, modified) = (one.stamp.min(other.stamp), one.modified.min(other.modified));
                Some(Self { stamp, modified })
            }
            (one, other) => one.or(other),
        }
    }
}

impl Store {
    /// Begins to use the store. To be held from before the first lookup of a build until its results are named.
    ///
    /// Clones of one handle share a lease while any part of it lives.
    ///
    /// # Errors
    /// When the lease file cannot be made.
    pub fn lease(&self) -> Result<Lease> {
        let mut current = self.0.lease.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(live) = current.upgrade() {
            return Ok(Lease(live));
        }
        let taken = Arc::new(self.take_lease()?);
        *current = Arc::downgrade(&taken);
        Ok(Lease(taken))
    }

    fn take_lease(&self) -> Result<LeaseFile> {
        let _not_read = lock_file(&self.0.layout.leases_lock(), FlockOperation::LockShared)?;
        let started = (self.0.options.now)();
        let directory = self.0.layout.directory("leases");
        loop {
            let path = directory.join(format!("{started}-{}", unique_name()));
            if let Some(file) = LockFile::try_lock(path)? {
                return Ok(LeaseFile { file, started });
            }
        }
    }

    /// The time to stamp a use with, Unix nanoseconds: never before the lease, even if the clock was set back.
    pub(crate) fn stamp(&self) -> i64 {
        self.lease_started().unwrap_or(i64::MIN).max((self.0.options.now)())
    }

    /// Whether what was used last at that time need not be stamped with this one: it was under this handle's lease, or is of this very moment. One of later
    /// is of before the clock was set back, and says nothing.
    pub(crate) fn is_fresh(&self, last_used: i64, stamp: i64) -> bool {
        (self.lease_started().unwrap_or(stamp)..=stamp).contains(&last_used)
    }

    /// The time, Unix seconds.
    pub(crate) fn now_seconds(&self) -> i64 {
        seconds((self.0.options.now)())
    }

    /// When this handle's live lease began.
    pub(crate) fn lease_started(&self) -> Option<i64> {
        self.0.lease.lock().unwrap_or_else(PoisonError::into_inner).upgrade().map(|lease| lease.started)
    }

    /// Keeps prune away, or everybody who does so: what is there stays there.
    pub(crate) fn lock_prune(&self, operation: FlockOperation) -> Result<File> {
        lock_file(&self.0.layout.prune_lock(), operation)
    }

    /// The beginning of the oldest live lease; `None` when nobody uses the store.
    pub(crate) fn in_use_since(&self) -> Result<Option<InUseSince>> {
        Ok(self.live_leases()?.oldest)
    }

    /// Who uses the store, with all counted anew where somebody died.
    pub(crate) fn live_leases(&self) -> Result<Leases> {
        let leases = self.leases()?;
        if leases.dead > 0 {
            self.recount()?;
        }
        Ok(leases)
    }

    /// Who uses the store. When there were dead ones, the caller has everything [counted](Self::recount).
    pub(crate) fn leases(&self) -> Result<Leases> {
        read_leases(&self.0.layout)
    }

    /// Has everything counted anew, as a process died that did not say what it had added.
    pub(crate) fn recount(&self) -> Result<()> {
        self.0.db.write("have the cache counted", |db| {
            db.prepare_cached("UPDATE mutable SET changes = changes + 1")?.execute(())?;
            ledger::void(db)
        })
    }
}

/// Who uses the store.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    /// When the oldest live lease began.
    pub(crate) oldest: Option<InUseSince>,
    /// What the newest says when it began: later than it is now, if the clock was set back.
    pub(crate) newest_stamp: Option<i64>,
    /// How many were left by processes that are gone.
    pub(crate) dead: u32,
}

enum Life {
    Since(SystemTime),
    Dead,
    Over,
}

fn lock_file(path: &Path, operation: FlockOperation) -> Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).at("open", path)?;
    flock(&file, operation).at("lock", path)?;
    Ok(file)
}

/// Whole seconds of a stamp.
pub(crate) const fn seconds(stamp: i64) -> i64 {
    stamp.div_euclid(NANOSECONDS)
}

/// The first stamp of a second.
pub(crate) const fn stamp_of(seconds: i64) -> i64 {
    seconds.saturating_mul(NANOSECONDS)
}

/// Reads the leases, and removes those of processes that are gone. None begins meanwhile.
pub(crate) fn read_leases(layout: &Layout) -> Result<Leases> {
    let _alone = lock_file(&layout.leases_lock(), FlockOperation::LockExclusive)?;
    let directory = layout.directory("leases");
    let mut leases = Leases::default();
    for entry in fs::read_dir(&directory).at("list", &directory)? {
        let entry = entry.at("list", &directory)?;
        let modified = match life_of(&entry.path())? {
            Life::Since(modified) => modified,
            Life::Dead => {
                leases.dead += 1;
                continue;
            }
            Life::Over => continue,
        };
        let name = entry.file_name();
        let stamp = name.to_str().and_then(|name| name.split_once('-')?.0.parse().ok()).unwrap_or(i64::MIN);
        leases.oldest = InUseSince::earlier(leases.oldest, Some(InUseSince { stamp, modified }));
        leases.newest_stamp = leases.newest_stamp.max(Some(stamp));
    }
    Ok(leases)
}

/// Since when a lease lives by the file system's clock. One whose process is gone is removed.
fn life_of(path: &Path) -> Result<Life> {
    Ok(match holder(path)? {
        Holder::Live(file) => {
            let metadata = file.metadata().at("read the attributes of", path)?;
            Life::Since(metadata.modified().at("read the attributes of", path)?)
        }
        Holder::Dead => Life::Dead,
        Holder::Nobody => Life::Over,
    })
}
