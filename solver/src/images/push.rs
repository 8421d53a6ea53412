//! From the store to a registry: blobs that it lacks, side by side, then the manifest.
//!
//! What a layer is compressed to is known once it is through, so its descriptor, and with it the manifest, is made afterwards.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::sync::atomic::AtomicBool;

use rbuild_image::{Descriptor, Digest, Manifest, MediaType, Platform, Reference};
use rbuild_registry::{BlobUpload, RemoteStore};

use super::attest::Attestation;
use super::compress::{Blob, Leaving, LeavingLayer};
use super::parallel::in_parallel;
use super::produced::produced;
use super::{CompressionConfig, ImageError, Images, StoredImage, Target, Transfer, Watch};

/// How many blobs are sent at once.
const PUSHES_MAX: usize = 4;

impl Images {
    /// Sends an image of the store under its name: for all its platforms if all are here, for `platform` otherwise.
    ///
    /// # Errors
    /// When the image is not in the store, or the registry refuses it.
    pub fn push(
        &self,
        reference: &Reference,
        platform: &Platform,
        config: &CompressionConfig,
        watch: Watch<'_>,
    ) -> Result<Digest, ImageError> {
        let not_found = || ImageError::NotFound { name: reference.familiar() };
        let record = self.store.images().get(reference)?.ok_or_else(not_found)?;
        let target = self.open_target(&record.target, platform)?;
        let pushed = self.push_target(reference, &target, config, watch)?.descriptor.digest;
        if target.descriptor.digest != record.target.digest {
            // Of an index of which not all is here, only a part was sent.
            self.store.images().note_pushed(reference, record.target.digest, pushed)?;
        }
        Ok(pushed)
    }

    /// Sends an image, or an index of several, under a name. Layers that are not compressed yet are, as `config` says. Returns what it
    /// is at the registry.
    ///
    /// # Errors
    /// When a layer is missing, or the registry refuses something.
    pub fn push_target(
        &self,
        reference: &Reference,
        target: &Target,
        config: &CompressionConfig,
        watch: Watch<'_>,
    ) -> Result<Target, ImageError> {
        self.touch(target)?;
        let here = target.descriptor.digest;
        let target = self.push_blobs(&self.repository(reference), target, config, watch)?;
        let index = self.index_bytes(&target)?;
        for (descriptor, manifest) in target.manifests() {
            // Without an index it is the manifest that the name leads to.
            let place =
                if index.is_some() { reference.with_digest(descriptor.digest) } else { reference.clone() };
            let bytes = self.manifest_bytes(descriptor, manifest)?;
            self.push_document(&place, descriptor, &bytes, watch)?;
        }
        if let Some(bytes) = index {
            self.push_document(reference, &target.descriptor, &bytes, watch)?;
        }
        self.store.images().note_pushed(reference, here, target.descriptor.digest)?;
        Ok(target)
    }

    fn push_document(
        &self,
        place: &Reference,
        descriptor: &Descriptor,
        bytes: &[u8],
        watch: Watch<'_>,
    ) -> Result<(), ImageError> {
        self.registry.push_manifest(place, &descriptor.media_type, bytes, watch.cancel)?;
        Ok(())
    }

    /// The manifest's bytes: as they came, if they came from elsewhere.
    pub(super) fn manifest_bytes(
        &self,
        descriptor: &Descriptor,
        manifest: &Manifest,
    ) -> Result<Vec<u8>, ImageError> {
        let kept = self.store.content().read(descriptor.digest, rbuild_image::MANIFEST_SIZE_BYTES_MAX)?;
        Ok(kept.unwrap_or_else(|| manifest.to_bytes()))
    }

    /// Sends the blobs of all images, each once, and says what the layers became.
    fn push_blobs(
        &self,
        to: &RemoteStore,
        target: &Target,
        config: &CompressionConfig,
        watch: Watch<'_>,
    ) -> Result<Target, ImageError> {
        let parcels = parcels(target);
        let sent = in_parallel(&parcels, PUSHES_MAX, |parcel| match parcel {
            Parcel::Config(descriptor) => self.push_stored(to, descriptor, watch),
            Parcel::Layer { image, index } => {
                self.push_layer(to, &self.leaving_layer(image, *index)?, config, watch)
            }
        })?;
        let became: HashMap<_, _> = parcels.iter().map(Parcel::digest).zip(sent).collect();
        let became = self
            .with_layers(target, |image, index| Ok(became[&image.manifest.layers[index].digest].clone()))?;
        // What is said is about what the layers became.
        let said: Vec<&Descriptor> = became.attestations.iter().flat_map(Attestation::blobs).collect();
        in_parallel(&said, PUSHES_MAX, |blob| self.push_stored(to, blob, watch))?;
        Ok(became)
    }

    /// Sees to it that a place has a layer, in the form that `config` says, and says what that is.
    pub(crate) fn push_layer(
        &self,
        to: &RemoteStore,
        layer: &LeavingLayer,
        config: &CompressionConfig,
        watch: Watch<'_>,
    ) -> Result<Descriptor, ImageError> {
        match self.leaving(layer, config)? {
            Leaving::AsIs if self.store.content().contains(layer.descriptor.digest)? => {
                self.push_stored(to, &layer.descriptor, watch)
            }
            Leaving::Known(known) if self.store.content().contains(known.digest)? => {
                self.push_stored(to, &known, watch)
            }
            Leaving::AsIs if self.is_there(to, layer.descriptor.digest, watch.cancel)? => {
                Ok(layer.descriptor.clone())
            }
            Leaving::Known(known) if self.is_there(to, known.digest, watch.cancel)? => Ok(known),
            // An image that has a layer as its tar has it under its diff-id.
            Leaving::AsIs if layer.descriptor.digest == layer.diff_id.0 => {
                self.push_known(to, &layer.descriptor, layer.tar()?, watch)
            }
            Leaving::AsIs => self.push_compressing(to, layer, &layer.own_form()?, watch),
            Leaving::Known(_) | Leaving::New => self.push_compressing(to, layer, config, watch),
        }
    }

