//! Why a file action could not be done.

use std::path::PathBuf;

use rbuild_cache::root_dir::PathError;
use rbuild_llb::pattern::PatternError;
use thiserror::Error;

use super::ParseModeError;

/// Why a file action could not be done.
#[derive(Debug, Error)]
pub enum FileError {
    /// A source that is not there.
    #[error("`{path}`: not found")]
    NotFound {
        /// The path as the user wrote it.
        path: String,
        /// Whether it is there and the `.dockerignore` hides it.
        ignored: bool,
        /// Names in the same directory that resemble it, the closest first, as paths.
        similar: Vec<String>,
    },
    /// A directory is copied to where a file is, or something is put below a file.
    #[error("cannot copy to non-directory: `{}`", path.display())]
    NotADirectory {
        /// The file, in the destination.
        path: PathBuf,
    },
    /// A file is copied to where a directory is.
    #[error("cannot replace to directory `{}` with file", path.display())]
    DirectoryInTheWay {
        /// The directory, in the destination.
        path: PathBuf,
    },
    /// A file system object that is none of Linux's.
    #[error("`{}` is neither a file, a directory, a link, a device, a pipe nor a socket", path.display())]
    UnknownKind {
        /// Where, relative to the source.
        path: PathBuf,
    },
    /// A source was replaced by something else while it was copied.
    #[error("`{}` changed while it was copied", path.display())]
    Changed {
        /// Where, relative to the source.
        path: PathBuf,
    },
    /// Directories deeper than [`TREE_DEPTH_MAX`](rbuild_cache::layer::TREE_DEPTH_MAX), which no layer could hold.
    #[error("`{}` is nested too deeply to be copied", path.display())]
    TooDeep {
        /// Where, relative to the source.
        path: PathBuf,
    },
    /// An archive that cannot be unpacked.
    #[error("failed to unpack `{}`", path.display())]
    Unpack {
        /// The archive, relative to its tree.
        path: PathBuf,
        /// Why.
        source: rbuild_cache::layer::Error,
    },
    /// A malformed pattern.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// A malformed `--chmod`.
    #[error(transparent)]
    Mode(#[from] ParseModeError),
    /// The files that owners are looked up in cannot be used.
    #[error("failed to look up an owner")]
    Owner(#[source] rbuild_executor::user::Error),
    /// The system refused.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The store could not say what it has by now.
    #[error(transparent)]
    Store(#[from] rbuild_cache::Error),
    /// The build was cancelled.
    #[error("cancelled")]
    Cancelled,
}
