//! A writable layer on top of a snapshot.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};

use rayon::ThreadPool;
use rusqlite::Transaction;

use super::delta::Delta;
use super::image::NewTree;
use super::layers::{Archive, insert_archives};
use super::overlay::{MountedRoot, Overlay, Upper, empty_root};
use super::plain::{Baseline, PlainTree};
use super::{LayerId, Snapshot, Trees, insert_snapshot};
use crate::db::Failure;
use crate::fail_point::FailPoint;
use crate::layer::reader::Time;
use crate::layer::{self, Applied, ApplyOptions};
use crate::lease::{Lease, stamp_of};
use crate::lock::{Flock, try_flock};
use crate::root_dir::{At, PathError};
use crate::store::unique_name;
use crate::tree::Tree;
use crate::tree::grow::{
    Graft, Grown, Inventory, Open, PackedTree, Packs, Placement, PlannedTree, SettledTree,
};
use crate::tree::unpack::Planter;
use crate::{Result, Store};

/// A layer in the making: what is written to its mount, or straight into its upper directory, becomes the layer.
///
/// Dropped without [`commit`](Self::commit), it is discarded.
#[derive(Debug)]
pub struct ActiveSnapshot {
    parent: Snapshot,
    directory: ActiveDirectory,
    #[expect(dead_code, reason = "held for its drop")]
    lease: Lease,
}

/// What a volatile mount leaves in its work directory. Overlayfs refuses to use that again.
const VOLATILE_MARK: &str = "work/incompat/volatile";

/// Whether what is written to a writable layer is to be there when the machine stops unexpectedly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It is written to the disk when it is unmounted, with all else that is on that file system.
    Synced,
    /// Nothing waits for the disk: what is thrown away afterwards need not be there.
    Volatile,
}

impl Store {
    /// Begins a layer on top of `parent`. Its root has the owner and mode of the parent's.
    ///
    /// # Errors
    /// When the parent has been pruned, or the disk is full.
    pub fn prepare(&self, parent: &Snapshot) -> Result<ActiveSnapshot> {
        self.clean_up_once();
        let lease = self.lease()?;
        self.touch(parent)?;
        let directory = ActiveDirectory::create(self)?;
        if let Some(top) = parent.layers.last() {
            copy_root_attributes(&self.layer_path(*top)?, &directory.upper)?;
        }
        Ok(ActiveSnapshot { parent: parent.clone(), directory, lease })
    }

    /// Mounts the merged tree of a snapshot, read-only.
    ///
    /// # Errors
    /// When it has been pruned, or overlayfs cannot be mounted here.
    pub fn view(&self, snapshot: &Snapshot) -> Result<MountedRoot> {
        self.touch(snapshot)?;
        if self.0.options.trees == Trees::Plain {
            return self.view_plain(snapshot);
        }
        if snapshot.layers.is_empty() {
            return empty_root();
        }
        let mut lowers = self.lowers(snapshot, None)?;
        // Overlayfs wants two directories to join. A single one is not handed out bare: its whiteouts must be hidden.
        if lowers.len() < 2 {
            lowers.push(self.0.layout.directory("empty"));
        }
        self.join(lowers)
    }

    /// Joins directories, top first, read-only. Two at least.
    pub(super) fn join(&self, lowers: Vec<PathBuf>) -> Result<MountedRoot> {
        Overlay { lowers, upper: None, xattrs: self.xattrs(), one_device: true }.mount()
    }

