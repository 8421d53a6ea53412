use super::*;
use crate::testing::{TestStore, commit_file};

const OP: [u8; 32] = [9; 32];

fn key(number: u8) -> CacheKey {
    CacheKey([number; 32])
}

fn insert(store: &Store, number: u8, content_key: Option<CacheKey>, outputs: &[Snapshot]) {
    let trace = [number];
    let new = NewRecord {
        key: key(number),
        op_digest: OP,
        content_key,
        outputs,
        description: "RUN make",
        trace: &trace,
        project: "app",
        ..NewRecord::default()
    };
    store.records().insert(&new).unwrap();
}

#[test]
fn what_was_recorded_is_found() {
    let store = TestStore::new();
    let outputs = [commit_file(&store, &Snapshot::empty(), "a", "1"), Snapshot::empty()];
    let other = store.second_handle();
    let _lease = [store.lease().unwrap(), other.lease().unwrap()];
    insert(&store, 1, Some(key(101)), &outputs);
    let found = other.records().lookup(key(1)).unwrap().unwrap();
    assert_eq!(found.outputs, outputs);
    assert_eq!((found.key, found.content_key), (key(1), Some(key(101))));
    assert_eq!(found.op_digest, OP);
    assert_eq!(store.records().trace(key(1)).unwrap().unwrap().trace, [1]);
    assert_eq!(store.records().lookup_content(key(101)).unwrap(), Some(found));
    assert_eq!(store.records().lookup_content(key(1)).unwrap(), None);
}

#[test]
fn many_keys_are_looked_up_in_order() {
    let store = TestStore::new();
    for number in [1, 2, 4] {
        insert(&store, number, None, &[]);
    }
    let found = store.records().lookup_many(&[key(4), key(3), key(1), key(4)]).unwrap();
    let keys: Vec<_> = found.into_iter().map(|record| record.map(|record| record.key)).collect();
    assert_eq!(keys, [Some(key(4)), None, Some(key(1)), Some(key(4))]);
    assert!(store.records().lookup_many(&[]).unwrap().is_empty());
}

#[test]
fn a_new_result_replaces_the_old_one() {
    let store = TestStore::new();
    let first = commit_file(&store, &Snapshot::empty(), "a", "1");
    let second = commit_file(&store, &Snapshot::empty(), "a", "2");
    insert(&store, 1, Some(key(101)), &[first]);
    insert(&store, 1, None, std::slice::from_ref(&second));
    assert_eq!(store.records().lookup(key(1)).unwrap().unwrap().outputs, [second]);
    assert_eq!(store.records().lookup_content(key(101)).unwrap(), None);
    assert_eq!(store.records().list().unwrap().len(), 1);
}

#[test]
fn another_key_can_lead_to_the_same_result() {
    let store = TestStore::new();
    insert(&store, 1, None, &[Snapshot::empty()]);
    assert!(store.records().set_content_key(key(1), key(101), None).unwrap());
    assert!(store.records().link(key(2), key(1), b"why").unwrap());
    assert!(!store.records().link(key(3), key(77), b"").unwrap());
    assert!(!store.records().set_content_key(key(77), key(101), None).unwrap());
    let found = store.records().lookup(key(2)).unwrap().unwrap();
    assert_eq!(found.content_key, Some(key(101)));
    assert_eq!(store.records().trace(key(2)).unwrap().unwrap().trace, b"why");
    // The result stays as long as one key leads there.
    assert!(store.records().remove(key(1)).unwrap());
    assert_eq!(store.records().lookup_content(key(101)).unwrap().unwrap().key, key(2));
    assert!(store.records().remove(key(2)).unwrap());
    assert_eq!(store.records().lookup_content(key(101)).unwrap(), None);
    assert!(!store.records().has_op(&OP).unwrap());
}

#[test]
fn the_nearest_record_is_of_the_same_project_if_there_is_one() {
    let store = TestStore::new();
    let records: [(u8, [u8; 32], &str, &str); 4] = [
        (1, OP, "[2/3] RUN make", "app"),
        (2, OP, "[2/3] RUN make", "other"),
        (3, [8; 32], "[2/3] RUN make all", "app"),
        (4, [7; 32], "[1/2] RUN true", "other"),
    ];
    for (number, op_digest, description, project) in records {
        let trace = [number];
        let new = NewRecord {
            key: key(number),
            op_digest,
            description,
            trace: &trace,
            project,
            ..NewRecord::default()
        };
        store.records().insert(&new).unwrap();
    }
    let nearest = |op_digest: &[u8; 32], description: &str, project: &str| {
        let place = Some("[2/3] ");
        let wanted = Likeness { op_digest: Some(op_digest), description, place, project };
        store.records().nearest(&wanted).unwrap().map(|found| found.trace[0])
    };
    assert_eq!(nearest(&OP, "", "app"), Some(1), "the same operation in the project");
    assert_eq!(nearest(&[6; 32], "", "app"), Some(3), "the newest of its place in the project");
    assert_eq!(nearest(&OP, "", "new"), Some(2), "the newest of the operation anywhere");
    assert_eq!(nearest(&[6; 32], "[1/2] RUN true", "new"), Some(4), "the same words");
    assert_eq!(nearest(&[6; 32], "[2/3] RUN", "new"), None);
    assert_eq!(store.records().trace(key(2)).unwrap().unwrap().trace, [2]);
}

#[test]
fn a_result_must_have_been_committed() {
    let store = TestStore::new();
    let forged = Snapshot { id: Some(SnapshotId(77)), ..Snapshot::empty() };
    let outputs = [forged];
    let new = NewRecord { key: key(1), op_digest: OP, outputs: &outputs, ..NewRecord::default() };
    assert!(matches!(store.records().insert(&new), Err(Error::SnapshotMissing(SnapshotId(77)))));
    assert_eq!(store.records().lookup(key(1)).unwrap(), None);
}

#[test]
fn a_content_key_is_of_the_build_that_made_the_result() {
    let store = TestStore::new();
    let [first, second]: [BuildName; 2] =
        ["1-00000000000000aa", "2-00000000000000bb"].map(|name| name.parse().unwrap());
    let origin = Origin { build: second.clone(), step: 0 };
    let new = NewRecord { key: key(1), origin: Some(&origin), ..NewRecord::default() };
    store.records().insert(&new).unwrap();
    // The first has run the step before, on other inputs.
    assert!(!store.records().set_content_key(key(1), key(101), Some(&first)).unwrap());
    assert_eq!(store.records().lookup_content(key(101)).unwrap(), None);
    assert!(store.records().set_content_key(key(1), key(102), Some(&second)).unwrap());
    assert!(store.records().lookup_content(key(102)).unwrap().is_some());
}
