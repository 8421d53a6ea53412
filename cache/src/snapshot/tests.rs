use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use super::*;
use crate::layer::{self, ArchiveOptions};
use crate::root_dir::RootDir;
use crate::testing::{NOW, TestStore, commit_file, path_of, read, require_overlay, run};

fn is_empty(store: &TestStore, directory: &str) -> bool {
    fs::read_dir(store.root().join(directory)).unwrap().next().is_none()
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_committed_can_be_found_again() {
    let store = TestStore::new();
    let first = commit_file(&store, &Snapshot::empty(), "a", "1");
    let second = commit_file(&store, &first, "b", "2");
    assert_eq!(second.layers.len(), 2);
    assert_eq!(second.layers[0], first.layers[0]);
    assert_eq!(store.second_handle().snapshot(second.id.unwrap()).unwrap(), Some(second.clone()));
    assert_eq!(store.stack(&second.layers).unwrap(), second);
    assert_eq!(store.stack(&[]).unwrap(), Snapshot::empty());
    assert!(is_empty(&store, "active"));
}

#[test]
fn what_is_dropped_leaves_nothing() {
    let store = TestStore::new();
    let active = store.prepare(&Snapshot::empty()).unwrap();
    fs::create_dir_all(active.upper().join("a/b")).unwrap();
    drop(active);
    assert!(is_empty(&store, "active") && is_empty(&store, "layers"));
}

#[test]
fn what_is_gone_is_an_error() {
    let store = TestStore::new();
    let forged = Snapshot { id: Some(SnapshotId(7)), layers: [LayerId(7)].into() };
    assert!(matches!(store.prepare(&forged), Err(Error::SnapshotMissing(SnapshotId(7)))));
    assert!(matches!(store.stack(&[LayerId(7)]), Err(Error::LayerMissing(LayerId(7)))));
    assert!(matches!(store.layer_infos(&forged), Err(Error::LayerMissing(LayerId(7)))));
    assert_eq!(store.snapshot(SnapshotId(7)).unwrap(), None);
}

#[test]
fn a_row_without_a_directory_is_forgotten_by_who_meets_it() {
    let store = TestStore::new();
    let first = commit_file(&store, &Snapshot::empty(), "a", "1");
    let second = commit_file(&store, &first, "b", "2");
    fs::remove_dir_all(store.root().join(format!("layers/{}", second.layers[1]))).unwrap();
    assert!(matches!(store.prepare(&second), Err(Error::LayerMissing(layer)) if layer == second.layers[1]));
    assert_eq!(store.snapshot(second.id.unwrap()).unwrap(), None);
    assert_eq!(store.snapshot(first.id.unwrap()).unwrap(), Some(first));
}

#[test]
fn a_directory_without_a_row_does_not_stop_a_commit() {
    let store = TestStore::new();
    // As a crash between rename and commit leaves it: the next layer gets the same id.
    fs::create_dir_all(store.root().join("layers/1/left")).unwrap();
    let snapshot = commit_file(&store, &Snapshot::empty(), "a", "1");
    assert_eq!(*snapshot.layers, [LayerId(1)]);
    assert_eq!(names(&store.root().join("layers/1")), ["a"]);
}

#[test]
fn a_new_layer_has_the_root_attributes_of_its_parent() {
    let store = TestStore::new();
    let active = store.prepare(&Snapshot::empty()).unwrap();
    fs::set_permissions(active.upper(), fs::Permissions::from_mode(0o711)).unwrap();
    let parent = active.commit().unwrap();
    let active = store.prepare(&parent).unwrap();
    assert_eq!(fs::metadata(active.upper()).unwrap().mode() & 0o7777, 0o711);
}

#[test]
fn kernel_a_step_sees_its_parent_and_is_seen_by_its_child() {
    require_overlay!();
    let store = TestStore::new();
    let first = run(&store, &Snapshot::empty(), |root| fs::write(root.join("a"), "1").unwrap());
    let second = run(&store, &first, |root| {
        assert_eq!(fs::read_to_string(root.join("a")).unwrap(), "1");
        fs::write(root.join("a"), "2").unwrap();
        fs::write(root.join("b"), "3").unwrap();
    });
    let (one, two) = (store.view(&first).unwrap(), store.view(&second).unwrap());
    assert_eq!((read(&one, "a"), read(&one, "b")), (Some("1".into()), None));
    assert_eq!((read(&two, "a"), read(&two, "b")), (Some("2".into()), Some("3".into())));
    assert!(fs::write(path_of(&two).join("c"), "").is_err(), "a view is read-only");
}

#[test]
fn kernel_deleted_files_and_replaced_directories_stay_away() {
    require_overlay!();
    let test = TestStore::new();
    for xattrs in [OverlayXattrs::Trusted, OverlayXattrs::User] {
        let options = crate::StoreOptions { xattrs, ..crate::testing::OPTIONS };
        let store = Store::open(&test.scratch().join(format!("{xattrs:?}")), &options).unwrap();
        deleted_files_and_replaced_directories_stay_away(&store);
    }
}

fn deleted_files_and_replaced_directories_stay_away(store: &Store) {
    let first = run(store, &Snapshot::empty(), |root| {
        fs::create_dir(root.join("dir")).unwrap();
        fs::write(root.join("dir/old"), "").unwrap();
        fs::write(root.join("gone"), "").unwrap();
    });
    let second = run(store, &first, |root| {
        fs::remove_file(root.join("gone")).unwrap();
        fs::remove_dir_all(root.join("dir")).unwrap();
        fs::create_dir(root.join("dir")).unwrap();
        fs::write(root.join("dir/new"), "").unwrap();
    });
    let view = store.view(&second).unwrap();
    assert_eq!(names(&path_of(&view)), ["dir"]);
    assert_eq!(names(&path_of(&view).join("dir")), ["new"]);
    // The layer alone shows no whiteouts either.
    let alone = store.view(&store.stack(&second.layers[1..]).unwrap()).unwrap();
    assert_eq!(names(&path_of(&alone)), ["dir"]);
}

#[test]
fn kernel_a_view_shows_nothing_but_the_layers() {
    require_overlay!();
    let store = TestStore::new();
    fs::write(store.area(crate::Area::Stubs).join("stub"), "").unwrap();
    let view = store.view(&Snapshot::empty()).unwrap();
    assert!(names(&path_of(&view)).is_empty());
    assert!(fs::write(path_of(&view).join("a"), "").is_err());
    let single = commit_file(&store, &Snapshot::empty(), "a", "1");
    assert_eq!(names(&path_of(&store.view(&single).unwrap())), ["a"]);
}

#[test]
fn kernel_stubs_do_not_reach_the_layer() {
    require_overlay!();
    let store = TestStore::new();
    let stubs = store.scratch().join("stubs");
    fs::create_dir_all(stubs.join("proc")).unwrap();
    let active = store.prepare(&Snapshot::empty()).unwrap();
    let root = active.mount(Some(&stubs)).unwrap();
    assert_eq!(names(&path_of(&root)), ["proc"]);
    fs::write(path_of(&root).join("a"), "").unwrap();
    drop(root);
    let snapshot = active.commit().unwrap();
    assert_eq!(names(&path_of(&store.view(&snapshot).unwrap())), ["a"]);
}

#[test]
fn kernel_an_active_snapshot_can_be_mounted_again() {
    require_overlay!();
    let store = TestStore::new();
    let active = store.prepare(&Snapshot::empty()).unwrap();
    for name in ["a", "b"] {
        let root = active.mount(None).unwrap();
        fs::write(path_of(&root).join(name), "").unwrap();
    }
    assert_eq!(names(active.upper()), ["a", "b"]);
}

#[test]
fn kernel_a_containers_layer_outlives_its_mount() {
    require_overlay!();
    let store = TestStore::new();
    let image = commit_file(&store, &Snapshot::empty(), "a", "1");
    let directory = store.area(crate::Area::Containers).join("c1");
    fs::create_dir(&directory).unwrap();
    let two = || Some("2".to_owned());
    let (synced, volatile) = (Durability::Synced, Durability::Volatile);
    for (durability, expected) in [(synced, None), (volatile, two()), (volatile, two()), (synced, two())] {
        let root = store.mount_writable(&image, &directory, None, durability).unwrap();
        assert_eq!(read(&root, "b"), expected);
        assert_eq!(read(&root, "a"), Some("1".into()));
        fs::write(path_of(&root).join("b"), "2").unwrap();
    }
}

#[test]
fn kernel_stacks_can_be_as_deep_as_the_kernel_allows() {
    require_overlay!();
    let store = TestStore::new();
    let mut snapshot = Snapshot::empty();
    for layer in 0..LAYERS_MAX {
        snapshot = commit_file(&store, &snapshot, &layer.to_string(), "");
        if layer == 299 {
            assert_eq!(names(&path_of(&store.view(&snapshot).unwrap())).len(), 300);
        }
    }
    assert_eq!(names(&path_of(&store.view(&snapshot).unwrap())).len(), LAYERS_MAX);
    let stubs = store.scratch().join("stubs");
    fs::create_dir(&stubs).unwrap();
    drop(store.prepare(&snapshot).unwrap().mount(Some(&stubs)).unwrap());
}

#[test]
fn kernel_deeper_stacks_are_flattened_for_their_mounts() {
    require_overlay!();
    let store = TestStore::new();
    let count =
        |db: &Connection| Ok(db.query_row("SELECT count(*) FROM flattened", (), |row| row.get::<_, i64>(0))?);
    let (mut snapshot, mut removed) = (Snapshot::empty(), 0);
    for (depth, flats) in [(LAYERS_MAX, 0), (LAYERS_MAX + 1, 1), (746, 1), (747, 2), (1000, 3)] {
        while snapshot.layers.len() + 1 < depth {
            snapshot = commit_file(&store, &snapshot, &snapshot.layers.len().to_string(), "");
        }
        // What the topmost layer removes is far below it.
        let gone = (depth - 300).to_string();
        snapshot = run(&store, &snapshot, |root| fs::remove_file(root.join(&gone)).unwrap());
        removed += 1;
        let found = names(&path_of(&store.second_handle().view(&snapshot).unwrap()));
        assert!(!found.contains(&gone) && found.contains(&"0".to_owned()), "{depth}");
        // A layer is a file, or takes one away.
        assert_eq!((snapshot.layers.len(), found.len()), (depth, depth - 2 * removed));
        assert_eq!(store.0.db.read("count", count).unwrap(), flats, "{depth}");
    }
}

#[test]
fn kernel_a_long_path_is_no_obstacle() {
    require_overlay!();
    let directory = TestStore::new();
    let root = directory.scratch().join("x".repeat(200)).join("y".repeat(200));
    let store = crate::testing::open(&root);
    let first = commit_file(&store, &Snapshot::empty(), "a", "1");
    let second = run(&store, &first, |root| fs::write(root.join("b"), "2").unwrap());
    let view = store.view(&second).unwrap();
    assert_eq!((read(&view, "a"), read(&view, "b")), (Some("1".into()), Some("2".into())));
}

#[test]
fn layers_are_described_once_and_written_as_described() {
    let store = TestStore::new();
    let first = commit_file(&store, &Snapshot::empty(), "a", "1");
    let second = commit_file(&store, &first, "b", "2");
    let info = &store.layer_infos(&second).unwrap()[1];
    assert_eq!(info.created, NOW);
    let described = store.describe_layers(&second, None).unwrap();
    assert_eq!(store.second_handle().describe_layers(&second, None).unwrap(), described);
    for LayerTar { diff_id, size_bytes, .. } in &described {
        let mut tar = Vec::new();
        store.write_layer(&second, *diff_id, &mut tar).unwrap();
        assert_eq!((rbuild_image::Digest::of(&tar), tar.len() as u64), (diff_id.0, *size_bytes));
    }
    let diff_ids: Vec<_> = described.iter().map(|tar| tar.diff_id).collect();
    assert_eq!(store.snapshot_of_chain(&diff_ids).unwrap(), Some(second));
    assert_eq!(store.longest_chain(&[diff_ids[0], diff_ids[0]]).unwrap(), (1, first));
    // On nothing, the second layer is another matter.
    assert_eq!(store.longest_chain(&diff_ids[1..]).unwrap(), (0, Snapshot::empty()));
}

#[test]
fn kernel_a_large_layer_leaves_as_parts_and_they_show_the_same() {
    require_overlay!();
    let options = crate::StoreOptions { part_size_bytes: 4096, ..crate::testing::OPTIONS };
    let (source, target) = (TestStore::with(&options), TestStore::new());
    let base = commit_file(&source, &Snapshot::empty(), "base", "1");
    let active = source.prepare(&base).unwrap();
    for directory in ["app", "app/private", "app/private/deep"] {
        fs::create_dir(active.upper().join(directory)).unwrap();
        for name in 0..12 {
            fs::write(active.upper().join(directory).join(format!("f{name}")), vec![b'x'; 900]).unwrap();
        }
    }
    fs::set_permissions(active.upper().join("app/private"), fs::Permissions::from_mode(0o1710)).unwrap();
    let top = commit_file(&source, &active.commit().unwrap(), "top", "1");
    let tars = source.describe_layers(&top, None).unwrap();
    let parts = tars.iter().filter(|tar| tar.layer == 1).count();
    assert!(parts > 3 && tars.len() == parts + 2, "{tars:?}");
    assert_eq!(
        [0, 1, 2, parts, parts + 1, parts + 2].map(|tars| source.layers_of_tars(&top, tars).unwrap()),
        [0, 1, 1, 1, 2, 3]
    );
    let diff_ids: Vec<_> = tars.iter().map(|tar| tar.diff_id).collect();
    assert_eq!(source.snapshot_of_chain(&diff_ids).unwrap(), Some(top.clone()));
    for missing in 1..=parts {
        let (found, snapshot) = source.longest_chain(&diff_ids[..parts + 1 - missing]).unwrap();
        assert_eq!((found, &snapshot), (1, &base), "a layer is there as a whole or not at all");
    }
    let mut there = Snapshot::empty();
    for LayerTar { diff_id, .. } in &tars {
        let mut tar = Vec::new();
        source.second_handle().write_layer(&top, *diff_id, &mut tar).unwrap();
        there = target.apply_layer(&there, Some(*diff_id), None, &mut &tar[..]).unwrap();
    }
    assert_eq!(there.layers.len(), tars.len());
    let digest = |store: &Store, snapshot: &Snapshot| {
        let view = store.view(snapshot).unwrap();
        let mode = fs::metadata(path_of(&view).join("app/private")).unwrap().mode() & 0o7777;
        (mode, store.digest_directory(&path_of(&view), &crate::testing::pool()).unwrap())
    };
    assert_eq!(digest(&target, &there), digest(&source, &top));
    assert_eq!(digest(&target, &there).0, 0o1710);
    assert_eq!(crate::testing::problems(&source), []);
}

#[test]
fn an_archive_becomes_a_layer_and_is_shared() {
    let (source, target) = (TestStore::new(), TestStore::new());
    let origin = commit_file(&source, &Snapshot::empty(), "a", "1");
    let diff_id = source.describe_layers(&origin, None).unwrap()[0].diff_id;
    let mut tar = Vec::new();
    write_layer(&source, &origin, &mut tar);

    let blob = rbuild_image::Descriptor::of(rbuild_image::MediaType::OciLayer, &tar);
    let empty = Snapshot::empty();
    let first = target.apply_layer(&empty, Some(diff_id), Some(&blob), &mut &tar[..]).unwrap();
    assert_eq!(target.blobs_of(diff_id).unwrap(), [blob]);
    let parent = commit_file(&target, &empty, "b", "2");
    // Known, so not a byte is read.
    let second = target.apply_layer(&parent, Some(diff_id), None, &mut std::io::empty()).unwrap();
    assert_eq!((second.layers[0], second.layers[1]), (parent.layers[0], first.layers[0]));
    assert_eq!(target.snapshot_of_chain(&[diff_id]).unwrap(), Some(first));
}

#[test]
fn kernel_a_directory_that_an_archive_does_not_mention_looks_as_below() {
    require_overlay!();
    let (source, target) = (TestStore::new(), TestStore::new());
    // The tar of `dir/file` without its entry for `dir`: a header and a block of content after one header.
    let origin = source.prepare(&Snapshot::empty()).unwrap();
    fs::create_dir(origin.upper().join("dir")).unwrap();
    fs::write(origin.upper().join("dir/file"), "1").unwrap();
    let origin = origin.commit().unwrap();
    let mut tar = Vec::new();
    write_layer(&source, &origin, &mut tar);
    assert!(tar.starts_with(b"dir/\0"));
    tar.drain(..512);

    let base = target.prepare(&Snapshot::empty()).unwrap();
    fs::create_dir(base.upper().join("dir")).unwrap();
    fs::set_permissions(base.upper().join("dir"), fs::Permissions::from_mode(0o1770)).unwrap();
    let base = base.commit().unwrap();
    let mode = |snapshot: &Snapshot| {
        fs::metadata(path_of(&target.view(snapshot).unwrap()).join("dir")).unwrap().mode() & 0o7777
    };
    let unpacked = target.unpack_layer(None, &mut &tar[..]).unwrap();
    let diff_id = unpacked.diff_id();
    let attached = target.attach(&base, unpacked, None).unwrap();
    assert_eq!(mode(&attached), 0o1770);
    // On top of something else it is another layer; in the same place the same.
    let alone = target.apply_layer(&Snapshot::empty(), Some(diff_id), None, &mut &tar[..]).unwrap();
    assert_eq!(mode(&alone), 0o755);
    let again = target.apply_layer(&base, Some(diff_id), None, &mut std::io::empty()).unwrap();
    assert_eq!(again, attached);
}

#[test]
fn another_archive_than_announced_is_refused() {
    let (source, target) = (TestStore::new(), TestStore::new());
    let origin = commit_file(&source, &Snapshot::empty(), "a", "1");
    let mut tar = Vec::new();
    write_layer(&source, &origin, &mut tar);
    let expected = rbuild_image::DiffId(rbuild_image::Digest::of("other"));
    let result = target.apply_layer(&Snapshot::empty(), Some(expected), None, &mut &tar[..]);
    assert!(matches!(result, Err(Error::DiffIdMismatch { .. })));
    assert!(is_empty(&target, "active") && is_empty(&target, "layers"));
}

/// The archive of a snapshot's lowest layer.
fn write_layer(store: &Store, snapshot: &Snapshot, tar: &mut Vec<u8>) {
    let diff_id = store.describe_layers(snapshot, None).unwrap()[0].diff_id;
    store.write_layer(snapshot, diff_id, tar).unwrap();
}

#[test]
fn a_clamped_archive_is_another_one_of_the_same_layer() {
    let store = TestStore::new();
    let base = commit_file(&store, &Snapshot::empty(), "a", "1");
    let top = commit_file(&store, &base, "b", "2");
    let plain = store.describe_layers(&top, None).unwrap();
    let clamp = Some(MtimeClamp { layers_kept: 1, mtime_max: 1_000_000_000 });
    let clamped = store.describe_layers(&top, clamp).unwrap();
    assert_eq!(plain[0], clamped[0]);
    assert_ne!(plain[1], clamped[1]);
    assert_eq!(store.describe_layers(&top, None).unwrap(), plain);
    for described in [plain, clamped] {
        let mut tar = Vec::new();
        store.write_layer(&top, described[1].diff_id, &mut tar).unwrap();
        assert_eq!(rbuild_image::Digest::of(&tar), described[1].diff_id.0);
        let diff_ids: Vec<_> = described.iter().map(|tar| tar.diff_id).collect();
        assert_eq!(store.snapshot_of_chain(&diff_ids).unwrap(), Some(top.clone()));
    }
}

#[test]
fn kernel_layers_are_squashed_to_one_that_makes_the_same_tree() {
    require_overlay!();
    let store = TestStore::new();
    let base = run(&store, &Snapshot::empty(), |root| {
        fs::create_dir_all(root.join("dir/sub")).unwrap();
        for file in ["dir/gone", "dir/sub/hidden", "kept", "to-directory"] {
            fs::write(root.join(file), "base").unwrap();
        }
    });
    let one = run(&store, &base, |root| {
        fs::remove_file(root.join("dir/gone")).unwrap();
        fs::write(root.join("passing"), "1").unwrap();
        fs::write(root.join("!first"), "1").unwrap();
        fs::hard_link(root.join("kept"), root.join("link")).unwrap();
    });
    let two = run(&store, &one, |root| {
        fs::remove_file(root.join("passing")).unwrap();
        fs::remove_dir_all(root.join("dir/sub")).unwrap();
        fs::create_dir(root.join("dir/sub")).unwrap();
        fs::write(root.join("dir/sub/!new"), "2").unwrap();
        fs::remove_file(root.join("to-directory")).unwrap();
        fs::create_dir(root.join("to-directory")).unwrap();
    });
    let tar = |snapshot: &Snapshot| {
        let view = store.view(snapshot).unwrap();
        let mut tar = Vec::new();
        layer::export(&RootDir::from_fd(view.into()), &ArchiveOptions::default(), &mut tar).unwrap();
        tar
    };
    for kept in [0, 1] {
        let squashed = store.squash(&two, kept).unwrap();
        assert_eq!(squashed.layers.len(), kept + 1);
        assert_eq!(squashed.layers[..kept], two.layers[..kept]);
        assert!(tar(&squashed) == tar(&two), "the tree over {kept} layers differs");
    }
    assert_eq!(store.squash(&two, 2).unwrap(), two);
}

/// One step of a build.
type Work = fn(&Path);

/// What steps do to a tree, each on top of the one before.
const WORK: [Work; 5] = [
    |root| {
        for directory in ["dir/sub", "replaced/old", "kept"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        for file in
            ["dir/a", "dir/sub/b", "replaced/old/c", "kept/d", "gone", "twin", "becomes-dir", "script"]
        {
            fs::write(root.join(file), file).unwrap();
        }
        fs::hard_link(root.join("twin"), root.join("twin2")).unwrap();
        std::os::unix::fs::symlink("dir/a", root.join("link")).unwrap();
    },
    |root| {
        fs::write(root.join("dir/a"), "other").unwrap();
        fs::remove_file(root.join("gone")).unwrap();
        fs::set_permissions(root.join("script"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(root.join("kept"), fs::Permissions::from_mode(0o700)).unwrap();
    },
    |root| {
        fs::remove_dir_all(root.join("replaced")).unwrap();
        fs::create_dir(root.join("replaced")).unwrap();
        fs::write(root.join("replaced/new"), "").unwrap();
        fs::remove_file(root.join("becomes-dir")).unwrap();
        fs::create_dir(root.join("becomes-dir")).unwrap();
        fs::rename(root.join("dir/sub/b"), root.join("moved")).unwrap();
    },
    |root| {
        // Of no effect: looked at, and made what it is already.
        fs::read(root.join("dir/a")).unwrap();
        fs::set_permissions(root.join("script"), fs::Permissions::from_mode(0o755)).unwrap();
    },
    |root| {
        fs::remove_dir_all(root.join("dir")).unwrap();
        fs::write(root.join("dir"), "a file now").unwrap();
        fs::remove_file(root.join("link")).unwrap();
    },
];

#[test]
fn kernel_plain_trees_become_the_layers_of_mounted_ones() {
    require_overlay!();
    let test = TestStore::new();
    let stubs = test.scratch().join("stubs");
    fs::create_dir_all(stubs.join("etc")).unwrap();
    fs::write(stubs.join("etc/hosts"), "").unwrap();
    let build = |trees| {
        let options = crate::StoreOptions { trees, xattrs: OverlayXattrs::User, ..crate::testing::OPTIONS };
        let store = Store::open(&test.scratch().join(format!("{trees:?}")), &options).unwrap();
        let mut snapshot = Snapshot::empty();
        for work in WORK {
            let active = store.prepare(&snapshot).unwrap();
            let root = active.mount(Some(&stubs)).unwrap();
            work(&path_of(&root));
            drop(root);
            snapshot = active.commit().unwrap();
        }
        let clamp = MtimeClamp { mtime_max: 0, layers_kept: 0 };
        let view = store.view(&snapshot).unwrap();
        let shown = ["moved", "dir", "becomes-dir", "twin"].map(|name| path_of(&view).join(name).exists());
        (store.describe_layers(&snapshot, Some(clamp)).unwrap(), names(&path_of(&view)), shown)
    };
    let (mounted, plain) = (build(Trees::Mounted), build(Trees::Plain));
    assert_eq!(mounted.2, [true; 4]);
    assert_eq!(plain, mounted);
}

#[test]
fn plain_trees_go_with_their_handle() {
    let test = TestStore::new();
    let options =
        crate::StoreOptions { trees: Trees::Plain, xattrs: OverlayXattrs::User, ..crate::testing::OPTIONS };
    let root = test.scratch().join("plain");
    let store = Store::open(&root, &options).unwrap();
    let snapshot = commit_file(&store, &Snapshot::empty(), "a", "1");
    assert_eq!(read(&store.view(&snapshot).unwrap(), "a").as_deref(), Some("1"));
    assert_eq!(names(&root.join("active")).len(), 1);
    drop(store);
    assert!(names(&root.join("active")).is_empty());
}
