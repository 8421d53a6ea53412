//! What is known of layers, and layers as archives.
//!
//! A layer's diff-id and size are computed when they are first asked for, as most layers never leave the store. A layer that
//! came as an archive was verified then; the archive that it is made into again may differ in its bytes, so where the layer has
//! to leave as it came, one of its [blobs](LayerInfo::blobs) is used.

use std::io::{self, Write};

use rayon::prelude::*;
use rbuild_image::{ChainId, Descriptor, DiffId, Digest, HashingWriter};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{LayerId, Snapshot};
use crate::db::Failure;
use crate::layer::{self, compression::Decoder};
use crate::root_dir::RootDir;
use crate::{Error, Result, Store};

/// What is known of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerInfo {
    /// Which layer.
    pub id: LayerId,
    /// The digest of its archive, once it was computed.
    pub diff_id: Option<DiffId>,
    /// The size of its archive in bytes, likewise.
    pub tar_size_bytes: Option<u64>,
    /// When it was made, Unix seconds.
    pub created: i64,
    /// Its compressed forms, as they came or were made. Not all need be in the store.
    pub blobs: Vec<Descriptor>,
}

/// A layer's row.
struct LayerRow {
    id: LayerId,
    diff_id: Option<DiffId>,
    tar_size_bytes: Option<u64>,
    mtime_max: Option<i64>,
    created: i64,
}

impl Store {
    /// What is known of the layers of a snapshot, bottom first.
    ///
    /// # Errors
    /// When the metadata cannot be read, or a layer has been pruned.
    pub fn layer_infos(&self, snapshot: &Snapshot) -> Result<Vec<LayerInfo>> {
        self.0.db.read("read about layers", |db| {
            let info = |id: &LayerId| {
                let row = layer_row(db, *id)?;
                let blobs = row.diff_id.map_or_else(|| Ok(Vec::new()), |diff_id| blobs_of(db, diff_id))?;
                let LayerRow { id, diff_id, tar_size_bytes, created, .. } = row;
                Ok(LayerInfo { id, diff_id, tar_size_bytes, created, blobs })
            };
            snapshot.layers.iter().map(info).collect()
        })
    }

    /// The diff-ids and archive sizes in bytes of a snapshot's layers, bottom first. Those that are not known are computed,
    /// in parallel on the current rayon pool, and remembered.
    ///
    /// # Errors
    /// When a layer has been pruned, or cannot be read.
    pub fn describe_layers(&self, snapshot: &Snapshot) -> Result<Vec<(DiffId, u64)>> {
        let rows = self.layer_rows(snapshot)?;
        if let Some(known) = rows.iter().map(LayerRow::described).collect() {
            return Ok(known);
        }
        let stack = self.open_stack(snapshot)?;
        let described = rows
            .par_iter()
            .enumerate()
            .map(|(index, row)| row.described().map_or_else(|| self.hash(&stack, index, row), Ok))
            .collect::<Result<Vec<_>>>()?;
        self.record_descriptions(&rows, &described)?;
        Ok(described)
    }

    /// Writes the archive of one layer of a snapshot, counted from the bottom: the bytes that its diff-id is the digest of.
    ///
    /// # Errors
    /// When the layer has been pruned or cannot be read, or `writer` fails. [`Error::DiffIdMismatch`] when the layer came as an
    /// archive that cannot be reproduced, and none of its blobs is in the store; what was written then is of no use.
    ///
    /// # Panics
    /// When the snapshot has no such layer.
    pub fn write_layer(&self, snapshot: &Snapshot, index: usize, writer: &mut dyn Write) -> Result<()> {
        let rows = self.layer_rows(snapshot)?;
        let row = &rows[index];
        if let Some(diff_id) = row.diff_id
            && self.write_layer_from_blob(row, diff_id, writer)?
        {
            return Ok(());
        }
        let mut writer = HashingWriter::new(writer);
        self.archive(&self.open_stack(snapshot)?, index, row, &mut writer)?;
        let found = DiffId(writer.finish().0);
        match row.diff_id {
            Some(expected) if expected != found => Err(Error::DiffIdMismatch { expected, found }),
            _ => Ok(()),
        }
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

    /// How many layers of a stack are there, counted from the bottom without a gap, and the snapshot that they make.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn longest_chain(&self, diff_ids: &[DiffId]) -> Result<(usize, Snapshot)> {
        let chains = ChainId::of_stack(diff_ids);
        let layers = self.0.db.read("look up a stack of layers", |db| {
            let mut layers = Vec::new();
            for (at, diff_id) in diff_ids.iter().enumerate() {
                let base = base_bytes(at.checked_sub(1).map(|below| chains[below]));
                let Some(layer) = find_layer(db, *diff_id, Some(base))? else { break };
                layers.push(layer);
            }
            Ok(layers)
        })?;
        Ok((layers.len(), self.stack(&layers)?))
    }

    /// The chain id of a snapshot whose layers' diff-ids are all known.
    pub(super) fn chain_id(&self, snapshot: &Snapshot) -> Result<Option<ChainId>> {
        let diff_ids: Vec<DiffId> =
            self.describe_layers(snapshot)?.into_iter().map(|(diff_id, _)| diff_id).collect();
        Ok(ChainId::of_stack(&diff_ids).last().copied())
    }

    fn layer_rows(&self, snapshot: &Snapshot) -> Result<Vec<LayerRow>> {
        let rows = |db: &Connection| snapshot.layers.iter().map(|id| layer_row(db, *id)).collect();
        self.0.db.read("read about layers", rows)
    }

