//! Name lookup for those who cannot ask the machine's name servers themselves, or are to know each other by name.
//!
//! A socket in the container's namespace, on a loopback address that Docker uses for the same, answers for the names of those who are on
//! the container's networks, and passes all else on to a name server from where this process is; there, one on the machine's
//! loopback interface can be asked too. Who has which name is in the leases of addresses (`lease`): no file in a running container has
//! to be rewritten when another one comes or goes, and a name goes with the process that held its address.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;

use super::doors::{Answer, Door, Doors, Targets};
use super::namespace::Namespace;
use super::uplink::Uplink;

/// Where a container asks.
pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const PORT: u16 = 53;
/// A query's fixed part.
const HEADER_SIZE_BYTES: usize = 12;
/// How long an answer may be believed, in seconds: others come and go.
const TIME_TO_LIVE: u32 = 5;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const CLASS_IN: u16 = 1;

/// What one container calls another, under whose own name others find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The name that only this container knows.
    pub alias: String,
    /// One of the other's own.
    pub name: String,
}

/// Which names are known.
#[derive(Debug)]
pub(super) struct Known {
    /// The bridges whose names count.
    pub(super) networks: Vec<String>,
    pub(super) links: Vec<Link>,
}

impl Known {
    fn find(&self, name: &str, uplink: &Uplink) -> Vec<Ipv4Addr> {
        let link = self.links.iter().find(|link| link.alias.eq_ignore_ascii_case(name));
        let name = link.map_or(name, |link| &link.name);
        let is_it = |names: &[String]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
        let tenants = uplink.place().leases.tenants().unwrap_or_default().into_iter();
        let found =
            tenants.filter(|(_, tenant)| self.networks.contains(&tenant.network) && is_it(&tenant.names));
        found.map(|(address, _)| address).collect()
    }
}

/// Begins to answer in a namespace. One of `upstreams` knows all names that are not known.
pub(super) fn serve(
    inside: &Namespace,
    uplink: &Arc<Uplink>,
    known: Known,
    upstreams: &[IpAddr],
) -> io::Result<Doors> {
    let here = (SERVER, PORT);
    let (udp, tcp) = inside.run(|| Ok((UdpSocket::bind(here)?, TcpListener::bind(here)?)))?;
    // Without any, nothing answers there.
    let nobody = [SERVER.into()];
    let upstreams = if upstreams.is_empty() { &nobody } else { upstreams };
    let to = Targets::new(upstreams.iter().map(|server| SocketAddr::new(*server, PORT)).collect());
    let uplink = Arc::clone(uplink);
    let answer: Answer = Box::new(move |query| answer(query, &|name| known.find(name, &uplink)));
    let names = Door { answer: Some(answer), is_refusal, ..Door::udp(udp, to.clone())? };
    Doors::open(vec![names, Door::tcp(tcp, to)?], None)
}

/// The answer to a query for a name that `find` knows. There are IPv4 addresses only; of others it says that there are none.
fn answer(query: &[u8], find: &dyn Fn(&str) -> Vec<Ipv4Addr>) -> Option<Vec<u8>> {
    let header = query.get(..HEADER_SIZE_BYTES)?;
    // A query, of the ordinary kind, with one question.
    if header[2] & 0xf8 != 0 || header[4..6] != [0, 1] {
        return None;
    }
    let (name, end) = question(query)?;
    let field = |at: usize| Some(u16::from_be_bytes(query.get(at..at + 2)?.try_into().ok()?));
    let (kind, class) = (field(end)?, field(end + 2)?);
    let addresses = find(&name);
    if addresses.is_empty() || class != CLASS_IN || !matches!(kind, TYPE_A | TYPE_AAAA) {
        return None;
    }
    let addresses = if kind == TYPE_A { addresses } else { Vec::new() };
    let count = u16::try_from(addresses.len()).ok()?;
    let mut bytes = header[..2].to_vec();
    // A response, recursion desired as asked, recursion available; no error.
    bytes.extend([0x80 | header[2] & 1, 0x80, 0, 1]);
    bytes.extend(count.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(&query[HEADER_SIZE_BYTES..end + 4]);
    for address in addresses {
        // The name is the one at the beginning of the question.
        bytes.extend([0xc0, 12]);
        bytes.extend([TYPE_A, CLASS_IN].map(u16::to_be_bytes).concat());
        bytes.extend(TIME_TO_LIVE.to_be_bytes());
        bytes.extend(4u16.to_be_bytes());
        bytes.extend(address.octets());
    }
    Some(bytes)
}

/// Whether a server could not, or would not, look: any other may know.
fn is_refusal(answer: &[u8]) -> bool {
    const SERVER_FAILURE: u8 = 2;
    const NOT_IMPLEMENTED: u8 = 4;
    const REFUSED: u8 = 5;
    let code = answer.get(3).map(|byte| byte & 0xf);
    matches!(code, Some(SERVER_FAILURE | NOT_IMPLEMENTED | REFUSED))
}

/// The name that is asked for, and where it ends. No client compresses the one name that there is.
fn question(query: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = HEADER_SIZE_BYTES;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        match length {
            0 => return Some((labels.join("."), at)),
            1..=63 => labels.push(str::from_utf8(query.get(at..at + length)?).ok()?),
            _ => return None,
        }
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut bytes = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            bytes.push(u8::try_from(label.len()).unwrap());
            bytes.extend(label.bytes());
        }
        bytes.push(0);
        bytes.extend([kind, CLASS_IN].map(u16::to_be_bytes).concat());
        bytes
    }

    fn find(name: &str) -> Vec<Ipv4Addr> {
        if name == "db" { vec![Ipv4Addr::new(10, 90, 1, 2), Ipv4Addr::new(10, 90, 1, 3)] } else { Vec::new() }
    }

    #[test]
    fn a_known_name_has_its_addresses() {
        let asked = query("db", TYPE_A);
        let answer = answer(&asked, &find).unwrap();
        assert_eq!(answer[..12], [0xab, 0xcd, 0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 0]);
        assert_eq!(answer[12..asked.len()], asked[12..]);
        let records = &answer[asked.len()..];
        assert_eq!(records[..16], [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 90, 1, 2]);
        assert_eq!(records[28..], [10, 90, 1, 3]);
    }

    #[test]
    fn it_has_no_other_addresses_and_the_rest_is_for_others_to_answer() {
        assert_eq!(answer(&query("db", TYPE_AAAA), &find).unwrap()[6..8], [0, 0]);
        assert_eq!(answer(&query("db.example", TYPE_A), &find), None);
        assert_eq!(answer(&query("db", 15), &find), None);
        let whole = query("db", TYPE_A);
        for size in 0..whole.len() {
            assert_eq!(answer(&whole[..size], &find), None, "{size}");
        }
        let mut response = whole;
        response[2] |= 0x80;
        assert_eq!(answer(&response, &find), None);
    }
}
