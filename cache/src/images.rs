//! Images: a manifest or an index in the content store, the names that lead to it, and the snapshots that it unpacks to.
//!
//! A name leads to one image; an image may have many names, or none after its name was given to another (Docker's
//! `<none>`). Images are roots: what they need is kept.

use std::collections::BTreeMap;

use rbuild_image::{
    Descriptor, Digest, Index, MANIFEST_SIZE_BYTES_MAX, Manifest, ManifestError, Platform, Reference,
};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use crate::db::Failure;
use crate::prune::ledger;
use crate::snapshot::find_snapshot;
use crate::{Error, Result, Snapshot, SnapshotId, Store, Subject};

/// An image of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRecord {
    /// The names that lead to it, sorted. Empty for one that lost its name.
    pub names: Vec<Reference>,
    /// Its manifest, or an index of manifests.
    pub target: Descriptor,
    /// The digest of its config, Docker's image id; of an index, that of its image for this machine.
    pub config: Option<Digest>,
    /// The trees that it unpacks to, as far as it was unpacked: one, or one for each platform.
    pub snapshots: Vec<Snapshot>,
    /// What its names lead to at their registries, of those that it was pushed to: layers are compressed as they leave, so that it is
    /// another manifest there.
    pub pushed: BTreeMap<Reference, Digest>,
    /// When it came into the store, Unix seconds.
    pub created: i64,
}

impl ImageRecord {
    /// The digest by which the registry of one of its names knows it, as far as anybody can tell.
    pub fn digest_at(&self, name: &Reference) -> Digest {
        self.pushed.get(name).copied().unwrap_or(self.target.digest)
    }

    /// What people know it by: the digest of its config.
    pub fn id(&self) -> Digest {
        self.config.unwrap_or(self.target.digest)
    }
}

/// The images of a store.
#[derive(Debug, Clone, Copy)]
pub struct Images<'a>(pub(crate) &'a Store);

struct ImageRow {
    id: i64,
    target: String,
    config: Option<[u8; 32]>,
    created: i64,
}

const COLUMNS: &str = "id, target, config_digest, created";

