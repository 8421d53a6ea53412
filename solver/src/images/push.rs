//! From the store to a registry: blobs that it lacks, side by side, then the manifest.
//!
//! What a layer is compressed to is known once it is through, so its descriptor, and with it the manifest, is made afterwards.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};

use rbuild_image::{Descriptor, Digest, Platform, Reference};
use rbuild_registry::BlobUpload;

use super::compress::{Blob, Leaving};
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
        self.push_target(reference, &target, config, watch)
    }

    /// Sends an image, or an index of several, under a name. Layers that are not compressed yet are, as `config` says.
    ///
    /// # Errors
    /// When a layer is missing, or the registry refuses something.
    pub fn push_target(
        &self,
        reference: &Reference,
        target: &Target,
        config: &CompressionConfig,
        watch: Watch<'_>,
    ) -> Result<Digest, ImageError> {
        let target = self.push_blobs(reference, target, config, watch)?;
        let index = self.index_bytes(&target)?;
        let mut pushed = target.descriptor.digest;
        for image in &target.images {
            let digest = image.manifest_descriptor.digest;
            // Without an index it is the manifest that the name leads to.
            let place = if index.is_some() { reference.with_digest(digest) } else { reference.clone() };
            let bytes = self.manifest_bytes(image)?;
            pushed = self.push_document(&place, &image.manifest_descriptor, &bytes, watch)?;
        }
        index.map_or(Ok(pushed), |bytes| self.push_document(reference, &target.descriptor, &bytes, watch))
    }

    fn push_document(
        &self,
        place: &Reference,
        descriptor: &Descriptor,
        bytes: &[u8],
        watch: Watch<'_>,
    ) -> Result<Digest, ImageError> {
        Ok(self.registry.push_manifest(place, &descriptor.media_type, bytes, watch.cancel)?)
    }

    /// The manifest's bytes: as they came, if they came from elsewhere.
    pub(super) fn manifest_bytes(&self, image: &StoredImage) -> Result<Vec<u8>, ImageError> {
        let kept = self
            .store
            .content()
            .read(image.manifest_descriptor.digest, rbuild_image::MANIFEST_SIZE_BYTES_MAX)?;
        Ok(kept.unwrap_or_else(|| image.manifest.to_bytes()))
    }

    /// Sends the blobs of all images, each once, and says what the layers became.
    fn push_blobs(
        &self,
        reference: &Reference,
        target: &Target,
        config: &CompressionConfig,
        watch: Watch<'_>,
    ) -> Result<Target, ImageError> {
        let parcels = parcels(target);
        let sent =
            in_parallel(&parcels, PUSHES_MAX, |parcel| self.push_one(reference, parcel, config, watch))?;
        let became: HashMap<_, _> = parcels.iter().map(Parcel::digest).zip(sent).collect();
        let digests: Vec<Digest> = became.values().map(|descriptor| descriptor.digest).collect();
        self.store.blob_places()?.put(&digests, reference.registry(), reference.repository())?;
        target.with_layers(|image, index| Ok(became[&image.manifest.layers[index].digest].clone()))
    }

    fn push_one(
        &self,
        reference: &Reference,
        parcel: &Parcel<'_>,
        config: &CompressionConfig,
        watch: Watch<'_>,
    ) -> Result<Descriptor, ImageError> {
        let (image, index) = match parcel {
            Parcel::Config(config) => return self.push_stored(reference, config, watch),
            Parcel::Layer { image, index } => (*image, *index),
        };
        match self.leaving(image, index, config)? {
            Leaving::AsIs => {
                let descriptor = &image.manifest.layers[index];
                match self.blob(image, index) {
                    Ok(blob) => self.push_known(reference, descriptor, &blob, watch),
                    // An image whose layers are elsewhere can be pushed to where they are.
                    Err(ImageError::MissingLayer { .. })
                        if self.is_there(reference, descriptor.digest, watch)? =>
                    {
                        Ok(descriptor.clone())
                    }
                    Err(error) => Err(error),
                }
            }
            Leaving::Known(known) if self.store.content().contains(known.digest)? => {
                self.push_stored(reference, &known, watch)
            }
            Leaving::Known(known) if self.is_there(reference, known.digest, watch)? => Ok(known),
            Leaving::Known(_) | Leaving::New => {
                let compressed = self.push_compressing(reference, (image, index), config, watch)?;
                self.compressed_as(image, index, compressed)
            }
        }
    }

    /// Whether a repository has a blob already, or the registry could take it from another repository.
    fn is_there(&self, reference: &Reference, digest: Digest, watch: Watch<'_>) -> Result<bool, ImageError> {
        let places = self.places(reference, digest)?;
        Ok(self.registry.find_blob(reference, digest, &places, watch.cancel)?.is_some())
    }

    /// The repositories of the registry that may have a blob.
    fn places(&self, reference: &Reference, digest: Digest) -> Result<Vec<String>, ImageError> {
        Ok(self.store.blob_places()?.get(digest, reference.registry())?)
    }

    pub(super) fn push_stored(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        watch: Watch<'_>,
    ) -> Result<Descriptor, ImageError> {
        self.push_known(reference, descriptor, &Blob::Stored(descriptor.digest), watch)
    }

    fn push_known(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        blob: &Blob,
        watch: Watch<'_>,
    ) -> Result<Descriptor, ImageError> {
        let progress = reporting(watch, descriptor.digest.short(), Some(descriptor.size_bytes));
        let open = || -> io::Result<Box<dyn Read + Send>> { self.read_blob(blob).map_err(io::Error::other) };
        let places = self.places(reference, descriptor.digest)?;
        let upload = BlobUpload { descriptor, open: &open, mount_from: &places };
        let transfer = rbuild_registry::Watch { progress: &progress, cancel: watch.cancel };
        self.registry.push_blob(reference, &upload, transfer)?;
        Ok(descriptor.clone())
    }

    /// Sends a layer while it is compressed: nothing is written here. Only where the registry wants to know the size before, the
    /// compressed layer becomes a blob of the store first.
    fn push_compressing(
        &self,
        reference: &Reference,
        (image, index): (&StoredImage, usize),
        config: &CompressionConfig,
        watch: Watch<'_>,
    ) -> Result<Descriptor, ImageError> {
        let tar = self.tar(image, index)?;
        let progress = reporting(watch, image.config.rootfs.diff_ids[index].0.short(), None);
        let open = || -> io::Result<Box<dyn Read + Send>> {
            let (images, tar, config) = (self.clone(), tar.clone(), *config);
            Ok(Box::new(produced(move |out| images.write_compressed(&tar, &config, out))))
        };
        let transfer = rbuild_registry::Watch { progress: &progress, cancel: watch.cancel };
        match self.registry.push_unnamed(reference, &open, transfer) {
            Ok((digest, size_bytes)) => {
                Ok(Descriptor::new(config.compression.media_type(), digest, size_bytes))
            }
            Err(error) if error.refuses_form() => {
                self.push_stored(reference, &self.compress(image, index, config)?, watch)
            }
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
