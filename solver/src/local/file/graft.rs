//! Plans the copy of a directory into an empty one as a [`Tree`]: looks at every file, and opens none.
//!
//! What a file holds is known by its digest where the stat cache remembers it, and else left to be read by whoever stores the
//! tree. Everything else is as `tree.rs` and `entry.rs` would have made it: what is taken, and with which attributes.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rbuild_cache::content_digest::{KnownFile, KnownFiles, content_of};
use rbuild_cache::layer::TREE_DEPTH_MAX;
use rbuild_cache::layer::reader::Time;
use rbuild_cache::root_dir::{At, FileType, RootDir, Stat, list, xattr};
use rbuild_cache::tree::{self, Content, Entries, Inode, InodeId, Kind, Tree};
use rbuild_cache::{KnownDirectory, KnownLayers};
use rustix::fs::{AtFlags, Timespec, UTIME_NOW, fstat, futimens, readlinkat, statat};

use super::attributes::{CAPABILITY, Changes, modified_at};
use super::filter::{Decision, Filter, Level};
use super::run::Run;
use super::{CopySource, FileError, SourceKind};

/// When a directory is planned.
pub(super) struct When<'a> {
    /// With so many files or more.
    pub(super) files_min: usize,
    /// Where it can be. To try that takes longer than to copy a few files.
    pub(super) is_possible: &'a dyn Fn() -> bool,
}

/// Looks at what a directory of a tree holds. `None` when it is less than is worth it.
pub(super) fn plan(
    run: &Run<'_>,
    changes: &Changes,
    filter: &Filter<'_>,
    (source, base): (&CopySource<'_>, &Path),
    when: &When<'_>,
) -> Result<Option<Tree>, FileError> {
    let root = source.root.subroot(base)?;
    let mut planner = Planner { run, changes, filter, root: &root, nodes: Vec::new() };
    let stat = fstat(&root).at("read the attributes of", "")?;
    planner.nodes.push(Node {
        parent: 0,
        name: OsString::new(),
        stat,
        what: What::Directory { taken: true },
    });
    let mut level = vec![Task { at: 0, path: PathBuf::new(), level: filter.top() }];
    for _ in 0..=TREE_DEPTH_MAX {
        level = planner.level(level)?;
        let is_worth_it = planner.nodes.len() > when.files_min.max(1);
        if is_worth_it && !(when.is_possible)() {
            return Ok(None);
        }
        if level.is_empty() {
            if !is_worth_it {
                return Ok(None);
            }
            if let Some(layers) = source.layers {
                planner.ask_layers(layers, base);
            }
            return Ok(Some(planner.finish()));
        }
    }
    Err(FileError::TooDeep { path: level.swap_remove(0).path })
}

/// Whether a tree can be laid over a directory: wherever both have a name, both have a directory there or neither has, and such a directory
/// gets all of its attributes from the tree. One that `keeps_attributes`, by its path, does not.
pub(super) fn fits(
    tree: &Tree,
    dest: &RootDir,
    keeps_attributes: impl Fn(&Path) -> bool,
) -> Result<bool, FileError> {
    let mut common = vec![(PathBuf::new(), InodeId::ROOT)];
    while let Some((path, id)) = common.pop() {
        let (dir, entries) = (dest.open_dir(&path)?, tree.entries(id));
        for (name, kind) in list(dir.as_fd()).at("list", &path)? {
            let Some(child) = entries.and_then(|entries| entries.get(&name)) else { continue };
            match (kind.is_dir(), tree.entries(*child).is_some()) {
                (false, false) => {}
                (true, true) if !keeps_attributes(&path.join(&name)) && !has_xattrs(&dir, &name, &path)? => {
                    common.push((path.join(name), *child));
                }
                _ => return Ok(false),
            }
        }
    }
    Ok(true)
}

fn has_xattrs(dir: &OwnedFd, name: &OsStr, path: &Path) -> Result<bool, FileError> {
    let all = xattr::read_all(dir.as_fd(), name, |_| true).at("read the attributes of", path.join(name))?;
    Ok(!all.is_empty())
}

/// Says that something was put into a directory: it is in the layer then, with a new time.
pub(super) fn touch(directory: BorrowedFd<'_>) -> Result<(), FileError> {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    Ok(futimens(directory, &modified_at(now)).at("set the time of", "the destination")?)
}

struct Planner<'a> {
    run: &'a Run<'a>,
    changes: &'a Changes,
    filter: &'a Filter<'a>,
    root: &'a RootDir,
    /// Each directory before what is in it.
    nodes: Vec<Node>,
}

