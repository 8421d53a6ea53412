//! What the tests of this crate share.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::{env, fs, process};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::layer::Owners;
use crate::root_dir::RootDir;
use crate::{LayerForm, MountedRoot, OverlayXattrs, Problem, Snapshot, Store, StoreOptions, Trees};

/// What the clock of the tests' stores says, Unix seconds. It goes on by a nanosecond each time that it is asked.
pub(crate) const NOW: i64 = 1_700_000_000;

/// A directory that is removed with its last user.
#[derive(Debug)]
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let name = format!("rbuild-cache-test-{}-{}", process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        // In memory where that is possible: a store is synced and removed for every test.
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { env::temp_dir() };
        let path = parent.join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // The threads that empty a store's trash may be at it still, and get in each other's way.
        while fs::remove_dir_all(&self.0).is_err() && self.0.exists() {}
    }
}

/// A store that is removed after the test.
#[derive(Debug)]
pub(crate) struct TestStore {
    pub(crate) store: Store,
    directory: TempDir,
}

impl TestStore {
    pub(crate) fn new() -> Self {
        Self::with(&OPTIONS)
    }

    pub(crate) fn with(options: &StoreOptions) -> Self {
        let directory = TempDir::new();
        Self { store: Store::open(&directory.path().join("store"), options).unwrap(), directory }
    }

    /// Another handle on the same store, as another process would have.
    pub(crate) fn second_handle(&self) -> Store {
        open(self.store.root())
    }

    /// A directory beside the store.
    pub(crate) fn scratch(&self) -> &Path {
        self.directory.path()
    }
}

impl std::ops::Deref for TestStore {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

pub(crate) const OPTIONS: StoreOptions = StoreOptions {
    xattrs: OverlayXattrs::Trusted,
    owners: Owners::Keep,
    trees: Trees::Mounted,
    layers: LayerForm::Auto,
    part_size_bytes: crate::layer::PART_SIZE_BYTES,
    now: tick,
};

fn tick() -> i64 {
    static TICKS: AtomicI64 = AtomicI64::new(NOW * 1_000_000_000);
    TICKS.fetch_add(1, Ordering::Relaxed)
}

pub(crate) fn open(root: &Path) -> Store {
    Store::open(root, &OPTIONS).unwrap()
}

/// A thread.
pub(crate) fn pool() -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(1).build().unwrap()
}

/// What a check of a store finds.
pub(crate) fn problems(store: &Store) -> Vec<Problem> {
    store.check(&pool()).unwrap().problems
}

/// Commits a layer that holds one file, without a mount.
pub(crate) fn commit_file(store: &Store, parent: &Snapshot, name: &str, content: &str) -> Snapshot {
    let active = store.prepare(parent).unwrap();
    fs::write(active.upper().join(name), content).unwrap();
    active.commit().unwrap()
}

/// The content of a file in a mounted tree; `None` when there is no such file.
pub(crate) fn read(root: &MountedRoot, path: &str) -> Option<String> {
    let root = RootDir::from_fd(root.as_fd().try_clone_to_owned().unwrap());
    match root.read(path, 1 << 20) {
        Ok(bytes) => Some(String::from_utf8(bytes).unwrap()),
        Err(error) if error.is_not_found() => None,
        Err(error) => panic!("{error}: {}", error.source),
    }
}

/// The path through which `std::fs` reaches a mounted tree.
pub(crate) fn path_of(root: &MountedRoot) -> PathBuf {
    crate::root_dir::proc_path(root)
}

/// Runs one step: mounts, lets `step` change the tree, commits.
pub(crate) fn run(store: &Store, parent: &Snapshot, step: impl FnOnce(&Path)) -> Snapshot {
    let active = store.prepare(parent).unwrap();
    let root = active.mount(None).unwrap();
    step(&path_of(&root));
    drop(root);
    active.commit().unwrap()
}

/// Whether overlays can be mounted here. If not, says so, and fails where the machine was said to be able to.
pub(crate) fn overlay_works() -> bool {
    let test = TestStore::new();
    let Err(error) = test.prepare(&Snapshot::empty()).unwrap().mount(None) else { return true };
    #[expect(clippy::disallowed_methods, reason = "the switch that makes a skip a failure")]
    let required = env::var_os("RBUILD_TEST_REQUIRE_KERNEL").is_some_and(|value| value == "1");
    assert!(!required, "overlays cannot be mounted here: {error:?}");
    eprintln!("SKIPPED: overlays cannot be mounted here: {error:?}");
    false
}

/// Leaves a kernel test when overlays cannot be mounted here.
macro_rules! require_overlay {
    () => {
        if !crate::testing::overlay_works() {
            return;
        }
    };
}
pub(crate) use require_overlay;
