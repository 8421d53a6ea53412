//! What is in the store, as a graph in memory: *pieces* take room, *entries* and *roots* hold pieces. A piece goes with its last
//! holder; that is all that pruning knows.
//!
//! Pieces are layers, packs of contents that they share, blobs, and directories that steps change. An entry is what can be forgotten: a result, a directory, a
//! piece that nothing else holds. A root is what keeps things: an image, a container, a running process.

use std::collections::{HashMap, HashSet};
use std::time::UNIX_EPOCH;

use rbuild_image::Digest;
use rusqlite::{Connection, Row};

use super::blobs::{Blob, ImageBlobs};
use super::item::{Item, ItemKind};
use crate::db::{Failure, unpack};
use crate::lease::{InUseSince, seconds, stamp_of};
use crate::mutable::MutableKind;
use crate::{Mutable, Store};

/// Names a piece within a [`State`].
pub(super) type PieceId = u32;

/// What takes room.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) what: What,
    pub(super) size_bytes: u64,
    /// Unix nanoseconds, as in all of this.
    pub(super) last_used: i64,
    pub(super) in_use: bool,
}

#[derive(Debug)]
pub(super) enum What {
    Layer(i64),
    Pack(i64),
    Blob(Blob),
    Mutable(Mutable),
}

/// What can be forgotten.
#[derive(Debug)]
pub(super) struct Entry {
    /// The row to delete, where there is one beside the pieces.
    pub(super) result: Option<i64>,
    pub(super) kind: ItemKind,
    pub(super) id: String,
    pub(super) description: String,
    pub(super) created: i64,
    pub(super) last_used: i64,
    pub(super) in_use: bool,
    pub(super) snapshots: Vec<i64>,
    /// Each once.
    pub(super) pieces: Vec<PieceId>,
}

/// What keeps pieces.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) keeper: Keeper,
    /// What people call it.
    pub(super) name: String,
    pub(super) snapshots: Vec<i64>,
    pub(super) pieces: Vec<PieceId>,
}

/// Who keeps pieces.
#[derive(Debug)]
pub(super) enum Keeper {
    Image(ImageEntry),
    Container,
    /// For now: what it keeps is a part of the cache.
    Process,
}

#[derive(Debug)]
pub(super) struct ImageEntry {
    pub(super) id: String,
    pub(super) names: Vec<String>,
    pub(super) created: i64,
}

#[derive(Debug, Default)]
pub(super) struct SnapshotRow {
    pub(super) pieces: Vec<PieceId>,
    /// The snapshots that its mounts need beside its own layers: what its lower part was flattened to.
    pub(super) flats: Vec<i64>,
    pub(super) last_used: i64,
}

/// The highest ids there are: what has a higher one was added later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) result: i64,
    pub(super) snapshot: i64,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) pieces: Vec<Piece>,
    pub(super) snapshots: HashMap<i64, SnapshotRow>,
    /// The order to forget them in.
    pub(super) entries: Vec<Entry>,
    pub(super) roots: Vec<Root>,
    pub(super) known: Known,
}

/// Where things are while a state is put together.
struct Builder<'a> {
    state: State,
    in_use: Option<InUseSince>,
    layers: HashMap<i64, PieceId>,
    /// What a layer needs beside its own piece: its packs, or the layer that it is told from.
    needs_of: HashMap<i64, Vec<PieceId>>,
    blobs: HashMap<Digest, PieceId>,
    blobs_of: HashMap<i64, Vec<PieceId>>,
    downloads: &'a HashSet<Digest>,
}

/// What was read from elsewhere than the metadata.
pub(super) struct Found<'a> {
    pub(super) blobs: &'a [Blob],
    pub(super) images: &'a [ImageBlobs],
    pub(super) downloads: &'a HashSet<Digest>,
    pub(super) in_use: Option<InUseSince>,
}

impl State {
    pub(super) fn read(store: &Store, db: &Connection, found: &Found<'_>) -> Result<Self, Failure> {
        let mut builder = Builder {
            state: Self::default(),
            in_use: found.in_use,
            layers: HashMap::new(),
            needs_of: HashMap::new(),
            blobs: HashMap::new(),
            blobs_of: HashMap::new(),
            downloads: found.downloads,
        };
        builder.add_layers(db)?;
        builder.add_packs(db)?;
        builder.add_blobs(db, found.blobs)?;
        builder.add_snapshots(db)?;
        builder.add_results(db)?;
        builder.add_images(db, found.images)?;
        builder.add_containers(db)?;
        builder.add_mutables(store.read_mutables(db)?);
        builder.add_leftovers();
        let mut state = builder.state;
        state.order();
        Ok(state)
    }

