//! Volumes: directories that outlive the containers that use them.
//!
//! ```text
//! volumes/<name>/_data         what containers see
//! volumes/<name>/volume.json   its labels; as old as the volume
//! volumes/.lock                held while a volume is made for a container, or removed
//! volumes/.<id>                one that is being made or removed; without the lock's holder it is garbage
//! ```
//!
//! A volume is in use by every container that names it, whether that runs or not: there is no count that could be wrong. One without a
//! name of a person's has a label that says so, as with Docker.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rbuild_cache::layer::{self, ApplyOptions, ArchiveOptions};
use rbuild_cache::prune::disk_size_bytes;
use rbuild_cache::root_dir::RootDir;
use rbuild_cache::{Area, Snapshot, Store, Subject};
use rbuild_executor::Stubs;
use rustix::fs::{Gid, Mode, Uid, fchmod, fchown, fstat};
use serde::{Deserialize, Serialize};

use crate::copy::through;
use crate::name::{generate_id, is_name};
use crate::spec::VolumeMount;
use crate::{ContainerError, Containers, lock_file};

/// The label of a volume that nobody has named.
pub const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";
const DATA: &str = "_data";
const DOCUMENT: &str = "volume.json";
const LOCK: &str = ".lock";

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// What else is known of it.
    pub labels: BTreeMap<String, String>,
    /// When it was made, Unix seconds.
    pub created: i64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Document {
    labels: BTreeMap<String, String>,
}

/// The volumes of a store.
#[derive(Debug, Clone)]
pub struct Volumes {
    store: Store,
}

impl Volumes {
    /// The volumes of `store`.
    pub const fn new(store: Store) -> Self {
        Self { store }
    }

    /// What containers see of a volume.
    pub fn data(&self, name: &str) -> PathBuf {
        self.directory(name).join(DATA)
    }