impl Images<'_> {
    /// Gives a name to an image, taking it from the one that had it. Snapshots that are known of it stay; what has the same config and
    /// no name left goes, as it is the same image in another form.
    ///
    /// # Errors
    /// When it cannot be written, or the manifest is there but is none.
    pub fn put(&self, name: &Reference, target: &Descriptor, snapshots: &[Snapshot]) -> Result<()> {
        self.insert(Some(name), target, snapshots)
    }

    /// Keeps an image without a name.
    ///
    /// # Errors
    /// When it cannot be written, or the manifest is there but is none.
    pub fn put_unnamed(&self, target: &Descriptor, snapshots: &[Snapshot]) -> Result<()> {
        self.insert(None, target, snapshots)
    }

    /// The image that a name leads to.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn get(&self, name: &Reference) -> Result<Option<ImageRecord>> {
        let sql =
            format!("SELECT {COLUMNS} FROM image WHERE id = (SELECT image FROM image_name WHERE name = ?1)");
        self.0.0.db.read("look up an image", |db| {
            let row = db.prepare_cached(&sql)?.query_row([name.to_string()], read_row).optional()?;
            row.map(|row| complete(db, row)).transpose()
        })
    }

    /// Notes that the image of this manifest is at the registry of one of its names, and what its manifest is there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn note_pushed(&self, name: &Reference, target: Digest, pushed: Digest) -> Result<()> {
        self.0.0.db.write("note where an image was pushed", |db| {
            let sql = "UPDATE image_name SET pushed = ?3
                WHERE name = ?1 AND image = (SELECT id FROM image WHERE target_digest = ?2)";
            db.execute(sql, params![name.to_string(), target.as_bytes(), pushed.as_bytes()])?;
            Ok(())
        })
    }

    /// Every image, newest first.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn list(&self) -> Result<Vec<ImageRecord>> {
        let sql = format!("SELECT {COLUMNS} FROM image ORDER BY created DESC, id DESC");
        self.0.0.db.read("list the images", |db| {
            let mut statement = db.prepare_cached(&sql)?;
            let rows = statement.query_map((), read_row)?.collect::<Result<Vec<_>, _>>()?;
            rows.into_iter().map(|row| complete(db, row)).collect()
        })
    }

    /// The images whose config or manifest digest begins with these hex digits, with or without `sha256:`.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn by_id_prefix(&self, prefix: &str) -> Result<Vec<ImageRecord>> {
        let prefix = prefix.strip_prefix("sha256:").unwrap_or(prefix);
        if prefix.is_empty() {
            return Ok(Vec::new());
        }
        let mut images = self.list()?;
        images.retain(|image| {
            [Some(image.target.digest), image.config]
                .into_iter()
                .flatten()
                .any(|digest| digest.hex().starts_with(prefix))
        });
        Ok(images)
    }

    /// Takes a name away. The image stays, without a name if that was its last. Returns whether the name was there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn untag(&self, name: &Reference) -> Result<bool> {
        let image = self.get(name)?;
        let removed = self.0.0.db.write("remove an image's name", |db| remove_name(db, name))?;
        self.note("untag", image.as_ref(), Some(name));
        Ok(removed)
    }

    /// Takes a name away, and the image with its last name. Returns whether the name was there.
    ///
    /// What only this image needed is then free to be [pruned](Store::prune).
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn remove(&self, name: &Reference) -> Result<bool> {
        let before = self.get(name)?;
        let (removed, deleted) = self.0.0.db.write("remove an image", |db| {
            let Some(image) = image_of(db, name)? else { return Ok((false, false)) };
            remove_name(db, name)?;
            let sql =
                "DELETE FROM image WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM image_name WHERE image = ?1)";
            let deleted = db.execute(sql, [image])? > 0;
            if deleted {
                ledger::void(db)?;
            }
            Ok((true, deleted))
        })?;
        self.note("untag", before.as_ref(), Some(name));
        self.note("delete", before.as_ref().filter(|_| deleted), None);
        Ok(removed)
    }

    /// Removes an image with all its names. Returns whether it was there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn remove_target(&self, target: Digest) -> Result<bool> {
        let sql = format!("SELECT {COLUMNS} FROM image WHERE target_digest = ?1");
        let before = self.0.0.db.write("remove an image", |db| {
            ledger::void(db)?;
            let row = db.prepare_cached(&sql)?.query_row([target.as_bytes()], read_row).optional()?;
            let before = row.map(|row| complete(db, row)).transpose()?;
            db.execute("DELETE FROM image WHERE target_digest = ?1", [target.as_bytes()])?;
            Ok(before)
        })?;
        before.iter().flat_map(|image| &image.names).for_each(|name| {
            self.note("untag", before.as_ref(), Some(name));
        });
        self.note("delete", before.as_ref(), None);
        Ok(before.is_some())
    }

    /// Notes what happened to an image, if there was one.
    fn note(&self, action: &str, image: Option<&ImageRecord>, name: Option<&Reference>) {
        let Some(image) = image else { return };
        let id = image.id().to_string();
        let name = name.map_or_else(|| id.clone(), Reference::familiar);
        self.0.note(Subject::Image, action, &id, [("name", name)]);
    }

    fn insert(&self, name: Option<&Reference>, target: &Descriptor, snapshots: &[Snapshot]) -> Result<()> {
        let config = self.config_of(target)?;
        let json = serde_json::to_string(target).expect("a descriptor has no map with non-string keys");
        let created = self.0.now_seconds();
        self.0.0.db.write("name an image", |db| {
            let sql = "INSERT INTO image (target_digest, target, config_digest, created)
                VALUES (?1, ?2, ?3, ?4) ON CONFLICT (target_digest) DO UPDATE SET target = excluded.target,
                config_digest = coalesce(excluded.config_digest, config_digest) RETURNING id";
            let config = config.as_ref().map(Digest::as_bytes);
            let row = params![target.digest.as_bytes(), json, config, created];
            let image: i64 = db.query_row(sql, row, |row| row.get(0))?;
            let sql = "INSERT OR IGNORE INTO image_snapshot (image, snapshot) VALUES (?1, ?2)";
            for id in snapshots.iter().filter_map(|snapshot| snapshot.id) {
                db.prepare_cached(sql)?.execute((image, id.0))?;
            }
            if let Some(name) = name {
                let sql =
                    "INSERT INTO image_name (name, image) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET
                    pushed = CASE image WHEN excluded.image THEN pushed END, image = excluded.image";
                db.execute(sql, params![name.to_string(), image])?;
                remove_other_forms(db, image)?;
            }
            Ok(())
        })?;
        let id = config.unwrap_or(target.digest).to_string();
        if let Some(name) = name {
            self.0.note(Subject::Image, "tag", &id, [("name", name.familiar())]);
        }
        Ok(())
    }

    /// The config that people know an image by: of an index, that of the image for this machine, or of the first that is here.
    fn config_of(&self, target: &Descriptor) -> Result<Option<Digest>> {
        if target.media_type.is_manifest() {
            return Ok(self.document(target, Manifest::parse)?.map(|manifest| manifest.config.digest));
        }
        if !target.media_type.is_index() {
            return Ok(None);
        }
        let Some(index) = self.document(target, Index::parse)? else { return Ok(None) };
        for entry in index.select(&Platform::host()).into_iter().chain(index.images()) {
            if let Some(manifest) = self.document(entry, Manifest::parse)? {
                return Ok(Some(manifest.config.digest));
            }
        }
        Ok(None)
    }

    fn document<T>(
        &self,
        descriptor: &Descriptor,
        parse: fn(&[u8]) -> Result<T, ManifestError>,
    ) -> Result<Option<T>> {
        let digest = descriptor.digest;
        let bytes = self.0.content().read(digest, MANIFEST_SIZE_BYTES_MAX)?;
        bytes.map(|bytes| parse(&bytes)).transpose().map_err(|source| Error::Document { digest, source })
    }
}

