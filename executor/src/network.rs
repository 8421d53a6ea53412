//! The network of a container, and the names it knows.

use std::fmt::Write as _;
use std::os::fd::OwnedFd;

/// What stands for the address of the machine itself.
const HOST_GATEWAY: &str = "host-gateway";
/// The machine's address on its own network, which is what containers that have one see.
const HOST_ADDRESS: &str = "127.0.0.1";

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
}

/// The text of `/etc/hosts`: loopback under both families, then the extra `(host, address)` pairs in order.
pub(crate) fn hosts_file(hostname: &str, extra_hosts: &[(String, String)]) -> String {
    let mut text = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (host, address) in extra_hosts {
        let address = if address == HOST_GATEWAY { HOST_ADDRESS } else { address };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{address}\t{host}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_hosts_follow_loopback() {
        let extra =
            [("db", "10.0.0.2"), ("host", "host-gateway")].map(|(name, ip)| (name.to_owned(), ip.to_owned()));
        assert_eq!(
            hosts_file("box", &extra),
            "127.0.0.1\tlocalhost box\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.2\tdb\n127.0.0.1\thost\n"
        );
    }
}
