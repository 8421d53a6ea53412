use std::fs;
use std::os::unix::fs::MetadataExt;

use rbuild_llb::{FileAction, MkdirAction, MkfileAction, RmAction, SymlinkAction};

use super::super::FileError;
use super::{Bed, NOW_NS, lines};

fn mkdir(path: &str, make_parents: bool) -> FileAction {
    FileAction::Mkdir(MkdirAction {
        path: path.into(),
        mode: 0o750,
        make_parents,
        owner: None,
        timestamp_ns: None,
    })
}

fn mkfile(path: &str, data: &str) -> FileAction {
    let data = data.as_bytes().to_vec();
    FileAction::Mkfile(MkfileAction {
        path: path.into(),
        mode: 0o664,
        data,
        owner: None,
        timestamp_ns: Some(5),
    })
}

fn rm(path: &str, allow_not_found: bool, allow_wildcard: bool) -> FileAction {
    FileAction::Rm(RmAction { path: path.into(), allow_not_found, allow_wildcard })
}

#[test]
fn mkdir_makes_what_is_missing_and_leaves_what_is_there() {
    let bed = Bed::new(&[]).with_dest(&["there/", "l->there"]);
    bed.apply(&mkdir("/there/a/b", true)).unwrap();
    bed.apply(&mkdir("/l/c", true)).unwrap();
    bed.apply(&mkdir("/there", false)).unwrap();
    bed.apply(&mkdir("/there/d", false)).unwrap();
    lines(
        &bed,
        &["l -> there", "0755 there/", "0750 there/a/", "0750 there/a/b/", "0750 there/c/", "0750 there/d/"],
    );
    let made = fs::metadata(bed.dest("there/a")).unwrap();
    assert_eq!(made.mtime() * 1_000_000_000 + made.mtime_nsec(), NOW_NS);
}

#[test]
fn mkdir_needs_what_it_may_not_make() {
    let bed = Bed::new(&[]).with_dest(&["f=1"]);
    assert!(bed.apply(&mkdir("/a/b", false)).is_err());
    for path in ["/f", "/f/x"] {
        let error = bed.apply(&mkdir(path, true)).unwrap_err();
        assert!(matches!(error, FileError::NotADirectory { .. }), "{path}: {error}");
    }
    lines(&bed, &["0644 f = 1"]);
}

#[test]
fn mkfile_writes_through_links_and_over_what_was_there() {
    let bed = Bed::new(&[]).with_dest(&["old=long before:600", "l->old", "d/"]);
    bed.apply(&mkfile("/l", "now")).unwrap();
    bed.apply(&mkfile("/d/new", "")).unwrap();
    lines(&bed, &["0755 d/", "0664 d/new = ", "l -> old", "0664 old = now"]);
    let old = fs::metadata(bed.dest("old")).unwrap();
    assert_eq!((old.mtime(), old.mtime_nsec()), (0, 5));
    assert!(matches!(bed.apply(&mkfile("/d", "")), Err(FileError::DirectoryInTheWay { .. })));
    assert!(matches!(bed.apply(&mkfile("/old/x", "")), Err(FileError::NotADirectory { .. })));
    assert!(bed.apply(&mkfile("/no/x", "")).is_err());
}

#[test]
fn rm_removes_trees_and_links_themselves() {
    let bed = Bed::new(&[]).with_dest(&["d/s/f=1", "keep/f=1", "l->keep"]);
    bed.apply(&rm("/d", false, false)).unwrap();
    bed.apply(&rm("/l", false, false)).unwrap();
    bed.apply(&rm("/no", true, false)).unwrap();
    lines(&bed, &["0755 keep/", "0644 keep/f = 1"]);
    assert!(matches!(bed.apply(&rm("/no", false, false)), Err(FileError::NotFound { .. })));
    assert!(bed.apply(&rm("/", false, false)).is_err());
}

#[test]
fn rm_takes_wildcards() {
    let bed = Bed::new(&[]).with_dest(&["a/x.o=1", "a/x.c=1", "b/y.o=1", "l->a", "*=star"]);
    bed.apply(&rm("/*/*.o", false, true)).unwrap();
    bed.apply(&rm("/none*", false, true)).unwrap();
    bed.apply(&rm(r"/\*", false, true)).unwrap();
    lines(&bed, &["0755 a/", "0644 a/x.c = 1", "0755 b/", "l -> a"]);
}

#[test]
fn symlink_makes_a_link_where_nothing_is() {
    let bed = Bed::new(&[]).with_dest(&["f=1"]);
    let link = |path: &str| {
        FileAction::Symlink(SymlinkAction {
            target: "../any where".into(),
            path: path.into(),
            owner: None,
            timestamp_ns: Some(0),
        })
    };
    bed.apply(&link("/l")).unwrap();
    lines(&bed, &["0644 f = 1", "l -> ../any where"]);
    assert_eq!(fs::symlink_metadata(bed.dest("l")).unwrap().mtime(), 0);
    assert!(bed.apply(&link("/f")).is_err());
}
