//! Archives that mean harm, or mean nothing, and what becomes of each.
//!
//! Every one is applied inside a directory next to which lies another that must not change.

use std::io::Read;
use std::os::unix::fs::symlink;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// A target, and beside it what nobody may touch.
pub(super) struct Yard {
    outer: TempDir,
}

impl Yard {
    pub(super) fn new() -> Self {
        let outer = tempfile::tempdir().unwrap();
        fs::create_dir(outer.path().join("root")).unwrap();
        fs::create_dir(outer.path().join("outside")).unwrap();
        fs::write(outer.path().join("outside/secret"), "untouched").unwrap();
        fs::write(outer.path().join("neighbour"), "untouched").unwrap();
        Self { outer }
    }

    /// What holds the target and its neighbours.
    pub(super) fn outer(&self) -> &Path {
        self.outer.path()
    }

    fn root(&self) -> PathBuf {
        self.outer.path().join("root")
    }

    pub(super) fn apply(&self, archive: &[u8], options: &ApplyOptions<'_>) -> Result<Applied, Error> {
        let before = self.outside();
        let result = apply(&mut &archive[..], &RootDir::open(self.root()).unwrap(), options);
        assert_eq!(self.outside(), before, "something outside changed");
        result
    }

    fn outside(&self) -> Vec<(PathBuf, String)> {
        describe(self.outer.path()).into_iter().filter(|(path, _)| !path.starts_with("root")).collect()
    }

    /// What is in the target, as `path: content` for files.
    pub(super) fn tree(&self) -> Vec<String> {
        describe(&self.root())
            .into_iter()
            .map(|(path, what)| {
                let words: Vec<&str> = what.split(' ').collect();
                let count = if what.starts_with("link") { 3 } else { 2.min(words.len()) };
                let what = if what.starts_with("directory") {
                    "directory".to_owned()
                } else {
                    words[..count].join(" ")
                };
                format!("{}: {what}", path.display())
            })
            .collect()
    }
}

/// What is expected of an archive.
enum Outcome {
    Tree(&'static [&'static str]),
    Refused(Refusal),
    Fails(fn(&Error) -> bool),
}
use Outcome::{Fails, Refused, Tree};

type Part<'a> = (TarEntry<'a>, &'a str);

fn file<'a>(path: &'a str, content: &'a str) -> Part<'a> {
    (entry(path, TarKind::File { size_bytes: content.len() as u64 }), content)
}

fn dir(path: &str) -> Part<'_> {
    (TarEntry { mode: 0o755, ..entry(path, TarKind::Directory) }, "")
}

fn link<'a>(path: &'a str, target: &'a str) -> Part<'a> {
    (entry(path, TarKind::Symlink { target: target.as_bytes() }), "")
}

fn hard<'a>(path: &'a str, target: &'a str) -> Part<'a> {
    (entry(path, TarKind::HardLink { target: target.as_bytes() }), "")
}

fn archive(parts: &[Part<'_>]) -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    for (entry, content) in parts {
        tar.entry_with(entry, content.as_bytes()).unwrap();
    }
    tar.finish().unwrap()
}

fn check(name: &str, archive: &[u8], options: &ApplyOptions<'_>, expected: &Outcome) {
    let yard = Yard::new();
    let result = yard.apply(archive, options);
    match (result, expected) {
        (Ok(_), Tree(tree)) => assert_eq!(yard.tree(), *tree, "{name}"),
        (Err(Error::Refused { reason, .. }), Refused(expected)) => assert_eq!(reason, *expected, "{name}"),
        (Err(error), Fails(is_expected)) => assert!(is_expected(&error), "{name}: {error:?}"),
        (result, _) => panic!("{name}: {result:?}, {:?}", yard.tree()),
    }
}

fn is_loop_or_missing(error: &Error) -> bool {
    matches!(error, Error::Path(error) if error.is_not_found() || error.errno() == Some(rustix::io::Errno::LOOP))
}

