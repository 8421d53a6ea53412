use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use rbuild_llb::Chmod;

use super::super::{FileError, SourceKind};
use super::{Bed, NOW_NS, lines};

#[test]
fn a_directory_gives_its_contents_and_not_itself() {
    let bed = Bed::new(&["a/x=1", "a/sub/y=2:600", "a/sub:711", "a:700"]);
    bed.copy("/a", "/app").unwrap();
    lines(&bed, &["0755 app/", "0711 app/sub/", "0600 app/sub/y = 2", "0644 app/x = 1"]);
}

#[test]
fn an_existing_subdirectory_takes_the_source_s_mode_and_the_top_does_not() {
    let bed =
        Bed::new(&["a/sub/y=2", "a/sub:711", "a:700"]).with_dest(&["app/sub/old=", "app/sub:777", "app:750"]);
    bed.copy("/a", "/app").unwrap();
    lines(&bed, &["0750 app/", "0711 app/sub/", "0644 app/sub/old = ", "0644 app/sub/y = 2"]);
}

#[test]
fn where_a_file_goes() {
    // source, destination as written, what is in the destination before, where the file is after
    let cases: &[(&str, &str, &[&str], &str)] = &[
        ("/f", "/new", &[], "new"),
        ("/f", "/new/", &[], "new/f"),
        ("/f", "/new/.", &[], "new/f"),
        ("/f", "/", &[], "f"),
        ("/f", "/deep/er/new", &[], "deep/er/new"),
        ("/f", "/dir", &["dir/"], "dir/f"),
        ("/f", "/lnk", &["dir/", "lnk->dir"], "dir/f"),
        ("/f", "/lnk/x", &["dir/", "lnk->/dir"], "dir/x"),
        ("/f", "/old", &["old=before"], "old"),
        ("/f", "/lnk", &["old=before", "lnk->old"], "old"),
        ("/f", "/lnk", &["lnk->../../../nowhere"], "nowhere"),
        ("/f", "/lnk/x", &["lnk->/made/on/the/way"], "made/on/the/way/x"),
        ("/f", "/lnk", &["lnk->/made/on/the/way"], "made/on/the/way"),
        ("/f", "/lnk", &["lnk->made/with/slash/"], "made/with/slash"),
        ("/f", "/etc/lnk", &["etc/lnk->../run/second", "run/second->../../../out/side"], "out/side"),
        ("/../../f", "/../x", &[], "x"),
        ("/lf", "/dir", &["dir/"], "dir/lf"),
    ];
    for (src, dest, before, after) in cases {
        let bed = Bed::new(&["f=new", "lf->f"]).with_dest(before);
        bed.copy(src, dest).unwrap();
        let path = bed.dest(after);
        assert!(fs::symlink_metadata(&path).unwrap().is_file(), "{src} {dest} {before:?}");
        assert_eq!(fs::read_to_string(path).unwrap(), "new", "{src} {dest} {before:?}");
    }
}

#[test]
fn a_link_in_a_directory_is_replaced_by_a_file_of_its_name() {
    let bed = Bed::new(&["d/f=new"]).with_dest(&["app/f->../old", "old=before"]);
    bed.copy("/d", "/app").unwrap();
    bed.copy("/d/f", "/app/").unwrap();
    lines(&bed, &["0755 app/", "0644 app/f = new", "0644 old = before"]);
}

#[test]
fn a_link_at_the_top_is_followed_within_the_root_and_below_it_kept() {
    let bed = Bed::new(&["d/f=1", "d/inner->f", "d/out->/etc/passwd", "dl->/d", "fl->d/f", "up->../../d/f"]);
    bed.copy("/dl", "/x").unwrap();
    bed.copy("/fl", "/y").unwrap();
    bed.copy("/up", "/z").unwrap();
    lines(
        &bed,
        &["0755 x/", "0644 x/f = 1", "x/inner -> f", "x/out -> /etc/passwd", "0644 y = 1", "0644 z = 1"],
    );
}

#[test]
fn a_link_is_copied_as_one_when_it_is_not_to_be_followed() {
    let bed = Bed::new(&["f=1", "l->f"]);
    bed.copy_with("/l", "/x", |action| action.follow_symlinks = false).unwrap();
    lines(&bed, &["x -> f"]);
}

#[test]
fn a_directory_can_be_copied_as_itself() {
    let whole = |bed: &Bed, dest: &str| {
        bed.copy_with("/d", dest, |action| action.dir_copy_contents = false).unwrap();
    };
    let bed = Bed::new(&["d/f=1", "d:711"]).with_dest(&["there/"]);
    whole(&bed, "/there");
    whole(&bed, "/new");
    lines(&bed, &["0711 new/", "0644 new/f = 1", "0755 there/", "0711 there/d/", "0644 there/d/f = 1"]);
}