    /// All volumes, by name.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn list(&self) -> Result<Vec<Volume>, ContainerError> {
        let area = self.store.area(Area::Volumes);
        let mut volumes = Vec::new();
        for entry in fs::read_dir(&area).map_err(ContainerError::io("read", &area))? {
            let name = entry.map_err(ContainerError::io("read", &area))?.file_name();
            if let Some(name) = name.to_str().filter(|name| is_name(name)) {
                volumes.extend(self.read(name)?);
            }
        }
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    /// The volume of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn get(&self, name: &str) -> Result<Volume, ContainerError> {
        let found = if is_name(name) { self.read(name)? } else { None };
        found.ok_or_else(|| ContainerError::NoSuchVolume { name: name.to_owned() })
    }

    /// Makes a volume; one that is there already is what is wanted.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(&self, name: &str, labels: BTreeMap<String, String>) -> Result<Volume, ContainerError> {
        let _lock = self.lock()?;
        self.ensure(name, labels)
    }

    /// Removes a volume that no container uses.
    ///
    /// # Errors
    /// When one does, or it cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), ContainerError> {
        let _lock = self.lock()?;
        self.get(name)?;
        if let Some(users) = self.in_use()?.get(name) {
            return Err(ContainerError::VolumeInUse { name: name.to_owned(), users: users.join(", ") });
        }
        // Without its name it is gone, whatever happens then.
        let (directory, nameless) = (self.directory(name), self.nameless()?);
        fs::rename(&directory, &nameless)
            .and_then(|()| fs::remove_dir_all(&nameless))
            .map_err(ContainerError::io("remove", &directory))?;
        self.note("destroy", name);
        Ok(())
    }

    fn note(&self, action: &str, name: &str) {
        self.store.note(Subject::Volume, action, name, [("driver", "local".to_owned())]);
    }

    /// The volumes that containers use, with the ids of those.
    ///
    /// # Errors
    /// When the store fails.
    pub fn in_use(&self) -> Result<BTreeMap<String, Vec<String>>, ContainerError> {
        let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for container in Containers::new(self.store.clone()).list()? {
            for volume in container.state.spec.volumes {
                users.entry(volume.name).or_default().push(container.id.clone());
            }
        }
        Ok(users)
    }

    /// What a volume takes on disk, in bytes.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn disk_size_bytes(&self, name: &str) -> Result<u64, ContainerError> {
        Ok(disk_size_bytes(&self.data(name))?)
    }

    /// Makes what a container that stands on `snapshot` is to mount, as far as it is missing, and fills what is empty with what the
    /// image has there. As long as the lock that comes back is held, nobody removes any of it.
    pub(crate) fn claim(
        &self,
        mounts: &[VolumeMount],
        snapshot: &Snapshot,
    ) -> Result<Option<File>, ContainerError> {
        if mounts.is_empty() {
            return Ok(None);
        }
        let lock = self.lock()?;
        let image = RootDir::from_fd(self.store.view(snapshot)?.into());
        for mount in mounts {
            let anonymous = mount.anonymous.then(|| (ANONYMOUS_LABEL.to_owned(), String::new()));
            self.ensure(&mount.name, anonymous.into_iter().collect())?;
            if !mount.no_copy {
                self.fill(mount, &image)?;
            }
            let data = self.data(&mount.name);
            add_stubs(mount, &data).map_err(ContainerError::io("fill", &data))?;
        }
        Ok(Some(lock))
    }

    /// Removes those of a container's volumes that nobody named and nobody else uses.
    pub(crate) fn release(&self, mounts: &[VolumeMount]) {
        for mount in mounts.iter().filter(|mount| mount.anonymous) {
            // What stays is seen by `volume ls`, and goes with `volume prune`.
            drop(self.remove(&mount.name));
        }
    }

    fn ensure(&self, name: &str, labels: BTreeMap<String, String>) -> Result<Volume, ContainerError> {
        if !is_name(name) {
            return Err(ContainerError::BadVolumeName { name: name.to_owned() });
        }
        if let Some(volume) = self.read(name)? {
            return Ok(volume);
        }
        let (directory, nameless) = (self.directory(name), self.nameless()?);
        let make = || {
            fs::create_dir_all(nameless.join(DATA))?;
            fs::write(nameless.join(DOCUMENT), serde_json::to_vec(&Document { labels })?)?;
            fs::rename(&nameless, &directory)
        };
        make().map_err(ContainerError::io("make", &directory))?;
        self.note("create", name);
        self.get(name)
    }

    fn fill(&self, mount: &VolumeMount, image: &RootDir) -> Result<(), ContainerError> {
        let data = self.data(&mount.name);
        let failed = || ContainerError::io("fill", &data);
        if fs::read_dir(&data).map_err(failed())?.next().is_some() {
            return Ok(());
        }
        // An image without that directory has nothing to give.
        let Ok(source) = image.subroot(&mount.target) else { return Ok(()) };
        let target = RootDir::open(&data).map_err(rbuild_cache::Error::from)?;
        // What the writer of archives says, the reader of archives makes: owners, modes, times and attributes.
        let options = ApplyOptions { owners: self.store.owners(), ..ApplyOptions::literal() };
        let write = |out: &mut dyn io::Write| layer::export(&source, &ArchiveOptions::default(), out);
        let read = |input: &mut (dyn io::Read + Send)| layer::apply(input, &target, &options).map(drop);
        through(write, read)
            .map(drop)
            .map_err(|source| ContainerError::Fill { name: mount.name.clone(), source })?;
        let (from, to) = (source.into_fd(), File::open(&data).map_err(failed())?);
        let take_over = || {
            let stat = fstat(&from)?;
            if matches!(self.store.owners(), layer::Owners::Keep) {
                fchown(&to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
            }
            fchmod(&to, Mode::from_raw_mode(stat.st_mode))
        };
        take_over().map_err(|error: rustix::io::Errno| failed()(error.into()))
    }

    fn read(&self, name: &str) -> Result<Option<Volume>, ContainerError> {
        let path = self.directory(name).join(DOCUMENT);
        let failed = || ContainerError::io("read", &path);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(failed())?,
        };
        let Document { labels } = serde_json::from_slice(&bytes).map_err(|error| failed()(error.into()))?;
        let modified = fs::metadata(&path).and_then(|metadata| metadata.modified()).map_err(failed())?;
        let age = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        let created = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        Ok(Some(Volume { name: name.to_owned(), labels, created }))
    }

    fn directory(&self, name: &str) -> PathBuf {
        self.store.area(Area::Volumes).join(name)
    }

    fn nameless(&self) -> Result<PathBuf, ContainerError> {
        Ok(self.directory(&format!(".{}", generate_id()?)))
    }

    fn lock(&self) -> Result<File, ContainerError> {
        let file = lock_file(&self.directory(LOCK))?;
        self.discard_nameless();
        Ok(file)
    }

    /// Removes what processes that died have left; nobody else makes or removes one meanwhile.
    fn discard_nameless(&self) {
        let entries = fs::read_dir(self.store.area(Area::Volumes)).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name());
        for name in names.filter(|name| name != LOCK && name.as_encoded_bytes().starts_with(b".")) {
            // What cannot be removed now is tried again by the next one.
            drop(fs::remove_dir_all(self.store.area(Area::Volumes).join(name)));
        }
    }
}

/// The files that are mounted over in every container are in a volume in their place, so that it may be read-only.
fn add_stubs(mount: &VolumeMount, data: &Path) -> io::Result<()> {
    let target = Path::new(&mount.target);
    for stub in Stubs::CONTAINER.files.iter().map(|stub| Path::new("/").join(stub)) {
        if stub.parent() == Some(target)
            && let Some(name) = stub.file_name()
            && let Err(error) = File::create_new(data.join(name))
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(error);
        }
    }
    Ok(())
}
