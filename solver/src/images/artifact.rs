//! Trees that are no images, in registries: OCI artifacts. One is a manifest with a type of its own, an empty config, and
//! layers: tars, to be unpacked one after another into the same directory.
//!
//! Its blobs pass through the content store, so that a transfer can go on where it broke off, and do not stay there.

use std::io::{self, Read, Write};

use rbuild_cache::layer::compression::{Encoder, Encoding, decompress};
use rbuild_image::{Descriptor, Digest, Manifest, MediaType, Reference};

use super::compress::Blob;
use super::{ImageError, Images, Watch};

/// What the config of an artifact that needs none is, says the image specification.
pub(crate) const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
pub(crate) const EMPTY: &[u8] = b"{}";
/// Fast, and most of what can be had.
const ENCODING: Encoding = Encoding::Zstd { level: 3 };

impl Images {
    /// Sends the tar that `write` writes to a registry, as an artifact of a type. Returns the digest of its manifest.
    ///
    /// # Errors
    /// `write`'s, as [`ImageError::Io`]; when the store cannot be written, or the registry refuses.
    pub fn push_artifact(
        &self,
        reference: &Reference,
        artifact_type: &MediaType,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
        watch: Watch<'_>,
    ) -> Result<Digest, ImageError> {
        let layer = self.store_tar(write)?;
        let pushed = self.push_tar(reference, artifact_type, &layer, watch);
        self.store.discard_blob(layer.digest)?;
        pushed
    }

    /// Fetches an artifact, and gives `unpack` its tars in their order.
    ///
    /// # Errors
    /// `unpack`'s; when the reference leads to something else than an artifact of this type, or a registry or the store fails.
    pub fn pull_artifact<E: From<ImageError>>(
        &self,
        reference: &Reference,
        artifact_type: &MediaType,
        mut unpack: impl FnMut(&mut (dyn Read + Send)) -> Result<(), E>,
        watch: Watch<'_>,
    ) -> Result<(), E> {
        for layer in &self.artifact(reference, artifact_type, watch)?.layers {
            self.fetch_blob(&self.repository(reference), layer, watch)?;
            let unpacked = self.open_tar(layer).map_err(E::from).and_then(|mut tar| unpack(&mut tar));
            self.store.discard_blob(layer.digest).map_err(ImageError::from)?;
            unpacked?;
        }
        Ok(())
    }

    fn store_tar(
        &self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<Descriptor, ImageError> {
        let failed = || ImageError::io("write", "a compressed tar");
        let blob = self.store.content().writer(u64::MAX)?;
        let pool = self.threads.pool().map_err(failed())?;
        let mut out = Encoder::new(blob, ENCODING, pool).map_err(failed())?;
        write(&mut out).map_err(failed())?;
        let (digest, size_bytes) = out.finish().map_err(failed())?.commit(None)?;
        Ok(Descriptor { digest, size_bytes, ..Descriptor::of(MediaType::OciLayerZstd, &[]) })
    }

    fn push_tar(
        &self,
        reference: &Reference,
        artifact_type: &MediaType,
        layer: &Descriptor,
        watch: Watch<'_>,
    ) -> Result<Digest, ImageError> {
        let config = Descriptor::of(EMPTY_TYPE.into(), EMPTY);
        self.store.content().put(EMPTY)?;
        for blob in [&config, layer] {
            self.push_stored(&self.repository(reference), blob, watch)?;
        }
        let manifest = Manifest {
            artifact_type: Some(artifact_type.clone()),
            ..Manifest::new(config, vec![layer.clone()])
        };
        let (media_type, bytes) = (MediaType::OciManifest, manifest.to_bytes());
        Ok(self.registry.push_manifest(reference, &media_type, &bytes, watch.cancel)?)
    }

    fn artifact(
        &self,
        reference: &Reference,
        artifact_type: &MediaType,
        watch: Watch<'_>,
    ) -> Result<Manifest, ImageError> {
        let resolved = self.registry.resolve(reference, watch.cancel)?;
        let other = |found: &MediaType| ImageError::OtherArtifact {
            name: reference.familiar(),
            found: found.clone(),
            expected: artifact_type.clone(),
        };
        if !resolved.descriptor.media_type.is_manifest() {
            return Err(other(&resolved.descriptor.media_type));
        }
        let digest = resolved.descriptor.digest;
        let manifest =
            Manifest::parse(&resolved.bytes).map_err(|source| ImageError::Document { digest, source })?;
        // Before there was a field for it, the config's type said what an artifact is.
        let found = manifest.artifact_type.as_ref().unwrap_or(&manifest.config.media_type);
        if found == artifact_type { Ok(manifest) } else { Err(other(found)) }
    }

    fn open_tar(&self, layer: &Descriptor) -> Result<impl Read + Send + use<>, ImageError> {
        let blob = self.read_blob(&Blob::Stored(layer.digest))?;
        let failed =
            |error| ImageError::io("read", format!("blob `{}`", layer.digest))(io::Error::other(error));
        decompress(blob).map_err(failed)
    }
}
