//! Path work beneath a directory descriptor, for trees that are not to be trusted.
//!
//! A [`RootDir`] is a directory that a path cannot leave: `/` means that directory, `..` stops at it, and a
//! symlink, absolute or not, is followed as if the directory were `/`. So a path in a layer, in a build
//! context or in a container's root file system means what it means *in there*, whatever the tree holds and
//! whoever changes it meanwhile.
//!
//! * Resolution is the kernel's, `openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)`. Where that call does not
//!   exist, is filtered, or keeps losing races with renames, `walk.rs` does the same by hand.
//! * A path is bytes. Leading and trailing slashes and an empty path are harmless: `""` and `/` are the root
//!   itself.
//! * The mutating calls act on the last name of a path, never on what a symlink there points to, except where they
//!   say that they follow.
//! * Nothing here is atomic across calls: two calls may see two states of a tree that somebody else is changing.
//!   But neither of them sees anything outside.
//!
//! [`xattr`] holds the extended attributes of files named by directory descriptor and name.

mod error;
mod remove;
mod walk;
pub mod xattr;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, RawDir, ResolveFlags, SeekFrom, fchmod, fstat, mkdirat, openat, openat2, readlinkat, seek,
    statat,
};
pub use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

pub use self::error::{At, PathError};
use self::walk::{Last, walk, walk_making};

/// How many symlinks one path may pass through: Linux's own `MAXSYMLINKS`.
pub const SYMLINK_DEPTH_MAX: usize = 40;

/// How often a lookup that raced with a rename is tried again before the path is walked by hand.
const RACE_RETRIES_MAX: usize = 16;

/// The space for one batch of directory entries, in bytes.
const ENTRIES_BUFFER_BYTES: usize = 32 * 1024;

/// A directory beneath which paths are resolved, and which they cannot leave.
pub struct RootDir {
    fd: OwnedFd,
    lookup: Lookup,
}

/// Who resolves paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lookup {
    Kernel,
    #[cfg(test)]
    Walk,
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, one component.
    pub name: OsString,
    /// What it names, a symlink not followed.
    pub kind: FileType,
}

/// A resolved directory and a name in it, which may or may not exist.
#[derive(Debug)]
pub struct Parent {
    /// The directory, opened with `O_PATH`.
    pub dir: OwnedFd,
    /// The name in it: one component, never `..`; `.` when the path means the root.
    pub name: OsString,
}

impl fmt::Debug for RootDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootDir({})", self.fd.as_raw_fd())
    }
}