    /// Mounts a snapshot under a writable layer that outlives this process: a container's. `directory` is given `upper` and
    /// `work`; what was written stays in `upper`. One mount at a time, of either durability.
    ///
    /// # Errors
    /// As for [`Store::view`], or when `directory` is on a file system that cannot be a writable layer.
    pub fn mount_writable(
        &self,
        snapshot: &Snapshot,
        directory: &Path,
        stubs: Option<&Path>,
        durability: Durability,
    ) -> Result<MountedRoot> {
        self.touch(snapshot)?;
        let (upper, work) = (directory.join("upper"), directory.join("work"));
        if make_directory(&upper)? {
            set_mode(&upper, 0o755)?;
            if let Some(top) = snapshot.layers.last() {
                copy_root_attributes(&self.layer_path(*top)?, &upper)?;
            }
        }
        if work.join(VOLATILE_MARK).exists() {
            self.discard(&work)?;
        }
        make_directory(&work)?;
        let upper = Upper { upper: &upper, work: &work, volatile: durability == Durability::Volatile };
        let lowers = self.lowers(snapshot, stubs)?;
        Overlay { lowers, upper: Some(upper), xattrs: self.xattrs(), one_device: true }.mount()
    }

    /// The directories of a snapshot, top first, with `stubs` below all. At least one.
    pub(super) fn lowers(&self, snapshot: &Snapshot, stubs: Option<&Path>) -> Result<Vec<PathBuf>> {
        let layers = self.mountable_layers(snapshot)?;
        let mut lowers =
            layers.iter().rev().map(|layer| self.layer_path(*layer)).collect::<Result<Vec<_>>>()?;
        lowers.extend(stubs.map(Path::to_owned));
        if lowers.is_empty() {
            lowers.push(self.0.layout.directory("empty"));
        }
        Ok(lowers)
    }
}

/// Work that somebody has done aside.
pub type Errand = Box<dyn FnOnce() + Send>;

impl ActiveSnapshot {
    /// What this stands on.
    pub const fn parent(&self) -> &Snapshot {
        &self.parent
    }

    pub(super) const fn store(&self) -> &Store {
        &self.directory.store
    }

    /// The directory that becomes the layer, in overlayfs's form. Not to be written while a mount is in use.
    pub fn upper(&self) -> &Path {
        &self.directory.upper
    }

    /// Mounts the parent's tree with this layer on top, writable. `stubs` is laid below all layers: what is in it can be mounted
    /// on, and never gets into the layer.
    ///
    /// May be called again once the mount before is gone.
    ///
    /// # Errors
    /// When overlayfs cannot be mounted here.
    pub fn mount(&self, stubs: Option<&Path>) -> Result<MountedRoot> {
        self.mount_with(stubs, true)
    }

    /// The same for what no program sees, and overlayfs is to leave no marks in that mean nothing.
    ///
    /// # Errors
    /// As [`mount`](Self::mount).
    pub fn mount_to_copy(&self) -> Result<MountedRoot> {
        self.mount_with(None, false)
    }

    fn mount_with(&self, stubs: Option<&Path>, one_device: bool) -> Result<MountedRoot> {
        if let Some(plain) = self.plain(stubs)? {
            return MountedRoot::plain(&plain.root);
        }
        self.directory.renew_work()?;
        let directory = &self.directory;
        let upper = Upper { upper: &directory.upper, work: &directory.work, volatile: true };
        let lowers = directory.store.lowers(&self.parent, stubs)?;
        Overlay { lowers, upper: Some(upper), xattrs: directory.store.xattrs(), one_device }.mount()
    }

    /// The same as a plain directory, in a store that mounts nothing; the tree is made with the first call.
    ///
    /// # Errors
    /// When a layer of the parent cannot be read, or the disk is full.
    pub fn plain(&self, stubs: Option<&Path>) -> Result<Option<PlainTree>> {
        let ActiveDirectory { store, path, work, baseline, .. } = &self.directory;
        if store.0.options.trees == Trees::Mounted {
            return Ok(None);
        }
        let tree = PlainTree { root: path.join("tree"), scratch: work.clone() };
        if baseline.get().is_none() {
            store.unfold(&self.parent, stubs, &tree.root)?;
            // Only this thread has the snapshot to give it a tree.
            drop(baseline.set(Baseline::of(&tree.root, stubs, &tree.scratch)?));
        }
        Ok(Some(tree))
    }

