//! ADD of an archive: told by what is in the file, not by its name.

use std::fs::File;
use std::io::Seek;
use std::os::fd::OwnedFd;
use std::path::Path;

use rbuild_cache::layer::{ApplyOptions, Error as LayerError, Owners, apply, compression, is_archive};
use rbuild_cache::root_dir::{At, OFlags, RootDir};

use super::attributes::Changes;
use super::run::Run;
use super::{FileError, Warning};

/// Opens a regular file if it is an archive, at its start.
pub(super) fn open_archive(root: &RootDir, path: &Path) -> Result<Option<File>, FileError> {
    let mut file = root.open_file(path, OFlags::RDONLY)?;
    if !is_archive(&file) {
        return Ok(None);
    }
    file.rewind().at("read", path)?;
    Ok(Some(file))
}

/// Unpacks into a directory. Owners are the archive's unless the action gives one; modes and times are always the archive's.
pub(super) fn unpack(
    run: &Run<'_>,
    archive: File,
    path: &Path,
    into: OwnedFd,
    changes: &Changes,
) -> Result<(), FileError> {
    let failed = |error| match error {
        LayerError::Cancelled => FileError::Cancelled,
        source => FileError::Unpack { path: path.to_owned(), source },
    };
    let owners = match changes.ids {
        _ if run.options.single_id => Owners::Squash,
        Some(ids) => Owners::All { uid: ids.uid, gid: ids.gid },
        None => Owners::Keep,
    };
    let options = ApplyOptions { owners, cancel: Some(run.options.cancel), ..ApplyOptions::literal() };
    let mut tar = compression::decompress(archive).map_err(failed)?;
    let applied = apply(&mut tar, &RootDir::from_fd(into), &options).map_err(failed)?;
    run.count_many(applied.entries, applied.content_bytes);
    if applied.xattrs_refused > 0 {
        run.warn(Warning::CapabilitiesLost { path: path.to_owned() });
    }
    for path in applied.devices_replaced {
        run.warn(Warning::DeviceReplaced { path });
    }
    Ok(())
}
