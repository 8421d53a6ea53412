//! Files of containers that exist in memory only: secrets, and sockets to speak to the host.
//!
//! Each is alone in a tmpfs that is attached nowhere, so no path leads to it outside of the container, nothing of it reaches
//! a disk, and it is gone when the last container that shows it is, whatever became of this process.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, chmodat, chownat, openat};
use rustix::mount::MountAttrFlags;

use crate::error::Error;
use crate::mount::{MountSource, filesystem};

/// The one file of each tmpfs.
const NAME: &str = "file";

/// Who may use a file in memory, in ids of this process's user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The permission bits.
    pub mode: u32,
}

impl MountSource {
    /// A file in memory.
    ///
    /// # Errors
    /// [`Error::Setup`] when the kernel refuses: the ids are not mapped into this user namespace, or memory is short.
    pub fn memory_file(content: &[u8], access: Access) -> Result<Self, Error> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        in_memory(access, |directory| {
            let file = openat(directory, NAME, flags, Mode::RUSR | Mode::WUSR)?;
            File::from(file).write_all(content)
        })
        .map(|((), source)| source)
        .map_err(|error| Error::setup("make a file in memory", error))
    }

    /// A socket in memory, and what hears those who connect to it.
    ///
    /// # Errors
    /// As [`memory_file`](Self::memory_file).
    pub fn memory_socket(access: Access) -> Result<(UnixListener, Self), Error> {
        in_memory(access, |directory| UnixListener::bind(path_in(directory)))
            .map_err(|error| Error::setup("make a socket in memory", error))
    }
}

fn in_memory<T>(
    access: Access,
    make: impl FnOnce(&OwnedFd) -> io::Result<T>,
) -> io::Result<(T, MountSource)> {
    let mount = filesystem("tmpfs", &[("mode", "0700")], MountAttrFlags::MOUNT_ATTR_NODEV)?;
    let made = make(&mount)?;
    // The owner first: a change of owner clears set-id bits.
    let (uid, gid) = (Uid::from_raw(access.uid), Gid::from_raw(access.gid));
    chownat(&mount, NAME, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    chmodat(&mount, NAME, Mode::from_raw_mode(access.mode), AtFlags::empty())?;
    Ok((made, MountSource::Within { mount, path: PathBuf::from(NAME) }))
}

/// A path for the one system call that makes sockets, which takes no descriptor.
fn path_in(directory: &OwnedFd) -> PathBuf {
    Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(NAME)
}
