//! Published ports: what comes to a port of the machine goes on to a container.
//!
//! For each there is a socket of ours that listens. It reserves the port, so that one in use is an error and not a surprise, and
//! takes what comes from the machine itself, which no address translation sends on safely: to let what was sent to 127.0.0.1
//! leave the machine would open its loopback interface to the neighbours (`route_localnet`). What comes from elsewhere is translated
//! by the kernel where rbuild may tell it to, and keeps its sender's address; else it goes through the socket too.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use super::bridge::remove_ports;
use super::doors::{Door, Doors, Targets};
use super::firewall::{self, Forward};
use super::port_spec::{Protocol, PublishedPort};
use super::uplink::Uplink;
use crate::error::Error;

/// The published ports of one address. Dropping it closes them.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) ports: Vec<PublishedPort>,
    to: Ipv4Addr,
    uplink: Arc<Uplink>,
    doors: Option<Doors>,
}

impl Published {
    /// Opens the ports. `to` are the addresses of the container, the IPv4 one first.
    ///
    /// # Errors
    ///
    /// [`Error::PublishPort`], or the kernel's.
    pub(super) fn open(
        uplink: &Arc<Uplink>,
        bridge: &str,
        (v4, v6): (Ipv4Addr, Option<IpAddr>),
        ports: &[PublishedPort],
    ) -> Result<Self, Error> {
        let failed = |error| Error::setup("publish ports", error);
        let mut doors = Vec::with_capacity(ports.len());
        let mut opened = Vec::with_capacity(ports.len());
        for port in ports {
            let door = open(port, v4.into())
                .map_err(|source| Error::PublishPort { port: port.to_string(), source })?;
            opened.push(as_opened(port, door.address().map_err(failed)?));
            doors.push(door);
        }
        // From here on dropping it removes the table.
        let mut published = Self { ports: opened, to: v4, uplink: Arc::clone(uplink), doors: None };
        published.translate(bridge, v6).map_err(failed)?;
        // The container is reached from where the bridges are.
        let namespace = uplink.namespace.as_fd().try_clone_to_owned().map_err(failed)?;
        published.doors = Some(Doors::open(doors, Some(namespace)).map_err(failed)?);
        Ok(published)
    }

    /// Tells the kernel about them, where that is this process's to do.
    fn translate(&self, bridge: &str, v6: Option<IpAddr>) -> io::Result<()> {
        if !self.uplink.is_host() {
            return Ok(());
        }
        let targets: Vec<IpAddr> = std::iter::once(self.to.into()).chain(v6).collect();
        let forwards: Vec<Forward> =
            self.ports.iter().flat_map(|port| targets.iter().filter_map(|to| forward(port, *to))).collect();
        let table = firewall::ports_table_name(self.to);
        let text = firewall::replaced(&table, &firewall::ports_chain(bridge, &forwards));
        if forwards.is_empty() { Ok(()) } else { self.uplink.namespace.run(|| firewall::apply(&text)) }
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        self.doors = None;
        if self.uplink.is_host() {
            // What stays is the next sweep's, which finds it by the address.
            drop(remove_ports(&self.uplink.namespace, self.to));
        }
    }
}

/// The translation of a port for a family; none for a port of the loopback interface or of another family's address.
fn forward(port: &PublishedPort, to: IpAddr) -> Option<Forward> {
    if port.host_ip.is_some_and(|host| host.is_loopback() || host.is_ipv4() != to.is_ipv4()) {
        return None;
    }
    let host = port.host_ip.filter(|host| !host.is_unspecified());
    let protocol = port.protocol.name();
    Some(Forward { protocol, host, host_port: port.host_port, to, to_port: port.container_port })
}

/// What a port has become: one without an address is at all of IPv4 only, where the machine has no IPv6.
fn as_opened(port: &PublishedPort, at: SocketAddr) -> PublishedPort {
    let host_ip = port.host_ip.or_else(|| Some(at.ip()).filter(IpAddr::is_ipv4));
    PublishedPort { host_ip, host_port: at.port(), ..*port }
}

fn open(port: &PublishedPort, to: IpAddr) -> io::Result<Door> {
    let to = || Targets::new(vec![SocketAddr::new(to, port.container_port)]);
    // An IPv6 socket on every address takes what comes over IPv4 too. A machine without IPv6 has no such socket.
    let every: [IpAddr; 2] = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
    let mut last = io::Error::from(ErrorKind::AddrNotAvailable);
    for host in port.host_ip.map_or(every.to_vec(), |host| vec![host]) {
        let address = SocketAddr::new(host, port.host_port);
        let door = match port.protocol {
            Protocol::Tcp => TcpListener::bind(address).and_then(|listener| Door::tcp(listener, to())),
            Protocol::Udp => UdpSocket::bind(address).and_then(|socket| Door::udp(socket, to())),
        };
        match door {
            Err(error) if error.kind() != ErrorKind::AddrInUse => last = error,
            other => return other,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_at_every_address_is_at_those_that_there_are() {
        let port = |text: &str| PublishedPort::parse(text).unwrap()[0];
        let cases = [
            ("80", "[::]:7", "7:80/tcp"),
            ("80", "0.0.0.0:7", "0.0.0.0:7:80/tcp"),
            ("127.0.0.1::80", "127.0.0.1:7", "127.0.0.1:7:80/tcp"),
            ("[::1]::80", "[::1]:7", "[::1]:7:80/tcp"),
        ];
        for (asked, at, expected) in cases {
            assert_eq!(as_opened(&port(asked), at.parse().unwrap()).to_string(), expected, "{asked} {at}");
        }
    }
}
