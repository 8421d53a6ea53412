use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};

use rbuild_image::{Descriptor, Digest, Manifest, MediaType, Reference};

use super::{NEVER, client, content, registry, unwatched};
use crate::testing::{Door, FakeRegistry, Fault};
use crate::{BlobUpload, Error, PushOutcome, Result};

/// Two pieces.
const SIZE: usize = 4 * 1024 * 1024 + 1000;

fn push(registry: &FakeRegistry, bytes: &[u8], mount_from: &[String]) -> (Result<PushOutcome>, usize) {
    let descriptor = Descriptor::of(MediaType::OciLayer, bytes);
    let opened = AtomicUsize::new(0);
    let open = || -> io::Result<Box<dyn Read + Send>> {
        opened.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(io::Cursor::new(bytes.to_vec())))
    };
    let upload = BlobUpload { descriptor: &descriptor, open: &open, mount_from };
    let result = client().push_blob(&registry.reference("app"), &upload, unwatched());
    (result, opened.load(Ordering::Relaxed))
}

fn status(status: u16) -> Fault {
    Fault::Status(status, Vec::new(), String::new())
}

#[test]
fn a_blob_is_sent_only_if_it_must_be() {
    let registry = registry();
    let (sent, opened) = push(&registry, b"content", &[]);
    assert_eq!((sent.unwrap(), opened), (PushOutcome::Uploaded, 1));
    let (sent, opened) = push(&registry, b"content", &[]);
    assert_eq!((sent.unwrap(), opened), (PushOutcome::AlreadyThere, 0));
    registry.add_blob("base", b"other");
    let (sent, opened) = push(&registry, b"other", &["none".to_owned(), "base".to_owned()]);
    assert_eq!((sent.unwrap(), opened), (PushOutcome::Mounted { from: "base".into() }, 0));
    assert_eq!(registry.count("DELETE", "/uploads/"), 1, "the session opened instead of a mount is closed");
}

#[test]
fn uploads_survive_passing_faults() {
    type Faults = Vec<(&'static str, usize, Fault)>;
    let cases: [(&str, Faults); 7] = [
        ("none", vec![]),
        ("503 at the beginning", vec![("POST", 2, status(503))]),
        ("500 at the end", vec![("PUT", 2, status(500))]),
        ("no whole uploads", vec![("PUT", 1, status(413))]),
        ("no whole uploads, a piece fails", vec![("PUT", 1, status(413)), ("PATCH", 1, status(502))]),
        (
            "no whole uploads, an answer is lost",
            vec![("PUT", 1, status(413)), ("PATCH", 1, Fault::LostAnswer)],
        ),
        ("429", vec![("PUT", 1, Fault::Status(429, vec![("Retry-After", "0".into())], String::new()))]),
    ];
    let bytes = content(SIZE);
    for (name, faults) in cases {
        let registry = registry();
        for (method, times, fault) in faults {
            registry.plan(method, "/uploads/", times, fault);
        }
        let outcome = push(&registry, &bytes, &[]).0.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(outcome, PushOutcome::Uploaded, "{name}");
        assert!(registry.blob("app", Digest::of(&bytes)).as_ref() == Some(&bytes), "{name}");
    }
}

/// What broke once is sent in pieces, and of these nothing that has arrived a second time.
#[test]
fn a_large_upload_that_breaks_is_sent_in_pieces() {
    let registry = registry();
    let bytes = content(2 * SIZE);
    registry.plan("PUT", "/uploads/", 1, status(502));
    registry.plan("PATCH", "/uploads/", 3, Fault::HalfLost);
    assert_eq!(push(&registry, &bytes, &[]).0.unwrap(), PushOutcome::Uploaded);
    assert!(registry.blob("app", Digest::of(&bytes)).as_ref() == Some(&bytes));
    let sent = |method: &str| -> Vec<usize> {
        let requests = registry.requests().into_iter().filter(|request| request.method == method);
        requests.map(|request| request.body.len()).collect()
    };
    assert_eq!(sent("PUT"), [2 * SIZE, 0]);
    let piece = SIZE - 1000;
    assert_eq!(sent("PATCH"), [piece, piece / 2, piece / 4, piece / 8, piece, 2000]);
}

#[test]
fn an_empty_blob_can_be_pushed() {
    let registry = registry();
    assert_eq!(push(&registry, b"", &[]).0.unwrap(), PushOutcome::Uploaded);
    assert_eq!(registry.blob("app", Digest::of(b"")), Some(Vec::new()));
}

#[test]
fn a_token_that_expires_before_the_body_is_renewed() {
    let registry = registry();
    // One request for the question, one for the session, none left for the body.
    registry.set_door(Door::Token { login: None, uses: 2 });
    let (result, opened) = push(&registry, b"content", &[]);
    assert_eq!((result.unwrap(), opened), (PushOutcome::Uploaded, 2));
}

#[test]
fn a_refused_upload_is_not_repeated() {
    let registry = registry();
    registry.plan("POST", "/uploads/", usize::MAX, status(403));
    let (result, opened) = push(&registry, b"content", &[]);
    assert_eq!((result.unwrap_err().status(), opened), (Some(403), 0));
    assert_eq!(registry.count("POST", "/uploads/"), 1);
}

#[test]
fn a_blob_must_be_what_its_descriptor_says() {
    let registry = registry();
    for claimed in [b"longer than that".as_slice(), b"short"] {
        let descriptor = Descriptor::of(MediaType::OciLayer, claimed);
        let open = || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(&b"some bytes"[..])) };
        let upload = BlobUpload { descriptor: &descriptor, open: &open, mount_from: &[] };
        let error = client().push_blob(&registry.reference("app"), &upload, unwatched()).unwrap_err();
        assert!(matches!(error, Error::SourceSize { .. }), "{error:?}");
    }
    let same_size = Descriptor::of(MediaType::OciLayer, b"other byte");
    let open = || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(&b"some bytes"[..])) };
    let upload = BlobUpload { descriptor: &same_size, open: &open, mount_from: &[] };
    let error = client().push_blob(&registry.reference("app"), &upload, unwatched()).unwrap_err();
    assert_eq!(error.status(), Some(400));
}

