use std::cell::RefCell;
use std::os::unix::fs::MetadataExt as _;

use rbuild_image::{Descriptor, Manifest, MediaType};

use super::state::{Entry, Keeper, Piece, Root, SnapshotRow, What};
use super::*;
use crate::images::tests::store_image;
use crate::lease::stamp_of;
use crate::testing::{NOW, TestStore, commit_file};
use crate::{
    CacheKey, CacheMount, CacheMountSharing, CacheMountSpec, ContainerRecord, MutableKind, NewRecord,
    Snapshot,
};

const EVERYTHING: PrunePolicy<'_> =
    PrunePolicy { selects: None, unused_since: None, limits: None, all: true };

fn record(store: &Store, number: u8, output: &Snapshot) -> CacheKey {
    let outputs = std::slice::from_ref(output);
    let key = CacheKey([number; 32]);
    let description = &format!("step {number}");
    let new = NewRecord { key, outputs, description, ..NewRecord::default() };
    store.records().insert(&new).unwrap();
    key
}

fn cache_mount(store: &Store, number: u8) -> CacheMount {
    let spec = CacheMountSpec {
        key: CacheKey([number; 32]),
        id: "c",
        base: None,
        sharing: CacheMountSharing::Shared,
    };
    let fill = |path: &Path| -> Result<()> { Ok(fs::create_dir(path).at("create", path)?) };
    store.cache_mount(&spec, &std::sync::atomic::AtomicBool::new(false), fill).unwrap()
}

fn kinds(report: &PruneReport) -> Vec<ItemKind> {
    report.removals.iter().map(|removal| removal.item.kind).collect()
}

/// The results that a plan forgets.
fn results(plan: &Plan) -> Vec<i64> {
    plan.results.iter().map(|doomed| doomed.id).collect()
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
    store.containers().create(&state, |_| Ok(())).unwrap();
    let (key, of_image) = (record(&store, 1, &cached), record(&store, 2, &image));
    store.content().put(b"garbage").unwrap();

    let usage = store.usage().unwrap();
    let users = |key: CacheKey| {
        let id = key.to_string()[..12].to_owned();
        usage.items.iter().find(|item| item.id == id).unwrap().users.clone()
    };
    assert_eq!((users(key), users(of_image)), (vec![], vec!["app:latest".to_owned()]));

    let report = store.prune(&[PrunePolicy::default()]).unwrap();
    assert_eq!(kinds(&report), [ItemKind::Step, ItemKind::Leftover], "{report:?}");
    assert_eq!(report.freed_bytes(), usage.reclaimable_bytes);
    assert_eq!((report.cache_bytes, layer_count(&store)), (0, 3));
    assert!(store.records().lookup(key).unwrap().is_none());
    assert_eq!(store.records().lookup(of_image).unwrap().unwrap().outputs, std::slice::from_ref(&image));
    assert_eq!(store.images().list().unwrap()[0].snapshots, [image]);
    assert_eq!(store.containers().by_name("one").unwrap().unwrap().snapshot, container);
    assert_eq!(store.content().list().unwrap().len(), 2, "manifest and config stay");
    assert_eq!(crate::testing::problems(&store), []);

    store.images().remove(&"app".parse().unwrap()).unwrap();
    store.containers().remove("c1").unwrap();
    store.prune(&[EVERYTHING]).unwrap();
    assert_eq!(store.usage().unwrap(), Usage::default());
    assert_eq!((layer_count(&store), store.content().list().unwrap().len()), (0, 0));
}

#[test]
fn nothing_that_somebody_uses_is_forgotten() {
    let store = TestStore::new();
    let other = store.second_handle();
    let lease = other.lease().unwrap();
    let snapshot = commit_file(&store, &Snapshot::empty(), "a", "1");
    let key = record(&store, 1, &snapshot);
    let digest = store.content().put(b"blob").unwrap();
    let path = cache_mount(&store, 1).path();
    assert_eq!(store.prune(&[EVERYTHING]).unwrap().removals, []);
    assert!(store.usage().unwrap().items.iter().all(|item| item.in_use));
    assert!(store.records().lookup(key).unwrap().is_some() && store.content().contains(digest).unwrap());
    assert!(path.exists());
    drop(lease);
    let report = store.prune(&[EVERYTHING]).unwrap();
    assert_eq!((report.removals.len(), path.exists()), (3, false));
}

