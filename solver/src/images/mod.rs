//! Images: in the store, from and to registries, from and to archives.
//!
//! An image in the store is a name, the descriptor of its manifest (or index), and the documents behind it. Its layers
//! are snapshots. A layer that came from elsewhere keeps the blob it came as; a layer that was made here is described
//! by its *uncompressed* tar, which exists only while it is written somewhere; `compress::Blob` is either of the two.

mod archive;
mod artifact;
mod assemble;
mod attest;
mod beside;
mod compress;
mod copy;
mod error;
mod import;
mod layout;
mod load;
mod parallel;
mod produced;
mod pull;
mod push;
mod resolve;
mod save;
mod size;
mod target;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rbuild_cache::{ImageRecord, Snapshot, Store};
use rbuild_image::{Descriptor, Digest, ImageConfig, Index, Manifest, Platform, Reference};
use rbuild_registry::{Client, RemoteStore};

use crate::threads::Threads;

pub use archive::{ArchiveFormat, DirectorySink, LayoutSink, TarSink};
pub(crate) use artifact::{EMPTY, EMPTY_TYPE};
pub use assemble::{AssembleOptions, Dating, DescribedLayer};
pub use attest::{Attestation, Predicate};
pub(crate) use compress::LeavingLayer;
pub use compress::{Compression, CompressionConfig};
pub use error::ImageError;
pub use import::ImportOptions;
pub use layout::LayoutSelector;
pub use load::Loaded;
pub(crate) use parallel::in_parallel;
pub(crate) use produced::produced;
pub(crate) use pull::PackedLayer;
pub use resolve::PullPolicy;
pub use save::Saved;
pub use size::LayerSizes;
pub use target::Target;

/// An image of the store, for one platform.
#[derive(Debug, Clone)]
pub struct StoredImage {
    /// What its name stands for: a manifest, or an index that the manifest was chosen from.
    pub target: Descriptor,
    /// Its manifest.
    pub manifest_descriptor: Descriptor,
    /// The manifest, parsed.
    pub manifest: Manifest,
    /// Its config, parsed.
    pub config: ImageConfig,
}

impl StoredImage {
    /// The image's id: the digest of its config, as Docker has it.
    pub const fn id(&self) -> Digest {
        self.manifest.config.digest
    }

    /// What is wrong with one whose manifest has other layers than its config.
    fn uneven(&self, name: String) -> ImageError {
        let (layers, diff_ids) = (self.manifest.layers.len(), self.config.rootfs.diff_ids.len());
        ImageError::LayerCount { name, layers, diff_ids }
    }
}

/// How many bytes of something have moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// What moves: the short digest of a blob, or `extracting` and that.
    pub name: String,
    /// How much has moved.
    pub current_bytes: u64,
    /// How much there is.
    pub total_bytes: Option<u64>,
}

/// What long work with images is given: whom to tell, and whether to stop.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Told of every transfer.
    pub transfers: &'a (dyn Fn(Transfer) + Sync),
    /// Set when the work must stop.
    pub cancel: &'a AtomicBool,
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("cancel", self.cancel).finish_non_exhaustive()
    }
}

/// The images of a store, and the way to registries.
#[derive(Debug, Clone)]
pub struct Images {
    store: Store,
    registry: Arc<Client>,
    threads: Threads,
}

impl Images {
    /// The images of `store`; `registry` fetches what it lacks, layers are compressed on `threads`.
    pub const fn new(store: Store, registry: Arc<Client>, threads: Threads) -> Self {
        Self { store, registry, threads }
    }

    /// Threads for heavy work.
    pub(crate) fn pool(&self) -> std::io::Result<&Arc<rayon::ThreadPool>> {
        self.threads.pool()
    }

    /// The store they are in.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// The repository of a name.
    pub(crate) fn repository(&self, reference: &Reference) -> RemoteStore {
        RemoteStore::repository(self.registry_handle(), reference.clone())
    }

    /// The way to registries, to keep.
    pub fn registry_handle(&self) -> Arc<Client> {
        Arc::clone(&self.registry)
    }