    /// Whether the layer can be a tree ([`Store::tree_support`]). What one could be made of is looked at from here on, beside what the caller does.
    pub fn can_be_tree(&self) -> bool {
        let can = self.store().tree_support().is_ok();
        if can {
            self.ahead().get_or_insert_with(|| {
                let store = self.store().clone();
                thread::spawn(move || store.inventory())
            });
        }
        can
    }

    fn ahead(&self) -> MutexGuard<'_, Option<JoinHandle<Result<Inventory>>>> {
        self.directory.inventory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What packs there are.
    fn inventory(&self) -> Result<Inventory> {
        let ahead = self.ahead().take();
        match ahead {
            Some(ahead) => ahead.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            None => self.store().inventory(),
        }
    }

    /// Puts a tree into an empty directory of the layer, which becomes an image with its [commit](Self::commit); `open` gives what
    /// files hold that no pack has. It is not seen in mounts of this.
    ///
    /// To be done once, and last: [`Store::tree_support`] says whether it can be.
    ///
    /// # Errors
    /// When a file cannot be read, or the disk is full.
    pub fn graft(
        &mut self,
        path: &Path,
        mut planned: PlannedTree,
        pool: &ThreadPool,
        open: Open<'_>,
    ) -> Result<()> {
        let inventory = self.inventory()?;
        let ActiveDirectory { store, path: directory, graft, .. } = &mut self.directory;
        debug_assert!(graft.is_none(), "a layer takes one tree");
        let packs = Packs::choose(store, directory, inventory, &mut planned.tree, pool)?;
        *graft = Some(Box::new(Graft::new(packs, path, planned, pool, open)?));
        Ok(())
    }

    /// Makes the layer one that is told from another. To be done once, and last: it is not seen in mounts of this.
    pub fn tell_from(&mut self, delta: Delta) {
        debug_assert!(self.directory.graft.is_none(), "a tree is told from nothing");
        self.directory.delta = Some(delta);
    }

    /// Reads an archive into a tree, which is in no layer yet. Directories that it does not describe are named. To be done once.
    ///
    /// # Errors
    /// When the disk is full. The inner one when the archive is malformed, or what becomes of it depends on more than itself.
    pub fn read_archive(
        &self,
        tar: &mut (dyn Read + Send),
        options: &ApplyOptions<'_>,
    ) -> Result<Result<(PackedTree, Applied), layer::Error>> {
        let ActiveDirectory { store, path, .. } = &self.directory;
        let packs = Packs::newest(store, path, self.inventory()?)?;
        let planter = Planter::new(options, &packs, Time::of_nanoseconds(store.stamp()));
        let applied = layer::apply_to(tar, planter, options).map(|(planter, applied)| {
            let (tree, implied) = planter.finish();
            (tree, Applied { implied, ..applied })
        });
        Ok(applied.map(|(tree, applied)| (PackedTree::new(packs, tree), applied)))
    }

    /// Puts what an archive was [read](Self::read_archive) into at a directory of the layer, as [`graft`](Self::graft) does.
    pub fn graft_packed(&mut self, path: &Path, packed: PackedTree) {
        self.take(Placement::At(path.to_owned()), packed);
    }

    /// Makes it the layer.
    pub(super) fn plant(&mut self, packed: PackedTree) {
        self.take(Placement::Whole, packed);
    }

    fn take(&mut self, place: Placement, packed: PackedTree) {
        debug_assert!(self.directory.graft.is_none(), "a layer takes one tree");
        self.directory.graft = Some(Box::new(Graft::at(place, packed)));
    }

    /// The tree that the layer is to be, if it is to be one.
    pub(super) fn planted(&mut self) -> Option<&mut Tree> {
        self.directory.graft.as_mut().map(|graft| &mut graft.tree)
    }

