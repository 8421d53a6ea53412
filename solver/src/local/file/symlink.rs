//! Makes a symbolic link.

use std::os::fd::AsFd;
use std::path::Path;

use rbuild_cache::root_dir::{At, RootDir};
use rbuild_llb::SymlinkAction;
use rustix::fs::symlinkat;

use super::attributes::Attributes;
use super::run::Run;
use super::{FileError, Trees, owner};

/// Makes a link where nothing is; what it points to need not exist.
pub(super) fn symlink(
    run: &Run<'_>,
    action: &SymlinkAction,
    dest: &RootDir,
    trees: Trees<'_, '_>,
) -> Result<(), FileError> {
    let path = Path::new(&action.path);
    let ids = owner::of_new(run, action.owner.as_ref(), trees)?;
    let parent = dest.parent(path)?;
    symlinkat(&action.target, &parent.dir, &parent.name).at("create the link", path)?;
    let attributes = Attributes { ids, mode: 0, time: run.time(action.timestamp_ns) };
    attributes.give_to_name(run, parent.dir.as_fd(), &parent.name, true).at("set the attributes of", path)?;
    run.count(0);
    Ok(())
}