impl AsFd for RootDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl RootDir {
    /// Opens a directory of the host, following symlinks, as a root.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, PathError> {
        let path = path.as_ref();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, path, flags, Mode::empty()).map(Self::from_fd).at("open", path)
    }

    /// Takes a descriptor of a directory, also one opened with `O_PATH` or one of a detached mount.
    pub const fn from_fd(fd: OwnedFd) -> Self {
        Self { fd, lookup: Lookup::Kernel }
    }

    /// The directory's descriptor.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// A second handle on the same directory.
    pub fn try_clone(&self) -> Result<Self, PathError> {
        let fd = self.fd.try_clone().at("duplicate the descriptor of", "/")?;
        Ok(Self { fd, lookup: self.lookup })
    }

    /// A directory beneath this one as a root of its own: absolute symlinks in it then mean *that* directory.
    pub fn subroot(&self, path: impl AsRef<Path>) -> Result<Self, PathError> {
        let path = path.as_ref();
        let fd = self.lookup(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).at("open", path)?;
        Ok(Self { fd, lookup: self.lookup })
    }

    /// The attributes of what `path` leads to, symlinks followed.
    pub fn stat(&self, path: impl AsRef<Path>) -> Result<Stat, PathError> {
        self.stat_with(path.as_ref(), OFlags::empty())
    }

    /// The attributes of what `path` names, a symlink at its end not followed.
    pub fn lstat(&self, path: impl AsRef<Path>) -> Result<Stat, PathError> {
        self.stat_with(path.as_ref(), OFlags::NOFOLLOW)
    }

    /// Whether `path` names something, be it a symlink that leads nowhere.
    pub fn exists(&self, path: impl AsRef<Path>) -> Result<bool, PathError> {
        match self.lstat(path) {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Opens a file with the given flags, following symlinks unless `NOFOLLOW` is among them.
    ///
    /// With `CREATE` the new file has mode 0600 under the process's umask; what it should have is set by the
    /// caller. A fifo is opened without waiting for its other end.
    pub fn open_file(&self, path: impl AsRef<Path>, flags: OFlags) -> Result<File, PathError> {
        let (path, flags) = (path.as_ref(), flags | OFlags::NONBLOCK | OFlags::NOCTTY);
        let mode = if flags.contains(OFlags::CREATE) { Mode::RUSR | Mode::WUSR } else { Mode::empty() };
        self.lookup(path, flags, mode).map(File::from).at("open", path)
    }

    /// Opens a directory for reading, following symlinks. As a base for `…at` calls with single names.
    pub fn open_dir(&self, path: impl AsRef<Path>) -> Result<OwnedFd, PathError> {
        let path = path.as_ref();
        self.lookup(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).at("open", path)
    }

    /// Opens what is at `path` without any right to it, following symlinks: to mount it, or to ask about it.
    pub fn open_path(&self, path: impl AsRef<Path>) -> Result<OwnedFd, PathError> {
        let path = path.as_ref();
        self.lookup(path, OFlags::PATH, Mode::empty()).at("open", path)
    }

    /// The contents of a regular file of at most `size_bytes_max` bytes, symlinks followed.
    pub fn read(&self, path: impl AsRef<Path>, size_bytes_max: u64) -> Result<Vec<u8>, PathError> {
        let path = path.as_ref();
        let file = self.open_file(path, OFlags::RDONLY)?;
        read_bounded(file, size_bytes_max).at("read", path)
    }

    /// The target of the symlink at `path`, as it is written there.
    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<PathBuf, PathError> {
        let path = path.as_ref();
        let read = || {
            let fd = self.lookup(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
            // On a descriptor that is no symlink, the kernel says that the empty name does not exist.
            readlinkat(fd, "", Vec::new())
                .map_err(|errno| if errno == Errno::NOENT { Errno::INVAL } else { errno })
        };
        let target = read().at("read the link", path)?;
        Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
    }

    /// The directory that holds the last name of `path`, and that name. Symlinks in the directory part are
    /// followed.
    ///
    /// The name itself need not exist and is not looked at. A path that ends in `..` is resolved first, so
    /// the name is always one that a call such as `mkdirat` can take.
    pub fn parent(&self, path: impl AsRef<Path>) -> Result<Parent, PathError> {
        let path = path.as_ref();
        match path.components().next_back() {
            Some(Component::Normal(name)) => {
                let above = path.parent().unwrap_or(Path::new(""));
                let dir = self.lookup(above, OFlags::PATH | OFlags::DIRECTORY, Mode::empty());
                Ok(Parent { dir: dir.at("open the directory of", path)?, name: name.to_owned() })
            }
            Some(Component::ParentDir) => self.parent(self.resolve(path)?),
            _ => Ok(Parent { dir: self.try_clone()?.fd, name: OsString::from(".") }),
        }
    }

    /// The path from the root to what `path` leads to: relative, without symlinks and dots; empty for the root.
    ///
    /// The last name need not exist, everything before it must.
    pub fn resolve(&self, path: impl AsRef<Path>) -> Result<PathBuf, PathError> {
        let path = path.as_ref();
        Ok(walk(self.as_fd(), trimmed(path), Last::Follow).at("resolve", path)?.path())
    }

    /// Makes a directory with exactly this mode; its parent must exist, it must not.
    pub fn create_dir(&self, path: impl AsRef<Path>, mode: Mode) -> Result<OwnedFd, PathError> {
        let path = path.as_ref();
        let parent = self.parent(path)?;
        make_dir(parent.dir.as_fd(), &parent.name, mode).at("create the directory", path)
    }

    /// Makes a directory and those above it that are missing, following symlinks on the way, also ones that
    /// lead to nothing yet. Each new directory gets exactly this mode and is then shown to `created`, for its
    /// owner and times.
    ///
    /// Returns the directory, opened for reading. That all exists already is no error.
    pub fn create_dir_all(
        &self,
        path: impl AsRef<Path>,
        mode: Mode,
        created: &mut dyn FnMut(BorrowedFd<'_>, &Path) -> io::Result<()>,
    ) -> Result<OwnedFd, PathError> {
        let path = path.as_ref();
        let mut missing =
            |parent: BorrowedFd<'_>, name: &OsStr, at: &Path| match make_dir(parent, name, mode) {
                Ok(dir) => created(dir.as_fd(), at)
                    .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)),
                Err(Errno::EXIST) => Ok(()),
                Err(errno) => Err(errno),
            };
        let place = walk_making(self.as_fd(), path, &mut missing).at("create the directory", path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(place.dir(), place.name(), flags, Mode::empty()).at("open", path)
    }

    /// Removes a file, a symlink, or a directory with all that is in it. That it does not exist is no error.
    ///
    /// The root itself cannot be removed.
    pub fn remove_all(&self, path: impl AsRef<Path>) -> Result<(), PathError> {
        let path = path.as_ref();
        let parent = match self.parent(path) {
            Err(error) if error.is_not_found() => return Ok(()),
            parent => parent?,
        };
        if parent.name == "." {
            return Err(Errno::BUSY).at("remove", path);
        }
        remove::remove(parent.dir.as_fd(), &parent.name).at("remove", path)
    }

    /// What is in a directory, sorted by name, without `.` and `..`; symlinks to the directory are followed.
    pub fn read_dir(&self, path: impl AsRef<Path>) -> Result<Vec<DirEntry>, PathError> {
        let path = path.as_ref();
        let dir = self.open_dir(path)?;
        let mut entries = list(dir.as_fd()).at("list", path)?;
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(entries.into_iter().map(|(name, kind)| DirEntry { name, kind }).collect())
    }

    fn stat_with(&self, path: &Path, flags: OFlags) -> Result<Stat, PathError> {
        let fd = self.lookup(path, OFlags::PATH | flags, Mode::empty());
        fd.and_then(fstat).at("read the attributes of", path)
    }

    fn lookup(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let (path, flags) = (trimmed(path), flags | OFlags::CLOEXEC);
        match self.lookup {
            Lookup::Kernel => lookup_by_kernel(self.as_fd(), path, flags, mode),
            #[cfg(test)]
            Lookup::Walk => lookup_by_walk(self.as_fd(), path, flags, mode),
        }
    }
}

fn lookup_by_kernel(root: BorrowedFd<'_>, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..RACE_RETRIES_MAX {
        match openat2(root, path, flags, mode, resolve) {
            Err(Errno::AGAIN) => {}
            // Old container sandboxes answer EPERM to calls that they do not know.
            Err(Errno::NOSYS | Errno::PERM) => break,
            result => return result,
        }
    }
    lookup_by_walk(root, path, flags, mode)
}

