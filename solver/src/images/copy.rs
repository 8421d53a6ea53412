//! From one name to another, at registries: nothing is unpacked, and nothing kept here.

use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::atomic::AtomicBool;

use rbuild_image::{Descriptor, Digest, Index, Manifest, Reference};
use rbuild_registry::{BlobUpload, RemoteStore, Resolved};

use super::parallel::in_parallel;
use super::produced::produced;
use super::push::reporting;
use super::{ImageError, Images, Watch};

/// How many blobs are copied at a time.
const COPIES_MAX: usize = 4;
/// An index in an index is allowed and unheard of.
const DEPTH_MAX: usize = 3;

/// Of a blob that is read while it is sent, the sender decides when to stop.
static NEVER: AtomicBool = AtomicBool::new(false);

impl Images {
    /// Copies what a name stands for, of all platforms, to another name: blobs are taken from one repository to the other by the
    /// registry where both are of one, and streamed otherwise.
    ///
    /// # Errors
    /// When a registry fails, or what it has is not what its digests say.
    pub fn copy(&self, from: &Reference, to: &Reference, watch: Watch<'_>) -> Result<Digest, ImageError> {
        let mut manifests = vec![self.registry.resolve(from, watch.cancel)?];
        let mut seen = HashSet::from([manifests[0].descriptor.digest]);
        let mut next = 0;
        // An index comes before what is in it.
        for _ in 0..DEPTH_MAX {
            let end = manifests.len();
            for at in next..end {
                for entry in entries(&manifests[at])? {
                    if seen.insert(entry.digest) {
                        manifests.push(self.registry.resolve(&from.with_digest(entry.digest), watch.cancel)?);
                    }
                }
            }
            next = end;
        }
        let mut blobs = Vec::new();
        for manifest in manifests.iter().filter(|found| !found.descriptor.media_type.is_index()) {
            let Manifest { config, layers, .. } = parse(manifest, Manifest::parse)?;
            blobs.extend(layers.into_iter().chain([config]).filter(|blob| seen.insert(blob.digest)));
        }
        let [source, destination] = [from, to].map(|name| self.repository(name));
        in_parallel(&blobs, COPIES_MAX, |blob| self.copy_blob(&source, &destination, blob, watch))?;
        for (at, manifest) in manifests.iter().enumerate().rev() {
            let Resolved { descriptor, bytes } = manifest;
            let place = if at == 0 { to.clone() } else { to.with_digest(descriptor.digest) };
            self.registry.push_manifest(&place, &descriptor.media_type, bytes, watch.cancel)?;
        }
        Ok(manifests[0].descriptor.digest)
    }

    /// Sees to it that one place has a blob of another.
    pub(crate) fn copy_blob(
        &self,
        from: &RemoteStore,
        to: &RemoteStore,
        blob: &Descriptor,
        watch: Watch<'_>,
    ) -> Result<(), ImageError> {
        let same_registry =
            from.reference().map(Reference::registry) == to.reference().map(Reference::registry);
        let source = from.reference().map(|from| from.repository().to_owned());
        let mount_from: Vec<String> = source.filter(|_| same_registry).into_iter().collect();
        let open = || -> io::Result<Box<dyn Read + Send>> {
            let (from, blob) = (from.clone(), blob.clone());
            Ok(Box::new(produced(move |out| {
                let unwatched = rbuild_registry::Watch { progress: &|_| {}, cancel: &NEVER };
                Ok(from.fetch_blob(&blob, out, unwatched)?)
            })))
        };
        let progress = reporting(watch, blob.digest.short(), Some(blob.size_bytes));
        let upload = BlobUpload { descriptor: blob, open: &open, mount_from: &mount_from };
        to.push_blob(&upload, rbuild_registry::Watch { progress: &progress, cancel: watch.cancel })?;
        self.remember_place(to, blob.digest)
    }
}

/// What an index holds; of a manifest nothing.
fn entries(document: &Resolved) -> Result<Vec<Descriptor>, ImageError> {
    if !document.descriptor.media_type.is_index() {
        return Ok(Vec::new());
    }
    Ok(parse(document, Index::parse)?.manifests)
}

fn parse<T>(
    document: &Resolved,
    parse: impl FnOnce(&[u8]) -> Result<T, rbuild_image::ManifestError>,
) -> Result<T, ImageError> {
    let digest = document.descriptor.digest;
    parse(&document.bytes).map_err(|source| ImageError::Document { digest, source })
}
