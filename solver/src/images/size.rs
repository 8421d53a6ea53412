//! How large images are, as people are told: what their layers unpack to.

use super::{ImageError, Images, StoredImage};

impl Images {
    /// The sizes of an image's layers, bottom first: of their tars where those are known, of their blobs otherwise.
    ///
    /// # Errors
    /// When the store fails.
    pub fn layer_sizes(&self, image: &StoredImage) -> Result<Vec<u64>, ImageError> {
        let unpacked = match self.snapshot(image)? {
            Some(snapshot) => self.store.layer_infos(&snapshot)?,
            None => Vec::new(),
        };
        let sizes = image.manifest.layers.iter().enumerate().map(|(index, descriptor)| {
            let tar = unpacked.get(index).and_then(|layer| layer.tar_size_bytes);
            tar.unwrap_or(descriptor.size_bytes)
        });
        Ok(sizes.collect())
    }

    /// The size of an image: of all its layers.
    ///
    /// # Errors
    /// As [`layer_sizes`](Self::layer_sizes).
    pub fn unpacked_size(&self, image: &StoredImage) -> Result<u64, ImageError> {
        Ok(self.layer_sizes(image)?.iter().sum())
    }
}