    /// Whether a place has a blob already, or could take it from another repository of its registry.
    pub(crate) fn is_there(
        &self,
        to: &RemoteStore,
        digest: Digest,
        cancel: &AtomicBool,
    ) -> Result<bool, ImageError> {
        let found = to.find_blob(digest, &self.places(to, digest)?, cancel)?.is_some();
        if found {
            self.remember_place(to, digest)?;
        }
        Ok(found)
    }

    /// The repositories of a registry that may have a blob.
    fn places(&self, to: &RemoteStore, digest: Digest) -> Result<Vec<String>, ImageError> {
        let Some(reference) = to.reference() else { return Ok(Vec::new()) };
        Ok(self.store.blob_places()?.get(digest, reference.registry())?)
    }

    /// Notes that a place has a blob, where that is of use.
    pub(crate) fn remember_place(&self, place: &RemoteStore, digest: Digest) -> Result<(), ImageError> {
        let Some(reference) = place.reference() else { return Ok(()) };
        Ok(self.store.blob_places()?.put(&[digest], reference.registry(), reference.repository())?)
    }

    /// Sends a small blob that is at hand.
    pub(crate) fn push_bytes(
        &self,
        to: &RemoteStore,
        media_type: MediaType,
        bytes: &'static [u8],
        watch: Watch<'_>,
    ) -> Result<(), ImageError> {
        let descriptor = Descriptor::of(media_type, bytes);
        let open = || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(bytes)) };
        let upload = BlobUpload { descriptor: &descriptor, open: &open, mount_from: &[] };
        let transfer = rbuild_registry::Watch { progress: &|_| {}, cancel: watch.cancel };
        to.push_blob(&upload, transfer)?;
        Ok(())
    }

    pub(super) fn push_stored(
        &self,
        to: &RemoteStore,
        descriptor: &Descriptor,
        watch: Watch<'_>,
    ) -> Result<Descriptor, ImageError> {
        self.push_known(to, descriptor, &Blob::Stored(descriptor.digest), watch)
    }

    fn push_known(
        &self,
        to: &RemoteStore,
        descriptor: &Descriptor,
        blob: &Blob,
        watch: Watch<'_>,
    ) -> Result<Descriptor, ImageError> {
        let progress = reporting(watch, descriptor.digest.short(), Some(descriptor.size_bytes));
        let open = || -> io::Result<Box<dyn Read + Send>> { self.read_blob(blob).map_err(io::Error::other) };
        let places = self.places(to, descriptor.digest)?;
        let upload = BlobUpload { descriptor, open: &open, mount_from: &places };
        to.push_blob(&upload, rbuild_registry::Watch { progress: &progress, cancel: watch.cancel })?;
        self.remember_place(to, descriptor.digest)?;
        Ok(descriptor.clone())
    }

    /// Sends a layer while it is compressed: nothing is written here. Only where a place wants to know what it is given before, the
    /// compressed layer becomes a blob of the store first.
    fn push_compressing(
        &self,
        to: &RemoteStore,
        layer: &LeavingLayer,
        config: &CompressionConfig,
        watch: Watch<'_>,
    ) -> Result<Descriptor, ImageError> {
        let tar = layer.tar()?;
        let progress = reporting(watch, layer.diff_id.0.short(), None);
        let open = || -> io::Result<Box<dyn Read + Send>> {
            let (images, tar, config) = (self.clone(), tar.clone(), *config);
            Ok(Box::new(produced(move |out| images.write_compressed(&tar, &config, out))))
        };
        let transfer = rbuild_registry::Watch { progress: &progress, cancel: watch.cancel };
        match to.push_unnamed(&open, transfer) {
            Ok((digest, size_bytes)) => {
                let compressed = Descriptor::new(config.compression.media_type(), digest, size_bytes);
                self.store.record_blob(layer.diff_id, &compressed)?;
                self.remember_place(to, digest)?;
                Ok(compressed)
            }
            Err(error) if error.refuses_form() => self.push_stored(to, &self.compress(layer, config)?, watch),
            Err(error) => Err(error.into()),
        }
    }
}

/// One blob to send.
enum Parcel<'a> {
    Config(&'a Descriptor),
    Layer { image: &'a StoredImage, index: usize },
}

impl Parcel<'_> {
    /// The digest by which the image knows it.
    fn digest(&self) -> Digest {
        match self {
            Self::Config(config) => config.digest,
            Self::Layer { image, index } => image.manifest.layers[*index].digest,
        }
    }
}

/// All blobs of all images, each once.
fn parcels(target: &Target) -> Vec<Parcel<'_>> {
    let mut seen = HashSet::new();
    let of_image = |image| {
        let StoredImage { manifest, .. }: &StoredImage = image;
        let layers = (0..manifest.layers.len()).map(move |index| Parcel::Layer { image, index });
        layers.chain([Parcel::Config(&manifest.config)])
    };
    target.images.iter().flat_map(of_image).filter(|parcel| seen.insert(parcel.digest())).collect()
}

/// Tells how much of one blob has moved.
pub(super) fn reporting(watch: Watch<'_>, name: String, total_bytes: Option<u64>) -> impl Fn(u64) {
    move |current_bytes| {
        (watch.transfers)(Transfer { name: name.clone(), current_bytes, total_bytes });
    }
}