#[test]
fn kinds_that_do_not_fit_are_errors() {
    let message = |bed: &Bed, src: &str, dest: &str| bed.copy(src, dest).unwrap_err().to_string();
    let bed = Bed::new(&["d/x=1", "deep/d/x/y=1", "f=1"])
        .with_dest(&["file=", "d/x/", "app/d=", "app/f/", "l->file"]);
    assert_eq!(message(&bed, "/d", "/file"), "cannot copy to non-directory: `/file`");
    assert_eq!(message(&bed, "/d", "/l"), "cannot copy to non-directory: `/l`");
    assert_eq!(message(&bed, "/f", "/file/"), "cannot copy to non-directory: `/file`");
    assert_eq!(message(&bed, "/d", "/d"), "cannot replace to directory `x` with file");
    assert_eq!(message(&bed, "/f", "/app"), "cannot replace to directory `app/f` with file");
    assert_eq!(message(&bed, "/deep", "/app"), "cannot copy to non-directory: `d`");
}

#[test]
fn kinds_that_do_not_fit_are_replaced_on_request() {
    let bed = Bed::new(&["a/d/x=1", "a/f=1"]).with_dest(&["d=old", "f/old=old"]);
    bed.copy_with("/a", "/", |action| action.always_replace = true).unwrap();
    lines(&bed, &["0755 d/", "0644 d/x = 1", "0644 f = 1"]);
}

#[test]
fn of_several_files_the_last_wins() {
    let bed = Bed::new(&["a.txt=a", "b.txt=b"]);
    bed.copy("/*.txt", "/x").unwrap();
    lines(&bed, &["0644 x = b"]);
}

#[test]
fn a_missing_source_is_an_error_that_knows_similar_names() {
    let bed = Bed::new(&["src/main.rs=", "src/mani.rs=", "Makefile=", "gone->nowhere"]);
    let missing = |src: &str| match bed.copy(src, "/x").unwrap_err() {
        FileError::NotFound { path, ignored: false, similar } => (path, similar),
        other => panic!("{other}"),
    };
    assert_eq!(
        missing("/src/mian.rs"),
        ("/src/mian.rs".into(), vec!["/src/main.rs".into(), "/src/mani.rs".into()])
    );
    assert_eq!(missing("/makefile"), ("/makefile".into(), vec!["/Makefile".into()]));
    assert_eq!(missing("/scr/main.rs"), ("/scr/main.rs".into(), vec!["/src".into()]));
    assert_eq!(missing("/gone"), ("/gone".into(), vec![]));
    assert_eq!(missing("/zzzzzz"), ("/zzzzzz".into(), vec![]));
    assert_eq!(missing("/Makefile/x").0, "/Makefile/x");
    assert_eq!(bed.copy("/zz", "/x").unwrap_err().to_string(), "`/zz`: not found");
    lines(&bed, &[]);
}

#[test]
fn the_empty_tree_has_no_sources() {
    let bed = Bed::new(&[]);
    let copy = |src: &str| bed.copy_with(src, "/x", |action| action.from = rbuild_llb::FileInput::Scratch);
    assert_eq!(copy("/f").unwrap_err().to_string(), "`/f`: not found");
    assert_eq!(copy("/*").unwrap().warnings.len(), 1);
}

#[test]
fn times_are_kept_to_the_nanosecond() {
    let bed = Bed::new(&["d/s/f=1", "d/s/l->f"]);
    let long_ago = SystemTime::UNIX_EPOCH - Duration::new(5, 750_000_001);
    let later = SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    let set = |path: &str, time| fs::File::open(bed.source(path)).unwrap().set_modified(time).unwrap();
    set("d/s/f", long_ago);
    set("d/s", later);
    bed.copy("/d", "/x").unwrap();
    let modified = |path: &str| fs::symlink_metadata(bed.dest(path)).unwrap().modified().unwrap();
    assert_eq!(modified("x/s/f"), long_ago);
    assert_eq!(modified("x/s"), later);
    let link = fs::symlink_metadata(bed.source("d/s/l")).unwrap().modified().unwrap();
    assert_eq!(modified("x/s/l"), link);
}

