//! Bare repositories of the store, one for each remote: what was fetched once is not fetched again.
//!
//! Only what was asked for is in one, without its history where the server allows. It belongs to one process at a time, by a
//! lock. Git's own clean-up never runs in it, so what is in it stays.

use std::fs;
use std::path::{Path, PathBuf};

use rbuild_cache::{Area, CacheKey, KeyLock};
use rbuild_image::KeyHasher;

use super::GitError;
use super::program::Git;
use super::remote::Remote;
use super::resolve::{Pinned, fetch_failed};
use crate::local::{LocalWorker, WorkerError};
use crate::worker::Context;

/// Where a mirror keeps the references to what it has: by object, so that branches and tags that move do not matter.
const KEPT: &str = "refs/rbuild";
/// The name of an object in a repository of the newer kind.
const SHA256_LENGTH: usize = 64;

/// A mirror that is ours to use.
#[derive(Debug)]
pub(super) struct Mirror {
    pub(super) directory: PathBuf,
    #[expect(dead_code, reason = "held for its drop")]
    lock: KeyLock,
}

impl LocalWorker<'_> {
    /// The mirror of a remote, with the commit and the tag in it.
    pub(super) fn mirror(
        &self,
        git: &Git<'_>,
        remote: &Remote,
        pinned: &Pinned,
        cx: &Context<'_>,
    ) -> Result<Mirror, WorkerError> {
        let format = if pinned.commit.len() == SHA256_LENGTH { "sha256" } else { "sha1" };
        let key = CacheKey(KeyHasher::new("rbuild.git-mirror.v1").str(&remote.url).str(format).finish());
        let lock = self.store().lock_key(&key, cx.cancel)?;
        let directory = self.store().git_mirror(&key, &remote.url)?;
        if !directory.join("HEAD").exists() {
            let format = format!("--object-format={format}");
            let parent = directory.parent().unwrap_or(Path::new("/"));
            git.call(parent).args(&["init", "--quiet", "--bare", &format]).args(&[&directory]).run()?;
        }
        let mirror = Mirror { directory, lock };
        if !mirror.has(git, pinned)? {
            if self.options.git.offline {
                return Err(GitError::Offline { remote: remote.url.clone() }.into());
            }
            let fetched = mirror.fetch_pinned(git, remote, pinned);
            self.store().record_change(&mirror.directory)?;
            fetched?;
        }
        mirror.keep(git, pinned)?;
        Ok(mirror)
    }

    /// The directory of all mirrors.
    pub(super) fn git_area(&self) -> Result<PathBuf, WorkerError> {
        let area = self.store().area(Area::Git);
        fs::create_dir_all(&area).map_err(WorkerError::io("make", format!("`{}`", area.display())))?;
        Ok(area)
    }
}

impl Mirror {
    /// The name that an object is kept under.
    pub(super) fn kept_as(object: &str) -> String {
        format!("{KEPT}/{object}")
    }

    /// When the commit was made, Unix seconds.
    pub(super) fn time(&self, git: &Git<'_>, pinned: &Pinned) -> Result<i64, WorkerError> {
        let words = ["show", "--no-patch", "--format=%ct", &pinned.commit, "--"];
        let printed = git.call(&self.directory).args(&words).run()?;
        let message = || format!("`{}` is no time", printed.trim());
        let failed = |_| GitError::Failed { command: "show".to_owned(), message: message() };
        Ok(printed.trim().parse().map_err(failed)?)
    }

    fn fetch_pinned(&self, git: &Git<'_>, remote: &Remote, pinned: &Pinned) -> Result<(), WorkerError> {
        // What a git that was killed has left; nobody else can be at work.
        drop(fs::remove_file(self.directory.join("shallow.lock")));
        let by_name = pinned.name.as_ref().map(|name| self.fetch(git, remote, name, pinned));
        if !matches!(by_name, Some(Ok(()))) || !self.has(git, pinned)? {
            // The reference has moved on since it was asked for, or there was none.
            self.fetch_commit(git, remote, pinned)?;
        }
        if !self.has(git, pinned)? {
            let (remote, commit) = (remote.url.clone(), pinned.commit.clone());
            return Err(GitError::NoSuchCommit { remote, commit }.into());
        }
        Ok(())
    }

    /// Gives what is there its own name, whatever name it came under.
    fn keep(&self, git: &Git<'_>, pinned: &Pinned) -> Result<(), WorkerError> {
        for object in [Some(&pinned.commit), pinned.tag.as_ref()].into_iter().flatten() {
            git.call(&self.directory).args(&["update-ref", &Self::kept_as(object), object]).run()?;
        }
        Ok(())
    }

    fn has(&self, git: &Git<'_>, pinned: &Pinned) -> Result<bool, WorkerError> {
        for object in [pinned.object(), &pinned.commit] {
            let commit = format!("{object}^{{commit}}");
            match git.call(&self.directory).args(&["cat-file", "-e", &commit]).run() {
                Ok(_) => {}
                Err(WorkerError::Git(GitError::Failed { .. })) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn fetch(&self, git: &Git<'_>, remote: &Remote, what: &str, pinned: &Pinned) -> Result<(), WorkerError> {
        let refspec = format!("+{what}:{}", Self::kept_as(pinned.object()));
        let words = ["fetch", "--quiet", "--depth=1", "--no-tags", "--", &remote.url, &refspec];
        let fetched = git.call(&self.directory).args(&words).run();
        fetched.map(drop).map_err(|error| fetch_failed(remote, error))
    }

    /// Fetches the commit alone; from a server that gives away only what has a name, everything.
    fn fetch_commit(&self, git: &Git<'_>, remote: &Remote, pinned: &Pinned) -> Result<(), WorkerError> {
        let alone = self.fetch(git, remote, pinned.object(), pinned);
        if !matches!(alone, Err(WorkerError::Git(GitError::Fetch { .. }))) {
            return alone;
        }
        let is_shallow = self.directory.join("shallow").exists();
        let depth: &[&str] = if is_shallow { &["--unshallow"] } else { &[] };
        let everything = ["+refs/heads/*:refs/rbuild/heads/*", "+refs/tags/*:refs/rbuild/tags/*"];
        let call = git.call(&self.directory).args(&["fetch", "--quiet", "--no-tags"]).args(depth);
        let fetched = call.args(&["--", &remote.url]).args(&everything).run();
        fetched.map(drop).map_err(|error| fetch_failed(remote, error))
    }
}
