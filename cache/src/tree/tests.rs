use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::grow::PlannedTree;
use super::*;
use crate::content_digest::{DigestOptions, KnownContents, Selected, TreeOwner, content_of, digest_tree};
use crate::prune::PrunePolicy;
use crate::root_dir::RootDir;
use crate::testing::{OPTIONS, path_of, pool, problems, read, run};
use crate::{LayerForm, LayerTar, Problem, Snapshot, Store, StoreOptions};

/// A store on a disk: in memory, images cannot be mounted.
pub(crate) struct DiskStore {
    pub(crate) store: Store,
    directory: tempfile::TempDir,
}

impl DiskStore {
    pub(crate) fn new() -> Self {
        Self::with(&OPTIONS)
    }

    fn with(options: &StoreOptions) -> Self {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        Self { store: open(&directory.path().join("store"), options), directory }
    }

    /// Another handle, as another process would have.
    pub(crate) fn again(&self) -> Store {
        open(self.store.root(), &OPTIONS)
    }

    /// Whether layers can be images here; says so where they cannot.
    pub(crate) fn has_trees(&self) -> bool {
        let Err(reason) = self.store.tree_support() else { return true };
        // In a user namespace there are none, whatever the kernel.
        assert!(!rustix::process::geteuid().is_root() || in_user_namespace(), "{reason}");
        eprintln!("SKIPPED: {reason}");
        false
    }

    /// Files to copy from, by name, and the tree of them.
    fn source(&self, files: &[(&str, &str)]) -> (PathBuf, Tree) {
        let source = self.directory.path().join("source");
        drop(fs::remove_dir_all(&source));
        fs::create_dir(&source).unwrap();
        let mut tree = Tree::new(Attributes::default());
        for (name, content) in files {
            fs::write(source.join(name), content).unwrap();
            let attributes = Attributes { mode: 0o644, uid: 7, ..Attributes::default() };
            let digest = Some(*blake3::hash(content.as_bytes()).as_bytes());
            let kind = Kind::File(Content { size_bytes: content.len() as u64, digest, place: None });
            let id = tree.add(Inode { attributes, kind });
            tree.name(InodeId::ROOT, OsString::from(name), id);
        }
        (source, tree)
    }

    /// Commits a layer with these files in `/app`; `prepare` may do more in its upper directory, and to what is copied.
    pub(crate) fn commit(
        &self,
        parent: &Snapshot,
        files: &[(&str, &str)],
        prepare: impl FnOnce(&Path),
    ) -> Snapshot {
        let (source, tree) = self.source(files);
        let mut active = self.store.prepare(parent).unwrap();
        fs::create_dir(active.upper().join("app")).unwrap();
        prepare(active.upper());
        let source = RootDir::open(&source).unwrap();
        active
            .graft(Path::new("app"), planned(tree), &pool(), &|directory| source.open_dir(directory))
            .unwrap();
        active.commit().unwrap()
    }

    /// Removes files from what is copied: who opens them fails.
    fn lose(&self, names: &[&str]) {
        names
            .iter()
            .for_each(|name| fs::remove_file(self.directory.path().join("source").join(name)).unwrap());
    }

    /// How many contents a pack has.
    fn contents(&self, pack: usize) -> usize {
        let path = &self.packs()[pack];
        pack::read_index(&File::open(path).unwrap(), path).unwrap().len()
    }

    pub(crate) fn packs(&self) -> Vec<PathBuf> {
        let packs = fs::read_dir(self.store.0.layout.packs()).into_iter().flatten();
        let mut packs: Vec<PathBuf> = packs.map(|entry| entry.unwrap().path()).collect();
        packs.sort();
        packs
    }
}

fn open(root: &Path, options: &StoreOptions) -> Store {
    Store::open(root, &StoreOptions { layers: LayerForm::Tree, ..*options }).unwrap()
}

/// Leaves a test where layers cannot be images.
macro_rules! require_trees {
    ($test:expr) => {
        crate::testing::require_overlay!();
        if !$test.has_trees() {
            return;
        }
    };
}

