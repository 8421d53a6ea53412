//! Overlay mounts as descriptors.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};

use super::{LAYERS_MAX, OverlayXattrs};
use crate::root_dir::At;
use crate::{Error, Result};

/// The longest text that `fsconfig` takes, without its final zero byte.
const OPTION_LENGTH_MAX: usize = 255;

/// The root of a detached mount. Unmounted with the last descriptor of it.
#[derive(Debug)]
pub struct MountedRoot(OwnedFd);

impl AsFd for MountedRoot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<MountedRoot> for OwnedFd {
    fn from(root: MountedRoot) -> Self {
        root.0
    }
}

/// What an overlay mount is made of.
#[derive(Debug)]
pub(super) struct Overlay<'a> {
    /// The read-only directories, top first.
    pub(super) lowers: Vec<PathBuf>,
    /// The writable one, if any.
    pub(super) upper: Option<Upper<'a>>,
    pub(super) xattrs: OverlayXattrs,
}

/// The writable layer of a mount.
#[derive(Debug, Clone, Copy)]
pub(super) struct Upper<'a> {
    /// What is changed.
    pub(super) upper: &'a Path,
    /// Overlayfs's own, on the same file system, empty.
    pub(super) work: &'a Path,
    /// Answer fsync(2) without writing: for layers that are thrown away if the machine stops.
    pub(super) volatile: bool,
}

impl Overlay<'_> {
    /// Makes the mount, read-only unless it has an upper directory.
    pub(super) fn mount(&self) -> Result<MountedRoot> {
        let layers = self.lowers.len();
        if layers > LAYERS_MAX + 2 {
            return Err(Error::TooManyLayers { found: layers });
        }
        let failed = |verb| move |errno: Errno| Error::Mount { verb, layers, source: errno.into() };
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed("open an overlay"))?;
        self.configure(&context, layers)?;
        fsconfig_create(&context).map_err(failed("create an overlay"))?;
        let attributes =
            if self.upper.is_some() { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
        let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes);
        root.map(MountedRoot).map_err(failed("mount an overlay"))
    }

    fn configure(&self, context: &OwnedFd, layers: usize) -> Result<()> {
        let failed = |verb| move |errno: Errno| Error::Mount { verb, layers, source: errno.into() };
        let set = |key: &str, value: &str| {
            fsconfig_set_string(context, key, value).map_err(failed("set an option of an overlay"))
        };
        set("source", "rbuild")?;
        // A layer must mean the same to any kernel and any tar, so no feature that keeps a file's meaning elsewhere than in its
        // directory. Said outright, as distributions change the defaults.
        for feature in ["metacopy", "redirect_dir", "index"] {
            set(feature, "off")?;
        }
        if self.xattrs == OverlayXattrs::User {
            fsconfig_set_flag(context, "userxattr").map_err(failed("set `userxattr` of an overlay"))?;
        }
        for lower in &self.lowers {
            set_directory(context, "lowerdir+", lower)?.map_err(failed("add a layer to an overlay"))?;
        }
        if let Some(upper) = &self.upper {
            set_directory(context, "upperdir", upper.upper)?
                .map_err(failed("set the writable layer of an overlay"))?;
            set_directory(context, "workdir", upper.work)?
                .map_err(failed("set the work directory of an overlay"))?;
            if upper.volatile {
                fsconfig_set_flag(context, "volatile").map_err(failed("set `volatile` of an overlay"))?;
            }
        }
        Ok(())
    }
}

/// A read-only tree with nothing in it.
pub(super) fn empty_root() -> Result<MountedRoot> {
    let failed = |verb| move |errno: Errno| Error::Mount { verb, layers: 0, source: errno.into() };
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed("open an empty tree"))?;
    fsconfig_set_string(&context, "mode", "0755").map_err(failed("set the mode of an empty tree"))?;
    fsconfig_create(&context).map_err(failed("create an empty tree"))?;
    let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY);
    root.map(MountedRoot).map_err(failed("mount an empty tree"))
}

/// Sets an option to a directory: by its path, or through a descriptor when the path is too long for the kernel.
fn set_directory(context: &OwnedFd, key: &str, path: &Path) -> Result<Result<(), Errno>> {
    if path.as_os_str().len() <= OPTION_LENGTH_MAX {
        return Ok(fsconfig_set_string(context, key, path));
    }
    let directory = File::open(path).at("open", path)?;
    let link = format!("/proc/self/fd/{}", directory.as_raw_fd());
    Ok(fsconfig_set_string(context, key, OsStr::new(&link)))
}
