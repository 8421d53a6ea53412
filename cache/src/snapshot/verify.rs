//! Whether a layer still is what it was.
//!
//! What there is to compare with depends on what the layer was needed for: its content digest, if something was keyed by it;
//! the archive that was made of it, if an image has it; or the blob that it came as, which is unpacked again beside it. A
//! layer that was only ever run on has none of these.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use rayon::ThreadPool;
use rbuild_image::{DiffId, Digest};
use rusqlite::OptionalExtension as _;

use super::hash::HowMade;
use super::image::Mounts;
use super::layers::Archive;
use super::{LayerId, MtimeClamp, Snapshot};
use crate::content_digest::Blake3;
use crate::db::unpack;
use crate::layer::{LAYER_SIZE_BYTES_MAX, compression::Decoder};
use crate::{Error, Result, SnapshotId, Store};

/// What became of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LayerState {
    /// It holds what it held.
    Whole,
    /// It holds something else.
    Damaged,
    /// It is there, and there is nothing to compare it with.
    Unproven,
}

impl Store {
    /// The state of every layer that has a row and a directory.
    pub(crate) fn verify_layers(
        &self,
        missing: &HashSet<LayerId>,
        pool: &ThreadPool,
    ) -> Result<BTreeMap<LayerId, LayerState>> {
        let mut states = BTreeMap::new();
        for (layer, digest) in self.recorded_digests()? {
            let state = match digest {
                _ if missing.contains(&layer) => continue,
                Some(digest) => state(self.digest_now(layer, pool)? == Some(digest)),
                None => LayerState::Unproven,
            };
            states.insert(layer, state);
        }
        self.verify_by_archives(missing, &mut states)?;
        self.verify_by_blobs(&mut states, pool)?;
        Ok(states)
    }

    /// The content digest of a layer as it is now; `None` if it cannot be mounted any longer.
    fn digest_now(&self, layer: LayerId, pool: &ThreadPool) -> Result<Option<Blake3>> {
        let shown = match self.show_layer(layer, Mounts::Own) {
            Err(Error::ImageDamaged(_) | Error::Path(_) | Error::LayerMissing(_)) => return Ok(None),
            shown => shown?,
        };
        self.digest_directory(&shown.path(), pool).map(Some)
    }

