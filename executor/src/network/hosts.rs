//! The names that a container knows: `/etc/hosts` and `/etc/resolv.conf`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr};

/// What stands for the address of the machine itself.
const HOST_GATEWAY: &str = "host-gateway";
/// The names under which other engines' containers find the machine. A host entry of the user's own goes before.
const HOST_NAMES: [&str; 2] = ["host.docker.internal", "host.containers.internal"];
/// The largest `/etc/resolv.conf` that is taken over from the host.
const RESOLV_CONF_SIZE_BYTES_MAX: u64 = 64 * 1024;
/// The names of IPv6 networks and groups, as Docker has them.
const MULTICAST: &str =
    "fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";
/// The host's names.
const HOSTS: &str = "/etc/hosts";
/// The host's.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// What systemd-resolved itself asks, where the host's file names only its own address on the loopback interface.
const RESOLV_CONF_BEHIND_SYSTEMD: &str = "/run/systemd/resolve/resolv.conf";

/// How names are looked up, where that is not to be as on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dns {
    /// The name servers; the host's when there are none.
    pub servers: Vec<IpAddr>,
    /// The domains that names without a dot are tried in; the host's when there are none, none at all when that is `.`.
    pub search: Vec<String>,
    /// Options of the resolver; the host's when there are none.
    pub options: Vec<String>,
}

/// What `/etc/hosts` begins with.
pub(crate) enum HostsHead<'a> {
    /// BuildKit's lines for a step of this name.
    Step(&'a str),
    /// Docker's for a container of these names with these addresses.
    Container {
        /// The names, the longest first.
        names: &'a str,
        /// Its addresses on its networks.
        addresses: &'a [IpAddr],
    },
    /// The machine's own file.
    Machine,
}

impl HostsHead<'_> {
    fn text(&self) -> String {
        const LOOPBACK: &str = "::1\tlocalhost ip6-localhost ip6-loopback\n";
        match self {
            Self::Step(hostname) => format!("127.0.0.1\tlocalhost {hostname}\n{LOOPBACK}"),
            Self::Machine => read(HOSTS).unwrap_or_default(),
            Self::Container { names, addresses } => {
                // One without an address is found on the loopback interface.
                let local = if addresses.is_empty() { format!(" {names}") } else { String::new() };
                let own = addresses.iter().map(|address| hosts_line(*address, names));
                format!("127.0.0.1\tlocalhost{local}\n{LOOPBACK}{MULTICAST}{}", own.collect::<String>())
            }
        }
    }
}

/// The line of `/etc/hosts` for an address of a container's own.
pub fn hosts_line(address: IpAddr, names: &str) -> String {
    format!("{address}\t{names}\n")
}

/// The text of `/etc/hosts`: what it begins with, the extra `(host, address)` pairs in order, then the machine, whose
/// address is given for a container that has a network of its own; for others it is the loopback interface's.
pub(crate) fn hosts_file(
    head: &HostsHead<'_>,
    extra_hosts: &[(String, String)],
    machine: Option<IpAddr>,
) -> String {
    let mut text = head.text();
    let address = machine.unwrap_or(Ipv4Addr::LOCALHOST.into()).to_string();
    let extra =
        extra_hosts.iter().map(|(name, to)| (name.as_str(), if to == HOST_GATEWAY { &address } else { to }));
    let is_free = |name: &&str| extra_hosts.iter().all(|(extra, _)| extra != name);
    let names = HOST_NAMES.into_iter().filter(|name| machine.is_some() && is_free(name));
    for (name, address) in extra.chain(names.map(|name| (name, &address))) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{address}\t{name}");
    }
    text
}

/// How the host looks names up, as a container with a network of its own can do it too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolver {
    /// The text of the host's `/etc/resolv.conf`; `None` when it cannot be read.
    text: Option<String>,
    /// The same, without name servers on the loopback interface.
    outward: Option<String>,
}