#[test]
fn paths_stay_inside() {
    let table: Vec<(&str, Vec<Part<'_>>, Outcome)> = vec![
        ("parent", vec![file("../neighbour", "x")], Refused(Refusal::LeadsOut)),
        ("parent in the middle", vec![file("a/../../neighbour", "x")], Refused(Refusal::LeadsOut)),
        ("parent that stays", vec![file("a/../b", "x")], Tree(&["b: file \"x\""])),
        (
            "absolute",
            vec![file("/outside/secret", "x")],
            Tree(&["outside: directory", "outside/secret: file \"x\""]),
        ),
        ("dots and slashes", vec![file("./a//./b", "x")], Tree(&["a: directory", "a/b: file \"x\""])),
        ("the root", vec![dir("."), file("a", "")], Tree(&["a: file \"\""])),
        ("the root as a file", vec![file(".", "x")], Refused(Refusal::ReplacesRoot)),
        ("the root as a link", vec![link("./", "/outside")], Refused(Refusal::ReplacesRoot)),
        (
            "through a link to the parent",
            vec![link("up", "../outside"), file("up/secret", "x")],
            Tree(&["outside: directory", "outside/secret: file \"x\"", "up: link to ../outside"]),
        ),
        (
            "through an absolute link",
            vec![link("out", "/"), file("out/neighbour", "x")],
            Tree(&["neighbour: file \"x\"", "out: link to /"]),
        ),
        (
            "through a chain of links",
            vec![link("a", "b"), link("b", "../../../.."), file("a/neighbour", "x")],
            Tree(&["a: link to b", "b: link to ../../../..", "neighbour: file \"x\""]),
        ),
        ("through a loop", vec![link("a", "b"), link("b", "a"), file("a/x", "x")], Fails(is_loop_or_missing)),
        ("a file over a link", vec![link("a", "../neighbour"), file("a", "x")], Tree(&["a: file \"x\""])),
        (
            "a directory over a link",
            vec![link("a", "../outside"), dir("a"), file("a/secret", "x")],
            Tree(&["a: directory", "a/secret: file \"x\""]),
        ),
        ("through a file", vec![file("a", ""), file("a/b", "")], Fails(is_loop_or_missing)),
        ("hard link out", vec![hard("a", "../neighbour")], Refused(Refusal::LeadsOut)),
        ("hard link to an absolute path", vec![hard("a", "/etc/passwd")], Refused(Refusal::TargetMissing)),
        (
            "hard link through a link out",
            vec![link("up", "../outside"), hard("a", "up/secret")],
            Refused(Refusal::TargetMissing),
        ),
        (
            "hard link to a link out, then written",
            vec![link("s", "../neighbour"), hard("h", "s"), file("h", "x")],
            Tree(&["h: file \"x\"", "s: link to ../neighbour"]),
        ),
        ("hard link to itself", vec![file("a", "x"), hard("a", "a")], Tree(&["a: file \"x\""])),
        ("hard link to a directory", vec![dir("d"), hard("a", "d")], Refused(Refusal::TargetIsDirectory)),
        ("hard link to the root", vec![hard("a", ".")], Refused(Refusal::TargetIsDirectory)),
        ("hard link to nothing", vec![hard("a", "b")], Refused(Refusal::TargetMissing)),
        ("link without a target", vec![link("a", "")], Refused(Refusal::NoTarget)),
    ];
    for (name, parts, outcome) in table {
        for options in [ApplyOptions::literal(), ApplyOptions::layer(XATTRS)] {
            check(name, &archive(&parts), &options, &outcome);
        }
    }
}

