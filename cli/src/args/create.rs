//! What a new container is, as it is typed.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use super::PullArg;

/// What a new container is.
#[derive(Debug, Args)]
pub(crate) struct CreateOptions {
    /// Removes the container when it stops.
    #[arg(long)]
    pub(crate) rm: bool,
    /// Keeps standard input open.
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Gives the container a terminal.
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// A name for the container.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Sets an environment variable; without a value it is taken from the environment (repeatable).
    #[arg(short, long = "env", value_name = "NAME[=VALUE]", allow_hyphen_values = true)]
    pub(crate) env: Vec<String>,
    /// Sets environment variables from the lines of a file (repeatable).
    #[arg(long = "env-file", value_name = "FILE")]
    pub(crate) env_files: Vec<PathBuf>,
    /// The directory to start in.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// The user to run as.
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Replaces the image's entrypoint.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) entrypoint: Option<String>,
    /// The container's host name [default: its short id].
    #[arg(short = 'h', long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// The domain of its host name.
    #[arg(long, value_name = "NAME")]
    pub(crate) domainname: Option<String>,
    /// `none`, `host`, `container:CONTAINER`, or a network, `name=NETWORK[,alias=NAME,ip=IP,mac-address=MAC]` [default: bridge]
    /// (repeatable for networks).
    #[arg(long = "network", visible_alias = "net", value_name = "NETWORK")]
    pub(crate) networks: Vec<String>,
    /// A further name on its first network (repeatable).
    #[arg(long = "network-alias", visible_alias = "net-alias", value_name = "NAME")]
    pub(crate) network_aliases: Vec<String>,
    /// Its address on its first network, which somebody has made.
    #[arg(long, value_name = "IP")]
    pub(crate) ip: Option<Ipv4Addr>,
    /// The hardware address of its first interface: `02:42:ac:11:00:02`.
    #[arg(long, value_name = "MAC")]
    pub(crate) mac_address: Option<String>,
    /// Lets it find another container under a name of its own (repeatable).
    #[arg(long = "link", value_name = "CONTAINER[:ALIAS]")]
    pub(crate) links: Vec<String>,
    /// Lets a port of this machine lead to one of the container; both may be ranges (repeatable).
    #[arg(short, long, value_name = "[[IP:]HOST:]CONTAINER[/udp]")]
    pub(crate) publish: Vec<String>,
    /// The same for all ports that it exposes, from free ones.
    #[arg(short = 'P', long)]
    pub(crate) publish_all: bool,
    /// Adds a port to those that it exposes (repeatable).
    #[arg(long, value_name = "PORT[/udp]")]
    pub(crate) expose: Vec<String>,
    /// Adds a line to /etc/hosts; `host-gateway` is this machine (repeatable).
    #[arg(long = "add-host", value_name = "HOST:IP")]
    pub(crate) add_hosts: Vec<String>,
    /// A name server in place of the host's (repeatable).
    #[arg(long = "dns", value_name = "IP")]
    pub(crate) dns: Vec<IpAddr>,
    /// A domain for names without a dot, in place of the host's (repeatable).
    #[arg(long = "dns-search", value_name = "DOMAIN")]
    pub(crate) dns_search: Vec<String>,
    /// An option of the resolver (repeatable).
    #[arg(long = "dns-option", visible_alias = "dns-opt", value_name = "OPTION")]
    pub(crate) dns_options: Vec<String>,
    /// Lets the container trust the authorities of a PEM file as well (repeatable).
    #[arg(long = "trust-ca", value_name = "FILE")]
    pub(crate) trust_ca: Vec<PathBuf>,
    /// Shows a path of this machine, or a volume, to the container (repeatable).
    #[arg(short, long = "volume", value_name = "[HOST|NAME:]CONTAINER[:ro]")]
    pub(crate) volumes: Vec<String>,
    /// The same, word by word: `type=volume|bind|tmpfs,source=NAME|PATH,target=PATH[,readonly]` (repeatable).
    #[arg(long = "mount", value_name = "SPEC")]
    pub(crate) mounts: Vec<String>,
    /// Shows it what another container has mounted (repeatable).
    #[arg(long = "volumes-from", value_name = "CONTAINER[:ro]")]
    pub(crate) volumes_from: Vec<String>,
    /// Mounts a file system in memory: `PATH[:size=64m,mode=1777,uid=5,gid=6,nr_inodes=50,ro,exec,suid,dev]` (repeatable).
    #[arg(long = "tmpfs", value_name = "SPEC")]
    pub(crate) tmpfs: Vec<String>,
    /// Makes the root file system read-only.
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Runs a small init as PID 1, which passes on signals and reaps processes.
    #[arg(long)]
    pub(crate) init: bool,
    /// What happens when the process ends: `no`, `on-failure[:N]`, `always` or `unless-stopped`.
    #[arg(long, value_name = "POLICY", default_value = "no")]
    pub(crate) restart: String,
    /// Gives the container a capability (repeatable).
    #[arg(long = "cap-add", value_name = "CAPABILITY")]
    pub(crate) cap_add: Vec<String>,
    /// Takes a capability from the container (repeatable).
    #[arg(long = "cap-drop", value_name = "CAPABILITY")]
    pub(crate) cap_drop: Vec<String>,
    /// Lets the container do all that rbuild itself may do, with all devices of this machine.
    #[arg(long)]
    pub(crate) privileged: bool,
    /// `seccomp=FILE|unconfined`, `no-new-privileges`, `apparmor=PROFILE`, `systempaths=unconfined`, `label=disable` (repeatable).
    #[arg(long = "security-opt", value_name = "OPTION")]
    pub(crate) security_opts: Vec<String>,
    /// A further group of the process (repeatable).
    #[arg(long = "group-add", value_name = "GROUP")]
    pub(crate) groups: Vec<String>,
    /// A device of this machine, or all of a directory (repeatable).
    #[arg(long = "device", value_name = "HOST[:CONTAINER][:rwm]")]
    pub(crate) devices: Vec<String>,
    /// Lets it do something with devices, those that it makes itself too: `c 10:200 rwm` (repeatable).
    #[arg(long = "device-cgroup-rule", value_name = "RULE")]
    pub(crate) device_rules: Vec<String>,
    /// Whose processes it sees: `host` or `container:CONTAINER` [default: its own].
    #[arg(long, value_name = "MODE")]
    pub(crate) pid: Option<String>,
    /// Whose /dev/shm and message queues it has: `host` or `private` [default: private].
    #[arg(long, value_name = "MODE")]
    pub(crate) ipc: Option<String>,
    /// Whose names it has: `host` [default: its own].
    #[arg(long, value_name = "MODE")]
    pub(crate) uts: Option<String>,
    /// Whose users it has: `host`, which is what it has in any case.
    #[arg(long, value_name = "MODE")]
    pub(crate) userns: Option<String>,
    /// Whose control groups it sees: `host` or `private` [default: private].
    #[arg(long, value_name = "MODE")]
    pub(crate) cgroupns: Option<String>,
    /// Sets a kernel parameter of its namespaces (repeatable).
    #[arg(long = "sysctl", value_name = "NAME=VALUE")]
    pub(crate) sysctls: Vec<String>,
    /// How gladly the kernel kills it when memory is short: -1000 to 1000.
    #[arg(long, value_name = "SCORE", allow_hyphen_values = true)]
    pub(crate) oom_score_adj: Option<i32>,
    /// The control group that its own is made in.
    #[arg(long, value_name = "GROUP")]
    pub(crate) cgroup_parent: Option<String>,
    #[command(flatten)]
    pub(crate) resources: ResourceArgs,
    #[command(flatten)]
    pub(crate) rates: RateArgs,
    /// Limits a resource of each process; -1 is unlimited (repeatable).
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]")]
    pub(crate) ulimits: Vec<String>,
    /// The size of /dev/shm [default: 64m].
    #[arg(long, value_name = "SIZE")]
    pub(crate) shm_size: Option<String>,
    /// Adds a label (repeatable).
    #[arg(short, long = "label", value_name = "NAME=VALUE", allow_hyphen_values = true)]
    pub(crate) labels: Vec<String>,
    /// Adds labels from the lines of a file (repeatable).
    #[arg(long = "label-file", value_name = "FILE")]
    pub(crate) label_files: Vec<PathBuf>,
    /// Says something else of it, which `inspect` shows (repeatable).
    #[arg(long = "annotation", value_name = "NAME=VALUE")]
    pub(crate) annotations: Vec<String>,
    /// The signal that `stop` sends [default: the image's, or SIGTERM].
    #[arg(long, value_name = "SIGNAL")]
    pub(crate) stop_signal: Option<String>,
    /// How long `stop` waits before it kills, in seconds [default: 10].
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    pub(crate) stop_timeout: Option<i64>,
    /// A command that tells whether the container is well.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) health_cmd: Option<String>,
    /// The time between two health checks: `30s`.
    #[arg(long, value_name = "DURATION")]
    pub(crate) health_interval: Option<String>,
    /// How long one health check may take.
    #[arg(long, value_name = "DURATION")]
    pub(crate) health_timeout: Option<String>,
    /// How many health checks have to fail in a row.
    #[arg(long, value_name = "N")]
    pub(crate) health_retries: Option<i64>,
    /// How long failures do not count after the start.
    #[arg(long, value_name = "DURATION")]
    pub(crate) health_start_period: Option<String>,
    /// The time between two health checks during the start.
    #[arg(long, value_name = "DURATION")]
    pub(crate) health_start_interval: Option<String>,
    /// Runs no health check, whatever the image says.
    #[arg(long)]
    pub(crate) no_healthcheck: bool,
    /// How output is kept: `json-file` or `none`.
    #[arg(long, value_name = "DRIVER", default_value = "json-file")]
    pub(crate) log_driver: String,
    /// `max-size=10m`, `max-file=3` (repeatable).
    #[arg(long = "log-opt", value_name = "NAME=VALUE")]
    pub(crate) log_opts: Vec<String>,
    /// When to ask a registry for the image.
    #[arg(long, value_enum, default_value_t = PullArg::Missing)]
    pub(crate) pull: PullArg,
    /// For which platform the image is to be [default: this machine's].
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
    /// Says nothing of a pull. Nothing is ever said here.
    #[arg(short, long)]
    _quiet: bool,
    /// Signatures are not looked at here.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    _disable_content_trust: Option<bool>,
    /// Prints help.
    #[arg(id = "help", long, action = clap::ArgAction::Help)]
    _help: Option<bool>,
    #[command(flatten)]
    pub(crate) unsupported: Unsupported,
    /// Writes the container's id to a file, which must not exist.
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<PathBuf>,
    /// The image, the command and its arguments: all that follows the image is the command's, whatever it looks like.
    #[arg(required = true, trailing_var_arg = true, value_names = ["IMAGE", "COMMAND"], num_args = 1..)]
    image_and_command: Vec<String>,
}

