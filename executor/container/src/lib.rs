//! Containers: an image plus one writable layer, and at most one process space.
//!
//! ```text
//! create ──► Created ──start──► Running ──exit──► Exited ──start──► Running …
//!               └──────────────── remove ───────────┘
//! ```
//!
//! A container exists without running, and keeps its writable layer when it stops. What the store keeps of it is a
//! row (its [`ContainerState`] as JSON, the snapshot it stands on) and a directory:
//!
//! ```text
//! containers/<id>/upper   the writable layer, in overlayfs's form
//! containers/<id>/work    overlayfs's own
//! containers/<id>/lock    locked by the process that runs it, as long as it does
//! ```
//!
//! Whether a container runs is decided by that lock, not by its row: a process that was killed holds none, so the container
//! it ran is known to have stopped. Every change of state is checked against the table above ([`Status`]).
#![forbid(unsafe_code)]

mod error;
mod name;
mod run;
mod state;

use std::fs;
use std::io;
use std::path::PathBuf;

use rbuild_cache::prune::disk_size_bytes;
use rbuild_cache::{Area, ContainerRecord, Snapshot, Store};
use rustix::fs::{FlockOperation, flock};

pub use error::ContainerError;
pub use name::{generate_id, generate_name};
pub use run::{RunOptions, StartIo, Started};
pub use state::{ContainerState, Status};

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

    /// Creates a container. Nothing runs yet.
    ///
    /// # Errors
    /// When the name is taken, or the store fails.
    pub fn create(
        &self,
        name: String,
        snapshot: &Snapshot,
        state: ContainerState,
    ) -> Result<Container, ContainerError> {
        let id = generate_id()?;
        let record = ContainerRecord {
            id: id.clone(),
            name: name.clone(),
            state: state.to_json(),
            snapshot: snapshot.clone(),
            created: 0,
        };
        self.store.containers().create(&record)?;
        let directory = self.directory(&id);
        fs::create_dir_all(&directory).map_err(ContainerError::io("make", &directory))?;
        Ok(Container { id, name, created: record.created, snapshot: snapshot.clone(), state })
    }

    /// The container that a person means: by name, by id, or by the unique beginning of an id.
    ///
    /// # Errors
    /// When there is none, or several.
    pub fn find(&self, name: &str) -> Result<Container, ContainerError> {
        if let Some(record) = self.store.containers().by_name(name)? {
            return self.complete(record);
        }
        let mut found: Vec<_> = self.store.containers().list()?;
        found.retain(|record| !name.is_empty() && record.id.starts_with(name));
        match (found.pop(), found.len()) {
            (Some(record), 0) => self.complete(record),
            (Some(_), _) => Err(ContainerError::Ambiguous { prefix: name.to_owned() }),
            (None, _) => Err(ContainerError::NotFound { name: name.to_owned() }),
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
        if let Status::Running { .. } = container.state.status {
            return Err(ContainerError::IsRunning { name: container.name.clone(), verb: "remove" });
        }
        let directory = self.directory(&container.id);
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(ContainerError::io("remove", &directory)(error));
            }
            _ => {}
        }
        self.store.containers().remove(&container.id)?;
        Ok(())
    }

    /// Removes a container by its whole id.
    ///
    /// # Errors
    /// As [`remove`](Self::remove).
    pub fn remove_by_id(&self, id: &str) -> Result<(), ContainerError> {
        self.find(id).and_then(|container| self.remove(&container))
    }

    /// What a container's writable layer and logs take on disk, in bytes.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn disk_size_bytes(&self, container: &Container) -> Result<u64, ContainerError> {
        Ok(disk_size_bytes(&self.directory(&container.id))?)
    }

    fn directory(&self, id: &str) -> PathBuf {
        self.store.area(Area::Containers).join(id)
    }

    /// Reads a row, and sees whether what it calls running still runs.
    fn complete(&self, record: ContainerRecord) -> Result<Container, ContainerError> {
        let mut state = ContainerState::from_json(&record.state)
            .map_err(|source| ContainerError::State { name: record.name.clone(), source })?;
        if matches!(state.status, Status::Running { .. }) && !self.is_locked(&record.id) {
            state.status = state.status.lost();
        }
        let ContainerRecord { id, name, created, snapshot, .. } = record;
        Ok(Container { id, name, created, snapshot, state })
    }

    fn is_locked(&self, id: &str) -> bool {
        fs::File::open(self.directory(id).join("lock"))
            .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared).is_err())
    }
}
