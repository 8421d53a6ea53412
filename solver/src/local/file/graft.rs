//! Plans the copy of a directory into an empty one as a [`Tree`]: looks at every file, and opens none.
//!
//! What a file holds is known by its digest where the stat cache remembers it, and else left to be read by whoever stores the
//! tree. Everything else is as `tree.rs` and `entry.rs` would have made it: what is taken, and with which attributes.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use rbuild_cache::KnownLayers;
use rbuild_cache::content_digest::{
    Blake3, Folded, KnownContents, KnownFile, KnownFiles, content_of, digest_of_directory, digest_of_link,
};
use rbuild_cache::layer::TREE_DEPTH_MAX;
use rbuild_cache::layer::reader::Time;
use rbuild_cache::root_dir::xattr::{self, Xattrs};
use rbuild_cache::root_dir::{At, FileType, RootDir, Stat, list};
use rbuild_cache::tree::{self, Content, Entries, Inode, InodeId, Kind, Tree};
use rustix::fs::{AtFlags, Timespec, UTIME_NOW, fstat, futimens, readlinkat, statat};
use rustix::io::Errno;

use super::attributes::{CAPABILITY, Changes, modified_at};
use super::filter::{Decision, Filter, Level};
use super::run::Run;
use super::{CopySource, FileError, SourceKind};

/// How many directories a thread takes at once at most, so that none has much left when the others are done.
const DIRECTORIES_AT_ONCE: usize = 8;

/// When a directory is planned.
pub(super) struct When<'a> {
    /// With so many files or more.
    pub(super) files_min: usize,
    /// Where it can be. To try that takes longer than to copy a few files.
    pub(super) is_possible: &'a dyn Fn() -> bool,
}

/// What a copy of a directory will make.
pub(super) struct Plan {
    pub(super) tree: Tree,
    /// The digests of what is in directories that are taken as they were seen.
    pub(super) known: KnownContents,
    /// Whether all of it is what the build had seen before.
    pub(super) is_as_seen: bool,
}

/// Looks at what a directory of a tree holds. `None` when it is less than is worth it.
pub(super) fn plan(
    run: &Run<'_>,
    changes: &Changes,
    filter: &Filter<'_>,
    (source, base): (&CopySource<'_>, &Path),
    when: &When<'_>,
) -> Result<Option<Plan>, FileError> {
    let root = source.root.subroot(base)?;
    let stat = fstat(&root).at("read the attributes of", "")?;
    let top = Dir::new(0, PathBuf::new(), stat, true);
    let layers = source.layers;
    let (dirs, is_as_seen) = (vec![top], AtomicBool::new(true));
    let mut planner = Planner { run, changes, filter, root: &root, layers, dirs, count: 1, is_as_seen };
    let mut level = vec![Task { at: 0, level: filter.top() }];
    for _ in 0..=TREE_DEPTH_MAX {
        level = planner.level(level)?;
        let is_worth_it = planner.count > when.files_min.max(1);
        if is_worth_it && !(when.is_possible)() {
            return Ok(None);
        }
        if level.is_empty() {
            if !is_worth_it {
                return Ok(None);
            }
            if let Some(layers) = layers {
                planner.ask_layers(layers, base);
            }
            let is_as_seen = planner.is_as_seen.load(Ordering::Relaxed);
            let (tree, known) = planner.finish();
            return Ok(Some(Plan { tree, known, is_as_seen }));
        }
    }
    Err(FileError::TooDeep { path: std::mem::take(&mut planner.dirs[level[0].at].path) })
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
    /// The layers of what is copied, if it has any.
    layers: Option<&'a KnownLayers>,
    /// Each before those in it.
    dirs: Vec<Dir>,
    /// How much of all types there is.
    count: usize,
    /// Whether there was nothing so far that the build had not seen, contents included.
    is_as_seen: AtomicBool,
}

/// A directory that is copied.
struct Dir {
    /// The directory that it is in, by its place.
    parent: usize,
    /// From the top.
    path: PathBuf,
    stat: Stat,
    /// Whether it is asked for; else it is made when something is put into it.
    taken: bool,
    /// What is in it but directories.
    files: Files,
    /// What came of it for a digest, if the files in it are taken as they were seen.
    folded: Option<Folded>,
    /// The places of the directories in it.
    below: Range<usize>,
}

/// What is copied of a directory but those in it.
#[derive(Default)]
struct Files {
    inodes: Vec<Inode>,
    /// Their names, for their places among these.
    names: Entries,
    /// What those had where that is asked for again: by their layers, or because they have several names.
    stats: BTreeMap<InodeId, Stat>,
}

/// A directory to be listed, by its place.
struct Task {
    at: usize,
    level: Level,
}

/// A directory that is being listed.
struct OpenDir<'a> {
    path: &'a Path,
    fd: BorrowedFd<'a>,
}

