//! What a container is: all that was settled when it was created, and the little that `update` may change later.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use rbuild_cache::Durability;
use rbuild_executor::cgroup::Limits;
use rbuild_executor::network::PublishedPort;
use rbuild_executor::{Confinement, Device, Trust, Ulimit};
use rbuild_image::ContainerConfig;
use serde::{Deserialize, Serialize};

/// The name of the network of whoever asks for none, as Docker has it.
pub const DEFAULT_NETWORK: &str = "bridge";
/// How long `stop` waits before it kills, in seconds, as Docker does.
pub(crate) const STOP_TIMEOUT_SECONDS_DEFAULT: u32 = 10;

/// What a container is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// The image as it was named.
    pub image: String,
    /// The image's id.
    pub image_id: String,
    /// The image's config under what the command line said: what runs, as whom, where, with which environment.
    pub config: ContainerConfig,
    /// The host name; the container's short id when empty.
    pub hostname: String,
    /// Whether the process has a terminal.
    pub tty: bool,
    /// Whether the process has an input that can be written to.
    pub open_stdin: bool,
    /// Whether that input ends with the first client that was attached to it.
    pub stdin_once: bool,
    /// Whether the container goes when its process ends.
    pub auto_remove: bool,
    /// Whether a small init is PID 1.
    pub init: bool,
    /// Whether the root cannot be written to.
    pub readonly_root: bool,
    /// Whether the process may do all that rbuild itself may.
    pub privileged: bool,
    /// What else holds it.
    pub confinement: Confinement,
    /// Further groups of the process, by name or number.
    pub groups: Vec<String>,
    /// How gladly the kernel kills it when memory is short: -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// The domain of its host name.
    pub domainname: String,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// Whose processes it sees.
    pub pid: PidMode,
    /// Whether `/dev/shm`, message queues and the like are the host's.
    pub host_ipc: bool,
    /// Whether its names are the host's.
    pub host_uts: bool,
    /// Kernel parameters, by path below `/proc/sys`.
    pub sysctls: Vec<(String, String)>,
    /// The control group that its own is in.
    pub cgroup_parent: Option<String>,
    /// Capabilities beyond Docker's, by name.
    pub cap_add: Vec<String>,
    /// Capabilities fewer than Docker's, by name.
    pub cap_drop: Vec<String>,
    /// File systems in memory.
    pub tmpfs: Vec<Tmpfs>,
    /// Directories of the host.
    pub binds: Vec<Bind>,
    /// Volumes.
    pub volumes: Vec<VolumeMount>,
    /// What it sees of networks.
    pub network: NetworkMode,
    /// Lines of `/etc/hosts`: host name and address.
    pub extra_hosts: Vec<(String, String)>,
    /// Names beside its own under which others on its networks find it.
    pub aliases: Vec<String>,
    /// Ports of the host that lead to its own.
    pub ports: Vec<PublishedPort>,
    /// Name servers in place of the host's.
    pub dns: Vec<IpAddr>,
    /// Domains for names without a dot, in place of the host's.
    pub dns_search: Vec<String>,
    /// Options of the resolver, in place of the host's.
    pub dns_options: Vec<String>,
    /// Whose certificates it trusts beside those that its image does.
    pub trust: Trust,
    /// What its processes may use together.
    pub limits: Limits,
    /// What each of its processes may use.
    pub ulimits: Vec<Ulimit>,
    /// The size of `/dev/shm`; Docker's when not given.
    pub shm_size_bytes: Option<u64>,
    /// What happens when its process ends.
    pub restart: RestartPolicy,
    /// How long `stop` waits before it kills, in seconds; negative is for ever.
    pub stop_timeout: Option<i64>,
    /// How its output is kept.
    pub log: LogOptions,
}

impl ContainerSpec {
    /// Whether its files are to survive the machine.
    pub(crate) const fn durability(&self) -> Durability {
        if self.auto_remove { Durability::Volatile } else { Durability::Synced }
    }

    /// The command line: entrypoint, then command.
    pub fn args(&self) -> Vec<String> {
        let entrypoint = self.config.entrypoint.iter().flatten();
        entrypoint.chain(self.config.cmd.iter().flatten()).cloned().collect()
    }
}

/// An empty file system in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    /// Where.
    pub target: String,
    /// The most it may hold.
    pub size_bytes: Option<u64>,
    /// Whether it cannot be written to.
    pub readonly: bool,
    /// Whether programs on it can be executed.
    pub exec: bool,
}

/// A directory or file of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// On the host, absolute.
    pub source: String,
    /// Where.
    pub target: String,
    /// Whether it cannot be written to.
    pub readonly: bool,
}

/// A volume that a container sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMount {
    /// The volume.
    pub name: String,
    /// Where.
    pub target: String,
    /// Whether it cannot be written to.
    pub readonly: bool,
    /// Whether it is left empty, whatever the image has there.
    pub no_copy: bool,
    /// Whether nobody has named it.
    pub anonymous: bool,
}