#[test]
fn a_directory_that_is_made_has_the_time_of_the_build() {
    let bed = Bed::new(&["d/f=1"]);
    bed.copy("/d", "/a/b").unwrap();
    let now = SystemTime::UNIX_EPOCH + Duration::from_nanos(NOW_NS as u64);
    for path in ["a", "a/b"] {
        assert_eq!(fs::metadata(bed.dest(path)).unwrap().modified().unwrap(), now, "{path}");
    }
}

#[test]
fn a_given_time_is_the_time_of_all() {
    let bed = Bed::new(&["d/s/f=1", "d/s/l->f"]);
    bed.copy_with("/d", "/x", |action| action.timestamp_ns = Some(-1)).unwrap();
    for path in ["x", "x/s", "x/s/f", "x/s/l"] {
        let metadata = fs::symlink_metadata(bed.dest(path)).unwrap();
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (-1, 999_999_999), "{path}");
    }
}

#[test]
fn an_octal_mode_is_for_files_and_directories_alike_and_for_those_made_on_the_way() {
    let bed = Bed::new(&["d/s/f=1:755", "d/s/l->f", "f=1"]);
    bed.copy_with("/d", "/x", |action| action.mode = Some(Chmod::Octal(0o711))).unwrap();
    bed.copy_with("/f", "/new/deep/f", |action| action.mode = Some(Chmod::Octal(0o4700))).unwrap();
    lines(
        &bed,
        &[
            "0700 new/",
            "0700 new/deep/",
            "4700 new/deep/f = 1",
            "0711 x/",
            "0711 x/s/",
            "0711 x/s/f = 1",
            "x/s/l -> f",
        ],
    );
}

#[test]
fn a_symbolic_mode_changes_each_and_not_those_made_on_the_way() {
    let bed = Bed::new(&["d/s/f=1:600", "d/s/g=1:700", "d/s:700"]);
    let mode = Chmod::Symbolic("go=u,go-w".into());
    bed.copy_with("/d", "/x/y", |action| action.mode = Some(mode.clone())).unwrap();
    lines(&bed, &["0755 x/", "0755 x/y/", "0755 x/y/s/", "0644 x/y/s/f = 1", "0755 x/y/s/g = 1"]);
}

#[test]
fn special_bits_are_kept() {
    let bed = Bed::new(&[
        "d/suid=1:4755",
        "d/sgid=1:2755",
        "d/sticky:1777",
        "d/kept=1:1644",
        "d/least=:400",
        "d/wide=1:666",
    ]);
    bed.copy("/d", "/").unwrap();
    lines(
        &bed,
        &[
            "1644 kept = 1",
            "0400 least = ",
            "2755 sgid = 1",
            "1777 sticky/",
            "4755 suid = 1",
            "0666 wide = 1",
        ],
    );
}

#[test]
fn hard_links_within_a_copy_are_kept() {
    let bed = Bed::new(&["d/a=1", "d/s/"]).with_dest(&["x/s/b=in the way"]);
    fs::hard_link(bed.source("d/a"), bed.source("d/s/b")).unwrap();
    fs::hard_link(bed.source("d/a"), bed.source("outside")).unwrap();
    bed.copy("/d", "/x").unwrap();
    bed.copy("/outside", "/x/other").unwrap();
    let inode = |path: &str| fs::metadata(bed.dest(path)).unwrap().ino();
    assert_eq!(inode("x/a"), inode("x/s/b"));
    assert_ne!(inode("x/a"), inode("x/other"));
    assert_eq!(fs::metadata(bed.dest("x/a")).unwrap().nlink(), 2);
    assert_eq!(fs::read_to_string(bed.dest("x/s/b")).unwrap(), "1");
}

