use std::fs;
use std::process::Command;

use super::*;
use crate::testing::{OPTIONS, TempDir, TestStore, commit_file, open};
use crate::{CacheKey, ContainerRecord, Error, NewRecord, OverlayXattrs, Snapshot};

#[test]
fn a_store_is_made_once_and_opened_many_times() {
    let directory = TempDir::new();
    let root = directory.path().join("a/b");
    let snapshot = commit_file(&open(&root), &Snapshot::empty(), "a", "1");
    assert_eq!(open(&root).snapshot(snapshot.id.unwrap()).unwrap(), Some(snapshot));
}

#[test]
fn many_may_make_a_store_at_once() {
    let directory = TempDir::new();
    let root = directory.path().join("store");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| commit_file(&open(&root), &Snapshot::empty(), "a", "1"));
        }
    });
    assert_eq!(open(&root).layer_directories().unwrap().len(), 8);
}

#[test]
fn a_store_of_another_format_or_kind_is_refused() {
    let store = TestStore::new();
    let user = StoreOptions { xattrs: OverlayXattrs::User, ..OPTIONS };
    let refused = |options: &StoreOptions| match Store::open(store.root(), options) {
        Err(Error::UnknownFormat { found, supported, .. }) => (found, supported),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&user), ("rbuild-store 1 trusted".into(), "rbuild-store 1 user".into()));
    fs::write(store.root().join("version"), "rbuild-store 99 trusted\n").unwrap();
    assert_eq!(refused(&OPTIONS).0, "rbuild-store 99 trusted");
}

#[test]
fn a_directory_of_something_else_is_left_alone() {
    let directory = TempDir::new();
    fs::write(directory.path().join("thesis.txt"), "").unwrap();
    assert!(matches!(Store::open(directory.path(), &OPTIONS), Err(Error::NotAStore { .. })));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn an_interrupted_creation_is_completed() {
    let store = TestStore::new();
    fs::remove_file(store.root().join("version")).unwrap();
    fs::remove_dir(store.root().join("volumes")).unwrap();
    commit_file(&store.second_handle(), &Snapshot::empty(), "a", "1");
    assert!(store.area(Area::Volumes).is_dir());
}

#[test]
fn a_damaged_database_is_an_error_with_its_path() {
    let directory = TempDir::new();
    let root = directory.path().join("store");
    drop(open(&root));
    for suffix in ["", "-wal", "-shm"] {
        drop(fs::remove_file(root.join(format!("metadata.db{suffix}"))));
    }
    fs::write(root.join("metadata.db"), "garbage".repeat(1000)).unwrap();
    let Err(Error::Database { path, .. }) = Store::open(&root, &OPTIONS) else {
        panic!("garbage was opened")
    };
    assert_eq!(path, root.join("metadata.db"));
}

#[test]
fn a_stat_cache_is_kept_and_can_be_lost() {
    use crate::stat_cache::StatCacheRow;
    let store = TestStore::new();
    let row = |inode| StatCacheRow { device: u64::MAX, inode, entries: vec![1, 2, 3] };
    store.stat_cache().unwrap().put(&[row(1), row(2), row(1)]).unwrap();
    assert_eq!(
        store.second_handle().stat_cache().unwrap().get([(u64::MAX, 1)]).unwrap(),
        [Some(vec![1, 2, 3])]
    );
    assert_eq!(store.stat_cache().unwrap().get([(0, 1)]).unwrap(), [None]);
    store.stat_cache().unwrap().clear().unwrap();
    assert_eq!(store.stat_cache().unwrap().get([(u64::MAX, 1)]).unwrap(), [None]);

    let other = TestStore::new();
    fs::write(other.root().join("stat-cache-v1.db"), "garbage".repeat(1000)).unwrap();
    assert_eq!(other.stat_cache().unwrap().get([(0, 1)]).unwrap(), [None]);
}

#[test]
fn containers_have_names_and_documents() {
    let store = TestStore::new();
    let snapshot = commit_file(&store, &Snapshot::empty(), "a", "1");
    let container = |id: &str, name: &str| ContainerRecord {
        id: id.into(),
        name: name.into(),
        state: "1".into(),
        snapshot: snapshot.clone(),
        created: 0,
    };
    let containers = store.containers();
    containers.create(&container("c1", "one"), |_| Ok(())).unwrap();
    assert!(
        matches!(containers.create(&container("c2", "one"), |_| Ok(())), Err(Error::NameInUse(name)) if name == "one")
    );
    containers.create(&container("c2", "two"), |_| Ok(())).unwrap();
    assert!(matches!(containers.rename("c2", "one"), Err(Error::NameInUse(_))));
    assert!(containers.rename("c2", "three").unwrap());
    assert!(containers.update("c1", |state| Some(format!("{state}2"))).unwrap());
    assert!(containers.update("c1", |_| None).unwrap());
    assert!(!containers.update("c9", |_| unreachable!("there is no such container")).unwrap());
    assert_eq!(containers.get("c1").unwrap().unwrap().state, "12");
    assert_eq!(containers.by_name("three").unwrap().unwrap().id, "c2");
    assert_eq!(containers.list().unwrap().len(), 2);
    assert!(containers.remove("c1").unwrap());
    assert_eq!(containers.get("c1").unwrap(), None);
}

const CHILD_ROOT: &str = "RBUILD_TEST_CHILD_ROOT";

/// Runs the test `name` of this file in another process, where [`child_root`] is set.
fn run_child(name: &str, root: &Path) -> std::process::Child {
    #[expect(clippy::disallowed_methods, reason = "another process is the point of the test")]
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("store::tests::{name}"), "--nocapture", "--test-threads=1"])
        .env(CHILD_ROOT, root)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

