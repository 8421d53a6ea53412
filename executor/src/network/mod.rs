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

mod ahead;
mod bridge;
mod doors;
mod firewall;
mod hosts;
mod lease;
mod mac;
mod names;
mod namespace;
mod netlink;
mod obstacle;
mod port_spec;
mod publish;
mod relay;
mod subnet;
mod support;
mod uplink;

use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

pub use bridge::{DEFAULT_NETWORK, EndpointConfig, NetworkConfig};
pub use hosts::{Dns, hosts_line};
pub(crate) use hosts::{HostsHead, Resolver, hosts_file};
pub use mac::{MacAddress, MacError};
pub use names::Link;
pub use obstacle::Obstacle;
pub use port_spec::{PortError, Protocol, PublishedPort};
pub use subnet::Subnet;
pub use support::{Lack, Missing, NetworkSupport};

use ahead::Ahead;
use bridge::{Bridge, Plug, Port};
use doors::Doors;
use namespace::Namespace;
use publish::Published;
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
    Own(SharedConnection),
}

/// A connection that may be changed while a container has it.
pub type SharedConnection = Arc<Mutex<Connection>>;

impl From<Connection> for Network {
    fn from(connection: Connection) -> Self {
        Self::Own(Arc::new(Mutex::new(connection)))
    }
}

/// What all connections of a process have in common.
#[derive(Debug)]
pub struct Networks {
    shared: Arc<Shared>,
    /// Connections for steps. To make one takes about as long as all else of a step, so it is done meanwhile.
    ahead: Arc<Ahead<Result<Connection, Error>>>,
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    opened: OnceLock<Result<(Arc<Uplink>, Bridge), Lack>>,
}

impl Networks {
    /// Nothing is made until somebody connects. `directory` is where the leases of addresses are, the same for all processes that may
    /// change the interfaces of a machine.
    pub fn new(directory: PathBuf) -> Self {
        let shared = Shared { directory, opened: OnceLock::new() };
        Self { shared: Arc::new(shared), ahead: Arc::default() }
    }

    /// Begins to make a connection for a step that is soon to be run.
    pub fn prepare(&self) {
        let shared = Arc::clone(&self.shared);
        self.ahead.begin(move || shared.connect());
    }

    /// A namespace on the default network, for a step. What is in it reaches the outside and the machine, and nothing else
    /// that is connected this way. No namespace serves two steps: what one did to it would be there for the next.
    ///
    /// # Errors
    ///
    /// [`Error::NoNetwork`] where the machine lacks something, else the kernel's.
    pub fn connect(&self) -> Result<Connection, Error> {
        let connection = self.ahead.take().unwrap_or_else(|| self.shared.connect());
        // For the step after this one, while this one runs.
        self.prepare();
        connection
    }

    /// A namespace for a container, which [joins](Connection::join) networks.
    ///
    /// # Errors
    ///
    /// As for [`Networks::connect`].
    pub fn open(&self) -> Result<Connection, Error> {
        let (uplink, _) = self.shared.opened().map_err(Error::NoNetwork)?;
        Connection::new(uplink)
    }

    /// Makes a network. What comes back has its addresses, which are chosen here where there are none.
    ///
    /// # Errors
    ///
    /// As for [`Networks::connect`].
    pub fn create(&self, network: &NetworkConfig) -> Result<NetworkConfig, Error> {
        let (uplink, _) = self.shared.opened().map_err(Error::NoNetwork)?;
        let subnets = ensure(&uplink, network)?.subnets();
        Ok(NetworkConfig { subnets, ..network.clone() })
    }

    /// Removes a network that nobody is on.
    ///
    /// # Errors
    ///
    /// [`Error::NetworkInUse`] when somebody is, else as for [`Networks::connect`].
    pub fn remove(&self, network: &NetworkConfig) -> Result<(), Error> {
        let (uplink, _) = self.shared.opened().map_err(Error::NoNetwork)?;
        match Bridge::remove(uplink.place(), network) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                Err(Error::NetworkInUse { name: network.name.clone() })
            }
            other => other.map_err(|error| Error::setup_at("remove the network", &network.name, error)),
        }
    }

    /// What networks can be had here. Makes the default one where it can be made.
    pub fn support(&self) -> NetworkSupport {
        match self.shared.opened() {
            Ok((uplink, _)) if uplink.is_host() => NetworkSupport::Host,
            Ok(_) => NetworkSupport::Relayed,
            Err(lack) => NetworkSupport::Lacking(lack),
        }
    }

    /// What of the machine's own rules keeps those on a network from what is outside; nothing, as far as can be seen.
    pub fn obstacle(&self) -> Option<Obstacle> {
        let (uplink, bridge) = self.shared.opened().ok().filter(|(uplink, _)| uplink.is_host())?;
        uplink.namespace.run(|| obstacle::find(&bridge.name)).ok().flatten()
    }

    /// Leaves nothing on disk of what goes with this process, once all that was connected is gone. A process that ends without it
    /// leaves that to the next one.
    pub fn close(&self) {
        // One on its way when the process ends would leave its lease to the next process.
        drop(self.ahead.take());
        if let Some(Ok((uplink, _))) = self.shared.opened.get() {
            uplink.close();
        }
    }

    /// What the machine lacks, if somebody wanted to connect and could not.
    pub fn lack(&self) -> Option<&Lack> {
        self.shared.opened.get()?.as_ref().err()
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn opened(&self) -> Result<(Arc<Uplink>, Bridge), Lack> {
        let open = || {
            let (uplink, bridge) = Uplink::open(&self.directory)?;
            Ok((Arc::new(uplink), bridge))
        };
        self.opened.get_or_init(open).clone()
    }

    fn connect(&self) -> Result<Connection, Error> {
        let (uplink, bridge) = self.opened().map_err(Error::NoNetwork)?;
        let is_hidden = !uplink.name_servers.hidden().is_empty();
        let mut connection = Connection::new(uplink)?;
        connection.plug_in(&bridge, &EndpointConfig::default(), true)?;
        if is_hidden {
            connection.resolve_names(&[], Vec::new())?;
        }
        Ok(connection)
    }
}

