//! A snapshot and a config → an image: the documents that describe it, and its names.
//!
//! No layer is written: its tar is only hashed, once ever, and described uncompressed. See [`Blob`](super::compress::Blob).

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::thread;

use rbuild_cache::{LayerTar, MtimeClamp, Snapshot};
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
        let infos = self.store.layer_infos(snapshot)?;
        let described = |tar: LayerTar| {
            let LayerTar { layer, diff_id, size_bytes, continues } = tar;
            let descriptor = self.kept_blob(diff_id, size_bytes)?;
            Ok(DescribedLayer { diff_id, descriptor, created: infos[layer].created, continues })
        };
        self.store.describe_layers(snapshot, clamp)?.into_iter().map(described).collect()
    }

    /// Makes the documents of an image of these layers, bottom first, and stores them. It has no name yet. A step that left several has as
    /// many entries in the history.
    ///
    /// # Errors
    /// When the store fails.
    pub fn assemble(
        &self,
        mut config: ImageConfig,
        layers: &[DescribedLayer],
        options: &AssembleOptions,
    ) -> Result<StoredImage, ImageError> {
        repeat_entries(&mut config.history, layers);
        let diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
        config.rootfs = RootFs { diff_ids, ..config.rootfs };
        let layers = layers.iter().map(|layer| layer.descriptor.clone()).collect();
        let config_bytes = config.to_bytes();
        let config_descriptor = Descriptor::of(MediaType::OciConfig, &config_bytes);
        let annotations = options.annotations.clone();
        let manifest = Manifest { annotations, ..Manifest::new(config_descriptor.clone(), layers) }.in_oci();
        // Each waits for the disk, which takes as long for both.
        let mut target = thread::scope(|scope| {
            let config = scope.spawn(|| self.keep(&config_descriptor, &config_bytes));
            let target = self.keep_new(MediaType::OciManifest, &manifest.to_bytes());
            config.join().unwrap_or_else(|panic| resume_unwind(panic))?;
            target
        })?;
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
        repeat_entries(&mut config.history, layers);
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
    /// Whether the step that made it has made the one below it, too.
    pub continues: bool,
}

impl From<&SharedLayer> for DescribedLayer {
    fn from(layer: &SharedLayer) -> Self {
        Self {
            diff_id: layer.diff_id,
            descriptor: layer.blob.clone(),
            created: layer.created,
            continues: layer.continues,
        }
    }
}

/// Repeats the entries of steps that left several layers, so that there is one for each. Those of a base image are complete: what is
/// missing is so at the end.
fn repeat_entries(history: &mut Vec<History>, layers: &[DescribedLayer]) {
    let mut missing = layers.len().saturating_sub(history.iter().filter(|entry| !entry.empty_layer).count());
    let mut layers = layers.iter().rev();
    for at in (0..history.len()).rev() {
        if missing == 0 {
            return;
        }
        if history[at].empty_layer {
            continue;
        }
        let others = layers.by_ref().take_while(|layer| layer.continues).count().min(missing);
        missing -= others;
        let entry = history[at].clone();
        history.splice(at..at, std::iter::repeat_n(entry, others));
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

#[cfg(test)]
mod tests {
    use rbuild_image::Digest;

    use super::*;

    fn layers(continues: &[bool]) -> Vec<DescribedLayer> {
        let layer = |continues: &bool| {
            let diff_id = DiffId(Digest::of("x"));
            DescribedLayer {
                diff_id,
                descriptor: plain_descriptor(diff_id, 1),
                created: 0,
                continues: *continues,
            }
        };
        continues.iter().map(layer).collect()
    }

    fn history(text: &str) -> Vec<History> {
        let entry = |name: char| History {
            created_by: Some(name.to_string()),
            empty_layer: name.is_ascii_lowercase(),
            ..History::default()
        };
        text.chars().map(entry).collect()
    }

    #[test]
    fn each_layer_has_an_entry_of_the_step_that_made_it() {
        let (yes, no) = (true, false);
        for (before, continues, after) in [
            ("AB", &[no, no][..], "AB"),
            ("aAbBc", &[no, no], "aAbBc"),
            ("A", &[no, yes, yes], "AAA"),
            ("aAbBcCd", &[no, no, yes, no], "aAbBBcCd"),
            ("aAbBcCd", &[no, yes, no, no, yes, yes], "aAAbBcCCCd"),
            // The base image's own are there.
            ("AAAeB", &[no, yes, yes, no, yes], "AAAeBB"),
            ("AAA", &[no, yes, yes], "AAA"),
        ] {
            let mut found = history(before);
            repeat_entries(&mut found, &layers(continues));
            let found: String = found.iter().filter_map(|entry| entry.created_by.clone()).collect();
            assert_eq!(found, after, "{before} {continues:?}");
        }
    }
}
