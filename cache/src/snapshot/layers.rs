//! What is known of layers, and layers as archives.
//!
//! A layer's diff-id and size are computed when they are first asked for, as most layers never leave the store. A layer that
//! came as an archive was verified then; the archive that it is made into again may differ in its bytes, so where the layer has
//! to leave as it came, one of its [blobs](Store::blobs_of) is used.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::sync::mpsc;
use std::thread;

use rayon::prelude::*;
use rbuild_image::{ChainId, Descriptor, DiffId, Digest, HashingWriter};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{LayerId, Snapshot};
use crate::db::Failure;
use crate::layer::merged::Merged;
use crate::layer::{self, compression::Decoder};
use crate::lease::seconds;
use crate::root_dir::RootDir;
use crate::{Error, Result, Store, tree};

/// How much is hashed at once, how many such pieces may wait, and what one write adds to a piece at most.
const CHUNK_BYTES: usize = 1 << 20;
const CHUNKS_AHEAD: usize = 4;
const COPY_BYTES_MAX: usize = 256 * 1024;

/// What is known of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerInfo {
    /// Which layer.
    pub id: LayerId,
    /// The size of its archive in bytes, once one was made.
    pub tar_size_bytes: Option<u64>,
    /// When it was made, Unix seconds.
    pub created: i64,
}

/// Clamps modification times in the archives of the upper layers of a stack: those that a build has put on its base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MtimeClamp {
    /// How many layers, counted from the bottom, stay as they are.
    pub layers_kept: usize,
    /// The latest time in the others, Unix seconds (`SOURCE_DATE_EPOCH`).
    pub mtime_max: i64,
}

/// A tar that a layer is known to stand for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Archive {
    pub(super) diff_id: DiffId,
    pub(super) size_bytes: u64,
    /// See [`base_bytes`]; `None` is any.
    pub(super) base: Option<[u8; 32]>,
    pub(super) mtime_max: Option<i64>,
    /// Whether it was made of the layer's directory, and so can be made again.
    pub(super) made: bool,
}

