//! Removes what processes that died have left.

use std::fs::{self, File};
use std::path::Path;

use crate::lock::{Flock, try_flock};
use crate::root_dir::At;
use crate::{Result, Store};

impl Store {
    /// Removes what processes that died have left in `active/`, `ingest/` and `trash/`, and waits until it is gone.
    ///
    /// # Errors
    /// When something cannot be listed or removed.
    pub fn clean_up(&self) -> Result<()> {
        self.discard_leftovers()?;
        self.empty_trash()
    }

    /// Cleans up once per handle, in the background, before the first layer is made: three listings of directories that are
    /// empty as a rule. Leftovers that cannot be removed are no reason to fail a build.
    pub(crate) fn clean_up_once(&self) {
        self.0.cleaned_up.call_once(|| {
            self.empty_trash_later();
            drop(self.discard_leftovers());
        });
    }

    fn discard_leftovers(&self) -> Result<()> {
        for directory in ["active", "ingest"] {
            self.discard_unlocked(&self.0.layout.directory(directory))?;
        }
        Ok(())
    }

    /// Discards every entry of a directory whose lock nobody holds.
    fn discard_unlocked(&self, directory: &Path) -> Result<()> {
        for entry in fs::read_dir(directory).at("list", directory)? {
            let path = directory.join(entry.at("list", directory)?.file_name());
            let Ok(file) = File::open(&path) else { continue };
            if try_flock(&file, &path)? == Flock::Taken {
                self.discard(&path)?;
            }
        }
        Ok(())
    }
}