    /// Makes of a plain tree the layer that overlayfs would have made.
    fn reduce(&self) -> Result<()> {
        let ActiveDirectory { store, path, upper, baseline, .. } = &self.directory;
        let Some(baseline) = baseline.get() else { return Ok(()) };
        let tree = path.join("tree");
        baseline.reduce(&tree, store.xattrs())?;
        store.discard(upper)?;
        Ok(fs::rename(&tree, upper).at("create", upper)?)
    }

    /// Makes what was written a layer, and the parent's tree with it a snapshot. Moves no data, whatever the size.
    ///
    /// All mounts of this must be gone.
    ///
    /// # Errors
    /// When the metadata cannot be written; the layer is discarded then.
    pub fn commit(self) -> Result<Snapshot> {
        self.commit_as(None, None, None)
    }

    /// The same. What [describes](Store::describe_layers) the layer is begun before: `begin` is given work to be done aside.
    ///
    /// # Errors
    /// Those of [`commit`](Self::commit).
    pub fn commit_described(self, begin: &dyn Fn(Errand)) -> Result<Snapshot> {
        self.commit_as(None, None, Some(begin))
    }

    /// Gives a layer that was made on top of nothing its place.
    pub(super) fn stand_on(&mut self, parent: &Snapshot) {
        self.parent = parent.clone();
    }

    /// Commits a layer that came as an archive, or was made here; `created` is when, Unix seconds, where that was not now.
    pub(super) fn commit_as(
        mut self,
        archive: Option<&Archive>,
        created: Option<i64>,
        begin: Option<&dyn Fn(Errand)>,
    ) -> Result<Snapshot> {
        self.reduce()?;
        let ActiveDirectory { store, path, upper, graft, delta, .. } = &mut self.directory;
        delta.as_ref().map_or(Ok(()), |delta| delta.mark_removed(upper, store.xattrs()))?;
        let base = delta.as_ref().map(Delta::base);
        let mut aside = None;
        let hash = |settled: &Arc<SettledTree>| {
            aside = begin.map(|begin| store.hash_aside(settled, &self.parent, begin));
        };
        let grown = graft.take().map(|graft| graft.grow(upper, path, hash)).transpose()?;
        let stamp = store.stamp();
        let created = created.map_or(stamp, stamp_of);
        let snapshot = store.0.db.write("commit a layer", |db| {
            let layer = insert_layer(db, created, grown.as_ref(), base)?;
            insert_archives(db, layer, archive.map_or(&[], slice::from_ref))?;
            let packs = grown.as_ref().map_or(&[][..], |grown| &grown.packs);
            store.insert_packs(db, layer, packs, stamp)?;
            let from = grown.as_ref().map_or(&*upper, |grown| &grown.image);
            move_in(store, from, &store.0.layout.layer(layer))?;
            let mut layers = self.parent.layers.to_vec();
            layers.push(layer);
            insert_snapshot(db, &layers, stamp)
        })?;
        if let (Some(grown), Some(layer), None) = (grown, snapshot.layers.last(), archive) {
            let Grown { settled, image_bytes, .. } = grown;
            store.remember_new_tree(*layer, image_bytes, NewTree { settled, aside });
        }
        store.0.growth.announce();
        Ok(snapshot)
    }
}

/// `created` is a stamp.
fn insert_layer(
    db: &Transaction<'_>,
    created: i64,
    grown: Option<&Grown>,
    base: Option<LayerId>,
) -> Result<LayerId, Failure> {
    let sql = "INSERT INTO layer (created, image, content_digest, base) VALUES (?1, ?2, ?3, ?4)";
    let image = grown.map(|grown| grown.image_digest);
    let content_digest = grown.and_then(|grown| grown.content_digest);
    db.prepare_cached(sql)?.execute((created, image, content_digest, base.map(|base| base.0)))?;
    Ok(LayerId(db.last_insert_rowid()))
}

