//! The blobs of the store, and which of them images need.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::SystemTime;

use rbuild_image::Digest;

use super::measure::BLOCK_BYTES;
use crate::images::visit_blobs;
use crate::root_dir::At as _;
use crate::{Error, Result, Store};

/// A blob on disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blob {
    pub(super) digest: Digest,
    pub(super) size_bytes: u64,
    pub(super) used: SystemTime,
}

/// An image, and the blobs that it names, whether they are there or not.
#[derive(Debug)]
pub(super) struct ImageBlobs {
    pub(super) target: Digest,
    pub(super) id: String,
    pub(super) names: Vec<String>,
    pub(super) created: i64,
    pub(super) blobs: Vec<Digest>,
}

impl Store {
    pub(super) fn list_blobs(&self) -> Result<Vec<Blob>> {
        let mut blobs = Vec::new();
        for digest in self.content().list()? {
            let path = self.0.layout.blob(digest);
            // Pruned by somebody else meanwhile.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let used = metadata.modified().at("read the attributes of", &path)?;
            blobs.push(Blob { digest, size_bytes: metadata.blocks() * BLOCK_BYTES, used });
        }
        Ok(blobs)
    }

    pub(super) fn list_image_blobs(&self) -> Result<Vec<ImageBlobs>> {
        let images = self.images().list()?.into_iter().map(|image| {
            let mut blobs = Vec::new();
            match visit_blobs(self, &image.target, &mut |blob| blobs.push(blob.digest)) {
                // What a broken document names is unknown; `check` tells of it.
                Err(Error::Document { .. } | Error::TooLarge { .. }) => {}
                visited => visited?,
            }
            Ok(ImageBlobs {
                target: image.target.digest,
                id: image.id().hex()[..12].to_owned(),
                names: image.names.iter().map(rbuild_image::Reference::familiar).collect(),
                created: image.created,
                blobs,
            })
        });
        images.collect()
    }
}
