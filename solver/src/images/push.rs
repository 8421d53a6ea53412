//! From the store to a registry: blobs that it lacks, side by side, then the manifest.

use std::io::{self, Read};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rbuild_image::{Descriptor, Digest, Platform, Reference};
use rbuild_registry::BlobUpload;

use super::compress::Blob;
use super::{Compression, ImageError, Images, StoredImage, Target, Transfer, Watch};

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
        compression: Compression,
        watch: Watch<'_>,
    ) -> Result<Digest, ImageError> {
        let not_found = || ImageError::NotFound { name: reference.familiar() };
        let record = self.store.images().get(reference)?.ok_or_else(not_found)?;
        let target = self.open_target(&record.target, platform)?;
        self.push_target(reference, &target, compression, watch)
    }

    /// Sends an image, or an index of several, under a name. Layers that are not compressed yet are, with `compression`.
    ///
    /// # Errors
    /// When a layer is missing, or the registry refuses something.
    pub fn push_target(
        &self,
        reference: &Reference,
        target: &Target,
        compression: Compression,
        watch: Watch<'_>,
    ) -> Result<Digest, ImageError> {
        let target = self.compressed_target(target, compression)?;
        target.images.iter().try_for_each(|image| self.push_blobs(reference, image, watch))?;
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

    fn push_blobs(
        &self,
        reference: &Reference,
        image: &StoredImage,
        watch: Watch<'_>,
    ) -> Result<(), ImageError> {
        let mut blobs = vec![(image.manifest.config.clone(), Blob::Stored(image.manifest.config.digest))];
        for (index, descriptor) in image.manifest.layers.iter().enumerate() {
            if !blobs.iter().any(|(known, _)| known.digest == descriptor.digest) {
                blobs.push((descriptor.clone(), self.blob(image, index)?));
            }
        }
        let failure = Mutex::new(None);
        let stop = AtomicBool::new(false);
        let queue = Mutex::new(blobs.iter());
        thread::scope(|scope| {
            for _ in 0..PUSHES_MAX.min(blobs.len()) {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let Some((descriptor, blob)) = lock(&queue).next() else { break };
                        if let Err(error) = self.push_one(reference, descriptor, blob, watch) {
                            stop.store(true, Ordering::Relaxed);
                            lock(&failure).get_or_insert(error);
                        }
                    }
                });
            }
        });
        lock(&failure).take().map_or(Ok(()), Err)
    }

    fn push_one(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        blob: &Blob,
        watch: Watch<'_>,
    ) -> Result<(), ImageError> {
        let name = descriptor.digest.short();
        let progress = |current_bytes| {
            (watch.transfers)(Transfer {
                name: name.clone(),
                current_bytes,
                total_bytes: Some(descriptor.size_bytes),
            });
        };
        let open = || -> io::Result<Box<dyn Read + Send>> { self.read_blob(blob).map_err(io::Error::other) };
        let upload = BlobUpload { descriptor, open: &open, mount_from: &[] };
        let transfer = rbuild_registry::Watch { progress: &progress, cancel: watch.cancel };
        self.registry.push_blob(reference, &upload, transfer)?;
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
