//! How large images are, as people are told: what their layers unpack to.

use std::collections::BTreeMap;

use rbuild_image::DiffId;

use super::{ImageError, Images, StoredImage};

/// The sizes of layers of some images, in bytes.
#[derive(Debug, Clone, Default)]
pub struct LayerSizes(BTreeMap<DiffId, u64>);

impl LayerSizes {
    /// The sizes of an image's layers, bottom first: of their tars where those are known, of their blobs otherwise.
    pub fn of(&self, image: &StoredImage) -> Vec<u64> {
        let layers = image.manifest.layers.iter().enumerate();
        let size = |(index, descriptor): (usize, &rbuild_image::Descriptor)| {
            let known = image.config.rootfs.diff_ids.get(index).and_then(|diff_id| self.0.get(diff_id));
            known.copied().unwrap_or(descriptor.size_bytes)
        };
        layers.map(size).collect()
    }

    /// The size of an image: of all its layers.
    pub fn total(&self, image: &StoredImage) -> u64 {
        self.of(image).iter().sum()
    }
}

impl Images {
    /// What is known of the layers of images, in one look.
    ///
    /// # Errors
    /// When the store fails.
    pub fn layer_sizes<'a>(
        &self,
        images: impl IntoIterator<Item = &'a StoredImage>,
    ) -> Result<LayerSizes, ImageError> {
        let diff_ids = images.into_iter().flat_map(|image| &image.config.rootfs.diff_ids).copied().collect();
        Ok(LayerSizes(self.store.tar_sizes_bytes(&diff_ids)?))
    }
}
