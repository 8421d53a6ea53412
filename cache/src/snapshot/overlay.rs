//! Mounts as descriptors: overlays, and the images of layers.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};

use super::OverlayXattrs;
use crate::root_dir::{At, is_proc_path, proc_path};
use crate::{Error, Result};

/// The longest text that `fsconfig` takes, without its final zero byte.
const OPTION_LENGTH_MAX: usize = 255;

/// The most that is read of one of the kernel's messages, in bytes.
const MESSAGE_LENGTH_MAX: usize = 1024;

/// The root of a detached mount, unmounted with the last descriptor of it; or of a plain directory in its place.
#[derive(Debug)]
pub struct MountedRoot(OwnedFd);

impl MountedRoot {
    /// A plain directory, of whose end somebody else takes care.
    pub(super) fn plain(path: &Path) -> Result<Self> {
        Ok(Self(File::open(path).at("open", path)?.into()))
    }

    /// One that another process has made.
    pub(super) const fn taken(root: OwnedFd) -> Self {
        Self(root)
    }
}

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
    /// Whether files of layers that are file systems of their own have the same device's number as all others, as programs expect.
    /// Overlayfs then marks every new directory as opaque, also where there is nothing to hide.
    pub(super) one_device: bool,
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
        let context = Context::open("overlay", layers)?;
        self.configure(&context)?;
        let attributes =
            if self.upper.is_some() { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
        context.mount(attributes)
    }

    fn configure(&self, context: &Context) -> Result<()> {
        context.set("source", "rbuild")?;
        // A layer must mean the same to any kernel and any tar, so no feature that keeps a file's meaning elsewhere than in its
        // directory. Said outright, as distributions change the defaults.
        context.set("metacopy", "off")?;
        context.set("index", "off")?;
        match self.xattrs {
            OverlayXattrs::Trusted => context.set("redirect_dir", "off")?,
            // Implies `redirect_dir=nofollow`, and refuses any other word about it, `off` included.
            OverlayXattrs::User => context.flag("userxattr")?,
        }
        if self.one_device && self.lowers.iter().any(|lower| is_proc_path(lower)) {
            context.set("xino", "on")?;
        }
        for lower in &self.lowers {
            context.set_directory("lowerdir+", lower)?;
        }
        if let Some(upper) = &self.upper {
            context.set_directory("upperdir", upper.upper)?;
            context.set_directory("workdir", upper.work)?;
            if upper.volatile {
                context.flag("volatile")?;
            }
        }
        Ok(())
    }
}

/// Mounts an EROFS image whose contents are in packs, read-only. The files are needed no longer than this takes.
///
/// Not to be called with an image that this program has not made: the kernel trusts what it mounts.
pub(crate) fn mount_image(image: &File, packs: &[File]) -> Result<MountedRoot> {
    let context = Context::open("erofs", 1)?;
    context.set_file("source", image)?;
    packs.iter().try_for_each(|pack| context.set_file("device", pack))?;
    context.mount(MountAttrFlags::MOUNT_ATTR_RDONLY)
}

/// A read-only tree with nothing in it.
pub(super) fn empty_root() -> Result<MountedRoot> {
    let context = Context::open("tmpfs", 0)?;
    context.set("mode", "0755")?;
    context.mount(MountAttrFlags::MOUNT_ATTR_RDONLY)
}

/// A mount that is being configured.
struct Context {
    fd: OwnedFd,
    layers: usize,
}

impl Context {
    fn open(file_system: &str, layers: usize) -> Result<Self> {
        match fsopen(file_system, FsOpenFlags::FSOPEN_CLOEXEC) {
            Ok(fd) => Ok(Self { fd, layers }),
            Err(errno) => {
                let reason = String::new();
                Err(Error::Mount { verb: "open a mount", layers, reason, source: errno.into() })
            }
        }
    }

    fn set(&self, key: &str, value: &str) -> Result<()> {
        self.explain("set an option of a mount", fsconfig_set_string(&self.fd, key, value))
    }

    fn flag(&self, key: &str) -> Result<()> {
        self.explain("set an option of a mount", fsconfig_set_flag(&self.fd, key))
    }

    /// Sets an option to a directory: by its path, or through a descriptor when the path is too long for the kernel.
    fn set_directory(&self, key: &str, path: &Path) -> Result<()> {
        let verb = "add a directory to a mount";
        if path.as_os_str().len() <= OPTION_LENGTH_MAX {
            return self.explain(verb, fsconfig_set_string(&self.fd, key, path));
        }
        let directory = File::open(path).at("open", path)?;
        self.explain(verb, fsconfig_set_string(&self.fd, key, proc_path(&directory)))
    }

    /// Sets an option to a file, of which only the descriptor is known to name it.
    fn set_file(&self, key: &str, file: &File) -> Result<()> {
        self.explain("add a file to a mount", fsconfig_set_string(&self.fd, key, proc_path(file)))
    }

    fn mount(&self, attributes: MountAttrFlags) -> Result<MountedRoot> {
        self.explain("create a mount", fsconfig_create(&self.fd))?;
        let root = fsmount(&self.fd, FsMountFlags::FSMOUNT_CLOEXEC, attributes);
        self.explain("attach a mount", root).map(MountedRoot)
    }

    fn explain<T>(&self, verb: &'static str, result: Result<T, Errno>) -> Result<T> {
        result.map_err(|errno| Error::Mount {
            verb,
            layers: self.layers,
            reason: self.reason(),
            source: errno.into(),
        })
    }

    /// What the kernel has to say on what went wrong: a descriptor of a mount being configured yields one message per read.
    fn reason(&self) -> String {
        let mut reasons = String::new();
        let mut message = [0; MESSAGE_LENGTH_MAX];
        while let Ok(length) = rustix::io::read(&self.fd, &mut message)
            && length > 0
            && reasons.len() < MESSAGE_LENGTH_MAX
        {
            let text = String::from_utf8_lossy(&message[..length]);
            // The first letter says how bad it is.
            reasons.push_str(": ");
            reasons.push_str(text.get(2..).unwrap_or_default().trim_end());
        }
        reasons
    }
}
