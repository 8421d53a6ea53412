//! A git repository as a source: a reference is pinned to a commit (`resolve`), the commit is fetched into a mirror that the
//! store keeps (`mirror`), and its files are taken out of it (`checkout`). All of that the program `git` does (`program`),
//! for which addresses and credentials are made ready in `remote`.

mod checkout;
mod error;
mod mirror;
mod program;
mod remote;
mod resolve;

pub use error::GitError;
pub(super) use resolve::Pinned;

use std::path::PathBuf;

use rbuild_cache::{CacheKey, Download, Expected, Snapshot};
use rbuild_image::{Digest, KeyHasher};
use rbuild_llb::GitSource;

use self::checkout::Checkout;
use self::program::{Git, ssh_command};
use self::remote::Remote;
use self::resolve::{list, resolve};
use crate::cache_key::SourceIdentity;
use crate::local::{LocalWorker, WorkerError};
use crate::worker::Context;

/// What a remote says of one name is short.
const LISTING_BYTES_MAX: u64 = 1 << 20;
/// Keys of hosts that were seen by this store.
const KNOWN_HOSTS: &str = "known_hosts";

/// What git is given of the caller's environment.
#[derive(Debug, Clone, Default)]
pub struct GitOptions {
    /// `PATH`, to find git and ssh, and what says how to reach the network: proxies and certificates.
    pub environment: Vec<(String, String)>,
    /// The host keys that the user knows.
    pub known_hosts: Option<PathBuf>,
    /// Whether nobody is asked for anything: a reference leads to what it led to when the store last used it.
    pub offline: bool,
}

/// What is asked of a repository; `None` where its address is none.
pub(super) fn question(source: &GitSource) -> Option<String> {
    Remote::parse(&source.remote).ok().map(|remote| question_to(&remote, source))
}

fn question_to(remote: &Remote, source: &GitSource) -> String {
    let checksum = source.checksum.as_deref().unwrap_or_default();
    format!("{}#{}@{checksum}", remote.url, source.git_ref)
}

impl LocalWorker<'_> {
    /// A repository is its commit. With `.git`, it is also the reference, which is in there.
    pub(in crate::local) fn identify_git(
        &self,
        source: &GitSource,
        cx: &Context<'_>,
    ) -> Result<SourceIdentity, WorkerError> {
        let remote = Remote::parse(&source.remote)?;
        let pinned = self.pin(&self.git(source, &remote, cx)?, &remote, source)?;
        let mut hasher = KeyHasher::new("rbuild.git.v1");
        hasher.str(&pinned.commit);
        let kept = source.keep_git_dir.then_some(&pinned);
        hasher.option(kept.as_ref(), |hasher, pinned| {
            hasher.str(pinned.object()).str(pinned.name.as_deref().unwrap_or_default());
        });
        Ok(SourceIdentity(hasher.finish()))
    }

    /// Makes the tree of files.
    pub(in crate::local) fn unpack_git(
        &self,
        source: &GitSource,
        cx: &Context<'_>,
    ) -> Result<Vec<Snapshot>, WorkerError> {
        let remote = Remote::parse(&source.remote)?;
        let git = self.git(source, &remote, cx)?;
        let pinned = self.pin(&git, &remote, source)?;
        let mirror = self.mirror(&git, &remote, &pinned, cx)?;
        let mtime = source.mtime_of_commit.then(|| mirror.time(&git, &pinned)).transpose()?;
        let checkout = Checkout { git: &git, remote: &remote, source, pinned: &pinned, mtime };
        Ok(vec![self.check_out(&mirror, &checkout)?.commit()?])
    }

    /// When the commit was made, Unix seconds.
    pub(super) fn commit_time(&self, source: &GitSource, cx: &Context<'_>) -> Result<i64, WorkerError> {
        let remote = Remote::parse(&source.remote)?;
        let git = self.git(source, &remote, cx)?;
        let pinned = self.pin(&git, &remote, source)?;
        self.mirror(&git, &remote, &pinned, cx)?.time(&git, &pinned)
    }

    fn pin(&self, git: &Git<'_>, remote: &Remote, source: &GitSource) -> Result<Pinned, WorkerError> {
        let resolve = || resolve(remote, source, |name| self.ask(git, remote, name));
        self.options.pins.commits.get(&question_to(remote, source), resolve)
    }

    /// What the remote says of a name; where it is not to be asked, what it said last.
    fn ask(&self, git: &Git<'_>, remote: &Remote, name: &str) -> Result<String, WorkerError> {
        let key = CacheKey(KeyHasher::new("rbuild.git-refs.v1").str(&remote.url).str(name).finish());
        let (content, downloads) = (self.store().content(), self.store().downloads()?);
        if self.options.git.offline {
            let known = downloads.get(key)?.map(|known| content.read(known.digest, LISTING_BYTES_MAX));
            let listing = known.transpose()?.flatten();
            let listing = listing.ok_or_else(|| GitError::Offline { remote: remote.url.clone() })?;
            return Ok(String::from_utf8_lossy(&listing).into_owned());
        }
        let listing = list(git, remote, name, &self.git_area()?)?;
        let (digest, size_bytes) = (Digest::of(listing.as_bytes()), listing.len() as u64);
        content.ingest(&mut listing.as_bytes(), Expected { digest, size_bytes })?;
        let download = Download { digest, etag: None, last_modified: None, last_modified_seconds: None };
        downloads.put(key, &download)?;
        Ok(listing)
    }

    fn git<'a>(
        &'a self,
        source: &GitSource,
        remote: &Remote,
        cx: &'a Context<'_>,
    ) -> Result<Git<'a>, WorkerError> {
        Ok(Git {
            environment: &self.options.git.environment,
            authorization: self.git_authorization(source, remote)?,
            ssh: if remote.is_ssh { self.git_ssh(source)? } else { Vec::new() },
            cancel: cx.cancel,
        })
    }

    fn git_ssh(&self, source: &GitSource) -> Result<Vec<(String, String)>, WorkerError> {
        let id = source.ssh_id.as_deref().unwrap_or("default");
        let agent = self.options.ssh.get(id).ok_or_else(|| GitError::NoAgent { id: id.to_owned() })?;
        let known = std::iter::once(self.git_area()?.join(KNOWN_HOSTS));
        let known: Vec<_> = known.chain(self.options.git.known_hosts.clone()).collect();
        Ok(vec![
            ("SSH_AUTH_SOCK".to_owned(), agent.socket.display().to_string()),
            ("GIT_SSH_COMMAND".to_owned(), ssh_command(&known)),
        ])
    }
}
