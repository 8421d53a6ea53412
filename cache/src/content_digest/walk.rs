//! The first pass: which directories there are, and which of their names count.
//!
//! All directories of a level are listed at once, then those of the next. Nothing recurses and no descriptor
//! outlives the listing of its directory, so neither depth nor width of a tree is a danger.
//!
//! A directory with the times that it had when it was listed has the same names. To read them from the stat cache takes a fraction of
//! the time of listing it, which the kernel does in the order of hashes.

use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use rayon::prelude::*;
use rustix::fs::{FileType, FsWord, Stat, fstat, fstatfs};

use super::file::{News, attributes_digest};
use super::stat_cache::{DirectoryId, Row};
use super::{Blake3, DigestOptions, Error, Filter, Selected, TREE_DEPTH_MAX, Verdict};
use crate::layer::OverlayXattrs;
use crate::layer::whiteout::is_opaque;
use crate::root_dir::{At, RootDir, list};

/// Ext4, xfs, btrfs, f2fs, bcachefs and tmpfs, by their numbers in `linux/magic.h`.
const LOCAL_FILE_SYSTEMS: [FsWord; 6] =
    [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0xca45_1a4e, 0x0102_1994];

/// How many directories a thread takes at once at most.
const DIRECTORIES_AT_ONCE: usize = 8;

/// A walk and the directories it found, each before those in it.
pub(super) struct Walk<'a> {
    pub(super) root: &'a RootDir,
    pub(super) options: &'a DigestOptions<'a>,
    /// The form of the marks that count, if the tree is a layer.
    pub(super) marks: Option<OverlayXattrs>,
    pub(super) dirs: Vec<Dir>,
    /// Which of them are of one level, from the top.
    pub(super) levels: Vec<Range<usize>>,
}

/// A directory.
pub(super) struct Dir {
    /// From the root.
    pub(super) path: PathBuf,
    /// From the selected path.
    pub(super) below: PathBuf,
    /// The directory that holds it, if it was walked.
    pub(super) parent: Option<usize>,
    /// Whether it counts even when nothing in it does.
    pub(super) wanted: bool,
    pub(super) listing: Listing,
}

/// A row of the stat cache, and whose it is.
pub(super) type KeptRow = (DirectoryId, Vec<u8>);

/// What was found in a directory.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) stat: Stat,
    pub(super) xattrs: Option<Blake3>,
    pub(super) opaque: bool,
    /// Names that count and are no directories, sorted.
    pub(super) files: Vec<OsString>,
    /// Names of directories that count or hold something that may, sorted.
    subdirs: Vec<Subdir>,
    /// Names of directories that do not.
    skipped: Vec<OsString>,
    /// Whether its file system is one of those that are known.
    pub(super) is_local: bool,
    /// What is remembered of it.
    pub(super) remembered: Row,
    /// Whether its names are to be.
    pub(super) news: News,
    /// Names of what is no directory, does not count now and is remembered all the same; sorted.
    pub(super) passed_over: Vec<(OsString, FileType)>,
}

#[derive(Debug)]
struct Subdir {
    name: OsString,
    verdict: Verdict,
}

/// What a selected path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Top {
    /// A directory, by its place in [`Walk::dirs`].
    Directory(usize),
    /// Anything else: its path without symlinks, except perhaps itself.
    File(PathBuf),
}

/// A directory still to be listed.
struct Task<'a> {
    path: PathBuf,
    below: PathBuf,
    parent: Option<usize>,
    wanted: bool,
    depth: usize,
    filter: Option<Filter<'a>>,
}

impl<'a> Walk<'a> {
    pub(super) const fn new(
        root: &'a RootDir,
        options: &'a DigestOptions<'a>,
        marks: Option<OverlayXattrs>,
    ) -> Self {
        Self { root, options, marks, dirs: Vec::new(), levels: Vec::new() }
    }

