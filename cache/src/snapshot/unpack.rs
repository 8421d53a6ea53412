//! Archives become layers.
//!
//! A layer is [unpacked](Store::unpack_layer) into a directory of its own, knowing nothing of what it will stand on, and then
//! [attached](Store::attach). So the layers of an image can be unpacked in parallel, and one that several images have is
//! unpacked once. Only a directory that the archive does not mention, but puts something into, has to look as it does
//! below; such a layer is completed when it is put in its place, and fits there alone.
//!
//! [`Store::apply_layer`] does both at once, with the layers below at hand, which a few archives need; what it makes on top
//! of other layers fits there alone.

use std::io::Read;
use std::path::PathBuf;

use rayon::ThreadPool;
use rbuild_image::{Descriptor, DiffId};

use super::layers::{Archive, base_bytes, find_layer};
use super::{ActiveSnapshot, LayerForm, Snapshot};
use crate::content_digest::{Blake3, KnownContents, digest_of_tree};
use crate::layer::{self, Applied, ApplyOptions};
use crate::root_dir::RootDir;
use crate::{Error, Result, Store};

/// An archive that has been unpacked and verified, and has no place yet. Dropped without
/// [`Store::attach`], it is discarded.
#[derive(Debug)]
pub struct UnpackedLayer {
    active: ActiveSnapshot,
    diff_id: DiffId,
    tar_size_bytes: u64,
    /// Directories that the archive does not mention.
    implied: Vec<PathBuf>,
    /// When it was made, Unix seconds, where that was not now.
    created: Option<i64>,
}

impl UnpackedLayer {
    /// The digest of the archive.
    pub const fn diff_id(&self) -> DiffId {
        self.diff_id
    }

    /// The same, made at a time in Unix seconds, if there is one.
    #[must_use]
    pub fn made_at(self, created: Option<i64>) -> Self {
        Self { created, ..self }
    }

    /// The digest of what is in it; `None` if it is not known.
    pub(super) fn content_digest(&mut self, store: &Store, pool: &ThreadPool) -> Result<Option<Blake3>> {
        match self.active.planted() {
            Some(tree) => Ok(digest_of_tree(tree, &KnownContents::new())),
            None => store.digest_directory(self.active.upper(), pool).map(Some),
        }
    }
}

impl Store {
    /// Unpacks an uncompressed archive, and verifies on the way that it is what the image config names.
    ///
    /// # Errors
    /// When it is malformed or another one, or the disk is full. Nothing is kept then. Also when the archive links to files of
    /// layers below ([`Error::needs_layers_below`]): such a layer has to be [applied](Store::apply_layer) in its place.
    pub fn unpack_layer(
        &self,
        expected: Option<DiffId>,
        tar: &mut (dyn Read + Send),
    ) -> Result<UnpackedLayer> {
        let mut active = self.prepare(&Snapshot::empty())?;
        if !self.unpacks_to_trees() {
            return self.unpack(active, &[], expected, tar);
        }
        let applied = active.read_archive(tar, &self.apply_options(&[]))?.map(|(tree, applied)| {
            active.plant(tree);
            applied
        });
        unpacked(active, expected, applied)
    }

    /// Whether archives become trees. Only where all layers are to: processes have a base image's directories in memory together, its tree each
    /// for itself.
    fn unpacks_to_trees(&self) -> bool {
        self.layer_form() == LayerForm::Tree && self.tree_support().is_ok()
    }

