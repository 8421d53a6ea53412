//! What is known of layers, and layers as archives.
//!
//! A layer's diff-id and size are computed when they are first asked for, as most layers never leave the store. A layer that
//! came as an archive was verified then; the archive that it is made into again may differ in its bytes, so where the layer has
//! to leave as it came, one of its [blobs](Store::blobs_of) is used.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use rayon::prelude::*;
use rbuild_image::{ChainId, Descriptor, DiffId, Digest, HashingWriter};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::hash::{HowMade, OnePart};
use super::image::NewTree;
use super::{LayerId, Snapshot};
use crate::content_digest::Blake3;
use crate::db::Failure;
use crate::layer::{self, compression::Decoder};
use crate::lease::seconds;
use crate::root_dir::RootDir;
use crate::{Error, Result, Store};

/// What is known of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerInfo {
    /// Which layer.
    pub id: LayerId,
    /// When it was made, Unix seconds.
    pub created: i64,
}

/// A tar that a layer leaves as, or one of them: a large layer is several in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerTar {
    /// Which layer of the snapshot it is of, counted from the bottom.
    pub layer: usize,
    /// Its digest.
    pub diff_id: DiffId,
    /// Its size.
    pub size_bytes: u64,
    /// Whether one step has made it and the one below it.
    pub continues: bool,
}

/// Clamps modification times in the archives of the upper layers of a stack: those that a build has put on its base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MtimeClamp {
    /// How many layers of the snapshot, counted from the bottom, stay as they are.
    pub layers_kept: usize,
    /// The latest time in the others, Unix seconds (`SOURCE_DATE_EPOCH`).
    pub mtime_max: i64,
}

/// A tar that a layer is known to stand for, or one of those that it stands for together.
#[derive(Debug, Clone)]
pub(super) struct Archive {
    pub(super) diff_id: DiffId,
    pub(super) size_bytes: u64,
    /// See [`base_bytes`]; `None` is any.
    pub(super) base: Option<[u8; 32]>,
    pub(super) mtime_max: Option<i64>,
    /// Whether it was made of the layer's directory, and so can be made again.
    pub(super) made: bool,
    /// Its first name, where a layer was cut to make it.
    pub(super) begins: Option<Vec<u8>>,
    /// See [`LayerTar`].
    pub(super) continues: bool,
    /// The digest of its entries, which is known before its own is.
    pub(super) entries: Option<Blake3>,
}

impl Store {
    /// What is known of the layers of a snapshot, bottom first.
    ///
    /// # Errors
    /// When the metadata cannot be read, or a layer has been pruned.
    pub fn layer_infos(&self, snapshot: &Snapshot) -> Result<Vec<LayerInfo>> {
        let sql = "SELECT created FROM layer WHERE id = ?1";
        self.0.db.read("read about layers", |db| {
            let info = |id: &LayerId| {
                let read = |row: &Row<'_>| Ok(LayerInfo { id: *id, created: seconds(row.get(0)?) });
                let row = db.prepare_cached(sql)?.query_row([id.0], read).optional()?;
                row.ok_or_else(|| Failure::from(Error::LayerMissing(*id)))
            };
            snapshot.layers.iter().map(info).collect()
        })
    }

