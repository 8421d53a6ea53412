use std::fs;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

/// A tree with every kind of link, next to a directory that no path may reach.
struct Fixture {
    outer: TempDir,
    kernel: RootDir,
    by_hand: RootDir,
}

fn fixture() -> Fixture {
    let outer = tempfile::tempdir().unwrap();
    let inside = outer.path().join("root");
    fs::create_dir_all(inside.join("a/b/c")).unwrap();
    fs::create_dir(outer.path().join("secret")).unwrap();
    fs::write(outer.path().join("secret/key"), "outside").unwrap();
    fs::write(inside.join("a/file"), "inside").unwrap();
    for (target, link) in [
        ("a/b", "relative"),
        ("/a/b", "absolute"),
        ("../../../a/file", "a/b/up"),
        ("/../../a/file", "above"),
        ("missing", "dangling"),
        ("loop", "loop"),
        ("a/file/", "slash"),
        ("relative/", "dir-slash"),
        ("/secret/key", "stolen"),
        ("../secret", "out"),
    ] {
        symlink(target, inside.join(link)).unwrap();
    }
    let kernel = RootDir::open(&inside).unwrap();
    let mut by_hand = kernel.try_clone().unwrap();
    by_hand.lookup = Lookup::Walk;
    Fixture { outer, kernel, by_hand }
}

const PATHS: &[&str] = &[
    "",
    "/",
    ".",
    "..",
    "../..",
    "a",
    "/a",
    "a/",
    "a//b/./c",
    "a/b/../file",
    "a/file",
    "a/file/",
    "a/file/.",
    "a/file/..",
    "a/file/x",
    "relative",
    "relative/c",
    "relative/",
    "relative/.",
    "relative/..",
    "absolute/c",
    "a/b/up",
    "above",
    "dangling",
    "dangling/",
    "dangling/x",
    "loop",
    "loop/x",
    "slash",
    "dir-slash",
    "dir-slash/c",
    "stolen",
    "out",
    "out/key",
    "../secret/key",
    "nothing",
    "nothing/at/all",
    "/../secret",
    "relative/../../a/file",
];

fn outcome<T>(result: Result<T, PathError>) -> Result<T, Option<Errno>> {
    result.map_err(|error| error.errno())
}

#[test]
fn walking_by_hand_equals_the_kernel() {
    let roots = fixture();
    let stat = |stat: Stat| (stat.st_dev, stat.st_ino, stat.st_mode);
    for path in PATHS {
        let (kernel, by_hand) = (&roots.kernel, &roots.by_hand);
        assert_eq!(
            outcome(kernel.stat(path)).map(stat),
            outcome(by_hand.stat(path)).map(stat),
            "stat {path}"
        );
        assert_eq!(
            outcome(kernel.lstat(path)).map(stat),
            outcome(by_hand.lstat(path)).map(stat),
            "lstat {path}"
        );
        assert_eq!(outcome(kernel.read_link(path)), outcome(by_hand.read_link(path)), "read_link {path}");
        assert_eq!(outcome(kernel.read_dir(path)), outcome(by_hand.read_dir(path)), "read_dir {path}");
        assert_eq!(outcome(kernel.read(path, 99)), outcome(by_hand.read(path, 99)), "read {path}");
    }
}

#[test]
fn resolved_paths_name_the_same_file_without_links() {
    let roots = fixture();
    for path in PATHS {
        let Ok(followed) = roots.kernel.stat(path) else { continue };
        let resolved = roots.kernel.resolve(path).unwrap();
        assert!(
            resolved.components().all(|part| matches!(part, Component::Normal(_))),
            "{path}: {resolved:?}"
        );
        assert_eq!(roots.kernel.lstat(&resolved).unwrap().st_ino, followed.st_ino, "{path}");
    }
    let resolve = |path| roots.kernel.resolve(path).unwrap();
    assert_eq!(resolve("absolute/c"), Path::new("a/b/c"));
    assert_eq!(resolve("dangling"), Path::new("missing"));
    assert_eq!(resolve("/"), Path::new(""));
}

#[test]
fn nothing_outside_is_read_or_made() {
    let roots = fixture();
    for root in [&roots.kernel, &roots.by_hand] {
        assert!(root.read("stolen", 99).unwrap_err().is_not_found());
        assert!(root.read("out/key", 99).unwrap_err().is_not_found());
        assert!(root.read("../secret/key", 99).unwrap_err().is_not_found());
        root.create_dir_all("../secret/new", Mode::RWXU, &mut |_, _| Ok(())).unwrap();
        root.open_file("stolen", OFlags::CREATE | OFlags::WRONLY).unwrap();
        assert!(root.exists("secret/key").unwrap());
        root.remove_all("out/new").unwrap();
        root.remove_all("secret").unwrap();
    }
    assert_eq!(fs::read(roots.outer.path().join("secret/key")).unwrap(), b"outside");
    assert_eq!(fs::read_dir(roots.outer.path().join("secret")).unwrap().count(), 1);
}