/// Removes what has the config of an image that has a name, and none itself: the same layers, compressed in another way.
fn remove_other_forms(db: &Transaction<'_>, image: i64) -> Result<(), Failure> {
    let sql =
        "DELETE FROM image WHERE id <> ?1 AND config_digest = (SELECT config_digest FROM image WHERE id = ?1)
        AND NOT EXISTS (SELECT 1 FROM image_name WHERE image = image.id)";
    if db.execute(sql, [image])? > 0 {
        ledger::void(db)?;
    }
    Ok(())
}

fn complete(db: &Connection, row: ImageRow) -> Result<ImageRecord, Failure> {
    let damaged = |found| Error::Damaged { table: "image", found };
    let target = serde_json::from_str(&row.target).map_err(|error| damaged(error.to_string()))?;
    let config = row.config.map(Digest::from_bytes);
    let (names, snapshots) = (names_of(db, row.id)?, snapshots_of(db, row.id)?);
    let pushed = names.iter().filter_map(|(name, pushed)| Some((name.clone(), (*pushed)?))).collect();
    let names = names.into_iter().map(|(name, _)| name).collect();
    Ok(ImageRecord { names, target, config, snapshots, pushed, created: row.created })
}

fn snapshots_of(db: &Connection, image: i64) -> Result<Vec<Snapshot>, Failure> {
    let sql = "SELECT snapshot FROM image_snapshot WHERE image = ?1 ORDER BY snapshot";
    let mut statement = db.prepare_cached(sql)?;
    let ids = statement.query_map([image], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
    ids.into_iter().filter_map(|id| find_snapshot(db, SnapshotId(id)).transpose()).collect()
}

/// The names of an image, and what each leads to at its registry, where that is known.
fn names_of(db: &Connection, image: i64) -> Result<Vec<(Reference, Option<Digest>)>, Failure> {
    let sql = "SELECT name, pushed FROM image_name WHERE image = ?1 ORDER BY name";
    let mut statement = db.prepare_cached(sql)?;
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, Option<[u8; 32]>>(1)?.map(Digest::from_bytes)));
    let names = statement.query_map([image], read)?.collect::<Result<Vec<(String, _)>, _>>()?;
    let damaged = |name| Error::Damaged { table: "image_name", found: name };
    let parse = |(name, pushed): (String, _)| match name.parse() {
        Ok(reference) => Ok((reference, pushed)),
        Err(_) => Err(damaged(name)),
    };
    Ok(names.into_iter().map(parse).collect::<Result<_>>()?)
}

/// Calls `visit` with every blob that a manifest or an index needs, as far as its documents are there: itself, its
/// manifests, configs and layers.
pub(crate) fn visit_blobs(
    store: &Store,
    target: &Descriptor,
    visit: &mut dyn FnMut(&Descriptor),
) -> Result<()> {
    visit(target);
    let (index, manifest) = (target.media_type.is_index(), target.media_type.is_manifest());
    if !index && !manifest {
        return Ok(());
    }
    let Some(bytes) = store.content().read(target.digest, MANIFEST_SIZE_BYTES_MAX)? else { return Ok(()) };
    let damaged = |source| Error::Document { digest: target.digest, source };
    if index {
        let index = Index::parse(&bytes).map_err(damaged)?;
        // An index inside an index is allowed; a digest cannot contain itself, so this ends.
        return index.manifests.iter().try_for_each(|manifest| visit_blobs(store, manifest, visit));
    }
    let manifest = Manifest::parse(&bytes).map_err(damaged)?;
    visit(&manifest.config);
    manifest.layers.iter().for_each(visit);
    Ok(())
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<ImageRow> {
    Ok(ImageRow { id: row.get(0)?, target: row.get(1)?, config: row.get(2)?, created: row.get(3)? })
}

fn image_of(db: &Connection, name: &Reference) -> rusqlite::Result<Option<i64>> {
    db.query_row("SELECT image FROM image_name WHERE name = ?1", [name.to_string()], |row| row.get(0))
        .optional()
}

fn remove_name(db: &Transaction<'_>, name: &Reference) -> Result<bool, Failure> {
    Ok(db.execute("DELETE FROM image_name WHERE name = ?1", [name.to_string()])? > 0)
}

#[cfg(test)]
pub(crate) mod tests;
