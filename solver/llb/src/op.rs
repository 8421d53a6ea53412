//! The operations, and all of an exec but its mounts.

use serde::{Deserialize, Serialize};

use crate::{FileOp, InputIndex, Mount, OutputIndex, SourceOp};

/// What a vertex does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "most ops are execs, and there is one for each step")]
pub enum Op {
    /// Brings files into the build: an image, the context, a repository, a URL.
    Source(SourceOp),
    /// Runs a process in a container and commits what it changed.
    Exec(ExecOp),
    /// Copies, makes and removes files, without a process.
    File(FileOp),
    /// Lays trees over one another.
    Merge(MergeOp),
    /// Takes what one tree has over another.
    Diff(DiffOp),
}

impl Op {
    /// The input on top of whose layers an output lies; `None` where it lies on nothing.
    pub fn base(&self, output: OutputIndex) -> Option<InputIndex> {
        match self {
            Self::Exec(exec) => exec.mounts.iter().find(|mount| mount.output == Some(output))?.input,
            Self::File(file) => file.base(output),
            Self::Merge(merge) => merge.inputs.first().copied().flatten(),
            Self::Source(_) | Self::Diff(_) => None,
        }
    }
}

/// Runs a process in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecOp {
    /// What to run.
    pub process: Process,
    /// The file systems it sees. Exactly one is at `/`: the root.
    pub mounts: Vec<Mount>,
    /// What network it sees.
    pub network: Network,
    /// What it may do.
    pub security: Security,
    /// Secrets that it gets as environment variables. The names are part of the key, the values never.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secret_env: Vec<SecretEnv>,
    /// CDI devices, by name; `true` for those without which the step must fail.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<(String, bool)>,
}

/// A command and what surrounds it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The command line. Never empty.
    pub args: Vec<String>,
    /// `NAME=value`, in order.
    pub env: Vec<String>,
    /// The directory it starts in, absolute; made when missing.
    pub cwd: String,
    /// `user[:group]` as written, looked up in the root's `/etc/passwd`; empty for root.
    pub user: String,
    /// The host name it sees.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// Proxy variables: given to the process, no part of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxyEnv>,
    /// Lines for `/etc/hosts`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_hosts: Vec<ExtraHost>,
    /// Resource limits of the process.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<Ulimit>,
    /// The parent of the step's control group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_parent: Option<String>,
    /// Exit codes that are a success; empty means only 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub valid_exit_codes: Vec<i32>,
    /// Remove the stubs of mount points together with parents that were made for them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub remove_mount_stubs_recursive: bool,
}

/// The proxy variables of the build. Each is exported in upper and lower case when it is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProxyEnv {
    /// `HTTP_PROXY`.
    pub http: String,
    /// `HTTPS_PROXY`.
    pub https: String,
    /// `FTP_PROXY`.
    pub ftp: String,
    /// `NO_PROXY`.
    pub no: String,
    /// `ALL_PROXY`.
    pub all: String,
}

/// A line of `/etc/hosts`. Of the two only the name is in the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraHost {
    /// The name.
    pub host: String,
    /// The address, or `host-gateway`.
    pub ip: String,
}

/// A resource limit, as `setrlimit` takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// `nofile`, `nproc` and the like.
    pub name: String,
    /// The soft limit; -1 is unlimited.
    pub soft: i64,
    /// The hard limit; -1 is unlimited.
    pub hard: i64,
}

/// What network a process sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// The builder's default.
    #[default]
    Default,
    /// The host's.
    Host,
    /// Only a loopback device.
    None,
}

/// What a process may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Security {
    /// Default capabilities, seccomp filter, masked paths.
    #[default]
    Sandbox,
    /// All capabilities and no filter.
    Insecure,
}

/// A secret as an environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretEnv {
    /// Which secret.
    pub id: String,
    /// The variable.
    pub name: String,
    /// Whether the step goes on without it; the variable is then set and empty.
    pub optional: bool,
}

/// Lays trees over one another, the first at the bottom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeOp {
    /// The trees, bottom first; `None` is the empty tree.
    pub inputs: Vec<Option<InputIndex>>,
}

/// Takes what `upper` has over `lower`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffOp {
    /// What to take away; `None` is the empty tree.
    pub lower: Option<InputIndex>,
    /// What to take from; `None` is the empty tree.
    pub upper: Option<InputIndex>,
}