    /// Puts the least recently used first. What others stand on counts as used when these were, and goes after them: to forget it
    /// before frees nothing.
    pub(super) fn order(&mut self) {
        let mut used = vec![i64::MIN; self.pieces.len()];
        for entry in &self.entries {
            for piece in entry.pieces.iter().map(|piece| *piece as usize) {
                used[piece] = used[piece].max(entry.last_used);
            }
        }
        self.entries.sort_by_cached_key(|entry| {
            let stands_on = entry.pieces.iter().map(|piece| used[*piece as usize]).min();
            (stands_on.unwrap_or(entry.last_used), std::cmp::Reverse(entry.result))
        });
    }

    /// How many hold each piece.
    pub(super) fn holders(&self) -> Vec<u32> {
        let mut holders = vec![0; self.pieces.len()];
        let held =
            self.entries.iter().map(|entry| &entry.pieces).chain(self.roots.iter().map(|it| &it.pieces));
        held.flatten().for_each(|piece| holders[*piece as usize] += 1);
        holders
    }

    /// The roots of each piece.
    pub(super) fn pins(&self) -> HashMap<PieceId, Vec<usize>> {
        let mut pins: HashMap<PieceId, Vec<usize>> = HashMap::new();
        for (index, root) in self.roots.iter().enumerate() {
            root.pieces.iter().for_each(|piece| pins.entry(*piece).or_default().push(index));
        }
        pins
    }

    /// An entry as people see it.
    pub(super) fn item(&self, entry: &Entry, holders: &[u32], pins: &HashMap<PieceId, Vec<usize>>) -> Item {
        let (private_bytes, shared_bytes) = self.sizes(&entry.pieces, holders);
        Item {
            kind: entry.kind,
            id: entry.id.clone(),
            description: entry.description.clone(),
            created: seconds(entry.created),
            last_used: seconds(entry.last_used),
            private_bytes,
            shared_bytes,
            users: self.users(&entry.pieces, pins),
            in_use: entry.in_use,
        }
    }

    /// An image as people see it.
    pub(super) fn image_item(&self, root: &Root, image: &ImageEntry, holders: &[u32]) -> Item {
        let (private_bytes, shared_bytes) = self.sizes(&root.pieces, holders);
        Item {
            kind: ItemKind::Image,
            id: image.id.clone(),
            description: root.name.clone(),
            created: image.created,
            last_used: image.created,
            private_bytes,
            shared_bytes,
            users: image.names.clone(),
            in_use: false,
        }
    }

    fn sizes(&self, pieces: &[PieceId], holders: &[u32]) -> (u64, u64) {
        let mut sizes = (0, 0);
        for piece in pieces {
            let size_bytes = self.pieces[*piece as usize].size_bytes;
            *(if holders[*piece as usize] == 1 { &mut sizes.0 } else { &mut sizes.1 }) += size_bytes;
        }
        sizes
    }

    /// The names of the roots that hold all of these pieces.
    fn users(&self, pieces: &[PieceId], pins: &HashMap<PieceId, Vec<usize>>) -> Vec<String> {
        // The last piece is the topmost layer's, so what others do not hold is seen at once.
        let mut rest = pieces.iter().rev();
        let Some(mut users) = rest.next().and_then(|piece| pins.get(piece)).cloned() else {
            return Vec::new();
        };
        for piece in rest {
            let Some(others) = pins.get(piece) else { return Vec::new() };
            users.retain(|user| others.contains(user));
        }
        users.into_iter().map(|user| self.roots[user].name.clone()).collect()
    }
}

