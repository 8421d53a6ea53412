//! Snapshots: read-only trees, each a stack of layers that overlayfs joins.
//!
//! A step works in an [`ActiveSnapshot`]: an empty writable layer on top of a snapshot. What it leaves there *is* the new
//! layer: [`commit`](ActiveSnapshot::commit) renames the directory and adds two rows, whatever the size. Dropped instead, it
//! leaves nothing. A committed layer is never written again.
//!
//! A snapshot is nothing but its list of layers, so the same list is the same snapshot, and lists can be put together
//! ([`Store::stack`]): that is all that a merge of trees is.
//!
//! Mounts are made with the kernel's file-descriptor calls (Linux 6.7: `fsopen`, `lowerdir+`, `fsmount`) and are handed out
//! *detached*, as a descriptor that can be used as a directory, cloned or moved to a place, and that is unmounted with
//! its last reference. Nothing has to be cleaned up after a process that was killed.
//!
//! A layer is a directory, an image of a [tree](crate::tree) (`image`), or what differs from another that is a directory (`delta`). Callers
//! see ids, mounts and archives, no path of a committed layer.

mod active;
mod container;
mod content;
mod delta;
mod flatten;
mod hash;
mod image;
mod known;
mod layers;
mod offer;
mod overlay;
mod plain;
mod settle;
mod squash;
mod unpack;
mod verify;

use std::fmt;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, Transaction};

pub use self::active::{ActiveSnapshot, Durability, Errand};
pub use self::delta::{Addition, Delta};
pub(crate) use self::image::Images;
#[cfg(test)]
pub(crate) use self::image::Kept;
pub use self::image::LayerForm;
pub use self::known::{KnownDirectory, KnownLayers};
pub use self::layers::{LayerInfo, LayerTar, MtimeClamp};
pub use self::overlay::MountedRoot;
#[cfg(test)]
pub(crate) use self::overlay::mount_image;
pub use self::plain::PlainTree;
pub(crate) use self::plain::ViewedTrees;
pub(crate) use self::settle::Written;
pub use self::unpack::UnpackedLayer;
pub(crate) use self::verify::LayerState;
use crate::db::{Failure, pack, unpack};
/// Which extended attributes overlayfs uses for its marks in layers.
pub use crate::layer::OverlayXattrs;
use crate::{Error, Result, Store};

/// How the layers of a snapshot become one tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Trees {
    /// Overlayfs joins them.
    #[default]
    Mounted,
    /// They are copied together, where nothing can be mounted.
    Plain,
}

/// The most layers that one mount can have: of a deeper stack, the lower part is mounted as one layer (`flatten`). Overlayfs
/// takes 500 lower directories (`OVL_MAX_STACK`); one is left for mount points, one for what a caller may add.
const LAYERS_MAX: usize = 498;

/// Names a layer in this store. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerId(pub(crate) i64);

/// Names a snapshot in this store. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId(pub(crate) i64);

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl SnapshotId {
    /// The number, to be kept in a document. Means nothing in another store.
    pub const fn number(self) -> i64 {
        self.0
    }

    /// An id from a number that was kept.
    pub const fn from_number(number: i64) -> Self {
        Self(number)
    }
}

/// A read-only tree.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// Its name; `None` is the empty tree, which has no layers.
    pub id: Option<SnapshotId>,
    /// Its layers, bottom first.
    pub layers: Arc<[LayerId]>,
}

impl Snapshot {
    /// The empty tree.
    pub fn empty() -> Self {
        Self { id: None, layers: Arc::new([]) }
    }
}

impl Store {
    /// The snapshot with this id, if it was not pruned.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn snapshot(&self, id: SnapshotId) -> Result<Option<Snapshot>> {
        self.0.db.read("look up a snapshot", |db| find_snapshot(db, id))
    }

    /// The snapshot that has these layers, bottom first.
    ///
    /// # Errors
    /// When one of them has been pruned.
    pub fn stack(&self, layers: &[LayerId]) -> Result<Snapshot> {
        if layers.is_empty() {
            return Ok(Snapshot::empty());
        }
        let stamp = self.stamp();
        self.0.db.write("stack layers", |db| insert_snapshot(db, layers, stamp))
    }

    /// Stamps a snapshot as used, unless it was since this handle's lease began: then it is out of prune's reach already.
    fn touch(&self, snapshot: &Snapshot) -> Result<()> {
        let Some(id) = snapshot.id else { return Ok(()) };
        let stamp = self.stamp();
        let last_used: Option<i64> = self.0.db.read("look up a snapshot", |db| {
            let sql = "SELECT last_used FROM snapshot WHERE id = ?1";
            Ok(db.prepare_cached(sql)?.query_row([id.0], |row| row.get(0)).optional()?)
        })?;
        if last_used.is_some_and(|last_used| self.is_fresh(last_used, stamp)) {
            return Ok(());
        }
        self.0.db.write("stamp a snapshot", |db| {
            let sql = "UPDATE snapshot SET last_used = max(last_used + 1, ?2) WHERE id = ?1";
            match db.prepare_cached(sql)?.execute((id.0, stamp))? {
                0 => Err(Error::SnapshotMissing(id).into()),
                _ => Ok(()),
            }
        })
    }
}

/// The snapshot with this id, if it was not pruned.
pub(crate) fn find_snapshot(db: &Connection, id: SnapshotId) -> Result<Option<Snapshot>, Failure> {
    let packed = db
        .prepare_cached("SELECT layers FROM snapshot WHERE id = ?1")?
        .query_row([id.0], |row| row.get::<_, Vec<u8>>(0))
        .optional()?;
    let Some(packed) = packed else { return Ok(None) };
    let layers = unpack("snapshot", &packed)?.into_iter().map(LayerId).collect();
    Ok(Some(Snapshot { id: Some(id), layers }))
}

/// Finds or adds the snapshot of these layers, which must have rows.
fn insert_snapshot(db: &Transaction<'_>, layers: &[LayerId], stamp: i64) -> Result<Snapshot, Failure> {
    let mut exists = db.prepare_cached("SELECT EXISTS (SELECT 1 FROM layer WHERE id = ?1)")?;
    for layer in layers {
        if !exists.query_row([layer.0], |row| row.get(0))? {
            return Err(Error::LayerMissing(*layer).into());
        }
    }
    let sql = "INSERT INTO snapshot (layers, last_used) VALUES (?1, ?2)
        ON CONFLICT (layers) DO UPDATE SET last_used = max(last_used + 1, excluded.last_used) RETURNING id";
    let packed = pack(layers.iter().map(|layer| layer.0));
    let id = db.prepare_cached(sql)?.query_row((packed, stamp), |row| row.get(0))?;
    Ok(Snapshot { id: Some(SnapshotId(id)), layers: layers.into() })
}

#[cfg(test)]
mod tests;
