//! What a client may do and how long it may take: all of it from the caller, nothing from the environment.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::Secret;
use crate::mirrors::Mirror;

/// Is told the registry and the text of each `Warning` header that a registry sends.
pub type WarningSink = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// How a client behaves.
#[derive(Clone)]
pub struct ClientOptions {
    /// The `User-Agent` of every request.
    pub user_agent: String,
    /// How to speak to a registry, by its name as it stands in references (`127.0.0.1:5000`, `docker.io`).
    /// Those not listed: [`Security::Plain`] on loopback addresses, [`Security::Verified`] elsewhere.
    pub hosts: BTreeMap<String, Security>,
    /// Further trusted certificates, PEM bundles, beside those of the system.
    pub certificates: Vec<Vec<u8>>,
    /// What else holds for the TLS of single hosts, by `host[:port]` as it stands in references.
    pub tls: BTreeMap<String, HostTls>,
    /// What is asked before a registry, in this order, by the registry's name or the beginning of its repositories' names; `*.` at the
    /// beginning stands for any host below a domain.
    pub mirrors: BTreeMap<String, Vec<Mirror>>,
    /// What is asked in the place of a registry, by the same. What is pushed goes to the registry itself.
    pub moved: BTreeMap<String, String>,
    /// What nothing may be had from, nor sent to, by the same.
    pub blocked: BTreeSet<String>,
    /// Whether nobody is asked for anything: every request is [`Error::Offline`](crate::Error::Offline).
    pub offline: bool,
    /// The proxies to go through.
    pub proxies: Proxies,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// How long a server may send nothing, or next to nothing.
    pub read_timeout: Duration,
    /// How often a request that failed in passing is sent again. A download that gets on starts to count anew.
    pub retries: u32,
    /// How long to wait before the first retry; doubled for each further one. A server's `Retry-After` precedes.
    pub backoff: Duration,
    /// A server that asks for more patience than this is believed, and not waited for.
    pub retry_after_max: Duration,
    /// How many blobs are transferred at the same time; further ones wait. A blob that is fetched in ranges takes the place of several
    /// while no other wants it.
    pub transfers_max: usize,
    /// What a range has of a blob that is fetched in ranges: each blob that has at least [`RANGES_MIN`](crate::RANGES_MIN) of them. Ranges that have
    /// come before their turn are held in memory.
    pub range_size_bytes: u64,
    /// Where the warnings of registries go.
    pub warnings: Option<WarningSink>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            user_agent: concat!("rbuild/", env!("CARGO_PKG_VERSION")).to_owned(),
            hosts: BTreeMap::new(),
            certificates: Vec::new(),
            tls: BTreeMap::new(),
            mirrors: BTreeMap::new(),
            moved: BTreeMap::new(),
            blocked: BTreeSet::new(),
            offline: false,
            proxies: Proxies::default(),
            connect_timeout: Duration::from_secs(15),
            read_timeout: Duration::from_secs(60),
            retries: 5,
            backoff: Duration::from_millis(250),
            retry_after_max: Duration::from_secs(120),
            transfers_max: 6,
            range_size_bytes: 8 << 20,
            warnings: None,
        }
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("user_agent", &self.user_agent)
            .field("hosts", &self.hosts)
            .field("certificates", &self.certificates.len())
            .field("tls", &self.tls.keys())
            .field("mirrors", &self.mirrors)
            .field("moved", &self.moved)
            .field("blocked", &self.blocked)
            .field("offline", &self.offline)
            .field("proxies", &self.proxies)
            .field("connect_timeout", &self.connect_timeout)
            .field("read_timeout", &self.read_timeout)
            .field("retries", &self.retries)
            .field("backoff", &self.backoff)
            .field("retry_after_max", &self.retry_after_max)
            .field("transfers_max", &self.transfers_max)
            .field("range_size_bytes", &self.range_size_bytes)
            .finish_non_exhaustive()
    }
}

/// The TLS of one host.
#[derive(Debug, Clone, Default)]
pub struct HostTls {
    /// Authorities that are trusted for this host, PEM bundles, beside those trusted for all.
    pub authorities: Vec<Vec<u8>>,
    /// What proves to the host who asks: a key and its certificate, one PEM.
    pub identity: Option<Secret>,
}

/// How far a server has to prove who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Security {
    /// TLS, with a certificate that a trusted authority signed.
    Verified,
    /// TLS with any certificate or, where there is no TLS, plain HTTP. What Docker calls an insecure registry.
    Unverified,
    /// Plain HTTP.
    Plain,
}

/// The proxies to go through, in the form of the customary environment variables. Loopback addresses are never
/// reached through a proxy.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    /// For `http://` addresses. May hold a user and a password.
    pub http: Option<Secret>,
    /// For `https://` addresses. May hold a user and a password.
    pub https: Option<Secret>,
    /// Hosts, domains and networks that are reached directly, separated by commas; `*` is all.
    pub bypass: String,
}

const PROXY_BYPASS_ALWAYS: &str = "localhost,127.0.0.0/8,::1";

impl Proxies {
    /// All that is reached directly.
    pub(crate) fn bypass_with_loopback(&self) -> String {
        format!("{PROXY_BYPASS_ALWAYS},{}", self.bypass)
    }
}
