//! From the store to a registry: blobs that it lacks, side by side, then the manifest.

use std::io::{self, Read};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rbuild_image::{Descriptor, Digest, Platform, Reference};
use rbuild_registry::BlobUpload;

use super::compress::Blob;
use super::{Compression, ImageError, Images, StoredImage, Transfer, Watch};

/// How many blobs are sent at once.
const PUSHES_MAX: usize = 4;

impl Images {
    /// Sends an image under its name. Layers that are not compressed yet are, with `compression`.
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
        let image = self.get(reference, platform)?.ok_or_else(not_found)?;
        let image = self.compressed(&image, compression)?;
        self.push_blobs(reference, &image, watch)?;
        let bytes = self.manifest_bytes(&image)?;
        let media_type = &image.manifest_descriptor.media_type;
        Ok(self.registry.push_manifest(reference, media_type, &bytes, watch.cancel)?)
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
