//! How the store forgets.
//!
//! Images and containers are roots; so are cache records, until they are forgotten. What a root needs is kept, down to the
//! blobs. What nobody needs goes, unless somebody who is alive has used it (see [`Lease`](crate::Lease)).
//!
//! 1. Take `prune.lock` alone; read the leases: what was used since the oldest began is out of reach.
//! 2. Forget records, the least recently used first, as far as the policy asks.
//! 3. Forget snapshots that no root names, then layers that no snapshot has; the layers' directories move to `trash/`, together
//!    with directories that have no row. All that in one transaction, so that no commit comes in between.
//! 4. Unlink blobs that neither an image nor a layer names.
//! 5. Give the lock back; empty the trash.

mod plan;

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rbuild_image::{Descriptor, Digest};
use rusqlite::Transaction;
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Stat, fstat, openat, statat};

use self::plan::{Plan, State};
use crate::db::Failure;
use crate::images::visit_blobs;
use crate::lease::InUseSince;
use crate::root_dir::{At, PathError, RootDir, list};
use crate::{Error, LayerId, Result, Store};

/// What may be forgotten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PrunePolicy {
    /// Forget records until the layers that are left take at most this many bytes; `None` forgets every record.
    pub keep_bytes: Option<u64>,
    /// Forget only records that were not used since then, Unix seconds.
    pub unused_since: Option<i64>,
    /// Remove images without a name, too.
    pub unnamed_images: bool,
    /// Change nothing, only count.
    pub dry_run: bool,
}

/// What was forgotten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// Images without a name.
    pub images: usize,
    /// Results of steps.
    pub records: usize,
    /// Layers.
    pub layers: usize,
    /// Blobs.
    pub blobs: usize,
    /// What the layers and blobs took on disk.
    pub freed_bytes: u64,
}

/// How much the store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Images.
    pub images: usize,
    /// Containers.
    pub containers: usize,
    /// Results of steps.
    pub records: usize,
    /// Layers.
    pub layers: usize,
    /// What the layers take on disk.
    pub layer_bytes: u64,
    /// Blobs.
    pub blobs: usize,
    /// What the blobs take on disk.
    pub blob_bytes: u64,
}

impl Store {
    /// Forgets what the policy allows, and removes what nothing needs any longer.
    ///
    /// # Errors
    /// When the metadata or a directory of the store cannot be read or written. What was forgotten until then stays so.
    pub fn prune(&self, policy: &PrunePolicy) -> Result<PruneReport> {
        self.measure_layers()?;
        let alone = self.lock_prune(FlockOperation::LockExclusive)?;
        let in_use = self.in_use_since()?;
        let plan = self.0.db.write("prune", |db| {
            let plan = State::read(db)?.plan(policy, in_use.map_or(i64::MAX, |since| since.stamp));
            if !policy.dry_run {
                plan.apply(db)?;
                self.sweep_layers(db)?;
            }
            Ok(plan)
        })?;
        let mut report = plan.report();
        self.prune_blobs(&plan, policy.dry_run, in_use, &mut report)?;
        if !policy.dry_run {
            self.sweep_file_lists(in_use.map(|since| since.modified))?;
            self.builds().sweep()?;
        }
        drop(alone);
        self.empty_trash()?;
        Ok(report)
    }

    /// Counts what is in the store.
    ///
    /// # Errors
    /// When the metadata or a directory of the store cannot be read.
    pub fn usage(&self) -> Result<Usage> {
        self.measure_layers()?;
        let mut usage = self.0.db.read("count", |db| {
            let count = |sql: &str| db.query_row(sql, (), |row| row.get::<_, i64>(0));
            let number = |sql: &str| count(sql).map(|count| usize::try_from(count).unwrap_or(0));
            Ok(Usage {
                images: number("SELECT count(*) FROM image")?,
                containers: number("SELECT count(*) FROM container")?,
                records: number("SELECT count(*) FROM result")?,
                layers: number("SELECT count(*) FROM layer")?,
                layer_bytes: count("SELECT coalesce(sum(disk_size_bytes), 0) FROM layer")?.cast_unsigned(),
                blobs: 0,
                blob_bytes: 0,
            })
        })?;
        for digest in self.content().list()? {
            usage.blobs += 1;
            usage.blob_bytes += disk_bytes(&self.0.layout.blob(digest))?;
        }
        Ok(usage)
    }

