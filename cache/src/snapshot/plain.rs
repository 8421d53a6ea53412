//! Trees where nothing can be mounted: the layers of a snapshot, carried out one after another in a plain directory.
//!
//! A step changes such a tree in place. What it has changed is found by comparing each entry's inode and change time, which no
//! program can set, with what they were before the step: the rest is removed and what is gone is marked, and what is left is
//! the directory that overlayfs would have filled.
//!
//! Two things differ, and both are rare. A file with several names that is changed in place has changed under
//! all of them, and overlayfs would have parted the names. One that lost a name is in the layer, as its change time says so.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, StatxFlags, Timespec, Timestamps, UTIME_NOW, fstat, futimens,
    openat, statat, statx, unlinkat,
};
use rustix::io::Errno;

use super::active::{copy_root_attributes, create_locked};
use super::overlay::MountedRoot;
use super::{LayerId, OverlayXattrs, Snapshot};
use crate::layer::{TREE_DEPTH_MAX, make_opaque, make_whiteout};
use crate::root_dir::xattr::{self, Xattrs};
use crate::root_dir::{At, PathError, RootDir, list};
use crate::{Result, Store};

/// How long the clock of a file system may take to advance: some have one of ten milliseconds.
const TICKS_MAX: u32 = 1000;
const TICK: Duration = Duration::from_millis(1);

/// A plain directory in the place of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainTree {
    /// The tree.
    pub root: PathBuf,
    /// An empty directory beside it.
    pub scratch: PathBuf,
}

/// The trees that a handle has shown, each as long as the handle.
#[derive(Debug, Default)]
pub(crate) struct ViewedTrees(Mutex<BTreeMap<Arc<[LayerId]>, ViewedTree>>);

/// A locked directory of `active/` with a tree in it, removed on drop.
#[derive(Debug)]
pub(super) struct ViewedTree {
    path: PathBuf,
    #[expect(dead_code, reason = "held for its lock")]
    lock: File,
}

impl ViewedTree {
    /// Makes a tree, which `fill` fills.
    pub(super) fn make(store: &Store, fill: impl FnOnce(&RootDir) -> Result<()>) -> Result<Self> {
        let (path, lock) = create_locked(store)?;
        let this = Self { path, lock };
        let root = this.root();
        fs::create_dir(&root).at("create", &root)?;
        fill(&RootDir::open(&root)?)?;
        Ok(this)
    }

    pub(super) fn root(&self) -> PathBuf {
        self.path.join("tree")
    }
}

impl Drop for ViewedTree {
    fn drop(&mut self) {
        // What cannot be removed now is by a later clean-up, as its lock is free then.
        drop(fs::remove_dir_all(&self.path));
    }
}

/// What tells an entry, besides its id, from a changed one.
#[derive(Debug, PartialEq, Eq)]
enum Mark {
    /// Its change time.
    Changed(Time),
    /// Of a directory with something covered in it the change time says too much. So it is its modification time, mode, owner,
    /// and extended attributes.
    Attributes(Time, u32, (u32, u32), Xattrs),
    /// Something was in its place while the step ran, so the step has not seen it.
    Covered,
}

/// Seconds and nanoseconds.
type Time = (i64, i64);

/// An inode and when it was made, where the file system tells: the number alone is soon used again.
type Id = (u64, Time);

/// What a directory held before a step.
type Entries = BTreeMap<OsString, Before>;

#[derive(Debug)]
struct Before {
    id: Id,
    mark: Mark,
    /// Of a directory.
    entries: Option<Entries>,
}

/// A tree before a step.
#[derive(Debug)]
pub(super) struct Baseline(Entries);

/// What became of a directory.
#[derive(Default)]
struct Change {
    /// Whether it, or anything below it, is not as it was.
    changed: bool,
    /// Whether it took the place of another directory.
    replaces: bool,
    unchanged: Vec<OsString>,
    gone: Vec<OsString>,
    below: Vec<(OsString, Self)>,
}