impl CreateOptions {
    /// The image.
    pub(crate) fn image(&self) -> &str {
        self.image_and_command.first().map_or("", String::as_str)
    }

    /// Whether ports are published.
    pub(crate) fn publishes(&self) -> bool {
        self.publish_all || !self.publish.is_empty()
    }

    /// The command and its arguments; empty for the image's own.
    pub(crate) fn command(&self) -> &[String] {
        self.image_and_command.get(1..).unwrap_or_default()
    }
}

/// What the processes of a container may use together.
#[derive(Debug, Args)]
pub(crate) struct ResourceArgs {
    /// The most memory: `512m`.
    #[arg(short, long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// What is above this is taken back first when the machine is short of memory.
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory_reservation: Option<String>,
    /// Memory and swap together; -1 is as much swap as there is.
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,
    /// The most processor time in a period, in microseconds.
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<i64>,
    /// That period, in microseconds [default: 100000].
    #[arg(long, value_name = "MICROSECONDS")]
    pub(crate) cpu_period: Option<u64>,
    /// The weight when disks are busy: 10 to 1000.
    #[arg(long, value_name = "WEIGHT")]
    pub(crate) blkio_weight: Option<u16>,
    /// The most processor time, in processors: `1.5`.
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub(crate) cpus: Option<String>,
    /// The weight when processors are short [default: 1024].
    #[arg(short, long, value_name = "SHARES")]
    pub(crate) cpu_shares: Option<u64>,
    /// On which processors: `0-3,7`.
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,
    /// In which memory nodes: `0,1`.
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_mems: Option<String>,
    /// The most processes; -1 is unlimited.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(crate) pids_limit: Option<i64>,
}