#[test]
fn parent_is_resolved_and_the_name_is_not() {
    let roots = fixture();
    for root in [&roots.kernel, &roots.by_hand] {
        let parent = root.parent("absolute/up").unwrap();
        assert_eq!(parent.name, "up");
        assert_eq!(fstat(parent.dir).unwrap().st_ino, root.stat("a/b").unwrap().st_ino);
        assert_eq!(root.parent("/").unwrap().name, ".");
        assert_eq!(root.parent("a/b/c/..").unwrap().name, "b");
        assert_eq!(root.parent("a/new/").unwrap().name, "new");
    }
}

#[test]
fn directories_are_made_through_links_and_reported_once() {
    let roots = fixture();
    for (root, name) in [(&roots.kernel, "one"), (&roots.by_hand, "two")] {
        let mut made = Vec::new();
        let mut created = |dir: BorrowedFd<'_>, path: &Path| {
            assert_eq!(fstat(dir).unwrap().st_mode & 0o7777, 0o1777);
            made.push(path.to_owned());
            Ok(())
        };
        let path = Path::new("absolute").join(name).join("deep");
        root.create_dir_all(&path, Mode::from_raw_mode(0o1777), &mut created).unwrap();
        root.create_dir_all(&path, Mode::RWXU, &mut created).unwrap();
        assert_eq!(made, [Path::new("a/b").join(name), Path::new("a/b").join(name).join("deep")]);
        for path in ["a/file", "a/file/x"] {
            let error = root.create_dir_all(path, Mode::RWXU, &mut |_, _| Ok(())).unwrap_err();
            assert_eq!(error.errno(), Some(Errno::NOTDIR), "{path}");
        }
    }
    roots.kernel.create_dir_all("dangling", Mode::RWXU, &mut |_, _| Ok(())).unwrap();
    assert!(roots.outer.path().join("root/missing").is_dir());
}

#[test]
fn removal_follows_nothing_and_has_no_depth_limit() {
    let roots = fixture();
    symlink("../../secret", roots.outer.path().join("root/a/link")).unwrap();
    let mut dir = roots.kernel.open_dir("a/b/c").unwrap();
    for _ in 0..3000 {
        mkdirat(&dir, "d", Mode::RWXU).unwrap();
        dir = openat(&dir, "d", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    roots.kernel.remove_all("a").unwrap();
    roots.kernel.remove_all("a").unwrap();
    roots.kernel.remove_all("nothing/at/all").unwrap();
    assert!(!roots.kernel.exists("a").unwrap());
    assert!(roots.outer.path().join("secret/key").exists());
    assert_eq!(roots.kernel.remove_all("/").unwrap_err().errno(), Some(Errno::BUSY));
}

#[test]
fn reading_is_bounded_and_only_of_regular_files() {
    let roots = fixture();
    rustix::fs::mkfifoat(&roots.kernel, "fifo", Mode::RWXU).unwrap();
    assert_eq!(roots.kernel.read("a/file", 6).unwrap(), b"inside");
    let error = roots.kernel.read("a/file", 5).unwrap_err();
    assert_eq!(error.source.kind(), io::ErrorKind::FileTooLarge);
    assert_eq!(roots.kernel.read("fifo", 5).unwrap_err().errno(), Some(Errno::INVAL));
    assert_eq!(roots.kernel.read("a", 5).unwrap_err().to_string(), "failed to read `a`");
}

#[test]
fn names_need_not_be_text() {
    let roots = fixture();
    let name = OsStr::from_bytes(b"\xff\xfe");
    roots.kernel.create_dir(name, Mode::RWXU).unwrap();
    assert!(roots.kernel.read_dir("/").unwrap().iter().any(|entry| entry.name == name));
    assert_eq!(roots.kernel.resolve(name).unwrap(), Path::new(name));
}

#[test]
fn attributes_of_links_and_special_files_can_be_read() {
    let roots = fixture();
    let dir = roots.kernel.open_dir("/").unwrap();
    assert_eq!(xattr::read(dir.as_fd(), OsStr::new("loop"), c"user.none").unwrap(), None);
    xattr::write(dir.as_fd(), OsStr::new("a"), c"user.key", b"va\nlue\0").unwrap();
    xattr::write(dir.as_fd(), OsStr::new("a"), c"user.empty", b"").unwrap();
    let all =
        xattr::read_all(dir.as_fd(), OsStr::new("a"), |name| name.to_bytes().starts_with(b"user.")).unwrap();
    let expected =
        [(c"user.empty".to_owned(), b"".to_vec()), (c"user.key".to_owned(), b"va\nlue\0".to_vec())];
    assert_eq!(all.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn many_may_remove_a_deep_tree_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let root = RootDir::open(directory.path()).unwrap();
    let mut deepest = root.create_dir("tree", Mode::RWXU).unwrap();
    for _ in 0..1000 {
        mkdirat(&deepest, "d", Mode::RWXU).unwrap();
        deepest = openat(&deepest, "d", OFlags::RDONLY, Mode::empty()).unwrap();
    }
    let removed = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| root.remove_all("tree"))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    // One that came last found nothing.
    let is_fine =
        |result: &Result<(), PathError>| result.as_ref().map_or_else(PathError::is_not_found, |()| true);
    assert!(removed.iter().all(is_fine), "{removed:?}");
    assert!(!directory.path().join("tree").exists());
}