impl Resolver {
    /// Reads the host's files. A container without name servers is the lesser evil when there are none.
    pub(crate) fn of_host() -> Self {
        Self::new(read(RESOLV_CONF), || read(RESOLV_CONF_BEHIND_SYSTEMD))
    }

    fn new(text: Option<String>, behind: impl FnOnce() -> Option<String>) -> Self {
        let all_loopback = |text: &String| {
            let servers: Vec<IpAddr> = name_servers(text).collect();
            !servers.is_empty() && servers.iter().all(|server| !is_reachable(*server))
        };
        let outward = if text.as_ref().is_some_and(all_loopback) {
            behind().or_else(|| text.clone())
        } else {
            text.clone()
        };
        Self { text, outward: outward.map(|text| without_loopback(&text)) }
    }

    /// The text of a container's `/etc/resolv.conf`. `own` says that it has a network of its own.
    pub(crate) fn file(&self, dns: &Dns, own: bool) -> Option<String> {
        let host = if own { &self.outward } else { &self.text };
        if *dns == Dns::default() {
            return host.clone();
        }
        let mut text = String::new();
        let mut put = |keyword: &str, values: Vec<String>| {
            for value in values {
                let _ = writeln!(text, "{keyword} {value}");
            }
        };
        let host = host.as_deref().unwrap_or_default();
        let of_host = |keyword: &str| lines(host, keyword).map(str::to_owned).collect::<Vec<_>>();
        let or = |given: Vec<String>, keyword| if given.is_empty() { of_host(keyword) } else { given };
        let joined = |words: &[String]| Vec::from_iter((!words.is_empty()).then(|| words.join(" ")));
        let servers = dns.servers.iter().map(ToString::to_string).collect();
        put("nameserver", or(servers, "nameserver"));
        if dns.search != ["."] {
            put("search", or(joined(&dns.search), "search"));
        }
        put("options", or(joined(&dns.options), "options"));
        Some(text)
    }
}

/// The name servers of the host.
#[derive(Debug, Clone)]
pub(super) struct NameServers {
    /// Those that it asks itself.
    pub(super) own: Vec<IpAddr>,
    /// Those of them that can be asked from elsewhere, or others in their place.
    pub(super) outward: Vec<IpAddr>,
}

impl NameServers {
    pub(super) fn of_host() -> Self {
        let Resolver { text, outward } = Resolver::of_host();
        let servers =
            |text: Option<String>| text.map(|text| name_servers(&text).collect()).unwrap_or_default();
        Self { own: servers(text), outward: servers(outward) }
    }

    /// Those to pass questions on to, where nobody in another namespace can ask any.
    pub(super) fn hidden(&self) -> &[IpAddr] {
        if self.outward.is_empty() { &self.own } else { &[] }
    }
}

/// The name servers that a text of `/etc/resolv.conf` names.
fn name_servers(text: &str) -> impl Iterator<Item = IpAddr> {
    lines(text, "nameserver").filter_map(|server| server.parse().ok())
}

/// The values of a keyword, line by line.
fn lines<'a>(text: &'a str, keyword: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| {
        let rest = line.trim_start().strip_prefix(keyword)?;
        rest.starts_with(char::is_whitespace).then_some(rest.trim())
    })
}

/// Not on the loopback interface. One with a zone (`fe80::1%eth0`) is no address to us, and means nothing in a container.
const fn is_reachable(server: IpAddr) -> bool {
    !server.is_loopback() && !server.is_unspecified()
}

fn without_loopback(text: &str) -> String {
    let keep = |line: &&str| {
        let mut servers = lines(line, "nameserver");
        servers.next().is_none_or(|server| server.parse().is_ok_and(is_reachable))
    };
    text.lines().filter(keep).map(|line| format!("{line}\n")).collect()
}

