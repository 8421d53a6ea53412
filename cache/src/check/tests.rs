use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::images::tests::store_image;
use crate::testing::{TestStore, commit_file, pool, problems};
use crate::{CacheKey, NewRecord, Snapshot};

fn record(store: &Store, output: &Snapshot) -> CacheKey {
    let key = CacheKey([7; 32]);
    let outputs = std::slice::from_ref(output);
    let new = NewRecord { key, op_digest: [1; 32], outputs, description: "RUN a", ..NewRecord::default() };
    store.records().insert(&new).unwrap();
    key
}

#[test]
fn a_whole_store_has_no_problems() {
    let store = TestStore::new();
    let bottom = commit_file(&store, &Snapshot::empty(), "a", "1");
    let snapshot = commit_file(&store, &bottom, "b", "2");
    record(&store, &snapshot);
    let report = store.check(&pool()).unwrap();
    assert_eq!((report.layers, report.layers_unproven), (0, 2));
    // What a layer is needed for leaves something to compare it with.
    store.content_digest(&bottom, &pool()).unwrap();
    store.describe_layers(&snapshot, None).unwrap();
    let report = store.check(&pool()).unwrap();
    assert_eq!((report.layers, report.layers_unproven), (2, 0));
    assert_eq!((report.snapshots, report.results, report.problems), (2, 1, Vec::new()));
}

#[test]
fn a_flipped_byte_in_a_blob_is_found_and_forgotten() {
    let store = TestStore::new();
    let digest = store.content().put(b"hello").unwrap();
    let path = store.0.layout.blob(digest);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, b"hallo").unwrap();
    let expected = [Problem::Blob { digest, found: Digest::of("hallo") }];
    assert_eq!(problems(&store), expected);
    let (repaired, left) = store.repair(&pool()).unwrap();
    assert_eq!((&repaired[..], &left.problems[..]), (&expected[..], &[][..]));
    assert!(!store.content().contains(digest).unwrap());
}

/// Makes a layer comparable.
type Prove = fn(&Store, &Snapshot);

#[test]
fn a_changed_layer_is_found_and_forgotten_with_all_that_needs_it() {
    let ways: [Prove; 3] = [
        |store, snapshot| {
            store.content_digest(snapshot, &pool()).unwrap();
        },
        |store, snapshot| {
            store.describe_layers(snapshot, None).unwrap();
        },
        |store, snapshot| {
            let clamp = crate::MtimeClamp { layers_kept: 1, mtime_max: 5 };
            store.describe_layers(snapshot, Some(clamp)).unwrap();
        },
    ];
    for prove in ways {
        let store = TestStore::new();
        let bottom = commit_file(&store, &Snapshot::empty(), "a", "1");
        let snapshot = commit_file(&store, &bottom, "b", "2");
        prove(&store, &snapshot);
        let key = record(&store, &snapshot);
        fs::write(store.0.layout.layer(snapshot.layers[1]).join("b"), "3").unwrap();
        let expected = [Problem::LayerChanged(snapshot.layers[1])];
        assert_eq!(problems(&store), expected);
        let (repaired, left) = store.repair(&pool()).unwrap();
        assert_eq!((&repaired[..], &left.problems[..]), (&expected[..], &[][..]));
        assert_eq!(store.records().lookup(key).unwrap(), None);
        assert_eq!(store.snapshot(snapshot.id.unwrap()).unwrap(), None);
        assert_eq!(store.snapshot(bottom.id.unwrap()).unwrap(), Some(bottom));
    }
}

#[test]
fn what_is_missing_is_found_and_what_is_too_much_removed() {
    let store = TestStore::new();
    let snapshot = commit_file(&store, &Snapshot::empty(), "a", "1");
    let layer = snapshot.layers[0];
    fs::rename(store.0.layout.layer(layer), store.root().join("layers/77")).unwrap();
    let target = store_image(&store, "{}");
    store.images().put(&"app".parse().unwrap(), &target, std::slice::from_ref(&snapshot)).unwrap();
    fs::remove_file(store.0.layout.blob(Digest::of("{}"))).unwrap();
    let expected =
        [Problem::LayerMissing(layer), Problem::Image { target: target.digest, blob: Digest::of("{}") }];
    assert_eq!(problems(&store), expected);
    assert!(!store.root().join("layers/77").exists());
    let (repaired, left) = store.repair(&pool()).unwrap();
    assert_eq!((&repaired[..], &left.problems[..]), (&expected[..], &[][..]));
    assert!(store.images().list().unwrap().is_empty());
}

#[test]
fn damaged_metadata_is_set_aside() {
    let store = TestStore::new();
    let root = store.root().to_owned();
    commit_file(&store, &Snapshot::empty(), "a", "1");
    assert_eq!(problems(&store), []);
    assert_eq!(set_damaged_metadata_aside(&root).unwrap(), None);
    let path = store.0.layout.database();
    let whole = fs::read(&path).unwrap();
    for page in 0..whole.len() / 4096 {
        // The first page begins with the file's own header; then, as in all, the kind of page.
        let at = if page == 0 { 100 } else { page * 4096 };
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        fs::write(&path, bytes).unwrap();
        let aside = set_damaged_metadata_aside(&root).unwrap();
        assert!(aside.unwrap().join("metadata.db").exists(), "page {page}");
        assert_eq!(problems(&crate::testing::open(&root)), [], "page {page}");
    }
}
