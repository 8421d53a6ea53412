use rbuild_image::{Manifest, MediaType};

use super::*;
use crate::images::tests::store_image;
use crate::testing::{TestStore, commit_file};
use crate::{CacheKey, ContainerRecord, NewRecord, Snapshot};

const EVERYTHING: PrunePolicy =
    PrunePolicy { keep_bytes: None, unused_since: None, unnamed_images: true, dry_run: false };

fn record(store: &Store, number: u8, output: &Snapshot) -> CacheKey {
    let outputs = std::slice::from_ref(output);
    let key = CacheKey([number; 32]);
    let new = NewRecord { key, outputs, ..NewRecord::default() };
    store.records().insert(&new).unwrap();
    key
}

fn layer_count(store: &TestStore) -> usize {
    fs::read_dir(store.root().join("layers")).unwrap().count()
}

#[test]
fn what_a_root_needs_is_kept() {
    let store = TestStore::new();
    let base = commit_file(&store, &Snapshot::empty(), "a", "1");
    let (image, container, cached) = (
        commit_file(&store, &base, "b", ""),
        commit_file(&store, &base, "c", ""),
        commit_file(&store, &base, "d", "4"),
    );
    let target = store_image(&store, "{}");
    store.images().put(&"app".parse().unwrap(), &target, std::slice::from_ref(&image)).unwrap();
    let state = ContainerRecord {
        id: "c1".into(),
        name: "one".into(),
        state: "{}".into(),
        snapshot: container.clone(),
        created: 0,
    };
    store.containers().create(&state).unwrap();
    let key = record(&store, 1, &cached);
    store.content().put(b"garbage").unwrap();

    let kept = store.prune(&PrunePolicy { keep_bytes: Some(u64::MAX), ..EVERYTHING }).unwrap();
    assert_eq!((kept.records, kept.layers, kept.blobs), (0, 0, 1));
    assert_eq!(store.records().lookup(key).unwrap().unwrap().outputs, [cached]);

    let report = store.prune(&EVERYTHING).unwrap();
    assert_eq!((report.images, report.records, report.layers, report.blobs), (0, 1, 1, 0));
    assert!(report.freed_bytes > 0);
    assert_eq!(layer_count(&store), 3);
    assert_eq!(store.images().list().unwrap()[0].snapshots, [image]);
    assert_eq!(store.containers().by_name("one").unwrap().unwrap().snapshot, container);
    assert_eq!(store.content().list().unwrap().len(), 2, "manifest and config stay");
    assert_eq!(crate::testing::problems(&store), []);

    store.images().remove(&"app".parse().unwrap()).unwrap();
    store.containers().remove("c1").unwrap();
    let rest = store.prune(&EVERYTHING).unwrap();
    assert_eq!((rest.layers, rest.blobs), (3, 2));
    let counted = store.usage().unwrap();
    assert_eq!((counted.layers, counted.blobs, counted.layer_bytes, counted.blob_bytes), (0, 0, 0, 0));
}

#[test]
fn nothing_that_somebody_uses_is_forgotten() {
    let store = TestStore::new();
    let other = store.second_handle();
    let lease = other.lease().unwrap();
    let snapshot = commit_file(&store, &Snapshot::empty(), "a", "1");
    let key = record(&store, 1, &snapshot);
    let digest = store.content().put(b"blob").unwrap();
    assert_eq!(store.prune(&EVERYTHING).unwrap(), PruneReport::default());
    assert!(store.records().lookup(key).unwrap().is_some() && store.content().contains(digest).unwrap());
    drop(lease);
    let report = store.prune(&EVERYTHING).unwrap();
    assert_eq!((report.records, report.layers, report.blobs), (1, 1, 1));
}

#[test]
fn an_active_snapshot_protects_its_parent() {
    let store = TestStore::new();
    let parent = commit_file(&store, &Snapshot::empty(), "a", "1");
    let active = store.second_handle().prepare(&parent).unwrap();
    assert_eq!(store.prune(&EVERYTHING).unwrap().layers, 0);
    drop(active);
    assert_eq!(store.prune(&EVERYTHING).unwrap().layers, 1);
}

