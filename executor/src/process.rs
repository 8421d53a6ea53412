//! What runs in a container, and how it ended.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Capabilities, Confinement, Trust};

/// The process of a container. It is PID 1 of its PID namespace, as runc makes it, unless [`Process::init`] is asked for.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The program, looked up in the container's `PATH` unless it has a slash, and its arguments.
    pub args: Vec<String>,
    /// `NAME=value` lines. `HOME` is added from the container's `/etc/passwd` where it is missing.
    pub env: Vec<String>,
    /// The working directory, absolute; made when it is missing.
    pub cwd: String,
    /// `name|uid[:group|gid]`, looked up in the container's own `/etc/passwd` and `/etc/group`; empty is root.
    pub user: String,
    /// Further groups that it is in, by name or number.
    pub groups: Vec<String>,
    /// How gladly the kernel kills it when memory is short: -1000 to 1000; inherited when not given.
    pub oom_score_adj: Option<i32>,
    /// The file mode creation mask.
    pub umask: u32,
    /// Resource limits; those not named are inherited.
    pub ulimits: Vec<Ulimit>,
    /// The bounding set: what a process of user 0 holds, and the most any process can gain.
    pub capabilities: Capabilities,
    /// What else holds it.
    pub confinement: Confinement,
    /// Whose certificates it trusts beside those that its image does.
    pub trust: Trust,
    /// Whether this program stays as PID 1, passes on signals, and reaps what nobody else does.
    pub init: bool,
}

/// As a rule nothing of a process may reach a log whole: its environment can hold secrets.
impl fmt::Debug for Process {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Process")
            .field("args", &self.args)
            .field("env", &format_args!("[{} entries]", self.env.len()))
            .field("cwd", &self.cwd)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Process {
    /// A process of root in `/` with an empty environment, umask 022 and Docker's capabilities.
    pub fn new<I>(args: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        Self {
            args: args.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: "/".to_owned(),
            user: String::new(),
            groups: Vec::new(),
            oom_score_adj: None,
            umask: 0o022,
            ulimits: Vec::new(),
            capabilities: Capabilities::DEFAULT,
            confinement: Confinement::default(),
            trust: Trust::default(),
            init: false,
        }
    }
}

/// One resource limit; `u64::MAX` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// What is limited.
    pub resource: Resource,
    /// The limit in force.
    pub soft: u64,
    /// How far the process may raise it.
    pub hard: u64,
}

macro_rules! resources {
    ($($variant:ident $name:literal $rustix:ident,)*) => {
        /// What a [`Ulimit`] limits, by the names of `--ulimit`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Resource {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl Resource {
            /// The resource of that `--ulimit` name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// Its `--ulimit` name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            pub(crate) fn number(self) -> rustix::process::Resource {
                match self {
                    $(Self::$variant => rustix::process::Resource::$rustix,)*
                }
            }
        }
    };
}

resources! {
    AddressSpace "as" As,
    Core "core" Core,
    Cpu "cpu" Cpu,
    Data "data" Data,
    FileSize "fsize" Fsize,
    Locks "locks" Locks,
    LockedMemory "memlock" Memlock,
    MessageQueue "msgqueue" Msgqueue,
    Nice "nice" Nice,
    OpenFiles "nofile" Nofile,
    Processes "nproc" Nproc,
    ResidentSet "rss" Rss,
    RealTimePriority "rtprio" Rtprio,
    RealTimeTime "rttime" Rttime,
    PendingSignals "sigpending" Sigpending,
    Stack "stack" Stack,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Exit {
    /// The code a shell would give: a signal counts from 128.
    pub const fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }

    /// Whether it exited with code 0.
    pub const fn success(self) -> bool {
        matches!(self, Self::Code(0))
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "exit code {code}"),
            Self::Signal(signal) => write!(formatter, "signal {signal}"),
        }
    }
}
