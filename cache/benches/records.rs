//! How long a store with many records takes to find one, and how long all of a large build's take together.
//!
//! `cargo bench -p rbuild-cache`
#![expect(clippy::print_stdout, reason = "a benchmark says what it measured")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]

use std::time::{Duration, Instant};

use rbuild_cache::layer::Owners;
use rbuild_cache::{CacheKey, NewRecord, OverlayXattrs, Snapshot, Store, StoreOptions};

const RECORDS: u32 = 100_000;
const STEPS: u32 = 1_000;
const ROUNDS: u32 = 21;

fn key(number: u32) -> CacheKey {
    let mut bytes = [0; 32];
    // Keys are hashes: neighbours are nowhere near each other.
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte =
            number.wrapping_mul(2_654_435_761).rotate_left(u32::try_from(at).unwrap()).to_le_bytes()[at % 4];
    }
    bytes[..4].copy_from_slice(&number.wrapping_mul(2_654_435_761).to_be_bytes());
    CacheKey(bytes)
}

fn fill(store: &Store) -> Snapshot {
    let active = store.prepare(&Snapshot::empty()).unwrap();
    let output = active.commit().unwrap();
    for number in 0..RECORDS {
        let new = NewRecord {
            key: key(number),
            op_digest: key(number / 3).0,
            outputs: std::slice::from_ref(&output),
            description: "RUN make",
            trace: &[7; 500],
            ..NewRecord::default()
        };
        store.records().insert(&new).unwrap();
    }
    output
}

fn median(mut measure: impl FnMut(u32) -> Duration) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS).map(&mut measure).collect();
    times.sort_unstable();
    times[times.len() / 2]
}

fn main() {
    let directory = tempfile::tempdir().unwrap();
    let options = StoreOptions { xattrs: OverlayXattrs::User, owners: Owners::Keep, now: || 1_700_000_000 };
    let open = || Store::open(&directory.path().join("store"), &options).unwrap();
    let output = fill(&open());
    let keys: Vec<CacheKey> = (0..STEPS).map(|step| key(step * (RECORDS / STEPS))).collect();
    let look_up = |keys: &[CacheKey]| {
        let store = open();
        let start = Instant::now();
        let found = store.records().lookup_many(keys).unwrap();
        assert!(found.iter().flatten().all(|record| record.outputs[0] == output));
        start.elapsed()
    };
    println!("one key of {RECORDS}: {:?}", median(|round| look_up(&[key(round * 7)])));
    println!("{STEPS} keys of {RECORDS}: {:?}", median(|_| look_up(&keys)));
}