impl Store {
    /// Carries out the layers of a snapshot in the directory `to`, which is made; `stubs` is laid below them.
    pub(super) fn unfold(&self, snapshot: &Snapshot, stubs: Option<&Path>, to: &Path) -> Result<()> {
        fs::create_dir(to).at("create", to)?;
        stubs.map_or(Ok(()), |stubs| copy_stubs(stubs, to))?;
        let tree = RootDir::open(to)?;
        self.carry_out_all(snapshot, 0, &tree)?;
        self.copy_top_attributes(snapshot, to)
    }

    fn copy_top_attributes(&self, snapshot: &Snapshot, to: &Path) -> Result<()> {
        let Some(top) = snapshot.layers.last() else { return Ok(()) };
        Ok(copy_root_attributes(&self.layer_path(*top)?, to)?)
    }

    /// A tree to look at. Nobody may write there.
    pub(super) fn view_plain(&self, snapshot: &Snapshot) -> Result<MountedRoot> {
        let mut viewed = self.0.viewed.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = viewed.get(&snapshot.layers) {
            return MountedRoot::plain(&tree.root());
        }
        let tree = ViewedTree::make(self, |tree| self.carry_out_all(snapshot, 0, tree))?;
        let root = tree.root();
        self.copy_top_attributes(snapshot, &root)?;
        viewed.insert(Arc::clone(&snapshot.layers), tree);
        MountedRoot::plain(&root)
    }
}

/// Stubs are directories and empty files.
fn copy_stubs(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).at("read", from)? {
        let entry = entry.at("read", from)?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().at("examine", &source)?.is_dir() {
            fs::create_dir(&target).at("create", &target)?;
            copy_stubs(&source, &target)?;
        } else {
            File::create(&target).at("create", &target)?;
        }
    }
    Ok(())
}

impl Baseline {
    /// Notes how the tree at `root` is, and returns when a change from now on cannot look the same. What nothing is below in
    /// `stubs` will be covered.
    pub(super) fn of(root: &Path, stubs: Option<&Path>, scratch: &Path) -> Result<Self> {
        let mut newest = (0, 0);
        let entries = open(root).and_then(|dir| record(dir.as_fd(), stubs, &mut newest, TREE_DEPTH_MAX));
        let entries = entries.at("examine", root)?;
        await_tick(&scratch.join("tick"), newest)?;
        Ok(Self(entries))
    }

    /// Makes of the changed tree at `root` a layer in overlayfs's form.
    pub(super) fn reduce(&self, root: &Path, xattrs: OverlayXattrs) -> Result<(), PathError> {
        let reduced = open(root).and_then(|dir| {
            let change = compare(dir.as_fd(), Some(&self.0), TREE_DEPTH_MAX)?;
            reduce(dir.as_fd(), &change, xattrs)
        });
        reduced.at("find the changes in", root)
    }
}

fn open(path: &Path) -> Result<OwnedFd, Errno> {
    openat(rustix::fs::CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn open_below(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode).is_dir()
}

#[expect(clippy::unnecessary_cast, reason = "the width of these fields differs between machines")]
fn changed(stat: &Stat) -> Time {
    (stat.st_ctime as i64, stat.st_ctime_nsec as i64)
}

fn id(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Id, Errno> {
    let wanted = StatxFlags::INO | StatxFlags::BTIME;
    let stat = statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, wanted)?;
    let known = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
    let made = if known { (stat.stx_btime.tv_sec, i64::from(stat.stx_btime.tv_nsec)) } else { (0, 0) };
    Ok((stat.stx_ino, made))
}

#[expect(clippy::unnecessary_cast, reason = "the width of these fields differs between machines")]
fn attributes(dir: BorrowedFd<'_>, name: &OsStr, stat: &Stat) -> Result<Mark, Errno> {
    let modified = (stat.st_mtime as i64, stat.st_mtime_nsec as i64);
    let xattrs = xattr::read_all(dir, name, |_| true)?;
    Ok(Mark::Attributes(modified, stat.st_mode, (stat.st_uid, stat.st_gid), xattrs))
}

fn record(
    dir: BorrowedFd<'_>,
    stubs: Option<&Path>,
    newest: &mut Time,
    depth: usize,
) -> Result<Entries, Errno> {
    let depth = depth.checked_sub(1).ok_or(Errno::LOOP)?;
    let mut entries = Entries::new();
    for (name, _) in list(dir)? {
        let stat = statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        *newest = changed(&stat).max(*newest);
        let stub = stubs.map(|stubs| stubs.join(&name)).filter(|stub| stub.exists());
        let mark = match &stub {
            None => Mark::Changed(changed(&stat)),
            Some(stub) if has_entries(stub) => attributes(dir, &name, &stat)?,
            Some(_) => Mark::Covered,
        };
        let below = || record(open_below(dir, &name)?.as_fd(), stub.as_deref(), newest, depth);
        let below = is_dir(&stat).then(below).transpose()?;
        let before = Before { id: id(dir, &name)?, mark, entries: below };
        entries.insert(name, before);
    }
    Ok(entries)
}

fn has_entries(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some())
}

