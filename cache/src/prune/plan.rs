//! What to forget: a decision on what the metadata says, taken in memory.

use std::collections::{HashMap, HashSet};

use rbuild_image::Digest;
use rusqlite::{Connection, Row, Transaction};

use super::{PrunePolicy, PruneReport};
use crate::db::{Failure, unpack};

/// The metadata as far as it matters here.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) images: Vec<ImageRow>,
    /// The snapshots that containers stand on.
    pub(super) containers: Vec<i64>,
    pub(super) results: Vec<ResultRow>,
    pub(super) snapshots: HashMap<i64, SnapshotRow>,
    pub(super) layers: HashMap<i64, LayerRow>,
    /// Layer and diff-id.
    pub(super) layer_archives: Vec<(i64, [u8; 32])>,
    /// Diff-id and blob.
    pub(super) layer_blobs: Vec<([u8; 32], [u8; 32])>,
}

#[derive(Debug, Clone)]
pub(super) struct ImageRow {
    pub(super) id: i64,
    pub(super) target: String,
    pub(super) snapshots: Vec<i64>,
    pub(super) created: i64,
    pub(super) named: bool,
}

#[derive(Debug, Clone)]
pub(super) struct ResultRow {
    pub(super) id: i64,
    pub(super) outputs: Vec<i64>,
    pub(super) last_used: i64,
}

#[derive(Debug, Clone)]
pub(super) struct SnapshotRow {
    pub(super) layers: Vec<i64>,
    pub(super) last_used: i64,
}

#[derive(Debug, Clone)]
pub(super) struct LayerRow {
    pub(super) size_bytes: u64,
    pub(super) created: i64,
}

/// What goes, and what of the rest is asked for again.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) images: Vec<i64>,
    pub(super) results: Vec<i64>,
    pub(super) snapshots: Vec<i64>,
    pub(super) layers: Vec<i64>,
    freed_bytes: u64,
    targets_kept: Vec<String>,
    blobs_kept: Vec<Digest>,
}

impl State {
    pub(super) fn read(db: &Connection) -> Result<Self, Failure> {
        let results = rows(db, "SELECT id, outputs, last_used FROM result ORDER BY last_used, id", |row| {
            Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?, row.get(2)?))
        })?;
        let snapshots = rows(db, "SELECT id, layers, last_used FROM snapshot", |row| {
            Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?, row.get(2)?))
        })?;
        let result = |(id, outputs, last_used): (i64, Vec<u8>, i64)| {
            Ok(ResultRow { id, outputs: unpack("result", &outputs)?, last_used })
        };
        let snapshot = |(id, layers, last_used): (i64, Vec<u8>, i64)| {
            Ok((id, SnapshotRow { layers: unpack("snapshot", &layers)?, last_used }))
        };
        Ok(Self {
            images: images(db)?,
            containers: rows(db, "SELECT snapshot FROM container WHERE snapshot IS NOT NULL", |row| {
                row.get(0)
            })?,
            results: results.into_iter().map(result).collect::<Result<_, Failure>>()?,
            snapshots: snapshots.into_iter().map(snapshot).collect::<Result<_, Failure>>()?,
            layers: rows(db, LAYERS, read_layer)?.into_iter().collect(),
            layer_archives: rows(db, "SELECT layer, diff_id FROM layer_archive", |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?,
            layer_blobs: rows(db, "SELECT diff_id, digest FROM layer_blob", |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?,
        })
    }

    /// Decides. What was used or made at `in_use_since` or later is left alone.
    pub(super) fn plan(&self, policy: &PrunePolicy, in_use_since: i64) -> Plan {
        let image_goes =
            |image: &&ImageRow| policy.unnamed_images && !image.named && image.created < in_use_since;
        let (images, kept): (Vec<_>, Vec<_>) = self.images.iter().partition(image_goes);
        let mut held: Vec<i64> = kept.iter().flat_map(|image| &image.snapshots).copied().collect();
        held.extend(&self.containers);
        held.extend(self.snapshots.iter().filter(|(_, row)| row.last_used >= in_use_since).map(|(id, _)| id));
        let results = self.results_to_forget(policy, in_use_since, &held);
        held.extend(
            self.results.iter().filter(|row| !results.contains(&row.id)).flat_map(|row| &row.outputs),
        );
        let held: HashSet<i64> = held.into_iter().collect();
        let needed: HashSet<i64> = held.iter().flat_map(|id| self.layers_of(*id)).copied().collect();
        let layer_goes = |id: &i64, row: &LayerRow| !needed.contains(id) && row.created < in_use_since;
        let mut layers: Vec<i64> =
            self.layers.iter().filter(|(id, row)| layer_goes(id, row)).map(|(id, _)| *id).collect();
        layers.sort_unstable();
        Plan {
            images: images.into_iter().map(|image| image.id).collect(),
            snapshots: self.snapshots.keys().filter(|id| !held.contains(id)).copied().collect(),
            freed_bytes: layers.iter().map(|id| self.size_bytes(*id)).sum(),
            blobs_kept: self.blobs_of_all_but(&layers),
            targets_kept: kept.into_iter().map(|image| image.target.clone()).collect(),
            results: results.into_iter().collect(),
            layers,
        }
    }

    /// The results to forget: the least recently used first, until what is left is small enough.
    ///
    /// Counts for each layer how many hold it; it is freed with its last holder.
    fn results_to_forget(&self, policy: &PrunePolicy, in_use_since: i64, held: &[i64]) -> HashSet<i64> {
        let mut holders: HashMap<i64, usize> = HashMap::new();
        let outputs = self.results.iter().flat_map(|row| &row.outputs);
        for layer in held.iter().chain(outputs).flat_map(|id| self.layers_of(*id)) {
            *holders.entry(*layer).or_default() += 1;
        }
        let mut left_bytes: u64 = holders.keys().map(|layer| self.size_bytes(*layer)).sum();
        let before = in_use_since.min(policy.unused_since.unwrap_or(i64::MAX));
        let mut forgotten = HashSet::new();
        for result in self.results.iter().filter(|row| row.last_used < before) {
            if policy.keep_bytes.is_some_and(|keep| left_bytes <= keep) {
                break;
            }
            forgotten.insert(result.id);
            for layer in result.outputs.iter().flat_map(|id| self.layers_of(*id)) {
                let Some(count) = holders.get_mut(layer) else { continue };
                *count -= 1;
                if *count == 0 {
                    left_bytes -= self.size_bytes(*layer);
                }
            }
        }
        forgotten
    }

    fn layers_of(&self, snapshot: i64) -> &[i64] {
        self.snapshots.get(&snapshot).map_or(&[], |row| &row.layers)
    }

    fn size_bytes(&self, layer: i64) -> u64 {
        self.layers.get(&layer).map_or(0, |row| row.size_bytes)
    }

    fn blobs_of_all_but(&self, layers: &[i64]) -> Vec<Digest> {
        let stays = |id: &i64| layers.binary_search(id).is_err();
        let diff_ids: HashSet<[u8; 32]> = self
            .layer_archives
            .iter()
            .filter(|(layer, _)| stays(layer))
            .map(|(_, diff_id)| *diff_id)
            .collect();
        let needed = self.layer_blobs.iter().filter(|(diff_id, _)| diff_ids.contains(diff_id));
        needed.map(|(_, digest)| Digest::from_bytes(*digest)).collect()
    }
}

