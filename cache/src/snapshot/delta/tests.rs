use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::*;
use crate::layer::reader::Time;
use crate::layer::{OverlayXattrs, make_opaque};
use crate::prune::PrunePolicy;
use crate::testing::{OPTIONS, TestStore, path_of, pool, problems, read, require_overlay};
use crate::tree::{Attributes, Content, Inode, InodeId, Kind};
use crate::{Problem, StoreOptions};

static NOT_CANCELLED: AtomicBool = AtomicBool::new(false);
/// Of all files, so that they are the same in what is compared.
const MTIME: i64 = 1_000_000_000;

fn store() -> TestStore {
    TestStore::with(&StoreOptions { layers: LayerForm::Delta, ..OPTIONS })
}

fn give_time(path: &Path) {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(MTIME.unsigned_abs());
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

/// Files by name; those with the same content are one file if `linked`.
type Files<'a> = &'a [(&'a str, &'a str)];

/// A layer with these files in `app`.
fn commit(store: &Store, files: Files<'_>, linked: bool) -> Snapshot {
    let active = store.prepare(&Snapshot::empty()).unwrap();
    let app = active.upper().join("app");
    fs::create_dir(&app).unwrap();
    for (at, (name, content)) in files.iter().enumerate() {
        match files[..at].iter().find(|(_, other)| linked && other == content) {
            Some((first, _)) => fs::hard_link(app.join(first), app.join(name)).unwrap(),
            None => fs::write(app.join(name), content).unwrap(),
        }
        fs::set_permissions(app.join(name), fs::Permissions::from_mode(0o644)).unwrap();
        give_time(&app.join(name));
    }
    active.commit().unwrap()
}

fn tree_of(files: Files<'_>, linked: bool) -> Tree {
    let attributes =
        Attributes { mode: 0o644, mtime: Time { seconds: MTIME, nanoseconds: 0 }, ..Attributes::default() };
    let mut tree = Tree::new(Attributes { mode: 0o755, ..Attributes::default() });
    let mut made: Vec<(&str, InodeId)> = Vec::new();
    for (name, content) in files {
        let known = made.iter().find(|(other, _)| linked && other == content).map(|(_, id)| *id);
        let id = known.unwrap_or_else(|| {
            let digest = Some(*blake3::hash(content.as_bytes()).as_bytes());
            let kind = Kind::File(Content { size_bytes: content.len() as u64, digest, place: None });
            tree.add(Inode { attributes: attributes.clone(), kind })
        });
        made.push((content, id));
        tree.name(InodeId::ROOT, (*name).into(), id);
    }
    tree
}

/// Compares a layer in the making, which has a directory `app`, with earlier ones.
fn compare_with(active: &ActiveSnapshot, earlier: &[Snapshot], tree: &Tree) -> Option<Delta> {
    let open = |_: &Path| panic!("all contents are known");
    let addition = Addition { path: Path::new("app"), tree, open: &open };
    active.compare(earlier, &addition, &pool(), &NOT_CANCELLED).unwrap()
}

fn prepare(store: &Store) -> ActiveSnapshot {
    let active = store.prepare(&Snapshot::empty()).unwrap();
    fs::create_dir(active.upper().join("app")).unwrap();
    active
}

/// A layer with these files in `app`, told from an earlier one.
fn commit_delta(store: &Store, earlier: &Snapshot, files: Files<'_>) -> Snapshot {
    let mut active = prepare(store);
    let delta = compare_with(&active, std::slice::from_ref(earlier), &tree_of(files, false)).unwrap();
    for (name, content) in files {
        if delta.changed().contains(Path::new(""), (*name).as_ref()) {
            fs::write(active.upper().join("app").join(name), content).unwrap();
        }
    }
    active.tell_from(delta);
    active.commit().unwrap()
}

const OLD: Files<'_> = &[("a", "one"), ("b", "two"), ("gone", "three")];
const NEW: Files<'_> = &[("a", "one"), ("b", "changed"), ("new", "four")];

#[test]
fn kernel_a_layer_that_is_told_from_another_is_whole() {
    let test = store();
    require_overlay!();
    let old = commit(&test, OLD, false);
    let new = commit_delta(&test, &old, NEW);
    let written = |name: &str| test.0.layout.layer(new.layers[0]).join("app").join(name).exists();
    assert_eq!(["a", "b", "new"].map(written), [false, true, true]);
    let view = test.view(&new).unwrap();
    let app = |name: &str| read(&view, &format!("app/{name}"));
    assert_eq!(["a", "b", "new"].map(app), ["one", "changed", "four"].map(|text| Some(text.to_owned())));
    assert_eq!(app("gone"), None);
    // What is below shows where the layer hides nothing.
    let below = crate::testing::commit_file(&test, &Snapshot::empty(), "below", "x");
    let stacked = test.stack(&[below.layers[0], new.layers[0]]).unwrap();
    let tar = |snapshot: &Snapshot, at: usize| {
        let described = test.describe_layers(snapshot, None).unwrap();
        let mut tar = Vec::new();
        test.write_layer(snapshot, described[at].diff_id, &mut tar).unwrap();
        tar
    };
    assert!(
        !String::from_utf8_lossy(&tar(&stacked, 1)).contains(".wh."),
        "it removes nothing of the layers below"
    );
    assert_eq!(read(&test.view(&stacked).unwrap(), "below").as_deref(), Some("x"));
    // Above it all is as ever.
    let above = test.prepare(&new).unwrap();
    let mount = above.mount(None).unwrap();
    fs::remove_file(path_of(&mount).join("app/a")).unwrap();
    fs::write(path_of(&mount).join("app/b"), "again").unwrap();
    drop(mount);
    let above = test.view(&above.commit().unwrap()).unwrap();
    assert_eq!((read(&above, "app/a"), read(&above, "app/b").as_deref()), (None, Some("again")));
    assert_eq!(problems(&test), []);
}

#[test]
fn what_differs_is_found() {
    let test = store();
    let same = &[("a", "one"), ("b", "two"), ("twin", "one")];
    // The earlier layer, and whether its equal files are one; the same of the tree; what is changed, and what removed.
    type Case<'a> = ((Files<'a>, bool), (Files<'a>, bool), &'a [&'a str], &'a [&'a str]);
    let cases: [Case<'_>; 6] = [
        ((OLD, false), (NEW, false), &["b", "new"], &["gone"]),
        ((same, false), (same, false), &[], &[]),
        ((same, true), (same, true), &[], &[]),
        // Names that were of one file and are of two, or the other way round, or of which one is gone.
        ((same, true), (same, false), &["a", "twin"], &[]),
        ((same, false), (same, true), &["a", "twin"], &[]),
        ((same, true), (&same[..2], true), &["a"], &["twin"]),
    ];
    for ((old, old_linked), (new, new_linked), changed, removed) in cases {
        let earlier = commit(&test, old, old_linked);
        let tree = tree_of(new, new_linked);
        let delta = compare_with(&prepare(&test), &[earlier], &tree).unwrap();
        let names = tree.entries(InodeId::ROOT).unwrap().keys();
        let found: Vec<_> = names.filter(|name| delta.changed().contains(Path::new(""), name)).collect();
        assert_eq!(found, changed, "{new:?}");
        let gone: Vec<_> = delta.removed.values().flatten().collect();
        assert_eq!(gone, removed, "{new:?}");
    }
}

#[test]
fn any_attribute_makes_a_difference() {
    let test = store();
    let earlier = [commit(&test, &[("a", "one")], false)];
    let changes: [fn(&mut Attributes); 6] = [
        |_| {},
        |it| it.mode = 0o600,
        |it| it.uid = 1,
        |it| it.gid = 1,
        |it| it.mtime.nanoseconds = 1,
        |it| drop(it.xattrs.insert(c"security.capability".to_owned(), vec![1])),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut tree = tree_of(&[("a", "one")], false);
        let id = tree.entries(InodeId::ROOT).unwrap()[std::ffi::OsStr::new("a")];
        change(&mut tree.inode_mut(id).attributes);
        let delta = compare_with(&prepare(&test), &earlier, &tree).unwrap();
        assert_eq!(delta.changed().contains(Path::new(""), "a".as_ref()), at > 0, "{at}");
    }
}

#[test]
fn what_hides_something_is_told_from_nothing_and_nothing_from_it() {
    let test = store();
    let (tree, plain) = (tree_of(OLD, false), commit(&test, OLD, false));
    let marks: [fn(&Path); 2] = [
        |app| {
            make_whiteout(fs::File::open(app).unwrap().as_fd(), "x".as_ref(), OverlayXattrs::Trusted)
                .unwrap();
        },
        |app| {
            let above = fs::File::open(app.parent().unwrap()).unwrap();
            make_opaque(above.as_fd(), "app".as_ref(), OverlayXattrs::Trusted).unwrap();
        },
    ];
    for mark in marks {
        let marked = prepare(&test);
        mark(&marked.upper().join("app"));
        assert!(compare_with(&marked, std::slice::from_ref(&plain), &tree).is_none());
        let marked = marked.commit().unwrap();
        assert!(compare_with(&prepare(&test), &[marked], &tree).is_none());
    }
}

#[test]
fn by_itself_only_what_is_little_is_told_from_another() {
    let test = TestStore::with(&StoreOptions { layers: LayerForm::Auto, ..OPTIONS });
    let names: Vec<String> = (0..20).map(|at| format!("f{at:02}")).collect();
    let files = |changed: usize| -> Vec<(&str, &str)> {
        let content = |at: usize| if at < changed { "changed" } else { "content" };
        names.iter().enumerate().map(|(at, name)| (name.as_str(), content(at))).collect()
    };
    let earlier = [commit(&test, &files(0), false)];
    for (changed, is_little) in [(0, true), (4, true), (15, false)] {
        let delta = compare_with(&prepare(&test), &earlier, &tree_of(&files(changed), false));
        assert_eq!(delta.is_some(), is_little, "{changed}");
    }
}

#[test]
fn kernel_what_others_are_told_from_goes_after_them() {
    let test = store();
    require_overlay!();
    let old = commit(&test, OLD, false);
    let new = commit_delta(&test, &old, NEW);
    let target = crate::images::tests::store_image(&test, "{}");
    test.images().put(&"app".parse().unwrap(), &target, std::slice::from_ref(&new)).unwrap();
    test.prune(&[PrunePolicy::default()]).unwrap();
    assert_eq!(test.snapshot(old.id.unwrap()).unwrap(), None);
    assert_eq!(read(&test.view(&new).unwrap(), "app/a").as_deref(), Some("one"));
    assert_eq!(problems(&test), []);
    // One that is told from another is no base, but its base is.
    let newest = commit_delta(&test, &new, OLD);
    assert_eq!(test.kept(newest.layers[0]).unwrap(), Kept::Delta { base: old.layers[0] });
    assert!(test.images().remove_target(target.digest).unwrap());
    test.prune(&[PrunePolicy::default()]).unwrap();
    assert_eq!(fs::read_dir(test.0.layout.directory("layers")).unwrap().count(), 0);
}

#[test]
fn kernel_damage_to_what_others_are_told_from_is_damage_to_all() {
    let test = store();
    require_overlay!();
    let old = commit(&test, OLD, false);
    let new = commit_delta(&test, &old, NEW);
    test.content_digest(&old, &pool()).unwrap();
    test.content_digest(&new, &pool()).unwrap();
    let path = test.0.layout.layer(old.layers[0]);
    fs::write(path.join("app/a"), "damaged").unwrap();
    let changed = [old.layers[0], new.layers[0]].map(Problem::LayerChanged);
    assert_eq!(problems(&test), changed);
    fs::rename(&path, test.root().join("aside")).unwrap();
    assert_eq!(problems(&test), [old.layers[0], new.layers[0]].map(Problem::LayerMissing));
    let (_, left) = test.repair(&pool()).unwrap();
    assert_eq!(left.problems, []);
    assert_eq!(fs::read_dir(test.0.layout.directory("layers")).unwrap().count(), 0);
}

#[test]
fn kernel_marks_leave_no_time_behind() {
    let test = store();
    require_overlay!();
    let old = commit(&test, OLD, false);
    let mut active = prepare(&test);
    let delta = compare_with(&active, &[old], &tree_of(&OLD[..2], false)).unwrap();
    give_time(&active.upper().join("app"));
    active.tell_from(delta);
    let view = test.view(&active.commit().unwrap()).unwrap();
    assert_eq!(fs::metadata(path_of(&view).join("app")).unwrap().mtime(), MTIME);
    assert_eq!(read(&view, "app/gone"), None);
}

#[test]
fn a_layer_is_whole_where_nothing_is_mounted() {
    let test = store();
    let old = commit(&test, OLD, false);
    let new = commit_delta(&test, &old, NEW);
    let options = StoreOptions { trees: Trees::Plain, ..OPTIONS };
    let plain = Store::open(test.root(), &options).unwrap();
    assert!(plain.delta_support().is_err(), "none are made there");
    let view = plain.view(&new).unwrap();
    let app = |name: &str| read(&view, &format!("app/{name}"));
    assert_eq!(["a", "b", "new"].map(app), ["one", "changed", "four"].map(|text| Some(text.to_owned())));
    assert_eq!(app("gone"), None);
    assert_eq!(problems(&plain), []);
}