#[test]
fn a_cache_mount_that_is_locked_stays() {
    let store = TestStore::new();
    let mount = cache_mount(&store, 1);
    fs::write(mount.path().join("x"), "1").unwrap();
    store.prune(&[EVERYTHING]).unwrap();
    let listed = store.mutables(MutableKind::CacheMount).unwrap();
    assert_eq!((listed[0].name.as_str(), listed[0].id()), ("c", "010101010101-0".to_owned()));
    assert!(listed[0].size_bytes > 0 && store.is_in_use(&listed[0]).unwrap());
    drop(mount);
    assert!(!store.is_in_use(&listed[0]).unwrap());
    store.prune(&[EVERYTHING]).unwrap();
    assert_eq!(store.mutables(MutableKind::CacheMount).unwrap(), []);
    assert_eq!(fs::read_dir(store.root().join("cache-mounts")).unwrap().count(), 0);
}

#[test]
fn an_active_snapshot_protects_its_parent() {
    let store = TestStore::new();
    let parent = commit_file(&store, &Snapshot::empty(), "a", "1");
    let active = store.second_handle().prepare(&parent).unwrap();
    store.prune(&[EVERYTHING]).unwrap();
    assert_eq!(layer_count(&store), 1);
    drop(active);
    store.prune(&[EVERYTHING]).unwrap();
    assert_eq!(layer_count(&store), 0);
}

#[test]
fn a_plan_changes_nothing_and_is_carried_out() {
    let store = TestStore::new();
    let snapshot = commit_file(&store, &Snapshot::empty(), "a", "1");
    record(&store, 1, &snapshot);
    store.content().put(b"blob").unwrap();
    let planned = store.plan_prune(&[EVERYTHING]).unwrap();
    assert_eq!(planned.removals.len(), 2);
    assert_eq!(store.prune(&[EVERYTHING]).unwrap(), planned);
}

#[test]
fn what_is_not_selected_stays() {
    let store = TestStore::new();
    let snapshot = commit_file(&store, &Snapshot::empty(), "a", "1");
    record(&store, 1, &snapshot);
    drop(cache_mount(&store, 1));
    let seen = RefCell::new(Vec::new());
    let steps = |item: &Item| {
        seen.borrow_mut().push(item.description.clone());
        item.kind == ItemKind::Step
    };
    let policy = PrunePolicy { selects: Some(&steps), ..EVERYTHING };
    assert_eq!(kinds(&store.prune(&[policy]).unwrap()), [ItemKind::Step]);
    seen.borrow_mut().sort();
    assert_eq!(*seen.borrow(), ["c", "step 1"]);
    let young = PrunePolicy { unused_since: Some(NOW), ..EVERYTHING };
    assert_eq!(store.prune(&[young]).unwrap().removals, []);
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
    assert_eq!(store.prune(&[EVERYTHING]).unwrap().removals, []);
    store.images().remove(&"app".parse().unwrap()).unwrap();
    assert_eq!(kinds(&store.prune(&[EVERYTHING]).unwrap()), [ItemKind::Leftover; 2]);
}

/// Three results on one base; the base costs 10, each result 5 more. Then a cache mount of 7.
fn three_results() -> State {
    let piece = |what, size_bytes| Piece { what, size_bytes, last_used: 0, in_use: false };
    let mut state = State { pieces: vec![piece(What::Layer(1), 10)], ..State::default() };
    for id in 2..=4_u32 {
        state.pieces.push(piece(What::Layer(id.into()), 5));
        state.snapshots.insert(id.into(), SnapshotRow { pieces: vec![0, id - 1], ..SnapshotRow::default() });
        state.entries.push(Entry {
            result: Some(id.into()),
            kind: ItemKind::Step,
            id: String::new(),
            description: String::new(),
            created: 0,
            last_used: stamp_of(id.into()),
            in_use: false,
            snapshots: vec![id.into()],
            pieces: vec![0, id - 1],
        });
    }
    state
}

fn at_most(bytes: u64) -> SpaceLimits {
    SpaceLimits { max_used_bytes: Some(bytes), ..SpaceLimits::default() }
}

