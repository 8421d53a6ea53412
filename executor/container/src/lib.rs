//! Containers: an image plus one writable layer, and at most one process space.
//!
//! A container exists without running, and keeps its writable layer when it stops. What the store keeps of it is a
//! row (its [`ContainerState`] as JSON, the snapshot it stands on) and a directory:
//!
//! ```text
//! containers/<id>/upper      the writable layer, in overlayfs's form
//! containers/<id>/work       overlayfs's own
//! containers/<id>/json.log   what its process printed
//! containers/<id>/lock       locked by its monitor, as long as it runs
//! containers/<id>/monitor    the socket of its monitor
//! networks/<name>            a network that somebody has made
//! ```
//!
//! One that runs has a [`monitor`]: a process of its own, which outlives the command that started it. Clients talk to it
//! over the socket ([`client`]); who only wants to know reads the row. Whether a container runs is decided by the lock and not by its
//! row: a monitor that was killed holds none, the kernel killed its container, and after a restart of the machine nobody holds any.
//! Every change of state is checked against one table ([`Status`]).
#![forbid(unsafe_code)]

pub mod client;
mod copy;
mod error;
mod events;
mod files;
mod log;
pub mod monitor;
mod name;
mod networks;
mod processes;
mod protocol;
mod signal;
mod spec;
mod state;
mod volumes;

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rbuild_cache::prune::disk_size_bytes;
use rbuild_cache::{Area, ContainerRecord, Snapshot, Store};
use rustix::fs::{FlockOperation, flock};

pub use client::{Event, Held, IdleMonitor, Session, StartOptions, Started};
pub use copy::{CopyError, Place, copy, read_archive, write_archive};
pub use error::ContainerError;
pub use files::{ChangeKind, Files};
pub use log::{LogLine, LogReader, LogTail};
pub use name::{generate_id, generate_name};
pub use networks::{KnownNetworks, NetworkDriver, NetworkRecord, NewNetwork};
pub use protocol::{Attach, Exec, Stop, Update, Usage};
pub use signal::{KILL, parse_signal};
pub use spec::{
    Attachment, Bind, ContainerLink, ContainerSpec, DEFAULT_NETWORK, LogOptions, NetworkMode, PidMode,
    RestartPolicy, Tmpfs, VolumeMount,
};
pub use state::{
    Action, ContainerState, Ended, Endpoint, Health, HealthResult, HealthStatus, Run, START_FAILED,
    StartFailure, Status,
};
pub use volumes::{ANONYMOUS_LABEL, Volume, Volumes};

/// The file that a monitor locks.
const LOCK: &str = "lock";
/// How often the lock is tried: who looks whether it is held holds it for an instant.
const LOCK_TRIES_MAX: u32 = 10;
/// How long to wait between.
const LOCK_PAUSE: Duration = Duration::from_millis(2);
/// The socket of a monitor.
const SOCKET: &str = "monitor";

/// A container of the store.
#[derive(Debug, Clone)]
pub struct Container {
    /// Its id: 64 hex digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was created, Unix seconds.
    pub created: i64,
    /// The read-only layers that it stands on.
    pub snapshot: Snapshot,
    /// What it is and how it fares.
    pub state: ContainerState,
}

impl Container {
    /// The twelve digits of its id that people read.
    pub fn short_id(&self) -> &str {
        &self.id[..12]
    }
}

/// The containers of a store.
#[derive(Debug, Clone)]
pub struct Containers {
    store: Store,
}

impl Containers {
    /// The containers of `store`.
    pub const fn new(store: Store) -> Self {
        Self { store }
    }

    /// Creates a container. Nothing runs yet. Without a name it gets one.
    ///
    /// # Errors
    /// When the name is taken or none, or the store fails.
    pub fn create(
        &self,
        name: Option<&str>,
        snapshot: &Snapshot,
        spec: ContainerSpec,
    ) -> Result<Container, ContainerError> {
        let id = generate_id()?;
        let name = name.map_or_else(|| generate_name(&id), str::to_owned);
        check_name(&name)?;
        let state = ContainerState::new(spec);
        let record =
            ContainerRecord { id, name, state: state.to_json(), snapshot: snapshot.clone(), created: 0 };
        let volumes = Volumes::new(self.store.clone());
        let inserted = volumes.claim(&state.spec.volumes, snapshot).and_then(|_claim| self.insert(&record));
        inserted.inspect_err(|_| volumes.release(&state.spec.volumes))?;
        let created = self.store.containers().get(&record.id)?.map_or(0, |record| record.created);
        let ContainerRecord { id, name, snapshot, .. } = record;
        let container = Container { id, name, created, snapshot, state };
        self.note(&container, "create", []);
        Ok(container)
    }