impl Builder<'_> {
    fn is_in_use(&self, last_used: i64) -> bool {
        self.in_use.is_some_and(|since| last_used >= since.stamp)
    }

    fn add_piece(&mut self, piece: Piece) -> PieceId {
        self.state.pieces.push(piece);
        PieceId::try_from(self.state.pieces.len() - 1)
            .expect("a store has fewer things than there are numbers")
    }

    fn add_layers(&mut self, db: &Connection) -> Result<(), Failure> {
        let sql = "SELECT id, coalesce(disk_size_bytes, 0), created, base FROM layer ORDER BY id";
        for (id, size_bytes, created, base) in rows(db, sql, |row| {
            Ok((row.get(0)?, row.get::<_, i64>(1)?, row.get(2)?, row.get::<_, Option<i64>>(3)?))
        })? {
            let size_bytes = u64::try_from(size_bytes).unwrap_or(0);
            let in_use = self.is_in_use(created);
            let piece =
                self.add_piece(Piece { what: What::Layer(id), size_bytes, last_used: created, in_use });
            self.layers.insert(id, piece);
            // A base is older than what is told from it.
            if let Some(base) = base.and_then(|base| self.layers.get(&base)) {
                self.needs_of.insert(id, vec![*base]);
            }
        }
        Ok(())
    }

    /// The packs, and which layers have contents in them.
    fn add_packs(&mut self, db: &Connection) -> Result<(), Failure> {
        let mut packs = HashMap::new();
        let sql = "SELECT id, disk_size_bytes, last_used FROM pack ORDER BY id";
        for (id, size_bytes, last_used) in
            rows(db, sql, |row| Ok((row.get(0)?, row.get::<_, i64>(1)?, row.get(2)?)))?
        {
            let (size_bytes, in_use) = (size_bytes.cast_unsigned(), self.is_in_use(last_used));
            let piece = self.add_piece(Piece { what: What::Pack(id), size_bytes, last_used, in_use });
            packs.insert(id, piece);
        }
        for (layer, pack) in
            rows(db, "SELECT layer, pack FROM layer_pack", |row| Ok((row.get(0)?, row.get(1)?)))?
        {
            self.needs_of.entry(layer).or_default().extend(packs.get::<i64>(&pack));
        }
        Ok(())
    }

    /// The blobs, and which layers they are forms of.
    fn add_blobs(&mut self, db: &Connection, blobs: &[Blob]) -> Result<(), Failure> {
        for blob in blobs {
            let used = blob.used.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
            let piece = Piece {
                what: What::Blob(*blob),
                size_bytes: blob.size_bytes,
                last_used: i64::try_from(used).unwrap_or(i64::MAX),
                in_use: self.in_use.is_some_and(|since| blob.used >= since.modified),
            };
            let piece = self.add_piece(piece);
            self.blobs.insert(blob.digest, piece);
        }
        let sql = "SELECT DISTINCT layer, digest FROM layer_archive JOIN layer_blob USING (diff_id)";
        for (layer, digest) in rows(db, sql, |row| Ok((row.get(0)?, row.get(1)?)))? {
            if let Some(blob) = self.blobs.get(&Digest::from_bytes(digest)) {
                self.blobs_of.entry(layer).or_default().push(*blob);
            }
        }
        Ok(())
    }

    fn add_snapshots(&mut self, db: &Connection) -> Result<(), Failure> {
        let sql = "SELECT layers, flat FROM flattened";
        let flats: HashMap<Vec<u8>, i64> =
            rows(db, sql, |row| Ok((row.get(0)?, row.get(1)?)))?.into_iter().collect();
        let sql = "SELECT id, layers, last_used FROM snapshot";
        let mut used = Vec::new();
        for (id, packed, last_used) in
            rows(db, sql, |row| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?, row.get(2)?)))?
        {
            let mut pieces = Vec::new();
            for layer in unpack("snapshot", &packed)? {
                pieces.extend(self.blobs_of.get(&layer).into_iter().flatten());
                pieces.extend(self.needs_of.get(&layer).into_iter().flatten());
                pieces.extend(self.layers.get(&layer));
            }
            let is_part = |part: &&Vec<u8>| packed.starts_with(part);
            let flats = flats.keys().filter(is_part).map(|part| flats[part]).collect();
            self.state.snapshots.insert(id, SnapshotRow { pieces, flats, last_used });
            self.state.known.snapshot = self.state.known.snapshot.max(id);
            if self.is_in_use(last_used) {
                used.push(id);
            }
        }
        self.add_root("a running process".to_owned(), Keeper::Process, used, Vec::new());
        Ok(())
    }

    fn add_results(&mut self, db: &Connection) -> Result<(), Failure> {
        let sql = "SELECT id, outputs, description, is_source, created, last_used,
            (SELECT key FROM record WHERE record.result = result.id LIMIT 1) FROM result";
        for (entry, outputs) in rows(db, sql, |row| Ok((read_result(row)?, row.get::<_, Vec<u8>>(1)?)))? {
            let snapshots = unpack("result", &outputs)?;
            let pieces = self.pieces_of(&snapshots);
            let in_use = self.is_in_use(entry.last_used);
            self.state.known.result = self.state.known.result.max(entry.result.unwrap_or_default());
            self.state.entries.push(Entry { in_use, snapshots, pieces, ..entry });
        }
        Ok(())
    }

    fn add_images(&mut self, db: &Connection, images: &[ImageBlobs]) -> Result<(), Failure> {
        let mut snapshots: HashMap<[u8; 32], Vec<i64>> = HashMap::new();
        let sql = "SELECT target_digest, snapshot FROM image_snapshot JOIN image ON image = id";
        for (image, snapshot) in rows(db, sql, |row| Ok((row.get(0)?, row.get(1)?)))? {
            snapshots.entry(image).or_default().push(snapshot);
        }
        for image in images {
            let blobs = image.blobs.iter().filter_map(|digest| self.blobs.get(digest)).copied().collect();
            let entry =
                ImageEntry { id: image.id.clone(), names: image.names.clone(), created: image.created };
            let name = image.names.first().cloned().unwrap_or_else(|| format!("image {}", image.id));
            let snapshots = snapshots.remove(image.target.as_bytes()).unwrap_or_default();
            self.add_root(name, Keeper::Image(entry), snapshots, blobs);
        }
        Ok(())
    }

    fn add_containers(&mut self, db: &Connection) -> Result<(), Failure> {
        let sql = "SELECT name, snapshot FROM container WHERE snapshot IS NOT NULL";
        for (name, snapshot) in rows(db, sql, |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))? {
            self.add_root(format!("container {name}"), Keeper::Container, vec![snapshot], Vec::new());
        }
        Ok(())
    }

    fn add_mutables(&mut self, mutables: Vec<Mutable>) {
        for mutable in mutables {
            let entry = Entry {
                result: None,
                kind: match mutable.kind {
                    MutableKind::CacheMount => ItemKind::CacheMount,
                    MutableKind::GitMirror => ItemKind::GitMirror,
                },
                id: mutable.id(),
                description: mutable.name.clone(),
                created: stamp_of(mutable.created),
                last_used: mutable.stamp,
                in_use: self.is_in_use(mutable.stamp),
                snapshots: Vec::new(),
                pieces: Vec::new(),
            };
            let (size_bytes, last_used, in_use) = (mutable.size_bytes, mutable.stamp, entry.in_use);
            let piece = self.add_piece(Piece { what: What::Mutable(mutable), size_bytes, last_used, in_use });
            self.state.entries.push(Entry { pieces: vec![piece], ..entry });
        }
    }

    /// What nothing holds is an entry of its own.
    fn add_leftovers(&mut self) {
        let holders = self.state.holders();
        let is_unheld = |index: &usize| holders[*index] == 0;
        let mut with_layers: HashSet<PieceId> = HashSet::new();
        for (index, piece) in self.state.pieces.iter().enumerate().filter(|(index, _)| is_unheld(index)) {
            let mut pieces: Vec<PieceId> = PieceId::try_from(index).into_iter().collect();
            let (kind, id, description) = match &piece.what {
                What::Layer(id) => {
                    pieces.extend(self.needs_of.get(id).into_iter().flatten());
                    with_layers.extend(&pieces[1..]);
                    (ItemKind::Leftover, id.to_string(), "layer that nothing needs")
                }
                // Layers come first.
                What::Pack(_) if with_layers.contains(&pieces[0]) => continue,
                What::Pack(id) => (ItemKind::Leftover, id.to_string(), "contents that nothing needs"),
                What::Blob(blob) if self.downloads.contains(&blob.digest) => {
                    (ItemKind::Source, blob.digest.hex()[..12].to_owned(), "file of a web server")
                }
                What::Blob(blob) => {
                    (ItemKind::Leftover, blob.digest.hex()[..12].to_owned(), "blob that nothing needs")
                }
                What::Mutable(_) => continue,
            };
            self.state.entries.push(Entry {
                result: None,
                kind,
                id,
                description: description.to_owned(),
                created: piece.last_used,
                last_used: piece.last_used,
                in_use: piece.in_use,
                snapshots: Vec::new(),
                pieces,
            });
        }
    }

    fn add_root(&mut self, name: String, keeper: Keeper, snapshots: Vec<i64>, blobs: Vec<PieceId>) {
        let mut pieces = self.pieces_of(&snapshots);
        pieces.extend(blobs);
        pieces.sort_unstable();
        pieces.dedup();
        self.state.roots.push(Root { keeper, name, snapshots, pieces });
    }

    /// The pieces of snapshots, each once, and of what their mounts need.
    fn pieces_of(&self, snapshots: &[i64]) -> Vec<PieceId> {
        let rows = |ids: &[i64]| ids.iter().filter_map(|id| self.state.snapshots.get(id)).collect::<Vec<_>>();
        let own = rows(snapshots);
        let flats: Vec<i64> = own.iter().flat_map(|row| &row.flats).copied().collect();
        let mut pieces: Vec<PieceId> =
            own.into_iter().chain(rows(&flats)).flat_map(|row| &row.pieces).copied().collect();
        pieces.sort_unstable();
        pieces.dedup();
        pieces
    }
}

/// A result without what it holds.
fn read_result(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let key: Option<[u8; 32]> = row.get(6)?;
    let is_source: bool = row.get(3)?;
    Ok(Entry {
        result: Some(row.get(0)?),
        kind: if is_source { ItemKind::Source } else { ItemKind::Step },
        id: key.map(|key| Digest::from_bytes(key).hex()[..12].to_owned()).unwrap_or_default(),
        description: row.get(2)?,
        created: row.get(4)?,
        last_used: row.get(5)?,
        in_use: false,
        snapshots: Vec::new(),
        pieces: Vec::new(),
    })
}

fn rows<T>(
    db: &Connection,
    sql: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    db.prepare_cached(sql)?.query_map((), read)?.collect()
}
