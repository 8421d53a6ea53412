//! Removes what processes that died have left.

use std::fs::{self, File};
use std::path::Path;

use crate::lock::{Flock, try_flock};
use crate::root_dir::{At, PathError, RootDir};
use crate::{Result, Store};

impl Store {
    /// Removes what processes that died have left in `active/`, `ingest/` and `trash/`.
    ///
    /// Three listings of directories that are empty as a rule. Runs by itself before this handle makes its first layer.
    ///
    /// # Errors
    /// When something cannot be listed or removed.
    pub fn clean_up(&self) -> Result<()> {
        let layout = &self.0.layout;
        remove_unlocked(&layout.directory("active"))?;
        remove_unlocked(&layout.directory("ingest"))?;
        empty(&layout.directory("trash"))?;
        Ok(())
    }

    /// Cleans up once per handle. Leftovers that cannot be removed are no reason to fail a build.
    pub(crate) fn clean_up_once(&self) {
        self.0.cleaned_up.call_once(|| drop(self.clean_up()));
    }

    /// Removes a tree of the store: its name at once, the rest without a hurry.
    pub(crate) fn empty_trash(&self) -> Result<()> {
        Ok(empty(&self.0.layout.directory("trash"))?)
    }
}

/// Removes every entry of a directory whose lock nobody holds.
fn remove_unlocked(directory: &Path) -> Result<(), PathError> {
    for entry in fs::read_dir(directory).at("list", directory)? {
        let name = entry.at("list", directory)?.file_name();
        let path = directory.join(&name);
        let Ok(file) = File::open(&path) else { continue };
        if try_flock(&file, &path)? == Flock::Taken {
            RootDir::open(directory)?.remove_all(&name)?;
        }
    }
    Ok(())
}

/// Empties a directory in which nobody works. Others may be emptying it as well.
fn empty(directory: &Path) -> Result<(), PathError> {
    for entry in fs::read_dir(directory).at("list", directory)? {
        let name = entry.at("list", directory)?.file_name();
        RootDir::open(directory)?.remove_all(name)?;
    }
    Ok(())
}
