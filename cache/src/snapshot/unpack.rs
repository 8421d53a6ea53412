//! Archives become layers.
//!
//! A layer is unpacked into a directory of its own, knowing nothing of what it will stand on. So the layers of an image can be
//! unpacked in parallel, and one that several images have is unpacked once. Only a directory that the archive does not
//! mention, but puts something into, has to look as it does below; such a layer is completed when it is put in its place,
//! and fits there alone.

use std::io::Read;
use std::path::PathBuf;

use rbuild_image::{Descriptor, DiffId};

use super::active::LayerRow;
use super::layers::{base_bytes, find_layer};
use super::{ActiveSnapshot, Snapshot};
use crate::layer;
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
}

impl UnpackedLayer {
    /// The digest of the archive.
    pub const fn diff_id(&self) -> DiffId {
        self.diff_id
    }
}

impl Store {
    /// Unpacks an uncompressed archive, and verifies on the way that it is what the image config names.
    ///
    /// # Errors
    /// When it is malformed or another one, or the disk is full. Nothing is kept then.
    pub fn unpack_layer(&self, expected: Option<DiffId>, tar: &mut (dyn Read + Send)) -> Result<UnpackedLayer> {
        let active = self.prepare(&Snapshot::empty())?;
        let options = layer::ApplyOptions::layer(self.xattrs());
        let applied = layer::apply(tar, &RootDir::open(active.upper())?, &options)
            .map_err(|source| Error::Unpack { diff_id: expected, source })?;
        let layer::Applied { diff_id, size_bytes: tar_size_bytes, implied, .. } = applied;
        match expected {
            Some(expected) if expected != diff_id => Err(Error::DiffIdMismatch { expected, found: diff_id }),
            _ => Ok(UnpackedLayer { active, diff_id, tar_size_bytes, implied }),
        }
    }

    /// Puts an unpacked layer on top of `parent`. When a layer that is there already does as well, that one is taken.
    ///
    /// # Errors
    /// When the parent has been pruned, or the metadata cannot be written.
    pub fn attach(
        &self,
        parent: &Snapshot,
        unpacked: UnpackedLayer,
        blob: Option<&Descriptor>,
    ) -> Result<Snapshot> {
        let UnpackedLayer { mut active, diff_id, tar_size_bytes, implied } = unpacked;
        if let Some(blob) = blob {
            self.record_blob(diff_id, blob)?;
        }
        let base = if implied.is_empty() { None } else { Some(base_bytes(self.chain_id(parent)?)) };
        if let Some(known) = self.extend(parent, diff_id, base)? {
            return Ok(known);
        }
        if !implied.is_empty() && !parent.layers.is_empty() {
            self.complete_implied(&active, parent, &implied)?;
        }
        active.stand_on(parent);
        active.commit_as(&LayerRow {
            diff_id: Some(*diff_id.0.as_bytes()),
            base,
            tar_size_bytes: Some(tar_size_bytes),
            mtime_max: None,
        })
    }

    /// Unpacks an archive on top of `parent`. Reads nothing of it when the layer is there.
    ///
    /// # Errors
    /// As for [`Store::unpack_layer`] and [`Store::attach`].
    pub fn apply_layer(
        &self,
        parent: &Snapshot,
        diff_id: Option<DiffId>,
        blob: Option<&Descriptor>,
        tar: &mut (dyn Read + Send),
    ) -> Result<Snapshot> {
        if let Some(diff_id) = diff_id
            && let Some(known) = self.extend(parent, diff_id, None)?
        {
            return Ok(known);
        }
        let unpacked = self.unpack_layer(diff_id, tar)?;
        self.attach(parent, unpacked, blob)
    }

    /// The snapshot of `parent` and a known layer on top; `None` when the store has none that fits.
    fn extend(&self, parent: &Snapshot, diff_id: DiffId, base: Option<[u8; 32]>) -> Result<Option<Snapshot>> {
        let found = self.0.db.read("look up a layer", |db| Ok(find_layer(db, diff_id, base)?))?;
        let Some(layer) = found else { return Ok(None) };
        let mut layers = parent.layers.to_vec();
        layers.push(layer);
        match self.stack(&layers) {
            // Pruned in between.
            Err(Error::LayerMissing(missing)) if missing == layer => Ok(None),
            stacked => stacked.map(Some),
        }
    }

    /// Gives the directories that the archive does not mention the attributes that they have below.
    fn complete_implied(
        &self,
        active: &ActiveSnapshot,
        parent: &Snapshot,
        implied: &[PathBuf],
    ) -> Result<()> {
        let below = RootDir::from_fd(self.view(parent)?.into());
        let layer = RootDir::open(active.upper())?;
        layer::copy_directory_attributes(&below, &layer, implied)
            .map_err(|source| Error::Unpack { diff_id: None, source })
    }
}
