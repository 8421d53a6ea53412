//! The error of file work: which verb failed on which path.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use thiserror::Error;

/// A system call on a path failed.
#[derive(Debug, Error)]
#[error("failed to {verb} `{}`", path.display())]
pub struct PathError {
    /// What was tried, in the infinitive: `open`, `read the link`.
    pub verb: &'static str,
    /// The path as the caller knows it; relative to its root where there is one.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl PathError {
    /// Whether the path, or a directory on the way to it, does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self.errno(), Some(Errno::NOENT | Errno::NOTDIR))
    }

    /// The system's error number, if the error came from the system.
    pub fn errno(&self) -> Option<Errno> {
        Errno::from_io_error(&self.source)
    }
}

/// Gives the error of a system call its subject: `openat(…).at("open", path)?`.
pub trait At<T> {
    /// Names the verb and the path that an error belongs to.
    fn at(self, verb: &'static str, path: impl AsRef<Path>) -> Result<T, PathError>;

    /// The same for a name in a directory. Joins the two only when there is an error.
    fn at_name(self, verb: &'static str, dir: &Path, name: &OsStr) -> Result<T, PathError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, verb: &'static str, path: impl AsRef<Path>) -> Result<T, PathError> {
        self.map_err(|source| PathError { verb, path: path.as_ref().to_owned(), source: source.into() })
    }

    fn at_name(self, verb: &'static str, dir: &Path, name: &OsStr) -> Result<T, PathError> {
        self.map_err(|source| PathError { verb, path: dir.join(name), source: source.into() })
    }
}
