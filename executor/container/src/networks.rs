//! The networks that people have made: a file for each, `networks/<name>` below the store's root.
//!
//! A file says what a network is to be; whether its bridge exists is the kernel's to know, and whoever connects makes what is missing
//! of it, also after the machine was switched off. The networks `bridge`, `host` and `none` are always there and have no file.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use rbuild_cache::Store;
use rbuild_executor::Networks;
use rbuild_executor::network::{NetworkConfig, Subnet};
use serde::{Deserialize, Serialize};

use crate::ContainerError;
use crate::name::{generate_id, is_name};
use crate::spec::DEFAULT_NETWORK;

/// Those that are always there, beside the default one.
const WITHOUT_BRIDGE: [&str; 2] = ["host", "none"];
/// How much of an id a bridge is named by: the names of interfaces have 15 bytes.
const BRIDGE_ID_CHARS: usize = 12;

/// A network that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// Its id: 64 hex digits.
    pub id: String,
    /// When it was made, Unix seconds.
    pub created: i64,
    /// What it is.
    pub config: NetworkConfig,
}

/// The networks of a store.
#[derive(Debug)]
pub struct KnownNetworks {
    directory: PathBuf,
}

impl KnownNetworks {
    /// The networks of `store`.
    pub fn of(store: &Store) -> Self {
        Self { directory: store.root().join("networks") }
    }

    /// All networks that containers can be on: the default one, then the others by name.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn list(&self) -> Result<Vec<NetworkRecord>, ContainerError> {
        let mut names = Vec::new();
        match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            entries => {
                for entry in entries.map_err(ContainerError::io("read", &self.directory))? {
                    let entry = entry.map_err(ContainerError::io("read", &self.directory))?;
                    names.extend(entry.file_name().into_string().ok().filter(|name| is_name(name)));
                }
            }
        }
        names.sort();
        let read = names.iter().filter_map(|name| self.read(name).transpose());
        std::iter::once(Ok(default_record())).chain(read).collect()
    }

    /// The network of this name, or of this id or the beginning of one.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn get(&self, name: &str) -> Result<NetworkRecord, ContainerError> {
        if matches!(name, DEFAULT_NETWORK | "default") {
            return Ok(default_record());
        }
        if is_name(name)
            && let Some(record) = self.read(name)?
        {
            return Ok(record);
        }
        let mut found = self.list()?;
        found.retain(|record| !name.is_empty() && record.id.starts_with(name));
        match (found.pop(), found.is_empty()) {
            (Some(record), true) => Ok(record),
            _ => Err(ContainerError::NoSuchNetwork { name: name.to_owned() }),
        }
    }

    /// Makes a network, with addresses that are chosen here where `subnets` has none.
    ///
    /// # Errors
    /// When the name is taken or none, or the machine lacks something.
    pub fn create(
        &self,
        networks: &Networks,
        record: NewNetwork,
        now: i64,
    ) -> Result<NetworkRecord, ContainerError> {
        let name = record.name;
        if is_predefined(&name) {
            return Err(ContainerError::PredefinedNetwork { name, verb: "created" });
        }
        if !is_name(&name) {
            return Err(ContainerError::BadNetworkName { name });
        }
        if self.read(&name)?.is_some() {
            return Err(ContainerError::NetworkExists { name });
        }
        let id = generate_id()?;
        let bridge = format!("rb-{}", &id[..BRIDGE_ID_CHARS]);
        let NewNetwork { subnets, internal, labels, .. } = record;
        let config = networks.create(&NetworkConfig { name, bridge, subnets, internal, labels })?;
        let record = NetworkRecord { id, created: now, config };
        self.write(&record).inspect_err(|_| {
            // The first error is the one that tells.
            drop(networks.remove(&record.config));
        })?;
        Ok(record)
    }

    /// Removes a network that nobody is on.
    ///
    /// # Errors
    /// When somebody is, or it is always there.
    pub fn remove(&self, networks: &Networks, record: &NetworkRecord) -> Result<(), ContainerError> {
        let name = &record.config.name;
        if is_predefined(name) {
            return Err(ContainerError::PredefinedNetwork { name: name.clone(), verb: "removed" });
        }
        networks.remove(&record.config)?;
        let path = self.directory.join(name);
        fs::remove_file(&path).map_err(ContainerError::io("remove", &path))
    }

    fn read(&self, name: &str) -> Result<Option<NetworkRecord>, ContainerError> {
        let path = self.directory.join(name);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            bytes => {
                let bytes = bytes.map_err(ContainerError::io("read", &path))?;
                let record = serde_json::from_slice(&bytes);
                record.map(Some).map_err(|error| ContainerError::io("read", &path)(error.into()))
            }
        }
    }

    /// Writes a file whole or not at all, and never over another one.
    fn write(&self, record: &NetworkRecord) -> Result<(), ContainerError> {
        fs::create_dir_all(&self.directory).map_err(ContainerError::io("make", &self.directory))?;
        // No name of a network begins with a dot.
        let temporary = self.directory.join(format!(".{}", record.id));
        let path = self.directory.join(&record.config.name);
        let bytes = serde_json::to_vec(record).expect("a network is strings and numbers");
        let linked = fs::write(&temporary, bytes).and_then(|()| fs::hard_link(&temporary, &path));
        drop(fs::remove_file(&temporary));
        match linked {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(ContainerError::NetworkExists { name: record.config.name.clone() })
            }
            linked => linked.map_err(ContainerError::io("write", &path)),
        }
    }
}

/// A network that is to be made.
#[derive(Debug, Clone, Default)]
pub struct NewNetwork {
    /// Its name.
    pub name: String,
    /// Its addresses; what is free on the machine when there are none.
    pub subnets: Vec<Subnet>,
    /// Whether nothing outside can be reached.
    pub internal: bool,
    /// What else is known of it.
    pub labels: BTreeMap<String, String>,
}

/// The default network. Its id is the same on every machine: there is one in each store.
fn default_record() -> NetworkRecord {
    let config = NetworkConfig { name: DEFAULT_NETWORK.to_owned(), ..NetworkConfig::default_network() };
    NetworkRecord { id: "0".repeat(64), created: 0, config }
}

fn is_predefined(name: &str) -> bool {
    matches!(name, DEFAULT_NETWORK | "default") || WITHOUT_BRIDGE.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, id: char) -> NetworkRecord {
        let config = NetworkConfig { name: name.to_owned(), ..NetworkConfig::default() };
        NetworkRecord { id: id.to_string().repeat(64), created: 1, config }
    }

    #[test]
    fn networks_are_kept_by_name_and_found_by_id() {
        let directory = tempfile::tempdir().unwrap();
        let known = KnownNetworks { directory: directory.path().join("networks") };
        assert_eq!(known.list().unwrap(), [default_record()]);
        let (web, db) = (record("web", 'a'), record("db", 'b'));
        known.write(&web).unwrap();
        known.write(&db).unwrap();
        assert_eq!(known.list().unwrap(), [default_record(), db, web.clone()]);
        for name in ["web", "aaa", &web.id] {
            assert_eq!(known.get(name).unwrap(), web, "{name}");
        }
        for name in ["", "c", "../web", ".a"] {
            assert!(matches!(known.get(name), Err(ContainerError::NoSuchNetwork { .. })), "{name}");
        }
        assert!(matches!(known.write(&record("web", 'c')), Err(ContainerError::NetworkExists { .. })));
        assert_eq!(known.get("web").unwrap(), web);
        assert_eq!(known.get("default").unwrap().config.bridge, "rbuild0");
    }
}