/// Gives a layer or a pack its name, inside the transaction that adds its row.
///
/// Whoever moves in or sweeps out holds the write lock of the metadata. So what is at the name already is what a crash between
/// the rename and the end of such a transaction left.
pub(super) fn move_in(store: &Store, from: &Path, to: &Path) -> Result<()> {
    if to.symlink_metadata().is_ok() {
        store.discard(to)?;
    }
    FailPoint::LayerRename.reach().at("create", to)?;
    fs::rename(from, to).at("create", to)?;
    Ok(FailPoint::LayerNamed.reach().at("create", to)?)
}

/// A locked directory in `active/`, removed on drop.
#[derive(Debug)]
struct ActiveDirectory {
    upper: PathBuf,
    work: PathBuf,
    path: PathBuf,
    mounted_before: AtomicBool,
    /// How the plain tree was, where there is one.
    baseline: OnceLock<Baseline>,
    /// What packs there are, once somebody has begun to look.
    inventory: Mutex<Option<JoinHandle<Result<Inventory>>>>,
    /// The tree that it takes, where there is one.
    graft: Option<Box<Graft>>,
    /// What it is told from, where it is.
    delta: Option<Delta>,
    store: Store,
    /// Holds the lock.
    _directory: File,
}

impl ActiveDirectory {
    fn create(store: &Store) -> Result<Self> {
        let (path, lock) = create_locked(store)?;
        let this = Self {
            upper: path.join("upper"),
            work: path.join("work"),
            path,
            mounted_before: AtomicBool::new(false),
            baseline: OnceLock::new(),
            inventory: Mutex::default(),
            graft: None,
            delta: None,
            store: store.clone(),
            _directory: lock,
        };
        make_directory(&this.upper)?;
        set_mode(&this.upper, 0o755)?;
        make_directory(&this.work)?;
        Ok(this)
    }

    /// Makes the work directory anew if it was used: overlayfs refuses one that a volatile mount has used.
    fn renew_work(&self) -> Result<()> {
        if self.mounted_before.swap(true, Ordering::Relaxed) {
            self.store.discard(&self.work)?;
            make_directory(&self.work)?;
        }
        Ok(())
    }
}

/// Makes a directory in `active/`, locked as long as the descriptor is open.
pub(super) fn create_locked(store: &Store) -> Result<(PathBuf, File)> {
    loop {
        let path = store.0.layout.directory("active").join(unique_name());
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            made => made.at("create", &path)?,
        }
        FailPoint::ActiveDirectory.reach().at("create", &path)?;
        // Until it is locked, the clean-up of another process may take it for a leftover.
        let directory = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened.at("open", &path)?,
        };
        if try_flock(&directory, &path)? == Flock::Taken {
            return Ok((path, directory));
        }
    }
}

impl Drop for ActiveDirectory {
    fn drop(&mut self) {
        // What cannot be discarded now is by a later clean-up, as its lock is free then.
        drop(self.store.discard(&self.path));
    }
}

/// Makes a directory, and says whether it was missing.
fn make_directory(path: &Path) -> Result<bool, PathError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        made => made.at("create", path).map(|()| true),
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<(), PathError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).at("set the mode of", path)
}

/// The root of a merged tree has the attributes of its topmost layer's, so a new layer takes them over.
pub(super) fn copy_root_attributes(from: &Path, to: &Path) -> Result<(), PathError> {
    let (source, target) = (attributes(from)?, attributes(to)?);
    if (source.uid(), source.gid()) != (target.uid(), target.gid()) {
        chown(to, Some(source.uid()), Some(source.gid())).at("change the owner of", to)?;
    }
    set_mode(to, source.mode() & 0o7777)
}

fn attributes(path: &Path) -> Result<fs::Metadata, PathError> {
    // Of what a path through a descriptor leads to, not of the link that it is.
    fs::metadata(path).at("read the attributes of", path)
}
