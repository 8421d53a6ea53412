//! What the kernel's packet filter does for a network, as text for `nft`.
//!
//! One table for each network, and one for the ports of each container that publishes some. A table is replaced as a whole in one
//! transaction and removed as a whole, so nobody ever sees half of one, and no other table of the machine is touched.
//!
//! The text goes through the program `nft`: the crates are either under a licence that we do not take, bind a C library, or run the same
//! program with JSON. Whether a table is still there is asked of the kernel itself, which takes a tenth of a millisecond.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
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

/// Runs `nft` on a text, in the network namespace of the calling thread.
pub(super) fn apply(text: &str) -> io::Result<()> {
    let mut missing = io::Error::from(io::ErrorKind::NotFound);
    for program in PROGRAMS {
        match run(program, text) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing = error,
            other => return other,
        }
    }
    Err(missing)
}

#[expect(clippy::disallowed_methods, reason = "the packet filter is set up by the system's own program")]
fn run(program: &str, text: &str) -> io::Result<()> {
    let mut command = std::process::Command::new(program);
    command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output()?;
    if output.status.success() {
        return written;
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
