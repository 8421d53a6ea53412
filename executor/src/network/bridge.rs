//! A network: a bridge with an address of each family, forwarding, and the packet filter's table.
//!
//! Nothing of it is written down. That the bridge exists, its addresses and its table are the kernel's to know, and whoever needs the
//! network makes what is missing of it. It stays when its last user goes, as other engines' do.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::firewall;
use super::lease::{Lease, Leases, Tenant};
use super::mac::MacAddress;
use super::namespace::Namespace;
use super::netlink::{LinkIndex, Netlink};
use super::random;
use super::subnet::{self, Subnet};
use crate::error::Error;

/// The network of whoever asks for none.
pub const DEFAULT_NETWORK: &str = "rbuild0";
const FORWARD_V4: &str = "/proc/sys/net/ipv4/ip_forward";
const FORWARD_V6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";

/// A network as a user describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkConfig {
    /// Its name.
    pub name: String,
    /// The bridge's interface, at most 15 bytes.
    pub bridge: String,
    /// Its addresses; what is free on the machine when there are none.
    pub subnets: Vec<Subnet>,
    /// Whether nothing outside can be reached.
    pub internal: bool,
    /// What else is known of it.
    pub labels: BTreeMap<String, String>,
}

impl NetworkConfig {
    /// The network of whoever asks for none.
    pub fn default_network() -> Self {
        Self { name: "default".to_owned(), bridge: DEFAULT_NETWORK.to_owned(), ..Self::default() }
    }
}

/// How somebody is to be on a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointConfig {
    /// The names under which others on the network find it.
    pub names: Vec<String>,
    /// Its IPv4 address there, of which the IPv6 one follows; any that is free when not given.
    pub address: Option<Ipv4Addr>,
    /// Its hardware address there; the kernel's choice when not given.
    pub mac: Option<MacAddress>,
}

/// Where a network is to be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) namespace: &'a Namespace,
    pub(super) leases: &'a Leases,
    /// Addresses that no network may cover: those of name servers, which may be behind the default route.
    pub(super) reserved: &'a [IpAddr],
}

/// A network that exists.
#[derive(Debug, Clone)]
pub(super) struct Bridge {
    pub(super) name: String,
    index: LinkIndex,
    v4: Subnet,
    v6: Option<Subnet>,
    /// Whether something outside can be reached, over IPv4 and over IPv6.
    outward: [bool; 2],
    /// What the way out takes in one piece: whoever is connected must not send, nor ask for, more than that.
    mtu: Option<u32>,
}

/// How a namespace is to be connected.
#[derive(Debug)]
pub(super) struct Plug<'a> {
    pub(super) endpoint: &'a EndpointConfig,
    /// The number of the interface inside.
    pub(super) interface: u32,
    /// Whether it reaches the bridge and what is outside, but no other such on the network.
    pub(super) isolated: bool,
}

/// One end of a connection to a network.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) bridge: String,
    /// The number of the interface inside.
    pub(super) interface: u32,
    pub(super) lease: Lease,
    pub(super) v6: Option<IpAddr>,
    pub(super) gateway: IpAddr,
    /// The interface inside, and who there leads out of the network over each family, as far as anybody does.
    way_out: (LinkIndex, Vec<IpAddr>),
}

impl Port {
    /// The IPv4 one first.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        std::iter::once(self.lease.address().into()).chain(self.v6)
    }
}

impl Bridge {
    /// The network, made as far as it is missing.
    ///
    /// # Errors
    ///
    /// The kernel's, or `nft`'s; `PermissionDenied` where this process may not change interfaces there.
    pub(super) fn ensure(place: Place<'_>, config: &NetworkConfig) -> io::Result<Self> {
        place.leases.exclusively(|| {
            let has_table = place.namespace.run(|| firewall::has_table(&config.bridge))?;
            let netlink = &place.namespace.netlink;
            let found = netlink.link_index(&config.bridge)?;
            if found.is_none() {
                netlink.add_bridge(&config.bridge, MacAddress::local(random()?))?;
            }
            place.namespace.run(|| refuse_announcements(&config.bridge))?;
            let index = found.map_or_else(|| netlink.link_index(&config.bridge), |index| Ok(Some(index)))?;
            let index = index.ok_or(io::ErrorKind::NotFound)?;
            let subnets = addresses(place, index, config)?;
            let outward = forward(place.namespace, config)?;
            let mtu = netlink.way_out_mtu()?;
            // A table without its bridge is of one that somebody removed, with other addresses perhaps.
            if !has_table || found.is_none() {
                let table = firewall::network_table(&config.bridge, &subnets, config.internal);
                place.namespace.run(|| firewall::apply(&table))?;
            }
            let find = |v4| subnets.iter().copied().find(|subnet: &Subnet| subnet.first().is_ipv4() == v4);
            let v4 = find(true).ok_or_else(|| io::Error::other("the bridge has no address"))?;
            Ok(Self { name: config.bridge.clone(), index, v4, v6: find(false), outward, mtu })
        })?
    }