fn lookup_by_walk(root: BorrowedFd<'_>, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let last = if flags.contains(OFlags::NOFOLLOW) { Last::Keep } else { Last::Follow };
    let place = walk(root, path, last)?;
    openat(place.dir(), place.name(), flags | OFlags::NOFOLLOW, mode)
}

/// A path without slashes at its end, `.` for the root. Keeps `a/.`, which asks for a directory.
fn trimmed(path: &Path) -> &Path {
    let bytes = path.as_os_str().as_bytes();
    let end = bytes.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
    if end == 0 { Path::new(".") } else { Path::new(OsStr::from_bytes(&bytes[..end])) }
}

fn read_bounded(file: File, size_bytes_max: u64) -> io::Result<Vec<u8>> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        let errno = if metadata.is_dir() { Errno::ISDIR } else { Errno::INVAL };
        return Err(errno.into());
    }
    let mut contents = Vec::new();
    file.take(size_bytes_max.saturating_add(1)).read_to_end(&mut contents)?;
    if contents.len() as u64 > size_bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("larger than the limit of {size_bytes_max} bytes"),
        ));
    }
    Ok(contents)
}

fn make_dir(parent: BorrowedFd<'_>, name: &OsStr, mode: Mode) -> Result<OwnedFd, Errno> {
    mkdirat(parent, name, Mode::RWXU)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = openat(parent, name, flags, Mode::empty())?;
    fchmod(&dir, mode)?;
    Ok(dir)
}

/// The names and types in a directory opened for reading, in the order of the file system.
pub fn list(dir: BorrowedFd<'_>) -> Result<Vec<(OsString, FileType)>, Errno> {
    // A descriptor that was listed before stands at the end.
    seek(dir, SeekFrom::Start(0))?;
    let mut buffer = Vec::with_capacity(ENTRIES_BUFFER_BYTES);
    let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let name = OsStr::from_bytes(name).to_owned();
        let kind = match entry.file_type() {
            FileType::Unknown => kind_of(dir, &name)?,
            kind => kind,
        };
        names.push((name, kind));
    }
    Ok(names)
}

fn kind_of(dir: BorrowedFd<'_>, name: &OsStr) -> Result<FileType, Errno> {
    let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}

/// The path through which calls that take no descriptor reach what a descriptor refers to, also one of `O_PATH`.
///
/// The link is the kernel's, so this follows no name that anybody could change.
pub fn proc_path(fd: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

/// Whether a path is one of a descriptor's.
pub(crate) fn is_proc_path(path: &Path) -> bool {
    path.starts_with("/proc/self/fd")
}

#[cfg(test)]
mod tests;
