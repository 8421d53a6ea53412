//! Published ports: what comes to a port of the machine goes on to a container.
//!
//! For each there is a socket of ours that listens. It reserves the port, so that one in use is an error and not a surprise, and
//! takes what comes from the machine itself, which no address translation sends on safely: to let what was sent to 127.0.0.1
//! leave the machine would open its loopback interface to the neighbours (`route_localnet`). What comes from elsewhere is translated
//! by the kernel where rbuild may tell it to, and keeps its sender's address; else it goes through the socket too.
//!
//! One thread listens on all sockets of a container. A connection has two more, one for each direction, which end with it.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use nix::sched::CloneFlags;
use rustix::event::{PollFd, PollFlags, poll};

use super::bridge::remove_ports;
use super::firewall::{self, Forward};
use super::port_spec::{Protocol, PublishedPort};
use super::uplink::Uplink;
use crate::error::Error;

/// The most senders of datagrams whose answers find back; beyond, the one that was silent longest is forgotten.
const SESSIONS_MAX: usize = 1024;
/// The largest datagram.
const DATAGRAM_SIZE_BYTES_MAX: usize = 64 * 1024;

/// The published ports of one address. Dropping it closes them.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) ports: Vec<PublishedPort>,
    to: std::net::Ipv4Addr,
    uplink: Arc<Uplink>,
    /// What serves the ports, and what ends it when it is closed.
    server: Option<(OwnedFd, JoinHandle<()>)>,
}