/// What a container sees of networks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// The host's.
    #[default]
    Host,
    /// Only loopback.
    None,
    /// A namespace of its own on these networks, by name. The way out is the first one's.
    Networks(Vec<String>),
    /// That of another container, by id.
    Container(String),
}

impl NetworkMode {
    /// That of a container that asks for nothing.
    pub fn default_network() -> Self {
        Self::Networks(vec![DEFAULT_NETWORK.to_owned()])
    }

    /// The networks that it is on, by name.
    pub fn networks(&self) -> &[String] {
        if let Self::Networks(names) = self { names } else { &[] }
    }
}

impl fmt::Display for NetworkMode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => formatter.write_str("host"),
            Self::None => formatter.write_str("none"),
            Self::Networks(names) => formatter.write_str(&names.join(",")),
            Self::Container(id) => write!(formatter, "container:{id}"),
        }
    }
}

/// Whose processes a container sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PidMode {
    /// Its own.
    #[default]
    Own,
    /// All of the host.
    Host,
    /// Those of another container, by id.
    Container(String),
}

impl fmt::Display for PidMode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => Ok(()),
            Self::Host => formatter.write_str("host"),
            Self::Container(id) => write!(formatter, "container:{id}"),
        }
    }
}

/// What happens when the process of a container ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartPolicy {
    /// Nothing.
    #[default]
    No,
    /// It is started again when it failed, at most so often.
    OnFailure {
        /// How often; zero is for ever.
        max_retries: u32,
    },
    /// It is started again, unless a person stopped it.
    Always,
    /// The same: without a daemon there is no later start of everything in which the two would differ.
    UnlessStopped,
}

impl RestartPolicy {
    /// Whether a process that ended with `code` is started for the `restarts`-th time.
    pub const fn restarts(self, code: i32, restarts: u32) -> bool {
        match self {
            Self::No => false,
            Self::OnFailure { max_retries } => code != 0 && (max_retries == 0 || restarts <= max_retries),
            Self::Always | Self::UnlessStopped => true,
        }
    }

    /// Its name, without a number.
    pub const fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::OnFailure { .. } => "on-failure",
            Self::Always => "always",
            Self::UnlessStopped => "unless-stopped",
        }
    }
}

impl FromStr for RestartPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None => match text {
                "no" | "" => Ok(Self::No),
                "on-failure" => Ok(Self::OnFailure { max_retries: 0 }),
                "always" => Ok(Self::Always),
                "unless-stopped" => Ok(Self::UnlessStopped),
                _ => Err(format!("unknown restart policy `{text}`")),
            },
            Some(("on-failure", count)) => count
                .parse()
                .map(|max_retries| Self::OnFailure { max_retries })
                .map_err(|_| "maximum retry count must be an integer".to_owned()),
            Some(_) => Err(format!("invalid restart policy `{text}`: only `on-failure` takes a count")),
        }
    }
}

/// How the output of a container is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogOptions {
    /// Whether it is kept at all.
    pub discard: bool,
    /// The size at which a new file is begun; none when not given.
    pub max_size_bytes: Option<u64>,
    /// How many files are kept, the current one included; 1 when not given.
    pub max_files: Option<u32>,
}

/// Changes limits; those that `change` does not give stay.
pub(crate) fn overlay(limits: &mut Limits, change: &Limits) {
    fn set<T: Clone>(limit: &mut Option<T>, change: &Option<T>) {
        if change.is_some() {
            limit.clone_from(change);
        }
    }
    set(&mut limits.memory_bytes, &change.memory_bytes);
    set(&mut limits.memory_reservation_bytes, &change.memory_reservation_bytes);
    set(&mut limits.memory_swap, &change.memory_swap);
    set(&mut limits.cpu_quota, &change.cpu_quota);
    set(&mut limits.cpu_shares, &change.cpu_shares);
    set(&mut limits.cpuset_cpus, &change.cpuset_cpus);
    set(&mut limits.cpuset_mems, &change.cpuset_mems);
    set(&mut limits.pids, &change.pids);
    set(&mut limits.io_weight, &change.io_weight);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_policies_are_read_and_kept() {
        let cases = [
            ("no", RestartPolicy::No),
            ("on-failure", RestartPolicy::OnFailure { max_retries: 0 }),
            ("on-failure:3", RestartPolicy::OnFailure { max_retries: 3 }),
            ("always", RestartPolicy::Always),
            ("unless-stopped", RestartPolicy::UnlessStopped),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse(), Ok(expected));
        }
        for text in ["sometimes", "always:3", "on-failure:x", "on-failure:-1"] {
            assert!(text.parse::<RestartPolicy>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_failure_is_tried_again_so_often() {
        let policy = RestartPolicy::OnFailure { max_retries: 2 };
        assert!(policy.restarts(1, 1) && policy.restarts(1, 2));
        assert!(!policy.restarts(1, 3) && !policy.restarts(0, 1));
        assert!(RestartPolicy::Always.restarts(0, 100) && !RestartPolicy::No.restarts(1, 1));
    }
}
