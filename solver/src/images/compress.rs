//! The compressed forms of layers: made once, remembered under the layer's diff-id.

use std::io::{self, Read, Write};

use rbuild_cache::layer::LAYER_SIZE_BYTES_MAX;
use rbuild_cache::layer::compression::{Encoder, Encoding};
use rbuild_cache::{LayerTar, Snapshot};
use rbuild_image::{Descriptor, DiffId, Digest, MediaType};

use super::produced::produced;
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

    /// The form that a layer of this type has; `None` where it is unknown.
    const fn of(media_type: &MediaType) -> Option<Self> {
        match media_type {
            MediaType::OciLayer | MediaType::DockerLayer => Some(Self::None),
            MediaType::OciLayerGzip | MediaType::DockerLayerGzip => Some(Self::Gzip),
            MediaType::OciLayerZstd => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// What becomes of layers when they leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompressionConfig {
    /// The form of those that are not compressed yet.
    pub compression: Compression,
    /// How hard to try; the level that everybody uses if there is none.
    pub level: Option<i32>,
    /// Whether layers that are compressed in another form are brought into this one.
    pub force: bool,
}

impl CompressionConfig {
    /// Lets all layers leave as they are.
    pub const KEEPING: Self = Self { compression: Compression::None, level: None, force: false };

    fn encoding(&self) -> Encoding {
        match self.compression {
            Compression::None => Encoding::None,
            Compression::Gzip => {
                Encoding::Gzip { level: self.level.and_then(|level| u32::try_from(level).ok()).unwrap_or(6) }
            }
            Compression::Zstd => Encoding::Zstd { level: self.level.unwrap_or(3) },
        }
    }

    /// Whether a layer of this type leaves as it is.
    fn keeps(&self, media_type: &MediaType) -> bool {
        match Compression::of(media_type) {
            Some(found) if found == self.compression => true,
            Some(Compression::None) => false,
            Some(_) => !self.force,
            None => true,
        }
    }
}

/// A layer that leaves.
#[derive(Debug, Clone)]
pub(crate) struct LeavingLayer {
    /// What it unpacks to.
    pub(crate) diff_id: DiffId,
    /// The form that an image has it in.
    pub(super) descriptor: Descriptor,
    /// Its tar, if the layer is here.
    tar: Option<Blob>,
}

impl LeavingLayer {
    /// How it is compressed anew, where its blob is elsewhere: in the form that the image has it in.
    pub(super) fn own_form(&self) -> Result<CompressionConfig, ImageError> {
        let compression = Compression::of(&self.descriptor.media_type);
        let compression = compression.ok_or(ImageError::MissingLayer { digest: self.descriptor.digest })?;
        Ok(CompressionConfig { compression, ..CompressionConfig::default() })
    }

    /// Its tar.
    pub(super) fn tar(&self) -> Result<&Blob, ImageError> {
        self.tar.as_ref().ok_or(ImageError::MissingLayer { digest: self.descriptor.digest })
    }
}

/// What becomes of one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Leaving {
    /// It is in a form that will do; whether the store has that is another question.
    AsIs,
    /// It was compressed before, to this; whether the store still has that is another question, too.
    Known(Descriptor),
    /// It has to be compressed.
    New,
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
        /// Which of the tars of its layers.
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
                Ok(Blob::Layer { snapshot, diff_id: *diff_id })
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
            Blob::Layer { snapshot, diff_id } => self.store.write_layer(snapshot, *diff_id, out)?,
        }
        Ok(())
    }

    /// A layer of an image, as it leaves. An image whose layers are elsewhere has none to give.
    pub(super) fn leaving_layer(
        &self,
        image: &StoredImage,
        index: usize,
    ) -> Result<LeavingLayer, ImageError> {
        let uneven = || image.uneven(image.manifest_descriptor.digest.to_string());
        let diff_id = *image.config.rootfs.diff_ids.get(index).ok_or_else(uneven)?;
        let snapshot = self.snapshot(image)?;
        let tar = snapshot.map(|snapshot| Blob::Layer { snapshot, diff_id });
        Ok(LeavingLayer { diff_id, descriptor: image.manifest.layers[index].clone(), tar })
    }

    /// The layers of a snapshot as they leave, bottom first, with what is known of each.
    pub(crate) fn leaving_layers(
        &self,
        snapshot: &Snapshot,
    ) -> Result<Vec<(LeavingLayer, LayerTar)>, ImageError> {
        let layer = |known: LayerTar| {
            let LayerTar { diff_id, size_bytes, .. } = known;
            let tar = Some(Blob::Layer { snapshot: snapshot.clone(), diff_id });
            Ok((LeavingLayer { diff_id, descriptor: self.kept_blob(diff_id, size_bytes)?, tar }, known))
        };
        self.store.describe_layers(snapshot, None)?.into_iter().map(layer).collect()
    }

    /// What becomes of a layer when it leaves.
    pub(super) fn leaving(
        &self,
        layer: &LeavingLayer,
        config: &CompressionConfig,
    ) -> Result<Leaving, ImageError> {
        if config.keeps(&layer.descriptor.media_type) {
            return Ok(Leaving::AsIs);
        }
        let media_type = config.compression.media_type();
        let mut known = self.store.blobs_of(layer.diff_id)?.into_iter();
        Ok(known.rfind(|known| known.media_type == media_type).map_or(Leaving::New, Leaving::Known))
    }

    /// A layer in the form in which it leaves, as a blob of the content store.
    ///
    /// # Errors
    /// When the layer is missing or the store fails.
    pub(super) fn compress(
        &self,
        layer: &LeavingLayer,
        config: &CompressionConfig,
    ) -> Result<Descriptor, ImageError> {
        let is_here = |digest| self.store.content().contains(digest);
        let config = match self.leaving(layer, config)? {
            // An image that has a layer as its tar has it under its diff-id.
            Leaving::AsIs if layer.descriptor.digest == layer.diff_id.0 => {
                return Ok(layer.descriptor.clone());
            }
            Leaving::AsIs if is_here(layer.descriptor.digest)? => return Ok(layer.descriptor.clone()),
            Leaving::Known(known) if is_here(known.digest)? => return Ok(known),
            Leaving::AsIs => layer.own_form()?,
            Leaving::Known(_) | Leaving::New => *config,
        };
        let mut writer = self.store.content().writer(LAYER_SIZE_BYTES_MAX)?;
        self.write_compressed(layer.tar()?, &config, &mut writer)?;
        let (digest, size_bytes) = writer.commit(None)?;
        let compressed = Descriptor::new(config.compression.media_type(), digest, size_bytes);
        self.store.record_blob(layer.diff_id, &compressed)?;
        Ok(compressed)
    }

    /// Writes a tar in a compressed form.
    pub(super) fn write_compressed(
        &self,
        tar: &Blob,
        config: &CompressionConfig,
        out: &mut dyn Write,
    ) -> Result<(), ImageError> {
        let failed = || ImageError::io("compress", "a layer");
        let pool = self.threads.pool().map_err(failed())?;
        let mut encoder = Encoder::new(out, config.encoding(), pool).map_err(failed())?;
        self.write_blob(tar, &mut encoder)?;
        encoder.finish().map(drop).map_err(failed())
    }

    /// A reader over a blob, for senders that want to read. A layer's tar is made on a thread as it is read.
    pub(super) fn read_blob(&self, blob: &Blob) -> Result<Box<dyn Read + Send>, ImageError> {
        match blob {
            Blob::Stored(digest) => {
                let missing = ImageError::MissingLayer { digest: *digest };
                Ok(Box::new(self.store.content().open(*digest)?.ok_or(missing)?))
            }
            Blob::Layer { .. } => {
                let (images, blob) = (self.clone(), blob.clone());
                Ok(Box::new(produced(move |out| images.write_blob(&blob, out))))
            }
        }
    }
}

/// The diff-id of a layer whose manifest entry is its plain tar.
pub(super) const fn plain_descriptor(diff_id: DiffId, size_bytes: u64) -> Descriptor {
    Descriptor::new(MediaType::OciLayer, diff_id.0, size_bytes)
}
