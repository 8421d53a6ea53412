//! What can go wrong, and what a machine may lack.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cgroup;
use crate::handshake::Failure;
use crate::network::Lack;
use crate::process::Exit;
use crate::user;

/// Why a process could not be run, or not to its end.
#[derive(Debug, Error)]
pub enum Error {
    /// There is nothing to execute.
    #[error("no program to execute")]
    NoProgram,
    /// No directory of the container's `PATH` has the program.
    #[error("exec: `{program}`: executable file not found in $PATH")]
    ExecutableNotFound {
        /// As given.
        program: String,
    },
    /// The program is there and the kernel refuses it.
    #[error("exec `{program}`")]
    Execute {
        /// As given.
        program: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The container has no such directory for its process to start in.
    #[error("failed to change to the working directory `{}`", path.display())]
    WorkingDirectory {
        /// Which.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The user or group is not in the container's files.
    #[error(transparent)]
    User(#[from] user::Error),
    /// The container's control group could not be made as asked.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// The kernel refused a step of the container's set-up.
    #[error("failed to {step}{}", Subject(path.as_ref()))]
    Setup {
        /// The verb and its object.
        step: String,
        /// What it was about.
        path: Option<PathBuf>,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The init of the container ended before the program was executed; out of memory, as a rule.
    #[error("the container's init ended with {exit} before it could execute the program")]
    InitDied {
        /// How.
        exit: Exit,
    },
    /// Parent and init disagree: a bug of ours, or two versions at once.
    #[error("failed to {verb} the container's init")]
    Handshake {
        /// `instruct` or `hear`.
        verb: &'static str,
        /// What happened to the socket.
        source: io::Error,
    },
    /// The time was up, and the process has been killed.
    #[error("timed out")]
    TimedOut,
    /// There are no networks but the machine's own and none.
    #[error("a network of its own cannot be made: {0}")]
    NoNetwork(Lack),
    /// The container was to run without namespaces.
    #[error("isolation `chroot` knows no {0}")]
    NeedsNamespaces(String),
    /// Somebody is on a network that was to be removed.
    #[error("the network `{name}` is in use")]
    NetworkInUse {
        /// Its name.
        name: String,
    },
    /// Somebody has the address on a network that was asked for, or nobody can. The words are Docker's.
    #[error("failed to set up container networking: Address already in use")]
    AddressInUse,
    /// A port of the machine cannot be had.
    #[error("failed to publish the port `{port}`")]
    PublishPort {
        /// As it was asked for.
        port: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Without a PID namespace of its own, only a control group could end all of a container.
    #[error(
        "the processes of others can be seen only by a container with a control group, which cannot be made"
    )]
    NoGroupToEnd,
    /// The flag was raised, and the process has been killed.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// Whether the kernel does not know the program's format: as a rule one for another machine.
    pub fn is_foreign_program(&self) -> bool {
        matches!(self, Self::Execute { source, .. } if source.raw_os_error() == Some(libc::ENOEXEC))
    }

    /// The exit code that shells and engines give such a failure: 127 for a program or a directory that is not there, 126 for
    /// one that cannot be executed, or entered.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::ExecutableNotFound { .. } => Some(127),
            Self::Execute { source, .. } | Self::WorkingDirectory { source, .. }
                if source.kind() == io::ErrorKind::NotFound =>
            {
                Some(127)
            }
            Self::Execute { .. } | Self::WorkingDirectory { .. } => Some(126),
            _ => None,
        }
    }

    pub(crate) fn setup(step: &str, source: impl Into<io::Error>) -> Self {
        Self::Setup { step: step.to_owned(), path: None, source: source.into() }
    }

    pub(crate) fn setup_at(step: &str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Self::Setup { step: step.to_owned(), path: Some(path.into()), source: source.into() }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Step { step, path, errno } => {
                Self::Setup { step, path, source: io::Error::from_raw_os_error(errno) }
            }
            Failure::WorkingDirectory { path, errno } => {
                Self::WorkingDirectory { path, source: io::Error::from_raw_os_error(errno) }
            }
            Failure::User(error) => Self::User(error),
            Failure::ExecutableNotFound { program } => Self::ExecutableNotFound { program },
            Failure::Execute { program, errno } => {
                Self::Execute { program, source: io::Error::from_raw_os_error(errno) }
            }
            Failure::Handshake { reason } => {
                Self::Handshake { verb: "instruct", source: io::Error::other(reason) }
            }
        }
    }
}

/// The path after a step, in backticks.
struct Subject<'a>(Option<&'a PathBuf>);

impl std::fmt::Display for Subject<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |path| write!(formatter, " `{}`", path.display()))
    }
}

/// Something the machine lacks and what the container has instead. Not an error: the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum Note {
    /// The kernel or the processor has no filter for system calls.
    #[error("system calls are not filtered: the kernel has no seccomp filter here")]
    NoSeccomp,
    /// `/proc` could not be mounted anew: something covers parts of it outside.
    #[error("`/proc` is the outer one: the kernel lets nobody here mount a new one")]
    OuterProc,
    /// `/sys` could not be mounted anew, which needs a network namespace of one's own.
    #[error("`/sys` is the outer one, read-only")]
    OuterSys,
    /// The kernel has no Landlock, or an old one.
    #[error("steps are not kept from the machine's processes: the kernel has no Landlock of version 6 here")]
    NoLandlock,
    /// Only one id is mapped, so supplementary groups cannot be set.
    #[error("supplementary groups are not set: one single id is mapped into this user namespace")]
    NoSupplementaryGroups,
}
