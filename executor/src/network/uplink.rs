//! The namespace in which bridges are, and from which there is a way out.
//!
//! As root it is the machine's own. A user who may not change that has one of its own for each process, connected by a program that
//! speaks to the outside as an ordinary process does (`relay`). All else is the same in both.

use std::io;
use std::path::Path;

use super::bridge::{Bridge, NetworkConfig, Place, clean, free_subnet};
use super::hosts::NameServers;
use super::lease::{HOST_NAMESPACE, Leases, OWN_NAMESPACE, sweep_namespaces};
use super::namespace::Namespace;
use super::relay::Relay;
use super::support::{Lack, Missing};

/// The namespace with the bridges.
#[derive(Debug)]
pub(super) struct Uplink {
    pub(super) namespace: Namespace,
    leases: Leases,
    pub(super) name_servers: NameServers,
    relay: Option<Relay>,
}

impl Uplink {
    /// The best that this machine has, with the default network in it.
    pub(super) fn open(directory: &Path) -> Result<(Self, Bridge), Lack> {
        let refused = match Self::host(directory) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => error,
            other => return other.map_err(Lack::of_bridge),
        };
        Self::own(directory, refused)
    }

    fn host(directory: &Path) -> io::Result<(Self, Bridge)> {
        let namespace = Namespace::current()?;
        let leases = Leases::open(directory.join(format!("{HOST_NAMESPACE}{}", namespace.id()?)))?;
        leases.sweep(|address| clean(&namespace, address))?;
        Self { namespace, leases, name_servers: NameServers::of_host(), relay: None }.with_bridge()
    }

    fn own(directory: &Path, refused: io::Error) -> Result<(Self, Bridge), Lack> {
        let no_namespace = |error: io::Error| Lack::new(Missing::Permission, &error);
        let namespace = Namespace::new().map_err(|_| no_namespace(refused))?;
        let name_servers = NameServers::of_host();
        let free = || free_subnet(&Namespace::current()?.netlink, &name_servers.outward);
        let relay = Some(Relay::start(&namespace, free().map_err(no_namespace)?)?);
        let open = || {
            let leases = Leases::open(directory.join(format!("{OWN_NAMESPACE}{}", namespace.id()?)))?;
            sweep_namespaces(directory)?;
            Ok(leases)
        };
        let leases = open().map_err(no_namespace)?;
        Self { namespace, leases, name_servers, relay }.with_bridge().map_err(Lack::of_bridge)
    }

    fn with_bridge(self) -> io::Result<(Self, Bridge)> {
        let bridge = Bridge::ensure(self.place(), &NetworkConfig::default_network())?;
        Ok((self, bridge))
    }

    /// For the functions of `bridge`.
    pub(super) fn place(&self) -> Place<'_> {
        Place { namespace: &self.namespace, leases: &self.leases, reserved: &self.name_servers.outward }
    }

    /// Leaves nothing on disk of a namespace that goes with this process. Nobody is connected any more.
    pub(super) fn close(&self) {
        if !self.is_host() {
            // What stays is the next process's to sweep away.
            drop(self.leases.remove());
        }
    }

    /// Whether it is the machine's own.
    pub(super) const fn is_host(&self) -> bool {
        self.relay.is_none()
    }
}
