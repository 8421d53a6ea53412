//! What a name stands for: an image for one platform, or an index of images for several.

use std::collections::{BTreeMap, HashMap};

use rbuild_image::{Descriptor, Digest, Index, MANIFEST_SIZE_BYTES_MAX, Manifest, MediaType, Platform};

use super::attest::Attestation;
use super::{CompressionConfig, ImageError, Images, StoredImage, there};

/// A manifest or an index, with all the images behind it, and what is said of them.
#[derive(Debug, Clone)]
pub struct Target {
    /// The document that a name leads to.
    pub descriptor: Descriptor,
    /// The images, at least one; of an index, in its order.
    pub images: Vec<StoredImage>,
    /// What the index says of its images.
    pub(super) attestations: Vec<Attestation>,
    /// The index, where the descriptor is one's.
    index: Option<Index>,
}

impl Target {
    /// One image, without an index.
    pub fn of(image: StoredImage) -> Self {
        Self {
            descriptor: image.manifest_descriptor.clone(),
            images: vec![image],
            attestations: Vec::new(),
            index: None,
        }
    }

    /// All its manifests: those of images, then what is said of them.
    pub(super) fn manifests(&self) -> impl Iterator<Item = (&Descriptor, &Manifest)> {
        let images = self.images.iter().map(|image| (&image.manifest_descriptor, &image.manifest));
        images.chain(self.attestations.iter().map(|said| (&said.entry, &said.manifest)))
    }

    /// Whether it is an index.
    pub const fn is_index(&self) -> bool {
        self.index.is_some()
    }

    /// An index of images: an entry for each, with its platform, and then for each attestation.
    fn of_index(
        images: Vec<StoredImage>,
        attestations: Vec<Attestation>,
        annotations: BTreeMap<String, String>,
    ) -> Self {
        let entry = |image: &StoredImage| Descriptor {
            platform: Some(image.config.platform.clone()),
            ..image.manifest_descriptor.clone()
        };
        let entries = images.iter().map(entry);
        let entries =
            entries.chain(attestations.iter().map(|attestation| attestation.entry.clone())).collect();
        let index = Index { annotations, ..Index::new(entries) };
        let descriptor = Descriptor::of(MediaType::OciIndex, &index.to_bytes());
        Self { descriptor, images, attestations, index: Some(index) }
    }

    /// The same index with other images, in the same order, and what is said of them.
    fn with_images(&self, index: &Index, images: Vec<StoredImage>, attestations: Vec<Attestation>) -> Self {
        let before = self.images.iter().map(|image| image.manifest_descriptor.digest);
        let mut entries: HashMap<Digest, Descriptor> =
            before.zip(images.iter().map(|image| image.manifest_descriptor.clone())).collect();
        let said = self.attestations.iter().map(|attestation| attestation.entry.digest);
        entries.extend(said.zip(attestations.iter().map(|attestation| attestation.entry.clone())));
        let entry = |entry: &Descriptor| {
            let now = &entries[&entry.digest];
            let annotations = entry.annotations.iter().map(|(key, value)| (key.clone(), value.clone()));
            let annotations = annotations.chain(now.annotations.clone()).collect();
            Descriptor { annotations, platform: entry.platform.clone(), ..now.clone() }
        };
        let index = Index {
            media_type: Some(MediaType::OciIndex),
            manifests: index.manifests.iter().map(entry).collect(),
            annotations: index.annotations.clone(),
            ..*index
        };
        let descriptor = Descriptor {
            annotations: self.descriptor.annotations.clone(),
            ..Descriptor::of(MediaType::OciIndex, &index.to_bytes())
        };
        Self { descriptor, images, attestations, index: Some(index) }
    }
}

impl StoredImage {
    fn with_layers(&self, layers: Vec<Descriptor>) -> Self {
        if layers == self.manifest.layers {
            return self.clone();
        }
        let manifest = Manifest { layers, ..self.manifest.clone() }.in_oci();
        let descriptor = Descriptor::of(MediaType::OciManifest, &manifest.to_bytes());
        Self { target: descriptor.clone(), manifest_descriptor: descriptor, manifest, ..self.clone() }
    }
}

