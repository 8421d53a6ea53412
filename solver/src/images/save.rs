//! From the store to an archive.

use std::collections::HashSet;

use rbuild_image::{Descriptor, Digest, Index, Reference};

use super::archive::{
    ArchiveFormat, DOCKER_MANIFEST, DockerImage, IMAGE_NAME, INDEX, LayoutSink, OCI_LAYOUT,
    OCI_LAYOUT_CONTENT, REF_NAME, blob_path,
};
use super::{ImageError, Images, StoredImage};

/// An image to save, and the names it is saved under.
#[derive(Debug)]
pub struct Saved {
    /// The image.
    pub image: StoredImage,
    /// Its names; without any it is saved all the same.
    pub names: Vec<Reference>,
}

impl Images {
    /// Writes images as a layout. Layers that several share are written once.
    ///
    /// # Errors
    /// When a layer is missing or the sink fails.
    pub fn save(
        &self,
        images: &[Saved],
        format: ArchiveFormat,
        sink: &mut dyn LayoutSink,
    ) -> Result<(), ImageError> {
        let mut written = HashSet::new();
        add(sink, OCI_LAYOUT, OCI_LAYOUT_CONTENT)?;
        for saved in images {
            self.save_blobs(&saved.image, sink, &mut written)?;
        }
        let index = Index::new(images.iter().flat_map(index_entries).collect());
        add(sink, INDEX, &index.to_bytes())?;
        if format == ArchiveFormat::Docker {
            let docker: Vec<_> = images.iter().map(docker_image).collect();
            let bytes = serde_json::to_vec(&docker).expect("strings and lists are always JSON");
            add(sink, DOCKER_MANIFEST, &bytes)?;
        }
        sink.finish().map_err(ImageError::io("write", "the archive"))
    }

    fn save_blobs(
        &self,
        image: &StoredImage,
        sink: &mut dyn LayoutSink,
        written: &mut HashSet<Digest>,
    ) -> Result<(), ImageError> {
        let config = &image.manifest.config;
        let manifest = self.manifest_bytes(image)?;
        if written.insert(image.manifest_descriptor.digest) {
            add(sink, &blob_path(image.manifest_descriptor.digest), &manifest)?;
        }
        if written.insert(config.digest) {
            let bytes = self.store.content().read(config.digest, rbuild_image::MANIFEST_SIZE_BYTES_MAX)?;
            let bytes = bytes.ok_or(ImageError::MissingDocument { digest: config.digest })?;
            add(sink, &blob_path(config.digest), &bytes)?;
        }
        for (index, layer) in image.manifest.layers.iter().enumerate() {
            if written.insert(layer.digest) {
                let mut content = self.read_blob(&self.blob(image, index)?)?;
                let path = blob_path(layer.digest);
                sink.add(&path, layer.size_bytes, &mut content).map_err(ImageError::io("write", path))?;
            }
        }
        Ok(())
    }
}

fn add(sink: &mut dyn LayoutSink, path: &str, bytes: &[u8]) -> Result<(), ImageError> {
    sink.add(path, bytes.len() as u64, &mut &bytes[..]).map_err(ImageError::io("write", path))
}

/// One entry for each name, or one without a name.
fn index_entries(saved: &Saved) -> Vec<Descriptor> {
    let entry = || Descriptor {
        platform: Some(saved.image.config.platform.clone()),
        ..saved.image.manifest_descriptor.clone()
    };
    let named = |name: &Reference| {
        let mut entry = entry();
        entry.annotations.insert(IMAGE_NAME.to_owned(), name.to_string());
        entry.annotations.extend(name.tag().map(|tag| (REF_NAME.to_owned(), tag.to_owned())));
        entry
    };
    if saved.names.is_empty() { vec![entry()] } else { saved.names.iter().map(named).collect() }
}

fn docker_image(saved: &Saved) -> DockerImage {
    DockerImage {
        config: blob_path(saved.image.manifest.config.digest),
        repo_tags: Some(saved.names.iter().map(Reference::familiar).collect()),
        layers: saved.image.manifest.layers.iter().map(|layer| blob_path(layer.digest)).collect(),
    }
}
