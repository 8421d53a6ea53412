//! A snapshot and a config → an image: the documents that describe it, and its names.
//!
//! No layer is written: its tar is only hashed, once ever, and described uncompressed. See [`Blob`](super::compress::Blob).

use std::collections::BTreeMap;

use rbuild_cache::{MtimeClamp, Snapshot};
use rbuild_image::{Descriptor, DiffId, History, ImageConfig, Manifest, MediaType, Reference, RootFs};

use super::compress::plain_descriptor;
use super::{ImageError, Images, StoredImage};
use crate::shared::{SharedLayer, Tree};

impl Images {
    /// The layers of a tree as an image has them, bottom first. With a clamp, those that a build added are given no times later
    /// than one; a tree that is elsewhere has to be fetched for that.
    ///
    /// # Errors
    /// When a layer cannot be read or the store fails.
    pub fn describe(
        &self,
        tree: &Tree,
        clamp: Option<MtimeClamp>,
    ) -> Result<Vec<DescribedLayer>, ImageError> {
        let snapshot = match tree {
            Tree::Here(snapshot) => snapshot,
            Tree::Elsewhere(tree) => return Ok(tree.layers().iter().map(DescribedLayer::from).collect()),
        };
        let created = self.store.layer_infos(snapshot)?.into_iter().map(|layer| layer.created);
        let described = self.store.describe_layers(snapshot, clamp)?;
        let layer = |((diff_id, size_bytes), created)| {
            let descriptor = self.kept_blob(diff_id, size_bytes)?;
            Ok(DescribedLayer { diff_id, descriptor, created })
        };
        described.into_iter().zip(created).map(layer).collect()
    }

    /// Makes the documents of an image of these layers, bottom first, and stores them. It has no name yet.
    ///
    /// # Errors
    /// When the store fails.
    pub fn assemble(
        &self,
        mut config: ImageConfig,
        layers: &[DescribedLayer],
        options: &AssembleOptions,
    ) -> Result<StoredImage, ImageError> {
        let diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
        config.rootfs = RootFs { diff_ids, ..config.rootfs };
        let layers = layers.iter().map(|layer| layer.descriptor.clone()).collect();
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
    pub fn date_history(config: &mut ImageConfig, dating: &Dating<'_>) {
        let layers = dating.layers;
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
    }

    /// Stores a document that was made here.
    pub(super) fn keep_new(&self, media_type: MediaType, bytes: &[u8]) -> Result<Descriptor, ImageError> {
        let descriptor = Descriptor::of(media_type, bytes);
        self.keep(&descriptor, bytes)?;
        Ok(descriptor)
    }

    /// The blob that a layer came as, if the store still has it; its plain tar otherwise.
    pub(super) fn kept_blob(&self, diff_id: DiffId, size_bytes: u64) -> Result<Descriptor, ImageError> {
        for known in self.store.blobs_of(diff_id)? {
            if self.store.content().contains(known.digest)? {
                return Ok(known);
            }
        }
        Ok(plain_descriptor(diff_id, size_bytes))
    }
}

/// A layer as an image has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedLayer {
    /// What it unpacks to.
    pub diff_id: DiffId,
    /// The form it is in.
    pub descriptor: Descriptor,
    /// When it was made, Unix seconds.
    pub created: i64,
}

impl From<&SharedLayer> for DescribedLayer {
    fn from(layer: &SharedLayer) -> Self {
        Self { diff_id: layer.diff_id, descriptor: layer.blob.clone(), created: layer.created }
    }
}

/// What an image says beside its config.
#[derive(Debug, Clone, Default)]
pub struct AssembleOptions {
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// Annotations of whatever names the manifest: an index, or a layout's.
    pub descriptor_annotations: BTreeMap<String, String>,
}

/// What [`Images::date_history`] goes by.
#[derive(Debug, Clone, Copy)]
pub struct Dating<'a> {
    /// The layers of the result, bottom first.
    pub layers: &'a [DescribedLayer],
    /// How many entries of the history are the base image's.
    pub inherited: usize,
    /// The time of the build, RFC 3339, where nothing else is known.
    pub now: &'a str,
    /// Unix seconds as RFC 3339.
    pub rfc3339: fn(i64) -> String,
}