impl Plan {
    pub(super) fn report(&self) -> PruneReport {
        PruneReport {
            images: self.images.len(),
            records: self.results.len(),
            layers: self.layers.len(),
            blobs: 0,
            freed_bytes: self.freed_bytes,
        }
    }

    pub(super) fn layer_blobs_kept(&self) -> impl Iterator<Item = Digest> {
        self.blobs_kept.iter().copied()
    }

    pub(super) fn image_targets_kept(&self) -> impl Iterator<Item = &str> {
        self.targets_kept.iter().map(String::as_str)
    }

    /// Deletes the rows: users before what they use.
    pub(super) fn apply(&self, db: &Transaction<'_>) -> Result<(), Failure> {
        let tables = [
            ("DELETE FROM image WHERE id = ?1", &self.images),
            ("DELETE FROM result WHERE id = ?1", &self.results),
            ("DELETE FROM snapshot WHERE id = ?1", &self.snapshots),
            ("DELETE FROM layer WHERE id = ?1", &self.layers),
        ];
        for (sql, ids) in tables {
            let mut statement = db.prepare_cached(sql)?;
            for id in ids {
                statement.execute([id])?;
            }
        }
        let sql = "DELETE FROM layer_blob WHERE diff_id NOT IN (SELECT diff_id FROM layer_archive)";
        db.execute(sql, ())?;
        Ok(())
    }
}

const IMAGES: &str = "SELECT id, target, created,
    EXISTS (SELECT 1 FROM image_name WHERE image = image.id) FROM image";
const IMAGE_SNAPSHOTS: &str = "SELECT image, snapshot FROM image_snapshot";
const LAYERS: &str = "SELECT id, coalesce(disk_size_bytes, 0), created FROM layer";

fn images(db: &Connection) -> Result<Vec<ImageRow>, Failure> {
    let mut snapshots: HashMap<i64, Vec<i64>> = HashMap::new();
    for (image, snapshot) in rows(db, IMAGE_SNAPSHOTS, |row| Ok((row.get(0)?, row.get(1)?)))? {
        snapshots.entry(image).or_default().push(snapshot);
    }
    Ok(rows(db, IMAGES, |row| {
        let id = row.get(0)?;
        let snapshots = snapshots.remove(&id).unwrap_or_default();
        Ok(ImageRow { id, target: row.get(1)?, snapshots, created: row.get(2)?, named: row.get(3)? })
    })?)
}

fn read_layer(row: &Row<'_>) -> rusqlite::Result<(i64, LayerRow)> {
    let size_bytes = u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0);
    Ok((row.get(0)?, LayerRow { size_bytes, created: row.get(2)? }))
}

fn rows<T>(
    db: &Connection,
    sql: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    db.prepare_cached(sql)?.query_map((), read)?.collect()
}
