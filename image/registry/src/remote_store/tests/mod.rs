//! Places of all kinds: what holds for each, and what for one alone.

mod actions;

use std::io::{self, Read};

use super::*;
use crate::testing::{FakeActions, FakeRegistry, Fault, S3Server, Wire};
use crate::tests::{NEVER, client, content, registry, unwatched};
use crate::{Anonymous, ClientOptions};

/// A registry, a directory, an object store and GitHub's cache, and all of them as places.
struct World {
    registry: FakeRegistry,
    directory: tempfile::TempDir,
    s3: S3Server,
    actions: FakeActions,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let s3 = S3Server::start(&directory.path().join("s3")).unwrap();
        Self { registry: registry(), directory, s3, actions: FakeActions::start().unwrap() }
    }

    /// GitHub's cache comes last.
    fn places(&self) -> [RemoteStore; 4] {
        self.places_of(Arc::new(client()))
    }

    fn places_of(&self, client: Arc<Client>) -> [RemoteStore; 4] {
        let options = self.s3.options(&self.s3.name(), "team/");
        [
            RemoteStore::repository(Arc::clone(&client), self.registry.reference("cache")),
            RemoteStore::directory(Arc::clone(&client), &self.directory.path().join("place")).unwrap(),
            RemoteStore::bucket(Arc::clone(&client), &options).unwrap(),
            RemoteStore::actions(client, actions::options(&self.actions)).unwrap(),
        ]
    }
}

fn push(place: &RemoteStore, descriptor: &Descriptor, bytes: &[u8]) -> Result<PushOutcome> {
    let open = || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(io::Cursor::new(bytes.to_vec()))) };
    place.push_blob(&BlobUpload { descriptor, open: &open, mount_from: &[] }, unwatched())
}

#[test]
fn blobs_come_back_as_they_went() {
    let world = World::new();
    for place in world.places() {
        for size in [0, 1, 1000, 9 * 1024 * 1024] {
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
    let world = World::new();
    for place in world.places() {
        let (right, wrong) = (content(1000), vec![7; 1000]);
        let blob = Descriptor::of(MediaType::OciLayer, &right);
        push(&place, &blob, &wrong).unwrap_err();
        push(&place, &blob, &right[..999]).unwrap_err();
        assert_eq!(place.find_blob(blob.digest, &[], &NEVER).unwrap(), None, "{place:?}");
        let missing = place.fetch_blob(&blob, &mut io::sink(), unwatched()).unwrap_err();
        assert!(missing.is_not_found(), "{missing:?}");
    }
    let place = &world.places()[1];
    let blob = Descriptor::of(MediaType::OciLayer, &content(1000));
    push(place, &blob, &content(1000)).unwrap();
    let path = world.directory.path().join("place/blobs/sha256").join(blob.digest.hex());
    std::fs::write(&path, vec![7; 1000]).unwrap();
    let error = place.fetch_blob(&blob, &mut io::sink(), unwatched()).unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error:?}");
    std::fs::write(&path, vec![7; 999]).unwrap();
    let error = place.fetch_blob(&blob, &mut io::sink(), unwatched()).unwrap_err();
    assert!(matches!(error, Error::SizeMismatch { .. }), "{error:?}");
}

fn manifest(number: usize) -> Vec<u8> {
    let mut manifest = rbuild_image::Manifest::new(Descriptor::of(MediaType::OciConfig, b"{}"), Vec::new());
    manifest.annotations.insert("number".to_owned(), number.to_string());
    manifest.to_bytes()
}

#[test]
fn documents_are_asked_for_many_at_a_time() {
    let world = World::new();
    for place in world.places() {
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
    let world = World::new();
    let place = &world.places()[0];
    world.registry.plan("GET", "/manifests/", usize::MAX, Fault::Status(403, Vec::new(), String::new()));
    assert!(place.documents(&["key-1".to_owned()], &NEVER).is_err());
}

#[test]
fn an_object_store_takes_nothing_without_a_name() {
    let world = World::new();
    let places = world.places();
    let open = || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(&b"content"[..])) };
    let sent = places[0].push_unnamed(&open, unwatched()).unwrap();
    assert_eq!(sent, (Digest::of(b"content"), 7));
    for place in &places[1..] {
        assert!(place.push_unnamed(&open, unwatched()).unwrap_err().refuses_form());
    }
}

#[test]
fn a_wrong_key_is_not_a_bucket_that_has_nothing() {
    let world = World::new();
    let [_, _, right, _] = world.places();
    let wrong = |secret: &str| {
        let mut options = world.s3.options(&world.s3.name(), "team/");
        let BucketKind::S3 { secret_access_key, .. } = &mut options.kind else { panic!("S3") };
        *secret_access_key = Some(crate::Secret::new(secret));
        RemoteStore::bucket(Arc::new(client()), &options).unwrap()
    };
    let place = wrong("another");
    place.documents(&["key-1".to_owned()], &NEVER).unwrap_err();
    place.put_document("key-1", &manifest(1), &NEVER).unwrap_err();
    let error = push(&place, &Descriptor::of(MediaType::OciLayer, b"x"), b"x").unwrap_err();
    assert!(!format!("{error:?}").contains("another"), "{error:?}");
    assert_eq!(right.document_names(&NEVER).unwrap(), [""; 0]);
}