    /// The sizes in bytes of layers' tars, as far as they are known here.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn tar_sizes_bytes(&self, diff_ids: &BTreeSet<DiffId>) -> Result<BTreeMap<DiffId, u64>> {
        self.0.db.read("read about layers", |db| {
            let sql = "SELECT size_bytes FROM layer_archive WHERE diff_id = ?1 LIMIT 1";
            let mut statement = db.prepare_cached(sql)?;
            let mut sizes = BTreeMap::new();
            for diff_id in diff_ids {
                let size = statement.query_row([diff_id.0.as_bytes()], |row| row.get(0)).optional()?;
                sizes.extend(size.and_then(|size: i64| Some((*diff_id, u64::try_from(size).ok()?))));
            }
            Ok(sizes)
        })
    }

    /// The tars of a snapshot's layers, bottom first. Those that are not known are computed, in parallel on the current rayon pool,
    /// and remembered.
    ///
    /// # Errors
    /// When a layer has been pruned, or cannot be read.
    pub fn describe_layers(&self, snapshot: &Snapshot, clamp: Option<MtimeClamp>) -> Result<Vec<LayerTar>> {
        let known = self.known_archives(snapshot, clamp)?;
        if known.iter().all(|archives| !archives.is_empty()) {
            return Ok(tars(&known));
        }
        let new: Vec<Option<NewTree>> =
            snapshot.layers.iter().map(|layer| self.take_new_tree(*layer)).collect();
        // A layer stands on those below it; only one that is not at hand is itself walked.
        let needed = |index: usize| index + usize::from(new[index].is_none());
        let opened = (0..known.len()).filter(|index| known[*index].is_empty()).map(needed).max();
        let stack = self.open_layers(&snapshot.layers[..opened.unwrap_or(0)])?;
        let archives = known
            .into_par_iter()
            .zip(new)
            .enumerate()
            .map(|(index, (known, new))| {
                let (layer, mtime_max) = (snapshot.layers[index], mtime_max(clamp, index));
                match new {
                    _ if !known.is_empty() => Ok(known),
                    Some(new) => {
                        let (below, lowers) = (&snapshot.layers[..index], &stack[stack.len() - index..]);
                        let hashed = self.hash_new(&new, below, lowers, mtime_max).map_err(failed(layer));
                        // A tree is many small pieces of memory, and nobody waits for it to go.
                        rayon::spawn(move || drop(new));
                        hashed
                    }
                    None => self.hash(&stack, index, mtime_max).map_err(failed(layer)),
                }
            })
            .collect::<Result<Vec<_>>>()?;
        self.record_archives(snapshot, &archives)?;
        Ok(tars(&archives))
    }

    /// Notes that what has made the layers with these archives has made the ones below them, too: they came from where that is known.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn note_continuing(&self, diff_ids: &[DiffId]) -> Result<()> {
        if diff_ids.is_empty() {
            return Ok(());
        }
        self.0.db.write("record what layers go on with", |db| {
            let sql = "UPDATE layer_archive SET continues = 1 WHERE diff_id = ?1 AND NOT continues";
            let mut note = db.prepare_cached(sql)?;
            diff_ids.iter().try_for_each(|diff_id| note.execute([diff_id.0.as_bytes()]).map(drop))?;
            Ok(())
        })
    }

    /// The layers that the step which made a snapshot has added: the topmost, with those that it continues.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn own_layers<'a>(&self, snapshot: &'a Snapshot) -> Result<&'a [LayerId]> {
        self.0.db.read("look up what a layer continues", |db| {
            let sql =
                "SELECT EXISTS (SELECT 1 FROM layer_archive WHERE layer = ?1 AND part = 0 AND continues)";
            let mut statement = db.prepare_cached(sql)?;
            let mut first = snapshot.layers.len().saturating_sub(1);
            while first > 0 && statement.query_row([snapshot.layers[first].0], |row| row.get(0))? {
                first -= 1;
            }
            Ok(&snapshot.layers[first..])
        })
    }

    /// For each layer of a snapshot the archives that it stands for in its place, if they are known: what is below has to be.
    pub(super) fn known_archives(
        &self,
        snapshot: &Snapshot,
        clamp: Option<MtimeClamp>,
    ) -> Result<Vec<Vec<Archive>>> {
        self.0.db.read("read about layers", |db| {
            let mut below = Some(None);
            let mut known = Vec::with_capacity(snapshot.layers.len());
            for (index, layer) in snapshot.layers.iter().enumerate() {
                let archives = find_archives(db, *layer, below.map(base_bytes), mtime_max(clamp, index))?;
                below = below.filter(|_| !archives.is_empty()).map(|below| chain_on(below, &archives));
                known.push(archives);
            }
            Ok(known)
        })
    }

    /// Of how many layers of a snapshot the lowest tars of an image of it are.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn layers_of_tars(&self, snapshot: &Snapshot, tars: usize) -> Result<usize> {
        // Times do not say where an archive is cut, so any that is known tells.
        let sql = "SELECT coalesce(max(part), 0) + 1 FROM layer_archive WHERE layer = ?1";
        self.0.db.read("count archives", |db| {
            let (mut counted, mut layers): (u32, usize) = (0, 0);
            for layer in &*snapshot.layers {
                counted += db.prepare_cached(sql)?.query_row([layer.0], |row| row.get::<_, u32>(0))?;
                if counted as usize > tars {
                    break;
                }
                layers += 1;
            }
            Ok(layers)
        })
    }

    /// Writes a tar of a snapshot's layers: one that `diff_id` is the digest of, which a layer came as or was
    /// [described](Self::describe_layers) by.
    ///
    /// # Errors
    /// When the layer has been pruned or cannot be read, or `writer` fails. [`Error::DiffIdMismatch`] when the layer came as an
    /// archive that cannot be reproduced, and none of its blobs is in the store; what was written then is of no use.
    pub fn write_layer(&self, snapshot: &Snapshot, diff_id: DiffId, writer: &mut dyn Write) -> Result<()> {
        let made = self.0.db.read("read about a layer", |db| how_made(db, snapshot, diff_id))?;
        let (index, part, how) = made;
        let layer = snapshot.layers[index];
        if self.write_layer_from_blob(layer, diff_id, writer)? {
            return Ok(());
        }
        let stack = self.open_stack(snapshot)?;
        let sink = OnePart::new(part, HashingWriter::new(writer));
        let sink = self.archive_parts(&stack, index, &how, sink).map_err(failed(layer))?;
        let found = DiffId(sink.finish().finish().0);
        if found == diff_id { Ok(()) } else { Err(Error::DiffIdMismatch { expected: diff_id, found }) }
    }

    /// Remembers a compressed form of a layer.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record_blob(&self, diff_id: DiffId, blob: &Descriptor) -> Result<()> {
        let json = serde_json::to_string(blob).expect("a descriptor has no map with non-string keys");
        self.0.db.write("record a blob", |db| {
            let sql = "INSERT OR REPLACE INTO layer_blob (diff_id, digest, descriptor) VALUES (?1, ?2, ?3)";
            db.prepare_cached(sql)?.execute(params![diff_id.0.as_bytes(), blob.digest.as_bytes(), json])?;
            Ok(())
        })
    }

    /// The known compressed forms of a layer.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn blobs_of(&self, diff_id: DiffId) -> Result<Vec<Descriptor>> {
        self.0.db.read("look up blobs", |db| blobs_of(db, diff_id))
    }

    /// The snapshot of a stack of layers given by diff-id, bottom first, if all are there.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn snapshot_of_chain(&self, diff_ids: &[DiffId]) -> Result<Option<Snapshot>> {
        let (found, snapshot) = self.longest_chain(diff_ids)?;
        Ok((found == diff_ids.len()).then_some(snapshot))
    }

    /// How many tars of a stack the layers that are here stand for, counted from the bottom without a gap, and the snapshot that these make.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn longest_chain(&self, diff_ids: &[DiffId]) -> Result<(usize, Snapshot)> {
        let mut missed = None;
        loop {
            let (found, layers) = self.chain_layers(diff_ids)?;
            match self.stack(&layers) {
                // Pruned in between, and with it what it was found by: the next look finds less.
                Err(Error::LayerMissing(layer)) if missed != Some(layer) => missed = Some(layer),
                stacked => return Ok((found, stacked?)),
            }
        }
    }

    /// The layers of a stack given by diff-id that are there, counted from the bottom without a gap, and how many of its tars
    /// they stand for.
    pub(crate) fn chain_layers(&self, diff_ids: &[DiffId]) -> Result<(usize, Vec<LayerId>)> {
        let chains = ChainId::of_stack(diff_ids);
        self.0.db.read("look up a stack of layers", |db| {
            let (mut found, mut layers) = (0, Vec::new());
            while found < diff_ids.len() {
                let base = base_bytes(found.checked_sub(1).map(|below| chains[below]));
                let Some((layer, count)) = find_layer(db, &diff_ids[found..], Some(base))? else { break };
                found += count;
                layers.push(layer);
            }
            Ok((found, layers))
        })
    }

    /// The chain id of a snapshot whose layers' diff-ids are all known.
    pub(super) fn chain_id(&self, snapshot: &Snapshot) -> Result<Option<ChainId>> {
        let diff_ids: Vec<DiffId> =
            self.describe_layers(snapshot, None)?.into_iter().map(|tar| tar.diff_id).collect();
        Ok(ChainId::of_stack(&diff_ids).last().copied())
    }

    /// The directories of a snapshot's layers, top first.
    pub(super) fn open_stack(&self, snapshot: &Snapshot) -> Result<Vec<RootDir>> {
        self.open_layers(&snapshot.layers)
    }

    /// The directories of layers, of which the bottom is first, top first.
    pub(super) fn open_layers(&self, layers: &[LayerId]) -> Result<Vec<RootDir>> {
        let open = |layer: &LayerId| Ok(RootDir::open(self.layer_path(*layer)?)?);
        layers.iter().rev().map(open).collect()
    }

    /// Remembers what was computed. A layer that was written here leaves out of its archive what has no effect on what is
    /// below it, so its directory stands for that archive only there. What was known before stays as it is.
    fn record_archives(&self, snapshot: &Snapshot, all: &[Vec<Archive>]) -> Result<()> {
        self.0.db.write("record diff-ids", |db| {
            let mut below = None;
            for (layer, archives) in snapshot.layers.iter().zip(all) {
                let base = Some(base_bytes(below));
                let on_it: Vec<Archive> = archives.iter().map(|it| Archive { base, ..it.clone() }).collect();
                insert_archives(db, *layer, &on_it)?;
                below = chain_on(below, archives);
            }
            Ok(())
        })
    }

    /// Writes a layer's archive from one of its blobs; false when none is there.
    fn write_layer_from_blob(&self, layer: LayerId, diff_id: DiffId, writer: &mut dyn Write) -> Result<bool> {
        for blob in self.blobs_of(diff_id)? {
            let Some(file) = self.content().open(blob.digest)? else { continue };
            let failed = |source| failed(layer)(layer::Error::Write(source));
            let mut tar = Decoder::new(file, layer::LAYER_SIZE_BYTES_MAX).map_err(failed)?;
            io::copy(&mut tar, writer).map_err(failed)?;
            return Ok(true);
        }
        Ok(false)
    }
}

