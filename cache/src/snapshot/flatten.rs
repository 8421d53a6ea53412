//! Stacks that are too deep for one mount.
//!
//! Their lower part is mounted as one layer, which is made when it is first needed and remembered. A lower part is a whole number of
//! [`STEP`]s of layers, so that many stacks on top of one another share it, and each is made of the one before. What a
//! snapshot *is* stays its own list of layers: keys, digests and archives know nothing of this.

use rusqlite::OptionalExtension as _;

use super::{LAYERS_MAX, LayerId, Snapshot};
use crate::db::pack;
use crate::{Result, Store};

/// Layers that are made one at a time.
const STEP: usize = LAYERS_MAX / 2;

impl Store {
    /// The layers to mount for a snapshot, bottom first: at most [`LAYERS_MAX`], with the same tree.
    pub(super) fn mountable_layers(&self, snapshot: &Snapshot) -> Result<Vec<LayerId>> {
        let layers = &*snapshot.layers;
        if layers.len() <= LAYERS_MAX {
            return Ok(layers.to_vec());
        }
        let lower = (layers.len() + 1 - LAYERS_MAX).next_multiple_of(STEP);
        let _alone = self.0.flattening.lock();
        Ok([&self.flat(&layers[..lower])?.layers, &layers[lower..]].concat())
    }

    /// The one layer that is the same as these, which are a whole number of steps.
    fn flat(&self, layers: &[LayerId]) -> Result<Snapshot> {
        if let Some(known) = self.known_flat(layers)? {
            return Ok(known);
        }
        let (below, top) = layers.split_at(layers.len() - STEP);
        let below = if below.is_empty() { Snapshot::empty() } else { self.flat(below)? };
        let flat = self.squash(&self.stack(&[&below.layers, top].concat())?, 0)?;
        self.0.db.write("remember a flat layer", |db| {
            let sql = "INSERT OR REPLACE INTO flattened (layers, flat) VALUES (?1, ?2)";
            let flat = flat.id.map(|id| id.0);
            Ok(db.prepare_cached(sql)?.execute((packed(layers), flat)).map(drop)?)
        })?;
        Ok(flat)
    }

    fn known_flat(&self, layers: &[LayerId]) -> Result<Option<Snapshot>> {
        let id = self.0.db.read("look for a flat layer", |db| {
            let sql = "SELECT flat FROM flattened WHERE layers = ?1";
            Ok(db.prepare_cached(sql)?.query_row([packed(layers)], |row| row.get(0)).optional()?)
        })?;
        id.map_or(Ok(None), |id| self.snapshot(super::SnapshotId(id)))
    }
}

fn packed(layers: &[LayerId]) -> Vec<u8> {
    pack(layers.iter().map(|layer| layer.0))
}
