//! What can go wrong with the store: facts with their subject and verb.

use std::path::PathBuf;

use rbuild_image::{DiffId, Digest};
use rustix::io::Errno;
use thiserror::Error;

use crate::root_dir::PathError;
use crate::{LayerId, SnapshotId};

/// A `Result` of the store.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the store could not do what it was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of the store could not be worked on.
    #[error(transparent)]
    Path(#[from] PathError),
    /// What a container has written could not be read.
    #[error("failed to copy the layer `{}`", path.display())]
    CopyLayer {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        source: crate::layer::Error,
    },
    /// A query on the metadata failed.
    #[error("failed to {verb} in `{}`", path.display())]
    Database {
        /// What was tried, in the infinitive.
        verb: &'static str,
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A content digest could not be computed.
    #[error(transparent)]
    ContentDigest(#[from] crate::content_digest::Error),
    /// The metadata holds something that this version never writes.
    #[error("the metadata of the store is damaged: {table} holds {found}")]
    Damaged {
        /// The table.
        table: &'static str,
        /// What stands there.
        found: String,
    },
    /// The store was made by another version of rbuild.
    #[error("store `{}` has format `{found}` (this version reads `{supported}`)", root.display())]
    UnknownFormat {
        /// The store's root.
        root: PathBuf,
        /// What its `version` file says.
        found: String,
        /// What this version understands.
        supported: String,
    },
    /// A directory that holds other things than a store was given as its root.
    #[error("`{}` is neither empty nor a store", root.display())]
    NotAStore {
        /// The directory.
        root: PathBuf,
    },
    /// Content does not have the digest that it was announced with.
    #[error("content has digest `{found}` (expected `{expected}`)")]
    DigestMismatch {
        /// What was announced.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// Content ended before its announced size.
    #[error("content of `{digest}` ended after {found} of {expected} bytes")]
    Truncated {
        /// Whose content.
        digest: Digest,
        /// The announced size in bytes.
        expected: u64,
        /// How many bytes came.
        found: u64,
    },
    /// Content is larger than announced, or than accepted. What was written is discarded.
    #[error("content is larger than {limit} bytes")]
    TooLarge {
        /// The announced or accepted size in bytes.
        limit: u64,
    },
    /// The stream that content comes from failed.
    #[error("failed to receive content")]
    Receive {
        /// What the stream said.
        source: std::io::Error,
    },
    /// A manifest or an index in the store is none.
    #[error("failed to read `{digest}`")]
    Document {
        /// Which.
        digest: Digest,
        /// What is wrong with it.
        source: rbuild_image::ManifestError,
    },
    /// A blob that has to be there is not.
    #[error("blob `{0}` is not in the store")]
    BlobMissing(Digest),
    /// A layer that has to be there is not.
    #[error("layer {0} is not in the store")]
    LayerMissing(LayerId),
    /// No layer of a snapshot is known to have such an archive.
    #[error("no layer is known to have the archive `{}`", .0.0)]
    ArchiveUnknown(DiffId),
    /// A snapshot that has to be there is not.
    #[error("snapshot {0} is not in the store")]
    SnapshotMissing(SnapshotId),
    /// An unpacked archive is not the one that the image config names.
    #[error("layer has diff-id `{found}` (expected `{expected}`)")]
    DiffIdMismatch {
        /// What the image config says.
        expected: DiffId,
        /// What the archive has.
        found: DiffId,
    },
    /// A layer could not be unpacked.
    #[error("failed to unpack layer{}", diff_id.map(|id| format!(" `{id}`")).unwrap_or_default())]
    Unpack {
        /// Which, where that is known.
        diff_id: Option<DiffId>,
        /// What was wrong with it.
        source: crate::layer::Error,
    },
    /// A layer could not be made into an archive.
    #[error("failed to archive layer {layer}")]
    Archive {
        /// Which.
        layer: LayerId,
        /// What went wrong.
        source: crate::layer::Error,
    },
    /// A layer's image is not the one that was made. Whoever meets one has the store forget it, as a repair would: the image is all that
    /// is known of its files, so it can only be made of what it was made of.
    #[error(
        "the image of layer {0} is damaged: the layer was forgotten, and a build or a pull makes it anew"
    )]
    ImageDamaged(LayerId),
    /// A tree cannot be a layer.
    #[error("failed to write the image of a layer")]
    Image(#[source] crate::tree::erofs::ImageError),
    /// A tree was to be put into a directory of a layer that is not there.
    #[error("the layer has no directory `{}`", path.display())]
    GraftMissing {
        /// Which.
        path: PathBuf,
    },
    /// A file held something else when it was taken into a layer than when its digest was made.
    #[error("`{}` changed while it was copied", path.display())]
    SourceChanged {
        /// Where, relative to what is copied.
        path: PathBuf,
    },
    /// A layer in the making could not be read.
    #[error("failed to read the layer")]
    Walk(#[source] crate::content_digest::Error),
    /// The kernel refused a mount.
    #[error("failed to {verb} of {layers} layers{reason}")]
    Mount {
        /// What was tried, in the infinitive.
        verb: &'static str,
        /// How many layers the mount has.
        layers: usize,
        /// The kernel's messages, each after a colon.
        reason: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// An image or a container has that name or id already.
    #[error("name `{0}` is already in use")]
    NameInUse(String),
    /// Somebody uses the store, and must not.
    #[error("store `{}` is in use", root.display())]
    InUse {
        /// The store's root.
        root: PathBuf,
    },
    /// The caller gave up waiting.
    #[error("gave up waiting for `{}`", path.display())]
    Cancelled {
        /// The lock file.
        path: PathBuf,
    },
}

impl Error {
    /// Whether a layer could not be unpacked because its archive links to a file that it does not hold, but a layer below may.
    pub const fn needs_layers_below(&self) -> bool {
        use crate::layer::Error::Refused;
        use crate::layer::Refusal::TargetMissing;
        matches!(self, Self::Unpack { source: Refused { reason: TargetMissing, .. }, .. })
    }

    /// Whether an archive that was to be a layer is to blame, rather than the store.
    pub const fn is_of_archive(&self) -> bool {
        match self {
            Self::Unpack { source, .. } => !matches!(source, crate::layer::Error::Path(_)),
            Self::DiffIdMismatch { .. } => true,
            _ => false,
        }
    }

    /// Whether the metadata cannot be read for what is in it.
    pub fn is_damaged_metadata(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match self {
            Self::Database { source, .. } => {
                matches!(source.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
            }
            Self::Damaged { .. } => true,
            _ => false,
        }
    }

    /// Whether the cause is a full disk or an exhausted quota.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Path(error) => matches!(error.errno(), Some(Errno::NOSPC | Errno::DQUOT)),
            Self::Database { source, .. } => {
                source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
            }
            _ => false,
        }
    }
}
