use std::cell::Cell;
use std::ffi::OsString;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use proptest::prelude::*;
use rayon::ThreadPoolBuilder;
use rustix::fs::{FileType, Mode, mknodat};
use tempfile::TempDir;

use super::file::News;
use super::known::SeenDirectory;
use super::walk::{Dir, Walk};
use super::*;
use crate::layer::whiteout::{make_opaque, make_whiteout};
use crate::root_dir::xattr;

fn pool() -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(2).build().unwrap()
}

fn options<'a>(pool: &'a ThreadPool, owner: TreeOwner) -> DigestOptions<'a> {
    DigestOptions { pool, owner, memory: None, layers: None, cancel: None }
}

/// A small tree of everything.
fn tree() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir_all(path("src/deep")).unwrap();
    fs::create_dir(path("empty")).unwrap();
    fs::write(path("src/main.rs"), "fn main() {}").unwrap();
    fs::write(path("src/deep/data"), "data").unwrap();
    fs::write(path("README"), "read me").unwrap();
    symlink("src/main.rs", path("link")).unwrap();
    symlink("nowhere", path("dangling")).unwrap();
    for (name, mode) in [
        ("src", 0o755),
        ("src/deep", 0o755),
        ("empty", 0o755),
        ("README", 0o644),
        ("src/main.rs", 0o644),
        ("src/deep/data", 0o644),
    ] {
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    dir
}