/// What was found in a directory.
#[derive(Default)]
struct Found {
    files: Files,
    folded: Option<Folded>,
    subdirs: Vec<Subdir>,
}

/// A directory in it, with the lists for what is below.
struct Subdir {
    name: OsString,
    stat: Stat,
    taken: bool,
    level: Level,
}

impl Planner<'_> {
    /// Lists the directories of a level, and returns those of the next.
    fn level(&mut self, tasks: Vec<Task>) -> Result<Vec<Task>, FileError> {
        let pool = self.run.options.pool;
        let this = &*self;
        let found: Vec<Found> = pool.install(|| {
            tasks
                .par_iter()
                .with_max_len(DIRECTORIES_AT_ONCE)
                .map(|task| this.entries(task))
                .collect::<Result<_, _>>()
        })?;
        let mut next = Vec::new();
        for (Task { at: parent, .. }, Found { files, folded, subdirs }) in tasks.into_iter().zip(found) {
            self.count += files.inodes.len() + subdirs.len();
            (self.dirs[parent].files, self.dirs[parent].folded) = (files, folded);
            let first = self.dirs.len();
            for Subdir { name, stat, taken, level } in subdirs {
                let path = self.dirs[parent].path.join(name);
                next.push(Task { at: self.dirs.len(), level });
                self.dirs.push(Dir::new(parent, path, stat, taken));
            }
            self.dirs[parent].below = first..self.dirs.len();
        }
        Ok(next)
    }

    fn entries(&self, task: &Task) -> Result<Found, FileError> {
        self.run.check_cancelled()?;
        let path = self.dirs[task.at].path.as_path();
        let dir = self.root.open_dir(path)?;
        let stat = fstat(&dir).at("read the attributes of", path)?;
        let known = match self.changes.kind {
            SourceKind::Context => self.run.options.known.map(|context| context.files(&stat)),
            SourceKind::Tree => self.layers.map(|layers| layers.seen(&stat)),
        };
        let known = known.unwrap_or_else(KnownFiles::none);
        if !known.is_seen() {
            self.is_as_seen.store(false, Ordering::Relaxed);
        }
        let (mut found, open) = (Found::default(), OpenDir { path, fd: dir.as_fd() });
        let (all, mut names) = (all(&open, &known)?, Vec::new());
        let mut counts_as_seen = true;
        found.files.inodes.reserve(all.len());
        for (name, kind, file) in all {
            let (taken, level) = if kind.is_dir() {
                match self.filter.decide(&task.level, path, &name) {
                    Decision::Prune => continue,
                    Decision::Pass(level) => (false, level),
                    Decision::Take(level) => (true, level),
                }
            } else {
                if self.filter.takes(&task.level, path, &name) {
                    let (inode, stat) = self.inode(&open, &name, file.as_ref())?;
                    counts_as_seen &= file.is_some_and(|file| file.counts_as(&inode));
                    names.push((name, found.files.add(inode, stat)));
                } else {
                    counts_as_seen &= file.is_none();
                }
                continue;
            };
            let stat = open.stat(&name)?;
            found.subdirs.push(Subdir { name, stat, taken, level });
        }
        // Sorted as a rule, of which a tree is made faster than by one after the other.
        found.files.names = names.into_iter().collect();
        found.folded = known.folded().filter(|_| counts_as_seen).cloned();
        Ok(found)
    }

    /// A directory without what is in it.
    fn directory(&self, dir: &Dir) -> Inode {
        Inode { attributes: self.attributes(&dir.stat), kind: Kind::Directory(Entries::new()) }
    }

    /// What something becomes, and what it had, where that is asked for again.
    fn inode(
        &self,
        open: &OpenDir<'_>,
        name: &OsStr,
        known: Option<&KnownFile<'_>>,
    ) -> Result<(Inode, Option<Stat>), FileError> {
        let stat = known.and_then(KnownFile::stat).map_or_else(|| open.stat(name), Ok)?;
        let is_plain = known.is_some_and(KnownFile::is_plain);
        let kind = self.kind(open, name, &stat, known)?;
        let mut attributes = self.attributes(&stat);
        match kind {
            // Links have no mode of their own.
            Kind::Symlink(_) => attributes.mode = 0o777,
            Kind::File(_) if self.changes.kind == SourceKind::Tree && !is_plain => {
                let capability = capability(open, name)?;
                attributes.xattrs =
                    capability.map(|value| (CAPABILITY.to_owned(), value)).into_iter().collect();
            }
            _ => {}
        }
        let is_asked_for =
            self.layers.is_some() && matches!(&kind, Kind::File(content) if content.digest.is_none());
        let stat = (is_asked_for || stat.st_nlink > 1).then_some(stat);
        Ok((Inode { attributes, kind }, stat))
    }

    fn kind(
        &self,
        open: &OpenDir<'_>,
        name: &OsStr,
        stat: &Stat,
        known: Option<&KnownFile<'_>>,
    ) -> Result<Kind, FileError> {
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Directory(Entries::new()),
            FileType::RegularFile => {
                let digest = known.and_then(|known| known.digest(stat));
                if digest.is_none() {
                    self.is_as_seen.store(false, Ordering::Relaxed);
                }
                let size_bytes = u64::try_from(stat.st_size).unwrap_or(0);
                Kind::File(Content { size_bytes, digest, place: None })
            }
            FileType::Symlink => {
                let target =
                    readlinkat(open.fd, name, Vec::new()).at_name("read the link", open.path, name)?;
                if known.and_then(|known| known.digest(stat)) != Some(digest_of_link(target.to_bytes())) {
                    self.is_as_seen.store(false, Ordering::Relaxed);
                }
                Kind::Symlink(target.into_bytes())
            }
            FileType::Socket if self.changes.kind == SourceKind::Context => {
                Kind::File(Content { size_bytes: 0, digest: None, place: None })
            }
            FileType::Unknown => return Err(FileError::UnknownKind { path: open.path.join(name) }),
            // In a layer it would be a whiteout. Overlayfs lets nobody make one either.
            FileType::CharacterDevice if stat.st_rdev == 0 => {
                return Ok(Err(Errno::PERM).at_name("create the device", open.path, name)?);
            }
            kind => Kind::Special(kind, stat.st_rdev),
        })
    }

    fn attributes(&self, stat: &Stat) -> tree::Attributes {
        let given = self.changes.attributes(stat);
        let mtime =
            Time { seconds: given.time.tv_sec, nanoseconds: u32::try_from(given.time.tv_nsec).unwrap_or(0) };
        tree::Attributes {
            mode: given.mode,
            uid: given.ids.uid,
            gid: given.ids.gid,
            mtime,
            xattrs: Xattrs::new(),
        }
    }

    /// Notes what files hold of which the layers say it. `base` is the directory that is copied.
    fn ask_layers(&mut self, layers: &KnownLayers, base: &Path) {
        let ask = |dir: &mut Dir| {
            let here = layers.directory(&base.join(&dir.path));
            let Files { inodes, names, stats } = &mut dir.files;
            for (name, id) in names {
                if let (Kind::File(content @ Content { digest: None, .. }), Some(stat)) =
                    (&mut inodes[id.index()].kind, stats.get(id))
                {
                    content.digest = here.file(name).and_then(|inode| content_of(inode, stat));
                }
            }
        };
        let dirs = self.dirs.par_iter_mut().filter(|dir| !dir.files.inodes.is_empty());
        self.run.options.pool.install(|| dirs.for_each(ask));
    }

    /// Makes a tree of what is taken, with the digests of what is in directories that are taken as they were seen.
    fn finish(mut self) -> (Tree, KnownContents) {
        let kept = self.kept();
        let mut tree = Tree::new(tree::Attributes::default());
        tree.reserve(self.count);
        let (mut ids, mut links) = (vec![InodeId::ROOT; self.dirs.len()], HashMap::new());
        for at in (0..self.dirs.len()).filter(|at| kept[*at]) {
            let below = self.dirs[at].below.clone();
            let (mut entries, is_alike) =
                std::mem::take(&mut self.dirs[at].files).add_to(&mut tree, &mut links);
            self.dirs[at].folded.take_if(|_| !is_alike);
            for below in below.filter(|below| kept[*below]) {
                let dir = &self.dirs[below];
                ids[below] = tree.add(self.directory(dir));
                entries.insert(dir.name().to_owned(), ids[below]);
            }
            tree.fill(ids[at], entries);
        }
        let known = ids.into_iter().zip(self.contents(&kept));
        let known = known.filter_map(|(id, content)| Some((id, content?)));
        (tree, known.filter(|(id, _)| *id != InodeId::ROOT).collect())
    }

    /// The digest of what is in each directory that is taken as it was seen, with all below it. What was seen of one in it may be of another look, with
    /// another filter.
    fn contents(&self, kept: &[bool]) -> Vec<Option<Blake3>> {
        let mut contents: Vec<Option<Blake3>> = vec![None; self.dirs.len()];
        for (at, dir) in self.dirs.iter().enumerate().rev() {
            let Some(folded) = &dir.folded else { continue };
            let below: Vec<usize> = dir.below.clone().filter(|below| kept[*below]).collect();
            let is_as_seen = |below: &usize| {
                let dir = &self.dirs[*below];
                let own = contents[*below].map(|content| digest_of_directory(&self.directory(dir), content));
                own.is_some() && own.as_ref() == folded.subdirs.get(dir.name())
            };
            if below.len() == folded.subdirs.len() && below.iter().all(is_as_seen) {
                contents[at] = Some(folded.content);
            }
        }
        contents
    }

    /// Which directories are in the tree: not those that nobody asked for and that nothing is in.
    fn kept(&self) -> Vec<bool> {
        let mut kept = vec![false; self.dirs.len()];
        for (at, dir) in self.dirs.iter().enumerate().rev() {
            kept[at] |= dir.taken || !dir.files.inodes.is_empty();
            kept[dir.parent] |= kept[at];
        }
        kept
    }
}

