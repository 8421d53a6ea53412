//! What archives look like, and that others read them as they are meant.

use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, UNIX_EPOCH};

use rbuild_image::Digest;
use rustix::fs::{FileType, Mode, mknodat};

use super::reader::{Kind, Part, TarReader, Time};
use super::*;

/// One entry of each kind, with values that fit and values that do not.
fn every_kind() -> Vec<u8> {
    let long_name = format!("{}/{}", "d".repeat(90), "f".repeat(60));
    let longest_name = format!("{}/{}", "d".repeat(200), "f".repeat(120));
    let long_target = "t".repeat(150);
    let capability = [("security.capability".as_bytes().to_vec(), b"\x01\0\0\x02a=\nb".to_vec())];
    let mut tar = TarWriter::new(Vec::new());
    for entry in [
        TarEntry { mode: 0o1777, ..entry("tmp", TarKind::Directory) },
        TarEntry { uid: 2_097_151, gid: 2_097_152, ..entry("tmp/owned", TarKind::File { size_bytes: 0 }) },
        TarEntry { mtime: -7, ..entry("tmp/old", TarKind::File { size_bytes: 0 }) },
        TarEntry { mtime: 8_589_934_592, ..entry("tmp/late", TarKind::File { size_bytes: 0 }) },
        entry(&long_name, TarKind::File { size_bytes: 0 }),
        entry(&longest_name, TarKind::Symlink { target: b"../x" }),
        entry("link", TarKind::Symlink { target: long_target.as_bytes() }),
        entry("hard", TarKind::HardLink { target: b"tmp/owned" }),
        entry("null", TarKind::CharDevice { major: 1, minor: 3 }),
        entry("disk", TarKind::BlockDevice { major: 259, minor: 70_000 }),
        entry("fifo", TarKind::Fifo),
        TarEntry { mode: 0o4755, xattrs: &capability, ..entry("ping", TarKind::File { size_bytes: 0 }) },
        TarEntry { path: b"\xff\xe9t\xe9", ..entry("", TarKind::File { size_bytes: 0 }) },
    ] {
        tar.entry(&entry).unwrap();
    }
    let content = entry("content", TarKind::File { size_bytes: 700 });
    tar.entry_with(&content, &[b'c'; 700][..]).unwrap();
    tar.finish().unwrap()
}

#[test]
fn the_bytes_of_archives_stay() {
    let digest = Digest::of(every_kind());
    let golden = "sha256:259306799c89961b23ce3654dce43c1fe7aa893f9004a7874258529e9175c6a1";
    assert_eq!(digest.to_string(), golden, "this changes the digest of every layer: is it meant?");
}

#[test]
fn what_was_written_is_read() {
    let archive = every_kind();
    let mut tar = TarReader::new(&archive[..]);
    let mut entries = Vec::new();
    while let Some(entry) = tar.next_entry().unwrap() {
        let mut content = Vec::new();
        tar.read_to_end(&mut content).unwrap();
        entries.push((entry, content));
    }
    let find = |path: &[u8]| &entries.iter().find(|(entry, _)| entry.path == path).unwrap().0;
    let long_name = format!("{}/{}", "d".repeat(90), "f".repeat(60));
    let longest_name = format!("{}/{}", "d".repeat(200), "f".repeat(120));
    assert_eq!(entries.len(), 14);
    assert_eq!(find(b"tmp/").kind, Kind::Directory);
    assert_eq!(find(b"tmp/").mode, 0o1777);
    assert_eq!((find(b"tmp/owned").uid, find(b"tmp/owned").gid), (2_097_151, 2_097_152));
    assert_eq!(find(b"tmp/old").mtime, Time { seconds: -7, nanoseconds: 0 });
    assert_eq!(find(b"tmp/late").mtime.seconds, 8_589_934_592);
    assert_eq!(find(long_name.as_bytes()).kind, Kind::File { size_bytes: 0, parts: None });
    assert_eq!(find(longest_name.as_bytes()).kind, Kind::Symlink { target: b"../x".to_vec() });
    assert_eq!(find(b"link").kind, Kind::Symlink { target: vec![b't'; 150] });
    assert_eq!(find(b"hard").kind, Kind::HardLink { target: b"tmp/owned".to_vec() });
    assert_eq!(find(b"null").kind, Kind::Device { block: false, major: 1, minor: 3 });
    assert_eq!(find(b"disk").kind, Kind::Device { block: true, major: 259, minor: 70_000 });
    assert_eq!(find(b"fifo").kind, Kind::Fifo);
    assert_eq!(find(b"ping").xattrs, [(b"security.capability".to_vec(), b"\x01\0\0\x02a=\nb".to_vec())]);
    assert_eq!(find(b"\xff\xe9t\xe9").mode, 0o644);
    assert_eq!(entries[13].1, [b'c'; 700]);
}

