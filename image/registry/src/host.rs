//! Where a registry is: from its name in references to an address.

use std::net::IpAddr;

use reqwest::Url;

use crate::options::Security;
use crate::{ClientOptions, Error, Result};

/// The name that Docker Hub has in references, and the host that serves it.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// The host that serves the registry of this name.
pub(crate) fn host_of(registry: &str) -> &str {
    if registry == DOCKER_HUB.0 { DOCKER_HUB.1 } else { registry }
}

/// How to speak to a registry. One whose TLS is known speaks it, loopback or not.
pub(crate) fn security_of(options: &ClientOptions, registry: &str) -> Security {
    let is_plain = || is_loopback(registry) && !options.tls.contains_key(registry);
    let otherwise = || if is_plain() { Security::Plain } else { Security::Verified };
    options.hosts.get(registry).copied().unwrap_or_else(otherwise)
}

/// How to speak to whoever serves this address: a registry, or where it redirects to.
pub(crate) fn security_of_url(options: &ClientOptions, url: &Url) -> Security {
    if url.scheme() == "http" {
        return Security::Plain;
    }
    match options.hosts.get(&authority_of(url)) {
        Some(Security::Unverified) => Security::Unverified,
        _ => Security::Verified,
    }
}

/// The `host[:port]` of an address, as it stands in references.
pub(crate) fn authority_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The address that all of a registry's addresses start with.
pub(crate) fn base_url(scheme: &str, registry: &str) -> Result<Url> {
    let text = format!("{scheme}://{}/v2/", host_of(registry));
    text.parse().map_err(|_| Error::Url { url: text })
}

/// Whether a `host[:port]` is this machine.
fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => authority.split_once(':').map_or(authority, |(host, _)| host),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether an address is of the link alone, where machines of clouds are told their secrets. No server may lead there.
pub(crate) fn is_link_local(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host.parse().is_ok_and(|address| match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => {
            address.is_unicast_link_local()
                || address.to_ipv4_mapped().is_some_and(|address| address.is_link_local())
        }
    })
}

/// Whether two addresses have the same scheme, host and port, and so may see the same secrets.
pub(crate) fn same_origin(left: &Url, right: &Url) -> bool {
    left.scheme() == right.scheme()
        && left.host_str() == right.host_str()
        && left.port_or_known_default() == right.port_or_known_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HostTls;

    #[test]
    fn loopback_is_plain_unless_told_otherwise() {
        let mut options = ClientOptions::default();
        options.hosts.insert("127.0.0.1:5443".into(), Security::Unverified);
        options.tls.insert("127.0.0.1:5444".into(), HostTls::default());
        let cases = [
            ("127.0.0.1:5444", Security::Verified),
            ("127.0.0.1:5000", Security::Plain),
            ("127.8.9.1", Security::Plain),
            ("[::1]:5000", Security::Plain),
            ("localhost:1", Security::Plain),
            ("127.0.0.1:5443", Security::Unverified),
            ("10.0.0.1:5000", Security::Verified),
            ("localhost.example.com", Security::Verified),
            ("docker.io", Security::Verified),
        ];
        for (registry, expected) in cases {
            assert_eq!(security_of(&options, registry), expected, "{registry}");
        }
    }

    #[test]
    fn addresses_of_the_link_are_told() {
        for url in ["http://169.254.169.254/x", "http://[fe80::1]/", "http://[::ffff:169.254.169.254]/"] {
            assert!(is_link_local(&url.parse().unwrap()), "{url}");
        }
        for url in ["http://169.253.0.1/", "http://host/", "http://[2001:db8::1]/"] {
            assert!(!is_link_local(&url.parse().unwrap()), "{url}");
        }
    }

    #[test]
    fn docker_hub_is_served_elsewhere() {
        assert_eq!(base_url("https", "docker.io").unwrap().as_str(), "https://registry-1.docker.io/v2/");
        assert_eq!(base_url("http", "[::1]:5000").unwrap().as_str(), "http://[::1]:5000/v2/");
    }

    #[test]
    fn origins_differ_by_scheme_host_and_port() {
        let same = |left: &str, right: &str| same_origin(&left.parse().unwrap(), &right.parse().unwrap());
        assert!(same("https://a/x", "https://a:443/y"));
        for other in ["http://a/x", "https://b/x", "https://a:444/x"] {
            assert!(!same("https://a/x", other), "{other}");
        }
    }
}