    fn recorded_digests(&self) -> Result<Vec<(LayerId, Option<Blake3>)>> {
        self.0.db.read("list layers", |db| {
            let mut statement = db.prepare_cached("SELECT id, content_digest FROM layer ORDER BY id")?;
            let rows = statement.query_map((), |row| Ok((LayerId(row.get(0)?), row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Makes archives again that were made of layers.
    fn verify_by_archives(
        &self,
        missing: &HashSet<LayerId>,
        states: &mut BTreeMap<LayerId, LayerState>,
    ) -> Result<()> {
        let mut archives = self.made_archives()?;
        archives.retain(|(layer, _)| states.get(layer) == Some(&LayerState::Unproven));
        let mut wanted: HashSet<LayerId> = archives.iter().map(|(layer, _)| *layer).collect();
        let mtimes: BTreeSet<i64> = archives.iter().filter_map(|(_, mtime_max)| *mtime_max).collect();
        for snapshot in self.every_snapshot()? {
            for clamp in possible_clamps(&mtimes, snapshot.layers.len()) {
                let is_wanted = |layer: &LayerId| wanted.contains(layer);
                if !snapshot.layers.iter().any(is_wanted)
                    || snapshot.layers.iter().any(|it| missing.contains(it))
                {
                    break;
                }
                for (layer, state) in self.verify_stack(&snapshot, clamp, &wanted)? {
                    wanted.remove(&layer);
                    states.insert(layer, state);
                }
            }
        }
        Ok(())
    }

    /// Makes archives again of the wanted layers of a snapshot, if it is in this place and with these times that they were made.
    fn verify_stack(
        &self,
        snapshot: &Snapshot,
        clamp: Option<MtimeClamp>,
        wanted: &HashSet<LayerId>,
    ) -> Result<Vec<(LayerId, LayerState)>> {
        let known = self.known_archives(snapshot, clamp)?;
        let is_wanted = |layer: &LayerId, first: &Archive| first.made && wanted.contains(layer);
        let mut states = Vec::new();
        for (index, (layer, archives)) in snapshot.layers.iter().zip(known).enumerate() {
            if !archives.first().is_some_and(|first| is_wanted(layer, first)) {
                continue;
            }
            let found = self.hash_again(&self.open_stack(snapshot)?, index, &HowMade::of(&archives));
            let found = found.map_err(|source| Error::Archive { layer: *layer, source })?;
            states.push((*layer, state(found.iter().eq(archives.iter().map(|it| &it.diff_id)))));
        }
        Ok(states)
    }

    /// The layers that archives were made of, with what modification times were clamped to.
    fn made_archives(&self) -> Result<Vec<(LayerId, Option<i64>)>> {
        self.0.db.read("list archives", |db| {
            let mut statement =
                db.prepare_cached("SELECT layer, mtime_max FROM layer_archive WHERE made AND part = 0")?;
            let rows = statement.query_map((), |row| Ok((LayerId(row.get(0)?), row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    fn every_snapshot(&self) -> Result<Vec<Snapshot>> {
        let rows: Vec<(i64, Vec<u8>)> = self.0.db.read("list snapshots", |db| {
            let mut statement = db.prepare_cached("SELECT id, layers FROM snapshot ORDER BY id")?;
            let rows = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })?;
        rows.into_iter()
            .map(|(id, packed)| {
                let layers = unpack("snapshot", &packed)?.into_iter().map(LayerId).collect();
                Ok(Snapshot { id: Some(SnapshotId(id)), layers })
            })
            .collect()
    }

    /// Unpacks blobs again that layers came as. Only where the directory is all of the archive's making: what a layer took over
    /// from below is not in its blob.
    fn verify_by_blobs(&self, states: &mut BTreeMap<LayerId, LayerState>, pool: &ThreadPool) -> Result<()> {
        let unproven = states.iter_mut().filter(|(_, state)| **state == LayerState::Unproven);
        for (layer, layer_state) in unproven {
            let Some(diff_id) = self.standalone_archive(*layer)? else { continue };
            let Some(expected) = self.digest_of_blob(diff_id, pool)? else { continue };
            *layer_state = state(self.digest_now(*layer, pool)? == Some(expected));
        }
        Ok(())
    }

    /// The archive that a layer came as, if it can stand on anything.
    fn standalone_archive(&self, layer: LayerId) -> Result<Option<DiffId>> {
        let sql = "SELECT diff_id FROM layer_archive WHERE layer = ?1 AND base IS NULL AND NOT made";
        self.0.db.read("look up an archive", |db| {
            let found = db.prepare_cached(sql)?.query_row([layer.0], |row| row.get(0));
            Ok(found.optional()?.map(|bytes| DiffId(Digest::from_bytes(bytes))))
        })
    }

    /// The content digest of an archive that is in the store as a whole blob.
    fn digest_of_blob(&self, diff_id: DiffId, pool: &ThreadPool) -> Result<Option<Blake3>> {
        for blob in self.blobs_of(diff_id)? {
            let Some(file) = self.content().open(blob.digest)? else { continue };
            let Ok(mut tar) = Decoder::new(file, LAYER_SIZE_BYTES_MAX) else { continue };
            // One that is damaged is told of by its own name.
            let Ok(mut unpacked) = self.unpack_layer(Some(diff_id), &mut tar) else { continue };
            return unpacked.content_digest(self, pool);
        }
        Ok(None)
    }
}

/// How the times of a stack may have been clamped when its archives were made.
fn possible_clamps(mtimes: &BTreeSet<i64>, layers: usize) -> impl Iterator<Item = Option<MtimeClamp>> {
    let clamps = mtimes.iter().flat_map(move |mtime_max| {
        (0..layers).map(|layers_kept| Some(MtimeClamp { layers_kept, mtime_max: *mtime_max }))
    });
    std::iter::once(None).chain(clamps)
}

const fn state(whole: bool) -> LayerState {
    if whole { LayerState::Whole } else { LayerState::Damaged }
}
