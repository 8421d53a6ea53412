//! What the kernel's packet filter does for a network, as text for `nft`.
//!
//! One table for each network, and one for the ports of each container that publishes some. A table is replaced as a whole in one
//! transaction and removed as a whole, so nobody ever sees half of one, and no other table of the machine is touched.
//!
//! The text goes through the program `nft`: the crates are either under a licence that we do not take, bind a C library, or run the same
//! program with JSON. Whether a table is still there is asked of the kernel itself, which takes a tenth of a millisecond.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::process::Stdio;

use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::subnet::Subnet;

/// Where clouds serve what the machine is and may do, which is no step's business.
const METADATA_V4: &str = "169.254.0.0/16";
/// The same, of IPv6.
const METADATA_V6: &str = "fd00:ec2::/32";
/// An ordinary user's `PATH` does not always have it.
const PROGRAMS: [&str; 3] = ["nft", "/usr/sbin/nft", "/sbin/nft"];

/// The table of a network, which is called as its bridge.
///
/// Who is on the network may begin a connection to anywhere but the metadata services, of which only the name servers are
/// open (one cloud's own is there). Nobody outside may begin one to who is on it, except through a published port.
pub(super) fn network_table(bridge: &str, subnets: &[Subnet], internal: bool) -> String {
    let (mut forward, mut masquerade) = (String::new(), String::new());
    for (family, metadata) in [("ip", METADATA_V4), ("ip6", METADATA_V6)] {
        // Writing to a string cannot fail.
        let _ = writeln!(forward, "    iifname \"{bridge}\" {family} daddr {metadata} th dport != 53 reject");
    }
    let onward = if internal { "drop" } else { "accept" };
    for subnet in subnets.iter().filter(|_| !internal) {
        let family = if subnet.first().is_ipv4() { "ip" } else { "ip6" };
        let _ = writeln!(masquerade, "    {family} saddr {subnet} oifname != \"{bridge}\" masquerade");
    }
    let chains = format!(
        "  chain forward {{
    type filter hook forward priority filter; policy accept;
{forward}    oifname \"{bridge}\" ct state established,related accept
    oifname \"{bridge}\" ct status dnat accept
    iifname \"{bridge}\" oifname != \"{bridge}\" {onward}
    iifname != \"{bridge}\" oifname \"{bridge}\" drop
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
{masquerade}  }}
"
    );
    replaced(bridge, &chains)
}

/// A table in place of any of that name.
pub(super) fn replaced(name: &str, chains: &str) -> String {
    format!("{}table inet {name} {{\n{chains}}}\n", removed(name))
}

/// No table of that name. The first line makes it, as what is not there cannot be removed.
pub(super) fn removed(name: &str) -> String {
    format!("table inet {name}\ndelete table inet {name}\n")
}

/// The name of the table for the published ports of an address.
pub(super) fn ports_table_name(address: Ipv4Addr) -> String {
    format!("rbuild-{:08x}", address.to_bits())
}

/// The address to which a port of the machine leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forward {
    /// `tcp` or `udp`.
    pub(super) protocol: &'static str,
    /// The address of the machine; `None` is each of a family.
    pub(super) host: Option<IpAddr>,
    pub(super) host_port: u16,
    pub(super) to: IpAddr,
    pub(super) to_port: u16,
}

/// The chain that sends what comes from elsewhere for published ports to a container, with the sender's address as it was.
/// What comes from the machine itself or from the network of the container goes to the relay (see `publish`).
pub(super) fn ports_chain(bridge: &str, forwards: &[Forward]) -> String {
    let mut rules = String::new();
    for Forward { protocol, host, host_port, to, to_port } in forwards {
        let (family, to) = match to {
            IpAddr::V4(to) => ("ip", format!("{to}:{to_port}")),
            IpAddr::V6(to) => ("ip6", format!("[{to}]:{to_port}")),
        };
        let local = host.map_or_else(
            || format!("meta nfproto {} fib daddr type local", if family == "ip" { "ipv4" } else { "ipv6" }),
            |host| format!("{family} daddr {host}"),
        );
        let _ = writeln!(
            rules,
            "    iifname != \"{bridge}\" {local} {protocol} dport {host_port} dnat {family} to {to}"
        );
    }
    format!(
        "  chain prerouting {{\n    type nat hook prerouting priority dstnat; policy accept;\n{rules}  }}\n"
    )
}

/// Runs `nft` on a text, in the network namespace of the calling thread.
pub(super) fn apply(text: &str) -> io::Result<()> {
    run(&["-f", "-"], text).map(drop)
}

/// What `nft` says, in the network namespace of the calling thread.
pub(super) fn ask(arguments: &[&str]) -> io::Result<String> {
    run(arguments, "")
}

fn run(arguments: &[&str], text: &str) -> io::Result<String> {
    let mut missing = io::Error::from(io::ErrorKind::NotFound);
    for program in PROGRAMS {
        match run_program(program, arguments, text) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing = error,
            other => return other,
        }
    }
    Err(missing)
}

