//! What the command line says of RUN steps: what they are given, what they may do, and what they are limited to.

use rbuild_executor::cgroup::CgroupSupport;
use rbuild_executor::{Confinement, Trust};
use rbuild_frontend::{Options, parse_size_bytes};
use rbuild_llb::{ExtraHost, Network, Ulimit};
use rbuild_solver::Entitlements;
use rbuild_solver::entitlements::Entitlement;
use rbuild_solver::local::{StepLimits, Volume};
use rbuild_solver::secrets::Secrets;

use super::ssh::Agents;
use super::{limits, secret, ssh, ulimit, volume};
use crate::app::{self, environment, environment_os};
use crate::args::{BuildArgs, BuildNetworkArg};
use crate::commands::trust;
use crate::report::{Failure, Kind};

/// What holds for all RUN steps of a build.
#[derive(Debug)]
pub(crate) struct Steps {
    pub(crate) secrets: Secrets,
    pub(crate) ssh: Agents,
    pub(crate) volumes: Vec<Volume>,
    pub(crate) entitlements: Entitlements,
    network: Network,
    extra_hosts: Vec<ExtraHost>,
    ulimits: Vec<Ulimit>,
    shm_size_bytes: Option<u64>,
    cgroup_parent: Option<String>,
    pub(crate) limits: StepLimits,
    pub(crate) confinement: Confinement,
    pub(crate) trust: Trust,
    /// What was asked for and is not done, a line each.
    pub(crate) warnings: String,
}

impl Steps {
    /// Reads the arguments.
    ///
    /// # Errors
    /// When one of them is malformed, or names what is not there.
    pub(crate) fn new(args: &BuildArgs) -> Result<Self, Failure> {
        let support = CgroupSupport::get();
        let (mut limits, mut warnings) = limits::read(&args.limits, support)?;
        match (&args.cgroup_parent, support.refusal()) {
            (Some(_), Some(refusal)) => {
                warnings += &format!("warning: `--cgroup-parent` is without effect: {refusal}\n");
            }
            (Some(_), None) => limits.optional = false,
            (None, _) => {}
        }
        Ok(Self {
            limits,
            warnings,
            confinement: confinement(&args.security_opts)?,
            trust: trust(&args.trust_ca)?,
            secrets: secret::secrets(&args.secrets, &environment_os)?,
            ssh: ssh::agents(&args.ssh, &environment)?,
            volumes: args.volumes.iter().map(|text| volume::parse(text)).collect::<Result<_, _>>()?,
            entitlements: entitlements(args)?,
            network: network(args.network),
            extra_hosts: args.add_hosts.iter().map(|host| extra_host(host)).collect::<Result<_, _>>()?,
            ulimits: args.ulimits.iter().map(|text| ulimit::parse(text)).collect::<Result<_, _>>()?,
            shm_size_bytes: args.shm_size.as_deref().map(shm_size_bytes).transpose()?.flatten(),
            cgroup_parent: args.cgroup_parent.clone(),
        })
    }

    /// Adds what the frontend is to know.
    pub(crate) fn tell(&self, options: Options) -> Options {
        Options {
            network: self.network,
            extra_hosts: self.extra_hosts.clone(),
            ulimits: self.ulimits.clone(),
            shm_size_bytes: self.shm_size_bytes,
            cgroup_parent: self.cgroup_parent.clone(),
            ..options
        }
    }

    /// Whether a step gets the machine's network where none of its own can be had.
    pub(crate) const fn may_use_host_network(&self) -> bool {
        self.entitlements.allows(Entitlement::NetworkHost)
    }
}

/// What `--security-opt` says, over what the config file says.
///
/// # Errors
/// When an option or its value is unknown, or a profile cannot be used.
pub(crate) fn confinement(options: &[String]) -> Result<Confinement, Failure> {
    let configured = app::config()?.security.options;
    let mut confinement = Confinement::default();
    for option in configured.iter().chain(options) {
        confinement
            .set(option, |path| std::fs::read_to_string(path))
            .map_err(|error| Failure::caused_by(Kind::Input, &error))?;
    }
    Ok(confinement)
}

/// What `--allow` gives. Asking for the host's network on the command line allows it.
fn entitlements(args: &BuildArgs) -> Result<Entitlements, Failure> {
    let mut entitlements = Entitlements::default();
    if args.network == BuildNetworkArg::Host {
        entitlements.allow(Entitlement::NetworkHost);
    }
    for name in &args.allow {
        let unknown = |()| {
            Failure::new(Kind::Input, format!("unknown entitlement `{name}`"))
                .hint("there are `network.host` and `security.insecure`")
        };
        entitlements.allow(name.parse().map_err(unknown)?);
    }
    Ok(entitlements)
}

const fn network(network: BuildNetworkArg) -> Network {
    match network {
        BuildNetworkArg::Default => Network::Default,
        BuildNetworkArg::Host => Network::Host,
        BuildNetworkArg::None => Network::None,
    }
}

/// `64m`, `1g`; nothing for zero, which is the default in Docker as well.
fn shm_size_bytes(text: &str) -> Result<Option<u64>, Failure> {
    let size_bytes = parse_size_bytes(text).ok_or_else(|| {
        Failure::new(Kind::Input, format!("invalid --shm-size `{text}` (expected 64m, 1g)"))
    })?;
    Ok((size_bytes > 0).then_some(size_bytes))
}

/// `HOST:IP` or `HOST=IP`; an address may stand in brackets, and be `host-gateway` for the machine itself.
pub(crate) fn extra_host(text: &str) -> Result<ExtraHost, Failure> {
    let malformed = || Failure::new(Kind::Input, format!("invalid --add-host `{text}` (expected HOST:IP)"));
    let (host, ip) = text.split_once(['=', ':']).ok_or_else(malformed)?;
    let ip = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    let is_address = ip == "host-gateway" || ip.parse::<std::net::IpAddr>().is_ok();
    if host.is_empty() || host.contains(char::is_whitespace) || !is_address {
        return Err(malformed());
    }
    Ok(ExtraHost { host: host.to_owned(), ip: ip.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_hosts_are_read() {
        let cases = [
            ("db:10.0.0.1", "db", "10.0.0.1"),
            ("v6=[::1]", "v6", "::1"),
            ("v6:[::1]", "v6", "::1"),
            ("v6:::1", "v6", "::1"),
            ("v6=::1", "v6", "::1"),
            ("host:host-gateway", "host", "host-gateway"),
        ];
        for (text, host, ip) in cases {
            assert_eq!(extra_host(text).unwrap(), ExtraHost { host: host.into(), ip: ip.into() });
        }
        for text in [
            "",
            "db",
            "db:",
            "db=",
            ":1.2.3.4",
            "db:nowhere",
            "[::1]",
            "db:[::1",
            "d b:1.2.3.4",
            "db:1.2.3.4:5",
        ] {
            assert!(extra_host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_of_shared_memory_are_read_as_docker_does() {
        let cases = [
            ("1", Some(1)),
            ("1.5g", Some(3 << 29)),
            ("2 m", Some(2 << 20)),
            ("1kb", Some(1024)),
            ("0", None),
        ];
        for (text, expected) in cases {
            assert_eq!(shm_size_bytes(text).unwrap(), expected, "{text}");
        }
        for text in ["", "-1", "abc", "1x"] {
            assert!(shm_size_bytes(text).is_err(), "{text}");
        }
    }
}
