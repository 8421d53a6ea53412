//! From a name to an image's documents: in the store first, at a registry if it must be.

use std::sync::atomic::AtomicBool;

use rbuild_cache::Expected;
use rbuild_image::{Descriptor, Index, MANIFEST_SIZE_BYTES_MAX, MediaType, Platform, Reference};

use super::{ImageError, Images, StoredImage};

/// When a registry is asked for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// Even if the store has it.
    Always,
    /// If the store does not have it.
    Missing,
    /// Never.
    Never,
    /// Even if the store has it, which does if the registry cannot be asked.
    Newer,
}

impl Images {
    /// The documents of an image; they are in the store afterwards, its layers perhaps not.
    ///
    /// # Errors
    /// When neither the store nor the registry has it.
    pub fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        policy: PullPolicy,
        cancel: &AtomicBool,
    ) -> Result<StoredImage, ImageError> {
        let here = match policy {
            PullPolicy::Always => None,
            PullPolicy::Missing | PullPolicy::Never | PullPolicy::Newer => {
                self.get_pinned(reference, platform)?
            }
        };
        match (policy, here) {
            (PullPolicy::Missing | PullPolicy::Never, Some(image)) => Ok(image),
            (PullPolicy::Never, None) => Err(ImageError::NotPulled { name: reference.familiar() }),
            (PullPolicy::Newer, Some(image)) => match self.fetch_documents(reference, platform, cancel) {
                Err(ImageError::Registry(error)) if error.is_unanswered() => Ok(image),
                fetched => fetched,
            },
            (_, _) => self.fetch_documents(reference, platform, cancel),
        }
    }

    /// As `get`, but a reference with a digest is found by that, under whatever name it came.
    fn get_pinned(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Option<StoredImage>, ImageError> {
        let Some(digest) = reference.digest() else {
            return self.get(reference, platform);
        };
        let Some(bytes) = self.store.content().read(digest, MANIFEST_SIZE_BYTES_MAX)? else {
            return Ok(None);
        };
        let media_type =
            if Index::parse(&bytes).is_ok() { MediaType::OciIndex } else { MediaType::OciManifest };
        let target = Descriptor::new(media_type, digest, bytes.len() as u64);
        self.open_exactly(&target, platform)
    }

    fn fetch_documents(
        &self,
        reference: &Reference,
        platform: &Platform,
        cancel: &AtomicBool,
    ) -> Result<StoredImage, ImageError> {
        let found = self.registry.resolve_platform(reference, platform, cancel)?;
        let target = found.index.as_ref().unwrap_or(&found.manifest).descriptor.clone();
        for document in found.index.iter().chain([&found.manifest, &found.config]) {
            self.keep(&document.descriptor, &document.bytes)?;
        }
        self.store.images().put(reference, &target, &[])?;
        // That is what the name leads to there, whatever was pushed under it before.
        self.store.images().note_pushed(reference, target.digest, target.digest)?;
        self.open(&target, platform)
    }

    /// Stores a document under its digest.
    pub(super) fn keep(&self, descriptor: &Descriptor, bytes: &[u8]) -> Result<(), ImageError> {
        self.store.content().ingest(&mut &bytes[..], Expected::from(descriptor))?;
        Ok(())
    }
}
