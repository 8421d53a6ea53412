//! What keeps prune away from what is in use.
//!
//! A lease is a file named by when it began, whose lock its process holds. Prune leaves alone whatever was used since
//! the oldest live lease began, and every use is stamped: rows in `last_used`, blobs in their modification time. So
//! a build takes one lease at its start, and no step has to say which of its inputs it will still need.
//!
//! A lease is taken under a shared lock on `prune.lock`. Prune holds that lock alone from reading the leases until what it
//! forgets has lost its name, so no lease begins in between.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};

use crate::layout::Layout;
use crate::lock::{Flock, LockFile, try_flock};
use crate::root_dir::At;
use crate::store::unique_name;
use crate::{Result, Store};

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
    /// By the stamps of rows, Unix seconds.
    pub(crate) stamp: i64,
    /// By the time stamps of files.
    pub(crate) modified: SystemTime,
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
        let _no_prune = self.lock_prune(FlockOperation::LockShared)?;
        let started = (self.0.options.now)();
        let directory = self.0.layout.directory("leases");
        loop {
            let path = directory.join(format!("{started}-{}", unique_name()));
            if let Some(file) = LockFile::try_lock(path)? {
                return Ok(LeaseFile { file, started });
            }
        }
    }

    /// The time to stamp a use with: never before the lease, even if the clock was set back.
    pub(crate) fn stamp(&self) -> i64 {
        self.lease_started().unwrap_or(i64::MIN).max((self.0.options.now)())
    }

    /// When this handle's live lease began.
    pub(crate) fn lease_started(&self) -> Option<i64> {
        self.0.lease.lock().unwrap_or_else(PoisonError::into_inner).upgrade().map(|lease| lease.started)
    }

    pub(crate) fn lock_prune(&self, operation: FlockOperation) -> Result<File> {
        let path = self.0.layout.prune_lock();
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).open(&path).at("open", &path)?;
        flock(&file, operation).at("lock", &path)?;
        Ok(file)
    }

    /// The beginning of the oldest live lease; `None` when nobody uses the store. The caller holds `prune.lock` alone.
    pub(crate) fn in_use_since(&self) -> Result<Option<InUseSince>> {
        oldest_lease(&self.0.layout)
    }
}

/// The beginning of the oldest live lease; `None` when nobody uses the store.
pub(crate) fn oldest_lease(layout: &Layout) -> Result<Option<InUseSince>> {
    let directory = layout.directory("leases");
    let mut oldest: Option<InUseSince> = None;
    for entry in fs::read_dir(&directory).at("list", &directory)? {
        let entry = entry.at("list", &directory)?;
        let Some(modified) = live_since(&entry.path())? else { continue };
        let name = entry.file_name();
        let stamp = name.to_str().and_then(|name| name.split_once('-')?.0.parse().ok()).unwrap_or(i64::MIN);
        oldest = Some(oldest.map_or(InUseSince { stamp, modified }, |oldest| InUseSince {
            stamp: oldest.stamp.min(stamp),
            modified: oldest.modified.min(modified),
        }));
    }
    Ok(oldest)
}

/// When a lease began by the file system's clock, if its process lives. One whose process is gone is removed.
fn live_since(path: &Path) -> Result<Option<SystemTime>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.at("open", path)?,
    };
    match try_flock(&file, path)? {
        Flock::Held => {
            let metadata = file.metadata().at("read the attributes of", path)?;
            Ok(Some(metadata.modified().at("read the attributes of", path)?))
        }
        Flock::Stale => Ok(None),
        Flock::Taken => {
            fs::remove_file(path).at("remove", path)?;
            Ok(None)
        }
    }
}
