//! WORKDIR: makes a directory.

use std::path::Path;

use rbuild_cache::root_dir::RootDir;
use rbuild_llb::MkdirAction;
use rustix::io::Errno;

use super::chmod::MODE_BITS;
use super::run::{NewDir, Run};
use super::{FileError, Trees, owner};

/// Makes a directory, and those above it if the action says so, all with the same attributes. One that is there stays as it is.
pub(super) fn mkdir(
    run: &Run<'_>,
    action: &MkdirAction,
    dest: &RootDir,
    trees: Trees<'_, '_>,
) -> Result<(), FileError> {
    let ids = owner::of_new(run, action.owner.as_ref(), trees)?;
    let new = NewDir { mode: action.mode & MODE_BITS, ids, time: run.time(action.timestamp_ns) };
    let path = Path::new(&action.path);
    if !action.make_parents {
        // Only this one may be made: what is above it must be there.
        match dest.stat(path.parent().unwrap_or(Path::new("/"))) {
            Err(error) if error.errno() == Some(Errno::NOTDIR) => {
                return Err(FileError::NotADirectory { path: path.to_owned() });
            }
            above => drop(above?),
        }
    }
    run.make_dirs(dest, path, &new).map(drop)
}
