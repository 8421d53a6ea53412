//! What goes wrong with containers.

use std::io;
use std::path::{Path, PathBuf};

use rbuild_executor::network::Subnet;
use thiserror::Error;

/// Why something could not be done with a container.
#[derive(Debug, Error)]
pub enum ContainerError {
    /// There is no such container.
    #[error("No such container: {name}")]
    NotFound {
        /// What was asked for.
        name: String,
    },
    /// Several ids begin so.
    #[error("multiple IDs found with provided prefix: {prefix}")]
    Ambiguous {
        /// What was asked for.
        prefix: String,
    },
    /// Another container has the name.
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{id}\". You have to remove (or \
         rename) that container to be able to reuse that name."
    )]
    NameInUse {
        /// The name.
        name: String,
        /// Who has it.
        id: String,
    },
    /// A name that containers cannot have.
    #[error("Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    BadName {
        /// The name.
        name: String,
    },
    /// The state of the container is in the way. The words are Docker's.
    #[error("{message}")]
    Illegal {
        /// What is in the way.
        message: String,
    },
    /// Neither the image nor the command line says what to run.
    #[error("no command specified")]
    NoCommand,
    /// There is no capability of that name.
    #[error("invalid capability: {name}")]
    UnknownCapability {
        /// As given.
        name: String,
    },
    /// A limit is to change, and the container has no control group.
    #[error("the container has no control group whose limits could change")]
    NoCgroup,
    /// Its row cannot be read.
    #[error("failed to read the state of container `{name}`")]
    State {
        /// The container.
        name: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A file could not be made, read or removed.
    #[error("failed to {verb} `{}`", path.display())]
    Io {
        /// What was being done.
        verb: &'static str,
        /// To what.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The monitor went away, and the container with it.
    #[error("the monitor of the container was lost")]
    MonitorLost,
    /// The monitor speaks another version of the protocol.
    #[error("the monitor of the container is one of another version of rbuild")]
    ForeignMonitor,
    /// The socket between client and monitor failed.
    #[error("failed to talk to the monitor of the container")]
    Talk(#[source] io::Error),
    /// The monitor could not do it.
    #[error("{message}")]
    Refused {
        /// Why.
        message: String,
        /// 127 and 126 for a program that is not there or cannot be executed.
        exit_code: Option<i32>,
    },
    /// There is no such volume.
    #[error("get {name}: no such volume")]
    NoSuchVolume {
        /// What was asked for.
        name: String,
    },
    /// A name that volumes cannot have.
    #[error(
        "{name} includes invalid characters for a local volume name, only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )]
    BadVolumeName {
        /// The name.
        name: String,
    },
    /// Containers use a volume that was to be removed.
    #[error("remove {name}: volume is in use - [{users}]")]
    VolumeInUse {
        /// The volume.
        name: String,
        /// The containers, by id.
        users: String,
    },
    /// What the image has could not be copied to a volume.
    #[error("failed to fill the volume `{name}`")]
    Fill {
        /// The volume.
        name: String,
        /// What went wrong.
        source: rbuild_cache::layer::Error,
    },
    /// The container has no such user.
    #[error(transparent)]
    User(rbuild_executor::user::Error),
    /// There is no such network.
    #[error("network {name} not found")]
    NoSuchNetwork {
        /// What was asked for.
        name: String,
    },
    /// A container cannot be on a network in that way. The words are Docker's.
    #[error("invalid config for network {network}: invalid endpoint settings:\n{reason}")]
    BadEndpoint {
        /// The network.
        network: String,
        /// What cannot be.
        reason: String,
    },
    /// A name that networks cannot have.
    #[error("Invalid network name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    BadNetworkName {
        /// The name.
        name: String,
    },
    /// Another network has the name.
    #[error("network with name {name} already exists")]
    NetworkExists {
        /// The name.
        name: String,
    },
    /// Another network has some of the addresses. The words are Docker's, and whose they are.
    #[error(
        "invalid pool request: Pool overlaps with other one on this address space: {subnet} with {other} of network {name}"
    )]
    SubnetInUse {
        /// What was asked for.
        subnet: Subnet,
        /// What there is.
        other: Subnet,
        /// The other network.
        name: String,
    },
    /// A network that is always there cannot be made or removed.
    #[error("{name} is a pre-defined network and cannot be {verb}")]
    PredefinedNetwork {
        /// The name.
        name: String,
        /// What was to be done with it.
        verb: &'static str,
    },
    /// The namespaces of another container are in another user namespace, as for every user but root.
    #[error("cannot join the namespaces of container {id}: it is in another user namespace")]
    ForeignNamespace {
        /// The other container.
        id: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] rbuild_cache::Error),
    /// Its process could not be run.
    #[error(transparent)]
    Executor(#[from] rbuild_executor::Error),
}

impl ContainerError {
    pub(crate) fn io(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { verb, path, source }
    }

    /// The exit code of a program that is not there or cannot be executed.
    pub fn program_exit_code(&self) -> Option<i32> {
        match self {
            Self::Refused { exit_code, .. } => *exit_code,
            Self::Executor(error) => error.exit_code(),
            _ => None,
        }
    }
}
