//! `diff` and `apply` are inverse, shown on random layers over random layers.

use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::layer::whiteout::is_whiteout_device;

/// Something a layer does to a path.
#[derive(Debug, Clone)]
enum Change {
    File { content: String, mode: u32 },
    Directory { mode: u32, opaque: bool },
    Symlink(String),
    Whiteout,
    HardLink(String),
}

/// Paths from few names, so that layers meet.
fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c", ".x", "a-b"]), 1..4)
        .prop_map(|names| names.join("/"))
}

fn change() -> impl Strategy<Value = Change> {
    let mode = prop::sample::select(vec![0o644, 0o755, 0o4711, 0o600, 0o1777, 0o2750]);
    prop_oneof![
        4 => ("[a-z]{0,9}", mode.clone()).prop_map(|(content, mode)| Change::File { content, mode }),
        3 => (mode, any::<bool>()).prop_map(|(mode, opaque)| Change::Directory { mode, opaque }),
        1 => path().prop_map(Change::Symlink),
        2 => Just(Change::Whiteout),
        1 => path().prop_map(Change::HardLink),
    ]
}

fn layer() -> impl Strategy<Value = Vec<(String, Change)>> {
    prop::collection::vec((path(), change()), 0..14)
}

/// Makes a layer's directory. Changes that do not fit what is there already are left out.
fn make(changes: &[(String, Change)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, change) in changes {
        let full = dir.path().join(path);
        if make_parents(dir.path(), &full) && fs::symlink_metadata(&full).is_err() {
            make_one(dir.path(), &full, change);
        }
    }
    dir
}

fn make_parents(root: &Path, path: &Path) -> bool {
    let above = path.parent().unwrap();
    let chain: Vec<&Path> = above.ancestors().take_while(|dir| *dir != root).collect();
    chain.iter().rev().all(|dir| match fs::symlink_metadata(dir) {
        Ok(metadata) => metadata.is_dir(),
        Err(_) => fs::create_dir(dir).is_ok(),
    })
}

fn make_one(root: &Path, full: &Path, change: &Change) {
    match change {
        Change::File { content, mode } => {
            fs::write(full, content).unwrap();
            fs::set_permissions(full, fs::Permissions::from_mode(*mode)).unwrap();
            let time = UNIX_EPOCH + Duration::from_secs(1_000_000_000 + content.len() as u64);
            fs::File::open(full).unwrap().set_modified(time).unwrap();
        }
        Change::Directory { mode, opaque } => {
            fs::create_dir(full).unwrap();
            fs::set_permissions(full, fs::Permissions::from_mode(*mode)).unwrap();
            if *opaque {
                set_attribute(full, "user.overlay.opaque", b"y");
            }
        }
        Change::Symlink(target) => symlink(target, full).unwrap(),
        Change::Whiteout => make_whiteout(full),
        Change::HardLink(to) => {
            let to = root.join(to);
            if fs::symlink_metadata(&to).is_ok_and(|metadata| metadata.is_file()) {
                fs::hard_link(to, full).unwrap();
            }
        }
    }
}