/// The tars of a stack, bottom first.
fn tars(all: &[Vec<Archive>]) -> Vec<LayerTar> {
    let of_layer = |(layer, archives): (usize, &Vec<Archive>)| {
        let tar = move |archive: &Archive| {
            let Archive { diff_id, size_bytes, continues, .. } = *archive;
            LayerTar { layer, diff_id, size_bytes, continues }
        };
        archives.iter().map(tar).collect::<Vec<_>>()
    };
    all.iter().enumerate().flat_map(of_layer).collect()
}

/// The chain id of a stack with more on top.
fn chain_on(below: Option<ChainId>, archives: &[Archive]) -> Option<ChainId> {
    archives.iter().fold(below, |below, archive| Some(ChainId::extend(below, archive.diff_id)))
}

fn failed(layer: LayerId) -> impl Fn(layer::Error) -> Error {
    move |source| Error::Archive { layer, source }
}

/// The clamp of one layer of a stack.
fn mtime_max(clamp: Option<MtimeClamp>, index: usize) -> Option<i64> {
    clamp.filter(|clamp| index >= clamp.layers_kept).map(|clamp| clamp.mtime_max)
}

/// How `layer_archive.base` says what a layer stands on: a chain id, or zeros for nothing.
pub(super) fn base_bytes(base: Option<ChainId>) -> [u8; 32] {
    base.map_or([0; 32], |base| *base.0.as_bytes())
}