#[test]
fn records_are_there_only_where_needed() {
    let records = |archive: &[u8]| {
        archive.chunks(512).filter(|block| block[156] == b'x' && &block[257..262] == b"ustar").count()
    };
    assert_eq!(records(&archive_of(&[("a", None), ("a/b", Some("c"))])), 0);
    // Group, two times, two long names or targets, the attribute. The splittable name needs none.
    assert_eq!(records(&every_kind()), 6);
}

#[test]
fn a_size_of_eight_gigabytes_is_a_record() {
    let entry = entry("big", TarKind::File { size_bytes: 1 << 33 });
    let mut tar = TarWriter::new(Vec::new());
    assert!(matches!(tar.entry(&entry), Err(tar::TarWriteError::ContentTooShort)));
    let mut archive = Vec::new();
    let result = TarWriter::new(&mut archive).entry(&entry);
    assert!(matches!(result, Err(tar::TarWriteError::ContentTooShort)));
    let read = TarReader::new(&archive[..]).next_entry().unwrap().unwrap();
    assert_eq!(read.kind, Kind::File { size_bytes: 1 << 33, parts: None });
}

#[test]
fn pax_record_lengths_count_themselves() {
    // Lengths around the points where the number of digits grows.
    for length in (80..110).chain(980..1010).chain(9980..10010) {
        let path = "p".repeat(length);
        let mut tar = TarWriter::new(Vec::new());
        tar.entry(&entry(&path, TarKind::Symlink { target: b"t" })).unwrap();
        let archive = tar.finish().unwrap();
        let read = TarReader::new(&archive[..]).next_entry();
        match read {
            Ok(entry) => assert_eq!(entry.unwrap().path, path.as_bytes()),
            Err(error) => assert!(length > 4096, "{length}: {error:?}"),
        }
    }
}

/// A directory with one file of each kind.
fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir_all(path("usr/bin")).unwrap();
    fs::write(path("usr/bin/tool"), "#!").unwrap();
    fs::set_permissions(path("usr/bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(path("usr/bin/tool"), path("usr/alias")).unwrap();
    fs::write(path("usr-file"), "sorted after usr/").unwrap();
    symlink("../nowhere", path("usr/link")).unwrap();
    set_attribute(&path("usr-file"), "user.note", b"private");
    let root = RootDir::open(dir.path()).unwrap();
    mknodat(&root, "fifo", FileType::Fifo, Mode::RUSR, 0).unwrap();
    drop(std::os::unix::net::UnixListener::bind(path("socket")).unwrap());
    for name in ["usr-file", "usr/bin/tool", "usr/bin", "usr"] {
        let file = fs::File::open(path(name)).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::new(1_700_000_000, 999)).unwrap();
    }
    dir
}

fn paths(archive: &[u8]) -> Vec<String> {
    let mut tar = TarReader::new(archive);
    let mut paths = Vec::new();
    while let Some(entry) = tar.next_entry().unwrap() {
        paths.push(String::from_utf8(entry.path).unwrap());
    }
    paths
}

#[test]
fn a_tree_is_archived_in_order() {
    let dir = tree();
    let mut archive = Vec::new();
    let stats =
        export(&RootDir::open(dir.path()).unwrap(), &ArchiveOptions::default(), &mut archive).unwrap();
    let expected = ["fifo", "usr/", "usr/alias", "usr/bin/", "usr/bin/tool", "usr/link", "usr-file"];
    assert_eq!(paths(&archive), expected);
    assert_eq!((stats.entries, stats.sockets, stats.content_bytes), (7, 1, 19));
    assert_eq!(stats.size_bytes, archive.len() as u64);
    assert!(!archive.windows(9).any(|bytes| bytes == b"user.note"), "private attributes stay here");
    let mut again = Vec::new();
    export(&RootDir::open(dir.path()).unwrap(), &ArchiveOptions::default(), &mut again).unwrap();
    assert!(archive == again);
}

#[test]
fn times_are_clamped() {
    let dir = tree();
    let options = ArchiveOptions { mtimes: Mtimes::AtMost(1_600_000_000), cancel: None };
    let mut archive = Vec::new();
    export(&RootDir::open(dir.path()).unwrap(), &options, &mut archive).unwrap();
    let mut tar = TarReader::new(&archive[..]);
    while let Some(entry) = tar.next_entry().unwrap() {
        assert_eq!(entry.mtime.seconds, 1_600_000_000, "{:?}", entry.path_buf());
    }
}