#[test]
fn later_entries_replace_earlier_ones() {
    let table: Vec<(&str, Vec<Part<'_>>, Outcome)> = vec![
        ("file over file", vec![file("a", "1"), file("a", "2")], Tree(&["a: file \"2\""])),
        ("file over directory", vec![dir("a"), file("a/b", ""), file("a", "2")], Tree(&["a: file \"2\""])),
        ("directory over file", vec![file("a", "1"), dir("a")], Tree(&["a: directory"])),
        (
            "directory over directory",
            vec![dir("a"), file("a/b", ""), dir("a")],
            Tree(&["a: directory", "a/b: file \"\""]),
        ),
        (
            "into a directory that was replaced",
            vec![dir("a"), file("a/b", ""), link("a", "c"), dir("c"), file("a/d", "x")],
            Tree(&["a: link to c", "c: directory", "c/d: file \"x\""]),
        ),
        (
            "a hard link's other name survives",
            vec![file("a", "1"), hard("b", "a"), file("a", "2")],
            Tree(&["a: file \"2\"", "b: file \"1\""]),
        ),
    ];
    for (name, parts, outcome) in table {
        check(name, &archive(&parts), &ApplyOptions::literal(), &outcome);
    }
}

#[test]
fn whiteouts_are_marks_in_layers_only() {
    let layer = ApplyOptions::layer(XATTRS);
    let table: Vec<(&str, Vec<Part<'_>>, Outcome)> = vec![
        ("of a file", vec![file(".wh.a", "")], Tree(&["a: device 0"])),
        ("of the parent", vec![file(".wh...", "")], Refused(Refusal::WhiteoutOfNothing)),
        ("of itself", vec![file("d/.wh..", "")], Refused(Refusal::WhiteoutOfNothing)),
        ("of nothing", vec![file(".wh.", "")], Refused(Refusal::WhiteoutOfNothing)),
        ("with a way out", vec![file("../.wh.neighbour", "")], Refused(Refusal::LeadsOut)),
        (
            "through a link out",
            vec![link("up", ".."), file("up/.wh.neighbour", "")],
            Tree(&["neighbour: device 0", "up: link to .."]),
        ),
        ("of what is here", vec![file("a", "x"), file(".wh.a", "")], Tree(&["a: file \"x\""])),
        ("before what is here", vec![file(".wh.a", ""), file("a", "x")], Tree(&["a: file \"x\""])),
        ("twice", vec![file(".wh.a", ""), file(".wh.a", "")], Tree(&["a: device 0"])),
        ("of another engine", vec![file(".wh..wh.plnk", ""), file(".wh..wh.aufs", "")], Tree(&[])),
        (
            "with content",
            vec![file(".wh.a", "text"), file("b", "x")],
            Tree(&["a: device 0", "b: file \"x\""]),
        ),
        (
            "then something in it",
            vec![file(".wh.a", ""), file("a/b", "x")],
            Tree(&["a: directory", "a/b: file \"x\""]),
        ),
    ];
    for (name, parts, outcome) in table {
        check(name, &archive(&parts), &layer, &outcome);
    }
    let literal = archive(&[file(".wh.a", "x"), file(".wh..wh..opq", "")]);
    let tree = Tree(&[".wh..wh..opq: file \"\"", ".wh.a: file \"x\""]);
    check("in a plain archive", &literal, &ApplyOptions::literal(), &tree);
}

#[test]
fn a_whiteout_and_a_directory_of_one_name_make_it_opaque() {
    for parts in [
        vec![file(".wh.d", ""), dir("d")],
        vec![dir("d"), file(".wh.d", "")],
        vec![file(".wh.d", ""), file("d/x", "")],
        vec![dir("d"), file("d/.wh..wh..opq", "")],
    ] {
        let yard = Yard::new();
        yard.apply(&archive(&parts), &ApplyOptions::layer(XATTRS)).unwrap();
        assert_eq!(
            attributes_of(&yard.root().join("d")),
            [("user.overlay.opaque".to_owned(), b"y".to_vec())]
        );
    }
}

#[test]
fn devices_are_made_replaced_or_refused() {
    let whiteout = [(entry("x", TarKind::CharDevice { major: 0, minor: 0 }), "")];
    check(
        "disguised whiteout",
        &archive(&whiteout),
        &ApplyOptions::layer(XATTRS),
        &Refused(Refusal::WhiteoutDevice),
    );
    let null = archive(&[(entry("null", TarKind::CharDevice { major: 1, minor: 3 }), "")]);
    let yard = Yard::new();
    let applied = yard.apply(&null, &ApplyOptions::layer(XATTRS)).unwrap();
    let expected = if applied.devices_replaced.is_empty() { "null: device 103" } else { "null: file \"\"" };
    assert_eq!(yard.tree(), [expected]);
}

