//! The kernel's interfaces, addresses and routes, over a netlink socket.
//!
//! A socket belongs to the network namespace that it was opened in, whichever thread uses it later. So everything in another
//! namespace is done through a socket that was opened there, and nobody has to go there again.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, SocketType};

use super::mac::MacAddress;
use super::subnet::Subnet;

/// What one datagram of answers fits in; the kernel makes none above 32 KiB.
const ANSWER_SIZE_BYTES_MAX: usize = 64 * 1024;

/// The number of an interface in its namespace.
pub(super) type LinkIndex = u32;

/// A socket in one namespace.
#[derive(Debug)]
pub(super) struct Netlink(Mutex<OwnedFd>);

/// A route as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    /// `None` is everything.
    pub(super) destination: Option<Subnet>,
    pub(super) is_ipv6: bool,
    /// The interface that it leads over.
    pub(super) link: Option<LinkIndex>,
    /// Whether a router announced it, which a machine that forwards no longer listens to.
    pub(super) announced: bool,
}

impl Netlink {
    /// A socket in the namespace of the calling thread.
    pub(super) fn open() -> io::Result<Self> {
        open_socket(0).map(|socket| Self(Mutex::new(socket)))
    }

    /// Makes a bridge, switched on. Without a hardware address of its own it would have the lowest one of its ports, another one
    /// whenever they come and go, and whoever knows the last one would reach nobody until that is forgotten.
    pub(super) fn add_bridge(&self, name: &str, mac: MacAddress) -> io::Result<()> {
        let mut link = named(name);
        link.attributes.push(LinkAttribute::Address(mac.octets().to_vec()));
        link.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
        self.change(Message::NewLink(up(link)), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Makes a pair of interfaces: `name` here on a bridge, switched on, and `peer` in another namespace, which cannot be switched
    /// on before both exist.
    pub(super) fn add_pair(
        &self,
        name: &str,
        bridge: LinkIndex,
        (peer, mac, namespace): (&str, Option<MacAddress>, BorrowedFd<'_>),
        mtu: Option<u32>,
    ) -> io::Result<()> {
        let mut inside = named(peer);
        inside.attributes.extend(mac.map(|mac| LinkAttribute::Address(mac.octets().to_vec())));
        inside.attributes.extend(mtu.map(LinkAttribute::Mtu));
        inside.attributes.push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
        let mut link = up(named(name));
        link.attributes.extend(mtu.map(LinkAttribute::Mtu));
        link.attributes.push(LinkAttribute::Controller(bridge));
        let pair = InfoData::Veth(InfoVeth::Peer(inside));
        link.attributes
            .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(pair)]));
        self.change(Message::NewLink(link), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Forbids a port of a bridge to talk to other such ports; it reaches the bridge itself only.
    pub(super) fn isolate_port(&self, name: &str) -> io::Result<()> {
        let data = InfoPortData::BridgePort(vec![InfoBridgePort::Isolated(true)]);
        let info = vec![LinkInfo::PortKind(InfoPortKind::Bridge), LinkInfo::PortData(data)];
        let mut link = named(name);
        link.attributes.push(LinkAttribute::LinkInfo(info));
        self.change(Message::NewLink(link), 0)
    }

    /// Switches an interface on.
    pub(super) fn set_up(&self, name: &str) -> io::Result<()> {
        self.change(Message::SetLink(up(named(name))), 0)
    }

    /// Removes an interface; one that is not there is fine.
    pub(super) fn delete_link(&self, name: &str) -> io::Result<()> {
        match self.change(Message::DelLink(named(name)), 0) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            other => other,
        }
    }

    /// The number of an interface, if there is one of that name.
    pub(super) fn link_index(&self, name: &str) -> io::Result<Option<LinkIndex>> {
        match self.request(Message::GetLink(named(name)), NLM_F_ACK) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
            Ok(answers) => Ok(answers.into_iter().find_map(|answer| match answer {
                Message::NewLink(link) => Some(link.header.index),
                _ => None,
            })),
        }
    }

