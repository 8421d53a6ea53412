//! Networks as numbers: which addresses belong to one, and which one is free on a machine.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// A network: its first address, and how many bits all its addresses share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    first: IpAddr,
    prefix: u8,
}

impl Subnet {
    /// The network of `prefix` bits that an address belongs to. More bits than it has count as all.
    pub fn containing(address: IpAddr, prefix: u8) -> Self {
        match address {
            IpAddr::V4(address) => {
                let prefix = prefix.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                Self { first: Ipv4Addr::from_bits(address.to_bits() & mask).into(), prefix }
            }
            IpAddr::V6(address) => {
                let prefix = prefix.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                Self { first: Ipv6Addr::from_bits(address.to_bits() & mask).into(), prefix }
            }
        }
    }

    /// Its first address, which names it.
    pub const fn first(self) -> IpAddr {
        self.first
    }

    /// How many bits its addresses share.
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether an address belongs to it.
    pub fn contains(self, address: IpAddr) -> bool {
        self.first.is_ipv4() == address.is_ipv4() && Self::containing(address, self.prefix) == self
    }

    /// Whether two networks have an address in common: one is a part of the other then.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }

    /// The address at a distance from the first.
    pub fn address(self, offset: u32) -> IpAddr {
        match self.first {
            IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits().wrapping_add(offset)).into(),
            IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits().wrapping_add(offset.into())).into(),
        }
    }

    /// How far an address is from the first.
    pub fn offset(self, address: Ipv4Addr) -> u32 {
        match self.first {
            IpAddr::V4(first) => address.to_bits().wrapping_sub(first.to_bits()),
            IpAddr::V6(_) => 0,
        }
    }

    /// The distances of the addresses that can be given away: not the network's own, the gateway's and the broadcast's.
    pub fn offsets(self) -> std::ops::Range<u32> {
        let bits = if self.first.is_ipv4() { 32 } else { 128 };
        2..1u32.checked_shl(bits - u32::from(self.prefix)).map_or(u32::MAX, |count| count.saturating_sub(1))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.first, self.prefix)
    }
}

/// The first of the networks to try that has nothing in common with what is `taken`.
///
/// They come from all three private ranges: where a company has routed one of them as a whole, the next has room. Docker's and
/// Podman's own first choices are not among them.
pub(super) fn free(taken: &[Subnet]) -> Option<Subnet> {
    let ten = (90..128).map(|second| (Ipv4Addr::new(10, second, 0, 0), 16));
    let seventeen = (20..32).rev().map(|second| (Ipv4Addr::new(172, second, 0, 0), 16));
    let nineteen = (0..16).rev().map(|third| (Ipv4Addr::new(192, 168, third * 16, 0), 20));
    ten.chain(seventeen)
        .chain(nineteen)
        .map(|(first, prefix)| Subnet::containing(first.into(), prefix))
        .find(|candidate| !taken.iter().any(|taken| taken.overlaps(*candidate)))
}

/// A network of IPv6 addresses that nobody else has, as likely as 40 bits make it (RFC 4193).
pub(super) fn unique_local(random: [u8; 5]) -> Subnet {
    let [a, b, c, d, e] = random;
    let first = Ipv6Addr::from([0xfd, a, b, c, d, e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    Subnet::containing(first.into(), 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        let (address, prefix) = text.split_once('/').unwrap();
        Subnet::containing(address.parse().unwrap(), prefix.parse().unwrap())
    }

    #[test]
    fn the_first_free_network_collides_with_nothing() {
        let cases: [(&[&str], &str); 6] = [
            (&[], "10.90.0.0/16"),
            (&["10.90.7.0/24"], "10.91.0.0/16"),
            (&["fd00::/8", "192.168.1.0/24"], "10.90.0.0/16"),
            (&["10.0.0.0/8"], "172.31.0.0/16"),
            (&["10.0.0.0/8", "172.16.0.0/12"], "192.168.240.0/20"),
            (&["10.0.0.0/8", "172.16.0.0/12", "192.168.250.1/32"], "192.168.224.0/20"),
        ];
        for (taken, expected) in cases {
            let taken: Vec<Subnet> = taken.iter().map(|text| subnet(text)).collect();
            assert_eq!(free(&taken), Some(subnet(expected)), "{taken:?}");
        }
        assert_eq!(free(&[subnet("0.0.0.0/0")]), None);
    }

    #[test]
    fn addresses_are_counted_from_the_first() {
        let network = subnet("10.90.3.4/16");
        assert_eq!(network.to_string(), "10.90.0.0/16");
        assert_eq!(network.address(258).to_string(), "10.90.1.2");
        assert_eq!(network.offset(Ipv4Addr::new(10, 90, 1, 2)), 258);
        assert_eq!(network.offsets(), 2..65_535);
        assert_eq!(subnet("10.0.0.0/30").offsets(), 2..3);
        assert_eq!(unique_local([1, 2, 3, 4, 5]).address(2).to_string(), "fd01:203:405::2");
    }
}