impl Published {
    /// Opens the ports. `to` are the addresses of the container, the IPv4 one first.
    ///
    /// # Errors
    ///
    /// [`Error::PortInUse`], or the kernel's.
    pub(super) fn open(
        uplink: &Arc<Uplink>,
        bridge: &str,
        (v4, v6): (std::net::Ipv4Addr, Option<IpAddr>),
        ports: &[PublishedPort],
    ) -> Result<Self, Error> {
        let failed = |error| Error::setup("publish ports", error);
        let mut doors = Vec::with_capacity(ports.len());
        let mut opened = Vec::with_capacity(ports.len());
        for port in ports {
            let door = Door::open(port, v4.into())
                .map_err(|source| Error::PublishPort { port: port.to_string(), source })?;
            opened.push(PublishedPort { host_port: door.host_port().map_err(failed)?, ..*port });
            doors.push(door);
        }
        let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|error| failed(error.into()))?;
        // From here on dropping it removes the table.
        let mut published = Self { ports: opened, to: v4, uplink: Arc::clone(uplink), server: None };
        published.translate(bridge, v6).map_err(failed)?;
        let namespace = uplink.namespace.as_fd().try_clone_to_owned().map_err(failed)?;
        let serve = move || serve(&namespace, &stopped, &doors);
        let server = thread::Builder::new().name("ports".to_owned()).spawn(serve).map_err(failed)?;
        published.server = Some((stop, server));
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
        if let Some((stop, server)) = self.server.take() {
            drop(stop);
            // The ports are free when it has ended. It does not panic, and nothing could be done about it here.
            drop(server.join());
        }
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

/// A socket of the machine, and where what comes to it goes.
#[derive(Debug)]
struct Door {
    socket: DoorSocket,
    to: SocketAddr,
}

#[derive(Debug)]
enum DoorSocket {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Door {
    fn open(port: &PublishedPort, to: IpAddr) -> io::Result<Self> {
        let to = SocketAddr::new(to, port.container_port);
        // An IPv6 socket on every address takes what comes over IPv4 too. A machine without IPv6 has no such socket.
        let every: [IpAddr; 2] = [Ipv6Addr::UNSPECIFIED.into(), std::net::Ipv4Addr::UNSPECIFIED.into()];
        let hosts = port.host_ip.map_or(every.to_vec(), |host| vec![host]);
        let bind = |host| -> io::Result<DoorSocket> {
            let address = SocketAddr::new(host, port.host_port);
            Ok(match port.protocol {
                Protocol::Tcp => {
                    let listener = TcpListener::bind(address)?;
                    // One that has gone before it was accepted must not keep the others waiting.
                    listener.set_nonblocking(true)?;
                    DoorSocket::Tcp(listener)
                }
                Protocol::Udp => {
                    let socket = UdpSocket::bind(address)?;
                    socket.set_nonblocking(true)?;
                    DoorSocket::Udp(socket)
                }
            })
        };
        let mut last = io::Error::from(ErrorKind::AddrNotAvailable);
        for host in hosts {
            match bind(host) {
                Ok(socket) => return Ok(Self { socket, to }),
                Err(error) if error.kind() == ErrorKind::AddrInUse => return Err(error),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn host_port(&self) -> io::Result<u16> {
        let address = match &self.socket {
            DoorSocket::Tcp(listener) => listener.local_addr(),
            DoorSocket::Udp(socket) => socket.local_addr(),
        };
        Ok(address?.port())
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            DoorSocket::Tcp(listener) => listener.as_fd(),
            DoorSocket::Udp(socket) => socket.as_fd(),
        }
    }
}

/// Somebody who sent datagrams: the index of the door, and from where.
type Sender = (usize, SocketAddr);

/// The sockets through which senders of datagrams are answered, and when each was last used, counted in datagrams.
#[derive(Default)]
struct Sessions {
    open: BTreeMap<Sender, (UdpSocket, u64)>,
    count: u64,
}

impl Sessions {
    fn of(&mut self, sender: Sender, to: SocketAddr) -> io::Result<&UdpSocket> {
        self.count += 1;
        if !self.open.contains_key(&sender) {
            if self.open.len() >= SESSIONS_MAX {
                let oldest = self.open.iter().min_by_key(|(_, (_, used))| *used).map(|(sender, _)| *sender);
                oldest.and_then(|oldest| self.open.remove(&oldest));
            }
            let any: SocketAddr = ([0, 0, 0, 0], 0).into();
            let socket = UdpSocket::bind(any)?;
            socket.connect(to)?;
            socket.set_nonblocking(true)?;
            self.open.insert(sender, (socket, 0));
        }
        let (socket, used) = self.open.get_mut(&sender).ok_or(ErrorKind::NotFound)?;
        *used = self.count;
        Ok(socket)
    }
}

/// Serves all doors until the other end of `stopped` is closed. New sockets are made where the container can be reached.
fn serve(namespace: &OwnedFd, stopped: &OwnedFd, doors: &[Door]) {
    if nix::sched::setns(namespace, CloneFlags::CLONE_NEWNET).is_err() {
        return;
    }
    let mut sessions = Sessions::default();
    let mut buffer = vec![0; DATAGRAM_SIZE_BYTES_MAX];
    loop {
        let senders: Vec<Sender> = sessions.open.keys().copied().collect();
        let ready = {
            let sockets = doors.iter().map(AsFd::as_fd);
            let answers = sessions.open.values().map(|(socket, _)| socket.as_fd());
            let all = std::iter::once(stopped.as_fd()).chain(sockets).chain(answers);
            let mut polled: Vec<PollFd<'_>> =
                all.map(|socket| PollFd::from_borrowed_fd(socket, PollFlags::IN)).collect();
            if rustix::io::retry_on_intr(|| poll(&mut polled, None)).is_err() {
                return;
            }
            polled.iter().map(|polled| !polled.revents().is_empty()).collect::<Vec<bool>>()
        };
        if ready[0] {
            return;
        }
        for (index, door) in doors.iter().enumerate().filter(|(index, _)| ready[1 + index]) {
            // What one sender does wrong, or the kernel refuses for one, is no reason to end the others.
            drop(pass_on(door, index, &mut sessions, &mut buffer));
        }
        for (_, sender) in senders.iter().enumerate().filter(|(index, _)| ready[1 + doors.len() + index]) {
            drop(answer(doors, *sender, &mut sessions, &mut buffer));
        }
    }
}

fn pass_on(door: &Door, index: usize, sessions: &mut Sessions, buffer: &mut [u8]) -> io::Result<()> {
    match &door.socket {
        DoorSocket::Tcp(listener) => join(listener.accept()?.0, door.to),
        DoorSocket::Udp(socket) => {
            let (size, from) = socket.recv_from(buffer)?;
            sessions.of((index, from), door.to)?.send(&buffer[..size]).map(drop)
        }
    }
}

fn answer(doors: &[Door], sender: Sender, sessions: &mut Sessions, buffer: &mut [u8]) -> io::Result<()> {
    let (index, from) = sender;
    let Some((session, _)) = sessions.open.get(&sender) else { return Ok(()) };
    let size = session.recv(buffer)?;
    match &doors[index].socket {
        DoorSocket::Udp(socket) => socket.send_to(&buffer[..size], from).map(drop),
        DoorSocket::Tcp(_) => Ok(()),
    }
}

/// Joins a connection with a new one to the container, which is made on a thread as it may take long.
fn join(outside: TcpStream, to: SocketAddr) -> io::Result<()> {
    outside.set_nonblocking(false)?;
    let join = move || -> io::Result<()> {
        let inside = TcpStream::connect(to)?;
        let (from_inside, to_outside) = (inside.try_clone()?, outside.try_clone()?);
        let back = move || copy(&from_inside, &to_outside);
        thread::Builder::new().name("port-back".to_owned()).spawn(back)?;
        copy(&outside, &inside);
        Ok(())
    };
    // A connection that the container refuses is closed, as the container's own refusal would be.
    thread::Builder::new().name("port".to_owned()).spawn(move || drop(join())).map(drop)
}

/// Copies one direction until it ends, and then tells the receiver so; the other direction may go on.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    drop(io::copy(&mut from, &mut to));
    drop(to.shutdown(Shutdown::Write));
    drop(from.shutdown(Shutdown::Read));
}