    /// Gives an interface an address.
    pub(super) fn add_address(&self, link: LinkIndex, address: IpAddr, prefix: u8) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = family(address);
        message.header.prefix_len = prefix;
        message.header.index = link;
        // Addresses come from an allocator, so there is no need to ask the network whether somebody has one.
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
        self.change(Message::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// The addresses of an interface with their networks, without the link-local ones.
    pub(super) fn addresses(&self, link: LinkIndex) -> io::Result<Vec<(IpAddr, Subnet)>> {
        let answers = self.request(Message::GetAddress(AddressMessage::default()), NLM_F_DUMP)?;
        let address = |answer| match answer {
            Message::NewAddress(message) if message.header.index == link => {
                let address = message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Address(address) => Some(*address),
                    _ => None,
                })?;
                let local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
                (!local).then(|| (address, Subnet::containing(address, message.header.prefix_len)))
            }
            _ => None,
        };
        Ok(answers.into_iter().filter_map(address).collect())
    }

    /// Sends all that has no nearer route to a gateway.
    pub(super) fn add_default_route(&self, link: LinkIndex, gateway: IpAddr) -> io::Result<()> {
        let mut message = RouteMessage::default();
        message.header = RouteHeader {
            address_family: family(gateway),
            table: RouteHeader::RT_TABLE_MAIN,
            protocol: RouteProtocol::Boot,
            scope: RouteScope::Universe,
            kind: RouteType::Unicast,
            ..RouteHeader::default()
        };
        message.attributes = vec![RouteAttribute::Gateway(gateway.into()), RouteAttribute::Oif(link)];
        self.change(Message::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// The largest packet that leaves over the default route in one piece, in bytes.
    pub(super) fn way_out_mtu(&self) -> io::Result<Option<u32>> {
        let routes = self.routes()?;
        let Some(link) = routes.iter().find_map(|route| route.link.filter(|_| route.destination.is_none()))
        else {
            return Ok(None);
        };
        let mut asked = LinkMessage::default();
        asked.header.index = link;
        let answers = self.request(Message::GetLink(asked), NLM_F_ACK)?;
        Ok(answers.into_iter().find_map(|answer| match answer {
            Message::NewLink(link) => link.attributes.into_iter().find_map(|attribute| match attribute {
                LinkAttribute::Mtu(mtu) => Some(mtu),
                _ => None,
            }),
            _ => None,
        }))
    }

    /// Every route to somewhere else.
    pub(super) fn routes(&self) -> io::Result<Vec<Route>> {
        let answers = self.request(Message::GetRoute(RouteMessage::default()), NLM_F_DUMP)?;
        Ok(answers.iter().filter_map(route).collect())
    }

    /// Changes something, and hears whether that was done.
    fn change(&self, message: Message, flags: u16) -> io::Result<()> {
        self.request(message, flags | NLM_F_ACK).map(drop)
    }

    /// Asks, and collects the answers up to the acknowledgement or the end of a dump.
    fn request(&self, message: Message, flags: u16) -> io::Result<Vec<Message>> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);

        // A thread that panicked left no half an answer worth keeping.
        let socket = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        rustix::net::send(&*socket, &bytes, SendFlags::empty())?;
        let mut answers = Vec::new();
        let mut buffer = vec![0; ANSWER_SIZE_BYTES_MAX];
        loop {
            let (size, _) = rustix::io::retry_on_intr(|| {
                rustix::net::recv(&*socket, &mut buffer[..], RecvFlags::empty())
            })?;
            if read_answers(&buffer[..size], &mut answers)? {
                return Ok(answers);
            }
        }
    }
}

/// Reads one datagram; whether it was the last.
fn read_answers(mut bytes: &[u8], answers: &mut Vec<Message>) -> io::Result<bool> {
    let garbled = |error| io::Error::other(format!("the kernel's answer cannot be read: {error}"));
    while !bytes.is_empty() {
        let length = NetlinkBuffer::new_checked(bytes).map_err(garbled)?.length() as usize;
        let message = NetlinkMessage::<Message>::deserialize(bytes).map_err(garbled)?;
        match message.payload {
            NetlinkPayload::Done(_) => return Ok(true),
            NetlinkPayload::Error(error) => {
                return error.code.map_or(Ok(true), |_| Err(error.to_io()));
            }
            NetlinkPayload::InnerMessage(answer) => answers.push(answer),
            _ => {}
        }
        // Messages begin at multiples of four.
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn route(answer: &Message) -> Option<Route> {
    let Message::NewRoute(message) = answer else { return None };
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    let destination = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    });
    let link = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(link) => Some(*link),
        _ => None,
    });
    let prefix = message.header.destination_prefix_length;
    Some(Route {
        link,
        destination: destination.map(|address| Subnet::containing(address, prefix)),
        is_ipv6: message.header.address_family == AddressFamily::Inet6,
        announced: message.header.protocol == RouteProtocol::Ra,
    })
}

/// Tells when the IPv4 routes of a namespace change: it can be polled for reading.
#[derive(Debug)]
pub(super) struct Watch(OwnedFd);

impl Watch {
    /// Of the namespace of the calling thread.
    pub(super) fn open() -> io::Result<Self> {
        let groups = libc::RTMGRP_IPV4_ROUTE as u32;
        open_socket(groups).map(Self)
    }

    /// Takes one announcement.
    pub(super) fn read(&self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::DONTWAIT)?;
        Ok(())
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn open_socket(groups: u32) -> io::Result<OwnedFd> {
    let family = rustix::net::AddressFamily::NETLINK;
    // Without a protocol it is NETLINK_ROUTE, whose number is 0.
    let socket = rustix::net::socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

fn named(name: &str) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    link
}

fn up(mut link: LinkMessage) -> LinkMessage {
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link
}

const fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
