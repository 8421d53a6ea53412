use super::*;
use crate::testing::TestStore;
use crate::{CacheKey, NewRecord};

fn chunk(text: &str) -> LogChunk {
    LogChunk { stream: LogStream::Stderr, at_ms: 7, bytes: text.as_bytes().to_vec() }
}

fn log(store: &Store, build: &BuildName, step: u32) -> Option<Vec<LogChunk>> {
    let origin = Origin { build: build.clone(), step };
    let reader = store.builds().log(&origin).unwrap()?;
    Some(reader.collect::<io::Result<_>>().unwrap())
}

#[test]
fn a_build_is_remembered_with_its_output() {
    let store = TestStore::new();
    let writer = store.builds().begin(1).unwrap();
    writer.save(b"begun").unwrap();
    let long = chunk(&"line\n".repeat(10_000));
    for text in ["one", "two"] {
        writer.append(3, &chunk(text)).unwrap();
    }
    writer.append(4, &long).unwrap();
    let name = writer.name().clone();
    let read = || store.builds().read(&name).unwrap().unwrap();
    assert_eq!((read().runs, read().document), (true, b"begun".to_vec()));
    assert!(!store.builds().remove(&name).unwrap(), "a build that runs stays");
    writer.save(b"over").unwrap();
    writer.compress_logs().unwrap();
    drop(writer);
    assert_eq!((read().runs, read().document), (false, b"over".to_vec()));
    assert_eq!(log(&store, &name, 3), Some(vec![chunk("one"), chunk("two")]));
    assert_eq!(log(&store, &name, 4), Some(vec![long]));
    assert_eq!(log(&store, &name, 5), None);
}

#[test]
fn a_log_that_was_cut_off_ends_at_its_last_whole_chunk() {
    let store = TestStore::new();
    let writer = store.builds().begin(1).unwrap();
    writer.append(0, &chunk("whole")).unwrap();
    writer.append(0, &chunk("half")).unwrap();
    let path = log_path(&store.builds().path(writer.name()), 0);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 2]).unwrap();
    assert_eq!(log(&store, writer.name(), 0), Some(vec![chunk("whole")]));
}

#[test]
fn logs_of_results_outlive_their_build() {
    let store = TestStore::new();
    let writer = store.builds().begin(1).unwrap();
    writer.save(b"").unwrap();
    writer.append(1, &chunk("cached")).unwrap();
    writer.append(2, &chunk("failed")).unwrap();
    let name = writer.name().clone();
    let key = CacheKey([1; 32]);
    let origin = Origin { build: name.clone(), step: 1 };
    let new = NewRecord { key, origin: Some(&origin), ..NewRecord::default() };
    store.records().insert(&new).unwrap();
    drop(writer);
    assert!(store.builds().remove(&name).unwrap());
    assert_eq!(store.builds().names().unwrap(), []);
    assert_eq!((log(&store, &name, 1), log(&store, &name, 2)), (Some(vec![chunk("cached")]), None));
    store.records().remove(key).unwrap();
    store.builds().sweep().unwrap();
    assert_eq!(log(&store, &name, 1), None);
    assert!(!store.builds().path(&name).exists());
}

#[test]
fn the_oldest_are_forgotten() {
    let store = TestStore::new();
    let builds = store.builds();
    for number in 0..BUILDS_KEPT_MAX + 3 {
        builds.begin(i64::try_from(number).unwrap()).unwrap().save(b"").unwrap();
    }
    let all = builds.names().unwrap();
    builds.forget_oldest().unwrap();
    assert_eq!(builds.names().unwrap(), all[..BUILDS_KEPT_MAX]);
}

#[test]
fn names_are_read_as_they_are_written() {
    let name = BuildName::new(1_700_000_000);
    assert_eq!(name.to_string().parse(), Ok(name.clone()));
    for text in ["", "17-", "x-0123456789abcdef", "1-0123456789abcdeg", "../1-0123456789abcdef"] {
        assert_eq!(text.parse::<BuildName>(), Err(ParseBuildNameError), "{text}");
    }
}