pub(super) fn in_user_namespace() -> bool {
    fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !map.contains("4294967295"))
}

const FILES: [(&str, &str); 4] = [("a", "one"), ("b", "two"), ("empty", ""), ("twin", "one")];

#[test]
fn kernel_a_tree_is_read_as_what_it_was_made_of() {
    let test = DiskStore::new();
    require_trees!(test);
    let snapshot = test.commit(&Snapshot::empty(), &FILES, |_| test.lose(&["empty"]));
    assert_eq!(test.contents(0), 2, "what is there twice is stored once");
    for store in [test.store.clone(), test.again()] {
        let view = store.view(&snapshot).unwrap();
        for (name, content) in FILES {
            assert_eq!(read(&view, &format!("app/{name}")).as_deref(), Some(content));
        }
        let (file, root) = (fs::metadata(path_of(&view).join("app/a")), fs::metadata(path_of(&view)));
        let (file, root) = (file.unwrap(), root.unwrap());
        assert_eq!((file.uid(), file.dev()), (7, root.dev()), "all of it is one file system");
        let above = store.prepare(&snapshot).unwrap();
        assert_eq!(
            fs::metadata(above.upper()).unwrap().mode(),
            root.mode(),
            "what is above has its root's mode"
        );
    }
}

/// Writes a file that has the attributes of those in trees.
fn write_alike(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
    std::os::unix::fs::chown(path, Some(7), Some(0)).unwrap();
    fs::File::open(path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
}

/// The contents of files of `/app` that are known of layers.
fn known(store: &Store, snapshot: &Snapshot) -> BTreeMap<String, Blake3> {
    let (view, layers) = (store.view(snapshot).unwrap(), store.known_layers(snapshot, Vec::new()));
    let (app, here) = (path_of(&view).join("app"), layers.directory(Path::new("app")));
    let names = fs::read_dir(&app).unwrap().map(|entry| entry.unwrap().file_name());
    let content = |name: OsString| {
        let stat = rustix::fs::lstat(app.join(&name)).unwrap();
        let digest = content_of(here.file(&name)?, &stat)?;
        assert_eq!(digest, *blake3::hash(&fs::read(app.join(&name)).unwrap()).as_bytes(), "{name:?}");
        Some((name.into_string().unwrap(), digest))
    };
    let known = names.filter_map(content).collect();
    let digest = |layers| {
        let (root, pool) = (RootDir::from_fd(view.as_fd().try_clone_to_owned().unwrap()), pool());
        let options =
            DigestOptions { pool: &pool, owner: TreeOwner::Keep, memory: None, layers, cancel: None };
        digest_tree(&root, &[Selected::tree(Path::new("app"))], &options).unwrap()
    };
    assert_eq!(digest(Some(&layers)).digest, digest(None).digest);
    known
}

#[test]
fn kernel_what_files_of_trees_hold_is_known_where_they_are_shown() {
    let test = DiskStore::new();
    require_trees!(test);
    let tree = test.commit(&Snapshot::empty(), &FILES, |_| {});
    let over = run(&test.store, &tree, |root| {
        fs::remove_file(root.join("app/twin")).unwrap();
        fs::write(root.join("app/new"), "new").unwrap();
        write_alike(&root.join("app/b"), "TWO");
    });
    let again = test.commit(&over, &[("late", "late"), ("new", "three")], |_| {});
    let replaced = run(&test.store, &again, |root| {
        fs::remove_dir_all(root.join("app")).unwrap();
        fs::create_dir(root.join("app")).unwrap();
        write_alike(&root.join("app/a"), "ONE");
    });
    let last = test.commit(&replaced, &[("b", "two")], |_| {});
    let cases = [
        (&tree, vec!["a", "b", "empty", "twin"]),
        (&over, vec!["a", "empty"]),
        (&again, vec!["a", "empty", "late", "new"]),
        (&replaced, vec![]),
        (&last, vec!["b"]),
    ];
    for store in [test.store.clone(), test.again()] {
        for (snapshot, names) in &cases {
            assert_eq!(known(&store, snapshot).into_keys().collect::<Vec<_>>(), *names);
        }
    }
}

#[test]
fn kernel_many_files_of_trees_are_digested_without_a_look_into_them() {
    let test = DiskStore::new();
    require_trees!(test);
    let names: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    let snapshot = test.commit(&Snapshot::empty(), &files, |_| {});
    let (view, layers, pool) =
        (test.store.view(&snapshot).unwrap(), test.store.known_layers(&snapshot, Vec::new()), pool());
    let options = DigestOptions {
        pool: &pool,
        owner: TreeOwner::Keep,
        memory: None,
        layers: Some(&layers),
        cancel: None,
    };
    let root = RootDir::from_fd(view.into());
    let digest = digest_tree(&root, &[Selected::tree(Path::new("app"))], &options).unwrap();
    assert_eq!((digest.files, digest.read_bytes), (101, 0));
}

#[test]
fn kernel_a_tree_is_changed_in_mounts_above_as_a_directory_is() {
    let test = DiskStore::new();
    require_trees!(test);
    let snapshot = test.commit(&Snapshot::empty(), &FILES, |_| {});
    let active = test.store.prepare(&snapshot).unwrap();
    let mount = active.mount(None).unwrap();
    let root = path_of(&mount);
    use std::os::unix::fs::{PermissionsExt as _, chown};
    chown(root.join("app/a"), Some(3), Some(4)).unwrap();
    fs::set_permissions(root.join("app/b"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(root.join("app/twin"), root.join("moved")).unwrap();
    fs::hard_link(root.join("app/b"), root.join("link")).unwrap();
    fs::remove_file(root.join("app/empty")).unwrap();
    drop(mount);
    // No metadata without data: what was touched is whole in the new layer.
    assert_eq!(fs::read_to_string(active.upper().join("app/a")).unwrap(), "one");
    assert_eq!(fs::read_to_string(active.upper().join("link")).unwrap(), "two");
    assert_eq!(fs::read_to_string(active.upper().join("moved")).unwrap(), "one");
    let changed = active.commit().unwrap();
    let view = test.store.view(&changed).unwrap();
    assert_eq!(read(&view, "app/b").as_deref(), Some("two"));
    assert_eq!(read(&view, "app/empty"), None);
    assert_eq!(read(&view, "app/twin"), None);
}

#[test]
fn kernel_what_is_said_of_a_tree_is_what_is_found_in_its_mount() {
    let test = DiskStore::new();
    require_trees!(test);
    let base = crate::testing::commit_file(&test.store, &Snapshot::empty(), "gone", "x");
    let prepare = |upper: &Path| {
        fs::write(upper.join("large"), vec![5; 300_000]).unwrap();
        fs::hard_link(upper.join("large"), upper.join("app/large-too")).unwrap();
        std::os::unix::fs::symlink("a", upper.join("app/link")).unwrap();
        let dir = File::open(upper).unwrap();
        use std::os::fd::AsFd as _;
        for name in ["gone", "never"] {
            crate::layer::make_whiteout(dir.as_fd(), name.as_ref(), OverlayXattrs::Trusted).unwrap();
        }
        crate::layer::make_opaque(dir.as_fd(), "app".as_ref(), OverlayXattrs::Trusted).unwrap();
    };
    let snapshot = test.commit(&base, &FILES, prepare);
    let described = test.store.describe_layers(&snapshot, None).unwrap();
    let LayerTar { diff_id, size_bytes, .. } = described[1];
    // Without what is remembered, of the mount; fails if the digest is another.
    let mut tar = Vec::new();
    test.again().write_layer(&snapshot, diff_id, &mut tar).unwrap();
    assert_eq!(tar.len() as u64, size_bytes);
    let text = String::from_utf8_lossy(&tar);
    assert!(text.contains(".wh.gone") && !text.contains(".wh.never") && !text.contains(".wh..wh..opq"));
    assert_eq!(problems(&test.store), []);
}

#[test]
fn kernel_a_part_of_a_tree_that_did_not_change_is_not_hashed_again() {
    let test = DiskStore::with(&StoreOptions { part_size_bytes: 4096, ..OPTIONS });
    require_trees!(test);
    let named: Vec<(String, String)> = (0..60).map(|at| (format!("f{at:02}"), format!("{at:900}"))).collect();
    let mut files: Vec<(&str, &str)> =
        named.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let same_time = |upper: &Path| {
        File::open(upper.join("app")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    };
    let snapshot = test.commit(&Snapshot::empty(), &files, same_time);
    let tars = test.store.describe_layers(&snapshot, None).unwrap();
    assert!(tars.len() > 5, "{tars:?}");
    assert!(tars.iter().enumerate().all(|(at, tar)| tar.layer == 0 && tar.continues == (at > 0)));
    // What another handle makes of the mount is the same.
    for LayerTar { diff_id, size_bytes, .. } in &tars {
        let mut tar = Vec::new();
        test.again().write_layer(&snapshot, *diff_id, &mut tar).unwrap();
        assert_eq!(tar.len() as u64, *size_bytes);
    }
    assert_eq!(problems(&test.store), []);
    // Whoever reads what did not change finds something else.
    File::options().write(true).open(&test.packs()[0]).unwrap().write_all_at(&[0; 2048], 0).unwrap();
    let other = format!("{:900}", "other");
    files[59].1 = &other;
    let changed = test.commit(&Snapshot::empty(), &files, same_time);
    let others = test.store.describe_layers(&changed, None).unwrap();
    assert_eq!(others.len(), tars.len());
    let differ: Vec<usize> = (0..tars.len()).filter(|at| tars[*at].diff_id != others[*at].diff_id).collect();
    assert_eq!(differ, [tars.len() - 2], "the last has directories");
}

#[test]
fn kernel_who_has_a_tree_mounted_shares_the_mount() {
    let test = DiskStore::new();
    require_trees!(test);
    let snapshot = test.commit(&Snapshot::empty(), &FILES, |_| {});
    let file_system =
        |store: &Store| fs::metadata(store.layer_path(snapshot.layers[0]).unwrap()).unwrap().dev();
    let offers = || fs::read_dir(test.store.root().join("locks")).unwrap().count();
    let [first, second, third] = [test.again(), test.again(), test.again()];
    assert_eq!(file_system(&first), file_system(&second), "one page cache");
    assert_eq!(offers(), 2);
    // The first to come may be the first to go.
    let shared = file_system(&first);
    drop(first);
    assert_eq!(file_system(&third), shared);
    drop(second);
    assert_eq!(read(&third.view(&snapshot).unwrap(), "app/a").as_deref(), Some("one"));
    // What is on the disk is looked at all the same.
    let pack = File::options().write(true).open(&test.packs()[0]).unwrap();
    pack.write_all_at(b"ONE", 0).unwrap();
    assert_eq!(problems(&test.store), [Problem::LayerChanged(snapshot.layers[0])]);
    // What a process that was killed has offered.
    let entry = fs::read_dir(test.store.root().join("locks")).unwrap().next().unwrap().unwrap();
    let left = PathBuf::from(entry.path().to_str().unwrap().to_owned() + "0");
    drop(third);
    assert_eq!(offers(), 0, "nothing is left");
    fs::write(&left, "").unwrap();
    assert!(test.again().view(&snapshot).is_ok());
    assert_eq!(offers(), 0, "nor what others left");
}

#[test]
fn kernel_what_is_in_a_pack_is_neither_read_nor_written_again() {
    let test = DiskStore::new();
    require_trees!(test);
    test.commit(&Snapshot::empty(), &FILES, |_| {});
    let changed = [("a", "one"), ("b", "three"), ("empty", ""), ("twin", "one")];
    let snapshot = test.commit(&Snapshot::empty(), &changed, |_| test.lose(&["a", "empty", "twin"]));
    assert_eq!((test.packs().len(), test.contents(1)), (2, 1));
    assert_eq!(read(&test.store.view(&snapshot).unwrap(), "app/b").as_deref(), Some("three"));
    test.commit(&Snapshot::empty(), &changed, |_| test.lose(&["a", "b", "empty", "twin"]));
    assert_eq!(test.packs().len(), 2);
}

#[test]
fn kernel_a_content_is_never_longer_than_it_is() {
    let test = DiskStore::new();
    require_trees!(test);
    let files = [("a", "one"), ("b", "what lies behind it")];
    let first = test.commit(&Snapshot::empty(), &files, |_| {});
    // Somebody says that this digest is of more than there is.
    let (source, mut tree) = test.source(&[("a", "one")]);
    tree.contents_mut().for_each(|content| content.size_bytes = 600);
    let mut active = test.store.prepare(&Snapshot::empty()).unwrap();
    fs::create_dir(active.upper().join("app")).unwrap();
    let source = RootDir::open(&source).unwrap();
    active.graft(Path::new("app"), planned(tree), &pool(), &|directory| source.open_dir(directory)).unwrap();
    let second = active.commit().unwrap();
    for snapshot in [&first, &second] {
        let seen = read(&test.store.view(snapshot).unwrap(), "app/a");
        assert_eq!(seen.as_deref(), Some("one"));
    }
}

#[test]
fn kernel_what_changed_since_it_was_digested_is_not_taken() {
    let test = DiskStore::new();
    require_trees!(test);
    let (source, tree) = test.source(&FILES);
    fs::write(source.join("b"), "edited").unwrap();
    let mut active = test.store.prepare(&Snapshot::empty()).unwrap();
    let source = RootDir::open(&source).unwrap();
    let error = active.graft(Path::new(""), planned(tree), &pool(), &|directory| source.open_dir(directory));
    assert!(matches!(error, Err(crate::Error::SourceChanged { path }) if path == Path::new("b")));
}

#[test]
fn kernel_holes_take_no_room_in_a_pack() {
    let test = DiskStore::new();
    require_trees!(test);
    let large = "l".repeat(300_000);
    let snapshot = test.commit(&Snapshot::empty(), &[("large", &large)], |_| {});
    let whole = fs::metadata(&test.packs()[0]).unwrap().blocks();
    let (source, mut tree) = test.source(&[("sparse", ""), ("c", "three")]);
    let mut content = vec![0; 1_000_000];
    content[500_000..500_003].copy_from_slice(b"mid");
    fs::write(source.join("sparse"), &content).unwrap();
    tree.contents_mut().filter(|content| content.size_bytes == 0).for_each(|sparse| {
        (sparse.size_bytes, sparse.digest) = (content.len() as u64, None);
    });
    let mut active = test.store.prepare(&snapshot).unwrap();
    fs::create_dir(active.upper().join("app")).unwrap();
    let source = RootDir::open(&source).unwrap();
    active.graft(Path::new("app"), planned(tree), &pool(), &|directory| source.open_dir(directory)).unwrap();
    let sparse = active.commit().unwrap();
    let blocks = fs::metadata(&test.packs()[1]).unwrap().blocks();
    assert!(blocks < whole, "{blocks} blocks, {whole} of a file of 300 kB");
    let seen = read(&test.store.view(&sparse).unwrap(), "app/sparse").unwrap();
    assert!(seen.as_bytes() == content);
    assert_eq!(problems(&test.store), []);
}

#[test]
fn kernel_an_image_is_told_from_the_one_before() {
    let test = DiskStore::new();
    require_trees!(test);
    let files: Vec<(String, String)> =
        (0..600).map(|index| (format!("file {index}"), format!("content {}", index * 7919))).collect();
    let mut files: Vec<(&str, &str)> =
        files.iter().map(|(name, content)| (name.as_str(), content.as_str())).collect();
    let first = test.commit(&Snapshot::empty(), &files, |_| {});
    files[300].1 = "changed";
    let second = test.commit(&Snapshot::empty(), &files, |_| {});
    let size =
        |snapshot: &Snapshot| fs::metadata(test.store.0.layout.layer(snapshot.layers[0])).unwrap().len();
    assert!(size(&first) < 200 && size(&second) < 400, "{} and {}", size(&first), size(&second));
    // Only the second one is kept.
    let target = crate::images::tests::store_image(&test.store, "{}");
    test.store.images().put(&"app".parse().unwrap(), &target, std::slice::from_ref(&second)).unwrap();
    test.store.prune(&[PrunePolicy::default()]).unwrap();
    assert_eq!(test.store.snapshot(first.id.unwrap()).unwrap(), None);
    let view = test.again().view(&second).unwrap();
    assert_eq!(read(&view, "app/file 300").as_deref(), Some("changed"));
    assert_eq!(read(&view, "app/file 599").as_deref(), Some("content 4743481"));
    assert_eq!(problems(&test.store), []);
    let (pack, index) = (&test.packs()[0], 600 * 48 + 56);
    let file = File::options().write(true).open(pack).unwrap();
    file.write_all_at(&[9; 16], file.metadata().unwrap().len() - index - 100).unwrap();
    assert_eq!(problems(&test.again()), [Problem::LayerChanged(second.layers[0])]);
}

#[test]
fn what_is_grafted_is_merged_with_what_is_there() {
    let (mut below, mut above) = (Tree::new(Attributes::default()), Tree::new(Attributes::default()));
    let plant = |tree: &mut Tree, path: &str, mode: u32, is_directory: bool| {
        let path = Path::new(path);
        let at = tree.directory_at(path.parent().unwrap()).unwrap();
        let kind = if is_directory {
            Kind::Directory(Entries::new())
        } else {
            Kind::File(Content { size_bytes: 0, digest: None, place: None })
        };
        let id = tree.add(Inode { attributes: Attributes { mode, ..Attributes::default() }, kind });
        tree.name(at, path.file_name().unwrap().to_owned(), id);
    };
    for (path, mode, is_directory) in [
        ("app", 1, true),
        ("app/d", 2, true),
        ("app/d/old", 3, false),
        ("app/f", 4, false),
        ("app/o", 5, true),
    ] {
        plant(&mut below, path, mode, is_directory);
    }
    for (path, mode, is_directory) in
        [("d", 12, true), ("d/new", 13, false), ("f", 14, false), ("o", 15, false), ("n", 16, true)]
    {
        plant(&mut above, path, mode, is_directory);
    }
    let app = below.directory_at(Path::new("app")).unwrap();
    let whiteout = Kind::Special(FileType::CharacterDevice, 0);
    let whiteout = below.add(Inode { attributes: Attributes::default(), kind: whiteout });
    below.name(app, "n".into(), whiteout);
    below.graft(app, above);
    let mut seen = Vec::new();
    let mut todo = vec![(PathBuf::new(), InodeId::ROOT)];
    while let Some((path, id)) = todo.pop() {
        seen.push((path.display().to_string(), below.inode(id).attributes.mode));
        let entries = below.entries(id).into_iter().flatten();
        todo.extend(entries.map(|(name, child)| (path.join(name), *child)));
    }
    let opaque = |path: &str| below.inode(below.directory_at(Path::new(path)).unwrap()).is_opaque();
    assert_eq!(["app/n", "app/d"].map(opaque), [true, false]);
    seen.sort();
    let expected = [
        ("", 0),
        ("app", 1),
        ("app/d", 12),
        ("app/d/new", 13),
        ("app/d/old", 3),
        ("app/f", 14),
        ("app/n", 16),
        ("app/o", 15),
    ];
    assert_eq!(seen, expected.map(|(path, mode)| (path.to_owned(), mode)));
}

#[test]
fn kernel_packs_go_with_the_last_layer_that_needs_them() {
    let test = DiskStore::new();
    require_trees!(test);
    let snapshot = test.commit(&Snapshot::empty(), &FILES, |_| {});
    fs::write(test.store.0.layout.pack(1000), "left by a crash").unwrap();
    let target = crate::images::tests::store_image(&test.store, "{}");
    test.store.images().put(&"app".parse().unwrap(), &target, std::slice::from_ref(&snapshot)).unwrap();
    let usage = test.store.usage().unwrap();
    assert!(usage.private_bytes >= 4096, "{usage:?}");
    test.store.prune(&[PrunePolicy::default()]).unwrap();
    assert_eq!(test.packs().len(), 1);
    assert!(test.again().view(&snapshot).is_ok());
    test.store.images().remove_target(target.digest).unwrap();
    test.store.prune(&[PrunePolicy::default()]).unwrap();
    assert_eq!(test.packs(), Vec::<PathBuf>::new());
    assert_eq!(problems(&test.store), []);
}

#[test]
fn kernel_a_large_tree_is_digested_as_its_directory() {
    let test = DiskStore::new();
    require_trees!(test);
    let names: Vec<String> = (0..2500).map(|number| format!("f{number}")).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    test.commit(&Snapshot::empty(), &files, |_| {});
    // This makes the digest again of what is mounted.
    assert_eq!(problems(&test.again()), []);
}

/// Contents of this size, each another one.
fn large(number: usize) -> String {
    format!("{number:08}").repeat(16 * 1024)
}

#[test]
fn kernel_what_no_layer_needs_any_longer_is_cut_out_of_a_pack() {
    let test = DiskStore::new();
    require_trees!(test);
    let contents: Vec<String> = (0..6).map(large).collect();
    let names = ["f0", "f1", "f2", "f3", "f4", "f5"];
    let all: Vec<(&str, &str)> = names.into_iter().zip(contents.iter().map(String::as_str)).collect();
    test.commit(&Snapshot::empty(), &all, |_| {});
    let lease = test.store.lease().unwrap();
    let kept = [
        test.commit(&Snapshot::empty(), &[all[1], all[4]], |_| test.lose(&["f1", "f4"])),
        test.commit(&Snapshot::empty(), &[all[4]], |_| test.lose(&["f4"])),
    ];
    let target = crate::images::tests::store_image(&test.store, "{}");
    test.store.images().put(&"app".parse().unwrap(), &target, &kept).unwrap();
    let pack = test.packs().remove(0);
    assert_eq!(test.packs().len(), 1, "all of it was there");
    let taken = || fs::metadata(&pack).unwrap().blocks() * 512;
    let (before, length) = (taken(), fs::metadata(&pack).unwrap().len());
    assert!(before >= 6 * 128 * 1024, "{before}");
    let prune = || test.again().prune(&[PrunePolicy::default()]).unwrap();
    let report = prune();
    assert_eq!((report.removals.len(), report.trimmed_bytes), (1, 0), "somebody has taken from it just now");
    drop(lease);
    let report = prune();
    assert_eq!(report.trimmed_bytes, before - taken());
    assert!((4 * 128 * 1024 - 8192..).contains(&report.trimmed_bytes), "{report:?}");
    assert_eq!(fs::metadata(&pack).unwrap().len(), length, "what is left stays where it was");
    let view = test.again().view(&kept[0]).unwrap();
    for at in [1, 4] {
        assert_eq!(read(&view, &format!("app/f{at}")).as_deref(), Some(&*contents[at]));
    }
    assert_eq!(problems(&test.store), []);
    assert_eq!(prune().trimmed_bytes, 0, "it is done once");
    let again = test.commit(&Snapshot::empty(), &all, |_| {});
    assert_eq!(test.contents(1), 6, "nothing is taken from what has holes");
    assert_eq!(read(&test.again().view(&again).unwrap(), "app/f0").as_deref(), Some(&*contents[0]));
}

#[test]
fn kernel_damage_is_found_and_spreads_no_further() {
    for damages_pack in [true, false] {
        let test = DiskStore::new();
        require_trees!(test);
        let snapshot = test.commit(&Snapshot::empty(), &FILES, |_| {});
        let layer = snapshot.layers[0];
        let path = if damages_pack { test.packs().remove(0) } else { test.store.0.layout.layer(layer) };
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 0).unwrap();
        file.write_all_at(&[byte[0] ^ 1], 0).unwrap();
        let store = test.again();
        assert_eq!(problems(&store), [Problem::LayerChanged(layer)]);
        let (_, left) = store.repair(&pool()).unwrap();
        assert_eq!(left.problems, []);
        let snapshot = test.commit(&Snapshot::empty(), &FILES, |_| {});
        assert_eq!(test.contents(test.packs().len() - 1), 2, "what was damaged is not used again");
        let view = test.store.view(&snapshot).unwrap();
        assert_eq!(read(&view, "app/a").as_deref(), Some("one"));
    }
}

#[test]
fn kernel_a_layer_has_few_packs() {
    let test = DiskStore::new();
    require_trees!(test);
    let mut contents: Vec<String> = (0..40).map(|index| format!("first {index}")).collect();
    let names: Vec<String> = (0..40).map(|index| format!("f{index}")).collect();
    let mut snapshot = Snapshot::empty();
    for round in 0..40 {
        contents[round] = format!("changed {round}");
        let files: Vec<(&str, &str)> =
            names.iter().zip(&contents).map(|(name, content)| (name.as_str(), content.as_str())).collect();
        snapshot = test.commit(&Snapshot::empty(), &files, |_| {});
    }
    let crate::snapshot::Kept::Image { packs, .. } = test.store.kept(snapshot.layers[0]).unwrap() else {
        panic!("it is an image")
    };
    assert!(packs.len() <= 31, "{}", packs.len());
    let view = test.store.view(&snapshot).unwrap();
    for (name, content) in names.iter().zip(&contents) {
        assert_eq!(read(&view, &format!("app/{name}")).as_deref(), Some(content.as_str()));
    }
}

#[test]
fn kernel_a_pack_of_another_boot_is_compared_before_it_is_used() {
    let test = DiskStore::new();
    require_trees!(test);
    let snapshot = test.commit(&Snapshot::empty(), &FILES, |_| {});
    let set = |boot: &str| {
        let update =
            |db: &rusqlite::Transaction<'_>| Ok(db.execute("UPDATE pack SET boot = ?1", [boot]).map(drop)?);
        test.store.0.db.write("set", update).unwrap();
    };
    let boots = || -> Vec<Option<String>> {
        let crate::snapshot::Kept::Image { packs, .. } = test.store.kept(snapshot.layers[0]).unwrap() else {
            panic!("it is an image");
        };
        packs.into_iter().map(|pack| pack.boot).collect()
    };
    assert!(matches!(&boots()[..], [Some(boot)] if !boot.is_empty()), "nobody waits for the disk");
    set("another");
    assert_eq!(read(&test.again().view(&snapshot).unwrap(), "app/a").as_deref(), Some("one"));
    assert_eq!(boots(), [None], "what was found whole stays so");
    set("another");
    let pack = File::options().write(true).open(&test.packs()[0]).unwrap();
    pack.write_all_at(b"ONE", 0).unwrap();
    pack.write_all_at(b"TWO", 512).unwrap();
    let refused = test.again().view(&snapshot).unwrap_err();
    assert!(matches!(refused, crate::Error::ImageDamaged(_)), "{refused}");
    let snapshot = test.commit(&Snapshot::empty(), &FILES, |_| {});
    assert_eq!(test.contents(1), 2, "nothing is taken from what is damaged");
    assert_eq!(read(&test.again().view(&snapshot).unwrap(), "app/a").as_deref(), Some("one"));
}

/// A tree of which no more is known.
fn planned(tree: Tree) -> PlannedTree {
    PlannedTree { tree, known: KnownContents::new() }
}