/// Something that is copied.
struct Node {
    /// The directory that it is in, by its place.
    parent: usize,
    name: OsString,
    stat: Stat,
    what: What,
}

enum What {
    /// A directory; one that is not asked for is made when something is put into it.
    Directory {
        taken: bool,
    },
    File {
        digest: Option<[u8; 32]>,
        capability: Option<Vec<u8>>,
    },
    Link(Vec<u8>),
    Special(FileType),
}

/// A directory to be listed.
struct Task {
    at: usize,
    path: PathBuf,
    level: Level,
}

/// A directory that is being listed.
struct OpenDir<'a> {
    path: &'a Path,
    fd: BorrowedFd<'a>,
    known: KnownFiles<'a>,
}

/// What was found in one, with the lists for what is below.
type Found = Vec<(Node, Option<Level>)>;

impl Planner<'_> {
    /// Lists the directories of a level, and returns those of the next.
    fn level(&mut self, tasks: Vec<Task>) -> Result<Vec<Task>, FileError> {
        let pool = self.run.options.pool;
        let this = &*self;
        let found: Vec<Found> =
            pool.install(|| tasks.par_iter().map(|task| this.entries(task)).collect::<Result<_, _>>())?;
        let mut next = Vec::new();
        for (task, found) in tasks.into_iter().zip(found) {
            for (node, level) in found {
                if let Some(level) = level {
                    let path = task.path.join(&node.name);
                    next.push(Task { at: self.nodes.len(), path, level });
                }
                self.nodes.push(node);
            }
        }
        Ok(next)
    }

    fn entries(&self, task: &Task) -> Result<Found, FileError> {
        self.run.check_cancelled()?;
        let dir = self.root.open_dir(&task.path)?;
        let known = match self.run.options.known.filter(|_| self.changes.kind == SourceKind::Context) {
            Some(context) => context.files(&fstat(&dir).at("read the attributes of", &task.path)?),
            None => KnownFiles::none(),
        };
        let names = known.names().map_or_else(|| list(dir.as_fd()), Ok).at("list", &task.path)?;
        let (mut found, open) = (Vec::new(), OpenDir { path: &task.path, fd: dir.as_fd(), known });
        for (name, kind) in names {
            let (taken, level) = if kind.is_dir() {
                match self.filter.decide(&task.level, &task.path, &name) {
                    Decision::Prune => continue,
                    Decision::Pass(level) => (false, Some(level)),
                    Decision::Take(level) => (true, Some(level)),
                }
            } else if self.filter.takes(&task.level, &task.path, &name) {
                (true, None)
            } else {
                continue;
            };
            let node = self.node(&open, task.at, name, taken)?;
            found.push((node, level));
        }
        Ok(found)
    }

    fn node(
        &self,
        open: &OpenDir<'_>,
        parent: usize,
        name: OsString,
        taken: bool,
    ) -> Result<Node, FileError> {
        let (dir, known) = (open.fd, open.known.file(&name));
        let stat = known.as_ref().and_then(KnownFile::stat);
        let stat = stat.map_or_else(|| statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW), Ok);
        let stat = stat.at_name("read the attributes of", open.path, &name)?;
        let is_context = self.changes.kind == SourceKind::Context;
        let what = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => What::Directory { taken },
            FileType::RegularFile => What::File {
                digest: known.and_then(|known| known.digest(&stat)),
                capability: if is_context { None } else { capability(open, &name)? },
            },
            FileType::Symlink => {
                let target = readlinkat(dir, &name, Vec::new()).at_name("read the link", open.path, &name)?;
                What::Link(target.into_bytes())
            }
            FileType::Socket if is_context => What::File { digest: None, capability: None },
            FileType::Unknown => return Err(FileError::UnknownKind { path: open.path.join(&name) }),
            kind => What::Special(kind),
        };
        Ok(Node { parent, name, stat, what })
    }

    /// Notes what files hold of which the layers say it. `base` is the directory that is copied.
    fn ask_layers(&mut self, layers: &KnownLayers, base: &Path) {
        let mut paths: HashMap<usize, PathBuf> = HashMap::from([(0, base.to_owned())]);
        let mut last: Option<(usize, KnownDirectory<'_>)> = None;
        for at in 1..self.nodes.len() {
            let Node { parent, name, stat, what } = &mut self.nodes[at];
            let Some(directory) = paths.get(parent) else { continue };
            match what {
                What::Directory { .. } => drop(paths.insert(at, directory.join(&*name))),
                What::File { digest, .. } => {
                    let (_, here) = match last.take().filter(|(of, _)| of == parent) {
                        Some(same) => last.insert(same),
                        None => last.insert((*parent, layers.directory(directory))),
                    };
                    *digest = here.file(name).and_then(|inode| content_of(inode, stat));
                }
                What::Link(_) | What::Special(_) => {}
            }
        }
    }

    /// Makes a tree of what is taken.
    fn finish(mut self) -> Tree {
        let kept = self.kept();
        let mut tree = Tree::new(tree::Attributes::default());
        let (mut ids, mut links) = (vec![InodeId::ROOT; self.nodes.len()], HashMap::new());
        let nodes = std::mem::take(&mut self.nodes);
        for (at, node) in nodes.into_iter().enumerate().skip(1).filter(|(at, _)| kept[*at]) {
            let several = matches!(node.what, What::File { .. }) && node.stat.st_nlink > 1;
            let inode = (node.stat.st_dev, node.stat.st_ino);
            let first = links.get(&inode).filter(|_| several).copied();
            let Node { parent, name, stat, what } = node;
            let id = first.unwrap_or_else(|| tree.add(self.inode(&stat, what)));
            if several {
                links.insert(inode, id);
            }
            ids[at] = id;
            tree.name(ids[parent], name, id);
        }
        tree
    }

    /// Which nodes are in the tree: not the directories that nobody asked for and that nothing is in.
    fn kept(&self) -> Vec<bool> {
        let mut kept = vec![false; self.nodes.len()];
        for (at, node) in self.nodes.iter().enumerate().rev() {
            kept[at] |= !matches!(node.what, What::Directory { taken: false });
            kept[node.parent] |= kept[at];
        }
        kept
    }

    fn inode(&self, stat: &Stat, what: What) -> Inode {
        let given = self.changes.attributes(stat);
        let mtime =
            Time { seconds: given.time.tv_sec, nanoseconds: u32::try_from(given.time.tv_nsec).unwrap_or(0) };
        let is_regular = FileType::from_raw_mode(stat.st_mode).is_file();
        let size_bytes = if is_regular { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
        let (kind, mode, capability) = match what {
            What::Directory { .. } => (Kind::Directory(Entries::new()), given.mode, None),
            What::File { digest, capability } => {
                (Kind::File(Content { size_bytes, digest, place: None }), given.mode, capability)
            }
            // Links have no mode of their own.
            What::Link(target) => (Kind::Symlink(target), 0o777, None),
            What::Special(kind) => (Kind::Special(kind, stat.st_rdev), given.mode, None),
        };
        let xattrs = capability.map(|value| (CAPABILITY.to_owned(), value)).into_iter().collect();
        let attributes = tree::Attributes { mode, uid: given.ids.uid, gid: given.ids.gid, mtime, xattrs };
        Inode { attributes, kind }
    }
}

fn capability(open: &OpenDir<'_>, name: &OsStr) -> Result<Option<Vec<u8>>, FileError> {
    Ok(xattr::read(open.fd, name, CAPABILITY).at_name("copy the capabilities of", open.path, name)?)
}
