//! Copies a directory, many at a time.
//!
//! Every directory is one [`Dir`]: open in the source, open in the destination, so that each entry costs single-name calls and no
//! path is resolved twice. A directory's files are copied in batches and its subdirectories are new tasks on the pool; all
//! of them hold the `Dir`. Whoever lets go of it last seals it (mode, owner, and at last its time, which any entry made in it
//! would have changed) and then lets go of its parent. So nothing waits, and nothing recurses however deep the tree is.
//!
//! A hold is let go of through [`TreeCopy::release`], never by dropping it: a directory that is merely dropped stays as it was made.
//!
//! Descriptors: only directories between a running task and the top are open, two each. The pool takes the newest task
//! first, which walks depth-first.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use rayon::Scope;
use rbuild_cache::layer::TREE_DEPTH_MAX;
use rbuild_cache::root_dir::{At, FileType, OFlags, RootDir, Stat, list};
use rbuild_cache::tree::NamesByDirectory;
use rustix::fs::{AtFlags, Mode, fchmod, fstat, mkdirat, openat, statat, unlinkat};
use rustix::io::Errno;

use super::attributes::{Birth, Changes, birth_in, copy_capabilities};
use super::content::{Buffer, Ladder};
use super::filter::{Decision, Filter, Level};
use super::run::{Run, lock};
use super::{FileError, SourceKind};

/// How many files one task copies.
const BATCH_ENTRIES: usize = 128;

pub(super) const OPEN_DIR: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// One copy from one source under way.
pub(super) struct TreeCopy<'a> {
    pub(super) run: &'a Run<'a>,
    pub(super) changes: &'a Changes,
    pub(super) filter: Filter<'a>,
    /// What of the source has to be copied, by its directories; `None` is all.
    only: Option<&'a NamesByDirectory>,
    /// Whether a file may take the place of a directory, and the other way round.
    pub(super) always_replace: bool,
    pub(super) ladder: &'a Ladder,
    /// The files with several names, and where in the destination the first of them was put.
    pub(super) links: Mutex<HashMap<(u64, u64), PathBuf>>,
    /// The directory of the destination that everything is copied into.
    pub(super) top: OwnedFd,
    failure: Mutex<Option<FileError>>,
    stopped: AtomicBool,
}

/// A directory that is being copied.
pub(super) struct Dir {
    parent: Option<Arc<Self>>,
    name: OsString,
    /// Relative to the source that is copied.
    pub(super) path: PathBuf,
    pub(super) source: OwnedFd,
    stat: Stat,
    level: Level,
    depth: usize,
    /// Made at the latest when something is put into it.
    dest: OnceLock<Dest>,
    making: Mutex<()>,
}

/// A directory in the destination.
#[derive(Debug)]
pub(super) struct Dest {
    pub(super) fd: OwnedFd,
    pub(super) birth: Birth,
    sealing: Sealing,
}

/// What a directory gets from its original when all is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sealing {
    /// It was there, and is where the copy starts.
    Nothing,
    /// It was there, and is only on the way to what was asked for.
    Mode,
    /// It was there, and is merged with its original.
    Merged,
    /// It was made.
    Made,
}

impl Dest {
    /// A directory that was there.
    pub(super) fn existing(fd: OwnedFd, sealing: Sealing) -> Result<Self, Errno> {
        let birth = birth_in(fd.as_fd())?;
        Ok(Self { fd, birth, sealing })
    }
}

impl<'a> TreeCopy<'a> {
    pub(super) fn new(
        run: &'a Run<'a>,
        changes: &'a Changes,
        filter: Filter<'a>,
        ladder: &'a Ladder,
        top: OwnedFd,
    ) -> Self {
        Self {
            run,
            changes,
            filter,
            only: None,
            always_replace: false,
            ladder,
            links: Mutex::default(),
            top,
            failure: Mutex::default(),
            stopped: AtomicBool::new(false),
        }
    }

    /// Lets a file take the place of a directory, and the other way round, if asked to.
    pub(super) fn replacing_all(self, always_replace: bool) -> Self {
        Self { always_replace, ..self }
    }

    /// Copies only these names; `None` is all.
    pub(super) fn limited_to(self, only: Option<&'a NamesByDirectory>) -> Self {
        Self { only, ..self }
    }

    /// Copies what is in the directory `source` into the directory `dest`.
    pub(super) fn contents(&self, source: OwnedFd, dest: Dest) -> Result<(), FileError> {
        let stat = fstat(&source).at("read the attributes of", "")?;
        let dir = Dir::new(None, OsString::new(), source, stat, self.filter.top())?;
        let dir = Arc::new(Dir { dest: OnceLock::from(dest), ..dir });
        self.run.options.pool.scope(|scope| self.visit(scope, dir));
        lock(&self.failure).take().map_or(Ok(()), Err)
    }

