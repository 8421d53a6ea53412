//! The network of a container, and the names it knows.

use std::fmt::Write as _;
use std::os::fd::OwnedFd;

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
        let extra = [("db".to_owned(), "10.0.0.2".to_owned())];
        assert_eq!(
            hosts_file("box", &extra),
            "127.0.0.1\tlocalhost box\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.2\tdb\n"
        );
    }
}
