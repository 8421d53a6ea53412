//! How the store forgets.
//!
//! Images and containers are roots; so is whatever a running process has used. What a root needs is kept, down to the blobs.
//! Everything else is the cache: results of steps, directories that steps change, and what nothing names. [`Item`] is how people see
//! each.
//!
//! 1. List the files. Read the leases: what was used since the oldest began is out of reach.
//! 2. Count what is not counted yet.
//! 3. Read the rows, as they are at one moment, and the leases again, as somebody may have begun meanwhile. Decide in memory what goes: items, the least recently used first, as far as the
//!    policies ask; then what nothing names any longer. Nobody waits for that.
//! 4. Carry it out (`apply`): results, snapshots, layers, in short transactions that look again at what they take; blobs, and
//!    directories whose lock is free.
//! 5. Cut out of packs that stay what no layer needs any longer (`trim`). What fails there is left to the next prune.
//! 6. Sweep what has no row; empty the trash.

mod apply;
mod blobs;
mod gc;
mod item;
pub(crate) mod ledger;
mod measure;
mod plan;
mod state;
mod trim;

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use rusqlite::{Connection, Transaction};
use rustix::fs::FlockOperation;

use self::blobs::{Blob, ImageBlobs};
pub use self::gc::{CacheLimit, Collector, Overflow};
pub use self::item::{Item, ItemKind, Usage};
pub(crate) use self::ledger::Growth;
use self::ledger::Ledger;
pub use self::measure::disk_size_bytes;
pub(crate) use self::measure::file_disk_size_bytes;
use self::plan::Plan;
use self::state::{Found, State};
use crate::db::Failure;
use crate::lease::{InUseSince, Leases};
use crate::root_dir::At as _;
use crate::{Area, LayerId, Result, Store};

/// What may be forgotten. The default is everything that is not in use and takes room of its own.
#[derive(Clone, Copy, Default)]
pub struct PrunePolicy<'a> {
    /// Which items; `None` is all.
    pub selects: Option<&'a dyn Fn(&Item) -> bool>,
    /// Only items that were not used since then, Unix seconds.
    pub unused_since: Option<i64>,
    /// Stop as soon as the cache keeps to these.
    pub limits: Option<SpaceLimits>,
    /// Forget also what frees nothing, because images, containers or running processes need all of it.
    pub all: bool,
}

/// How much the cache may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpaceLimits {
    /// At most this many bytes.
    pub max_used_bytes: Option<u64>,
    /// So that this many bytes of the disk stay free.
    pub min_free_bytes: Option<u64>,
    /// This many bytes it may take whatever else is said.
    pub reserved_bytes: u64,
}

/// What was forgotten, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// The items, in their order.
    pub removals: Vec<Removal>,
    /// What was cut out of packs that stay. Not known before it is done.
    pub trimmed_bytes: u64,
    /// What the cache takes afterwards.
    pub cache_bytes: u64,
}

/// An item that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// What goes.
    pub item: Item,
    /// Which of the policies asks for it.
    pub policy: usize,
    /// What that frees, with what went before.
    pub freed_bytes: u64,
}

impl fmt::Debug for PrunePolicy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrunePolicy")
            .field("unused_since", &self.unused_since)
            .field("limits", &self.limits)
            .field("all", &self.all)
            .finish_non_exhaustive()
    }
}

impl SpaceLimits {
    /// How much the cache may take, when it takes `used_bytes` now and `free_bytes` of the disk are free.
    pub fn keep_bytes(&self, used_bytes: u64, free_bytes: u64) -> u64 {
        let max = self.max_used_bytes.unwrap_or(u64::MAX);
        let missing = self.min_free_bytes.map_or(0, |min| min.saturating_sub(free_bytes));
        let kept = if missing > 0 { used_bytes.saturating_sub(missing).min(max) } else { max };
        // With nothing but a reserve, all else goes.
        let kept = if self.max_used_bytes.is_none() && self.min_free_bytes.is_none() { 0 } else { kept };
        kept.max(self.reserved_bytes)
    }
}

impl PruneReport {
    /// What all of it frees.
    pub fn freed_bytes(&self) -> u64 {
        self.trimmed_bytes + self.removals.iter().map(|removal| removal.freed_bytes).sum::<u64>()
    }
}

impl From<Plan> for PruneReport {
    fn from(plan: Plan) -> Self {
        Self { removals: plan.removals, trimmed_bytes: 0, cache_bytes: plan.cache_bytes }
    }
}

/// What was read of the files of the store.
struct Files {
    blobs: Vec<Blob>,
    images: Vec<ImageBlobs>,
    downloads: HashSet<rbuild_image::Digest>,
}

