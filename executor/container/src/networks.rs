//! The networks that people have made: a file for each, `networks/<name>` below the store's root; `networks/.lock` is held while one
//! is made.
//!
//! A file says what a network is to be; whether its bridge exists is the kernel's to know, and whoever connects makes what is missing
//! of it, also after the machine was switched off. The networks `bridge`, `host` and `none` are always there and have no file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use rbuild_cache::Store;
use rbuild_executor::Networks;
use rbuild_executor::network::{NetworkConfig, Subnet};
use serde::{Deserialize, Serialize};

use crate::name::{generate_id, is_name};
use crate::spec::{Attachment, DEFAULT_NETWORK, NetworkMode};
use crate::{ContainerError, lock_file};

/// How much of an id a bridge is named by: the names of interfaces have 15 bytes.
const BRIDGE_ID_CHARS: usize = 12;
/// No name of a network begins with a dot.
const LOCK: &str = ".lock";

/// A network that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// Its id: 64 hex digits.
    pub id: String,
    /// When it was made, Unix seconds.
    pub created: i64,
    /// Its kind.
    #[serde(default)]
    pub driver: NetworkDriver,
    /// What it is.
    pub config: NetworkConfig,
}

/// What a network is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkDriver {
    /// A bridge, which many containers can be on.
    #[default]
    Bridge,
    /// The machine's own.
    Host,
    /// Nothing.
    Null,
}

impl NetworkDriver {
    /// Docker's word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::Null => "null",
        }
    }
}

impl NetworkRecord {
    /// Whether it is there on every machine.
    pub fn is_predefined(&self) -> bool {
        predefined().iter().any(|known| known.id == self.id)
    }

    /// Whether a container can be on it in this way.
    ///
    /// # Errors
    /// When it can not. The words are Docker's.
    pub fn check(&self, attachment: &Attachment) -> Result<(), ContainerError> {
        let refuse = |reason: String| {
            let network = self.config.name.clone();
            Err(ContainerError::BadEndpoint { network, reason })
        };
        match (self.driver, attachment.address) {
            (_, Some(_)) if self.is_predefined() => {
                refuse("user specified IP address is supported on user defined networks only".to_owned())
            }
            (NetworkDriver::Host, _) => Err(ContainerError::Illegal {
                message: "cannot connect container to host network - container must be created in host network mode"
                    .to_owned(),
            }),
            (NetworkDriver::Null, _) => NetworkMode::None.with(attachment.clone()).map(drop),
            (NetworkDriver::Bridge, Some(address))
                if !self.config.subnets.iter().any(|subnet| subnet.contains(address.into())) =>
            {
                refuse(format!("no configured subnet or ip-range contain the IP address {address}"))
            }
            (NetworkDriver::Bridge, _) => Ok(()),
        }
    }
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

