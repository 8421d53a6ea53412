//! What can go wrong with a layer.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::root_dir::PathError;

/// Making, reading or applying a layer failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The file system refused something.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The archive could not be read to its end, or could not be decompressed.
    #[error("failed to read the archive")]
    Read(#[source] io::Error),
    /// The archive could not be written.
    #[error("failed to write the archive")]
    Write(#[source] io::Error),
    /// The bytes are not a tar archive, or not a whole one.
    #[error("the archive is malformed after {offset} bytes")]
    Malformed {
        /// How many bytes of the archive had been understood.
        offset: u64,
        /// What is wrong with those that follow.
        #[source]
        source: tar_core::parse::ParseError,
    },
    /// The archive ends in the middle of an entry.
    #[error("the archive ends in the middle of `{}`", path.display())]
    Truncated {
        /// The entry.
        path: PathBuf,
    },
    /// An entry is understood, and not accepted.
    #[error("archive entry `{}` {reason}", path.display())]
    Refused {
        /// The entry's path as the archive has it.
        path: PathBuf,
        /// What is wrong with it.
        reason: Refusal,
    },
    /// Something is larger than rbuild takes.
    #[error("`{}` exceeds the limit of {max} {limit}", path.display())]
    LimitExceeded {
        /// The entry with which the limit was passed.
        path: PathBuf,
        /// What is limited, in the plural: `entries`, `bytes of content`.
        limit: &'static str,
        /// The limit.
        max: u64,
    },
    /// A file became shorter while it was read.
    #[error("`{}` shrank while it was read", path.display())]
    Shrank {
        /// The file.
        path: PathBuf,
    },
    /// An upper directory holds a mark whose meaning cannot be put into a layer.
    #[error("`{}` carries `{attribute}`: the overlay was mounted with an option that rbuild never uses", path.display())]
    ForeignOverlay {
        /// The file or directory.
        path: PathBuf,
        /// The attribute.
        attribute: &'static str,
    },
    /// The work was cancelled.
    #[error("cancelled")]
    Cancelled,
}

/// Why an entry of an archive is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// `..` at its start leads out of the archive.
    #[error("leads out of the root")]
    LeadsOut,
    /// A path holds a NUL byte.
    #[error("has a NUL byte in its name")]
    NulByte,
    /// A whiteout of nothing, of `.` or of `..`.
    #[error("is a whiteout of no file")]
    WhiteoutOfNothing,
    /// A character device 0/0, which would be a whiteout once it is in an overlay.
    #[error("is a device that overlayfs takes for a whiteout")]
    WhiteoutDevice,
    /// A link without a target.
    #[error("is a link without a target")]
    NoTarget,
    /// A hard link to something that neither the archive nor a lower layer holds.
    #[error("is a hard link to a file that does not exist")]
    TargetMissing,
    /// A hard link to a directory.
    #[error("is a hard link to a directory")]
    TargetIsDirectory,
    /// A kind of entry that is none of tar's.
    #[error("is of an unknown kind")]
    UnknownKind,
    /// An owner, size or device number that Linux does not have.
    #[error("has an owner, size or device number out of range")]
    NumberOutOfRange,
    /// Holes that overlap, leave the file, or do not add up to the data that follows.
    #[error("has a sparse map that contradicts itself")]
    SparseMap,
    /// A directory where something else is, which stays.
    #[error("is a directory, and cannot overwrite a non-directory")]
    DirectoryOverOther,
    /// Something else where a directory is, which stays.
    #[error("is a non-directory, and cannot overwrite a directory")]
    OtherOverDirectory,
    /// The root is something else than a directory.
    #[error("would replace the root directory")]
    ReplacesRoot,
}

impl Error {
    pub(crate) fn refused(path: impl AsRef<Path>, reason: Refusal) -> Self {
        Self::Refused { path: path.as_ref().to_owned(), reason }
    }

    pub(super) fn limit(path: impl AsRef<Path>, limit: &'static str, max: u64) -> Self {
        Self::LimitExceeded { path: path.as_ref().to_owned(), limit, max }
    }
}
