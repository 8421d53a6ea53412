//! What goes wrong with images.

use rbuild_image::{DiffId, Digest, ManifestError, MediaType, Platform, Reference};
use thiserror::Error;

/// Why something could not be done with an image.
#[derive(Debug, Error)]
pub enum ImageError {
    /// There is no such image in the store.
    #[error("No such image: {name}")]
    NotFound {
        /// What was asked for, as a whole name where it can be one.
        name: String,
    },
    /// Several images begin so.
    #[error("multiple IDs found with provided prefix: {prefix}")]
    Ambiguous {
        /// What was asked for.
        prefix: String,
    },
    /// The image has nothing for the platform.
    #[error("image `{name}` has no manifest for platform {platform}")]
    NoPlatform {
        /// The image.
        name: String,
        /// The platform.
        platform: Platform,
    },
    /// A document that the store should have is not there.
    #[error("the store has no document `{digest}`")]
    MissingDocument {
        /// The document.
        digest: Digest,
    },
    /// A document cannot be read.
    #[error("failed to read document `{digest}`")]
    Document {
        /// The document.
        digest: Digest,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// A statement about an image cannot be read.
    #[error("failed to read statement `{digest}`")]
    Statement {
        /// The statement.
        digest: Digest,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A file that a scanner wrote is no statement.
    #[error("failed to read statement `{name}` of the scanner")]
    ScannedStatement {
        /// The file.
        name: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A scanner says how the image was made.
    #[error("the scanner may not say how the image was made: `{name}`")]
    ScannedProvenance {
        /// The file.
        name: String,
    },
    /// The manifest and the config do not have the same number of layers.
    #[error("image `{name}` names {layers} layers, but its config has {diff_ids}")]
    LayerCount {
        /// The image.
        name: String,
        /// Layers of the manifest.
        layers: usize,
        /// Layers of the config.
        diff_ids: usize,
    },
    /// A layer cannot be unpacked.
    #[error("failed to unpack layer `{digest}` (diff id `{diff_id}`)")]
    Unpack {
        /// The layer's blob.
        digest: Digest,
        /// Its diff-id.
        diff_id: DiffId,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A layer is neither a blob nor a snapshot of the store.
    #[error("the store does not have layer `{digest}`")]
    MissingLayer {
        /// The layer.
        digest: Digest,
    },
    /// The image is not in the store, and a registry may not be asked.
    #[error("image `{name}` is not in the store, and the pull policy forbids to ask a registry")]
    NotPulled {
        /// The image.
        name: String,
    },
    /// The reference leads to something of another type.
    #[error("`{name}` is of type `{found}` (expected `{expected}`)")]
    OtherArtifact {
        /// The reference.
        name: String,
        /// What it leads to.
        found: MediaType,
        /// What was asked for.
        expected: MediaType,
    },
    /// The archive is no image.
    #[error("the archive holds no image: it has neither `index.json` nor `manifest.json`")]
    NotAnArchive,
    /// An archive ends early, or is none.
    #[error("the archive is damaged, or no tar: {reason}")]
    DamagedArchive {
        /// What is wrong with it.
        reason: String,
    },
    /// An archive names a file that it does not hold.
    #[error("the archive names `{path}`, but does not hold it")]
    ArchiveEntry {
        /// The file.
        path: String,
    },
    /// A link of an archive leads to where nothing of the archive can be.
    #[error("the archive's link `{path}` leads out of it, to `{target}`")]
    ArchiveLink {
        /// The link.
        path: String,
        /// What it leads to, from the archive's root.
        target: String,
    },
    /// An archive names an image by what is no name, or stands for one digest.
    #[error("the archive names an image `{tag}`, which is no tag")]
    ArchiveTag {
        /// The name.
        tag: String,
    },
    /// A document of an archive cannot be read.
    #[error("failed to read `{path}` of the archive")]
    ArchiveDocument {
        /// The document.
        path: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A named thing could not be read or written.
    #[error("failed to {verb} {subject}")]
    Io {
        /// What was being done.
        verb: &'static str,
        /// To what.
        subject: String,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The user asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// An imported archive could not be unpacked.
    #[error("failed to unpack the archive")]
    Import(#[from] rbuild_cache::layer::Error),
    /// A path could not be used.
    #[error(transparent)]
    Path(#[from] rbuild_cache::root_dir::PathError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] rbuild_cache::Error),
    /// A registry failed.
    #[error(transparent)]
    Registry(#[from] rbuild_registry::Error),
}

impl ImageError {
    /// There is no image of this name in the store.
    pub fn not_found(name: &str) -> Self {
        let whole = |reference: Reference| reference.familiar();
        Self::NotFound { name: name.parse().map_or_else(|_| name.to_owned(), whole) }
    }

    /// Gives an I/O error its verb and subject.
    pub(crate) fn io(verb: &'static str, subject: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let subject = subject.into();
        move |source| Self::Io { verb, subject, source }
    }
}