impl Dir {
    /// One that was not looked into yet.
    fn new(parent: usize, path: PathBuf, stat: Stat, taken: bool) -> Self {
        Self { parent, path, stat, taken, files: Files::default(), folded: None, below: 0..0 }
    }

    fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }
}

impl Files {
    /// Adds one that has no name yet, and returns its place.
    fn add(&mut self, inode: Inode, stat: Option<Stat>) -> InodeId {
        let id = InodeId::at(self.inodes.len());
        self.stats.extend(stat.map(|stat| (id, stat)));
        self.inodes.push(inode);
        id
    }

    /// Adds them to a tree, but for those that are other names of what was added. Returns their entries there, and whether each of these others is
    /// what was added: it may have changed from one name to the next.
    fn add_to(self, tree: &mut Tree, links: &mut HashMap<(u64, u64), InodeId>) -> (Entries, bool) {
        let Self { inodes, mut names, stats } = self;
        if !stats.values().any(|stat| stat.st_nlink > 1) {
            let first = tree.add_all(inodes);
            names.values_mut().for_each(|id| *id = InodeId::at(first + id.index()));
            return (names, true);
        }
        let mut is_alike = true;
        let mut add = |(at, inode): (usize, Inode)| {
            let is_file = matches!(inode.kind, Kind::File(_));
            let stat = stats.get(&InodeId::at(at)).filter(|stat| stat.st_nlink > 1 && is_file);
            let Some(stat) = stat else { return tree.add(inode) };
            match links.entry((stat.st_dev, stat.st_ino)) {
                Entry::Occupied(there) => {
                    is_alike &= *tree.inode(*there.get()) == inode;
                    *there.get()
                }
                Entry::Vacant(none) => *none.insert(tree.add(inode)),
            }
        };
        let ids: Vec<InodeId> = inodes.into_iter().enumerate().map(&mut add).collect();
        names.values_mut().for_each(|id| *id = ids[id.index()]);
        (names, is_alike)
    }
}

/// What is in a directory, and what is known of that.
fn all<'k>(
    open: &OpenDir<'_>,
    known: &'k KnownFiles<'_>,
) -> Result<Vec<(OsString, FileType, Option<KnownFile<'k>>)>, FileError> {
    if let Some(all) = known.all() {
        return Ok(all);
    }
    let names = list(open.fd).at("list", open.path)?.into_iter();
    Ok(names
        .map(|(name, kind)| {
            let file = known.file(&name);
            (name, kind, file)
        })
        .collect())
}

impl OpenDir<'_> {
    fn stat(&self, name: &OsStr) -> Result<Stat, FileError> {
        let stat = statat(self.fd, name, AtFlags::SYMLINK_NOFOLLOW);
        Ok(stat.at_name("read the attributes of", self.path, name)?)
    }
}

fn capability(open: &OpenDir<'_>, name: &OsStr) -> Result<Option<Vec<u8>>, FileError> {
    Ok(xattr::read(open.fd, name, CAPABILITY).at_name("copy the capabilities of", open.path, name)?)
}
