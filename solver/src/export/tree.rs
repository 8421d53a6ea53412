//! A result's root file system as one tar, or as files in a directory of the user's.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rbuild_cache::layer::{ApplyOptions, ArchiveOptions, Mtimes, Owners, apply, export_all};
use rbuild_cache::root_dir::RootDir;
use rbuild_cache::{Snapshot, Store, piped};
use thiserror::Error;

/// Why a tree could not be written out.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] rbuild_cache::Error),
    /// The tree could not be read as a tar.
    #[error("failed to read the result's file system")]
    Read(#[source] rbuild_cache::layer::Error),
    /// The directory could not be filled.
    #[error("failed to write files to `{dest}`")]
    Write {
        /// The directory.
        dest: String,
        /// What went wrong.
        source: rbuild_cache::layer::Error,
    },
    /// A named thing could not be made.
    #[error("failed to make {subject}")]
    Make {
        /// What.
        subject: String,
        /// What went wrong.
        source: io::Error,
    },
    /// A path beneath the destination failed.
    #[error(transparent)]
    Path(#[from] rbuild_cache::root_dir::PathError),
}

/// What is written out: merged trees, each in a directory of its own or, where that is empty, as it is.
#[derive(Debug, Clone, Copy)]
pub struct Trees<'a> {
    /// The directory and the tree.
    pub trees: &'a [(PathBuf, Snapshot)],
    /// One modification time for all files, Unix seconds: `SOURCE_DATE_EPOCH`.
    pub mtime: Option<i64>,
}

/// Writes merged trees as one tar, without whiteouts.
///
/// # Errors
/// When the store or `out` fails.
pub fn export_tar(store: &Store, trees: Trees<'_>, out: &mut dyn Write) -> Result<(), ExportError> {
    let view = |(path, snapshot): &(PathBuf, Snapshot)| {
        Ok((path.clone(), RootDir::from_fd(store.view(snapshot)?.into())))
    };
    let views = trees.trees.iter().map(view).collect::<Result<Vec<_>, ExportError>>()?;
    let roots: Vec<_> = views.iter().map(|(path, root)| (path.clone(), root)).collect();
    let mtimes = trees.mtime.map_or(Mtimes::Keep, Mtimes::All);
    let options = ArchiveOptions { mtimes, ..ArchiveOptions::default() };
    export_all(&roots, &options, out).map_err(ExportError::Read)?;
    Ok(())
}

/// Writes merged trees over what is in `dest`, all files owned by `owner` (uid and gid).
///
/// # Errors
/// As [`export_tar`], and when a file cannot be made.
pub fn export_directory(
    store: &Store,
    trees: Trees<'_>,
    dest: &Path,
    owner: (u32, u32),
) -> Result<(), ExportError> {
    let make = |subject: String| move |source| ExportError::Make { subject, source };
    std::fs::create_dir_all(dest).map_err(make(format!("directory `{}`", dest.display())))?;
    let root = RootDir::open(dest)?;
    let owners = Owners::All { uid: owner.0, gid: owner.1 };
    let options = ApplyOptions { owners, ..ApplyOptions::literal() };
    let (exported, applied) =
        piped(|writer| export_tar(store, trees, writer), |reader| apply(reader, &root, &options))
            .map_err(make("a pipe".to_owned()))?;
    // A failed reader breaks the writer's pipe: the reader's error is the cause.
    applied.map_err(|source| ExportError::Write { dest: dest.display().to_string(), source })?;
    exported
}