    /// Removes a network; `ResourceBusy` when somebody is on it.
    pub(super) fn remove(place: Place<'_>, config: &NetworkConfig) -> io::Result<()> {
        place.leases.exclusively(|| {
            let tenants = place.leases.tenants()?;
            if tenants.iter().any(|(_, tenant)| tenant.network == config.bridge) {
                return Err(io::ErrorKind::ResourceBusy.into());
            }
            place.namespace.run(|| firewall::apply(&firewall::removed(&config.bridge)))?;
            place.namespace.netlink.delete_link(&config.bridge)
        })?
    }

    /// The networks of its addresses.
    pub(super) fn subnets(&self) -> Vec<Subnet> {
        std::iter::once(self.v4).chain(self.v6).collect()
    }

    /// Connects a namespace: a pair of interfaces, an address of each family, the way out if it has none yet.
    pub(super) fn connect(
        &self,
        place: Place<'_>,
        inside: &Namespace,
        plug: &Plug<'_>,
    ) -> Result<Port, Error> {
        let lease = self.lease(place.leases, plug.endpoint)?;
        let offset = self.v4.offset(lease.address());
        let v6 = self.v6.map(|subnet| subnet.address(offset));
        let way_out = self
            .plug(place.namespace, inside, lease.address(), plug)
            .and_then(|()| self.configure(&inside.netlink, (lease.address(), v6), &eth(plug.interface)))
            .map_err(|error| Error::setup_at("connect a network namespace to", &self.name, error))?;
        let (bridge, interface) = (self.name.clone(), plug.interface);
        Ok(Port { bridge, interface, lease, v6, gateway: self.v4.address(1), way_out })
    }

    /// The address that is wanted, or any that is free.
    fn lease(&self, leases: &Leases, endpoint: &EndpointConfig) -> Result<Lease, Error> {
        let failed = |error| Error::setup_at("find a free address in", self.v4.to_string(), error);
        let tenant = Tenant { network: self.name.clone(), names: endpoint.names.clone() };
        let Some(wanted) = endpoint.address else {
            let seed = u32::from_ne_bytes(random().map_err(failed)?);
            let lease = leases.take(self.v4, seed, &tenant).map_err(failed)?;
            return lease.ok_or_else(|| failed(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL)));
        };
        // The network's own, the gateway's and the broadcast address are always taken.
        let can_be_had = self.v4.offsets().contains(&self.v4.offset(wanted));
        let lease = if can_be_had { leases.try_take(wanted, &tenant).map_err(failed)? } else { None };
        lease.ok_or(Error::AddressInUse)
    }

    fn plug(
        &self,
        outside: &Namespace,
        inside: &Namespace,
        address: Ipv4Addr,
        plug: &Plug<'_>,
    ) -> io::Result<()> {
        use std::os::fd::AsFd as _;
        let name = interface_name(address);
        let interface = eth(plug.interface);
        let peer = (interface.as_str(), plug.endpoint.mac, inside.as_fd());
        let add = || outside.netlink.add_pair(&name, self.index, peer, self.mtu);
        match add() {
            // Its last user was killed, and the kernel has not come to remove the namespace yet.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                outside.netlink.delete_link(&name)?;
                add()?;
            }
            other => other?,
        }
        if plug.isolated { outside.netlink.isolate_port(&name) } else { Ok(()) }
    }

    fn configure(
        &self,
        inside: &Netlink,
        (v4, v6): (Ipv4Addr, Option<IpAddr>),
        interface: &str,
    ) -> io::Result<(LinkIndex, Vec<IpAddr>)> {
        let link = inside.link_index(interface)?.ok_or(io::ErrorKind::NotFound)?;
        inside.set_up(interface)?;
        inside.add_address(link, v4.into(), self.v4.prefix())?;
        let mut gateways = Vec::from_iter(self.outward[0].then(|| self.v4.address(1)));
        if let (Some(address), Some(subnet)) = (v6, self.v6) {
            inside.add_address(link, address, subnet.prefix())?;
            gateways.extend(self.outward[1].then(|| subnet.address(1)));
        }
        add_way_out(inside, (link, &gateways))?;
        Ok((link, gateways))
    }
}

/// What an interface is called inside.
fn eth(number: u32) -> String {
    format!("eth{number}")
}

