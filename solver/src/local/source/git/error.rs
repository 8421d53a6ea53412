//! What goes wrong with repositories.

use std::io;

use thiserror::Error;

/// Why a git repository cannot be used. No variant holds credentials: remotes are named without.
#[derive(Debug, Error)]
pub enum GitError {
    /// There is no `git` on this machine.
    #[error("git sources need the program `git`, which is not installed")]
    NotInstalled,
    /// Git could not be started or watched.
    #[error("failed to run `git {command}`")]
    Run {
        /// What it was to do.
        command: String,
        /// What the system says.
        source: io::Error,
    },
    /// Git ran, and failed.
    #[error("`git {command}` failed: {message}")]
    Failed {
        /// What it was to do.
        command: String,
        /// What it said last.
        message: String,
    },
    /// A remote that is none, or of a kind that is not allowed.
    #[error("`{remote}` is not the address of a git repository: {reason}")]
    Remote {
        /// The remote.
        remote: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The name of a reference that git could take for something else.
    #[error("`{git_ref}` is not a git reference")]
    Reference {
        /// The name.
        git_ref: String,
    },
    /// The expected commit is not the name of one.
    #[error("invalid checksum {checksum} for Git URL, expected hex commit hash")]
    InvalidChecksum {
        /// What was expected.
        checksum: String,
    },
    /// The repository could not be reached.
    #[error("failed to fetch remote {remote}")]
    Fetch {
        /// The repository.
        remote: String,
        /// What git says.
        source: Box<Self>,
    },
    /// It is not to be asked, and the store does not know what is needed of it.
    #[error("{remote} was not asked for: rbuild is offline")]
    Offline {
        /// The repository.
        remote: String,
    },
    /// The repository does not have the reference.
    #[error("repository {remote} does not contain ref {git_ref}")]
    NoSuchReference {
        /// The repository.
        remote: String,
        /// The reference.
        git_ref: String,
    },
    /// The repository is empty, or does not say what its default branch is.
    #[error("could not find default branch for repository: {remote}")]
    NoDefaultBranch {
        /// The repository.
        remote: String,
    },
    /// The repository does not have the commit, or does not give it away.
    #[error("repository {remote} does not have commit {commit}")]
    NoSuchCommit {
        /// The repository.
        remote: String,
        /// The commit.
        commit: String,
    },
    /// The commit is another one than expected.
    #[error("expected checksum to match {expected}, got {found}")]
    Checksum {
        /// What was expected.
        expected: String,
        /// What the reference leads to.
        found: String,
    },
    /// The commit has no such directory.
    #[error("repository {remote} has no directory `{subdir}`")]
    NoSuchDirectory {
        /// The repository.
        remote: String,
        /// The directory.
        subdir: String,
    },
    /// The agent that the source needs was not given.
    #[error("no SSH key `{id}` forwarded from the client")]
    NoAgent {
        /// The agent's id.
        id: String,
    },
}