#[test]
fn large_files_and_holes_arrive_whole() {
    let bed = Bed::new(&["d/"]);
    let big: Vec<u8> = (0..3_000_001_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(bed.source("d/big"), &big).unwrap();
    for size in [131_071, 131_072, 131_073] {
        fs::write(bed.source(&format!("d/{size}")), &big[..size]).unwrap();
    }
    sparse(&bed.source("d/holes"), 64 << 20, &[(8 << 20, b"in the middle"), ((64 << 20) - 3, b"end")]);
    sparse(&bed.source("d/nothing"), 16 << 20, &[]);
    bed.copy("/d", "/").unwrap();
    for name in ["big", "131071", "131072", "131073", "holes", "nothing"] {
        let (from, to) = (bed.source("d").join(name), bed.dest(name));
        assert_eq!(fs::read(&from).unwrap(), fs::read(&to).unwrap(), "{name}");
    }
    for name in ["holes", "nothing"] {
        assert!(fs::metadata(bed.dest(name)).unwrap().blocks() * 512 < 1 << 20, "{name}");
    }
}

fn sparse(path: &Path, size: u64, data: &[(u64, &[u8])]) {
    use std::os::unix::fs::FileExt;
    let file = fs::File::create(path).unwrap();
    file.set_len(size).unwrap();
    for (at, bytes) in data {
        file.write_all_at(bytes, *at).unwrap();
    }
}

#[test]
fn a_socket_in_a_context_becomes_an_empty_file() {
    let bed = Bed::new(&["d/"]);
    drop(UnixListener::bind(bed.source("d/s")).unwrap());
    fs::set_permissions(bed.source("d/s"), std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    bed.copy("/d", "/").unwrap();
    bed.copy("/d/s", "/top").unwrap();
    lines(&bed, &["0640 s = ", "0640 top = "]);
}

#[test]
fn a_fifo_and_a_socket_of_a_tree_are_made_again() {
    use std::os::unix::fs::FileTypeExt;
    let bed = Bed::new(&["d/"]).of_kind(SourceKind::Tree);
    drop(UnixListener::bind(bed.source("d/s")).unwrap());
    rustix::fs::mknodat(
        rustix::fs::CWD,
        bed.source("d/p"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o622),
        0,
    )
    .unwrap();
    bed.copy("/d", "/").unwrap();
    assert!(fs::metadata(bed.dest("s")).unwrap().file_type().is_socket());
    assert!(fs::metadata(bed.dest("p")).unwrap().file_type().is_fifo());
    assert_eq!(fs::metadata(bed.dest("p")).unwrap().mode(), fs::metadata(bed.source("d/p")).unwrap().mode());
}

#[test]
fn every_directory_is_sealed_whoever_lets_go_of_it_last() {
    let bed = Bed::new(&["d/a/b/c:711", "d/a/b:722", "d/a:733", "d/e/f/g=", "d/e/f:744", "d/e:755"]);
    for round in 0..50 {
        let dest = format!("/{round}");
        bed.copy("/d", &dest).unwrap();
        let mode = |path: &str| fs::metadata(bed.dest(&dest[1..]).join(path)).unwrap().mode() & 0o777;
        let modes = ["a/b/c", "a/b", "a", "e/f", "e"].map(mode);
        assert_eq!(modes, [0o711, 0o722, 0o733, 0o744, 0o755]);
    }
}

#[test]
fn a_tree_that_no_layer_could_hold_is_refused() {
    let bed = Bed::new(&[]);
    fs::create_dir_all(bed.source(&"d/".repeat(513))).unwrap();
    assert!(matches!(bed.copy("/", "/"), Err(FileError::TooDeep { .. })));
}

#[test]
fn names_need_not_be_text() {
    use std::os::unix::ffi::OsStrExt;
    let bed = Bed::new(&["d/"]);
    let name = std::ffi::OsStr::from_bytes(b"\xff\n\\*");
    fs::create_dir(bed.source("d").join(name)).unwrap();
    fs::write(bed.source("d").join(name).join(name), "x").unwrap();
    bed.copy("/d", "/").unwrap();
    assert_eq!(fs::read_to_string(bed.to.path().join(name).join(name)).unwrap(), "x");
}

#[test]
fn many_files_in_one_directory_and_deep_directories_arrive_whole() {
    let bed = Bed::new(&[]);
    let deep = bed.source(&"d/".repeat(200));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("f"), "bottom").unwrap();
    for at in 0..1000 {
        fs::write(bed.source(&format!("d/{at}")), at.to_string()).unwrap();
    }
    let stats = bed.copy("/", "/").unwrap();
    assert_eq!(fs::read_to_string(bed.dest(&"d/".repeat(200)).join("f")).unwrap(), "bottom");
    for at in 0..1000 {
        assert_eq!(fs::read_to_string(bed.dest(&format!("d/{at}"))).unwrap(), at.to_string());
    }
    assert_eq!(stats.total.entries, 200 + 1001);
}

#[test]
fn what_was_done_is_counted() {
    let bed = Bed::new(&["d/s/f=12345", "d/g=123", "d/l->g"]);
    let total = bed.copy("/d", "/x").unwrap().total;
    assert_eq!((total.entries, total.bytes), (5, 8));
}

#[test]
fn a_cancelled_copy_says_so() {
    let bed = Bed::new(&["d/f=1"]);
    bed.cancel.store(true, Ordering::Relaxed);
    assert!(matches!(bed.copy("/d", "/x"), Err(FileError::Cancelled)));
    assert!(matches!(bed.copy("/d/f", "/x"), Err(FileError::Cancelled)));
}