impl Images {
    /// Makes an index of images, one for each platform, and of what is said of them, and stores it. It has no name yet.
    ///
    /// # Errors
    /// When the store fails.
    pub fn assemble_index(
        &self,
        images: Vec<StoredImage>,
        attestations: Vec<Attestation>,
        annotations: BTreeMap<String, String>,
    ) -> Result<Target, ImageError> {
        let target = Target::of_index(images, attestations, annotations);
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
    /// the image for `platform` alone, in an index of its own with what is here that was said of it, if anything is.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_target(&self, descriptor: &Descriptor, platform: &Platform) -> Result<Target, ImageError> {
        if descriptor.media_type.is_index() {
            let index = self.document(descriptor, Index::parse)?;
            let said = index.manifests.iter().filter(|entry| entry.attests().is_some());
            let images = index.images().map(|entry| self.open_whole(entry)).collect::<Result<_, _>>()?;
            let attestations: Vec<_> =
                said.map(|entry| self.open_attestation(entry)).collect::<Result<_, _>>()?;
            let all: Option<Vec<Attestation>> = attestations.iter().cloned().collect();
            if let (Some(images), Some(attestations)) = (images, all) {
                let descriptor = descriptor.clone();
                return Ok(Target { descriptor, images, attestations, index: Some(index) });
            }
            let image = self.open(descriptor, platform)?;
            let mut said: Vec<Attestation> = attestations.into_iter().flatten().collect();
            said.retain(|said| said.of() == Some(image.manifest_descriptor.digest));
            return Ok(if said.is_empty() {
                Target::of(image)
            } else {
                Target::of_index(vec![image], said, index.annotations)
            });
        }
        Ok(Target::of(self.open(descriptor, platform)?))
    }

    /// An image, if its documents and its layers are here, in one form or the other.
    fn open_whole(&self, manifest: &Descriptor) -> Result<Option<StoredImage>, ImageError> {
        let Some(image) = there(self.open_manifest(manifest, manifest.clone()))? else { return Ok(None) };
        for layer in &image.manifest.layers {
            if !self.store.content().contains(layer.digest)? {
                return Ok(self.snapshot(&image)?.is_some().then_some(image));
            }
        }
        Ok(Some(image))
    }

    /// Stamps layers and blobs as used before the first of them is read, so that the caller's lease keeps those as well that come late. What is
    /// missing is for whoever reads it to tell.
    pub(super) fn touch(&self, target: &Target) -> Result<(), ImageError> {
        let content = self.store.content();
        for image in &target.images {
            self.snapshot(image)?;
            for layer in &image.manifest.layers {
                content.contains(layer.digest)?;
            }
        }
        for blob in target.attestations.iter().flat_map(Attestation::blobs) {
            content.contains(blob.digest)?;
        }
        Ok(())
    }

    /// The same with every layer in the form in which it leaves, as blobs of the content store.
    ///
    /// # Errors
    /// When a layer is missing or the store fails.
    pub(super) fn compressed_target(
        &self,
        target: &Target,
        config: &CompressionConfig,
    ) -> Result<Target, ImageError> {
        self.with_layers(target, |image, index| self.compress(&self.leaving_layer(image, index)?, config))
    }

    /// The same with other descriptors in the place of its layers', and so with other manifests. What is said of an image is
    /// then said of the new one.
    pub(super) fn with_layers(
        &self,
        target: &Target,
        mut layer: impl FnMut(&StoredImage, usize) -> Result<Descriptor, ImageError>,
    ) -> Result<Target, ImageError> {
        let mut replaced = |image: &StoredImage| {
            let layers = (0..image.manifest.layers.len()).map(|index| layer(image, index));
            Ok(image.with_layers(layers.collect::<Result<_, _>>()?))
        };
        let mut images = target.images.iter().map(&mut replaced).collect::<Result<Vec<_>, ImageError>>()?;
        let digest = |image: &StoredImage| image.manifest_descriptor.digest;
        let became: HashMap<Digest, Digest> =
            target.images.iter().map(digest).zip(images.iter().map(digest)).collect();
        if became.iter().all(|(before, now)| before == now) {
            return Ok(target.clone());
        }
        let Some(index) = &target.index else {
            return Ok(Target::of(images.remove(0)));
        };
        let said = |attestation: &Attestation| match attestation.of().map(|of| (of, became.get(&of))) {
            Some((before, Some(now))) if before != *now => self.attest_anew(attestation, before, *now),
            _ => Ok(attestation.clone()),
        };
        let attestations = target.attestations.iter().map(said).collect::<Result<_, ImageError>>()?;
        Ok(target.with_images(index, images, attestations))
    }
}
