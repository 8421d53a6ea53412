//! Removes paths.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rbuild_cache::root_dir::RootDir;
use rbuild_llb::RmAction;
use rbuild_llb::pattern::Glob;

use super::FileError;
use super::run::Run;

/// Removes a path, or what a pattern matches, with all below it. A symlink is removed itself.
pub(super) fn rm(run: &Run<'_>, action: &RmAction, dest: &RootDir) -> Result<(), FileError> {
    let glob = if action.allow_wildcard { Some(Glob::new(&action.path)?) } else { None };
    match glob {
        Some(glob) if !glob.is_literal() => {
            for path in matching(dest, &glob)? {
                run.check_cancelled()?;
                dest.remove_all(path)?;
                run.count(0);
            }
            Ok(())
        }
        Some(glob) => one(run, action, dest, Path::new(&glob.literal_prefix())),
        None => one(run, action, dest, Path::new(&action.path)),
    }
}

fn one(run: &Run<'_>, action: &RmAction, dest: &RootDir, path: &Path) -> Result<(), FileError> {
    if !dest.exists(path)? {
        let path = action.path.clone();
        return if action.allow_not_found {
            Ok(())
        } else {
            Err(FileError::NotFound { path, ignored: false, similar: Vec::new() })
        };
    }
    dest.remove_all(path)?;
    run.count(0);
    Ok(())
}

/// The paths that match, level by level. Links are not followed below the part without wildcards.
fn matching(dest: &RootDir, glob: &Glob) -> Result<Vec<PathBuf>, FileError> {
    let wild = glob.below_literal_prefix();
    let mut level = vec![PathBuf::from(glob.literal_prefix())];
    for depth in 0..wild.depth() {
        let mut next = Vec::new();
        for dir in level {
            let entries = match dest.read_dir(&dir) {
                Err(error) if error.is_not_found() => continue,
                entries => entries?,
            };
            let wanted = entries.into_iter().filter(|entry| depth + 1 == wild.depth() || entry.kind.is_dir());
            let matching = wanted.filter(|entry| wild.matches_name(depth, entry.name.as_bytes()));
            next.extend(matching.map(|entry| dir.join(entry.name)));
        }
        level = next;
    }
    Ok(level)
}