#[test]
fn an_unreadable_blob_is_named() {
    let registry = registry();
    let descriptor = Descriptor::of(MediaType::OciLayer, b"x");
    let open = || -> io::Result<Box<dyn Read + Send>> { Err(io::ErrorKind::NotFound.into()) };
    let upload = BlobUpload { descriptor: &descriptor, open: &open, mount_from: &[] };
    let error = client().push_blob(&registry.reference("app"), &upload, unwatched()).unwrap_err();
    assert!(matches!(error, Error::Source { digest, .. } if digest == descriptor.digest));
}

#[test]
fn a_manifest_goes_under_its_tag_or_its_digest() {
    let registry = registry();
    let manifest = Manifest::new(Descriptor::of(MediaType::OciConfig, b"{}"), Vec::new()).to_bytes();
    let reference = registry.reference("app:1");
    let put =
        |reference: &Reference| client().push_manifest(reference, &MediaType::OciManifest, &manifest, &NEVER);
    registry.plan("PUT", "/manifests/", 1, status(503));
    let digest = put(&reference).unwrap();
    assert_eq!(client().resolve(&reference, &NEVER).unwrap().bytes, manifest);
    put(&reference.with_digest(digest)).unwrap();
    let paths: Vec<_> = registry.requests().into_iter().filter(|request| request.method == "PUT").collect();
    assert!(paths[1].path.ends_with("/manifests/1") && paths[2].path.ends_with(&digest.to_string()));
    let wrong = reference.with_digest(Digest::of(b"else"));
    assert!(matches!(put(&wrong), Err(Error::DigestMismatch { .. })));
}

#[test]
fn what_is_made_as_it_is_sent_is_named_afterwards() {
    let cases: [(&str, Option<(&'static str, Fault)>); 4] = [
        ("no fault", None),
        ("503 at the beginning", Some(("POST", status(503)))),
        ("502 in the middle", Some(("PATCH", status(502)))),
        ("the answer to the end is lost", Some(("PUT", status(500)))),
    ];
    let bytes = content(SIZE);
    for (name, fault) in cases {
        let registry = registry();
        fault.into_iter().for_each(|(method, fault)| registry.plan(method, "/uploads/", 1, fault));
        let open = || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(io::Cursor::new(bytes.clone()))) };
        let sent = client().push_unnamed(&registry.reference("app"), &open, unwatched());
        let (digest, size_bytes) = sent.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((digest, size_bytes), (Digest::of(&bytes), SIZE as u64), "{name}");
        assert!(registry.blob("app", digest).as_ref() == Some(&bytes), "{name}");
    }
}

#[test]
fn a_part_is_never_given_a_name() {
    struct Broken(usize);
    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or(io::ErrorKind::InvalidData)?;
            buffer.fill(7);
            Ok(buffer.len())
        }
    }
    let registry = registry();
    let open = || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(Broken(100))) };
    let error = client().push_unnamed(&registry.reference("app"), &open, unwatched()).unwrap_err();
    assert!(matches!(error, Error::UnnamedSource { .. }), "{error:?}");
    assert_eq!(registry.count("PUT", "/uploads/"), 0);

    // As often as it is asked: an answer before the end of the request may be lost with the connection.
    registry.plan("PATCH", "/uploads/", usize::MAX, status(411));
    let open = || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(&b"content"[..])) };
    let error = client().push_unnamed(&registry.reference("app"), &open, unwatched()).unwrap_err();
    assert!(error.refuses_form(), "{error:?}");
}