    fn insert(&self, record: &ContainerRecord) -> Result<(), ContainerError> {
        // Made once: who looks for it later finds that of a container that is there, or none.
        let lock = |directory: &Path| File::create(directory.join(LOCK)).map(drop);
        self.store.containers().create(record, lock).map_err(|error| self.name_error(error))
    }

    /// The container with this whole id.
    ///
    /// # Errors
    /// When there is none.
    pub fn get(&self, id: &str) -> Result<Container, ContainerError> {
        let record = self.store.containers().get(id)?;
        record.ok_or_else(|| not_found(id)).and_then(|record| self.complete(record))
    }

    /// The container that a person means: by name, by id, or by the unique beginning of an id.
    ///
    /// # Errors
    /// When there is none, or several.
    pub fn find(&self, name: &str) -> Result<Container, ContainerError> {
        let name = name.strip_prefix('/').unwrap_or(name);
        if let Some(record) = self.store.containers().by_name(name)? {
            return self.complete(record);
        }
        let mut found: Vec<_> = self.store.containers().list()?;
        found.retain(|record| !name.is_empty() && record.id.starts_with(name));
        match (found.pop(), found.len()) {
            (Some(record), 0) => self.complete(record),
            (Some(_), _) => Err(ContainerError::Ambiguous { prefix: name.to_owned() }),
            (None, _) => Err(not_found(name)),
        }
    }

    /// All containers, newest first.
    ///
    /// # Errors
    /// When the store fails.
    pub fn list(&self) -> Result<Vec<Container>, ContainerError> {
        self.store.containers().list()?.into_iter().map(|record| self.complete(record)).collect()
    }

