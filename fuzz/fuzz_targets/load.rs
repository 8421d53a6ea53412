//! Any bytes as an archive for `load`: no panic, and a store that is sound.
//!
//! One store serves all inputs: what an archive brings and no image uses stays in it, as in a person's store. Its rows are compared
//! with its files now and then.
#![no_main]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use rbuild_cache::layer::Owners;
use rbuild_cache::{LayerForm, OverlayXattrs, Store, StoreOptions, Trees};
use rbuild_registry::{Anonymous, Client, ClientOptions};
use rbuild_solver::images::{Images, Watch};
use rbuild_solver::threads::Threads;

/// How many inputs pass between two looks at the store.
const LOOK_EVERY: u64 = 2000;

struct World {
    images: Images,
    _directory: tempfile::TempDir,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        xattrs: OverlayXattrs::User,
        owners: Owners::Squash,
        trees: Trees::Plain,
        layers: LayerForm::Directory,
        now: || 1_000_000_000,
    };
    let store = Store::open(&directory.path().join("store"), &options).unwrap();
    let client = Arc::new(Client::new(ClientOptions::default(), Arc::new(Anonymous)));
    World { images: Images::new(store, client, Threads::default()), _directory: directory }
});
static COUNT: AtomicU64 = AtomicU64::new(1);

fuzz_target!(|input: &[u8]| {
    let images = &WORLD.images;
    let cancel = AtomicBool::new(false);
    let watch = Watch { transfers: &|_| {}, cancel: &cancel };
    if let Ok(loaded) = images.load(input, None, watch) {
        for image in loaded {
            let name = image.names.first().map_or_else(|| image.id.to_string(), ToString::to_string);
            images.find(&name).unwrap();
        }
    }
    if COUNT.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOK_EVERY) {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let report = images.store().check(&pool).unwrap();
        assert!(report.problems.is_empty(), "{:?}", report.problems);
    }
});