#[test]
fn the_least_recently_used_go_first_until_little_enough_is_left() {
    let cases: [(_, _, &[i64]); 6] = [
        (Some(at_most(25)), None, &[]),
        (Some(at_most(24)), None, &[2]),
        (Some(at_most(15)), None, &[2, 3]),
        (Some(at_most(14)), None, &[2, 3, 4]),
        (None, None, &[2, 3, 4]),
        (None, Some(3), &[2]),
    ];
    for (limits, unused_since, expected) in cases {
        let policy = PrunePolicy { unused_since, limits, ..PrunePolicy::default() };
        let plan = three_results().plan(&[policy], 0);
        assert_eq!(results(&plan), expected, "{policy:?}");
        let freed: u64 = plan.removals.iter().map(|removal| removal.freed_bytes).sum();
        assert_eq!(plan.cache_bytes, 25 - freed);
    }
    let mut used = three_results();
    used.entries[0].in_use = true;
    assert_eq!(results(&used.plan(&[PrunePolicy::default()], 0)), [3, 4]);
    let rules = [
        PrunePolicy { unused_since: Some(3), ..PrunePolicy::default() },
        PrunePolicy { limits: Some(at_most(15)), ..PrunePolicy::default() },
    ];
    let plan = three_results().plan(&rules, 0);
    assert_eq!(plan.removals.iter().map(|removal| removal.policy).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn a_layer_goes_with_its_last_holder() {
    let mut state = three_results();
    assert_eq!(state.plan(&[EVERYTHING], 0).layers, [4, 3, 2, 1]);
    let root =
        |snapshots: Vec<i64>, pieces| Root { keeper: Keeper::Container, name: "r".into(), snapshots, pieces };
    state.roots.push(root(vec![3], vec![0, 2]));
    let plan = state.plan(&[EVERYTHING], 0);
    assert_eq!((plan.layers, plan.snapshots.len(), plan.cache_bytes), (vec![4, 2], 2, 0));
    let freed: Vec<u64> = plan.removals.iter().map(|removal| removal.freed_bytes).collect();
    assert_eq!(freed, [5, 0, 5]);
    // What frees nothing is kept, and what roots need is no part of the cache.
    assert_eq!(results(&state.plan(&[PrunePolicy::default()], 0)), [2, 4]);
    let limited = PrunePolicy { limits: Some(at_most(10)), ..EVERYTHING };
    assert!(results(&state.plan(&[limited], 0)).is_empty());
}

#[test]
fn what_a_mount_was_flattened_to_stays_with_the_stack() {
    let mut state = three_results();
    state.pieces.push(Piece { what: What::Layer(5), size_bytes: 3, last_used: 0, in_use: false });
    state.snapshots.insert(5, SnapshotRow { pieces: vec![4], ..SnapshotRow::default() });
    state.snapshots.get_mut(&4).unwrap().flats.push(5);
    state.entries[2].pieces.push(4);
    state.entries[2].in_use = true;
    let plan = state.plan(&[EVERYTHING], 0);
    let forgets_flat = plan.snapshots.iter().any(|doomed| doomed.id == 5);
    assert_eq!((results(&plan), forgets_flat, plan.layers), (vec![2, 3], false, vec![3, 2]));
}

#[test]
fn limits_are_buildkits() {
    let limits = |max_used_bytes, min_free_bytes, reserved_bytes| SpaceLimits {
        max_used_bytes,
        min_free_bytes,
        reserved_bytes,
    };
    let cases = [
        (limits(Some(50), None, 0), 50),
        (limits(None, None, 30), 30),
        (limits(None, Some(10), 0), u64::MAX),
        (limits(None, Some(25), 0), 95),
        (limits(Some(40), Some(25), 0), 40),
        (limits(Some(99), Some(25), 0), 95),
        (limits(None, Some(200), 30), 30),
    ];
    for (limits, expected) in cases {
        assert_eq!(limits.keep_bytes(100, 20), expected, "{limits:?}");
    }
}

#[test]
fn what_others_stand_on_goes_after_them() {
    let mut state = three_results();
    // Each stands on the one made before it.
    state.entries[1].pieces = vec![0, 1, 2];
    state.entries[2].pieces = vec![0, 1, 2, 3];
    state.order();
    let order: Vec<_> = state.entries.iter().map(|entry| entry.result).collect();
    assert_eq!(order, [Some(4), Some(3), Some(2)]);
    let plan = state.plan(&[PrunePolicy { limits: Some(at_most(20)), ..EVERYTHING }], 0);
    assert_eq!((results(&plan), plan.cache_bytes), (vec![4], 20));
}

/// A store with two results, one on top of the other, and a plan to forget both.
fn doomed_store() -> (TestStore, [Snapshot; 2], [CacheKey; 2], Plan) {
    let store = TestStore::new();
    let below = commit_file(&store, &Snapshot::empty(), "a", "1");
    let top = commit_file(&store, &below, "b", "2");
    let keys = [record(&store, 1, &below), record(&store, 2, &top)];
    let plan = store.state().unwrap().0.plan(&[EVERYTHING], 0);
    assert_eq!((plan.results.len(), plan.snapshots.len(), plan.layers.len()), (2, 2, 2));
    (store, [below, top], keys, plan)
}

#[test]
fn what_is_used_after_a_plan_was_made_stays() {
    let (store, [_, top], keys, mut plan) = doomed_store();
    let lease = store.lease().unwrap();
    assert!(store.records().lookup(keys[1]).unwrap().is_some());
    store.forget(&mut plan).unwrap();
    assert_eq!((plan.removals.len(), layer_count(&store)), (1, 2));
    assert_eq!(store.records().lookup(keys[1]).unwrap().unwrap().outputs, [top]);
    assert!(store.records().lookup(keys[0]).unwrap().is_none());
    drop(lease);
    assert_eq!(crate::testing::problems(&store), []);
}

#[test]
fn what_is_used_after_the_clock_was_set_back_stays() {
    for is_leased in [false, true] {
        let (store, [below, top], keys, mut plan) = doomed_store();
        let early = Store::open(store.root(), &crate::StoreOptions { now: || 1, ..crate::testing::OPTIONS });
        let early = early.unwrap();
        let _lease = is_leased.then(|| early.lease().unwrap());
        assert!(early.records().lookup(keys[1]).unwrap().is_some());
        drop(early.prepare(&below).unwrap());
        store.forget(&mut plan).unwrap();
        assert_eq!(store.records().lookup(keys[1]).unwrap().unwrap().outputs, [top]);
        assert!(store.snapshot(below.id.unwrap()).unwrap().is_some());
    }
    let (store, [_, top], _, mut plan) = doomed_store();
    let early = Store::open(store.root(), &crate::StoreOptions { now: || 1, ..crate::testing::OPTIONS });
    early.unwrap().stack(&top.layers).unwrap();
    store.forget(&mut plan).unwrap();
    assert_eq!((store.snapshot(top.id.unwrap()).unwrap(), layer_count(&store)), (Some(top), 2));
}

#[test]
fn what_is_made_after_a_plan_was_made_stays() {
    let (store, [below, _], _, mut plan) = doomed_store();
    let lease = store.lease().unwrap();
    let new = commit_file(&store, &below, "c", "3");
    let key = record(&store, 3, &new);
    store.forget(&mut plan).unwrap();
    assert_eq!((plan.removals.len(), layer_count(&store)), (2, 2));
    assert_eq!(store.records().lookup(key).unwrap().unwrap().outputs, [new]);
    drop(lease);
    assert_eq!(crate::testing::problems(&store), []);
}

#[test]
fn an_image_or_a_blob_that_came_after_a_plan_stays() {
    let (store, [_, top], _, _) = doomed_store();
    let (old, used) = (store.content().put(b"old").unwrap(), store.content().put(b"used").unwrap());
    let past = std::time::SystemTime::UNIX_EPOCH;
    for digest in [old, used] {
        fs::File::open(store.0.layout.blob(digest)).unwrap().set_modified(past).unwrap();
    }
    let mut plan = store.state().unwrap().0.plan(&[EVERYTHING], 0);
    let target = store_image(&store, "{}");
    store.images().put(&"app".parse().unwrap(), &target, std::slice::from_ref(&top)).unwrap();
    assert!(store.content().contains(used).unwrap());
    store.forget(&mut plan).unwrap();
    assert!(store.content().contains(used).unwrap() && !store.content().contains(old).unwrap());
    assert_eq!(store.images().list().unwrap()[0].snapshots, [top]);
    assert_eq!(crate::testing::problems(&store), []);
}

#[test]
fn a_blob_that_is_found_is_there_however_prune_comes_in_between() {
    let store = TestStore::new();
    let digest = store.content().put(b"blob").unwrap();
    let path = store.0.layout.blob(digest);
    let past = std::time::SystemTime::UNIX_EPOCH;
    let blob = Blob { digest, size_bytes: 0, used: past };
    for round in 0..500 {
        let is_unused = round % 2 == 0;
        store.content().put(b"blob").unwrap();
        if is_unused {
            fs::File::open(&path).unwrap().set_modified(past).unwrap();
        }
        let barrier = std::sync::Barrier::new(2);
        let found = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                barrier.wait();
                store.content().contains(digest).unwrap()
            });
            barrier.wait();
            store.discard_unused_blob(&blob).unwrap();
            reader.join().unwrap()
        });
        assert!(found || is_unused, "who uses it finds it");
        assert_eq!(path.exists(), found);
    }
}