#[test]
fn what_is_there_is_listed_and_removed() {
    let world = World::new();
    for place in &world.places()[..3] {
        assert_eq!(place.document_names(&NEVER).unwrap(), [""; 0], "{place:?}");
        let blob = Descriptor::of(MediaType::OciLayer, &content(1000));
        push(place, &blob, &content(1000)).unwrap();
        for number in 0..3 {
            place.put_document(&format!("key-{number}"), &manifest(number), &NEVER).unwrap();
        }
        let names = || {
            let mut names = place.document_names(&NEVER).unwrap();
            names.sort();
            names
        };
        assert_eq!(names(), ["key-0", "key-1", "key-2"], "{place:?}");
        for _ in 0..2 {
            place.remove_document("key-1", &NEVER).unwrap();
        }
        assert_eq!(names(), ["key-0", "key-2"], "{place:?}");
        let Some(blobs) = place.blobs(&NEVER).unwrap() else {
            assert!(place.reference().is_some(), "{place:?}");
            continue;
        };
        assert_eq!(
            blobs.iter().map(|blob| (blob.digest, blob.size_bytes)).collect::<Vec<_>>(),
            [(blob.digest, 1000)]
        );
        for _ in 0..2 {
            place.remove_blob(blob.digest, &NEVER).unwrap();
        }
        assert_eq!(place.blobs(&NEVER).unwrap(), Some(Vec::new()), "{place:?}");
    }
}

#[test]
fn what_breaks_off_goes_on_and_leaves_nothing_half() {
    let world = World::new();
    let bytes = content(9_000_000);
    let blob = Descriptor::of(MediaType::OciLayer, &bytes);
    let place = |wire: &Wire| {
        RemoteStore::bucket(Arc::new(client()), &world.s3.options(&wire.name(), "team/")).unwrap()
    };
    let wire = Wire::to(&world.s3.name()).unwrap();
    for (after_bytes, refusals) in [(0, 0), (1000, 1), (8_800_000, 2)] {
        wire.break_after(after_bytes, refusals);
        // It may be too much for one try, and then nothing is there.
        if push(&place(&wire), &blob, &bytes).is_err() {
            wire.mend();
            assert_eq!(place(&wire).find_blob(blob.digest, &[], &NEVER).unwrap(), None);
            push(&place(&wire), &blob, &bytes).unwrap();
        }
        wire.break_after(after_bytes, refusals);
        let before = wire.moved();
        let mut fetched = Vec::new();
        place(&wire).fetch_blob(&blob, &mut fetched, unwatched()).unwrap();
        assert!(fetched == bytes, "{after_bytes}");
        let moved = wire.moved().since(before).down_bytes;
        assert!(moved < 10_000_000, "{moved} bytes for what is fetched once, whatever breaks");
        wire.mend();
        place(&wire).remove_blob(blob.digest, &NEVER).unwrap();
    }
}

/// As many as build machines a company has.
const WRITERS: usize = 200;
/// How many programs they are in; each has connections of its own.
const CLIENTS: usize = 4;

/// What a writer has to say of a key: of a length of its own, so that half of it and half of another's would show.
fn said(writer: usize, name: &str) -> Vec<u8> {
    let mut manifest = rbuild_image::Manifest::new(Descriptor::of(MediaType::OciConfig, b"{}"), Vec::new());
    manifest.annotations.insert("name".to_owned(), name.to_owned());
    manifest.annotations.insert("words".to_owned(), format!("{writer};").repeat(50 + 10 * writer));
    manifest.to_bytes()
}

/// What a writer writes: what all do, what one in ten does, and its own.
fn keys(writer: usize) -> [String; 3] {
    ["all".to_owned(), format!("ten-{}", writer % 10), format!("own-{writer}")]
}

/// The layer of a key.
fn layer(name: &str) -> (Descriptor, Vec<u8>) {
    let bytes = name.repeat(300).into_bytes();
    (Descriptor::of(MediaType::OciLayer, &bytes), bytes)
}

#[test]
fn of_two_hundred_writers_none_loses_or_tears_what_another_wrote() {
    let world = World::new();
    // Two cores serve all of them, which takes a while.
    let patient = || ClientOptions { read_timeout: Duration::from_secs(60), ..ClientOptions::default() };
    let client = || Arc::new(Client::new(patient(), Arc::new(Anonymous)));
    let clients: Vec<_> = (0..CLIENTS).map(|_| world.places_of(client())).collect();
    for (kind, place) in world.places().iter().enumerate() {
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let place = &clients[writer % CLIENTS][kind];
                scope.spawn(move || {
                    for name in keys(writer) {
                        let (layer, bytes) = layer(&name);
                        push(place, &layer, &bytes).unwrap();
                        place.put_document(&name, &said(writer, &name), &NEVER).unwrap();
                    }
                });
            }
        });
        all_is_there(place);
    }
}

/// Every key has what one of its writers said of it, and its layer.
#[track_caller]
fn all_is_there(place: &RemoteStore) {
    let mut all: Vec<String> = (0..WRITERS).flat_map(keys).collect();
    all.sort();
    all.dedup();
    for (name, document) in all.iter().zip(place.documents(&all, &NEVER).unwrap()) {
        let document = document.unwrap_or_else(|| panic!("{place:?}: {name} is lost"));
        let mut writers = (0..WRITERS).filter(|writer| keys(*writer).contains(name));
        assert!(writers.any(|writer| said(writer, name) == document), "{place:?}: {name} is torn");
        place.fetch_blob(&layer(name).0, &mut io::sink(), unwatched()).unwrap();
    }
}