/// The name of the interface on the bridge that belongs to an address.
fn interface_name(address: Ipv4Addr) -> String {
    format!("rb{:08x}", address.to_bits())
}

/// Leads out of a namespace by one interface, if none does yet.
fn add_way_out(inside: &Netlink, (link, gateways): (LinkIndex, &[IpAddr])) -> io::Result<()> {
    if inside.routes()?.iter().any(|route| route.destination.is_none()) {
        return Ok(());
    }
    gateways.iter().try_for_each(|gateway| inside.add_default_route(link, *gateway))
}

/// Leads out of a namespace by the first port that has a way, if none does.
pub(super) fn lead_out(inside: &Netlink, ports: &[Port]) -> io::Result<()> {
    ports.iter().try_for_each(|Port { way_out: (link, gateways), .. }| add_way_out(inside, (*link, gateways)))
}

/// Removes a port and what belongs to it.
pub(super) fn unplug(namespace: &Namespace, port: &Port) -> io::Result<()> {
    namespace.netlink.delete_link(&interface_name(port.lease.address()))
}

/// Removes what belongs to an address whose user is gone. What is not there any more is no failure.
pub(super) fn clean(namespace: &Namespace, address: Ipv4Addr) {
    drop(namespace.netlink.delete_link(&interface_name(address)));
    drop(remove_ports(namespace, address));
}

/// Removes the packet filter's table for the ports of an address, if there is one.
pub(super) fn remove_ports(namespace: &Namespace, address: Ipv4Addr) -> io::Result<()> {
    let table = firewall::ports_table_name(address);
    namespace.run(|| {
        if firewall::has_table(&table)? { firewall::apply(&firewall::removed(&table)) } else { Ok(()) }
    })
}

/// The networks of a bridge's addresses; gives it some if it has none.
fn addresses(place: Place<'_>, bridge: LinkIndex, config: &NetworkConfig) -> io::Result<Vec<Subnet>> {
    let netlink = &place.namespace.netlink;
    let present: Vec<Subnet> = netlink.addresses(bridge)?.into_iter().map(|(_, subnet)| subnet).collect();
    if present.iter().any(|subnet| subnet.first().is_ipv4()) {
        return Ok(present);
    }
    let mut added = Vec::new();
    let subnets = match config.subnets.as_slice() {
        [] => &[free_subnet(netlink, place.reserved)?, subnet::unique_local(random()?)],
        given => given,
    };
    for &subnet in subnets {
        match netlink.add_address(bridge, subnet.address(1), subnet.prefix()) {
            Ok(()) => added.push(subnet),
            // A machine without IPv6, or with it switched off.
            Err(_) if subnet.first().is_ipv6() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(added)
}

/// A network that hides nothing of what can be reached now, name servers behind the default route included.
pub(super) fn free_subnet(netlink: &Netlink, reserved: &[IpAddr]) -> io::Result<Subnet> {
    let routes = netlink.routes()?;
    let reserved = reserved.iter().map(|address| Subnet::containing(*address, 128));
    let taken: Vec<Subnet> = routes.iter().filter_map(|route| route.destination).chain(reserved).collect();
    subnet::free(&taken).ok_or_else(|| io::Error::other("no private network is free"))
}

/// Lets the machine pass on packets, as far as that takes nothing from it. Whether there is a way out, for each family.
fn forward(namespace: &Namespace, config: &NetworkConfig) -> io::Result<[bool; 2]> {
    if config.internal {
        return Ok([false; 2]);
    }
    let routes = namespace.netlink.routes()?;
    let mut defaults = routes.iter().filter(|route| route.destination.is_none() && route.is_ipv6).peekable();
    let has_v6 = defaults.peek().is_some();
    // A machine that forwards IPv6 no longer listens to routers, and would lose its own way out.
    let v6 = has_v6 && !defaults.any(|route| route.announced);
    namespace.run(|| {
        switch_on(FORWARD_V4)?;
        let is_on = fs::read_to_string(FORWARD_V6).is_ok_and(|text| text.trim() == "1");
        Ok([true, has_v6 && (is_on || v6 && switch_on(FORWARD_V6).is_ok())])
    })
}

/// Has the machine take no announcements of routers from a bridge: a step may send raw packets, and would become the machine's way out
/// (CVE-2020-13401).
fn refuse_announcements(bridge: &str) -> io::Result<()> {
    match fs::write(format!("/proc/sys/net/ipv6/conf/{bridge}/accept_ra"), "0") {
        // A machine without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn switch_on(path: &str) -> io::Result<()> {
    if fs::read_to_string(path)?.trim() == "1" { Ok(()) } else { fs::write(path, "1") }
}
