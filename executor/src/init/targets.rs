//! Mount targets: found beneath the container's root, made where they are missing.
//!
//! Every look-up is one `openat2` with `RESOLVE_IN_ROOT`: the kernel itself keeps links and `..` inside.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Mode, OFlags, ResolveFlags, StatxFlags, fstat, mkdirat, openat, openat2, readlinkat, statx,
};
use rustix::io::Errno;

use crate::handshake::{Channel, Failure, Message, Step, StepExt as _, Stub};

/// Dangling links followed while a target is made; as many as the kernel follows.
const SYMLINK_DEPTH_MAX: u32 = 40;
/// How often a look-up is repeated that a rename elsewhere disturbed (`EAGAIN`).
const RESOLVE_TRIES_MAX: u32 = 128;

/// Whether a target must be a directory or a file when it has to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
}

/// The root that targets are found in, and whom to tell of those that were made.
pub(super) struct Targets<'a> {
    pub root: BorrowedFd<'a>,
    pub channel: &'a mut Channel,
}

/// Opens what `path` names beneath `root`, for use as a place.
pub(crate) fn open_beneath(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    open_as(root, path, OFlags::PATH)
}

/// The bytes of what `path` names beneath `root`; `None` where that is no regular file, or a larger one.
pub(crate) fn read_beneath(
    root: BorrowedFd<'_>,
    path: &Path,
    size_bytes_max: u64,
) -> io::Result<Option<Vec<u8>>> {
    // Not to wait for the writer of a fifo that an image may have in its place.
    let file = File::from(open_as(root, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?);
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(size_bytes_max + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= size_bytes_max).then_some(bytes))
}

fn open_as(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
    let mut result = Err(Errno::AGAIN);
    for _ in 0..RESOLVE_TRIES_MAX {
        result = openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve);
        if !matches!(result, Err(Errno::AGAIN)) {
            break;
        }
    }
    result
}

impl Targets<'_> {
    /// Opens the target, making it and the directories above it where they are missing.
    pub(super) fn open(&mut self, path: &Path, kind: Kind) -> Step<OwnedFd> {
        self.open_following(path, kind, SYMLINK_DEPTH_MAX)
    }

    fn open_following(&mut self, path: &Path, kind: Kind, links: u32) -> Step<OwnedFd> {
        match open_beneath(self.root, path) {
            Err(Errno::NOENT) => {
                self.make(path, kind, links)?;
                open_beneath(self.root, path).step_at("open the mount target", path)
            }
            other => other.step_at("open the mount target", path),
        }
    }

    fn make(&mut self, path: &Path, kind: Kind, links: u32) -> Step<()> {
        let (Some(parent_path), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::INVAL).step_at("create the mount target", path);
        };
        let parent = self.open_following(parent_path, Kind::Directory, links)?;
        let before = fstat(&parent).step_at("create the mount target", path)?;
        let made = match kind {
            Kind::Directory => mkdirat(&parent, name, Mode::from_raw_mode(0o755)),
            Kind::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                openat(&parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
            }
        };
        match made {
            // In something that is mounted it stays, as with Docker.
            Ok(()) if !self.is_of_root(&parent).step_at("examine", parent_path)? => Ok(()),
            Ok(()) => self.report(Stub {
                path: path.to_owned(),
                directory: kind == Kind::Directory,
                parent_modified: modified(&before),
            }),
            // A link that leads nowhere: what it leads to is made.
            Err(Errno::EXIST) if links > 0 => {
                let link = readlinkat(&parent, name, Vec::new()).step_at("create the mount target", path)?;
                let link = PathBuf::from(std::ffi::OsString::from(link.to_string_lossy().into_owned()));
                self.open_following(&parent_path.join(link), kind, links - 1).map(drop)
            }
            Err(error) => Err(error).step_at("create the mount target", path),
        }
    }

    /// Whether a directory is of the root itself, not of what is mounted in it.
    fn is_of_root(&self, directory: &OwnedFd) -> rustix::io::Result<bool> {
        let mount_of = |descriptor: BorrowedFd<'_>| {
            statx(descriptor, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).map(|statx| statx.stx_mnt_id)
        };
        Ok(mount_of(directory.as_fd())? == mount_of(self.root)?)
    }

    fn report(&mut self, stub: Stub) -> Step<()> {
        self.channel
            .send(&Message::Stub(stub))
            .map_err(|error| Failure::Handshake { reason: error.to_string() })
    }
}

#[expect(clippy::unnecessary_cast, reason = "the width of these fields differs between machines")]
fn modified(stat: &rustix::fs::Stat) -> (i64, i64) {
    (stat.st_mtime as i64, stat.st_mtime_nsec as i64)
}

/// What kind of target a mount needs.
pub(super) fn kind_of(mount: impl AsFd) -> rustix::io::Result<Kind> {
    let stat = fstat(mount)?;
    let is_directory = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir();
    Ok(if is_directory { Kind::Directory } else { Kind::File })
}
