//! Heredoc files: writes a file whose content is in the action.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

use rbuild_cache::root_dir::{At, OFlags, RootDir};
use rbuild_llb::MkfileAction;
use rustix::fs::{Mode, fchmod, futimens};
use rustix::io::Errno;

use super::attributes::{changed_owner, modified_at};
use super::chmod::MODE_BITS;
use super::run::Run;
use super::{FileError, Trees, owner};

/// Writes a file, through a symlink if one is there. What the file had before is gone, its attributes too.
pub(super) fn mkfile(
    run: &Run<'_>,
    action: &MkfileAction,
    dest: &RootDir,
    trees: Trees<'_, '_>,
) -> Result<(), FileError> {
    let path = Path::new(&action.path);
    let ids = owner::of_new(run, action.owner.as_ref(), trees)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
    let mut file = dest.open_file(path, flags).map_err(|error| match error.errno() {
        Some(Errno::ISDIR) => FileError::DirectoryInTheWay { path: path.to_owned() },
        Some(Errno::NOTDIR) => FileError::NotADirectory { path: path.to_owned() },
        _ => error.into(),
    })?;
    file.write_all(&action.data).at("write", path)?;
    changed_owner(file.as_fd(), ids, run.options.single_id).at("set the owner of", path)?;
    fchmod(file.as_fd(), Mode::from_raw_mode(action.mode & MODE_BITS)).at("set the mode of", path)?;
    futimens(file.as_fd(), &modified_at(run.time(action.timestamp_ns))).at("set the time of", path)?;
    run.count(action.data.len() as u64);
    Ok(())
}