/// How fast the processes of a container may read and write, disk by disk.
#[derive(Debug, Args)]
pub(crate) struct RateArgs {
    /// The most bytes read from a device in a second (repeatable).
    #[arg(long = "device-read-bps", value_name = "DEVICE:SIZE")]
    pub(crate) read_bytes: Vec<String>,
    /// The most bytes written to a device in a second (repeatable).
    #[arg(long = "device-write-bps", value_name = "DEVICE:SIZE")]
    pub(crate) write_bytes: Vec<String>,
    /// The most operations that read from a device in a second (repeatable).
    #[arg(long = "device-read-iops", value_name = "DEVICE:N")]
    pub(crate) read_operations: Vec<String>,
    /// The most operations that write to a device in a second (repeatable).
    #[arg(long = "device-write-iops", value_name = "DEVICE:N")]
    pub(crate) write_operations: Vec<String>,
}

/// The first flag of Docker's that asks for what is not there.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Unsupported(pub(crate) Option<&'static str>);

const UNSUPPORTED: [&str; 13] = [
    "blkio-weight-device",
    "cpu-rt-period",
    "cpu-rt-runtime",
    "gpus",
    "ip6",
    "kernel-memory",
    "link-local-ip",
    "memory-swappiness",
    "oom-kill-disable",
    "runtime",
    "storage-opt",
    "use-api-socket",
    "volume-driver",
];

impl Args for Unsupported {
    fn augment_args(command: Command) -> Command {
        let hidden = |name: &'static str| Arg::new(name).long(name).hide(true).num_args(0..=1);
        UNSUPPORTED.iter().fold(command, |command, name| command.arg(hidden(name)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Unsupported {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let is_given = |name: &&&str| matches.value_source(name) == Some(ValueSource::CommandLine);
        Ok(Self(UNSUPPORTED.iter().find(is_given).copied()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
