//! A snapshot and a config → an image: the documents that describe it, and its names.
//!
//! No layer is written: its tar is only hashed, once ever, and described uncompressed. See [`Blob`](super::compress::Blob).

use std::collections::BTreeMap;

use rbuild_cache::{MtimeClamp, Snapshot};
use rbuild_image::{Descriptor, DiffId, History, ImageConfig, Manifest, MediaType, Reference, RootFs};

use super::compress::plain_descriptor;
use super::{ImageError, Images, StoredImage};

impl Images {
    /// Makes the documents of an image whose layers are those of `snapshot`, and stores them. It has no name yet.
    ///
    /// # Errors
    /// When a layer cannot be read or the store fails.
    pub fn assemble(
        &self,
        mut config: ImageConfig,
        snapshot: &Snapshot,
        options: &AssembleOptions,
    ) -> Result<StoredImage, ImageError> {
        let described = self.store.describe_layers(snapshot, options.clamp)?;
        let diff_ids = described.iter().map(|(diff_id, _)| *diff_id).collect();
        config.rootfs = RootFs { diff_ids, ..config.rootfs };
        let layers = described.into_iter().map(|(diff_id, size_bytes)| self.kept_blob(diff_id, size_bytes));
        let layers = layers.collect::<Result<_, _>>()?;
        let config_descriptor = self.keep_new(MediaType::OciConfig, &config.to_bytes())?;
        let annotations = options.annotations.clone();
        let manifest = Manifest { annotations, ..Manifest::new(config_descriptor, layers) };
        let mut target = self.keep_new(MediaType::OciManifest, &manifest.to_bytes())?;
        target.annotations.clone_from(&options.descriptor_annotations);
        Ok(StoredImage { target: target.clone(), manifest_descriptor: target, manifest, config })
    }

    /// Gives an image its names; without any it is kept as one that has none.
    ///
    /// # Errors
    /// When the store fails.
    pub fn name(
        &self,
        target: &Descriptor,
        snapshots: &[Snapshot],
        names: &[Reference],
    ) -> Result<(), ImageError> {
        let images = self.store.images();
        if names.is_empty() {
            images.put_unnamed(target, snapshots)?;
        }
        names.iter().try_for_each(|name| images.put(name, target, snapshots))?;
        Ok(())
    }

    /// Dates what a build added to the history, and with it the image: a layer by when it was made, an entry without one
    /// by the layer before it. So an image that is built again from the cache is the same image.
    ///
    /// # Errors
    /// When the store fails.
    pub fn date_history(&self, config: &mut ImageConfig, dating: &Dating<'_>) -> Result<(), ImageError> {
        let layers = self.store.layer_infos(dating.snapshot)?;
        let mut layers = layers.iter().rev().map(|layer| (dating.rfc3339)(layer.created));
        let own = config.history.get_mut(dating.inherited..).unwrap_or_default();
        for entry in own.iter_mut().rev().filter(|entry| !entry.empty_layer) {
            entry.created = layers.next();
        }
        let before = config.history.get(..dating.inherited).unwrap_or_default();
        let first = config.history[before.len()..].iter().find(|entry| !entry.empty_layer);
        let newest = |entries: &[History]| entries.iter().rev().find_map(|entry| entry.created.clone());
        let mut current = first.and_then(|entry| entry.created.clone()).or_else(|| newest(before));
        for entry in &mut config.history[dating.inherited..] {
            if entry.empty_layer {
                entry.created = current.clone().or_else(|| Some(dating.now.to_owned()));
            } else {
                current.clone_from(&entry.created);
            }
        }
        config.created = newest(&config.history).or_else(|| Some(dating.now.to_owned()));
        Ok(())
    }

    fn keep_new(&self, media_type: MediaType, bytes: &[u8]) -> Result<Descriptor, ImageError> {
        let descriptor = Descriptor::of(media_type, bytes);
        self.keep(&descriptor, bytes)?;
        Ok(descriptor)
    }

    /// The blob that a layer came as, if the store still has it; its plain tar otherwise.
    fn kept_blob(&self, diff_id: DiffId, size_bytes: u64) -> Result<Descriptor, ImageError> {
        for known in self.store.blobs_of(diff_id)? {
            if self.store.content().contains(known.digest)? {
                return Ok(known);
            }
        }
        Ok(plain_descriptor(diff_id, size_bytes))
    }
}

/// What an image says beside its config, and how its layers are dated.
#[derive(Debug, Clone, Default)]
pub struct AssembleOptions {
    /// Which layers are given no times later than one.
    pub clamp: Option<MtimeClamp>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// Annotations of whatever names the manifest: an index, or a layout's.
    pub descriptor_annotations: BTreeMap<String, String>,
}

/// What [`Images::date_history`] goes by.
#[derive(Debug, Clone, Copy)]
pub struct Dating<'a> {
    /// The result.
    pub snapshot: &'a Snapshot,
    /// How many entries of the history are the base image's.
    pub inherited: usize,
    /// The time of the build, RFC 3339, where nothing else is known.
    pub now: &'a str,
    /// Unix seconds as RFC 3339.
    pub rfc3339: fn(i64) -> String,
}