    /// Counts what layers take on disk, where that is not known yet.
    fn measure_layers(&self) -> Result<()> {
        let unknown = self.0.db.read("list layers", |db| {
            let mut statement = db.prepare_cached("SELECT id FROM layer WHERE disk_size_bytes IS NULL")?;
            Ok(statement.query_map((), |row| row.get(0).map(LayerId))?.collect::<Result<Vec<_>, _>>()?)
        })?;
        for layer in unknown {
            let size_bytes = match tree_bytes(&self.0.layout.layer(layer)) {
                // Pruned by somebody else meanwhile.
                Err(error) if error.is_not_found() => continue,
                counted => i64::try_from(counted?).unwrap_or(i64::MAX),
            };
            self.0.db.write("record the size of a layer", |db| {
                let sql = "UPDATE layer SET disk_size_bytes = ?2 WHERE id = ?1";
                Ok(db.prepare_cached(sql)?.execute((layer.0, size_bytes)).map(drop)?)
            })?;
        }
        Ok(())
    }

    /// Moves directories of layers that have no row out of the way.
    ///
    /// Inside a transaction, as a commit gives a directory its name inside the one that adds the row.
    pub(crate) fn sweep_layers(&self, db: &Transaction<'_>) -> Result<(), Failure> {
        let mut exists = db.prepare_cached("SELECT EXISTS (SELECT 1 FROM layer WHERE id = ?1)")?;
        for (name, id) in self.layer_directories()? {
            let known = match id {
                Some(id) => exists.query_row([id.0], |row| row.get(0))?,
                None => false,
            };
            if !known {
                self.discard(&self.0.layout.directory("layers").join(&name))?;
            }
        }
        Ok(())
    }

    /// What is in `layers/`, with the id that a name stands for.
    pub(crate) fn layer_directories(&self) -> Result<Vec<(OsString, Option<LayerId>)>> {
        let directory = self.0.layout.directory("layers");
        let id = |name: &OsStr| name.to_str()?.parse().ok().map(LayerId);
        let names = fs::read_dir(&directory).at("list", &directory)?.map(|entry| {
            let name = entry.at("list", &directory)?.file_name();
            let id = id(&name);
            Ok((name, id))
        });
        names.collect()
    }

    fn prune_blobs(
        &self,
        plan: &Plan,
        dry_run: bool,
        in_use: Option<InUseSince>,
        report: &mut PruneReport,
    ) -> Result<()> {
        let needed = self.needed_blobs(plan)?;
        for digest in self.content().list()? {
            let path = self.0.layout.blob(digest);
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let used = match in_use {
                Some(since) => metadata.modified().at("read the attributes of", &path)? >= since.modified,
                None => false,
            };
            if used || needed.contains(&digest) {
                continue;
            }
            report.blobs += 1;
            report.freed_bytes += metadata.blocks() * BLOCK_BYTES;
            if !dry_run {
                self.discard(&path)?;
            }
        }
        Ok(())
    }

    /// The blobs that the images and layers which stay need.
    fn needed_blobs(&self, plan: &Plan) -> Result<HashSet<Digest>> {
        let mut needed: HashSet<Digest> = plan.layer_blobs_kept().collect();
        for target in plan.image_targets_kept() {
            let damaged =
                |error: serde_json::Error| Error::Damaged { table: "image", found: error.to_string() };
            let target: Descriptor = serde_json::from_str(target).map_err(damaged)?;
            let mut visit = |blob: &Descriptor| {
                needed.insert(blob.digest);
            };
            match visit_blobs(self, &target, &mut visit) {
                // What a broken document names is unknown; `check` tells of it.
                Err(Error::Document { .. } | Error::TooLarge { .. }) => {}
                visited => visited?,
            }
        }
        Ok(needed)
    }
}

/// The unit of `st_blocks`.
const BLOCK_BYTES: u64 = 512;

fn disk_bytes(path: &Path) -> Result<u64> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        found => Ok(found.at("read the attributes of", path)?.blocks() * BLOCK_BYTES),
    }
}

fn block_bytes(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK_BYTES
}

/// What a tree takes on disk; a file with several names in it counts once.
fn tree_bytes(root: &Path) -> Result<u64, PathError> {
    let top = RootDir::open(root)?.open_dir("")?;
    let mut bytes = block_bytes(&fstat(&top).at("read the attributes of", root)?);
    let (mut linked, mut open) = (HashSet::new(), vec![top]);
    while let Some(directory) = open.pop() {
        for (name, _) in list(directory.as_fd()).at("list", root)? {
            let stat =
                statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW).at("read the attributes in", root)?;
            let is_directory = FileType::from_raw_mode(stat.st_mode).is_dir();
            if is_directory {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                open.push(openat(&directory, &name, flags, Mode::empty()).at("open a directory in", root)?);
            }
            if is_directory || stat.st_nlink < 2 || linked.insert((stat.st_dev, stat.st_ino)) {
                bytes += block_bytes(&stat);
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
