//! Published ports as people write them: `[[IP:]HOST:]CONTAINER[/tcp|/udp]`, where both may be ranges of one length.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How what comes to a port is spoken to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Connections.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
}

impl Protocol {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A port of the machine that leads to one of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The machine's address; every one of both families when not given.
    pub host_ip: Option<IpAddr>,
    /// The machine's port; 0 is any that is free.
    pub host_port: u16,
    /// The container's port.
    pub container_port: u16,
    /// How it is spoken to.
    pub protocol: Protocol,
}

/// What is wrong with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PortError {
    /// Neither a port nor a range of ports.
    #[error("not a port from 1 to 65535, or a range of them")]
    Port,
    /// The host part is no address.
    #[error("not an IP address")]
    Address,
    /// Another protocol.
    #[error("the protocol is neither tcp nor udp")]
    Protocol,
    /// The ranges of both sides differ in length.
    #[error("the ranges differ in length")]
    Lengths,
}

impl PublishedPort {
    /// The ports that a text names, one for each of a range.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Vec<Self>, PortError> {
        let (text, protocol) = match text.rsplit_once('/') {
            None => (text, Protocol::Tcp),
            Some((text, "tcp")) => (text, Protocol::Tcp),
            Some((text, "udp")) => (text, Protocol::Udp),
            Some(_) => return Err(PortError::Protocol),
        };
        let (host, container) = text.rsplit_once(':').map_or((None, text), |(host, port)| (Some(host), port));
        let (ip, host) = match host.and_then(|host| host.rsplit_once(':')) {
            Some((ip, port)) => (Some(address(ip)?), Some(port)),
            None => (None, host),
        };
        let (first, last) = range(container)?;
        let host = host.filter(|host| !host.is_empty() && *host != "0").map(range).transpose()?;
        if host.is_some_and(|(from, to)| to - from != last - first) {
            return Err(PortError::Lengths);
        }
        let port = |container_port| Self {
            host_ip: ip,
            host_port: host.map_or(0, |(from, _)| from + (container_port - first)),
            container_port,
            protocol,
        };
        Ok((first..=last).map(port).collect())
    }
}

impl fmt::Display for PublishedPort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            Some(IpAddr::V6(ip)) => write!(formatter, "[{ip}]:")?,
            Some(IpAddr::V4(ip)) => write!(formatter, "{ip}:")?,
            None => {}
        }
        write!(formatter, "{}:{}/{}", self.host_port, self.container_port, self.protocol.name())
    }
}

fn address(text: &str) -> Result<IpAddr, PortError> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| PortError::Address)
}

fn range(text: &str) -> Result<(u16, u16), PortError> {
    let port = |text: &str| text.parse().ok().filter(|port| *port > 0).ok_or(PortError::Port);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    if first <= last { Ok((first, last)) } else { Err(PortError::Port) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_docker_reads_them() {
        let cases = [
            ("80", "0:80/tcp"),
            ("0:80", "0:80/tcp"),
            ("8080:80", "8080:80/tcp"),
            ("8080:80/udp", "8080:80/udp"),
            ("127.0.0.1:8080:80", "127.0.0.1:8080:80/tcp"),
            ("127.0.0.1::80", "127.0.0.1:0:80/tcp"),
            ("[::1]:8080:80", "[::1]:8080:80/tcp"),
            ("7000-7002:80-82", "7000:80/tcp 7001:81/tcp 7002:82/tcp"),
            ("65535", "0:65535/tcp"),
        ];
        for (text, expected) in cases {
            let ports = PublishedPort::parse(text).unwrap();
            assert_eq!(
                ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_port_is_refused() {
        let cases = [
            ("", PortError::Port),
            ("0", PortError::Port),
            ("70000", PortError::Port),
            ("80/icmp", PortError::Protocol),
            ("82-80", PortError::Port),
            ("1-3:1-2", PortError::Lengths),
            ("x:1:2", PortError::Address),
            ("-1:2", PortError::Port),
        ];
        for (text, expected) in cases {
            assert_eq!(PublishedPort::parse(text), Err(expected), "{text}");
        }
    }
}
