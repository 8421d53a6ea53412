//! Where things are in the store, and the format that this is.
//!
//! The `version` file is written last when a store is made, so a directory that has one has everything else. It also says
//! which extended attributes mark opaque directories in layers: a store that one kind wrote is misread with the other.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rbuild_image::Digest;
use rustix::fs::{FlockOperation, flock};

use crate::fail_point::FailPoint;
use crate::root_dir::At;
use crate::snapshot::OverlayXattrs;
use crate::{Error, LayerId, MutableKind, Result};

/// Changes whenever an older version would misread the directories. The tables have `PRAGMA user_version`.
const FORMAT: u32 = 1;

/// The directories of a store, parents first.
const DIRECTORIES: [&str; 15] = [
    "content",
    "content/sha256",
    "ingest",
    "layers",
    "active",
    "empty",
    "stubs",
    "locks",
    "leases",
    "trash",
    "containers",
    "volumes",
    "git",
    "builds",
    "file-lists",
];

/// A place in the store that another part of rbuild fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Area {
    /// Directories of mount-point stubs, by what they hold.
    Stubs,
    /// Containers' directories, by container id.
    Containers,
    /// Volumes' directories, by name.
    Volumes,
    /// Mirrors of git repositories.
    Git,
}

/// Paths of one store.
#[derive(Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) const fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.root.join("metadata.db")
    }

    pub(crate) fn stat_cache(&self) -> PathBuf {
        self.root.join("stat-cache-v1.db")
    }

    pub(crate) fn downloads(&self) -> PathBuf {
        self.root.join("downloads-v1.db")
    }

    pub(crate) fn blob_places(&self) -> PathBuf {
        self.root.join("blob-places-v1.db")
    }

    pub(crate) fn events(&self) -> PathBuf {
        self.root.join("events.log")
    }

    pub(crate) fn old_events(&self) -> PathBuf {
        self.root.join("events.old")
    }

    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        debug_assert!(DIRECTORIES.contains(&name), "`{name}` is not a directory of the store");
        self.root.join(name)
    }

    pub(crate) fn area(&self, area: Area) -> PathBuf {
        self.directory(match area {
            Area::Stubs => "stubs",
            Area::Containers => "containers",
            Area::Volumes => "volumes",
            Area::Git => "git",
        })
    }

    pub(crate) fn blob(&self, digest: Digest) -> PathBuf {
        let hex = digest.hex();
        self.root.join("content/sha256").join(&hex[..2]).join(&hex)
    }

    pub(crate) fn layer(&self, id: LayerId) -> PathBuf {
        self.root.join("layers").join(id.0.to_string())
    }

    /// Made by the first layer that has contents in one.
    pub(crate) fn packs(&self) -> PathBuf {
        self.root.join("packs")
    }

    pub(crate) fn pack(&self, id: i64) -> PathBuf {
        self.packs().join(id.to_string())
    }

    /// Made by its first user: most stores have none.
    pub(crate) fn mutable(&self, kind: MutableKind, name: &str) -> PathBuf {
        self.root.join(kind.directory()).join(name)
    }

    pub(crate) fn prune_lock(&self) -> PathBuf {
        self.root.join("prune.lock")
    }

    pub(crate) fn leases_lock(&self) -> PathBuf {
        self.root.join("leases.lock")
    }

    /// Makes the store unless it is there, and refuses one of another format. `create` makes the tables.
    pub(crate) fn open(&self, xattrs: OverlayXattrs, create: impl FnOnce() -> Result<()>) -> Result<()> {
        let version = self.root.join("version");
        let found = match fs::read_to_string(&version) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.create(&version, xattrs, create)?,
            read => read.at("read", &version)?,
        };
        let supported = format_line(xattrs);
        if found == supported {
            return Ok(());
        }
        Err(Error::UnknownFormat {
            root: self.root.clone(),
            found: found.trim_end().chars().take(80).collect(),
            supported: supported.trim_end().to_owned(),
        })
    }

    fn create(
        &self,
        version: &Path,
        xattrs: OverlayXattrs,
        create: impl FnOnce() -> Result<()>,
    ) -> Result<String> {
        fs::create_dir_all(&self.root).at("create", &self.root)?;
        let lock = lock_directory(&self.root)?;
        if let Ok(made_meanwhile) = fs::read_to_string(version) {
            return Ok(made_meanwhile);
        }
        self.refuse_foreign_directory()?;
        // What is in the store must not be reachable by other users: layers hold set-uid programs.
        set_mode(&self.root, 0o700)?;
        for name in DIRECTORIES {
            let path = self.root.join(name);
            FailPoint::StoreDirectory.reach().at("create", &path)?;
            make_directory(&path)?;
        }
        create()?;
        let line = format_line(xattrs);
        let partial = self.root.join("version.partial");
        fs::write(&partial, &line).at("write", &partial)?;
        FailPoint::StoreVersion.reach().at("create", version)?;
        fs::rename(&partial, version).at("create", version)?;
        drop(lock);
        Ok(line)
    }

    /// A directory with something in it that no interrupted creation of a store left is somebody else's.
    fn refuse_foreign_directory(&self) -> Result<()> {
        let ours = |name: &str| {
            DIRECTORIES.contains(&name) || name.starts_with("metadata.db") || name == "version.partial"
        };
        for entry in fs::read_dir(&self.root).at("list", &self.root)? {
            let name = entry.at("list", &self.root)?.file_name();
            if !name.to_str().is_some_and(ours) {
                return Err(Error::NotAStore { root: self.root.clone() });
            }
        }
        Ok(())
    }
}

fn format_line(xattrs: OverlayXattrs) -> String {
    let xattrs = match xattrs {
        OverlayXattrs::Trusted => "trusted",
        OverlayXattrs::User => "user",
    };
    format!("rbuild-store {FORMAT} {xattrs}\n")
}

fn make_directory(path: &Path) -> Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error).at("create", path)?,
        _ => Ok(()),
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode)).at("set the mode of", path)?)
}

/// Locks the root of a store, against whoever makes it.
pub(crate) fn lock_directory(path: &Path) -> Result<File> {
    let directory = File::open(path).at("open", path)?;
    flock(&directory, FlockOperation::LockExclusive).at("lock", path)?;
    Ok(directory)
}