    fn visit<'s>(&'s self, scope: &Scope<'s>, dir: Arc<Dir>) {
        match self.entries(&dir) {
            Ok((subdirs, files)) => {
                for batch in files {
                    let dir = Arc::clone(&dir);
                    scope.spawn(move |_| self.batch(dir, &batch));
                }
                for (name, decision) in subdirs {
                    let dir = Arc::clone(&dir);
                    scope.spawn(move |scope| self.descend(scope, dir, name, decision));
                }
            }
            Err(error) => self.fail(error),
        }
        self.release(dir);
    }

    /// What is in a directory: the directories that are not pruned, and everything else that is copied.
    #[expect(clippy::type_complexity, reason = "a pair of lists, taken apart where it is made")]
    fn entries(
        &self,
        dir: &Dir,
    ) -> Result<(Vec<(OsString, Decision)>, Vec<Vec<(OsString, FileType)>>), FileError> {
        self.check_stopped()?;
        let (mut subdirs, mut files) = (Vec::new(), Vec::new());
        for (name, kind) in list(dir.source.as_fd()).at("list", &dir.path)? {
            if self.only.is_some_and(|only| !only.contains(&dir.path, &name)) {
                continue;
            }
            if kind.is_dir() {
                match self.filter.decide(&dir.level, &dir.path, &name) {
                    Decision::Prune => {}
                    decision => subdirs.push((name, decision)),
                }
            } else if self.filter.takes(&dir.level, &dir.path, &name) {
                files.push((name, kind));
            }
        }
        let mut batches = Vec::with_capacity(files.len().div_ceil(BATCH_ENTRIES));
        while !files.is_empty() {
            batches.push(files.split_off(files.len().saturating_sub(BATCH_ENTRIES)));
        }
        Ok((subdirs, batches))
    }

    fn batch(&self, dir: Arc<Dir>, entries: &[(OsString, FileType)]) {
        let mut buffer = Buffer::new();
        for (name, kind) in entries {
            let copied = self.check_stopped().and_then(|()| self.entry(&dir, name, *kind, &mut buffer));
            if let Err(error) = copied {
                self.fail(error);
                break;
            }
        }
        self.release(dir);
    }

    fn descend<'s>(&'s self, scope: &Scope<'s>, parent: Arc<Dir>, name: OsString, decision: Decision) {
        let opened = match decision {
            Decision::Prune => Ok(None),
            Decision::Pass(level) => self.open(&parent, name, level, false).map(Some),
            Decision::Take(level) => self.open(&parent, name, level, true).map(Some),
        };
        match opened {
            Ok(Some(dir)) => self.visit(scope, Arc::new(dir)),
            Ok(None) => {}
            Err(error) => self.fail(error),
        }
        self.release(parent);
    }

    fn open(&self, parent: &Arc<Dir>, name: OsString, level: Level, taken: bool) -> Result<Dir, FileError> {
        self.check_stopped()?;
        let path = || parent.path.join(&name);
        let source = openat(&parent.source, &name, OPEN_DIR, Mode::empty()).at("open", path())?;
        let stat = fstat(&source).at("read the attributes of", path())?;
        let dir = Dir::new(Some(Arc::clone(parent)), name, source, stat, level)?;
        // Of what has to be copied, a directory is there for itself as well.
        if taken || self.only.is_some() {
            self.dest(&dir)?;
        }
        Ok(dir)
    }

    /// The directory in the destination; makes it, and those above it, if that has not happened yet.
    pub(super) fn dest<'d>(&self, dir: &'d Dir) -> Result<&'d Dest, FileError> {
        if let Some(dest) = dir.dest.get() {
            return Ok(dest);
        }
        let parent = dir.parent.as_deref().expect("the top has its destination from the start");
        let parent = self.dest(parent)?;
        let _making = lock(&dir.making);
        if let Some(dest) = dir.dest.get() {
            return Ok(dest);
        }
        let merged = if self.filter.includes() { Sealing::Mode } else { Sealing::Merged };
        let dest = self.make_dir(parent, &dir.name, &dir.path, merged)?;
        Ok(dir.dest.get_or_init(|| dest))
    }

    /// Makes the directory `name`, or opens one that is there, which then gets `merged` from its original.
    pub(super) fn make_dir(
        &self,
        parent: &Dest,
        name: &OsStr,
        path: &Path,
        merged: Sealing,
    ) -> Result<Dest, FileError> {
        for _ in 0..2 {
            let existed = match mkdirat(&parent.fd, name, Mode::RWXU) {
                Ok(()) => false,
                Err(Errno::EXIST) => true,
                Err(errno) => return Err(errno).at("create the directory", path).map_err(FileError::from),
            };
            match openat(&parent.fd, name, OPEN_DIR, Mode::empty()) {
                Ok(fd) if existed => {
                    return Ok(Dest::existing(fd, merged).at("read the attributes of", path)?);
                }
                Ok(fd) => {
                    self.run.count(0);
                    return Ok(Dest { fd, birth: parent.birth, sealing: Sealing::Made });
                }
                Err(Errno::NOTDIR | Errno::LOOP) if self.always_replace => {
                    unlinkat(&parent.fd, name, AtFlags::empty()).at("replace", path)?;
                }
                Err(Errno::NOTDIR | Errno::LOOP) => break,
                Err(errno) => return Err(errno).at("open", path).map_err(FileError::from),
            }
        }
        Err(FileError::NotADirectory { path: path.to_owned() })
    }

    /// Makes room for something that is not a directory.
    pub(super) fn clear(&self, parent: &Dest, name: &OsStr, path: &Path) -> Result<(), FileError> {
        let stat = match statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            stat => stat.at("read the attributes of", path)?,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if self.always_replace => {
                let fd = rustix::io::fcntl_dupfd_cloexec(&parent.fd, 0).at("open the directory of", path)?;
                Ok(RootDir::from_fd(fd).remove_all(name)?)
            }
            FileType::Directory => Err(FileError::DirectoryInTheWay { path: path.to_owned() }),
            _ => Ok(unlinkat(&parent.fd, name, AtFlags::empty()).at("replace", path)?),
        }
    }

    /// Lets go of a directory, and of those above it for as long as this was the last hold.
    fn release(&self, dir: Arc<Dir>) {
        let mut next = Some(dir);
        while let Some(dir) = next.take().and_then(Arc::into_inner) {
            if !self.stopped.load(Ordering::Relaxed)
                && let Err(error) = self.seal(&dir)
            {
                self.fail(error);
            }
            next = dir.parent;
        }
    }

    fn seal(&self, dir: &Dir) -> Result<(), FileError> {
        let Some(dest) = dir.dest.get() else { return Ok(()) };
        let attributes = self.changes.attributes(&dir.stat);
        let fd = dest.fd.as_fd();
        let birth = match dest.sealing {
            Sealing::Nothing => return Ok(()),
            Sealing::Mode => {
                let mode = Mode::from_raw_mode(attributes.mode);
                return Ok(fchmod(fd, mode).at("set the mode of", &dir.path)?);
            }
            // What it hands down says nothing of how it came to be.
            Sealing::Merged => Birth::Unknown,
            Sealing::Made => dest.birth,
        };
        attributes.give_to_dir(self.run, fd, birth).at("set the attributes of", &dir.path)?;
        Ok(attributes.give_time(fd).at("set the time of", &dir.path)?)
    }

    /// Copies the file capabilities, if those of the source mean anything.
    pub(super) fn capabilities(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        path: &Path,
    ) -> Result<(), FileError> {
        match self.changes.kind {
            SourceKind::Context => Ok(()),
            SourceKind::Tree => {
                Ok(copy_capabilities(self.run, from, to, path).at("copy the capabilities of", path)?)
            }
        }
    }

    fn check_stopped(&self) -> Result<(), FileError> {
        if self.stopped.load(Ordering::Relaxed) {
            Err(FileError::Cancelled)
        } else {
            self.run.check_cancelled()
        }
    }

    /// Remembers the first error and stops all tasks.
    fn fail(&self, error: FileError) {
        if !self.stopped.swap(true, Ordering::Relaxed) {
            *lock(&self.failure) = Some(error);
        }
    }
}

impl Dir {
    fn new(
        parent: Option<Arc<Self>>,
        name: OsString,
        source: OwnedFd,
        stat: Stat,
        level: Level,
    ) -> Result<Self, FileError> {
        let path = parent.as_ref().map_or_else(PathBuf::new, |parent| parent.path.join(&name));
        let depth = parent.as_ref().map_or(0, |parent| parent.depth + 1);
        if depth > TREE_DEPTH_MAX {
            return Err(FileError::TooDeep { path });
        }
        let (dest, making) = (OnceLock::new(), Mutex::new(()));
        Ok(Self { parent, name, path, source, stat, level, depth, dest, making })
    }

    /// The directory that holds a single source; it has no destination of its own.
    pub(super) fn holding(source: OwnedFd) -> Result<Self, FileError> {
        let stat = fstat(&source).at("read the attributes of", "")?;
        Self::new(None, OsString::new(), source, stat, Level::default())
    }
}
