//! What a name stands for: an image for one platform, or an index of images for several.

use std::collections::BTreeMap;

use rbuild_image::{Descriptor, Index, MANIFEST_SIZE_BYTES_MAX, Manifest, MediaType, Platform};

use super::{CompressionConfig, ImageError, Images, StoredImage, there};

/// A manifest or an index, with all the images behind it.
#[derive(Debug, Clone)]
pub struct Target {
    /// The document that a name leads to.
    pub descriptor: Descriptor,
    /// The images, at least one; of an index, in its order.
    pub images: Vec<StoredImage>,
    /// The index, where the descriptor is one's.
    index: Option<Index>,
}

impl Target {
    /// One image, without an index.
    pub fn of(image: StoredImage) -> Self {
        Self { descriptor: image.manifest_descriptor.clone(), images: vec![image], index: None }
    }

    /// Whether it is an index.
    pub const fn is_index(&self) -> bool {
        self.index.is_some()
    }

    /// The same with other descriptors in the place of its layers', and so with other manifests.
    pub(super) fn with_layers(
        &self,
        mut layer: impl FnMut(&StoredImage, usize) -> Result<Descriptor, ImageError>,
    ) -> Result<Self, ImageError> {
        let mut replaced = |image: &StoredImage| {
            let layers = (0..image.manifest.layers.len()).map(|index| layer(image, index));
            Ok(image.with_layers(layers.collect::<Result<_, _>>()?))
        };
        let mut images = self.images.iter().map(&mut replaced).collect::<Result<Vec<_>, ImageError>>()?;
        if images.iter().zip(&self.images).all(|(new, old)| new.manifest == old.manifest) {
            return Ok(self.clone());
        }
        let Some(index) = &self.index else {
            return Ok(Self::of(images.remove(0)));
        };
        let entry = |(entry, image): (&Descriptor, &StoredImage)| Descriptor {
            annotations: entry.annotations.clone(),
            platform: entry.platform.clone(),
            ..image.manifest_descriptor.clone()
        };
        let manifests = index.manifests.iter().zip(&images).map(entry).collect();
        let index = Index { manifests, ..index.clone() };
        let descriptor = Descriptor {
            annotations: self.descriptor.annotations.clone(),
            ..Descriptor::of(MediaType::OciIndex, &index.to_bytes())
        };
        Ok(Self { descriptor, images, index: Some(index) })
    }

    /// An index of images: an entry for each, with its platform.
    fn of_index(images: Vec<StoredImage>, annotations: BTreeMap<String, String>) -> Self {
        let entry = |image: &StoredImage| Descriptor {
            platform: Some(image.config.platform.clone()),
            ..image.manifest_descriptor.clone()
        };
        let index = Index { annotations, ..Index::new(images.iter().map(entry).collect()) };
        let descriptor = Descriptor::of(MediaType::OciIndex, &index.to_bytes());
        Self { descriptor, images, index: Some(index) }
    }
}

impl StoredImage {
    fn with_layers(&self, layers: Vec<Descriptor>) -> Self {
        if layers == self.manifest.layers {
            return self.clone();
        }
        let manifest = Manifest { layers, ..self.manifest.clone() };
        let media_type = self.manifest_descriptor.media_type.clone();
        let descriptor = Descriptor::of(media_type, &manifest.to_bytes());
        Self { target: descriptor.clone(), manifest_descriptor: descriptor, manifest, ..self.clone() }
    }
}

impl Images {
    /// Makes an index of images, one for each platform, and stores it. It has no name yet.
    ///
    /// # Errors
    /// When the store fails.
    pub fn assemble_index(
        &self,
        images: Vec<StoredImage>,
        annotations: BTreeMap<String, String>,
    ) -> Result<Target, ImageError> {
        let target = Target::of_index(images, annotations);
        self.index_bytes(&target)?.map_or(Ok(()), |bytes| self.keep(&target.descriptor, &bytes))?;
        Ok(target)
    }

    /// The index's bytes, where there is one: as they came, if they came from elsewhere.
    pub(super) fn index_bytes(&self, target: &Target) -> Result<Option<Vec<u8>>, ImageError> {
        let Some(index) = &target.index else { return Ok(None) };
        let kept = self.store.content().read(target.descriptor.digest, MANIFEST_SIZE_BYTES_MAX)?;
        Ok(Some(kept.unwrap_or_else(|| index.to_bytes())))
    }

    /// All that a descriptor of the store stands for. Of an index of which only some images are here, as a pull leaves it, it is
    /// the image for `platform` alone.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_target(&self, descriptor: &Descriptor, platform: &Platform) -> Result<Target, ImageError> {
        if descriptor.media_type.is_index() {
            let index = self.document(descriptor, Index::parse)?;
            let images =
                index.manifests.iter().map(|entry| self.open_whole(entry)).collect::<Result<_, _>>()?;
            if let Some(images) = images {
                return Ok(Target { descriptor: descriptor.clone(), images, index: Some(index) });
            }
        }
        Ok(Target::of(self.open(descriptor, platform)?))
    }

    /// An image, if its documents and its layers are here, in one form or the other.
    fn open_whole(&self, manifest: &Descriptor) -> Result<Option<StoredImage>, ImageError> {
        let Some(image) = there(self.open_manifest(manifest, manifest.clone()))? else { return Ok(None) };
        let layers = 0..image.manifest.layers.len();
        let missing = |index| matches!(self.blob(&image, index), Err(ImageError::MissingLayer { .. }));
        Ok((!layers.into_iter().any(missing)).then_some(image))
    }

    /// The same with every layer in the form in which it leaves, as blobs of the content store.
    ///
    /// # Errors
    /// When a layer is missing or the store fails.
    pub fn compressed_target(
        &self,
        target: &Target,
        config: &CompressionConfig,
    ) -> Result<Target, ImageError> {
        target.with_layers(|image, index| self.compress(&self.leaving_layer(image, index)?, config))
    }
}
