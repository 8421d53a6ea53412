//! What takes the place of mounts where nothing can be mounted: files and directories that are moved to their place in a
//! plain tree, and back when the process has ended. What was in the place is kept where they came from meanwhile.
//!
//! Nothing of it shows in the tree afterwards: not the directories made on the way, nor the time of a directory.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_OMIT, fstat, futimens,
    makedev, mkdirat, mknodat, openat, renameat, renameat_with, unlinkat,
};
use rustix::io::Errno;

use crate::error::Error;
use crate::init::{DEV_LINKS, DEVICES, open_beneath};
use crate::mount::{Mount, MountSource};
use crate::trust::Trust;

const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);

/// A tree with things laid over it, until this is dropped.
#[derive(Debug)]
pub(crate) struct LaidOver {
    root: OwnedFd,
    scratch: PathBuf,
    /// In the order in which it was done.
    done: Vec<Done>,
}

#[derive(Debug)]
enum Done {
    /// A directory on the way to something.
    Made(Place),
    /// Moved there; what was there is at the source now.
    Swapped(Place, PathBuf),
    /// Moved there, where nothing was.
    Moved(Place, PathBuf),
}

/// A name in a directory.
#[derive(Debug)]
struct Place {
    directory: OwnedFd,
    name: OsString,
}

impl LaidOver {
    /// `scratch` is an empty directory on the same file system.
    pub(crate) fn new(root: &Path, scratch: PathBuf) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(CWD, root, flags, Mode::empty());
        let root = opened.map_err(|error| Error::setup_at("open the root", root, error))?;
        Ok(Self { root, scratch, done: Vec::new() })
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The devices that every process needs, as the host has them, and with them what leads it to those that it trusts.
    pub(crate) fn devices(&mut self, trust: &Trust) -> Result<(), Error> {
        let path = self.scratch.join("dev");
        make_devices(&path).map_err(|error| Error::setup_at("make the devices", "/dev", error))?;
        for (name, content) in trust.files(self.root()) {
            let file = path.join(name);
            fs::write(&file, content).map_err(|error| Error::setup_at("write", &file, error))?;
        }
        self.lay(Path::new("/dev"), path)
    }

    /// A file with this text.
    pub(crate) fn text(&mut self, target: &Path, text: &str) -> Result<(), Error> {
        let path = self.fresh();
        fs::write(&path, text).map_err(|error| Error::setup_at("write", target, error))?;
        self.lay(target, path)
    }

    /// What stands for a mount, if anything does. What a mount only forbids is not forbidden.
    pub(crate) fn mount(&mut self, mount: Mount) -> Result<(), Error> {
        match mount.source {
            MountSource::Moved(path) => self.lay(&mount.target, path),
            MountSource::Tmpfs(_) => {
                let path = self.fresh();
                make_directory(&path, 0o1777)
                    .map_err(|error| Error::setup_at("make", &mount.target, error))?;
                self.lay(&mount.target, path)
            }
            _ => Err(Error::NeedsNamespaces(format!("mount on `{}`", mount.target.display()))),
        }
    }

    fn fresh(&self) -> PathBuf {
        self.scratch.join(self.done.len().to_string())
    }

    /// Moves `source`, which is on the same file system, to `target`.
    fn lay(&mut self, target: &Path, source: PathBuf) -> Result<(), Error> {
        let laid = self.try_lay(target, source);
        laid.map_err(|error| Error::setup_at("put something in the place of", target, error))
    }

    fn try_lay(&mut self, target: &Path, source: PathBuf) -> Result<(), Errno> {
        let names: Vec<&OsStr> = target.components().filter_map(plain_name).collect();
        let (name, parents) = names.split_last().ok_or(Errno::INVAL)?;
        let directory = self.make_parents(parents)?;
        let place = Place { directory, name: (*name).to_owned() };
        let swapped = keeping_times(&place.directory, || place.swap(&source));
        match swapped {
            Ok(()) => self.done.push(Done::Swapped(place, source)),
            Err(Errno::NOENT) => {
                keeping_times(&place.directory, || renameat(CWD, &source, &place.directory, &place.name))?;
                self.done.push(Done::Moved(place, source));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn make_parents(&mut self, names: &[&OsStr]) -> Result<OwnedFd, Errno> {
        let mut path = PathBuf::new();
        let mut directory = open(open_beneath(self.root.as_fd(), &path)?)?;
        for name in names {
            path.push(name);
            let next = match open_beneath(self.root.as_fd(), &path) {
                Err(Errno::NOENT) => {
                    keeping_times(&directory, || mkdirat(&directory, *name, DIRECTORY_MODE))?;
                    let place = Place { directory, name: (*name).to_owned() };
                    self.done.push(Done::Made(place));
                    open_beneath(self.root.as_fd(), &path)
                }
                next => next,
            };
            directory = open(next?)?;
        }
        Ok(directory)
    }
}

impl Drop for LaidOver {
    /// What the process has moved or removed itself is gone; nobody else has to be told.
    fn drop(&mut self) {
        while let Some(done) = self.done.pop() {
            let _ = match done {
                Done::Made(Place { directory, name }) => {
                    keeping_times(&directory, || unlinkat(&directory, &name, AtFlags::REMOVEDIR))
                }
                Done::Swapped(place, source) => {
                    keeping_times(&place.directory, || match place.swap(&source) {
                        Err(Errno::NOENT) => renameat(CWD, &source, &place.directory, &place.name),
                        swapped => swapped,
                    })
                }
                Done::Moved(place, source) => {
                    keeping_times(&place.directory, || renameat(&place.directory, &place.name, CWD, &source))
                }
            };
        }
    }
}

impl Place {
    fn swap(&self, source: &Path) -> Result<(), Errno> {
        renameat_with(CWD, source, &self.directory, &self.name, RenameFlags::EXCHANGE)
    }
}

/// One that can be written in, of one that was only looked up.
fn open(found: OwnedFd) -> Result<OwnedFd, Errno> {
    openat(&found, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Changes a directory, which has the same time afterwards.
fn keeping_times(directory: &OwnedFd, change: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    let stat = fstat(directory)?;
    change()?;
    let modified = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ };
    let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    futimens(directory, &Timestamps { last_access, last_modification: modified })
}

fn plain_name(component: Component<'_>) -> Option<&OsStr> {
    match component {
        Component::Normal(name) => Some(name),
        _ => None,
    }
}

fn make_directory(path: &Path, mode: u32) -> std::io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn make_devices(path: &Path) -> std::io::Result<()> {
    make_directory(path, 0o755)?;
    for (name, major, minor) in DEVICES {
        let path = path.join(name);
        mknodat(CWD, &path, FileType::CharacterDevice, Mode::empty(), makedev(major, minor))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    }
    // A file system on which no device can be opened says so here, and not in a program.
    File::open(path.join("null"))?;
    for (name, target) in DEV_LINKS {
        std::os::unix::fs::symlink(target, path.join(name))?;
    }
    make_directory(&path.join("shm"), 0o1777)
}