    fn apply_options<'a>(&self, lowers: &'a [RootDir]) -> ApplyOptions<'a> {
        ApplyOptions { lowers, owners: self.0.options.owners, ..ApplyOptions::layer(self.xattrs()) }
    }

    /// Puts an unpacked layer on top of `parent`. When a layer that is there already does as well, that one is taken.
    ///
    /// # Errors
    /// When the parent has been pruned, or the metadata cannot be written.
    pub fn attach(
        &self,
        parent: &Snapshot,
        mut unpacked: UnpackedLayer,
        blob: Option<&Descriptor>,
    ) -> Result<Snapshot> {
        let base = if unpacked.implied.is_empty() { None } else { Some(base_bytes(self.chain_id(parent)?)) };
        if let Some(known) = self.extend(parent, unpacked.diff_id, base)? {
            self.record_blobs(unpacked.diff_id, blob)?;
            return Ok(known);
        }
        if !unpacked.implied.is_empty() && !parent.layers.is_empty() {
            self.complete_implied(&mut unpacked, parent)?;
        }
        unpacked.active.stand_on(parent);
        self.commit_unpacked(unpacked, base, blob)
    }

    /// Unpacks an archive on top of `parent`. Reads nothing of it when the layer is there.
    ///
    /// # Errors
    /// When the archive is malformed or not the expected one, the parent has been pruned, or the disk is full.
    pub fn apply_layer(
        &self,
        parent: &Snapshot,
        expected: Option<DiffId>,
        blob: Option<&Descriptor>,
        tar: &mut (dyn Read + Send),
    ) -> Result<Snapshot> {
        let base = base_bytes(self.chain_id(parent)?);
        if let Some(diff_id) = expected
            && let Some(known) = self.extend(parent, diff_id, Some(base))?
        {
            self.record_blobs(diff_id, blob)?;
            return Ok(known);
        }
        if parent.layers.is_empty() {
            return self.attach(parent, self.unpack_layer(expected, tar)?, blob);
        }
        let lowers = self.open_stack(parent)?;
        let unpacked = self.unpack(self.prepare(parent)?, &lowers, expected, tar)?;
        self.commit_unpacked(unpacked, Some(base), blob)
    }

    fn unpack(
        &self,
        active: ActiveSnapshot,
        lowers: &[RootDir],
        expected: Option<DiffId>,
        tar: &mut (dyn Read + Send),
    ) -> Result<UnpackedLayer> {
        let applied = layer::apply(tar, &RootDir::open(active.upper())?, &self.apply_options(lowers));
        unpacked(active, expected, applied)
    }

    fn commit_unpacked(
        &self,
        unpacked: UnpackedLayer,
        base: Option<[u8; 32]>,
        blob: Option<&Descriptor>,
    ) -> Result<Snapshot> {
        let archive = Archive {
            diff_id: unpacked.diff_id,
            size_bytes: unpacked.tar_size_bytes,
            base,
            mtime_max: None,
            made: false,
            begins: None,
            continues: false,
            entries: None,
        };
        let snapshot = unpacked.active.commit_as(Some(&archive), unpacked.created, None)?;
        self.record_blobs(unpacked.diff_id, blob)?;
        Ok(snapshot)
    }

    fn record_blobs(&self, diff_id: DiffId, blob: Option<&Descriptor>) -> Result<()> {
        blob.map_or(Ok(()), |blob| self.record_blob(diff_id, blob))
    }

    /// The snapshot of `parent` and a known layer on top; `None` when the store has none that fits.
    fn extend(&self, parent: &Snapshot, diff_id: DiffId, base: Option<[u8; 32]>) -> Result<Option<Snapshot>> {
        let found = self.0.db.read("look up a layer", |db| find_layer(db, &[diff_id], base))?;
        let Some((layer, _)) = found else { return Ok(None) };
        let mut layers = parent.layers.to_vec();
        layers.push(layer);
        match self.stack(&layers) {
            // Pruned in between.
            Err(Error::LayerMissing(missing)) if missing == layer => Ok(None),
            stacked => stacked.map(Some),
        }
    }

    /// Gives the directories that the archive does not mention the attributes that they have below.
    fn complete_implied(&self, unpacked: &mut UnpackedLayer, parent: &Snapshot) -> Result<()> {
        let below = RootDir::from_fd(self.view(parent)?.into());
        let UnpackedLayer { active, implied, diff_id, .. } = unpacked;
        let completed = match active.planted() {
            Some(tree) => implied.iter().try_for_each(|path| Ok(tree.complete(path, &below)?)),
            None => layer::copy_directory_attributes(&below, &RootDir::open(active.upper())?, implied),
        };
        completed.map_err(|source| Error::Unpack { diff_id: Some(*diff_id), source })
    }
}

/// What came of unpacking an archive, if it is the expected one.
fn unpacked(
    active: ActiveSnapshot,
    expected: Option<DiffId>,
    applied: Result<Applied, layer::Error>,
) -> Result<UnpackedLayer> {
    let applied = applied.map_err(|source| Error::Unpack { diff_id: expected, source })?;
    let Applied { diff_id, size_bytes: tar_size_bytes, implied, .. } = applied;
    match expected {
        Some(expected) if expected != diff_id => Err(Error::DiffIdMismatch { expected, found: diff_id }),
        _ => Ok(UnpackedLayer { active, diff_id, tar_size_bytes, implied, created: None }),
    }
}