#[test]
fn numbers_that_mean_something_else_to_the_kernel_are_refused() {
    let beyond = |major, minor| archive(&[(entry("x", TarKind::CharDevice { major, minor }), "")]);
    let unchanged = archive(&[(TarEntry { uid: u32::MAX, ..entry("x", TarKind::Fifo) }, "")]);
    for archive in [beyond(1 << 12, 0), beyond(0, 1 << 20), unchanged] {
        check("a number", &archive, &ApplyOptions::layer(XATTRS), &Refused(Refusal::NumberOutOfRange));
    }
}

#[test]
fn attributes_that_redirect_are_dropped() {
    let hostile: Vec<tar::Attribute> = [
        "trusted.overlay.redirect",
        "user.overlay.redirect",
        "user.overlay.opaque",
        "security.selinux",
        "user.kept",
    ]
    .map(|name| (name.as_bytes().to_vec(), b"/outside".to_vec()))
    .to_vec();
    let parts = [(TarEntry { xattrs: &hostile, ..entry("d", TarKind::Directory) }, "")];
    let yard = Yard::new();
    yard.apply(&archive(&parts), &ApplyOptions::layer(XATTRS)).unwrap();
    assert_eq!(attributes_of(&yard.root().join("d")), [("user.kept".to_owned(), b"/outside".to_vec())]);
    let root = RootDir::open(yard.root()).unwrap();
    let trusted = xattr::read(root.as_fd(), OsStr::new("d"), c"trusted.overlay.redirect").unwrap();
    assert_eq!(trusted, None);
}

