//! Disks that fill up.

use std::fs;
use std::path::PathBuf;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A small disk, for as long as the test runs.
#[derive(Debug)]
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts it.
    pub(crate) fn new(path: PathBuf, size: &str) -> Self {
        fs::create_dir(&path).unwrap();
        let options = format!("size={size},mode=700");
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).unwrap();
        Self(path)
    }

    /// Makes it larger.
    pub(crate) fn grow(&self, size: &str) {
        let options = format!("size={size}");
        mount(None::<&str>, &self.0, None::<&str>, MsFlags::MS_REMOUNT, Some(options.as_str())).unwrap();
    }

    /// Lets nobody write to it.
    pub(crate) fn set_read_only(&self) {
        mount(None::<&str>, &self.0, None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, None::<&str>)
            .unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A panic here would hide the test's own.
        let _: nix::Result<()> = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}
