//! The networks of steps and containers.
//!
//! ```text
//!   step's namespace          namespace with the bridges (`uplink`)              outside
//!   eth0 10.90.17.4  ──────── rb0a5a1104 ─┐
//!   eth0 10.90.3.200 ──────── rb0a5a03c8 ─┴ rbuild0 10.90.0.1 ── NAT ── eth0, or a relay for a user other than root
//! ```
//!
//! There is no daemon, so what is there is made by whoever needs it first and is found by all others: bridges and their
//! addresses in the kernel (`bridge`), addresses in use as locked files (`lease`), names made of addresses. A process that is
//! killed leaves an unlocked file; the kernel removes its interface with its namespace, and the next process the rest.
//!
//! A step has no network at all where none of its own can be made and nobody has allowed it the machine's: whoever asked for a
//! network gets at most that, never more ([`Networks::connect`] fails with what the machine lacks, and the caller decides).

mod bridge;
mod firewall;
mod hosts;
mod lease;
mod namespace;
mod netlink;
mod relay;
mod subnet;
mod support;
mod uplink;

use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

pub use bridge::{DEFAULT_NETWORK, NetworkConfig};
pub use hosts::Dns;
pub(crate) use hosts::{Resolver, hosts_file};
pub use subnet::Subnet;
pub use support::{Lack, Missing, NetworkSupport};

use bridge::{Bridge, Port};
use lease::Tenant;
use namespace::Namespace;
use uplink::Uplink;

use crate::error::Error;

/// Which network a container sees.
#[derive(Debug, Default)]
pub enum Network {
    /// The host's own.
    #[default]
    Host,
    /// A new one with nothing but the loopback interface, up.
    None,
    /// One that the caller made: a descriptor of `/proc/PID/ns/net`.
    Namespace(OwnedFd),
    /// One of its own, connected to others; it is disconnected when the container's process has ended.
    Own(Connection),
}

/// What all connections of a process have in common.
#[derive(Debug)]
pub struct Networks {
    /// Where the leases of addresses are, which all processes of a machine share that may change its interfaces.
    directory: PathBuf,
    opened: OnceLock<Result<(Arc<Uplink>, Bridge), Lack>>,
}

impl Networks {
    /// Nothing is made until somebody connects.
    pub const fn new(directory: PathBuf) -> Self {
        Self { directory, opened: OnceLock::new() }
    }

    /// Makes a namespace on the default network. What is in it reaches the outside and the machine, and nothing else that
    /// is connected this way.
    ///
    /// # Errors
    ///
    /// [`Error::NoNetwork`] where the machine lacks something, else the kernel's.
    pub fn connect(&self) -> Result<Connection, Error> {
        let (uplink, bridge) = self.opened().map_err(Error::NoNetwork)?;
        let namespace = Namespace::new().map_err(|error| Error::setup("make a network namespace", error))?;
        let tenant = Tenant { network: bridge.name.clone(), names: Vec::new() };
        let port = bridge.connect(uplink.place(), &namespace, (&tenant, true))?;
        Ok(Connection { namespace, port, uplink })
    }

    /// What networks can be had here. Makes the default one where it can be made.
    pub fn support(&self) -> NetworkSupport {
        match self.opened() {
            Ok((uplink, _)) if uplink.is_host() => NetworkSupport::Host,
            Ok(_) => NetworkSupport::Relayed,
            Err(lack) => NetworkSupport::Lacking(lack),
        }
    }

    /// What the machine lacks, if somebody wanted to connect and could not.
    pub fn lack(&self) -> Option<&Lack> {
        self.opened.get()?.as_ref().err()
    }

    fn opened(&self) -> Result<(Arc<Uplink>, Bridge), Lack> {
        let open = || {
            let (uplink, bridge) = Uplink::open(&self.directory)?;
            Ok((Arc::new(uplink), bridge))
        };
        self.opened.get_or_init(open).clone()
    }
}

/// A network namespace with an address, on a network.
#[derive(Debug)]
pub struct Connection {
    namespace: Namespace,
    port: Port,
    uplink: Arc<Uplink>,
}

impl Connection {
    /// Its addresses on the network.
    pub fn addresses(&self) -> Vec<IpAddr> {
        std::iter::once(self.port.lease.address().into()).chain(self.port.v6).collect()
    }

    /// The address under which what is inside reaches the machine.
    ///
    /// On the machine's own bridge that is the bridge's. A relay takes what goes to the bridge for the namespace's own, and what goes to
    /// the machine's outward address for the machine's.
    pub fn host_address(&self) -> IpAddr {
        let outward = if self.uplink.is_host() { None } else { outward_address().ok() };
        outward.unwrap_or(self.port.gateway)
    }

    /// Another descriptor of its namespace.
    pub(crate) fn namespace(&self) -> io::Result<OwnedFd> {
        self.namespace.as_fd().try_clone_to_owned()
    }
}

/// The address that the machine sends from. Nothing is sent: the kernel only looks up the route.
fn outward_address() -> io::Result<IpAddr> {
    /// Of a network that is for documentation.
    const ANYWHERE: ([u8; 4], u16) = ([203, 0, 113, 1], 9);
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    socket.connect(SocketAddr::from(ANYWHERE))?;
    Ok(socket.local_addr()?.ip())
}

/// Bytes that nobody can guess.
fn random<const SIZE: usize>() -> io::Result<[u8; SIZE]> {
    let mut bytes = [0; SIZE];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