#[test]
fn marks_that_mean_nothing_stay_behind() {
    let (upper, lower) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let up = |name: &str| upper.path().join(name);
    for name in ["etc", "old"] {
        fs::create_dir(lower.path().join(name)).unwrap();
    }
    fs::write(lower.path().join("etc/passwd"), "").unwrap();
    fs::write(lower.path().join("file"), "").unwrap();
    for name in ["etc", "new", "new/deep", "old", "file"] {
        fs::create_dir(up(name)).unwrap();
    }
    for name in ["new", "new/deep", "old", "file"] {
        set_attribute(&up(name), "user.overlay.opaque", b"y");
    }
    for name in ["etc/passwd", "etc/never", "gone", "new/x", "old/x"] {
        make_whiteout(&up(name));
    }
    let lowers = [RootDir::open(lower.path()).unwrap()];
    let mut archive = Vec::new();
    diff(&RootDir::open(upper.path()).unwrap(), &lowers, XATTRS, &ArchiveOptions::default(), &mut archive)
        .unwrap();
    let expected = ["etc/", "etc/.wh.passwd", "file/", "new/", "new/deep/", "old/", "old/.wh..wh..opq"];
    assert_eq!(paths(&archive), expected);
    assert!(!archive.windows(12).any(|bytes| bytes == b"user.overlay"));
}

#[test]
fn an_overlay_with_foreign_marks_is_refused() {
    let upper = tempfile::tempdir().unwrap();
    fs::create_dir(upper.path().join("moved")).unwrap();
    set_attribute(&upper.path().join("moved"), "user.overlay.redirect", b"/etc");
    let options = ArchiveOptions::default();
    let result = diff(&RootDir::open(upper.path()).unwrap(), &[], XATTRS, &options, &mut std::io::sink());
    assert!(
        matches!(result, Err(Error::ForeignOverlay { attribute: "user.overlay.redirect", .. })),
        "{result:?}"
    );
}

#[test]
fn work_can_be_cancelled() {
    let cancel = std::sync::atomic::AtomicBool::new(true);
    let dir = tree();
    let options = ArchiveOptions { cancel: Some(&cancel), ..ArchiveOptions::default() };
    let result = export(&RootDir::open(dir.path()).unwrap(), &options, &mut std::io::sink());
    assert!(matches!(result, Err(Error::Cancelled)));
    let (target, archive) = (tempfile::tempdir().unwrap(), archive_dir(dir.path()));
    let options = ApplyOptions { cancel: Some(&cancel), ..ApplyOptions::literal() };
    let result = apply(&mut &archive[..], &RootDir::open(target.path()).unwrap(), &options);
    assert!(matches!(result, Err(Error::Cancelled)));
}

/// Archives of other programs, made by hand: headers, then what the test needs.
fn header(name: &str, type_flag: u8, size: u64) -> [u8; 512] {
    let mut block = [0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..108].copy_from_slice(b"0000644\0");
    block[108..116].copy_from_slice(b"0000000\0");
    block[116..124].copy_from_slice(b"0000000\0");
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[136..148].copy_from_slice(b"00000000000\0");
    block[156] = type_flag;
    block[257..265].copy_from_slice(b"ustar  \0");
    checksum(&mut block);
    block
}

fn checksum(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(512), 0);
    padded
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut body = String::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length = (1..6)
            .map(|digits| rest + digits)
            .find(|length| rest + length.to_string().len() == *length)
            .unwrap();
        body.push_str(&format!("{length} {key}={value}\n"));
    }
    [header("pax", b'x', body.len() as u64).to_vec(), padded(body.as_bytes())].concat()
}

fn first(archive: &[u8]) -> (reader::Entry, Vec<u8>) {
    let mut tar = TarReader::new(archive);
    let entry = tar.next_entry().unwrap().unwrap();
    let mut content = Vec::new();
    tar.read_to_end(&mut content).unwrap();
    assert!(tar.next_entry().unwrap().is_none());
    (entry, content)
}

#[test]
fn gnu_times_before_1970_are_read() {
    let mut block = header("old", b'0', 0);
    block[136..148].fill(0xff);
    block[147] = 0xf0;
    checksum(&mut block);
    assert_eq!(first(&block).0.mtime, Time { seconds: -16, nanoseconds: 0 });
    let behind_a_long_name = [&header("././@LongLink", b'L', 5)[..], &padded(b"name\0"), &block].concat();
    let entry = first(&behind_a_long_name).0;
    assert_eq!((entry.path.as_slice(), entry.mtime.seconds), (&b"name"[..], -16));
}

