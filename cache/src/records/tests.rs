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
    };
    store.records().insert(&new).unwrap();
}

#[test]
fn what_was_recorded_is_found() {
    let store = TestStore::new();
    let outputs = [commit_file(&store, &Snapshot::empty(), "a", "1"), Snapshot::empty()];
    insert(&store, 1, Some(key(101)), &outputs);
    let found = store.second_handle().records().lookup(key(1)).unwrap().unwrap();
    assert_eq!(found.outputs, outputs);
    assert_eq!((found.key, found.content_key), (key(1), Some(key(101))));
    assert_eq!((found.op_digest, found.trace.as_slice()), (OP, &[1][..]));
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
    assert!(store.records().set_content_key(key(1), key(101)).unwrap());
    assert!(store.records().link(key(2), key(1), b"why").unwrap());
    assert!(!store.records().link(key(3), key(77), b"").unwrap());
    assert!(!store.records().set_content_key(key(77), key(101)).unwrap());
    let found = store.records().lookup(key(2)).unwrap().unwrap();
    assert_eq!((found.content_key, found.trace.as_slice()), (Some(key(101)), &b"why"[..]));
    // The result stays as long as one key leads there.
    assert!(store.records().remove(key(1)).unwrap());
    assert_eq!(store.records().lookup_content(key(101)).unwrap().unwrap().key, key(2));
    assert!(store.records().remove(key(2)).unwrap());
    assert_eq!(store.records().lookup_content(key(101)).unwrap(), None);
    assert!(!store.records().has_op(&OP).unwrap());
}

#[test]
fn similar_records_are_found_newest_first() {
    let store = TestStore::new();
    assert!(!store.records().has_op(&OP).unwrap());
    for number in 1..=3 {
        insert(&store, number, None, &[]);
    }
    assert!(store.records().has_op(&OP).unwrap());
    let keys = |found: Vec<Record>| found.into_iter().map(|record| record.key).collect::<Vec<_>>();
    assert_eq!(keys(store.records().newest_of_op(&OP, 2).unwrap()), [key(3), key(2)]);
    assert_eq!(keys(store.records().newest_described("RUN make", 9).unwrap()), [key(3), key(2), key(1)]);
    assert!(store.records().newest_described("RUN true", 9).unwrap().is_empty());
}

#[test]
fn a_result_must_have_been_committed() {
    let store = TestStore::new();
    let forged = Snapshot { id: Some(SnapshotId(77)), ..Snapshot::empty() };
    let outputs = [forged];
    let new = NewRecord {
        key: key(1),
        op_digest: OP,
        content_key: None,
        outputs: &outputs,
        description: "",
        trace: &[],
    };
    assert!(matches!(store.records().insert(&new), Err(Error::SnapshotMissing(SnapshotId(77)))));
    assert_eq!(store.records().lookup(key(1)).unwrap(), None);
}