    /// Finds all directories. Returns what the selected paths are.
    pub(super) fn run(&mut self, selected: &[Selected<'_>]) -> Result<Vec<Top>, Error> {
        let (mut tops, mut level) = (Vec::new(), Vec::new());
        for selected in selected {
            match self.top(selected)? {
                Some(path) => tops.push(Top::File(path)),
                None => {
                    tops.push(Top::Directory(level.len()));
                    level.push(self.first_task(selected)?);
                }
            }
        }
        while !level.is_empty() {
            level = self.level(level)?;
        }
        Ok(tops)
    }

    /// The resolved path of what is selected, unless it is a directory.
    fn top(&self, selected: &Selected<'_>) -> Result<Option<PathBuf>, Error> {
        let (root, path) = (self.root, selected.path);
        let stat = if selected.follow_links { root.stat(path)? } else { root.lstat(path)? };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Ok(None);
        }
        if selected.follow_links {
            return Ok(Some(root.resolve(path)?));
        }
        let (above, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
        Ok(Some(root.resolve(above)?.join(name)))
    }

    fn first_task<'s>(&self, selected: &Selected<'s>) -> Result<Task<'s>, Error> {
        Ok(Task {
            path: self.root.resolve(selected.path)?,
            below: PathBuf::new(),
            parent: None,
            wanted: true,
            depth: 0,
            filter: selected.filter,
        })
    }

    /// Lists the directories of a level and returns those of the next.
    fn level<'s>(&mut self, tasks: Vec<Task<'s>>) -> Result<Vec<Task<'s>>, Error> {
        let this = &*self;
        // While one thread asks for rows, others list what they have asked for.
        let some = |tasks: &[Task<'s>]| {
            let remembered = this.remembered(tasks)?;
            tasks.iter().zip(remembered).map(|(task, row)| this.listing(task, row)).collect()
        };
        let share = tasks.len().div_ceil(rayon::current_num_threads());
        let at_once = share.clamp(1, DIRECTORIES_AT_ONCE);
        let listings: Vec<Vec<Listing>> =
            tasks.par_chunks(at_once).map(some).collect::<Result<_, Error>>()?;
        let mut next = Vec::new();
        self.levels.push(self.dirs.len()..self.dirs.len() + tasks.len());
        for (task, listing) in tasks.into_iter().zip(listings.into_iter().flatten()) {
            let here = self.dirs.len();
            next.extend(listing.subdirs.iter().map(|subdir| task.child(here, subdir)));
            let Task { path, below, parent, wanted, .. } = task;
            self.dirs.push(Dir { path, below, parent, wanted, listing });
        }
        Ok(next)
    }

    /// What is remembered of directories, by what they were before they are listed.
    fn remembered(&self, tasks: &[Task<'_>]) -> Result<Vec<Option<KeptRow>>, Error> {
        let Some(memory) = self.options.memory else { return Ok(tasks.iter().map(|_| None).collect()) };
        let id = |task: &Task<'_>| Ok(DirectoryId::of(&self.root.lstat(&task.path)?));
        let directories = tasks.iter().map(id).collect::<Result<Vec<DirectoryId>, Error>>()?;
        let rows = memory.cache.get(&directories);
        Ok(directories.into_iter().zip(rows).map(|(directory, row)| Some((directory, row?))).collect())
    }

    /// Whether a directory is of a file system that is known: there its change time and its files' are the kernel's, and it gets a new one with every name
    /// that it gains or loses. What others do, with servers of all kinds behind them, is not known. Nobody asks where nothing is remembered.
    pub(super) fn is_local(&self, dir: BorrowedFd<'_>, path: &Path) -> Result<bool, Error> {
        if self.options.memory.is_none() {
            return Ok(false);
        }
        let file_system = fstatfs(dir).at("look at the file system of", path)?;
        Ok(LOCAL_FILE_SYSTEMS.contains(&file_system.f_type))
    }

    fn listing(&self, task: &Task<'_>, remembered: Option<KeptRow>) -> Result<Listing, Error> {
        if self.options.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed)) {
            return Err(Error::Cancelled);
        }
        if task.depth > TREE_DEPTH_MAX {
            return Err(Error::TooDeep { path: task.path.clone() });
        }
        let path = &task.path;
        let (dir, here) = (self.root.open_dir(path)?, OsStr::new("."));
        let stat = fstat(&dir).at("read the attributes of", path)?;
        let xattrs =
            attributes_digest(dir.as_fd(), here, self.options.owner).at("read the attributes of", path)?;
        let opaque = match self.marks {
            Some(marks) => is_opaque(dir.as_fd(), here, marks).at("read the attributes of", path)?,
            None => false,
        };
        let remembered = remembered.filter(|(directory, _)| *directory == DirectoryId::of(&stat));
        let remembered = remembered.and_then(|(_, row)| Row::decode(row, self.options.owner));
        let remembered = remembered.unwrap_or_default();
        let is_local = self.is_local(dir.as_fd(), path)?;
        let known = if is_local { remembered.names(&stat) } else { None };
        let news = match &known {
            Some(_) => News::None,
            None if is_local => News::Some,
            None => News::Unfit,
        };
        let (files, subdirs, skipped, passed_over) = Default::default();
        let mut listing = Listing {
            stat,
            xattrs,
            opaque,
            files,
            subdirs,
            skipped,
            is_local,
            remembered,
            news,
            passed_over,
        };
        let mut names = known.map_or_else(|| list(dir.as_fd()), Ok).at("list", path)?;
        names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for (name, kind) in names {
            let verdict = task.verdict(&name, kind);
            listing.add(name, kind, verdict);
        }
        Ok(listing)
    }
}

impl Top {
    /// Where it is, if it is no directory.
    pub(super) fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Directory(_) => None,
        }
    }
}

impl Listing {
    fn add(&mut self, name: OsString, kind: FileType, verdict: Verdict) {
        match (kind, verdict) {
            (FileType::Directory, Verdict::SkipTree) => self.skipped.push(name),
            (FileType::Directory, verdict) => self.subdirs.push(Subdir { name, verdict }),
            (_, Verdict::Take | Verdict::TakeTree) => self.files.push(name),
            (_, Verdict::Skip | Verdict::SkipTree) => self.passed_over.push((name, kind)),
        }
    }

    /// All names but those of files that count, and what they are.
    pub(super) fn others(&self) -> impl Iterator<Item = (&OsStr, FileType)> {
        let directories = self.subdirs.iter().map(|subdir| &subdir.name).chain(&self.skipped);
        let directories = directories.map(|name| (name.as_os_str(), FileType::Directory));
        directories.chain(self.passed_over.iter().map(|(name, kind)| (name.as_os_str(), *kind)))
    }
}

impl<'a> Task<'a> {
    fn verdict(&self, name: &OsStr, kind: FileType) -> Verdict {
        match self.filter {
            Some(filter) => filter(&self.below.join(name), kind == FileType::Directory),
            None => Verdict::TakeTree,
        }
    }

    fn child(&self, parent: usize, subdir: &Subdir) -> Self {
        Self {
            path: self.path.join(&subdir.name),
            below: self.below.join(&subdir.name),
            parent: Some(parent),
            wanted: subdir.verdict != Verdict::Skip,
            depth: self.depth + 1,
            filter: self.filter.filter(|_| subdir.verdict != Verdict::TakeTree),
        }
    }
}
