use std::io::Write as _;

use super::*;
use crate::root_dir::PathError;
use crate::testing::TestStore;

fn expected(bytes: &[u8]) -> Expected {
    Expected { digest: Digest::of(bytes), size_bytes: bytes.len() as u64 }
}

fn is_empty(store: &TestStore, directory: &str) -> bool {
    fs::read_dir(store.root().join(directory)).unwrap().next().is_none()
}

#[test]
fn what_was_announced_is_taken_in() {
    let store = TestStore::new();
    store.content().ingest(&mut &b"hello"[..], expected(b"hello")).unwrap();
    assert_eq!(store.content().read(Digest::of("hello"), 5).unwrap().unwrap(), b"hello");
    assert_eq!(store.content().list().unwrap(), [Digest::of("hello")]);
    assert_eq!(store.content().size_bytes(Digest::of("hello")).unwrap(), Some(5));
    assert!(is_empty(&store, "ingest"));
}

#[test]
fn anything_else_is_refused_and_leaves_nothing() {
    let store = TestStore::new();
    let ingest = |bytes: &[u8]| store.content().ingest(&mut &bytes[..], expected(b"hello"));
    assert!(matches!(ingest(b"hallo"), Err(Error::DigestMismatch { .. })));
    assert!(matches!(ingest(b"hello!"), Err(Error::TooLarge { limit: 5 })));
    assert!(matches!(ingest(b"hell"), Err(Error::Truncated { expected: 5, found: 4, .. })));
    assert!(!store.content().contains(Digest::of("hello")).unwrap());
    assert!(store.content().list().unwrap().is_empty());
    assert!(is_empty(&store, "ingest"));
}

#[test]
fn an_endless_stream_is_cut_off() {
    let store = TestStore::new();
    let result = store.content().ingest(&mut io::repeat(0), expected(b"hello"));
    assert!(matches!(result, Err(Error::TooLarge { limit: 5 })));
}

#[test]
fn a_stream_that_fails_leaves_nothing() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let store = TestStore::new();
    let result = store.content().ingest(&mut Failing, expected(b"hello"));
    assert!(
        matches!(result, Err(Error::Receive { source }) if source.kind() == io::ErrorKind::ConnectionReset)
    );
    assert!(is_empty(&store, "ingest"));
}

#[test]
fn a_blob_that_is_there_is_not_read_again() {
    let store = TestStore::new();
    store.content().put(b"hello").unwrap();
    store.content().ingest(&mut io::repeat(0), expected(b"hello")).unwrap();
}

#[test]
fn a_writer_that_is_dropped_leaves_nothing() {
    let store = TestStore::new();
    let mut writer = store.content().writer(10).unwrap();
    writer.write_all(b"hello").unwrap();
    assert!(!is_empty(&store, "ingest"));
    drop(writer);
    assert!(is_empty(&store, "ingest"));
}

#[test]
fn writers_of_one_blob_do_not_disturb_each_other() {
    let (store, bytes) = (TestStore::new(), vec![7; 100_000]);
    let other = store.second_handle();
    let (mut first, mut second) =
        (store.content().writer(1 << 20).unwrap(), other.content().writer(1 << 20).unwrap());
    first.write_all(&bytes).unwrap();
    second.write_all(&bytes).unwrap();
    assert_eq!(first.commit(None).unwrap(), (Digest::of(&bytes), 100_000));
    assert_eq!(second.commit(Some(expected(&bytes))).unwrap(), (Digest::of(&bytes), 100_000));
    assert_eq!(store.content().list().unwrap(), [Digest::of(&bytes)]);
}

#[test]
fn a_read_is_bounded() {
    let store = TestStore::new();
    let digest = store.content().put(b"hello").unwrap();
    assert!(matches!(store.content().read(digest, 4), Err(Error::TooLarge { limit: 4 })));
    assert_eq!(store.content().read(Digest::of("other"), 4).unwrap(), None);
    assert!(matches!(
        store.content().copy_to(Digest::of("other"), &mut io::sink()),
        Err(Error::BlobMissing(missing)) if missing == Digest::of("other")
    ));
}

#[test]
fn an_error_names_verb_and_path() {
    let store = TestStore::new();
    fs::remove_dir(store.root().join("ingest")).unwrap();
    let Err(Error::Path(PathError { verb, path, .. })) = store.content().put(b"hello") else {
        panic!("there is no directory to write to")
    };
    assert_eq!((verb, path.parent().unwrap()), ("open", store.root().join("ingest").as_path()));
}