/// The store that a child process is to work on; `None` in the test run itself.
fn child_root() -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "how the parent test speaks to its child")]
    std::env::var_os(CHILD_ROOT).map(PathBuf::from)
}

const STEPS: u8 = 20;

#[test]
fn child_builds() {
    let Some(root) = child_root() else { return };
    let store = open(&root);
    let _lease = store.lease().unwrap();
    for number in 0..STEPS {
        let key = CacheKey([number; 32]);
        let _lock = store.lock_key(&key, &false.into()).unwrap();
        store.content().put(&[number; 1000]).unwrap();
        if store.records().lookup(key).unwrap().is_none() {
            let outputs = [commit_file(&store, &Snapshot::empty(), "a", "1")];
            let new = NewRecord { key, outputs: &outputs, ..NewRecord::default() };
            store.records().insert(&new).unwrap();
        }
    }
}

#[test]
fn processes_share_a_store_and_do_each_step_once() {
    let store = TestStore::new();
    let children: Vec<_> = (0..3).map(|_| run_child("child_builds", store.root())).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let counts = [
        store.records().list().unwrap().len(),
        store.layer_directories().unwrap().len(),
        store.content().list().unwrap().len(),
    ];
    assert_eq!(counts, [usize::from(STEPS); 3]);
    assert_eq!(crate::testing::problems(&store), []);
    assert_eq!(fs::read_dir(store.root().join("leases")).unwrap().count(), 0);
}

#[test]
fn child_dies_in_the_middle() {
    use std::io::Write as _;
    let Some(root) = child_root() else { return };
    let store = open(&root);
    let mut blob = store.content().writer(100).unwrap();
    blob.write_all(b"half").unwrap();
    let active = store.prepare(&Snapshot::empty()).unwrap();
    fs::create_dir_all(active.upper().join("a/b/c")).unwrap();
    let _lock = store.lock_key(&CacheKey([1; 32]), &false.into()).unwrap();
    let _lease = store.lease().unwrap();
    std::process::abort();
}

#[test]
fn what_a_killed_process_leaves_is_cleaned_up() {
    let store = TestStore::new();
    assert!(!run_child("child_dies_in_the_middle", store.root()).wait().unwrap().success());
    let count = |name: &str| fs::read_dir(store.root().join(name)).unwrap().count();
    assert_eq!(["active", "ingest", "locks", "leases"].map(count), [1; 4]);
    // Its key is free at once.
    drop(store.try_lock_key(&CacheKey([1; 32])).unwrap().unwrap());
    commit_file(&store, &Snapshot::empty(), "a", "1");
    assert_eq!(["active", "ingest", "locks"].map(count), [0; 3]);
    // Its lease binds nobody.
    assert_eq!(store.prune(&[crate::PrunePolicy::default()]).unwrap().removals.len(), 1);
    assert_eq!(count("leases"), 0);
    assert_eq!(crate::testing::problems(&store), []);
}