    /// The way to registries, and to other servers.
    pub(crate) fn registry(&self) -> &Client {
        &self.registry
    }

    /// The image of this name, for `platform`; `None` as well when its documents for that platform are not here.
    ///
    /// # Errors
    /// When its documents are damaged.
    pub fn get(&self, reference: &Reference, platform: &Platform) -> Result<Option<StoredImage>, ImageError> {
        let record = self.store.images().get(reference)?;
        record.map_or(Ok(None), |record| self.open_exactly(&record.target, platform))
    }

    /// The image that a person means by `name`: a name, an id, or the unique beginning of an id. Of one that is here in several forms
    /// it is one that has a name, where any has.
    ///
    /// # Errors
    /// When there is none, or several.
    pub fn find(&self, name: &str) -> Result<ImageRecord, ImageError> {
        let by_name = name.parse::<Reference>().ok().map(|reference| self.store.images().get(&reference));
        if let Some(record) = by_name.transpose()?.flatten() {
            return Ok(record);
        }
        let mut found = self.store.images().by_id_prefix(name)?;
        found.sort_by_key(|record| !record.names.is_empty());
        match found.pop() {
            Some(record) if found.iter().all(|other| other.id() == record.id()) => Ok(record),
            Some(_) => Err(ImageError::Ambiguous { prefix: name.to_owned() }),
            None => Err(ImageError::not_found(name)),
        }
    }

    /// Reads the documents behind a descriptor of the store: of an index the image for `platform`, or the first one that is here.
    ///
    /// # Errors
    /// As [`get`](Self::get), and when none is here.
    pub fn open(&self, target: &Descriptor, platform: &Platform) -> Result<StoredImage, ImageError> {
        if !target.media_type.is_index() {
            return self.open_manifest(target, target.clone());
        }
        let index = self.document(target, Index::parse)?;
        let mut missing =
            ImageError::NoPlatform { name: target.digest.to_string(), platform: platform.clone() };
        for entry in index.select(platform).into_iter().chain(index.images()) {
            match self.open_manifest(target, entry.clone()) {
                Err(error @ ImageError::MissingDocument { .. }) => missing = error,
                opened => return opened,
            }
        }
        Err(missing)
    }

    /// As [`open`](Self::open), for exactly this platform where there is a choice; `None` when its documents are not here.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn open_exactly(
        &self,
        target: &Descriptor,
        platform: &Platform,
    ) -> Result<Option<StoredImage>, ImageError> {
        let manifest = if target.media_type.is_index() {
            let Some(index) = there(self.document(target, Index::parse))? else { return Ok(None) };
            index.select(platform).cloned()
        } else {
            Some(target.clone())
        };
        manifest.map_or(Ok(None), |manifest| there(self.open_manifest(target, manifest)))
    }

    fn open_manifest(
        &self,
        target: &Descriptor,
        manifest_descriptor: Descriptor,
    ) -> Result<StoredImage, ImageError> {
        let manifest = self.document(&manifest_descriptor, Manifest::parse)?;
        let config = self.document(&manifest.config, ImageConfig::parse)?;
        Ok(StoredImage { target: target.clone(), manifest_descriptor, manifest, config })
    }

    /// The snapshot of an image whose layers are in the store.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn snapshot(&self, image: &StoredImage) -> Result<Option<Snapshot>, ImageError> {
        Ok(self.store.snapshot_of_chain(&image.config.rootfs.diff_ids)?)
    }

    fn document<T>(
        &self,
        descriptor: &Descriptor,
        parse: impl FnOnce(&[u8]) -> Result<T, rbuild_image::ManifestError>,
    ) -> Result<T, ImageError> {
        let digest = descriptor.digest;
        let bytes = self.store.content().read(digest, rbuild_image::MANIFEST_SIZE_BYTES_MAX)?;
        let bytes = bytes.ok_or(ImageError::MissingDocument { digest })?;
        parse(&bytes).map_err(|source| ImageError::Document { digest, source })
    }
}

/// What is not in the store is no error.
fn there<T>(found: Result<T, ImageError>) -> Result<Option<T>, ImageError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(ImageError::MissingDocument { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