    /// Removes a container that does not run, and its writable layer.
    ///
    /// # Errors
    /// When it runs, or its files cannot be removed.
    pub fn remove(&self, container: &Container) -> Result<(), ContainerError> {
        let now = self.get(&container.id)?;
        // One that is half removed is removed again.
        if now.state.status != Status::Removing {
            now.check(Action::Remove)?;
        }
        // Whoever holds it has just started the container, or removes it as well.
        let _lock = match self.lock(&now) {
            Err(ContainerError::NotFound { .. }) if now.state.status == Status::Removing => None,
            lock => Some(lock?),
        };
        monitor::end_leftovers(&now);
        self.change(&now.id, |state| state.status = Status::Removing)?;
        let directory = self.directory(&now.id);
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(ContainerError::io("remove", &directory)(error));
            }
            _ => {}
        }
        self.store.containers().remove(&now.id)?;
        self.note(&now, "destroy", []);
        Ok(())
    }

    /// Removes a container, and with it the volumes that nobody has named.
    ///
    /// # Errors
    /// As [`remove`](Self::remove).
    pub fn remove_with_volumes(&self, container: &Container) -> Result<(), ContainerError> {
        self.remove(container)?;
        Volumes::new(self.store.clone()).release(&container.state.spec.volumes);
        Ok(())
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// When it is taken or none.
    pub fn rename(&self, container: &Container, name: &str) -> Result<(), ContainerError> {
        check_name(name)?;
        let renamed = self.store.containers().rename(&container.id, name);
        if renamed.map_err(|error| self.name_error(error))? {
            let renamed = Container { name: name.to_owned(), ..container.clone() };
            self.note(&renamed, "rename", [("oldName", format!("/{}", container.name))]);
            Ok(())
        } else {
            Err(not_found(&container.name))
        }
    }

    /// What a container's writable layer and logs take on disk, in bytes.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn disk_size_bytes(&self, container: &Container) -> Result<u64, ContainerError> {
        Ok(disk_size_bytes(&self.directory(&container.id))?)
    }

    /// The log of a container.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn log(&self, container: &Container, tail: LogTail) -> Result<LogReader, ContainerError> {
        let directory = self.directory(&container.id);
        LogReader::open(&directory, tail).map_err(ContainerError::io("read the log in", &directory))
    }

    /// The directory of a container.
    pub fn directory(&self, id: &str) -> PathBuf {
        self.store.area(Area::Containers).join(id)
    }

    pub(crate) const fn store(&self) -> &Store {
        &self.store
    }

    /// Changes what is kept of a container, in one step with reading it.
    pub(crate) fn change(
        &self,
        id: &str,
        change: impl FnOnce(&mut ContainerState),
    ) -> Result<(), ContainerError> {
        let (mut unread, mut noted) = (None, None);
        let found = self.store.containers().update(id, |json| match ContainerState::from_json(json) {
            Ok(mut state) => {
                let before = state.clone();
                change(&mut state);
                noted = events::of_change(&before, &state);
                Some(state.to_json())
            }
            Err(source) => {
                unread = Some(ContainerError::State { name: id.to_owned(), source });
                None
            }
        })?;
        match unread {
            Some(error) => Err(error),
            None if found => {
                noted.into_iter().for_each(|noted| self.note_change(id, noted));
                Ok(())
            }
            None => Err(not_found(id)),
        }
    }

    /// Takes the lock of a container, which says that it runs or is being removed.
    pub(crate) fn lock(&self, container: &Container) -> Result<File, ContainerError> {
        let path = self.directory(&container.id).join(LOCK);
        let file = match File::options().write(true).open(&path) {
            // It has been removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(not_found(&container.name)),
            file => file.map_err(ContainerError::io("open", &path))?,
        };
        let mut tries = 1;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // It may have been removed with its container before it was locked.
                Ok(()) if is_named(&file, &path) => return Ok(file),
                Ok(()) => return Err(not_found(&container.name)),
                Err(rustix::io::Errno::WOULDBLOCK) if tries < LOCK_TRIES_MAX => tries += 1,
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let message = format!("container {} is already running", container.name);
                    return Err(ContainerError::Illegal { message });
                }
                Err(error) => return Err(ContainerError::io("lock", &path)(error.into())),
            }
            std::thread::sleep(LOCK_PAUSE);
        }
    }

    /// Reads a row, and sees whether what it calls running still runs.
    fn complete(&self, record: ContainerRecord) -> Result<Container, ContainerError> {
        let mut state = ContainerState::from_json(&record.state)
            .map_err(|source| ContainerError::State { name: record.name.clone(), source })?;
        if state.status.is_active() && !self.is_locked(&record.id) {
            // Its monitor may have noted the end between the look at the row and the look at the lock.
            let again = self.store.containers().get(&record.id)?;
            let again = again.and_then(|record| ContainerState::from_json(&record.state).ok());
            state = again.unwrap_or(state);
            state.status = state.status.lost();
        }
        let ContainerRecord { id, name, created, snapshot, .. } = record;
        Ok(Container { id, name, created, snapshot, state })
    }

    fn is_locked(&self, id: &str) -> bool {
        File::open(self.directory(id).join(LOCK))
            .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared).is_err())
    }

    fn name_error(&self, error: rbuild_cache::Error) -> ContainerError {
        let rbuild_cache::Error::NameInUse(name) = error else { return error.into() };
        let owner = self.store.containers().by_name(&name).ok().flatten();
        ContainerError::NameInUse { name, id: owner.map(|owner| owner.id).unwrap_or_default() }
    }
}

/// Whether a path still leads to a file.
fn is_named(file: &File, path: &Path) -> bool {
    let place = |metadata: Metadata| (metadata.dev(), metadata.ino());
    let named = fs::metadata(path).map(place);
    named.is_ok_and(|named| file.metadata().map(place).is_ok_and(|open| open == named))
}

fn check_name(name: &str) -> Result<(), ContainerError> {
    if name::is_name(name) { Ok(()) } else { Err(ContainerError::BadName { name: name.to_owned() }) }
}

fn not_found(name: &str) -> ContainerError {
    ContainerError::NotFound { name: name.to_owned() }
}

/// Waits for the lock that this file is, which is held until what comes back is dropped.
fn lock_file(path: &Path) -> Result<File, ContainerError> {
    let file = File::create(path).map_err(ContainerError::io("make", path))?;
    flock(&file, FlockOperation::LockExclusive)
        .map_err(|error| ContainerError::io("lock", path)(error.into()))?;
    Ok(file)
}