/// A layer that stands for the first of these archives, or for the first few, on anything or on `base` (see [`base_bytes`]), and for how
/// many: of several, one for the most.
pub(super) fn find_layer(
    db: &Connection,
    diff_ids: &[DiffId],
    base: Option<[u8; 32]>,
) -> Result<Option<(LayerId, usize)>, Failure> {
    let Some(first) = diff_ids.first() else { return Ok(None) };
    let sql = "SELECT layer, base, mtime_max FROM layer_archive
        WHERE diff_id = ?1 AND part = 0 AND (base IS NULL OR base = ?2) ORDER BY layer DESC";
    let mut statement = db.prepare_cached(sql)?;
    let read = |row: &Row<'_>| Ok((LayerId(row.get(0)?), row.get(1)?, row.get(2)?));
    let mut found: Option<(LayerId, usize)> = None;
    for row in statement.query_map(params![first.0.as_bytes(), base], read)? {
        let (layer, base, mtime_max) = row?;
        let archives = archives_on(db, layer, base, mtime_max)?;
        let own: Vec<DiffId> = archives.iter().map(|archive| archive.diff_id).collect();
        if diff_ids.starts_with(&own) && found.is_none_or(|(_, most)| own.len() >= most) {
            found = Some((layer, own.len()));
        }
    }
    Ok(found)
}

/// The archives that a layer stands for on anything, or on `base`.
fn find_archives(
    db: &Connection,
    layer: LayerId,
    base: Option<[u8; 32]>,
    mtime_max: Option<i64>,
) -> Result<Vec<Archive>, Failure> {
    let on_anything = archives_on(db, layer, None, mtime_max)?;
    if base.is_none() || !on_anything.is_empty() {
        return Ok(on_anything);
    }
    archives_on(db, layer, base, mtime_max)
}

