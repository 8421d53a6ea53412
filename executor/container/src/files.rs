//! The files of a container, for who reads and writes them from outside.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rbuild_cache::Snapshot;
use rbuild_cache::layer::Owners;
use rbuild_cache::layer::whiteout::{is_opaque, is_whiteout};
use rbuild_cache::root_dir::{RootDir, list};
use rbuild_executor::user::{USER_FILE_SIZE_BYTES_MAX, UserDatabase};
use rustix::fs::{AtFlags, FileType, statat};

use crate::copy::{CopyError, Place};
use crate::state::Action;
use crate::{Container, ContainerError, Containers, Volumes};

/// The file system of a container as its processes see it, or would.
#[derive(Debug)]
pub struct Files {
    root: RootDir,
    /// Whether the root cannot be written to, though this process could.
    readonly: bool,
    /// What a container that does not run would have mounted, the deepest first.
    mounted: Vec<Mounted>,
    /// Keeps a container from being started meanwhile.
    _lock: Option<File>,
}

#[derive(Debug)]
struct Mounted {
    target: PathBuf,
    source: PathBuf,
    readonly: bool,
}

impl Files {
    /// Where a path leads, which was written as `text`, of a container that was named so. What is mounted in one that does not run is
    /// found by the path as it is written.
    ///
    /// # Errors
    /// When what is mounted there cannot be opened.
    pub fn place(&self, text: &str, container: &str) -> Result<Place, CopyError> {
        let path = Path::new("/").join(text);
        let inside = |mounted: &&Mounted| path.starts_with(&mounted.target) && mounted.source.is_dir();
        let Some(mounted) = self.mounted.iter().find(inside) else {
            let readonly = self.readonly.then_some("container rootfs");
            return Ok(Place::in_container(self.root.try_clone()?, path, text, container, readonly));
        };
        let rest = path.strip_prefix(&mounted.target).unwrap_or(Path::new(""));
        let readonly = mounted.readonly.then_some("mounted volume");
        let root = RootDir::open(&mounted.source)?;
        Ok(Place::in_container(root, Path::new("/").join(rest), text, container, readonly))
    }

    /// Who owns what is a user's of the container.
    ///
    /// # Errors
    /// When there is no such user.
    pub fn owner(&self, user: &str) -> Result<Owners, ContainerError> {
        let read = |path: &str| match self.root.read(path, USER_FILE_SIZE_BYTES_MAX) {
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            read => read.map_err(rbuild_cache::Error::from),
        };
        let users = UserDatabase::parse(&read("etc/passwd")?, &read("etc/group")?);
        let ids = users.and_then(|users| users.resolve(user)).map_err(ContainerError::User)?;
        Ok(Owners::All { uid: ids.uid, gid: ids.gid })
    }
}

/// How a path of a container differs from its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is not in the image.
    Added,
    /// It is in the image as well.
    Changed,
    /// It is in the image only.
    Deleted,
}

impl Containers {
    /// The files of a container, to read and write; with all its mounts where it runs.
    ///
    /// # Errors
    /// When they cannot be mounted.
    pub fn files(&self, container: &Container) -> Result<Files, ContainerError> {
        if container.is_running() {
            let root = RootDir::from_fd(self.live_root(container)?);
            return Ok(Files { root, readonly: false, mounted: Vec::new(), _lock: None });
        }
        let lock = self.lock(container)?;
        let directory = self.directory(&container.id);
        let spec = &container.state.spec;
        let root = self.store().mount_writable(&container.snapshot, &directory, None, spec.durability())?;
        let volumes = Volumes::new(self.store().clone());
        let volumes = spec.volumes.iter().map(|volume| Mounted {
            target: volume.target.clone().into(),
            source: volumes.data(&volume.name),
            readonly: volume.readonly,
        });
        let binds = spec.binds.iter().map(|bind| Mounted {
            target: bind.target.clone().into(),
            source: bind.source.clone().into(),
            readonly: bind.readonly,
        });
        let mut mounted: Vec<Mounted> = volumes.chain(binds).collect();
        mounted.sort_by_key(|mounted| std::cmp::Reverse(mounted.target.components().count()));
        let root = RootDir::from_fd(root.into());
        Ok(Files { root, readonly: spec.readonly_root, mounted, _lock: Some(lock) })
    }

