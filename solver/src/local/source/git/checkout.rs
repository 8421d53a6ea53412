//! From a mirror to a tree of files.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use rbuild_cache::root_dir::RootDir;
use rbuild_cache::{ActiveSnapshot, Snapshot};
use rbuild_llb::GitSource;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::GitError;
use super::mirror::Mirror;
use super::program::Git;
use super::remote::Remote;
use super::resolve::Pinned;
use crate::local::{LocalWorker, WorkerError};

/// What git keeps beside the files.
const GIT_DIR: &str = ".git";
const SUBMODULES: &str = ".gitmodules";
/// What a fetch notes: where this machine has its mirror.
const FETCH_HEAD: &str = ".git/FETCH_HEAD";
/// The name that the remote has in a checkout.
const ORIGIN: &str = "origin";

/// One checkout under way.
#[derive(Debug)]
pub(super) struct Checkout<'a> {
    pub(super) git: &'a Git<'a>,
    pub(super) remote: &'a Remote,
    pub(super) source: &'a GitSource,
    pub(super) pinned: &'a Pinned,
    /// The time that all files get, Unix seconds.
    pub(super) mtime: Option<i64>,
}

impl LocalWorker<'_> {
    /// Makes the tree that the source asks for.
    pub(super) fn check_out(
        &self,
        mirror: &Mirror,
        checkout: &Checkout<'_>,
    ) -> Result<ActiveSnapshot, WorkerError> {
        let active = self.prepare(&Snapshot::empty())?;
        let scratch = self.prepare(&Snapshot::empty())?;
        let subdir = clean(&checkout.source.subdir);
        let keeps_git = checkout.source.keep_git_dir && subdir.as_os_str().is_empty();
        let worktree = scratch.upper();
        checkout.files(mirror, worktree)?;
        let failed = || WorkerError::io("complete", format!("the checkout of `{}`", checkout.remote.url));
        settle(worktree, keeps_git, checkout.mtime).map_err(failed())?;
        let chosen = checkout.directory(worktree, &subdir)?;
        fs::rename(chosen, active.upper()).map_err(failed())?;
        Ok(active)
    }
}

impl Checkout<'_> {
    /// Fills the work tree, submodules included.
    fn files(&self, mirror: &Mirror, worktree: &Path) -> Result<(), WorkerError> {
        let git = || self.git.call(worktree);
        let format = if self.pinned.commit.len() == 64 { "sha256" } else { "sha1" };
        git().args(&["init", "--quiet", &format!("--object-format={format}")]).run()?;
        git().args(&["remote", "add", ORIGIN, &self.remote.url]).run()?;
        let from = Mirror::kept_as(self.pinned.object());
        let refspec = match &self.pinned.name {
            Some(name) if is_local_name(name) => format!("+{from}:{name}"),
            _ => from,
        };
        let fetch =
            git().reading_here().args(&["fetch", "--quiet", "--update-head-ok", "--depth=1", "--no-tags"]);
        fetch.args(&[&mirror.directory]).args(&[&refspec]).run()?;
        git().args(&["checkout", "--quiet", "--force", "--detach", &self.pinned.commit]).run()?;
        if !self.source.skip_submodules && worktree.join(SUBMODULES).exists() {
            let words = ["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"];
            git().args(&words).run()?;
        }
        fs::remove_file(worktree.join(FETCH_HEAD)).map_err(WorkerError::io("remove", FETCH_HEAD))
    }

    /// The directory to take, without a way out of the work tree.
    fn directory(&self, worktree: &Path, subdir: &Path) -> Result<PathBuf, WorkerError> {
        let missing = |_| GitError::NoSuchDirectory {
            remote: self.remote.url.clone(),
            subdir: self.source.subdir.clone(),
        };
        let root = RootDir::open(worktree)?;
        let path = root.resolve(subdir).map_err(missing)?;
        root.open_dir(&path).map_err(missing)?;
        Ok(worktree.join(path))
    }
}

/// A subdirectory as git URLs write it: absolute or not, it begins at the top.
fn clean(subdir: &str) -> PathBuf {
    let mut path = PathBuf::new();
    for component in Path::new(subdir).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => {
                path.pop();
            }
            _ => {}
        }
    }
    path
}

/// Branches and tags keep their names; what else a server has is not for a checkout.
fn is_local_name(name: &str) -> bool {
    name.starts_with("refs/heads/") || name.starts_with("refs/tags/")
}

/// Gives all files below a directory the modes that git means, and the time; takes away what is git's own unless it is kept.
fn settle(directory: &Path, keeps_git: bool, mtime: Option<i64>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        match (entry.file_name() == GIT_DIR, keeps_git) {
            (true, false) if kind.is_dir() => fs::remove_dir_all(&path)?,
            (true, false) => fs::remove_file(&path)?,
            _ if kind.is_dir() => settle(&path, keeps_git, mtime)?,
            _ => settle_one(&path, mtime)?,
        }
    }
    settle_one(directory, mtime)
}

fn settle_one(path: &Path, mtime: Option<i64>) -> io::Result<()> {
    let metadata = path.symlink_metadata()?;
    if !metadata.is_symlink() {
        let is_open = metadata.is_dir() || metadata.mode() & 0o100 != 0;
        let mode = if is_open { 0o755 } else { 0o644 };
        if metadata.mode() & 0o7777 != mode {
            fs::set_permissions(path, PermissionsExt::from_mode(mode))?;
        }
    }
    let Some(seconds) = mtime else { return Ok(()) };
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subdirectory_begins_at_the_top() {
        for (written, path) in [("", ""), ("/", ""), (".", ""), ("/a/./b/", "a/b"), ("../../a/../b", "b")] {
            assert_eq!(clean(written), Path::new(path), "{written}");
        }
    }
}
