//! Removes what processes that died have left.

use std::fs::{self, File};
use std::path::Path;

use crate::lock::{Flock, try_flock};
use crate::root_dir::At;
use crate::{Result, Store};

/// A disk with less room than this counts as full.
const ROOM_SIZE_BYTES_MIN: u64 = 64 << 20;

/// Where things are that belong to whoever holds their lock, beside the leases.
const LOCKED: [&str; 3] = ["active", "ingest", "locks"];

impl Store {
    /// Removes what processes that died have left, and waits until it is gone.
    ///
    /// # Errors
    /// When something cannot be listed or removed.
    pub fn clean_up(&self) -> Result<()> {
        self.discard_leftovers()?;
        self.empty_trash()
    }

    /// Cleans up on a full disk. Nothing can be recorded there, so no process would get as far as
    /// [`clean_up_once`](Self::clean_up_once), and what filled the disk would stay. That there is no more room after it is
    /// for what needs the room to say.
    pub(crate) fn make_room(&self) {
        let is_full =
            |disk: rustix::fs::StatVfs| disk.f_bavail.saturating_mul(disk.f_frsize) < ROOM_SIZE_BYTES_MIN;
        if rustix::fs::statvfs(self.root()).is_ok_and(is_full) {
            drop(self.clean_up());
        }
    }

    /// Cleans up once per handle, in the background, before the first layer is made: a few listings of directories that are
    /// empty as a rule. Leftovers that cannot be removed are no reason to fail a build.
    pub(crate) fn clean_up_once(&self) {
        self.0.cleaned_up.call_once(|| {
            self.empty_trash_later();
            drop(self.discard_leftovers());
        });
    }

    fn discard_leftovers(&self) -> Result<()> {
        for directory in LOCKED {
            self.discard_unlocked(&self.0.layout.directory(directory))?;
        }
        // What a process that died had added is not known.
        if self.discard_unlocked(&self.0.layout.directory("leases"))? > 0 { self.recount() } else { Ok(()) }
    }

    /// Discards every entry of a directory whose lock nobody holds. Returns how many.
    fn discard_unlocked(&self, directory: &Path) -> Result<usize> {
        let mut discarded = 0;
        for entry in fs::read_dir(directory).at("list", directory)? {
            let path = directory.join(entry.at("list", directory)?.file_name());
            let Ok(file) = File::open(&path) else { continue };
            if try_flock(&file, &path)? == Flock::Taken {
                self.discard(&path)?;
                discarded += 1;
            }
        }
        Ok(discarded)
    }
}