/// A field of the first header, overwritten and with the checksum made right.
fn patched(mut archive: Vec<u8>, field: std::ops::Range<usize>, bytes: &[u8]) -> Vec<u8> {
    archive[field.start..field.start + bytes.len()].copy_from_slice(bytes);
    archive[148..156].fill(b' ');
    let sum: u32 = archive[..512].iter().map(|byte| u32::from(*byte)).sum();
    archive[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    archive
}

#[test]
fn sizes_that_lie_do_not_shift_the_rest() {
    const SIZE: std::ops::Range<usize> = 124..136;
    let is_truncated: fn(&Error) -> bool = |error| matches!(error, Error::Truncated { .. });
    let is_malformed: fn(&Error) -> bool = |error| matches!(error, Error::Malformed { .. });
    let plain = || archive(&[file("a", "x"), file("b", "y")]);
    let table: Vec<(&str, Vec<u8>, Outcome)> = vec![
        ("larger than the archive", patched(plain(), SIZE, b"00000100000"), Fails(is_truncated)),
        ("smaller than the content", patched(plain(), SIZE, b"00000000000"), Fails(is_malformed)),
        ("no number", patched(plain(), SIZE, b"zzzzzzzzzzz"), Fails(is_malformed)),
        ("negative", patched(plain(), SIZE, &[0xff; 12]), Fails(is_malformed)),
        (
            "beyond 64 bits",
            patched(plain(), SIZE, b"\x80\x01\0\0\0\0\0\0\0\0\0\x01"),
            Refused(Refusal::NumberOutOfRange),
        ),
        (
            "of a directory",
            patched(archive(&[dir("d"), file("b", "y")]), SIZE, b"00000001000"),
            Tree(&["b: file \"y\"", "d: directory"]),
        ),
        (
            "of a link",
            patched(archive(&[link("l", "t"), file("b", "y")]), SIZE, b"00000001000"),
            Tree(&["b: file \"y\"", "l: link to t"]),
        ),
    ];
    for (name, archive, outcome) in table {
        check(name, &archive, &ApplyOptions::literal(), &outcome);
    }
}

#[test]
fn endings() {
    let whole = archive(&[file("a", "x")]);
    let is_truncated: fn(&Error) -> bool = |error| matches!(error, Error::Truncated { .. });
    let is_malformed: fn(&Error) -> bool = |error| matches!(error, Error::Malformed { .. });
    let a = &["a: file \"x\""];
    let garbage = [&whole[..], &[b'g'; 3000]].concat();
    let table: Vec<(&str, &[u8], Outcome)> = vec![
        ("nothing at all", &[], Tree(&[])),
        ("only the end", &whole[1024..], Tree(&[])),
        ("one zero block", &whole[..1536], Tree(a)),
        ("no end", &whole[..1024], Tree(a)),
        ("no padding", &whole[..600], Fails(is_truncated)),
        ("no content", &whole[..512], Fails(is_truncated)),
        ("half a header", &whole[..100], Fails(is_malformed)),
        ("garbage behind the end", &garbage, Tree(a)),
        ("garbage", &garbage[2048..], Fails(is_malformed)),
    ];
    for (name, archive, outcome) in table {
        check(name, archive, &ApplyOptions::literal(), &outcome);
    }
    let applied = Yard::new().apply(&garbage, &ApplyOptions::literal()).unwrap();
    assert_eq!(applied.diff_id.0, rbuild_image::Digest::of(&garbage));
    assert_eq!(applied.size_bytes, garbage.len() as u64);
}

#[test]
fn limits_hold() {
    let parts = [file("a", "12345"), file("b/c/d", "12345")];
    let limited = |change: fn(&mut Limits)| {
        let mut options = ApplyOptions::literal();
        change(&mut options.limits);
        let result = Yard::new().apply(&archive(&parts), &options);
        result.map(drop).map_err(|error| match error {
            Error::LimitExceeded { limit, .. } => limit,
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(limited(|limits| limits.entries = 1), Err("entries"));
    assert_eq!(limited(|limits| limits.entries = 2), Ok(()));
    assert_eq!(limited(|limits| limits.content_bytes = 9), Err("bytes of content"));
    assert_eq!(limited(|limits| limits.content_bytes = 10), Ok(()));
    assert_eq!(limited(|limits| limits.depth = 2), Err("names in a path"));
    assert_eq!(limited(|limits| limits.depth = 3), Ok(()));
    let long = "n".repeat(256);
    let is_limit: fn(&Error) -> bool =
        |error| matches!(error, Error::LimitExceeded { limit: "bytes in a name", .. });
    check("a long name", &archive(&[file(&long, "")]), &ApplyOptions::literal(), &Fails(is_limit));
    let path = format!("{}x", "d/".repeat(2048));
    let is_malformed: fn(&Error) -> bool = |error| matches!(error, Error::Malformed { .. });
    check("a long path", &archive(&[file(&path, "")]), &ApplyOptions::literal(), &Fails(is_malformed));
}

#[test]
fn a_link_in_the_target_leads_nowhere_else() {
    let yard = Yard::new();
    symlink("../outside", yard.root().join("etc")).unwrap();
    symlink("../neighbour", yard.root().join("file")).unwrap();
    let parts = archive(&[file("etc/secret", "x"), file("file", "x"), file("etc/new", "x")]);
    yard.apply(&parts, &ApplyOptions::literal()).unwrap();
    assert_eq!(
        yard.tree(),
        [
            "etc: link to ../outside",
            "file: file \"x\"",
            "outside: directory",
            "outside/new: file \"x\"",
            "outside/secret: file \"x\""
        ]
    );
}

#[test]
fn lower_layers_complete_a_layer() {
    let (yard, lower) = (Yard::new(), tempfile::tempdir().unwrap());
    let low = |name: &str| lower.path().join(name);
    fs::create_dir_all(low("usr/lib")).unwrap();
    fs::set_permissions(low("usr"), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    fs::write(low("usr/lib/old"), "old").unwrap();
    symlink("usr/lib", low("lib")).unwrap();
    symlink("../../outside", low("usr/out")).unwrap();
    let lowers = [RootDir::open(lower.path()).unwrap()];
    let options = ApplyOptions { lowers: &lowers, ..ApplyOptions::layer(XATTRS) };
    let parts = [file("lib/new", "x"), hard("lib/again", "lib/old"), file("usr/out/secret", "x")];
    let applied = yard.apply(&archive(&parts), &options).unwrap();
    assert_eq!(
        yard.tree(),
        [
            "outside: directory",
            "outside/secret: file \"x\"",
            "usr: directory",
            "usr/lib: directory",
            "usr/lib/again: file \"old\"",
            "usr/lib/new: file \"x\"",
            "usr/lib/old: file \"old\""
        ]
    );
    let mode = fs::metadata(yard.root().join("usr")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o711);
    assert_eq!(applied.implied, [Path::new("usr"), Path::new("usr/lib"), Path::new("outside")]);
}

#[test]
fn implied_directories_can_be_completed_later() {
    let (yard, lower) = (Yard::new(), tempfile::tempdir().unwrap());
    fs::create_dir(lower.path().join("tmp")).unwrap();
    fs::set_permissions(lower.path().join("tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o1777))
        .unwrap();
    let applied = yard.apply(&archive(&[file("tmp/a/b", "")]), &ApplyOptions::layer(XATTRS)).unwrap();
    assert_eq!(applied.implied, [Path::new("tmp"), Path::new("tmp/a")]);
    let (below, layer) = (RootDir::open(lower.path()).unwrap(), RootDir::open(yard.root()).unwrap());
    copy_directory_attributes(&below, &layer, &applied.implied).unwrap();
    let mode = |name: &str| fs::metadata(yard.root().join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("tmp"), mode("tmp/a")), (0o1777, 0o755));
}

#[test]
fn owners_can_be_overridden() {
    let parts = archive(&[
        dir("d"),
        (TarEntry { uid: 5, gid: 6, mode: 0o4755, ..entry("d/f", TarKind::File { size_bytes: 0 }) }, ""),
    ]);
    let owner_after = |owners| {
        let yard = Yard::new();
        yard.apply(&parts, &ApplyOptions { owners, ..ApplyOptions::literal() }).unwrap();
        let metadata = fs::metadata(yard.root().join("d/f")).unwrap();
        (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
    };
    let me = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    assert_eq!(owner_after(Owners::Squash), (me.0, me.1, 0o4755));
    if me.0 == 0 {
        assert_eq!(owner_after(Owners::Keep), (5, 6, 0o4755));
        assert_eq!(owner_after(Owners::All { uid: 8, gid: 9 }), (8, 9, 0o4755));
    } else {
        eprintln!("SKIPPED: only root may change owners");
    }
}

/// An archive with a bit of everything, for mutation.
fn rich() -> Vec<u8> {
    let long = "l".repeat(180);
    let xattrs = [(b"user.a".to_vec(), b"b".to_vec())];
    archive(&[
        dir("d"),
        file("d/f", "content"),
        (TarEntry { xattrs: &xattrs, mtime: -5, ..entry(&long, TarKind::File { size_bytes: 3 }) }, "abc"),
        link("s", "d"),
        hard("h", "d/f"),
        file("s/through", "x"),
        file("d/.wh.gone", ""),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_damage_panics_or_escapes(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
        fix_checksums in any::<bool>(),
        layer in any::<bool>(),
    ) {
        let mut bytes = rich();
        for (at, value) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        if fix_checksums {
            make_checksums_right(&mut bytes);
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let mut options = if layer { ApplyOptions::layer(XATTRS) } else { ApplyOptions::literal() };
        options.limits.content_bytes = 1 << 20;
        drop(Yard::new().apply(&bytes, &options));
    }

    #[test]
    fn no_noise_is_read_for_ever(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let mut decoded = Vec::new();
        if let Ok(decoder) = compression::Decoder::new(&bytes[..], 1 << 20) {
            drop(decoder.take(1 << 21).read_to_end(&mut decoded));
        }
        is_archive(&bytes[..]);
    }
}

/// Gives every block that says it is a header a right checksum, so that damage gets further in.
fn make_checksums_right(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}