/// The archives that were noted for a layer with this very base.
fn archives_on(
    db: &Connection,
    layer: LayerId,
    base: Option<[u8; 32]>,
    mtime_max: Option<i64>,
) -> Result<Vec<Archive>, Failure> {
    let sql = "SELECT diff_id, size_bytes, made, begins, continues, entries FROM layer_archive
        WHERE layer = ?1 AND base IS ?2 AND mtime_max IS ?3 ORDER BY part";
    let read = |row: &Row<'_>| {
        Ok(Archive {
            diff_id: DiffId(Digest::from_bytes(row.get(0)?)),
            size_bytes: unsigned(row.get(1)?),
            base,
            mtime_max,
            made: row.get(2)?,
            begins: row.get(3)?,
            continues: row.get(4)?,
            entries: row.get(5)?,
        })
    };
    let mut statement = db.prepare_cached(sql)?;
    Ok(statement.query_map(params![layer.0, base, mtime_max], read)?.collect::<Result<_, _>>()?)
}

/// Of which layer of a snapshot an archive was made, which part of it that is, and how.
fn how_made(
    db: &Connection,
    snapshot: &Snapshot,
    diff_id: DiffId,
) -> Result<(usize, usize, HowMade), Failure> {
    let sql = "SELECT part, base, mtime_max FROM layer_archive
        WHERE layer = ?1 AND diff_id = ?2 ORDER BY made DESC LIMIT 1";
    let mut statement = db.prepare_cached(sql)?;
    for (index, layer) in snapshot.layers.iter().enumerate() {
        let read = |row: &Row<'_>| Ok((row.get::<_, u32>(0)?, row.get(1)?, row.get(2)?));
        let found = statement.query_row(params![layer.0, diff_id.0.as_bytes()], read).optional()?;
        if let Some((part, base, mtime_max)) = found {
            let archives = archives_on(db, *layer, base, mtime_max)?;
            return Ok((index, part as usize, HowMade::of(&archives)));
        }
    }
    Err(Error::ArchiveUnknown(diff_id).into())
}

/// Remembers the archives of a layer, unless some are known for the same place and clamp.
pub(super) fn insert_archives(db: &Connection, layer: LayerId, archives: &[Archive]) -> Result<(), Failure> {
    let Some(Archive { base, mtime_max, .. }) = archives.first() else { return Ok(()) };
    if !archives_on(db, layer, *base, *mtime_max)?.is_empty() {
        return Ok(());
    }
    let sql = "INSERT INTO layer_archive
        (layer, part, diff_id, size_bytes, base, mtime_max, made, begins, continues, entries)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    let mut insert = db.prepare_cached(sql)?;
    for (part, archive) in (0_i64..).zip(archives) {
        let Archive { diff_id, size_bytes, base, mtime_max, made, begins, continues, entries } = archive;
        let (diff_id, size_bytes) = (diff_id.0.as_bytes(), size_bytes.cast_signed());
        insert.execute(params![
            layer.0, part, diff_id, size_bytes, base, mtime_max, made, begins, continues, entries
        ])?;
    }
    Ok(())
}

/// The archives that are known of these entries.
pub(super) fn archives_of_entries(
    db: &Connection,
    entries: &[Blake3],
) -> Result<Vec<Option<(DiffId, u64)>>, Failure> {
    let sql = "SELECT diff_id, size_bytes FROM layer_archive WHERE entries = ?1 LIMIT 1";
    let mut statement = db.prepare_cached(sql)?;
    let read = |row: &Row<'_>| Ok((DiffId(Digest::from_bytes(row.get(0)?)), unsigned(row.get(1)?)));
    let known = entries.iter().map(|entries| statement.query_row([entries], read).optional());
    Ok(known.collect::<Result<_, _>>()?)
}

fn unsigned(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
}

fn blobs_of(db: &Connection, diff_id: DiffId) -> Result<Vec<Descriptor>, Failure> {
    let mut statement =
        db.prepare_cached("SELECT descriptor FROM layer_blob WHERE diff_id = ?1 ORDER BY digest")?;
    let rows = statement.query_map([diff_id.0.as_bytes()], |row| row.get(0))?;
    let damaged = |error: serde_json::Error| Error::Damaged { table: "layer_blob", found: error.to_string() };
    rows.map(|json: rusqlite::Result<String>| Ok(serde_json::from_str(&json?).map_err(damaged)?)).collect()
}