    /// The directories of a snapshot's layers, top first.
    pub(super) fn open_stack(&self, snapshot: &Snapshot) -> Result<Vec<RootDir>> {
        let open = |layer: &LayerId| Ok(RootDir::open(self.0.layout.layer(*layer))?);
        snapshot.layers.iter().rev().map(open).collect()
    }

    fn hash(&self, stack: &[RootDir], index: usize, row: &LayerRow) -> Result<(DiffId, u64)> {
        let mut writer = HashingWriter::new(io::sink());
        self.archive(stack, index, row, &mut writer)?;
        let (digest, size_bytes, _) = writer.finish();
        Ok((DiffId(digest), size_bytes))
    }

    /// Archives layer `index`, counted from the bottom of `stack`, which has the top first.
    fn archive(&self, stack: &[RootDir], index: usize, row: &LayerRow, writer: &mut dyn Write) -> Result<()> {
        let at = stack.len() - 1 - index;
        let options = layer::ArchiveOptions { mtime_max: row.mtime_max, cancel: None };
        layer::diff(&stack[at], &stack[at + 1..], self.xattrs(), &options, writer)
            .map(drop)
            .map_err(|source| Error::Archive { layer: row.id, source })
    }

    /// Remembers what was computed. A layer that was written here leaves out of its archive what has no effect on what is
    /// below it, so its directory stands for that archive only there.
    fn record_descriptions(&self, rows: &[LayerRow], described: &[(DiffId, u64)]) -> Result<()> {
        let diff_ids: Vec<DiffId> = described.iter().map(|(diff_id, _)| *diff_id).collect();
        let chains = ChainId::of_stack(&diff_ids);
        self.0.db.write("record diff-ids", |db| {
            let sql = "UPDATE layer SET diff_id = ?2, tar_size_bytes = ?3, base = ?4 WHERE id = ?1 AND diff_id IS NULL";
            let mut update = db.prepare_cached(sql)?;
            for (index, (row, (diff_id, size_bytes))) in rows.iter().zip(described).enumerate() {
                let base = base_bytes(index.checked_sub(1).map(|below| chains[below]));
                let size_bytes = i64::try_from(*size_bytes).unwrap_or(i64::MAX);
                update.execute(params![row.id.0, diff_id.0.as_bytes(), size_bytes, base])?;
            }
            Ok(())
        })
    }

    /// Writes a layer's archive from one of its blobs; false when none is there.
    fn write_layer_from_blob(&self, row: &LayerRow, diff_id: DiffId, writer: &mut dyn Write) -> Result<bool> {
        for blob in self.blobs_of(diff_id)? {
            let Some(file) = self.content().open(blob.digest)? else { continue };
            let failed = |source| Error::Archive { layer: row.id, source: layer::Error::Write(source) };
            let size_bytes_max = row.tar_size_bytes.unwrap_or(u64::MAX);
            let mut tar = Decoder::new(file, size_bytes_max).map_err(failed)?;
            io::copy(&mut tar, writer).map_err(failed)?;
            return Ok(true);
        }
        Ok(false)
    }
}

impl LayerRow {
    fn described(&self) -> Option<(DiffId, u64)> {
        self.diff_id.zip(self.tar_size_bytes)
    }
}

/// How `layer.base` says what a layer stands on: a chain id, or zeros for nothing.
pub(super) fn base_bytes(base: Option<ChainId>) -> [u8; 32] {
    base.map_or([0; 32], |base| *base.0.as_bytes())
}

/// A layer with this archive that can stand on anything, or on `base` (see [`base_bytes`]).
pub(super) fn find_layer(
    db: &Connection,
    diff_id: DiffId,
    base: Option<[u8; 32]>,
) -> rusqlite::Result<Option<LayerId>> {
    let sql = "SELECT id FROM layer WHERE diff_id = ?1 AND (base IS NULL OR base = ?2) ORDER BY id LIMIT 1";
    db.prepare_cached(sql)?
        .query_row(params![diff_id.0.as_bytes(), base], |row| row.get(0).map(LayerId))
        .optional()
}

fn layer_row(db: &Connection, id: LayerId) -> Result<LayerRow, Failure> {
    let sql = "SELECT diff_id, tar_size_bytes, mtime_max, created FROM layer WHERE id = ?1";
    let read = |row: &Row<'_>| {
        Ok(LayerRow {
            id,
            diff_id: row.get::<_, Option<[u8; 32]>>(0)?.map(|bytes| DiffId(Digest::from_bytes(bytes))),
            tar_size_bytes: row.get::<_, Option<i64>>(1)?.and_then(|size| u64::try_from(size).ok()),
            mtime_max: row.get(2)?,
            created: row.get(3)?,
        })
    };
    let row = db.prepare_cached(sql)?.query_row([id.0], read).optional()?;
    row.ok_or_else(|| Error::LayerMissing(id).into())
}

fn blobs_of(db: &Connection, diff_id: DiffId) -> Result<Vec<Descriptor>, Failure> {
    let mut statement =
        db.prepare_cached("SELECT descriptor FROM layer_blob WHERE diff_id = ?1 ORDER BY digest")?;
    let rows = statement.query_map([diff_id.0.as_bytes()], |row| row.get(0))?;
    let damaged = |error: serde_json::Error| Error::Damaged { table: "layer_blob", found: error.to_string() };
    rows.map(|json: rusqlite::Result<String>| Ok(serde_json::from_str(&json?).map_err(damaged)?)).collect()
}
