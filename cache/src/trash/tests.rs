use std::os::unix::fs::symlink;

use super::*;
use crate::testing::TestStore;

#[test]
fn trees_are_removed_to_the_last_file() {
    let store = TestStore::new();
    let outside = store.scratch().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), "").unwrap();
    let tree = store.scratch().join("tree");
    let mut deep = tree.clone();
    for _ in 0..PARALLEL_DEPTH_MAX + 5 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), "content").unwrap();
    symlink(&outside, tree.join("link")).unwrap();
    store.discard(&tree).unwrap();
    assert!(!tree.exists());
    store.discard(&tree).unwrap();
    store.empty_trash().unwrap();
    assert_eq!(fs::read_dir(store.root().join("trash")).unwrap().count(), 0);
    assert!(outside.join("kept").exists());
}

#[test]
fn many_trees_in_a_row_are_removed_one_after_the_other() {
    let store = TestStore::new();
    for number in 0..500 {
        let tree = store.scratch().join(format!("tree-{number}"));
        fs::create_dir(&tree).unwrap();
        (0..=ENTRIES_OF_ONE_MAX).for_each(|file| fs::write(tree.join(file.to_string()), "").unwrap());
        store.discard(&tree).unwrap();
    }
    store.empty_trash().unwrap();
    assert_eq!(fs::read_dir(store.root().join("trash")).unwrap().count(), 0);
}
