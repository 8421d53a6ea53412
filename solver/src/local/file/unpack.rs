//! ADD of an archive.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use rbuild_cache::root_dir::RootDir;

use super::FileError;
use super::attributes::Changes;
use super::run::Run;

pub(super) fn open_archive(_root: &RootDir, _path: &Path) -> Result<Option<File>, FileError> {
    Ok(None)
}

pub(super) fn unpack(
    _run: &Run<'_>,
    _archive: File,
    _into: OwnedFd,
    _changes: &Changes,
) -> Result<(), FileError> {
    Ok(())
}
