//! Why a step has no result.

use std::io;
use std::time::Duration;

use rbuild_cache::root_dir::PathError;
use rbuild_cache::{LayerId, Snapshot};
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
    /// What a shared cache said it has could not be had. Without that cache, the build can be done all the same.
    #[error("failed to fetch a result from the shared cache `{store}`")]
    SharedCache {
        /// Which.
        store: String,
        /// Why.
        source: Box<ImageError>,
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
    /// A step wants what the isolation has not.
    #[error("isolation `chroot` knows no {what}")]
    NeedsNamespaces {
        /// What the step wants.
        what: String,
    },
    /// A build context is another one than it was when the step's key was made.
    #[error("the files of `{name}` changed while they were copied")]
    ContextChanged {
        /// The context.
        name: String,
    },
    /// The build was cancelled while the step ran.
    #[error("cancelled")]
    Cancelled,
}

impl WorkerError {
    /// Whether somebody changes what is copied: with another key for what is there now, the step may be done.
    pub const fn is_change(&self) -> bool {
        matches!(self, Self::ContextChanged { .. } | Self::File(FileError::Changed { .. }))
    }

    /// The layer that was not what it was made as, or had gone with such a one. It will not be found again, and can be made again.
    pub const fn lost_layer(&self) -> Option<LayerId> {
        match self {
            Self::Store(error)
            | Self::Image(ImageError::Store(error))
            | Self::File(FileError::Store(error)) => match error {
                rbuild_cache::Error::ImageDamaged(layer) | rbuild_cache::Error::LayerMissing(layer) => {
                    Some(*layer)
                }
                _ => None,
            },
            _ => None,
        }
    }
}

/// A step that ran and failed: the Dockerfile's fault, not rbuild's.
#[derive(Debug, Error)]
pub enum StepError {
    /// The process did not end well.
    #[error("process \"{command}\" did not complete successfully: {end}")]
    Process {
        /// Its command line.
        command: String,
        /// How it ended.
        end: StepEnd,
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

/// How the process of a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepEnd {
    /// By itself, or by a signal.
    Exit(Exit),
    /// It, or a process that it had started, was killed for want of memory.
    OutOfMemory {
        /// How the first process ended.
        exit: Exit,
        /// The limit, where there was one.
        limit_bytes: Option<u64>,
    },
    /// It had run for so long, and was killed.
    TimedOut(Duration),
}

impl StepEnd {
    /// How the first process ended, unless it was ended.
    pub const fn exit(self) -> Option<Exit> {
        match self {
            Self::Exit(exit) | Self::OutOfMemory { exit, .. } => Some(exit),
            Self::TimedOut(_) => None,
        }
    }
}

impl std::fmt::Display for StepEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exit(Exit::Code(code)) => write!(f, "exit code: {code}"),
            Self::Exit(Exit::Signal(signal)) => write!(f, "killed by signal {signal}"),
            Self::OutOfMemory { exit, limit_bytes } => {
                write!(f, "exit code: {}: killed: out of memory", exit.code())?;
                limit_bytes.map_or(Ok(()), |limit| write!(f, ", limit {}", Binary(limit)))
            }
            Self::TimedOut(timeout) => write!(f, "timed out after {timeout:?}"),
        }
    }
}

/// A size in the largest unit of which it is a whole number.
struct Binary(u64);

impl std::fmt::Display for Binary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const UNITS: [(u32, &str); 3] = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        let whole = UNITS.iter().find(|(shift, _)| self.0 > 0 && self.0.trailing_zeros() >= *shift);
        match whole {
            Some((shift, unit)) => write!(f, "{} {unit}", self.0 >> shift),
            None => write!(f, "{} bytes", self.0),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told() {
        let killed = |limit_bytes| StepEnd::OutOfMemory { exit: Exit::Signal(9), limit_bytes };
        let cases = [
            (StepEnd::Exit(Exit::Code(3)), "exit code: 3"),
            (StepEnd::Exit(Exit::Signal(11)), "killed by signal 11"),
            (killed(Some(256 << 20)), "exit code: 137: killed: out of memory, limit 256 MiB"),
            (killed(Some(1000)), "exit code: 137: killed: out of memory, limit 1000 bytes"),
            (killed(None), "exit code: 137: killed: out of memory"),
            (StepEnd::TimedOut(Duration::from_millis(1500)), "timed out after 1.5s"),
        ];
        for (end, text) in cases {
            assert_eq!(end.to_string(), text);
        }
    }
}