impl Store {
    /// Forgets what the policies select, each after the one before, and removes what nothing needs any longer.
    ///
    /// # Errors
    /// When the metadata or a directory of the store cannot be read or written. What was forgotten until then stays so.
    pub fn prune(&self, policies: &[PrunePolicy<'_>]) -> Result<PruneReport> {
        self.prune_above(0, policies)
    }

    /// As [`prune`](Self::prune), if the cache takes at least so much.
    fn prune_above(&self, bytes_min: u64, policies: &[PrunePolicy<'_>]) -> Result<PruneReport> {
        // Against other prunes, which would take the same, and checks. No build waits for it.
        let _alone = self.lock_prune(FlockOperation::LockExclusive)?;
        let free_bytes = self.disk()?.free_bytes;
        let (state, ledger) = self.state()?;
        let mut plan = state.plan(&[], free_bytes);
        if plan.cache_bytes < bytes_min {
            self.record_count(&ledger, plan.cache_bytes)?;
            return Ok(plan.into());
        }
        plan = state.plan(policies, free_bytes);
        self.forget(&mut plan)?;
        let trimmed_bytes = self.trim_packs()?;
        if trimmed_bytes > 0 {
            // Whether it was the cache's or an image's, only a count says.
            plan.cache_bytes = self.state()?.0.plan(&[], free_bytes).cache_bytes;
        }
        self.record_count(&ledger, plan.cache_bytes)?;
        self.sweep_strays()?;
        self.sweep_file_lists()?;
        self.builds().sweep()?;
        self.empty_trash()?;
        Ok(PruneReport { trimmed_bytes, ..plan.into() })
    }

    /// What [`prune`](Self::prune) would do now.
    ///
    /// # Errors
    /// When the metadata or a directory of the store cannot be read.
    pub fn plan_prune(&self, policies: &[PrunePolicy<'_>]) -> Result<PruneReport> {
        let free_bytes = self.disk()?.free_bytes;
        Ok(self.state()?.0.plan(policies, free_bytes).into())
    }

    /// What is in the store, and what each thing takes.
    ///
    /// # Errors
    /// When the metadata or a directory of the store cannot be read.
    pub fn usage(&self) -> Result<Usage> {
        Ok(self.state()?.0.usage())
    }

    /// What is in the store at one moment, and what the ledger said at that moment.
    fn state(&self) -> Result<(State, Ledger)> {
        // Who has written one of these has a lease when the leases are read, or has named it by then.
        let blobs = self.list_blobs()?;
        let in_use = self.in_use_since()?;
        self.measure()?;
        let files = self.read_files(blobs)?;
        let (state, ledger, dead) = self.0.db.read("list what is stored", |db| {
            let ledger = Ledger::read(db)?;
            // From here on the rows are what they are. Who has used one since the leases were read has one now, or has named it.
            let Leases { oldest, dead, .. } = self.leases()?;
            Ok((self.read_state(db, &files, InUseSince::earlier(in_use, oldest))?, ledger, dead))
        })?;
        if dead > 0 {
            self.recount()?;
        }
        Ok((state, ledger))
    }

    fn ledger(&self) -> Result<Ledger> {
        self.0.db.read("read what the cache takes", Ledger::read)
    }

    fn read_files(&self, blobs: Vec<Blob>) -> Result<Files> {
        Ok(Files { images: self.list_image_blobs()?, blobs, downloads: self.downloads()?.digests()? })
    }

    fn read_state(
        &self,
        db: &Connection,
        files: &Files,
        in_use: Option<InUseSince>,
    ) -> Result<State, Failure> {
        let Files { blobs, images, downloads } = files;
        State::read(self, db, &Found { blobs, images, downloads, in_use })
    }

    /// Moves layers, packs and directories of containers that have no row out of the way.
    ///
    /// Inside a transaction, as what adds a row gives its file the name inside the same.
    pub(crate) fn sweep_files(&self, db: &Transaction<'_>) -> Result<(), Failure> {
        Ok(self.strays(db)?.iter().try_for_each(|stray| self.discard(stray))?)
    }

    /// The files and directories that should have a row, and have none.
    fn strays(&self, db: &Connection) -> Result<Vec<PathBuf>, Failure> {
        let mut strays = Vec::new();
        for (table, directory) in self.rows_with_files() {
            let mut exists =
                db.prepare_cached(&format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE id = ?1)"))?;
            for name in names(&directory)? {
                if !exists.query_row([name.to_str()], |row| row.get(0))? {
                    strays.push(directory.join(&name));
                }
            }
        }
        Ok(strays)
    }

    /// Tables whose rows have a file or directory that is called as the row.
    fn rows_with_files(&self) -> [(&'static str, PathBuf); 3] {
        let layout = &self.0.layout;
        [
            ("layer", layout.directory("layers")),
            ("pack", layout.packs()),
            ("container", layout.area(Area::Containers)),
        ]
    }

    /// The layers that have a directory.
    pub(crate) fn layer_directories(&self) -> Result<HashSet<LayerId>> {
        let names = names(&self.0.layout.directory("layers"))?;
        Ok(names.iter().filter_map(|name| name.to_str()?.parse().ok().map(LayerId)).collect())
    }
}

/// The names in a directory; none where there is no such directory.
fn names(directory: &Path) -> Result<Vec<OsString>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.at("list", directory)?,
    };
    entries.map(|entry| Ok(entry.at("list", directory)?.file_name())).collect()
}

#[cfg(test)]
mod tests;