/// Waits until the file system gives a new file a later time than `newest`.
fn await_tick(probe: &Path, newest: Time) -> Result<()> {
    let file = File::create(probe).at("create", probe)?;
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let now = Timestamps { last_access: now, last_modification: now };
    for _ in 0..TICKS_MAX {
        futimens(&file, &now).at("touch", probe)?;
        if changed(&fstat(&file).at("examine", probe)?) > newest {
            break;
        }
        thread::sleep(TICK);
    }
    Ok(fs::remove_file(probe).at("remove", probe)?)
}

/// Compares a directory with what it held; with nothing when it is new.
fn compare(dir: BorrowedFd<'_>, before: Option<&Entries>, depth: usize) -> Result<Change, Errno> {
    let depth = depth.checked_sub(1).ok_or(Errno::LOOP)?;
    let mut change = Change::default();
    let names = list(dir)?;
    for (name, _) in &names {
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let was = before.and_then(|before| before.get(name));
        let id = id(dir, name)?;
        let is_same = was.is_some_and(|was| was.id == id);
        let unchanged = match was.map(|was| &was.mark) {
            Some(Mark::Covered) => is_same,
            Some(Mark::Changed(time)) => is_same && *time == changed(&stat),
            Some(was @ Mark::Attributes(..)) => is_same && *was == attributes(dir, name, &stat)?,
            None => false,
        };
        if is_dir(&stat) {
            let entries = was.and_then(|was| was.entries.as_ref());
            let same = entries.filter(|_| is_same);
            let mut below = compare(open_below(dir, name)?.as_fd(), same, depth)?;
            below.changed |= !unchanged;
            below.replaces = entries.is_some() && same.is_none();
            change.changed |= below.changed;
            change.below.push((name.clone(), below));
        } else if unchanged {
            change.unchanged.push(name.clone());
        } else {
            change.changed = true;
        }
    }
    let present: std::collections::BTreeSet<&OsString> = names.iter().map(|(name, _)| name).collect();
    let gone = before.into_iter().flat_map(BTreeMap::keys).filter(|name| !present.contains(name));
    change.gone = gone.cloned().collect();
    change.changed |= !change.gone.is_empty();
    Ok(change)
}

/// Removes what is unchanged and marks what is gone. The directory keeps its times.
fn reduce(dir: BorrowedFd<'_>, change: &Change, xattrs: OverlayXattrs) -> Result<(), Errno> {
    let stat = fstat(dir)?;
    for name in &change.unchanged {
        unlinkat(dir, name, AtFlags::empty())?;
    }
    for (name, below) in &change.below {
        reduce(open_below(dir, name)?.as_fd(), below, xattrs)?;
        if !below.changed {
            unlinkat(dir, name, AtFlags::REMOVEDIR)?;
        } else if below.replaces {
            make_opaque(dir, name, xattrs)?;
        }
    }
    change.gone.iter().try_for_each(|name| make_whiteout(dir, name, xattrs))?;
    restore_times(dir, &stat)
}

#[expect(clippy::unnecessary_cast, reason = "the width of these fields differs between machines")]
pub(super) fn restore_times(dir: BorrowedFd<'_>, stat: &Stat) -> Result<(), Errno> {
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps {
        last_access: time(stat.st_atime as i64, stat.st_atime_nsec as _),
        last_modification: time(stat.st_mtime as i64, stat.st_mtime_nsec as _),
    };
    futimens(dir, &times)
}
