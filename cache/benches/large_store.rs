//! How long a store with many records, and a great deal of content, takes to find one, to say what it holds, and to decide what
//! goes. The content is described, not there: sparse blobs, and layers that are said to be large.
//!
//! `cargo bench -p rbuild-cache --bench large_store`
#![expect(clippy::print_stdout, reason = "a benchmark says what it measured")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use rbuild_cache::layer::Owners;
use rbuild_cache::prune::CacheLimit;
use rbuild_cache::{CacheKey, LayerForm, OverlayXattrs, PrunePolicy, Store, StoreOptions, Trees};
use rusqlite::{Connection, ToSql};

const RECORDS: u32 = 100_000;
/// Each record stands on the one before, except for the first of a chain.
const CHAIN: u32 = 20;
const BLOBS: u32 = 10_000;
/// All of it together is to be described as a terabyte, half of it in blobs.
const TOTAL_BYTES: u64 = 1 << 40;
const LAYER_BYTES: u64 = TOTAL_BYTES / 2 / RECORDS as u64;
const BLOB_BYTES: u64 = TOTAL_BYTES / 2 / BLOBS as u64;
const STEPS: u32 = 1_000;
const ROUNDS: u32 = 5;

/// Keys are hashes: neighbours are nowhere near each other.
fn key(number: u32) -> CacheKey {
    CacheKey(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn open(root: &Path) -> Store {
    let options = StoreOptions {
        xattrs: OverlayXattrs::User,
        owners: Owners::Keep,
        trees: Trees::Mounted,
        layers: LayerForm::Auto,
        part_size_bytes: rbuild_cache::layer::PART_SIZE_BYTES,
        now,
    };
    Store::open(root, &options).unwrap()
}

fn now() -> i64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(since.as_nanos()).unwrap()
}

/// Rows as builds leave them, written at once: no layer of them is on the disk.
fn fill_records(root: &Path) {
    let mut db = Connection::open(root.join("metadata.db")).unwrap();
    let rows = db.transaction().unwrap();
    let mut layers: Vec<u8> = Vec::new();
    for number in 0..RECORDS {
        let (id, stamp, key) = (i64::from(number) + 1, i64::from(number), key(number));
        if number % CHAIN == 0 {
            layers.clear();
        }
        layers.extend(id.to_le_bytes());
        let run = |sql: &str, row: &[&dyn ToSql]| {
            assert_eq!(rows.prepare_cached(sql).unwrap().execute(row).unwrap(), 1);
        };
        let layer = "INSERT INTO layer (id, disk_size_bytes, created) VALUES (?1, ?2, ?3)";
        run(layer, &[&id, &LAYER_BYTES.cast_signed(), &stamp]);
        run("INSERT INTO snapshot (id, layers, last_used) VALUES (?1, ?2, ?3)", &[&id, &layers, &stamp]);
        let result = "INSERT INTO result (id, op_digest, outputs, description, is_source, created, last_used)
            VALUES (?1, ?2, ?3, 'RUN make', 0, ?4, ?4)";
        run(result, &[&id, &key.0, &id.to_le_bytes().as_slice(), &stamp]);
        run("INSERT INTO record (key, result, trace) VALUES (?1, ?2, ?3)", &[&key.0, &id, &vec![7; 500]]);
    }
    rows.commit().unwrap();
}

/// Blobs that nothing names, of the described size.
fn fill_blobs(root: &Path) {
    for number in 0..BLOBS {
        let hex = key(RECORDS + number).to_string();
        let directory = root.join("content/sha256").join(&hex[..2]);
        fs::create_dir_all(&directory).unwrap();
        File::create(directory.join(hex)).unwrap().set_len(BLOB_BYTES).unwrap();
    }
}

/// The processor's time of this thread, which other work on the machine changes little.
fn processor_time() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

fn measure<T>(what: &str, mut work: impl FnMut() -> T) {
    let mut times: Vec<(Duration, Duration)> = (0..ROUNDS)
        .map(|_| {
            let (start, processor) = (Instant::now(), processor_time());
            let _result = work();
            (start.elapsed(), processor_time() - processor)
        })
        .collect();
    times.sort_unstable();
    let (wall, processor) = times[times.len() / 2];
    println!("{what}: {wall:?}, of the processor's {processor:?} (median of {ROUNDS})");
}

fn main() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("store");
    let store = open(&root);
    fill_records(&root);
    fill_blobs(&root);
    let keys: Vec<CacheKey> = (0..STEPS).map(|step| key(step * (RECORDS / STEPS))).collect();
    let cold = open(&root);
    let start = Instant::now();
    assert!(cold.records().lookup(key(77)).unwrap().is_some());
    println!("one key of {RECORDS}, with a handle just opened: {:?}", start.elapsed());
    measure("one key", || store.records().lookup(key(4711)).unwrap().unwrap());
    measure(&format!("{STEPS} keys"), || store.records().lookup_many(&keys).unwrap());
    measure("what is in the store (du)", || store.usage().unwrap());
    measure("what to forget: all", || store.plan_prune(&[PrunePolicy::default()]).unwrap());
    let look = || store.collect_garbage(CacheLimit(u64::MAX)).finish(store.lease().unwrap()).unwrap();
    look();
    measure("a look of a build that added nothing", look);
    let start = Instant::now();
    let removals = store.prune(&[PrunePolicy::default()]).unwrap().removals.len();
    println!("forgetting all {removals}: {:?}", start.elapsed());
}
