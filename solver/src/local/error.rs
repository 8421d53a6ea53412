//! Why a step has no result.

use std::io;

use rbuild_cache::Snapshot;
use rbuild_cache::root_dir::PathError;
use rbuild_executor::Exit;
use rbuild_llb::Op;
use thiserror::Error;

use super::file::FileError;
use super::source::{GitError, HttpError};
use crate::images::ImageError;
use crate::secrets::SecretError;

/// Why the worker could not do what the scheduler asked.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// The step ran, and failed.
    #[error(transparent)]
    Step(#[from] StepError),
    /// A container could not be run.
    #[error(transparent)]
    Executor(#[from] rbuild_executor::Error),
    /// Files could not be copied or made.
    #[error(transparent)]
    File(#[from] FileError),
    /// An image could not be had.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A git repository could not be had.
    #[error(transparent)]
    Git(#[from] GitError),
    /// A file of a web server could not be had.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A secret could not be read, or cannot be what a step wants it to be.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A secret that would be sent in a header is not text of one line.
    #[error("secret `{id}` is not one line of text, and cannot be sent in a header")]
    SecretNotText {
        /// Which.
        id: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] rbuild_cache::Error),
    /// Contents could not be digested.
    #[error(transparent)]
    Digest(#[from] rbuild_cache::content_digest::Error),
    /// A path could not be used.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A pattern of the ignore rules or of an `--exclude` is malformed.
    #[error(transparent)]
    Pattern(#[from] rbuild_llb::pattern::PatternError),
    /// A named thing could not be made or read.
    #[error("failed to {verb} {subject}")]
    Io {
        /// What was being done.
        verb: &'static str,
        /// To what.
        subject: String,
        /// What went wrong.
        source: io::Error,
    },
    /// A definition names an OCI layout that the caller did not give.
    #[error("there is no OCI layout called `{name}`")]
    UnknownLayout {
        /// Its name.
        name: String,
    },
    /// A step requires a secret that the build was not given.
    #[error("secret {id}: not found")]
    SecretNotFound {
        /// Its id.
        id: String,
    },
    /// A step requires an ssh agent that the build was not given.
    #[error("ssh agent {id}: not found")]
    SshNotFound {
        /// Its id.
        id: String,
    },
    /// A definition names a local source that the caller did not give.
    #[error("there is no build context called `{name}`")]
    UnknownContext {
        /// Its name.
        name: String,
    },
    /// A shell was asked for where there is no file system yet.
    #[error("before this step there is no file system")]
    NoFileSystem,
    /// What a step made is needed, and has been pruned, or was never made.
    #[error("the result of `{step}` is not in the store")]
    ResultMissing {
        /// The step.
        step: String,
    },
    /// An op that this worker cannot do.
    #[error("{what} are not supported yet")]
    Unsupported {
        /// What they are.
        what: &'static str,
    },
    /// The build was cancelled while the step ran.
    #[error("cancelled")]
    Cancelled,
}

/// A step that ran and failed: the Dockerfile's fault, not rbuild's.
#[derive(Debug, Error)]
pub enum StepError {
    /// The process did not end well.
    #[error("process \"{command}\" did not complete successfully: {}", Ended(*.exit))]
    Process {
        /// Its command line.
        command: String,
        /// How it ended.
        exit: Exit,
        /// The file system that it left, where that was to be kept.
        left: Option<Box<Snapshot>>,
    },
    /// A mount shows a path that its source does not have.
    #[error("mount at `{target}`: the source has no `{selector}`")]
    MountSource {
        /// Where the mount is.
        target: String,
        /// What it shows.
        selector: String,
    },
}

struct Ended(Exit);

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Exit::Code(code) => write!(f, "exit code: {code}"),
            Exit::Signal(signal) => write!(f, "killed by signal {signal}"),
        }
    }
}

impl WorkerError {
    pub(super) const fn unsupported(op: &Op) -> Self {
        Self::Unsupported {
            what: match op {
                Op::Source(_) => "sources of this kind",
                Op::Exec(_) | Op::File(_) | Op::Merge(_) | Op::Diff(_) => "ops of this kind",
            },
        }
    }

    pub(super) fn io(verb: &'static str, subject: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let subject = subject.into();
        move |source| Self::Io { verb, subject, source }
    }
}