#[test]
fn a_blob_that_is_made_again_stays_as_it_is() {
    let store = TestStore::new();
    let make = || {
        let mut writer = store.content().writer(4).unwrap();
        writer.push(b"blob").unwrap();
        let (digest, _) = writer.commit(None).unwrap();
        store.content().open(digest).unwrap().unwrap().metadata().unwrap().ino()
    };
    assert_eq!(make(), make());
    assert_eq!(fs::read_dir(store.root().join("ingest")).unwrap().count(), 0);
}

#[test]
fn what_has_no_row_is_swept() {
    let store = TestStore::new();
    let container = |id: &str, name: &str| ContainerRecord {
        id: id.into(),
        name: name.into(),
        state: "{}".into(),
        snapshot: Snapshot::empty(),
        created: 0,
    };
    store
        .containers()
        .create(&container("c1", "one"), |directory| fs::write(directory.join("f"), ""))
        .unwrap();
    store.containers().create(&container("c2", "one"), |_| panic!("the name is taken")).unwrap_err();
    let directory = |id: &str| store.area(Area::Containers).join(id);
    fs::create_dir(directory("lost")).unwrap();
    fs::create_dir(store.0.layout.directory("layers").join("999")).unwrap();
    store.prune(&[]).unwrap();
    assert!(directory("c1").join("f").exists());
    assert!(!directory("c2").exists() && !directory("lost").exists());
    assert!(store.layer_directories().unwrap().is_empty());
}

