//! What goes wrong with containers.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why something could not be done with a container.
#[derive(Debug, Error)]
pub enum ContainerError {
    /// There is no such container.
    #[error("no such container: `{name}`")]
    NotFound {
        /// What was asked for.
        name: String,
    },
    /// Several ids begin so.
    #[error("`{prefix}` is the beginning of several container ids")]
    Ambiguous {
        /// What was asked for.
        prefix: String,
    },
    /// It runs, and must not for this.
    #[error("cannot {verb} container `{name}`: it is running")]
    IsRunning {
        /// The container.
        name: String,
        /// What was asked for.
        verb: &'static str,
    },
    /// Neither the image nor the command line says what to run.
    #[error("no command specified: the image has neither `CMD` nor `ENTRYPOINT`")]
    NoCommand,
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
}