fn read(path: &str) -> Option<String> {
    let mut text = String::new();
    let file = File::open(path).ok()?;
    file.take(RESOLV_CONF_SIZE_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_hosts_follow_loopback_and_the_machine_follows_them() {
        let extra = [("db", "10.0.0.2"), ("host", "host-gateway"), ("host.docker.internal", "10.9.9.9")];
        let extra = extra.map(|(name, ip)| (name.to_owned(), ip.to_owned()));
        let loopback = "127.0.0.1\tlocalhost box\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.2\tdb\n";
        let without = format!("{loopback}127.0.0.1\thost\n10.9.9.9\thost.docker.internal\n");
        assert_eq!(hosts_file(&HostsHead::Step("box"), &extra, None), without);
        let own = "10.90.0.1\thost\n10.9.9.9\thost.docker.internal\n10.90.0.1\thost.containers.internal\n";
        let gateway = Ipv4Addr::new(10, 90, 0, 1).into();
        assert_eq!(hosts_file(&HostsHead::Step("box"), &extra, Some(gateway)), format!("{loopback}{own}"));
    }

    #[test]
    fn a_container_is_known_at_its_addresses() {
        let text = |addresses: &[IpAddr]| {
            hosts_file(&HostsHead::Container { names: "box.lan box", addresses }, &[], None)
        };
        assert!(text(&[]).starts_with("127.0.0.1\tlocalhost box.lan box\n::1\t"));
        let placed = text(&[Ipv4Addr::new(10, 0, 0, 7).into()]);
        assert!(placed.starts_with("127.0.0.1\tlocalhost\n::1\t"), "{placed}");
        assert!(placed.ends_with("ff02::2\tip6-allrouters\n10.0.0.7\tbox.lan box\n"), "{placed}");
    }

    #[test]
    fn name_servers_on_the_loopback_interface_are_left_out() {
        let behind = || Some("nameserver 10.0.0.9\nsearch b\n".to_owned());
        let cases = [
            ("nameserver 10.0.0.1\nsearch a\n", "nameserver 10.0.0.1\nsearch a\n"),
            ("nameserver 127.0.0.1\nnameserver 10.0.0.1\n", "nameserver 10.0.0.1\n"),
            ("# stub\nnameserver 127.0.0.53\noptions edns0\n", "nameserver 10.0.0.9\nsearch b\n"),
            ("nameserver ::1\n", "nameserver 10.0.0.9\nsearch b\n"),
            ("nameserver fd00::1\nnameserver fe80::1%eth0\n", "nameserver fd00::1\n"),
            ("search a\n", "search a\n"),
        ];
        for (host, expected) in cases {
            let resolver = Resolver::new(Some(host.to_owned()), behind);
            assert_eq!(resolver.file(&Dns::default(), true).unwrap(), expected, "{host}");
            assert_eq!(resolver.file(&Dns::default(), false).unwrap(), host);
        }
        let alone = Resolver::new(Some("nameserver 127.0.0.1\nsearch a\n".to_owned()), || None);
        assert_eq!(alone.file(&Dns::default(), true).unwrap(), "search a\n");
        assert_eq!(Resolver::new(None, || None).file(&Dns::default(), true), None);
    }

    #[test]
    fn what_is_asked_for_replaces_the_host_s_line_by_line() {
        let host = "nameserver 10.0.0.1\nsearch a b\noptions ndots:2\n".to_owned();
        let resolver = Resolver::new(Some(host), || None);
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let cases = [
            (
                Dns { servers: vec![Ipv4Addr::new(9, 9, 9, 9).into()], ..Dns::default() },
                "nameserver 9.9.9.9\nsearch a b\noptions ndots:2\n",
            ),
            (
                Dns { search: words(&["x", "y"]), ..Dns::default() },
                "nameserver 10.0.0.1\nsearch x y\noptions ndots:2\n",
            ),
            (
                Dns { search: words(&["."]), options: words(&["rotate", "edns0"]), ..Dns::default() },
                "nameserver 10.0.0.1\noptions rotate edns0\n",
            ),
        ];
        for (dns, expected) in cases {
            assert_eq!(resolver.file(&dns, true).unwrap(), expected);
        }
    }
}