/// Results of a megabyte each, numbered from one.
fn record_megabytes(store: &TestStore, count: u8) {
    let content = "x".repeat(1 << 20);
    for number in 1..=count {
        record(store, number, &commit_file(store, &Snapshot::empty(), "a", &content));
    }
}

#[test]
fn the_collector_keeps_to_the_limit() {
    let store = TestStore::new();
    record_megabytes(&store, 4);
    let collect = |limit| store.collect_garbage(limit).finish(store.lease().unwrap()).unwrap();
    assert_eq!(collect(CacheLimit(1 << 30)), None);
    assert_eq!(store.records().list().unwrap().len(), 4);
    store.records().lookup(CacheKey([1; 32])).unwrap().unwrap();
    let limit = CacheLimit(3 << 20);
    assert_eq!(collect(limit), None);
    assert!(store.usage().unwrap().cache_bytes <= limit.0);
    let left: Vec<_> = store.records().list().unwrap().iter().map(|it| it.key.0[0]).collect();
    assert_eq!(left, [4, 1]);
}

#[test]
fn what_a_build_used_goes_at_its_end_if_it_is_too_much() {
    let store = TestStore::new();
    let (lease, limit) = (store.lease().unwrap(), CacheLimit(3 << 20));
    let collector = store.collect_garbage(limit);
    record_megabytes(&store, 4);
    assert_eq!(store.records().list().unwrap().len(), 4);
    let overflow = collector.finish(lease).unwrap().unwrap();
    assert!(overflow.cache_bytes >= 4 << 20);
    assert!(store.usage().unwrap().cache_bytes <= limit.0);
    assert_eq!(store.records().list().unwrap().len(), 2);
}

#[test]
fn the_ledger_never_says_too_little() {
    let store = TestStore::new();
    let at_most = || store.ledger().unwrap().cache_bytes_max();
    assert_eq!(at_most(), None);
    store.prune_above(u64::MAX, &[]).unwrap();
    assert_eq!(at_most(), Some(0));
    let check = || {
        let usage = store.usage().unwrap();
        store.settle(&store.0.growth).unwrap();
        assert!(at_most().is_none_or(|bytes| bytes >= usage.cache_bytes), "{usage:?} {:?}", at_most());
        usage.cache_bytes
    };
    record_megabytes(&store, 2);
    assert!(check() >= 2 << 20);
    let mount = cache_mount(&store, 1);
    fs::write(mount.path().join("x"), [1; 1 << 16]).unwrap();
    drop(mount);
    store.content().put(&[1; 1 << 16]).unwrap();
    assert!(check() >= (2 << 20) + (1 << 17));
    assert!(at_most().is_some());
    // What an image held becomes cache with nothing being added.
    let target = store_image(&store, "{}");
    store.images().put(&"app".parse().unwrap(), &target, &[]).unwrap();
    store.images().remove(&"app".parse().unwrap()).unwrap();
    assert_eq!(at_most(), None);
    check();
}