#[test]
fn sparse_files_have_parts() {
    let parts = vec![Part { offset: 2, length: 3 }, Part { offset: 10, length: 2 }];
    let expected = Kind::File { size_bytes: 20, parts: Some(parts) };
    let data = [header("GNUSparseFile.0/f", b'0', 5).to_vec(), padded(b"abcde")].concat();
    let common = [("GNU.sparse.name", "f"), ("GNU.sparse.size", "20")];
    let versions = [
        [&common[..], &[("GNU.sparse.map", "2,3,10,2")]].concat(),
        [
            &common[..],
            &[("GNU.sparse.offset", "2"), ("GNU.sparse.numbytes", "3")],
            &[("GNU.sparse.offset", "10"), ("GNU.sparse.numbytes", "2")],
        ]
        .concat(),
    ];
    for records in versions {
        let (entry, content) = first(&[pax(&records), data.clone()].concat());
        assert_eq!(
            (entry.path.as_slice(), &entry.kind, content.as_slice()),
            (&b"f"[..], &expected, &b"abcde"[..])
        );
    }
    let map = b"2\n2\n3\n10\n2\n";
    let records = [
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", "f"),
        ("GNU.sparse.realsize", "20"),
    ];
    let body = [padded(map), padded(b"abcde")].concat();
    let version_one = [pax(&records), header("GNUSparseFile.0/f", b'0', 512 + 5).to_vec(), body].concat();
    let (entry, content) = first(&version_one);
    assert_eq!(
        (entry.path.as_slice(), &entry.kind, content.as_slice()),
        (&b"f"[..], &expected, &b"abcde"[..])
    );
}

#[test]
fn a_sparse_file_is_made_with_its_holes() {
    let records = [("GNU.sparse.map", "2,3,10,2"), ("GNU.sparse.size", "20")];
    let archive = [pax(&records), header("f", b'0', 5).to_vec(), padded(b"abcde")].concat();
    let target = tempfile::tempdir().unwrap();
    let applied =
        apply(&mut &archive[..], &RootDir::open(target.path()).unwrap(), &ApplyOptions::literal()).unwrap();
    assert_eq!(fs::read(target.path().join("f")).unwrap(), b"\0\0abc\0\0\0\0\0de\0\0\0\0\0\0\0\0");
    assert_eq!(applied.content_bytes, 20);
}

#[test]
fn system_tar_reads_and_writes_the_same_trees() {
    let dir = tree();
    let Some(listing) =
        tool("tar", &["--list", "--verbose", "--numeric-owner", "--file=-"], &archive_dir(dir.path()), None)
    else {
        return;
    };
    let listing = String::from_utf8(listing).unwrap();
    assert!(
        listing.contains("hrwsr-xr-x") && listing.contains("usr/bin/tool link to usr/alias"),
        "{listing}"
    );
    for format in ["gnu", "pax", "ustar", "v7", "oldgnu"] {
        let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(source.path().join("d")).unwrap();
        fs::write(source.path().join("d/file"), "content").unwrap();
        fs::hard_link(source.path().join("d/file"), source.path().join("again")).unwrap();
        symlink("d", source.path().join("link")).unwrap();
        if matches!(format, "gnu" | "pax") {
            fs::write(source.path().join(format!("d/{}", "n".repeat(200))), "long").unwrap();
            let sparse = fs::File::create(source.path().join("sparse")).unwrap();
            sparse.set_len(10_000_000).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", 9_000_000).unwrap();
        }
        let format_flag = format!("--format={format}");
        let sparse_flag = if matches!(format, "gnu" | "pax") { "--sparse" } else { "--no-acls" };
        let arguments = ["--create", sparse_flag, &format_flag, "--file=-", "."];
        let archive = tool("tar", &arguments, b"", Some(source.path())).unwrap();
        let mut target_root = &archive[..];
        apply(&mut target_root, &RootDir::open(target.path()).unwrap(), &ApplyOptions::literal()).unwrap();
        assert_eq!(describe(target.path()), describe(source.path()), "{format}");
    }
}

/// Runs a program on bytes, if this machine has it.
#[expect(
    clippy::disallowed_methods,
    reason = "the independent reader and writer that ours are compared with"
)]
pub(super) fn tool(program: &str, arguments: &[&str], input: &[u8], dir: Option<&Path>) -> Option<Vec<u8>> {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(dir.unwrap_or(Path::new("/")))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("SKIPPED: cannot run `{program}`: {error}");
            return None;
        }
    };
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "`{program}` failed: {}", output.status);
    Some(output.stdout)
}
