use std::io::{self, Read};

use super::*;
use crate::testing::{FakeRegistry, Fault};
use crate::tests::{NEVER, client, content, registry, unwatched};

/// Every kind of place that needs no server of another make.
fn places(registry: &FakeRegistry, directory: &Path) -> Vec<RemoteStore> {
    let client = Arc::new(client());
    vec![
        RemoteStore::repository(Arc::clone(&client), registry.reference("cache")),
        RemoteStore::directory(client, directory).unwrap(),
    ]
}

fn push(place: &RemoteStore, descriptor: &Descriptor, bytes: &[u8]) -> Result<PushOutcome> {
    let open = || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(io::Cursor::new(bytes.to_vec()))) };
    place.push_blob(&BlobUpload { descriptor, open: &open, mount_from: &[] }, unwatched())
}

#[test]
fn blobs_come_back_as_they_went() {
    let (registry, directory) = (registry(), tempfile::tempdir().unwrap());
    for place in places(&registry, directory.path()) {
        for size in [0, 1, 1000, 17 * 1024 * 1024] {
            let bytes = content(size);
            let blob = Descriptor::of(MediaType::OciLayer, &bytes);
            assert_eq!(place.find_blob(blob.digest, &[], &NEVER).unwrap(), None, "{place:?}");
            assert_eq!(push(&place, &blob, &bytes).unwrap(), PushOutcome::Uploaded, "{place:?}, {size}");
            assert_eq!(push(&place, &blob, &bytes).unwrap(), PushOutcome::AlreadyThere, "{place:?}");
            let mut fetched = Vec::new();
            place.fetch_blob(&blob, &mut fetched, unwatched()).unwrap();
            assert!(fetched == bytes, "{place:?}, {size}");
        }
    }
}

#[test]
fn what_is_not_what_its_name_says_is_refused_both_ways() {
    let (registry, directory) = (registry(), tempfile::tempdir().unwrap());
    for place in places(&registry, directory.path()) {
        let (right, wrong) = (content(1000), vec![7; 1000]);
        let blob = Descriptor::of(MediaType::OciLayer, &right);
        push(&place, &blob, &wrong).unwrap_err();
        push(&place, &blob, &right[..999]).unwrap_err();
        assert_eq!(place.find_blob(blob.digest, &[], &NEVER).unwrap(), None, "{place:?}");
        let missing = place.fetch_blob(&blob, &mut io::sink(), unwatched()).unwrap_err();
        assert!(missing.is_not_found(), "{missing:?}");
    }
    let place = &places(&registry, directory.path())[1];
    let blob = Descriptor::of(MediaType::OciLayer, &content(1000));
    push(place, &blob, &content(1000)).unwrap();
    let path = directory.path().join("blobs/sha256").join(blob.digest.hex());
    std::fs::write(&path, vec![7; 1000]).unwrap();
    let error = place.fetch_blob(&blob, &mut io::sink(), unwatched()).unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error:?}");
    std::fs::write(&path, vec![7; 999]).unwrap();
    let error = place.fetch_blob(&blob, &mut io::sink(), unwatched()).unwrap_err();
    assert!(matches!(error, Error::SizeMismatch { .. }), "{error:?}");
}

#[test]
fn documents_are_asked_for_many_at_a_time() {
    let (registry, directory) = (registry(), tempfile::tempdir().unwrap());
    for place in places(&registry, directory.path()) {
        let manifest = |number: usize| {
            let mut manifest =
                rbuild_image::Manifest::new(Descriptor::of(MediaType::OciConfig, b"{}"), Vec::new());
            manifest.annotations.insert("number".to_owned(), number.to_string());
            manifest.to_bytes()
        };
        let names: Vec<String> = (0..100).map(|number| format!("key-{number}")).collect();
        assert!(place.documents(&names, &NEVER).unwrap().iter().all(Option::is_none), "{place:?}");
        for number in (0..100).step_by(3) {
            place.put_document(&names[number], &manifest(number), &NEVER).unwrap();
        }
        let found = place.documents(&names, &NEVER).unwrap();
        let expected: Vec<_> = (0..100).map(|number| (number % 3 == 0).then(|| manifest(number))).collect();
        assert!(found == expected, "{place:?}");
    }
}

#[test]
fn a_registry_that_fails_is_not_one_that_has_nothing() {
    let (registry, directory) = (registry(), tempfile::tempdir().unwrap());
    let place = &places(&registry, directory.path())[0];
    registry.plan("GET", "/manifests/", usize::MAX, Fault::Status(403, Vec::new(), String::new()));
    assert!(place.documents(&["key-1".to_owned()], &NEVER).is_err());
}

#[test]
fn an_object_store_takes_nothing_without_a_name() {
    let (registry, directory) = (registry(), tempfile::tempdir().unwrap());
    let places = places(&registry, directory.path());
    let open = || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(&b"content"[..])) };
    let sent = places[0].push_unnamed(&open, unwatched()).unwrap();
    assert_eq!(sent, (Digest::of(b"content"), 7));
    assert!(places[1].push_unnamed(&open, unwatched()).unwrap_err().refuses_form());
}