    /// What the files hold that a container has written, in bytes; of one with several names for each. What vanishes meanwhile does
    /// not count.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn written_bytes(&self, container: &Container) -> Result<u64, ContainerError> {
        let (mut bytes, mut open) = (0, vec![self.directory(&container.id).join("upper")]);
        while let Some(directory) = open.pop() {
            let entries = match fs::read_dir(&directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries.map_err(ContainerError::io("read", &directory))?,
            };
            for entry in entries.flatten() {
                match entry.metadata() {
                    Ok(found) if found.is_dir() => open.push(entry.path()),
                    Ok(found) if found.is_file() => bytes += found.len(),
                    _ => {}
                }
            }
        }
        Ok(bytes)
    }

    /// The files of a container without its mounts, to read, whether it runs or not.
    ///
    /// # Errors
    /// When they cannot be mounted.
    pub fn view(&self, container: &Container) -> Result<RootDir, ContainerError> {
        let directory = self.directory(&container.id);
        let mounted = self.store().view_writable(&container.snapshot, &directory)?;
        Ok(RootDir::from_fd(mounted.into()))
    }

    /// Makes a snapshot of a container's files as they are. Nothing should write to them meanwhile.
    ///
    /// # Errors
    /// When the store fails.
    pub fn commit(&self, container: &Container) -> Result<Snapshot, ContainerError> {
        let upper = self.directory(&container.id).join("upper");
        if !upper.exists() {
            return Ok(container.snapshot.clone());
        }
        let copied = self.store().commit_copy(&container.snapshot, &upper);
        // What was being removed meanwhile may be half of it.
        self.get(&container.id)?.check(Action::Commit)?;
        Ok(copied?)
    }

    /// What differs from the image, in the order of paths.
    ///
    /// # Errors
    /// When the layers cannot be read.
    pub fn changes(&self, container: &Container) -> Result<Vec<(ChangeKind, PathBuf)>, ContainerError> {
        let upper = self.directory(&container.id).join("upper");
        let mut changes = Vec::new();
        if upper.exists() {
            let image = RootDir::from_fd(self.store().view(&container.snapshot)?.into());
            let upper = RootDir::open(&upper).map_err(rbuild_cache::Error::from)?;
            let compare = Compare { upper, image, xattrs: self.store().xattrs() };
            compare.directory(Path::new(""), &mut changes)?;
        }
        Ok(changes)
    }
}

struct Compare {
    upper: RootDir,
    image: RootDir,
    xattrs: rbuild_cache::OverlayXattrs,
}

impl Compare {
    fn directory(&self, path: &Path, changes: &mut Vec<(ChangeKind, PathBuf)>) -> Result<(), ContainerError> {
        let failed = |error: rustix::io::Errno| ContainerError::io("read", path)(error.into());
        let here = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let open = self.upper.open_dir(here).map_err(rbuild_cache::Error::from)?;
        let mut entries = list(open.as_fd()).map_err(failed)?;
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, kind) in entries {
            let path = path.join(&name);
            let in_image = self.image.lstat(&path).is_ok();
            let stat = statat(&open, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            if is_whiteout(open.as_fd(), &name, &stat, self.xattrs).map_err(failed)? {
                if in_image {
                    changes.push((ChangeKind::Deleted, path));
                }
                continue;
            }
            changes.push((if in_image { ChangeKind::Changed } else { ChangeKind::Added }, path.clone()));
            if kind == FileType::Directory {
                if in_image && is_opaque(open.as_fd(), &name, self.xattrs).map_err(failed)? {
                    self.hidden(&path, changes);
                }
                self.directory(&path, changes)?;
            }
        }
        Ok(())
    }

    /// What an opaque directory hides of the image's and does not have itself.
    fn hidden(&self, path: &Path, changes: &mut Vec<(ChangeKind, PathBuf)>) {
        for entry in self.image.read_dir(path).into_iter().flatten() {
            let path = path.join(&entry.name);
            if self.upper.lstat(&path).is_err() {
                changes.push((ChangeKind::Deleted, path));
            }
        }
    }
}
