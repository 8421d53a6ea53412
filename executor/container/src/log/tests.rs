use std::path::Path;

use rbuild_executor::Stream;

use super::{LogReader, LogTail, LogWriter};
use crate::spec::LogOptions;

fn lines(directory: &Path, tail: LogTail) -> Vec<String> {
    let mut reader = LogReader::open(directory, tail).unwrap();
    std::iter::from_fn(|| reader.next_line().unwrap()).map(|line| line.log).collect()
}

fn numbered(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| format!("line {number}\n")).collect()
}

fn write(writer: &mut LogWriter, text: &str) {
    writer.write(Stream::Stdout, text.as_bytes(), 1).unwrap();
}

#[test]
fn lines_come_back_as_they_were() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = LogWriter::open(directory.path(), &LogOptions::default()).unwrap();
    writer.write(Stream::Stdout, b"one\ntw", 1_700_000_000_000_000_001).unwrap();
    writer.write(Stream::Stderr, b"err\xff", 2).unwrap();
    writer.write(Stream::Stdout, b"o\n", 3).unwrap();
    writer.finish(4).unwrap();
    let text = std::fs::read_to_string(directory.path().join("json.log")).unwrap();
    assert_eq!(
        text,
        "{\"log\":\"one\\n\",\"stream\":\"stdout\",\"time\":\"2023-11-14T22:13:20.000000001Z\"}\n\
         {\"log\":\"two\\n\",\"stream\":\"stdout\",\"time\":\"1970-01-01T00:00:00.000000003Z\"}\n\
         {\"log\":\"err\u{fffd}\",\"stream\":\"stderr\",\"time\":\"1970-01-01T00:00:00.000000004Z\"}\n"
    );
    let mut reader = LogReader::open(directory.path(), LogTail::All).unwrap();
    assert_eq!(reader.next_line().unwrap().unwrap().time_ns(), Some(1_700_000_000_000_000_001));
}

#[test]
fn the_last_lines_are_found_from_the_end() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(lines(directory.path(), LogTail::All), [] as [&str; 0]);
    let mut writer = LogWriter::open(directory.path(), &LogOptions::default()).unwrap();
    assert_eq!(lines(directory.path(), LogTail::Lines(3)), [] as [&str; 0]);
    for line in numbered(0..3000) {
        write(&mut writer, &line);
    }
    for count in [0, 1, 2, 1500, 2999, 3000, 3001, 10_000] {
        let first = 3000 - count.min(3000);
        assert_eq!(lines(directory.path(), LogTail::Lines(count.into())), numbered(first..3000), "{count}");
    }
}

#[test]
fn files_rotate_and_are_read_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let options = LogOptions { max_size_bytes: Some(1000), max_files: Some(3), ..LogOptions::default() };
    let mut writer = LogWriter::open(directory.path(), &options).unwrap();
    for line in numbered(0..100) {
        write(&mut writer, &line);
    }
    let names = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(names, 3);
    let kept = lines(directory.path(), LogTail::All);
    assert!(kept.len() > 20 && kept.len() < 60, "{}", kept.len());
    let first = 100 - u32::try_from(kept.len()).unwrap();
    assert_eq!(kept, numbered(first..100));
    for count in [1, 15, 20, 25] {
        assert_eq!(lines(directory.path(), LogTail::Lines(count.into())), numbered(100 - count..100));
    }
}

#[test]
fn readers_follow_a_log_that_grows_and_rotates() {
    let directory = tempfile::tempdir().unwrap();
    let options = LogOptions { max_size_bytes: Some(300), max_files: Some(2), ..LogOptions::default() };
    let mut writer = LogWriter::open(directory.path(), &options).unwrap();
    let mut reader = LogReader::open(directory.path(), LogTail::All).unwrap();
    for line in numbered(0..30) {
        write(&mut writer, &line);
        assert_eq!(reader.next_line().unwrap().unwrap().log, line);
        assert_eq!(reader.next_line().unwrap(), None);
    }
}

#[test]
fn long_lines_come_in_parts() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = LogWriter::open(directory.path(), &LogOptions::default()).unwrap();
    write(&mut writer, &format!("{}\n", "x".repeat(40_000)));
    let sizes: Vec<usize> = lines(directory.path(), LogTail::All).iter().map(String::len).collect();
    assert_eq!(sizes, [16_384, 16_384, 7233]);
}