fn digest_of(dir: &Path, selected: &[Selected<'_>], owner: TreeOwner) -> TreeDigest {
    let pool = pool();
    digest_tree(&RootDir::open(dir).unwrap(), selected, &options(&pool, owner)).unwrap()
}

fn whole(dir: &Path, owner: TreeOwner) -> Blake3 {
    digest_of(dir, &[Selected { contents_only: true, ..Selected::tree(Path::new("/")) }], owner).digest
}

fn set_attribute(path: &Path, name: &std::ffi::CStr, value: &[u8]) -> bool {
    let parent = RootDir::open(path.parent().unwrap()).unwrap();
    xattr::write(parent.as_fd(), path.file_name().unwrap(), name, value).is_ok()
}

/// A list that lets user 1000 read (`linux/posix_acl_xattr.h`): of each entry the tag, what is allowed, and whom.
const ACCESS_LIST: &[u8] = b"\x02\0\0\0\
    \x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\xe8\x03\0\0\x04\0\x04\0\xff\xff\xff\xff\
    \x10\0\x04\0\xff\xff\xff\xff\x20\0\x04\0\xff\xff\xff\xff";

/// The golden value: a change of it makes every user's cached steps run again.
#[test]
fn digests_stay() {
    let digest = whole(tree().path(), TreeOwner::Zero);
    assert_eq!(
        hex(&digest),
        "b647ba0c45c2085a1e2385ded7487240b28fec7f23629dabb1af8a3809905742",
        "this drops every user's cache: bump the domains if it is meant"
    );
}

fn hex(digest: &Blake3) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

type Change = (&'static str, bool, fn(&Path) -> bool);

/// What a digest depends on: the change, whether it counts, how to make it. One that cannot be made here is told.
const CHANGES: &[Change] = &[
    ("nothing", false, |_| true),
    ("time", false, |dir| {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(5);
        fs::File::open(dir.join("README")).unwrap().set_modified(time).is_ok()
    }),
    ("another inode", false, |dir| {
        fs::rename(dir.join("README"), dir.join("old")).unwrap();
        fs::copy(dir.join("old"), dir.join("README")).unwrap();
        fs::remove_file(dir.join("old")).is_ok()
    }),
    ("content", true, |dir| fs::write(dir.join("src/deep/data"), "DATA").is_ok()),
    ("size", true, |dir| fs::write(dir.join("README"), "read me!").is_ok()),
    ("mode", true, |dir| fs::set_permissions(dir.join("README"), fs::Permissions::from_mode(0o755)).is_ok()),
    ("set-id bit", true, |dir| {
        fs::set_permissions(dir.join("README"), fs::Permissions::from_mode(0o4644)).is_ok()
    }),
    ("directory mode", true, |dir| {
        fs::set_permissions(dir.join("empty"), fs::Permissions::from_mode(0o700)).is_ok()
    }),
    ("link target", true, |dir| {
        fs::remove_file(dir.join("link")).unwrap();
        symlink("README", dir.join("link")).is_ok()
    }),
    ("new file", true, |dir| fs::write(dir.join("empty/new"), "").is_ok()),
    ("new directory", true, |dir| fs::create_dir(dir.join("src/new")).is_ok()),
    ("removed file", true, |dir| fs::remove_file(dir.join("README")).is_ok()),
    ("renamed file", true, |dir| fs::rename(dir.join("README"), dir.join("readme")).is_ok()),
    ("moved file", true, |dir| fs::rename(dir.join("README"), dir.join("src/README")).is_ok()),
    ("fifo", true, |dir| mknodat(RootDir::open(dir).unwrap(), "fifo", FileType::Fifo, Mode::RUSR, 0).is_ok()),
    ("attribute", true, |dir| set_attribute(&dir.join("README"), c"user.note", b"x")),
    ("directory attribute", true, |dir| set_attribute(&dir.join("empty"), c"user.note", b"x")),
    ("overlay attribute", false, |dir| set_attribute(&dir.join("empty"), c"user.overlay.impure", b"y")),
    ("label", false, |dir| set_attribute(&dir.join("README"), c"security.rbuild-test", b"x")),
];

#[test]
fn digests_depend_on_what_they_should() {
    let before = whole(tree().path(), TreeOwner::Keep);
    for (name, counts, change) in CHANGES {
        let dir = tree();
        if change(dir.path()) {
            assert_eq!(whole(dir.path(), TreeOwner::Keep) != before, *counts, "{name}");
        } else {
            eprintln!("SKIPPED: `{name}` cannot be done here");
        }
    }
}

#[test]
fn owners_capabilities_and_access_lists_do_not_count_in_a_context() {
    let (kept, zero) = (whole(tree().path(), TreeOwner::Keep), whole(tree().path(), TreeOwner::Zero));
    let dir = tree();
    let readme = dir.path().join("README");
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    if std::os::unix::fs::chown(&readme, Some(12), Some(34)).is_err()
        || !set_attribute(&readme, c"security.capability", capability)
        || !set_attribute(&dir.path().join("empty"), c"system.posix_acl_default", ACCESS_LIST)
    {
        eprintln!(
            "SKIPPED: only root may change owners and capabilities, and some file systems have no access lists"
        );
        return;
    }
    assert_ne!(whole(dir.path(), TreeOwner::Keep), kept);
    assert_eq!(whole(dir.path(), TreeOwner::Zero), zero);
    std::os::unix::fs::chown(&readme, Some(0), Some(0)).unwrap();
    assert!(set_attribute(&readme, c"security.capability", capability));
    assert_ne!(whole(dir.path(), TreeOwner::Keep), kept, "the capability");
    let dir = tree();
    assert!(set_attribute(&dir.path().join("empty"), c"system.posix_acl_default", ACCESS_LIST));
    assert_ne!(whole(dir.path(), TreeOwner::Keep), kept, "the access list");
}

#[test]
fn selections_are_what_they_name() {
    let dir = tree();
    let digest = |selected: &[Selected<'_>]| digest_of(dir.path(), selected, TreeOwner::Keep).digest;
    let tree_at = |path| Selected::tree(Path::new(path));
    assert_eq!(digest(&[tree_at("link")]), digest(&[tree_at("src/main.rs")]), "a link is followed");
    assert_eq!(digest(&[tree_at("/src/../src//deep/")]), digest(&[tree_at("src/deep")]));
    assert_ne!(digest(&[Selected { follow_links: false, ..tree_at("link") }]), digest(&[tree_at("link")]));
    assert_ne!(digest(&[tree_at("README"), tree_at("src")]), digest(&[tree_at("src"), tree_at("README")]));
    assert_ne!(digest(&[tree_at("README")]), digest(&[tree_at("README"), tree_at("README")]));
    assert_ne!(
        digest(&[Selected { name: Path::new("x"), ..tree_at("README") }]),
        digest(&[tree_at("README")])
    );
    let contents = |path| Selected { contents_only: true, ..tree_at(path) };
    let before = (digest(&[contents("src")]), digest(&[tree_at("src")]));
    fs::set_permissions(dir.path().join("src"), fs::Permissions::from_mode(0o700)).unwrap();
    let after = (digest(&[contents("src")]), digest(&[tree_at("src")]));
    assert_eq!((before.0 == after.0, before.1 == after.1), (true, false));
    let pool = pool();
    let root = RootDir::open(dir.path()).unwrap();
    for path in ["missing", "dangling", "src/missing", "README/x"] {
        let result = digest_tree(&root, &[tree_at(path)], &options(&pool, TreeOwner::Keep));
        assert!(matches!(result, Err(Error::Path(error)) if error.is_not_found()), "{path}");
    }
}

#[test]
fn a_selection_cannot_leave_its_root() {
    let outer = tempfile::tempdir().unwrap();
    fs::write(outer.path().join("secret"), "outside").unwrap();
    fs::create_dir(outer.path().join("root")).unwrap();
    symlink("../secret", outer.path().join("root/link")).unwrap();
    let (root, pool) = (RootDir::open(outer.path().join("root")).unwrap(), pool());
    for path in ["link", "../secret", "/../secret"] {
        let result = digest_tree(&root, &[Selected::tree(Path::new(path))], &options(&pool, TreeOwner::Keep));
        assert!(result.is_err(), "{path}");
    }
}

/// What was seen, by path.
fn entries(seen: &Seen) -> Vec<(PathBuf, TreeEntry)> {
    let all = seen.groups().flat_map(|SeenGroup { path, own, files }| {
        let files = files.into_iter().map(|(name, entry)| (path.join(name), entry)).collect::<Vec<_>>();
        own.map(|entry| (path, entry)).into_iter().chain(files)
    });
    let mut all: Vec<_> = all.collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

#[test]
fn filters_choose() {
    let dir = tree();
    let asked = Mutex::new(Vec::new());
    let choose = |path: &Path, is_dir: bool| {
        asked.lock().unwrap().push((path.to_owned(), is_dir));
        match path.to_str().unwrap() {
            "README" => Verdict::Take,
            "src" => Verdict::Skip,
            "src/deep" => Verdict::TakeTree,
            _ => Verdict::SkipTree,
        }
    };
    let selected = Selected { filter: Some(&choose), contents_only: true, ..Selected::tree(Path::new("")) };
    let pool = pool();
    let root = RootDir::open(dir.path()).unwrap();
    let wanted = options(&pool, TreeOwner::Zero);
    let (digest, seen) = look_at_tree(&root, &[selected], &wanted).unwrap();
    let paths: Vec<_> = entries(&seen).into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["README", "src", "src/deep", "src/deep/data"].map(PathBuf::from));
    assert_eq!((digest.files, digest.size_bytes), (4, 11));
    assert!(!asked.lock().unwrap().iter().any(|(path, _)| path == Path::new("src/deep/data")));
    fs::write(dir.path().join("src/ignored"), "x").unwrap();
    assert_eq!(digest_tree(&root, &[selected], &wanted).unwrap().digest, digest.digest);
    fs::remove_dir_all(dir.path().join("src/deep")).unwrap();
    let without = digest_tree(&root, &[selected], &wanted).unwrap();
    assert_eq!(without.files, 1, "a directory that was only passed through goes with what was in it");
}

#[test]
fn what_was_seen_of_a_directory_is_all_that_is_in_it() {
    let dir = tree();
    let choose = |path: &Path, _: bool| match path.to_str().unwrap() {
        "src" => Verdict::Take,
        "src/main.rs" => Verdict::Skip,
        _ => Verdict::SkipTree,
    };
    let selected = Selected { filter: Some(&choose), ..Selected::tree(Path::new("")) };
    let root = RootDir::open(dir.path()).unwrap();
    let (_, seen) = look_at_tree(&root, &[selected], &options(&pool(), TreeOwner::Zero)).unwrap();
    for path in ["", "src"] {
        let fd = root.open_dir(Path::new(path)).unwrap();
        let stat = rustix::fs::fstat(&fd).unwrap();
        let sorted = |mut names: Vec<(OsString, FileType)>| {
            names.sort_by(|a, b| a.0.cmp(&b.0));
            names
        };
        let listed = sorted(crate::root_dir::list(fd.as_fd()).unwrap());
        let known = seen.directory(&stat).unwrap();
        let names = known.all().unwrap().into_iter().map(|(name, kind, _)| (name, kind)).collect();
        assert_eq!(sorted(names), listed, "in `{path}`");
        fs::write(dir.path().join(path).join("new"), "").unwrap();
        let stat = rustix::fs::fstat(&fd).unwrap();
        assert!(seen.directory(&stat).is_none(), "a directory that has changed was not seen");
    }
}

#[test]
fn entries_tell_what_was_digested() {
    let dir = tree();
    let pool = pool();
    let wanted = options(&pool, TreeOwner::Zero);
    let selected = [Selected { name: Path::new("top"), ..Selected::tree(Path::new("src")) }];
    let (_, seen) = look_at_tree(&RootDir::open(dir.path()).unwrap(), &selected, &wanted).unwrap();
    let (paths, entries): (Vec<_>, Vec<_>) = entries(&seen).into_iter().unzip();
    assert_eq!(
        paths.iter().map(|path| path.to_str().unwrap()).collect::<Vec<_>>(),
        ["top", "top/deep", "top/deep/data", "top/main.rs"]
    );
    let data = &entries[2];
    assert_eq!((data.kind, data.uid, data.size_bytes), (FileType::RegularFile, 0, 4));
    assert_eq!(data.content, Some(*blake3::hash(b"data").as_bytes()));
    assert_eq!(entries[0].mode, 0o755);
}

/// A time after which nothing that was made counts as fresh.
const LATER: i64 = i64::MAX;

fn digest_with(dir: &Path, cache: &dyn StatCache, now_ns: i64) -> TreeDigest {
    let pool = pool();
    let memory = Some(Memory { cache, now_ns });
    let options = DigestOptions { memory, ..options(&pool, TreeOwner::Zero) };
    let selected = [Selected { contents_only: true, ..Selected::tree(Path::new("")) }];
    digest_tree(&RootDir::open(dir).unwrap(), &selected, &options).unwrap()
}

#[test]
fn an_unchanged_tree_is_not_read_again() {
    let (dir, cache) = (tree(), MemoryStatCache::default());
    let first = digest_with(dir.path(), &cache, LATER);
    assert_eq!(first.read_bytes, 23);
    let second = digest_with(dir.path(), &cache, LATER);
    assert_eq!((second.digest, second.read_bytes), (first.digest, 0));
    assert_eq!(first.digest, whole(dir.path(), TreeOwner::Zero));
}

#[test]
fn every_change_is_seen_through_the_cache() {
    for (name, counts, change) in CHANGES {
        let (dir, cache) = (tree(), MemoryStatCache::default());
        let before = digest_with(dir.path(), &cache, LATER).digest;
        if change(dir.path()) {
            let after = digest_with(dir.path(), &cache, LATER).digest;
            assert_eq!(after, whole(dir.path(), TreeOwner::Zero), "{name}");
            assert_eq!(after != before, *counts, "{name}");
        }
    }
}

#[test]
fn new_content_with_size_and_time_of_the_old_is_seen() {
    let (dir, cache) = (tree(), MemoryStatCache::default());
    let path = dir.path().join("src/deep/data");
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    let before = digest_with(dir.path(), &cache, LATER);
    fs::write(&path, "DATA").unwrap();
    fs::File::open(&path).unwrap().set_modified(time).unwrap();
    let after = digest_with(dir.path(), &cache, LATER);
    assert_ne!(after.digest, before.digest);
    assert_eq!(after.read_bytes, 4, "only the file that changed is read");
}

#[test]
fn a_fresh_file_is_not_trusted() {
    let (dir, cache) = (tree(), MemoryStatCache::default());
    let metadata = fs::metadata(dir.path().join("README")).unwrap();
    let changed_ns = metadata.ctime() * 1_000_000_000 + metadata.ctime_nsec();
    digest_with(dir.path(), &cache, changed_ns);
    assert_eq!(digest_with(dir.path(), &cache, LATER).read_bytes, 23, "nothing was remembered");
    assert_eq!(digest_with(dir.path(), &cache, LATER).read_bytes, 0);
}

#[test]
fn a_file_that_is_selected_by_itself_is_not_read_again() {
    let (dir, cache) = (tree(), MemoryStatCache::default());
    let pool = pool();
    let digest = || {
        let memory = Some(Memory { cache: &cache, now_ns: LATER });
        let options = DigestOptions { memory, ..options(&pool, TreeOwner::Zero) };
        let selected = ["src/deep/data", "README", "src"].map(|path| Selected::tree(Path::new(path)));
        digest_tree(&RootDir::open(dir.path()).unwrap(), &selected, &options).unwrap()
    };
    let first = digest();
    assert!(first.read_bytes > 0);
    let second = digest();
    assert_eq!((second.digest, second.read_bytes), (first.digest, 0));
    fs::write(dir.path().join("README"), "other").unwrap();
    let third = digest();
    assert_eq!(third.read_bytes, 5, "only the file that changed is read");
    assert_ne!(third.digest, first.digest);
}

#[test]
fn what_a_file_system_says_in_whole_seconds_is_believed_late_or_never() {
    let stat = fs::File::open("/").map(|root| rustix::fs::fstat(root).unwrap()).unwrap();
    let times = |nanoseconds| {
        let mut stat = stat;
        (stat.st_ctime, stat.st_ctime_nsec) = (1_000, nanoseconds);
        stat_cache::Times::of(&stat)
    };
    let at = |milliseconds: i64| 1_000_000_000_000 + milliseconds * 1_000_000;
    let (fine, whole) = (times(1), times(0));
    assert_eq!([at(10), at(30)].map(|now| fine.is_settled(now, true)), [false, true]);
    assert_eq!([at(10), at(30)].map(|now| fine.is_settled(now, false)), [false, true]);
    assert_eq!([at(30), at(1_999), at(2_001)].map(|now| whole.is_settled(now, true)), [false, false, true]);
    assert!(!whole.is_settled(at(1_000_000), false));
}

#[test]
fn what_a_file_holds_that_says_another_size_is_not_known() {
    // Files of the kernel's, which say that they are empty.
    let root = RootDir::open("/proc/sys/kernel/random").unwrap();
    let pool = pool();
    let options = options(&pool, TreeOwner::Zero);
    let selected = [Selected::tree(Path::new(""))];
    let mut walk = Walk::new(&root, &options, None);
    let tops = walk.run(&selected).unwrap();
    let looked = file::look(&walk, &tops, &selected).unwrap();
    let (listing, looked) = (&walk.dirs[0].listing, &looked.in_dirs[0][..]);
    let seen = SeenDirectory { listing, looked, folded: None, owner: TreeOwner::Zero };
    let files = KnownFiles::seen(seen);
    let file = files.file("boot_id".as_ref()).unwrap();
    assert_eq!(file.digest(&file.stat().unwrap()), None);
}

/// Which directories were listed, and which were known to have the same names.
fn listed(dir: &Path, cache: &dyn StatCache, now_ns: i64) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let pool = pool();
    let memory = Some(Memory { cache, now_ns });
    let options = DigestOptions { memory, ..options(&pool, TreeOwner::Zero) };
    let root = RootDir::open(dir).unwrap();
    let mut walk = Walk::new(&root, &options, None);
    let tops = walk.run(&[Selected::tree(Path::new(""))]).unwrap();
    file::look(&walk, &tops, &[Selected::tree(Path::new(""))]).unwrap();
    let (known, listed): (Vec<Dir>, Vec<Dir>) =
        walk.dirs.into_iter().partition(|dir| dir.listing.news == News::None);
    let paths = |dirs: Vec<Dir>| dirs.into_iter().map(|dir| dir.path).collect();
    (paths(listed), paths(known))
}

#[test]
fn a_directory_with_the_same_times_is_not_listed_again() {
    let (dir, cache) = (tree(), MemoryStatCache::default());
    // What is neither read nor remembered has a name all the same.
    mknodat(RootDir::open(dir.path()).unwrap(), "src/fifo", FileType::Fifo, Mode::RUSR, 0).unwrap();
    let all = ["", "empty", "src", "src/deep"].map(PathBuf::from);
    assert_eq!(listed(dir.path(), &cache, LATER), (all.to_vec(), vec![]));
    assert_eq!(listed(dir.path(), &cache, LATER), (vec![], all.to_vec()));
    fs::write(dir.path().join("src/main.rs"), "changed").unwrap();
    fs::write(dir.path().join("empty/new"), "").unwrap();
    let [top, empty, src, deep] = all;
    assert_eq!(listed(dir.path(), &cache, LATER), (vec![empty], vec![top, src, deep]));
    assert_eq!(digest_with(dir.path(), &cache, LATER).digest, whole(dir.path(), TreeOwner::Zero));
}

#[test]
fn a_fresh_directory_is_listed_again() {
    let (dir, cache) = (tree(), MemoryStatCache::default());
    let metadata = fs::metadata(dir.path().join("src")).unwrap();
    let changed_ns = metadata.ctime() * 1_000_000_000 + metadata.ctime_nsec();
    assert_eq!(listed(dir.path(), &cache, changed_ns).0.len(), 4);
    assert_eq!(listed(dir.path(), &cache, LATER).0.len(), 4, "nothing was remembered");
    assert_eq!(listed(dir.path(), &cache, LATER).0.len(), 0);
}

#[test]
fn rows_of_another_version_are_replaced() {
    let (dir, cache) = (tree(), MemoryStatCache::default());
    let first = digest_with(dir.path(), &cache, LATER);
    let root = RootDir::open(dir.path()).unwrap();
    let ids =
        ["", "src", "src/deep", "empty"].map(|path| DirectoryId::of(&root.lstat(Path::new(path)).unwrap()));
    let of_before = |row: Option<Vec<u8>>| {
        let mut row = row.unwrap();
        row[0] -= 1;
        row
    };
    let rows = cache.get(&ids).into_iter().map(of_before);
    cache.put(ids.into_iter().zip(rows).collect());
    assert_eq!(digest_with(dir.path(), &cache, LATER), first);
    assert_eq!(digest_with(dir.path(), &cache, LATER).read_bytes, 0);
    assert_eq!(listed(dir.path(), &cache, LATER).0.len(), 0, "names were added");
}

#[test]
fn what_one_selection_learns_another_keeps() {
    let (dir, cache) = (tree(), MemoryStatCache::default());
    digest_with(dir.path(), &cache, LATER);
    let pool = pool();
    let only_links = |_: &Path, is_dir: bool| if is_dir { Verdict::Take } else { Verdict::Skip };
    let memory = Some(Memory { cache: &cache, now_ns: LATER });
    let options = DigestOptions { memory, ..options(&pool, TreeOwner::Zero) };
    let selected = Selected { filter: Some(&only_links), ..Selected::tree(Path::new("")) };
    digest_tree(&RootDir::open(dir.path()).unwrap(), &[selected], &options).unwrap();
    assert_eq!(digest_with(dir.path(), &cache, LATER).read_bytes, 0);
}

/// A cache that answers with what it is told to.
struct Lying(Vec<u8>, Mutex<Cell<usize>>);

impl StatCache for Lying {
    fn get(&self, directories: &[DirectoryId]) -> Vec<Option<Vec<u8>>> {
        vec![Some(self.0.clone()); directories.len()]
    }

    fn put(&self, rows: Vec<(DirectoryId, Vec<u8>)>) {
        self.1.lock().unwrap().set(rows.len());
    }
}

#[test]
fn a_damaged_cache_is_no_cache() {
    let dir = tree();
    let expected = whole(dir.path(), TreeOwner::Zero);
    let cut = [2, TreeOwner::Zero as u8, 1, 0];
    for row in [&b""[..], b"\x01", b"\x02abc", b"\x01\x05ab", &cut, &[1; 300], &[2; 300], &[0xff; 40]] {
        let lying = Lying(row.to_vec(), Mutex::default());
        assert_eq!(digest_with(dir.path(), &lying, LATER).digest, expected, "{row:?}");
        assert_eq!(lying.1.lock().unwrap().get(), 4, "all rows are written anew");
    }
}

#[test]
fn layers_are_told_apart_by_their_marks() {
    let pool = pool();
    let xattrs = OverlayXattrs::User;
    let digest = |dir: &Path| {
        digest_layer(&RootDir::open(dir).unwrap(), xattrs, &options(&pool, TreeOwner::Keep)).unwrap().digest
    };
    let (plain, opaque, whiteout, file_whiteout) = (tree(), tree(), tree(), tree());
    let at = |dir: &TempDir| RootDir::open(dir.path()).unwrap();
    make_opaque(at(&opaque).as_fd(), "empty".as_ref(), xattrs).unwrap();
    make_whiteout(at(&whiteout).as_fd(), "gone".as_ref(), xattrs).unwrap();
    fs::write(file_whiteout.path().join("gone"), "").unwrap();
    assert!(set_attribute(&file_whiteout.path().join("gone"), xattrs.whiteout(), b"y"));
    let [plain, opaque, whiteout, file_whiteout] =
        [&plain, &opaque, &whiteout, &file_whiteout].map(|dir| digest(dir.path()));
    assert_ne!(plain, opaque);
    assert_ne!(plain, whiteout);
    assert_eq!(whiteout, file_whiteout, "both forms mean the same");
    assert_eq!(plain, digest(tree().path()));
}

#[test]
fn the_root_of_a_layer_is_of_what_it_holds() {
    let pool = pool();
    let dir = tree();
    let mode = |mode| fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
    let digest = || {
        let options = options(&pool, TreeOwner::Keep);
        digest_layer(&RootDir::open(dir.path()).unwrap(), OverlayXattrs::User, &options).unwrap().digest
    };
    mode(0o700);
    let before = digest();
    mode(0o711);
    assert_ne!(digest(), before);
    mode(0o700);
    assert_eq!(digest(), before);
}

#[test]
fn deep_and_wide_trees_are_walked() {
    let dir = tempfile::tempdir().unwrap();
    let mut deep = dir.path().to_owned();
    for _ in 0..300 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    for index in 0..300 {
        fs::write(dir.path().join(format!("f{index}")), index.to_string()).unwrap();
    }
    let digest = digest_of(dir.path(), &[Selected::tree(Path::new(""))], TreeOwner::Keep);
    assert_eq!(digest.files, 601);
    for _ in 0..TREE_DEPTH_MAX {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    let pool = pool();
    let root = RootDir::open(dir.path()).unwrap();
    let result = digest_tree(&root, &[Selected::tree(Path::new(""))], &options(&pool, TreeOwner::Keep));
    assert!(matches!(result, Err(Error::TooDeep { .. })), "{result:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Two trees have one digest exactly if they are equal, however many threads there are.
    #[test]
    fn equal_digests_mean_equal_trees(
        one in prop::collection::btree_map("[ab](/[ab]){0,2}", "[xy]{0,1}", 0..5),
        two in prop::collection::btree_map("[ab](/[ab]){0,2}", "[xy]{0,1}", 0..5),
    ) {
        let make = |files: &std::collections::BTreeMap<String, String>| {
            let dir = tempfile::tempdir().unwrap();
            let mut made = Vec::new();
            for (path, content) in files {
                let full = dir.path().join(path);
                if fs::create_dir_all(full.parent().unwrap()).is_ok() && fs::write(full, content).is_ok() {
                    made.push((path.clone(), content.clone()));
                }
            }
            (dir, made)
        };
        let ((one_dir, one), (two_dir, two)) = (make(&one), make(&two));
        let (first, second) = (whole(one_dir.path(), TreeOwner::Zero), whole(two_dir.path(), TreeOwner::Zero));
        prop_assert_eq!(first == second, one == two);
        let single = ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let selected = [Selected { contents_only: true, ..Selected::tree(Path::new("/")) }];
        let again = digest_tree(&RootDir::open(one_dir.path()).unwrap(), &selected, &options(&single, TreeOwner::Zero));
        prop_assert_eq!(again.unwrap().digest, first);
    }
}
