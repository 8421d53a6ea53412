//! What a container is: all that was settled when it was created, and the little that `update` may change later.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use rbuild_cache::Durability;
use rbuild_executor::cgroup::{DeviceRule, Limits};
use rbuild_executor::network::{MacAddress, PublishedPort};
use rbuild_executor::{Confinement, Device, TmpfsOptions, Trust, Ulimit};
use rbuild_image::ContainerConfig;
use serde::{Deserialize, Serialize};

use crate::ContainerError;

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
    /// Whether it was made for a client that takes part in its output.
    pub attended: bool,
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
    /// What else may be done with devices.
    pub device_rules: Vec<DeviceRule>,
    /// Whose processes it sees.
    pub pid: PidMode,
    /// Whether `/dev/shm`, message queues and the like are the host's.
    pub host_ipc: bool,
    /// Whether it sees control groups as the host does.
    pub host_cgroups: bool,
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
    /// What it calls other containers.
    pub links: Vec<ContainerLink>,
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
    /// What else is known of it. Nothing here reads that.
    pub annotations: BTreeMap<String, String>,
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    /// Where.
    pub target: String,
    /// What it is like.
    #[serde(flatten)]
    pub options: TmpfsOptions,
    /// Whether it cannot be written to.
    pub readonly: bool,
    /// Whether programs on it can be executed.
    pub exec: bool,
    /// Whether set-user-id bits have an effect on it.
    #[serde(default)]
    pub suid: bool,
    /// Whether device files on it can be opened.
    #[serde(default)]
    pub dev: bool,
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
    /// A namespace of its own on these networks, perhaps none at the moment. The way out is the first one's.
    Networks(Vec<Attachment>),
    /// That of another container, by id.
    Container(String),
}

impl NetworkMode {
    /// That of a container that asks for nothing.
    pub fn default_network() -> Self {
        Self::Networks(vec![Attachment::to(DEFAULT_NETWORK)])
    }

    /// The networks that it is on.
    pub fn attachments(&self) -> &[Attachment] {
        if let Self::Networks(attachments) = self { attachments } else { &[] }
    }

    /// Whether it is on the network of this name.
    pub fn is_on(&self, network: &str) -> bool {
        self.attachments().iter().any(|attachment| attachment.network == network)
    }

    /// The same with one more network, or in place of how it is on that one.
    ///
    /// # Errors
    /// When it can be on none. The words are Docker's.
    pub(crate) fn with(&self, attachment: Attachment) -> Result<Self, ContainerError> {
        let illegal = |message: &str| ContainerError::Illegal { message: message.to_owned() };
        match self {
            Self::Host | Self::Container(_) => Err(illegal(
                "container sharing network namespace with another container or host cannot be connected to any \
                 other network",
            )),
            Self::None => Err(illegal(
                "container cannot be connected to multiple networks with one of the networks in private (none) mode",
            )),
            Self::Networks(attachments) => {
                let mut attachments = attachments.clone();
                match attachments.iter_mut().find(|known| known.network == attachment.network) {
                    Some(known) => *known = attachment,
                    None => attachments.push(attachment),
                }
                Ok(Self::Networks(attachments))
            }
        }
    }

    /// The same without a network.
    ///
    /// # Errors
    /// When the container of this id is not on it. The words are Docker's.
    pub(crate) fn without(&self, network: &str, id: &str) -> Result<Self, ContainerError> {
        if !self.is_on(network) {
            let message = format!("container {id} is not connected to the network {network}");
            return Err(ContainerError::Illegal { message });
        }
        let others = self.attachments().iter().filter(|attachment| attachment.network != network);
        Ok(Self::Networks(others.cloned().collect()))
    }
}

/// How a container is on a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "AttachmentForm")]
pub struct Attachment {
    /// The network, by name.
    pub network: String,
    /// Names beside its own under which others find it there.
    pub aliases: Vec<String>,
    /// Its IPv4 address there; any that is free when not given.
    pub address: Option<Ipv4Addr>,
    /// Its hardware address there; any when not given.
    pub mac: Option<MacAddress>,
}

impl Attachment {
    /// To the network of this name, in no way of its own.
    pub fn to(network: &str) -> Self {
        Self { network: network.to_owned(), ..Self::default() }
    }
}

/// As it is in a row: older ones have the name alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum AttachmentForm {
    Name(String),
    Whole { network: String, aliases: Vec<String>, address: Option<Ipv4Addr>, mac: Option<MacAddress> },
}

impl From<AttachmentForm> for Attachment {
    fn from(form: AttachmentForm) -> Self {
        match form {
            AttachmentForm::Name(network) => Self::to(&network),
            AttachmentForm::Whole { network, aliases, address, mac } => {
                Self { network, aliases, address, mac }
            }
        }
    }
}

/// What a container calls another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerLink {
    /// The other, by id.
    pub id: String,
    /// The name.
    pub alias: String,
}

impl fmt::Display for NetworkMode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => formatter.write_str("host"),
            Self::None => formatter.write_str("none"),
            // As Docker has it, of the first.
            Self::Networks(attachments) => {
                let first = attachments.first().map_or(DEFAULT_NETWORK, |first| &first.network);
                formatter.write_str(first)
            }
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
    fn networks_are_joined_and_left_where_there_are_any() {
        let web = Attachment { aliases: vec!["www".to_owned()], ..Attachment::to("web") };
        let mode = NetworkMode::default_network().with(web.clone()).unwrap();
        assert!(mode.is_on("web") && mode.is_on("bridge"));
        assert_eq!(mode.with(Attachment::to("web")).unwrap().attachments()[1], Attachment::to("web"));
        assert_eq!(mode.without("bridge", "c").unwrap(), NetworkMode::Networks(vec![web]));
        assert!(mode.without("other", "c").is_err());
        for mode in [NetworkMode::Host, NetworkMode::None, NetworkMode::Container("c".to_owned())] {
            assert!(mode.with(Attachment::to("web")).is_err() && mode.without("web", "c").is_err());
        }
    }

    #[test]
    fn rows_of_older_programs_name_networks_only() {
        let mode: NetworkMode = serde_json::from_str(r#"{"networks":["bridge"]}"#).unwrap();
        assert_eq!(mode, NetworkMode::default_network());
        let json = serde_json::to_string(&mode).unwrap();
        assert_eq!(serde_json::from_str::<NetworkMode>(&json).unwrap(), mode);
    }

    #[test]
    fn rows_of_older_programs_know_less_of_tmpfs() {
        let row = r#"{"target":"/t","size_bytes":7,"readonly":true,"exec":false}"#;
        let tmpfs: Tmpfs = serde_json::from_str(row).unwrap();
        let options = TmpfsOptions { size_bytes: Some(7), ..TmpfsOptions::default() };
        assert_eq!(tmpfs, Tmpfs { target: "/t".to_owned(), options, readonly: true, ..Tmpfs::default() });
    }

    #[test]
    fn a_failure_is_tried_again_so_often() {
        let policy = RestartPolicy::OnFailure { max_retries: 2 };
        assert!(policy.restarts(1, 1) && policy.restarts(1, 2));
        assert!(!policy.restarts(1, 3) && !policy.restarts(0, 1));
        assert!(RestartPolicy::Always.restarts(0, 100) && !RestartPolicy::No.restarts(1, 1));
    }
}
