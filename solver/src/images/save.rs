//! From the store to an archive.

use std::collections::HashSet;

use rbuild_image::{Descriptor, Digest, Index, Reference};

use super::archive::{
    ArchiveFormat, DOCKER_MANIFEST, DockerImage, IMAGE_NAME, INDEX, LayoutSink, OCI_LAYOUT,
    OCI_LAYOUT_CONTENT, REF_NAME, blob_path,
};
use super::attest::Attestation;
use super::compress::Blob;
use super::{CompressionConfig, ImageError, Images, StoredImage, Target};

/// What to save, and the names it is saved under.
#[derive(Debug)]
pub struct Saved {
    /// An image, or an index of several.
    pub target: Target,
    /// Its names; without any it is saved all the same. One with a digest is not written: to whoever loads an archive, a name is a tag.
    pub names: Vec<Reference>,
}

impl Saved {
    fn tags(&self) -> impl Iterator<Item = &Reference> {
        self.names.iter().filter(|name| name.digest().is_none())
    }
}

impl Images {
    /// Writes images as a layout, their layers in the form that `config` says. Layers that several share are written once; one whose blob is
    /// elsewhere (it was here in another form when the image was pulled) is compressed anew. Returns what was written.
    ///
    /// # Errors
    /// When a layer is missing or the sink fails.
    pub fn save(
        &self,
        images: &[Saved],
        format: ArchiveFormat,
        config: &CompressionConfig,
        sink: &mut dyn LayoutSink,
    ) -> Result<Vec<Target>, ImageError> {
        images.iter().try_for_each(|saved| self.touch(&saved.target))?;
        let leaving = |Saved { target, names }: &Saved| {
            let target = self.compressed_target(target, config)?;
            Ok(Saved { target, names: names.clone() })
        };
        let images = images.iter().map(leaving).collect::<Result<Vec<_>, ImageError>>()?;
        let mut written = HashSet::new();
        add(sink, OCI_LAYOUT, OCI_LAYOUT_CONTENT)?;
        for saved in &images {
            self.save_documents(&saved.target, sink, &mut written)?;
            saved.target.images.iter().try_for_each(|image| self.save_layers(image, sink, &mut written))?;
            if let Some(index) = self.index_bytes(&saved.target)?
                && written.insert(saved.target.descriptor.digest)
            {
                add(sink, &blob_path(saved.target.descriptor.digest), &index)?;
            }
        }
        let index = Index::new(images.iter().flat_map(index_entries).collect());
        add(sink, INDEX, &index.to_bytes())?;
        if format == ArchiveFormat::Docker {
            let docker: Vec<_> = images.iter().map(docker_image).collect();
            let bytes = serde_json::to_vec(&docker).expect("strings and lists are always JSON");
            add(sink, DOCKER_MANIFEST, &bytes)?;
        }
        sink.finish().map_err(ImageError::io("write", "the archive"))?;
        Ok(images.into_iter().map(|saved| saved.target).collect())
    }

    /// Writes manifests and configs, and whole what is said of the images.
    fn save_documents(
        &self,
        target: &Target,
        sink: &mut dyn LayoutSink,
        written: &mut HashSet<Digest>,
    ) -> Result<(), ImageError> {
        for (descriptor, manifest) in target.manifests() {
            if written.insert(descriptor.digest) {
                let bytes = self.manifest_bytes(descriptor, manifest)?;
                add(sink, &blob_path(descriptor.digest), &bytes)?;
            }
        }
        let configs = target.images.iter().map(|image| &image.manifest.config);
        for blob in configs.chain(target.attestations.iter().flat_map(Attestation::blobs)) {
            if written.insert(blob.digest) {
                self.save_blob(blob, &Blob::Stored(blob.digest), sink)?;
            }
        }
        Ok(())
    }

    fn save_layers(
        &self,
        image: &StoredImage,
        sink: &mut dyn LayoutSink,
        written: &mut HashSet<Digest>,
    ) -> Result<(), ImageError> {
        for (index, layer) in image.manifest.layers.iter().enumerate() {
            if written.insert(layer.digest) {
                self.save_blob(layer, &self.blob(image, index)?, sink)?;
            }
        }
        Ok(())
    }

    fn save_blob(
        &self,
        descriptor: &Descriptor,
        blob: &Blob,
        sink: &mut dyn LayoutSink,
    ) -> Result<(), ImageError> {
        let mut content = self.read_blob(blob)?;
        let path = blob_path(descriptor.digest);
        sink.add(&path, descriptor.size_bytes, &mut content).map_err(ImageError::io("write", path))
    }
}

fn add(sink: &mut dyn LayoutSink, path: &str, bytes: &[u8]) -> Result<(), ImageError> {
    sink.add(path, bytes.len() as u64, &mut &bytes[..]).map_err(ImageError::io("write", path))
}

/// One entry for each name, or one without a name.
fn index_entries(saved: &Saved) -> Vec<Descriptor> {
    let target = &saved.target;
    let platform = match target.images.as_slice() {
        [image] if !target.is_index() => Some(image.config.platform.clone()),
        _ => None,
    };
    let entry = || Descriptor { platform: platform.clone(), ..target.descriptor.clone() };
    let named = |name: &Reference| {
        let mut entry = entry();
        entry.annotations.insert(IMAGE_NAME.to_owned(), name.to_string());
        entry.annotations.extend(name.tag().map(|tag| (REF_NAME.to_owned(), tag.to_owned())));
        entry
    };
    let entries: Vec<_> = saved.tags().map(named).collect();
    if entries.is_empty() { vec![entry()] } else { entries }
}

/// Docker's own description knows one platform for a name: the first.
fn docker_image(saved: &Saved) -> DockerImage {
    let manifest = &saved.target.images[0].manifest;
    let tags: Vec<_> = saved.tags().map(Reference::familiar).collect();
    DockerImage {
        config: blob_path(manifest.config.digest),
        repo_tags: (!tags.is_empty()).then_some(tags),
        layers: Some(manifest.layers.iter().map(|layer| blob_path(layer.digest)).collect()),
    }
}
