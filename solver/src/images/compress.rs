//! The compressed forms of layers: made once, remembered under the layer's diff-id.

use std::io::{self, Read, Write};

use rbuild_cache::Snapshot;
use rbuild_cache::layer::LAYER_SIZE_BYTES_MAX;
use rbuild_cache::layer::compression::{Encoder, Encoding};
use rbuild_image::{Descriptor, DiffId, Digest, Manifest, MediaType};

use super::{ImageError, Images, StoredImage};

/// How layers are compressed when they leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, which every engine reads.
    #[default]
    Gzip,
    /// zstd.
    Zstd,
}

impl Compression {
    /// The OCI media type of a layer in this form.
    pub const fn media_type(self) -> MediaType {
        match self {
            Self::None => MediaType::OciLayer,
            Self::Gzip => MediaType::OciLayerGzip,
            Self::Zstd => MediaType::OciLayerZstd,
        }
    }

    /// The levels that everybody uses.
    const fn encoding(self) -> Encoding {
        match self {
            Self::None => Encoding::None,
            Self::Gzip => Encoding::Gzip { level: 6 },
            Self::Zstd => Encoding::Zstd { level: 3 },
        }
    }
}

/// The bytes behind a descriptor of an image.
#[derive(Debug, Clone)]
pub(super) enum Blob {
    /// A blob of the content store.
    Stored(Digest),
    /// The tar of a layer, written on demand.
    Layer {
        /// The image's snapshot.
        snapshot: Snapshot,
        /// Which of its layers, from the bottom.
        index: usize,
        /// Which of that layer's tars.
        diff_id: DiffId,
    },
}

impl Images {
    /// Where the bytes of an image's layer come from.
    pub(super) fn blob(&self, image: &StoredImage, index: usize) -> Result<Blob, ImageError> {
        let digest = image.manifest.layers[index].digest;
        if self.store.content().contains(digest)? {
            return Ok(Blob::Stored(digest));
        }
        let diff_id = image.config.rootfs.diff_ids.get(index);
        let snapshot = self.snapshot(image)?;
        match (diff_id, snapshot) {
            (Some(diff_id), Some(snapshot)) if diff_id.0 == digest => {
                Ok(Blob::Layer { snapshot, index, diff_id: *diff_id })
            }
            _ => Err(ImageError::MissingLayer { digest }),
        }
    }

    /// Writes the bytes of a blob.
    pub(super) fn write_blob(&self, blob: &Blob, out: &mut dyn Write) -> Result<(), ImageError> {
        match blob {
            Blob::Stored(digest) => {
                let missing = ImageError::MissingLayer { digest: *digest };
                let mut file = self.store.content().open(*digest)?.ok_or(missing)?;
                io::copy(&mut file, out).map_err(ImageError::io("copy", format!("blob `{digest}`")))?;
            }
            Blob::Layer { snapshot, index, diff_id } => {
                self.store.write_layer(snapshot, *index, *diff_id, out)?;
            }
        }
        Ok(())
    }

    /// The image with every layer that is not compressed yet in the given form, as blobs of the content store.
    /// Layers that are compressed already stay as they are, whatever their form.
    ///
    /// # Errors
    /// When a layer is missing or the store fails.
    pub fn compressed(
        &self,
        image: &StoredImage,
        compression: Compression,
    ) -> Result<StoredImage, ImageError> {
        if compression == Compression::None {
            return Ok(image.clone());
        }
        let mut layers = Vec::with_capacity(image.manifest.layers.len());
        for (index, descriptor) in image.manifest.layers.iter().enumerate() {
            let plain = matches!(descriptor.media_type, MediaType::OciLayer | MediaType::DockerLayer);
            layers.push(if plain { self.compress(image, index, compression)? } else { descriptor.clone() });
        }
        if layers == image.manifest.layers {
            return Ok(image.clone());
        }
        let manifest = Manifest { layers, ..image.manifest.clone() };
        let media_type = image.manifest_descriptor.media_type.clone();
        let manifest_descriptor = Descriptor::of(media_type, &manifest.to_bytes());
        Ok(StoredImage {
            target: manifest_descriptor.clone(),
            manifest_descriptor,
            manifest,
            ..image.clone()
        })
    }

    fn compress(
        &self,
        image: &StoredImage,
        index: usize,
        compression: Compression,
    ) -> Result<Descriptor, ImageError> {
        let diff_id = image.config.rootfs.diff_ids[index];
        let media_type = compression.media_type();
        for known in self.store.blobs_of(diff_id)? {
            if known.media_type == media_type && self.store.content().contains(known.digest)? {
                return Ok(known);
            }
        }
        let blob = self.blob(image, index)?;
        let writer = self.store.content().writer(LAYER_SIZE_BYTES_MAX)?;
        let failed = || ImageError::io("compress", format!("layer `{diff_id}`"));
        let mut encoder = Encoder::new(writer, compression.encoding(), &self.pool).map_err(failed())?;
        self.write_blob(&blob, &mut encoder)?;
        let writer = encoder.finish().map_err(failed())?;
        let (digest, size_bytes) = writer.commit(None)?;
        let descriptor = Descriptor::new(media_type, digest, size_bytes);
        self.store.record_blob(diff_id, &descriptor)?;
        Ok(descriptor)
    }

    /// A reader over a blob, for senders that want to read. A layer's tar is made on a thread as it is read.
    pub(super) fn read_blob(&self, blob: &Blob) -> Result<Box<dyn Read + Send>, ImageError> {
        match blob {
            Blob::Stored(digest) => {
                let missing = ImageError::MissingLayer { digest: *digest };
                Ok(Box::new(self.store.content().open(*digest)?.ok_or(missing)?))
            }
            Blob::Layer { .. } => {
                let (reader, mut writer) = io::pipe().map_err(ImageError::io("make", "a pipe"))?;
                let (images, blob) = (self.clone(), blob.clone());
                std::thread::spawn(move || {
                    // A reader that goes away breaks the pipe; the one that stays sees a short body and says so.
                    let _broken = images.write_blob(&blob, &mut writer);
                });
                Ok(Box::new(reader))
            }
        }
    }
}

/// The diff-id of a layer whose manifest entry is its plain tar.
pub(super) const fn plain_descriptor(diff_id: DiffId, size_bytes: u64) -> Descriptor {
    Descriptor::new(MediaType::OciLayer, diff_id.0, size_bytes)
}