/// What overlayfs shows of layers, bottom first: the naive way, as the oracle.
fn merged(layers: &[&Path]) -> BTreeMap<PathBuf, String> {
    let mut view: BTreeMap<PathBuf, String> = BTreeMap::new();
    for layer in layers {
        let described = describe(layer);
        for (path, what) in &described {
            let hides = |view: &mut BTreeMap<PathBuf, String>| {
                view.retain(|other, _| other == path || !other.starts_with(path));
            };
            if what.starts_with("device 0 ") {
                view.retain(|other, _| !other.starts_with(path));
                continue;
            }
            let was_dir = view.get(path).is_some_and(|what| what.starts_with("directory"));
            if !what.starts_with("directory") || !was_dir || what.contains("user.overlay.opaque") {
                hides(&mut view);
            }
            let seen = what.replace(r#"("user.overlay.opaque", [121])"#, "");
            view.insert(path.clone(), seen);
        }
    }
    view
}

fn diff_of(upper: &Path, lowers: &[RootDir]) -> Vec<u8> {
    let mut archive = Vec::new();
    let options = ArchiveOptions::default();
    diff(&RootDir::open(upper).unwrap(), lowers, XATTRS, &options, &mut archive).unwrap();
    archive
}

fn apply_to_new(archive: &[u8]) -> (TempDir, Applied) {
    let dir = tempfile::tempdir().unwrap();
    let root = RootDir::open(dir.path()).unwrap();
    let applied = apply(&mut &archive[..], &root, &ApplyOptions::layer(XATTRS)).unwrap();
    (dir, applied)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_layer_archived_and_applied_shows_the_same(bottom in layer(), middle in layer(), top in layer()) {
        let dirs = [make(&bottom), make(&middle), make(&top)];
        let [bottom, middle, top] = [0, 1, 2].map(|index| dirs[index].path());
        let lowers = [RootDir::open(middle).unwrap(), RootDir::open(bottom).unwrap()];
        let archive = diff_of(top, &lowers);
        let (again, applied) = apply_to_new(&archive);
        prop_assert_eq!(applied.diff_id.0, rbuild_image::Digest::of(&archive));
        prop_assert_eq!(merged(&[bottom, middle, again.path()]), merged(&[bottom, middle, top]));
        prop_assert!(diff_of(again.path(), &lowers) == archive, "the archive of what was applied is the archive");
        prop_assert_eq!(applied.implied, Vec::<PathBuf>::new());
    }

    #[test]
    fn a_tree_exported_and_applied_is_the_same(changes in layer()) {
        let changes: Vec<_> = changes.into_iter().filter(|(_, change)| !matches!(change, Change::Whiteout)).collect();
        let source = make(&changes);
        let target = tempfile::tempdir().unwrap();
        let archive = archive_dir(source.path());
        apply(&mut &archive[..], &RootDir::open(target.path()).unwrap(), &ApplyOptions::literal()).unwrap();
        let plain = |tree: BTreeMap<PathBuf, String>| -> BTreeMap<PathBuf, String> {
            tree.into_iter().map(|(path, what)| (path, what.replace(r#"("user.overlay.opaque", [121])"#, ""))).collect()
        };
        prop_assert_eq!(plain(describe(target.path())), plain(describe(source.path())));
        prop_assert_eq!(links(target.path()), links(source.path()));
    }

    #[test]
    fn the_stack_lookup_agrees_with_the_merged_view(bottom in layer(), top in layer(), asked in path()) {
        let dirs = [make(&bottom), make(&top)];
        let layers = [RootDir::open(dirs[1].path()).unwrap(), RootDir::open(dirs[0].path()).unwrap()];
        let stack = merged::Merged { layers: &layers, xattrs: XATTRS };
        let view = merged(&[dirs[0].path(), dirs[1].path()]);
        let found = stack.lookup(Path::new(&asked)).unwrap();
        prop_assert_eq!(found.is_some(), view.contains_key(Path::new(&asked)), "{:?}", view);
        prop_assert!(found.is_none_or(|found| !is_whiteout_device(&found.stat)));
    }
}

/// Which names share an inode.
fn links(root: &Path) -> BTreeSet<Vec<PathBuf>> {
    let mut groups: BTreeMap<u64, Vec<PathBuf>> = BTreeMap::new();
    for path in describe(root).into_keys() {
        let metadata = fs::symlink_metadata(root.join(&path)).unwrap();
        if metadata.is_file() {
            groups.entry(metadata.ino()).or_default().push(path);
        }
    }
    groups.into_values().collect()
}

#[test]
fn hard_links_stay_links() {
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("b"), "one").unwrap();
    fs::hard_link(source.path().join("b"), source.path().join("a")).unwrap();
    symlink("a", source.path().join("s1")).unwrap();
    fs::hard_link(source.path().join("s1"), source.path().join("s2")).unwrap();
    let target = tempfile::tempdir().unwrap();
    let archive = archive_dir(source.path());
    apply(&mut &archive[..], &RootDir::open(target.path()).unwrap(), &ApplyOptions::literal()).unwrap();
    assert_eq!(describe(target.path()), describe(source.path()));
    let inode = |name: &str| fs::symlink_metadata(target.path().join(name)).unwrap().ino();
    assert_eq!((inode("a"), inode("s1")), (inode("b"), inode("s2")));
}