#[test]
fn a_dry_run_changes_nothing() {
    let store = TestStore::new();
    let snapshot = commit_file(&store, &Snapshot::empty(), "a", "1");
    record(&store, 1, &snapshot);
    store.content().put(b"blob").unwrap();
    let planned = store.prune(&PrunePolicy { dry_run: true, ..EVERYTHING }).unwrap();
    assert_eq!((planned.records, planned.layers, planned.blobs), (1, 1, 1));
    assert_eq!(store.prune(&EVERYTHING).unwrap(), planned);
}

#[test]
fn unnamed_images_go_only_when_asked() {
    let store = TestStore::new();
    store.images().put_unnamed(&store_image(&store, "{}"), &[]).unwrap();
    assert_eq!(store.prune(&PrunePolicy { unnamed_images: false, ..EVERYTHING }).unwrap().images, 0);
    assert_eq!(store.prune(&EVERYTHING).unwrap().images, 1);
}

#[test]
fn blobs_of_layers_stay_with_their_layers() {
    let store = TestStore::new();
    let layer = Descriptor::of(MediaType::OciLayer, b"layer");
    store.content().put(b"layer").unwrap();
    let manifest = Manifest::new(Descriptor::of(MediaType::OciConfig, b"{}"), vec![layer.clone()]).to_bytes();
    let target = Descriptor::of(MediaType::OciManifest, &manifest);
    store.content().put(&manifest).unwrap();
    store.images().put(&"app".parse().unwrap(), &target, &[]).unwrap();
    assert_eq!(store.prune(&EVERYTHING).unwrap().blobs, 0);
    store.images().remove(&"app".parse().unwrap()).unwrap();
    assert_eq!(store.prune(&EVERYTHING).unwrap().blobs, 2);
}

/// Three results on one base; the base costs 10, each result 5 more.
fn three_results() -> State {
    let mut state = State::default();
    let mut layer = |id, size_bytes| {
        state.layers.insert(id, plan::LayerRow { size_bytes, created: 0 });
    };
    layer(1, 10);
    (2..=4).for_each(|id| layer(id, 5));
    for id in 2..=4 {
        state.snapshots.insert(id, plan::SnapshotRow { layers: vec![1, id], last_used: 0 });
        state.results.push(plan::ResultRow { id, outputs: vec![id], last_used: id });
    }
    state
}

#[test]
fn the_least_recently_used_go_first_until_enough_is_free() {
    let cases = [
        (Some(25), None, i64::MAX, vec![]),
        (Some(24), None, i64::MAX, vec![2]),
        (Some(15), None, i64::MAX, vec![2, 3]),
        (Some(14), None, i64::MAX, vec![2, 3, 4]),
        (None, None, i64::MAX, vec![2, 3, 4]),
        (None, Some(3), i64::MAX, vec![2]),
        (None, None, 4, vec![2, 3]),
    ];
    for (keep_bytes, unused_since, in_use_since, expected) in cases {
        let policy = PrunePolicy { keep_bytes, unused_since, ..EVERYTHING };
        let mut results = three_results().plan(&policy, in_use_since).results;
        results.sort_unstable();
        assert_eq!(results, expected, "{policy:?}, in use since {in_use_since}");
    }
}

#[test]
fn a_layer_goes_with_its_last_holder() {
    let policy = PrunePolicy { keep_bytes: Some(0), ..EVERYTHING };
    let mut state = three_results();
    assert_eq!(state.plan(&policy, i64::MAX).layers, [1, 2, 3, 4]);
    state.containers.push(3);
    let plan = state.plan(&policy, i64::MAX);
    assert_eq!(plan.layers, [2, 4]);
    assert_eq!(plan.report().freed_bytes, 10);
}
