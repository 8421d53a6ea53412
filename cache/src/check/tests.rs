use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::Snapshot;
use crate::images::tests::store_image;
use crate::testing::{TestStore, commit_file};

#[test]
fn a_whole_store_has_no_problems() {
    let store = TestStore::new();
    let snapshot = commit_file(&store, &Snapshot::empty(), "a", "1");
    store
        .images()
        .put(&"app".parse().unwrap(), &store_image(&store, "{}"), std::slice::from_ref(&snapshot))
        .unwrap();
    assert_eq!(store.check().unwrap(), []);
}

#[test]
fn a_flipped_byte_is_found() {
    let store = TestStore::new();
    let digest = store.content().put(b"hello").unwrap();
    let path = store.0.layout.blob(digest);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, b"hallo").unwrap();
    assert_eq!(store.check().unwrap(), [Problem::Blob { digest, found: Digest::of("hallo") }]);
}

#[test]
fn what_is_missing_and_what_is_too_much_is_found() {
    let store = TestStore::new();
    let snapshot = commit_file(&store, &Snapshot::empty(), "a", "1");
    let layer = snapshot.layers[0];
    fs::rename(store.0.layout.layer(layer), store.root().join("layers/77")).unwrap();
    let target = store_image(&store, "{}");
    store.images().put(&"app".parse().unwrap(), &target, std::slice::from_ref(&snapshot)).unwrap();
    fs::remove_file(store.0.layout.blob(Digest::of("{}"))).unwrap();
    let expected = [
        Problem::LayerUnknown(store.root().join("layers/77")),
        Problem::LayerMissing(layer),
        Problem::Image { target: target.digest, blob: Digest::of("{}") },
    ];
    assert_eq!(store.check().unwrap(), expected);
}