#[expect(clippy::disallowed_methods, reason = "the packet filter is set up by the system's own program")]
fn run_program(program: &str, arguments: &[&str], text: &str) -> io::Result<String> {
    let mut command = std::process::Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output()?;
    if output.status.success() {
        return written.map(|()| String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().next().unwrap_or("it said nothing").to_owned();
    Err(io::Error::other(format!("`nft`: {first}")))
}

/// Whether the namespace of the calling thread has a table.
///
/// # Errors
///
/// The kernel has no nf_tables, or this process may not ask.
pub(super) fn has_table(name: &str) -> io::Result<bool> {
    let family = AddressFamily::NETLINK;
    let socket = rustix::net::socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(NETFILTER))?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    rustix::net::send(&socket, &get_table(name), SendFlags::empty())?;
    let mut answer = [0; 4096];
    let (size, _) = rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty())?;
    let errno = |bytes: &[u8]| Some(i32::from_ne_bytes(bytes.get(16..20)?.try_into().ok()?));
    let kind = answer.get(4..6).map(|kind| u16::from_ne_bytes([kind[0], kind[1]]));
    match (kind, errno(&answer[..size])) {
        (Some(ERROR), Some(errno)) if -errno == libc::ENOENT => Ok(false),
        (Some(ERROR), Some(errno)) if errno != 0 => Err(io::Error::from_raw_os_error(-errno)),
        _ => Ok(true),
    }
}

/// `NLMSG_ERROR`.
const ERROR: u16 = 2;

/// `NFT_MSG_GETTABLE` for a table of the family `inet`: header, `nfgenmsg`, and the name as the one attribute.
fn get_table(name: &str) -> Vec<u8> {
    const GET_TABLE: u16 = (libc::NFNL_SUBSYS_NFTABLES as u16) << 8 | libc::NFT_MSG_GETTABLE as u16;
    const REQUEST: u16 = 1;
    const NAME: u16 = 1;
    let name = [name.as_bytes(), &[0]].concat();
    let attribute_size = u16::try_from(4 + name.len()).unwrap_or(u16::MAX);
    let size = (20 + u32::from(attribute_size)).next_multiple_of(4);
    let mut bytes = Vec::new();
    bytes.extend(size.to_ne_bytes());
    bytes.extend([GET_TABLE, REQUEST].map(u16::to_ne_bytes).concat());
    bytes.extend([0; 8]);
    bytes.extend([libc::NFPROTO_INET as u8, 0, 0, 0]);
    bytes.extend([attribute_size, NAME].map(u16::to_ne_bytes).concat());
    bytes.extend(name);
    bytes.resize(size as usize, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(first: &str, prefix: u8) -> Subnet {
        Subnet::containing(first.parse().unwrap(), prefix)
    }

    #[test]
    fn the_table_of_a_network() {
        let subnets = [subnet("10.90.0.0", 16), subnet("fd01::", 64)];
        assert_eq!(
            network_table("rbuild0", &subnets, false),
            r#"table inet rbuild0
delete table inet rbuild0
table inet rbuild0 {
  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname "rbuild0" ip daddr 169.254.0.0/16 th dport != 53 reject
    iifname "rbuild0" ip6 daddr fd00:ec2::/32 th dport != 53 reject
    oifname "rbuild0" ct state established,related accept
    oifname "rbuild0" ct status dnat accept
    iifname "rbuild0" oifname != "rbuild0" accept
    iifname != "rbuild0" oifname "rbuild0" drop
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr 10.90.0.0/16 oifname != "rbuild0" masquerade
    ip6 saddr fd01::/64 oifname != "rbuild0" masquerade
  }
}
"#
        );
        let internal = network_table("n", &subnets, true);
        assert!(internal.contains("iifname \"n\" oifname != \"n\" drop") && !internal.contains("masquerade"));
    }

    #[test]
    fn the_chain_of_published_ports() {
        let to: Ipv4Addr = [10, 90, 1, 2].into();
        let forward = |host: Option<&str>, to: IpAddr, protocol| Forward {
            protocol,
            host: host.map(|host| host.parse().unwrap()),
            host_port: 8080,
            to,
            to_port: 80,
        };
        let forwards = [
            forward(None, to.into(), "tcp"),
            forward(Some("192.0.2.1"), to.into(), "udp"),
            forward(None, "fd01::2".parse().unwrap(), "tcp"),
        ];
        assert_eq!(
            ports_chain("b", &forwards),
            r#"  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    iifname != "b" meta nfproto ipv4 fib daddr type local tcp dport 8080 dnat ip to 10.90.1.2:80
    iifname != "b" ip daddr 192.0.2.1 udp dport 8080 dnat ip to 10.90.1.2:80
    iifname != "b" meta nfproto ipv6 fib daddr type local tcp dport 8080 dnat ip6 to [fd01::2]:80
  }
"#
        );
        assert_eq!(ports_table_name(to), "rbuild-0a5a0102");
    }
}