/// A connection, to look at or to change.
pub(crate) fn locked(connection: &SharedConnection) -> std::sync::MutexGuard<'_, Connection> {
    // One that panicked in between has left a port too few or too many, which goes with the connection.
    connection.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn ensure(uplink: &Uplink, network: &NetworkConfig) -> Result<Bridge, Error> {
    Bridge::ensure(uplink.place(), network)
        .map_err(|error| Error::setup_at("make the network", &network.name, error))
}

/// A network namespace and the networks that it is on. Dropping it closes its ports and gives its addresses back.
#[derive(Debug)]
pub struct Connection {
    /// Closed first, as it leads to the addresses.
    published: Option<Published>,
    names: Option<Doors>,
    namespace: Namespace,
    ports: Vec<Port>,
    uplink: Arc<Uplink>,
}

impl Connection {
    fn new(uplink: Arc<Uplink>) -> Result<Self, Error> {
        let namespace = Namespace::new().map_err(|error| Error::setup("make a network namespace", error))?;
        Ok(Self { published: None, names: None, namespace, ports: Vec::new(), uplink })
    }

    /// Connects it to a further network; what comes back are its addresses there. The way out stays the one of the first that has
    /// one. Those on a network reach each other by address, and under their names once they [resolve names](Self::resolve_names).
    ///
    /// # Errors
    ///
    /// [`Error::AddressInUse`], else the kernel's.
    pub fn join(&mut self, network: &NetworkConfig, endpoint: &EndpointConfig) -> Result<Vec<IpAddr>, Error> {
        let bridge = ensure(&self.uplink, network)?;
        let port = self.plug_in(&bridge, endpoint, false)?;
        Ok(port.addresses().collect())
    }

    fn plug_in(
        &mut self,
        bridge: &Bridge,
        endpoint: &EndpointConfig,
        isolated: bool,
    ) -> Result<&Port, Error> {
        let is_free = |number: &u32| self.ports.iter().all(|port| port.interface != *number);
        let interface = (0..).find(is_free).unwrap_or_default();
        let plug = Plug { endpoint, interface, isolated };
        let port = bridge.connect(self.uplink.place(), &self.namespace, &plug)?;
        self.ports.push(port);
        Ok(&self.ports[self.ports.len() - 1])
    }

    /// Disconnects it from a network that it has joined.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn leave(&mut self, network: &NetworkConfig) -> Result<(), Error> {
        for port in self.ports.extract_if(.., |port| port.bridge == network.bridge) {
            bridge::unplug(&self.uplink.namespace, &port)
                .map_err(|error| Error::setup_at("leave the network", &network.name, error))?;
        }
        // With the interface went its routes, the way out perhaps.
        bridge::lead_out(&self.namespace.netlink, &self.ports)
            .map_err(|error| Error::setup("find another way out of the namespace", error))
    }

    /// Answers what is asked for names inside: those of its networks by itself, all others by the first of `upstreams` that can; these
    /// are the machine's own name servers when not given. A container that is connected this way asks nobody else. What it joins or
    /// leaves later counts when this is done again.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn resolve_names(&mut self, upstreams: &[IpAddr], links: Vec<Link>) -> Result<(), Error> {
        let failed = |error| Error::setup("serve names in the network namespace", error);
        let upstreams = if upstreams.is_empty() { &self.uplink.name_servers.own } else { upstreams };
        let networks = self.ports.iter().map(|port| port.bridge.clone()).collect();
        self.names = None;
        let known = names::Known { networks, links };
        let doors = names::serve(&self.namespace, &self.uplink, known, upstreams);
        self.names = Some(doors.map_err(failed)?);
        Ok(())
    }

    /// The name server inside, where there is one.
    pub fn name_server(&self) -> Option<IpAddr> {
        self.names.is_some().then_some(names::SERVER.into())
    }

    /// Publishes ports of its first address, in the place of those that it has published before. What comes back has the
    /// machine's ports that were chosen here.
    ///
    /// # Errors
    ///
    /// [`Error::PublishPort`] for one that is in use or may not be taken, else the kernel's.
    pub fn publish(&mut self, ports: &[PublishedPort]) -> Result<&[PublishedPort], Error> {
        self.published = None;
        let Some(port) = self.ports.first().filter(|_| !ports.is_empty()) else { return Ok(&[]) };
        let to = (port.lease.address(), port.v6);
        let published = Published::open(&self.uplink, &port.bridge, to, ports)?;
        Ok(&self.published.insert(published).ports)
    }

    /// Its addresses, network by network.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.ports.iter().flat_map(Port::addresses).collect()
    }

    /// The address under which what is inside reaches the machine.
    ///
    /// On the machine's own bridge that is the bridge's. A relay takes what goes to the bridge for the namespace's own, and what goes to
    /// the machine's outward address for the machine's.
    pub fn host_address(&self) -> Option<IpAddr> {
        let outward = if self.uplink.is_host() { None } else { outward_address().ok() };
        outward.or_else(|| self.ports.first().map(|port| port.gateway))
    }

    /// Another descriptor of its namespace.
    pub fn namespace(&self) -> io::Result<OwnedFd> {
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