    /// All networks, by name.
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
        let read = names.iter().filter_map(|name| self.read(name).transpose());
        let mut all: Vec<NetworkRecord> =
            predefined().into_iter().map(Ok).chain(read).collect::<Result<_, _>>()?;
        all.sort_by(|one, other| one.config.name.cmp(&other.config.name));
        Ok(all)
    }

    /// The network of this name, or of this id or the beginning of one.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn get(&self, name: &str) -> Result<NetworkRecord, ContainerError> {
        if let Some(record) = predefined_of(name) {
            return Ok(record);
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
    /// When the name is none, it or the addresses are another network's, or the machine lacks something.
    pub fn create(
        &self,
        networks: &Networks,
        record: NewNetwork,
        now: i64,
    ) -> Result<NetworkRecord, ContainerError> {
        let name = record.name;
        if predefined_of(&name).is_some() {
            return Err(ContainerError::PredefinedNetwork { name, verb: "created" });
        }
        if !is_name(&name) {
            return Err(ContainerError::BadNetworkName { name });
        }
        let _lock = self.lock()?;
        if self.read(&name)?.is_some() {
            return Err(ContainerError::NetworkExists { name });
        }
        self.check_subnets(networks, &record.subnets)?;
        let id = generate_id()?;
        let bridge = format!("rb-{}", &id[..BRIDGE_ID_CHARS]);
        let NewNetwork { subnets, internal, labels, .. } = record;
        let config = networks.create(&NetworkConfig { name, bridge, subnets, internal, labels })?;
        let record = NetworkRecord { id, created: now, driver: NetworkDriver::Bridge, config };
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
        if record.is_predefined() {
            return Err(ContainerError::PredefinedNetwork { name: name.clone(), verb: "removed" });
        }
        networks.remove(&record.config)?;
        let path = self.directory.join(name);
        fs::remove_file(&path).map_err(ContainerError::io("remove", &path))
    }

    /// Whether addresses are nobody's yet.
    fn check_subnets(&self, networks: &Networks, subnets: &[Subnet]) -> Result<(), ContainerError> {
        if subnets.is_empty() {
            return Ok(());
        }
        // The default one's addresses are the kernel's to know.
        let default = networks.create(&NetworkConfig::default_network())?;
        let default = NetworkConfig { name: DEFAULT_NETWORK.to_owned(), ..default };
        let known = self.list()?.into_iter().map(|record| record.config);
        overlap(subnets, known.chain([default])).map_or(Ok(()), Err)
    }

    fn lock(&self) -> Result<File, ContainerError> {
        fs::create_dir_all(&self.directory).map_err(ContainerError::io("make", &self.directory))?;
        lock_file(&self.directory.join(LOCK))
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

/// The first of the networks that has some of these addresses.
fn overlap(subnets: &[Subnet], known: impl Iterator<Item = NetworkConfig>) -> Option<ContainerError> {
    known
        .flat_map(|config| config.subnets.into_iter().map(move |other| (config.name.clone(), other)))
        .find_map(|(name, other)| {
            let subnet = *subnets.iter().find(|subnet| subnet.overlaps(other))?;
            Some(ContainerError::SubnetInUse { subnet, other, name })
        })
}

/// The networks that are always there. Their ids are the same on every machine: there is one of each in each store.
fn predefined() -> [NetworkRecord; 3] {
    let record = |digit: &str, driver, config: NetworkConfig, name: &str| {
        let config = NetworkConfig { name: name.to_owned(), ..config };
        NetworkRecord { id: digit.repeat(64), created: 0, driver, config }
    };
    let nothing = NetworkConfig::default();
    [
        record("0", NetworkDriver::Bridge, NetworkConfig::default_network(), DEFAULT_NETWORK),
        record("1", NetworkDriver::Host, nothing.clone(), "host"),
        record("2", NetworkDriver::Null, nothing, "none"),
    ]
}

/// Of these, the one of this name; the first has two.
fn predefined_of(name: &str) -> Option<NetworkRecord> {
    let name = if name == "default" { DEFAULT_NETWORK } else { name };
    predefined().into_iter().find(|record| record.config.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, id: char) -> NetworkRecord {
        let config = NetworkConfig { name: name.to_owned(), ..NetworkConfig::default() };
        NetworkRecord { id: id.to_string().repeat(64), created: 1, driver: NetworkDriver::Bridge, config }
    }

    #[test]
    fn addresses_are_had_on_networks_of_one_s_own() {
        let subnets = vec![Subnet::containing("10.1.2.0".parse().unwrap(), 24)];
        let mut own = record("web", 'a');
        own.config.subnets = subnets;
        let with =
            |address: &str| Attachment { address: Some(address.parse().unwrap()), ..Attachment::to("web") };
        assert!(own.check(&with("10.1.2.9")).is_ok());
        assert!(own.check(&with("10.1.3.9")).unwrap_err().to_string().contains("no configured subnet"));
        let [bridge, host, none] = predefined();
        assert!(bridge.check(&Attachment::to("bridge")).is_ok() && bridge.check(&with("10.1.2.9")).is_err());
        assert!(host.check(&Attachment::to("host")).is_err() && none.check(&Attachment::to("none")).is_err());
    }

    #[test]
    fn addresses_are_one_network_s() {
        let subnet = |text: &str| {
            let (first, prefix) = text.split_once('/').unwrap();
            Subnet::containing(first.parse().unwrap(), prefix.parse().unwrap())
        };
        let mut web = record("web", 'a').config;
        web.subnets = vec![subnet("10.1.2.0/24"), subnet("fd00::/64")];
        let cases = [
            ("10.1.2.0/24", true),
            ("10.1.2.128/25", true),
            ("10.1.0.0/16", true),
            ("10.1.3.0/24", false),
            ("fd00::/48", true),
            ("fd01::/48", false),
        ];
        for (text, taken) in cases {
            let found = overlap(&[subnet("10.9.0.0/24"), subnet(text)], [web.clone()].into_iter());
            assert_eq!(found.is_some(), taken, "{text}");
            assert!(found.is_none_or(|error| error.to_string().ends_with("of network web")), "{text}");
        }
    }

    #[test]
    fn networks_are_kept_by_name_and_found_by_id() {
        let directory = tempfile::tempdir().unwrap();
        let known = KnownNetworks { directory: directory.path().join("networks") };
        assert_eq!(known.list().unwrap(), predefined());
        let (web, db) = (record("web", 'a'), record("db", 'b'));
        known.write(&web).unwrap();
        known.write(&db).unwrap();
        let [bridge, host, none] = predefined();
        assert_eq!(known.list().unwrap(), [bridge, db, host, none, web.clone()]);
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