impl Store {
    /// What is known of the layers of a snapshot, bottom first.
    ///
    /// # Errors
    /// When the metadata cannot be read, or a layer has been pruned.
    pub fn layer_infos(&self, snapshot: &Snapshot) -> Result<Vec<LayerInfo>> {
        let sql = "SELECT created, (SELECT max(size_bytes) FROM layer_archive WHERE layer = id) FROM layer WHERE id = ?1";
        self.0.db.read("read about layers", |db| {
            let info = |id: &LayerId| {
                let read = |row: &Row<'_>| {
                    let size: Option<i64> = row.get(1)?;
                    let tar_size_bytes = size.and_then(|size| u64::try_from(size).ok());
                    Ok(LayerInfo { id: *id, tar_size_bytes, created: seconds(row.get(0)?) })
                };
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

    /// The diff-ids and archive sizes in bytes of a snapshot's layers, bottom first. Those that are not known are computed,
    /// in parallel on the current rayon pool, and remembered.
    ///
    /// # Errors
    /// When a layer has been pruned, or cannot be read.
    pub fn describe_layers(
        &self,
        snapshot: &Snapshot,
        clamp: Option<MtimeClamp>,
    ) -> Result<Vec<(DiffId, u64)>> {
        let described = |archive: &Archive| (archive.diff_id, archive.size_bytes);
        let known = self.known_archives(snapshot, clamp)?;
        if let Some(known) = known.iter().map(|archive| archive.as_ref().map(described)).collect() {
            return Ok(known);
        }
        let stack = self.open_stack(snapshot)?;
        let archives = known
            .par_iter()
            .enumerate()
            .map(|(index, known)| match known {
                Some(archive) => Ok(*archive),
                None => {
                    let (layer, mtime_max) = (snapshot.layers[index], mtime_max(clamp, index));
                    let grown = self.hash_grown(layer, &stack[stack.len() - index..], mtime_max);
                    grown.unwrap_or_else(|| self.hash(&stack, index, mtime_max)).map_err(failed(layer))
                }
            })
            .collect::<Result<Vec<_>>>()?;
        self.record_archives(snapshot, &archives)?;
        Ok(archives.iter().map(described).collect())
    }

    /// For each layer of a snapshot the archive that it stands for in its place, if that is known: what is below has to be.
    pub(super) fn known_archives(
        &self,
        snapshot: &Snapshot,
        clamp: Option<MtimeClamp>,
    ) -> Result<Vec<Option<Archive>>> {
        self.0.db.read("read about layers", |db| {
            let mut below = Some(None);
            let mut known = Vec::with_capacity(snapshot.layers.len());
            for (index, layer) in snapshot.layers.iter().enumerate() {
                let archive = find_archive(db, *layer, below.map(base_bytes), mtime_max(clamp, index))?;
                below =
                    below.zip(archive).map(|(below, archive)| Some(ChainId::extend(below, archive.diff_id)));
                known.push(archive);
            }
            Ok(known)
        })
    }

    /// Writes an archive of one layer of a snapshot, counted from the bottom: the one that `diff_id` is the digest of, which
    /// the layer came as or was [described](Self::describe_layers) by.
    ///
    /// # Errors
    /// When the layer has been pruned or cannot be read, or `writer` fails. [`Error::DiffIdMismatch`] when the layer came as an
    /// archive that cannot be reproduced, and none of its blobs is in the store; what was written then is of no use.
    ///
    /// # Panics
    /// When the snapshot has no such layer.
    pub fn write_layer(
        &self,
        snapshot: &Snapshot,
        index: usize,
        diff_id: DiffId,
        writer: &mut dyn Write,
    ) -> Result<()> {
        let layer = snapshot.layers[index];
        if self.write_layer_from_blob(layer, diff_id, writer)? {
            return Ok(());
        }
        let mtime_max = self.0.db.read("read about a layer", |db| Ok(mtime_max_of(db, layer, diff_id)?))?;
        let mut writer = HashingWriter::new(writer);
        let stack = self.open_stack(snapshot)?;
        self.archive(&stack, index, mtime_max, &mut writer).map_err(failed(layer))?;
        let found = DiffId(writer.finish().0);
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

    /// How many layers of a stack are there, counted from the bottom without a gap, and the snapshot that they make.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn longest_chain(&self, diff_ids: &[DiffId]) -> Result<(usize, Snapshot)> {
        let layers = self.chain_layers(diff_ids)?;
        Ok((layers.len(), self.stack(&layers)?))
    }

    /// The layers of a stack given by diff-id that are there, counted from the bottom without a gap.
    pub(crate) fn chain_layers(&self, diff_ids: &[DiffId]) -> Result<Vec<LayerId>> {
        let chains = ChainId::of_stack(diff_ids);
        self.0.db.read("look up a stack of layers", |db| {
            let mut layers = Vec::new();
            for (at, diff_id) in diff_ids.iter().enumerate() {
                let base = base_bytes(at.checked_sub(1).map(|below| chains[below]));
                let Some(layer) = find_layer(db, *diff_id, Some(base))? else { break };
                layers.push(layer);
            }
            Ok(layers)
        })
    }

    /// The chain id of a snapshot whose layers' diff-ids are all known.
    pub(super) fn chain_id(&self, snapshot: &Snapshot) -> Result<Option<ChainId>> {
        let diff_ids: Vec<DiffId> =
            self.describe_layers(snapshot, None)?.into_iter().map(|(diff_id, _)| diff_id).collect();
        Ok(ChainId::of_stack(&diff_ids).last().copied())
    }

    /// The directories of a snapshot's layers, top first.
    pub(super) fn open_stack(&self, snapshot: &Snapshot) -> Result<Vec<RootDir>> {
        let open = |layer: &LayerId| Ok(RootDir::open(self.layer_path(*layer)?)?);
        snapshot.layers.iter().rev().map(open).collect()
    }

    pub(super) fn hash(
        &self,
        stack: &[RootDir],
        index: usize,
        mtime_max: Option<i64>,
    ) -> Result<Archive, layer::Error> {
        let mut writer = HashingWriter::new(io::sink());
        self.archive(stack, index, mtime_max, &mut writer)?;
        Ok(hashed(writer, mtime_max))
    }

    /// The same of a layer that this handle has just made of a tree; `None` if it has not.
    fn hash_grown(
        &self,
        layer: LayerId,
        lowers: &[RootDir],
        mtime_max: Option<i64>,
    ) -> Option<Result<Archive, layer::Error>> {
        let grown = self.take_grown(layer)?;
        let packs: Vec<&File> = grown.packs.iter().map(|pack| &pack.file).collect();
        let lowers = Merged { layers: lowers, xattrs: self.xattrs() };
        let (written, writer) =
            hash_aside(|out| tree::archive::diff(&grown.tree, &packs, lowers, mtimes(mtime_max), out));
        Some(written.map(|()| hashed(writer, mtime_max)))
    }

    /// Archives layer `index`, counted from the bottom of `stack`, which has the top first.
    pub(super) fn archive(
        &self,
        stack: &[RootDir],
        index: usize,
        mtime_max: Option<i64>,
        writer: &mut dyn Write,
    ) -> Result<(), layer::Error> {
        let at = stack.len() - 1 - index;
        let options = layer::ArchiveOptions { mtimes: mtimes(mtime_max), cancel: None };
        layer::diff(&stack[at], &stack[at + 1..], self.xattrs(), &options, writer).map(drop)
    }

    /// Remembers what was computed. A layer that was written here leaves out of its archive what has no effect on what is
    /// below it, so its directory stands for that archive only there. What was known before stays as it is.
    fn record_archives(&self, snapshot: &Snapshot, archives: &[Archive]) -> Result<()> {
        self.0.db.write("record diff-ids", |db| {
            let mut below = None;
            for (layer, archive) in snapshot.layers.iter().zip(archives) {
                insert_archive(db, *layer, &Archive { base: Some(base_bytes(below)), ..*archive })?;
                below = Some(ChainId::extend(below, archive.diff_id));
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

fn mtimes(max: Option<i64>) -> layer::Mtimes {
    max.map_or(layer::Mtimes::Keep, layer::Mtimes::AtMost)
}

/// Hashes what is written, on another thread than the one that writes it.
fn hash_aside<T>(write: impl FnOnce(&mut dyn Write) -> T) -> (T, HashingWriter<io::Sink>) {
    let (sender, receiver) = mpsc::sync_channel::<Vec<u8>>(CHUNKS_AHEAD);
    let (back, used) = mpsc::channel();
    thread::scope(|scope| {
        let hasher = scope.spawn(move || {
            let mut writer = HashingWriter::new(io::sink());
            for chunk in receiver {
                drop(writer.write_all(&chunk));
                // Nobody wants it any longer when the other side has ended.
                drop(back.send(chunk));
            }
            writer
        });
        let mut chunks = Chunks { sender, used, chunk: Vec::new() };
        let written = write(&mut chunks);
        chunks.send();
        drop(chunks);
        (written, hasher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Hands on what is written in large pieces.
struct Chunks {
    sender: mpsc::SyncSender<Vec<u8>>,
    /// Those that were hashed.
    used: mpsc::Receiver<Vec<u8>>,
    chunk: Vec<u8>,
}

impl Chunks {
    fn send(&mut self) {
        let new = |_| Vec::with_capacity(CHUNK_BYTES + COPY_BYTES_MAX);
        let mut next = self.used.try_recv().unwrap_or_else(new);
        next.clear();
        // The other side ends with this one.
        drop(self.sender.send(std::mem::replace(&mut self.chunk, next)));
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK_BYTES {
            self.send();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What was written as an archive. Where it stands is said when all of the stack is known.
fn hashed(writer: HashingWriter<io::Sink>, mtime_max: Option<i64>) -> Archive {
    let (digest, size_bytes, _) = writer.finish();
    Archive { diff_id: DiffId(digest), size_bytes, base: None, mtime_max, made: true }
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

/// A layer with this archive that can stand on anything, or on `base` (see [`base_bytes`]).
pub(super) fn find_layer(
    db: &Connection,
    diff_id: DiffId,
    base: Option<[u8; 32]>,
) -> rusqlite::Result<Option<LayerId>> {
    let sql = "SELECT layer FROM layer_archive WHERE diff_id = ?1 AND (base IS NULL OR base = ?2)
        ORDER BY layer LIMIT 1";
    db.prepare_cached(sql)?
        .query_row(params![diff_id.0.as_bytes(), base], |row| row.get(0).map(LayerId))
        .optional()
}

/// The archive that a layer stands for on anything, or on `base`.
fn find_archive(
    db: &Connection,
    layer: LayerId,
    base: Option<[u8; 32]>,
    mtime_max: Option<i64>,
) -> Result<Option<Archive>, Failure> {
    let sql = "SELECT diff_id, size_bytes, base, made FROM layer_archive
        WHERE layer = ?1 AND (base IS NULL OR base = ?2) AND mtime_max IS ?3 LIMIT 1";
    let read = |row: &Row<'_>| {
        Ok(Archive {
            diff_id: DiffId(Digest::from_bytes(row.get(0)?)),
            size_bytes: u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0),
            base: row.get(2)?,
            mtime_max,
            made: row.get(3)?,
        })
    };
    Ok(db.prepare_cached(sql)?.query_row(params![layer.0, base, mtime_max], read).optional()?)
}

/// What modification times were clamped to in an archive of a layer.
fn mtime_max_of(db: &Connection, layer: LayerId, diff_id: DiffId) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT mtime_max FROM layer_archive WHERE layer = ?1 AND diff_id = ?2 LIMIT 1";
    let found = db.prepare_cached(sql)?.query_row(params![layer.0, diff_id.0.as_bytes()], |row| row.get(0));
    Ok(found.optional()?.flatten())
}

/// Remembers an archive of a layer, unless one is known for the same place and clamp.
pub(super) fn insert_archive(db: &Connection, layer: LayerId, archive: &Archive) -> Result<(), Failure> {
    let sql = "INSERT OR IGNORE INTO layer_archive (layer, diff_id, size_bytes, base, mtime_max, made)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let size_bytes = i64::try_from(archive.size_bytes).unwrap_or(i64::MAX);
    let row = params![
        layer.0,
        archive.diff_id.0.as_bytes(),
        size_bytes,
        archive.base,
        archive.mtime_max,
        archive.made
    ];
    db.prepare_cached(sql)?.execute(row)?;
    Ok(())
}

fn blobs_of(db: &Connection, diff_id: DiffId) -> Result<Vec<Descriptor>, Failure> {
    let mut statement =
        db.prepare_cached("SELECT descriptor FROM layer_blob WHERE diff_id = ?1 ORDER BY digest")?;
    let rows = statement.query_map([diff_id.0.as_bytes()], |row| row.get(0))?;
    let damaged = |error: serde_json::Error| Error::Damaged { table: "layer_blob", found: error.to_string() };
    rows.map(|json: rusqlite::Result<String>| Ok(serde_json::from_str(&json?).map_err(damaged)?)).collect()
}
