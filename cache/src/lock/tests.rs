use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::testing::TestStore;

const KEY: CacheKey = CacheKey([7; 32]);
static NEVER: AtomicBool = AtomicBool::new(false);

fn lock_files(store: &TestStore) -> usize {
    fs::read_dir(store.root().join("locks")).unwrap().count()
}

#[test]
fn a_key_is_locked_against_other_handles() {
    let store = TestStore::new();
    let other = store.second_handle();
    let held = store.lock_key(&KEY, &NEVER).unwrap();
    assert!(other.try_lock_key(&KEY).unwrap().is_none());
    assert!(other.try_lock_key(&CacheKey([8; 32])).unwrap().is_some());
    drop(held);
    assert!(other.try_lock_key(&KEY).unwrap().is_some());
    assert_eq!(lock_files(&store), 0);
}

#[test]
fn a_waiter_can_be_cancelled() {
    let store = TestStore::new();
    let _held = store.lock_key(&KEY, &NEVER).unwrap();
    let result = store.second_handle().lock_key(&KEY, &AtomicBool::new(true));
    assert!(matches!(result, Err(Error::Cancelled { .. })));
}

#[test]
fn only_one_of_many_holds_a_lock() {
    let store = TestStore::new();
    let inside = Arc::new(AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..8 {
            let (store, inside) = (store.second_handle(), Arc::clone(&inside));
            scope.spawn(move || {
                for _ in 0..50 {
                    let _lock = store.lock_key(&KEY, &NEVER).unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    inside.fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(lock_files(&store), 0);
}
