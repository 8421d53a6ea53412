use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::*;
use crate::prune::{PrunePolicy, PruneReport};
use crate::root_dir::RootDir;
use crate::testing::{OPTIONS, pool, problems, read, require_overlay};
use crate::tree::{Attributes, Content, Inode, InodeId, Kind, Tree};
use crate::{LayerForm, Snapshot, StoreOptions};

#[test]
fn what_lies_between_is_not_needed() {
    let all = |needed: &[(u64, u64)], end| gaps(needed, end).collect::<Vec<_>>();
    assert_eq!(all(&[], 10), [(0, 10)]);
    assert_eq!(all(&[(0, 10)], 10), []);
    assert_eq!(all(&[(0, 2), (2, 3), (5, 7)], 10), [(3, 2), (7, 3)]);
    assert_eq!(all(&[(4, 10)], 10), [(0, 4)]);
}

#[test]
fn half_of_a_pack_is_worth_keeping_it_whole() {
    assert!(is_mostly_unneeded(&[], 10));
    assert!(is_mostly_unneeded(&[(0, 2), (5, 7)], 10));
    assert!(!is_mostly_unneeded(&[(0, 2), (5, 8)], 10));
}

/// How large each content is.
const CONTENT_BYTES: usize = 128 * 1024;

/// A store on a disk, with an image that needs one of the four contents of its only pack.
struct Trimmable {
    directory: tempfile::TempDir,
    store: Store,
    kept: Snapshot,
}

/// What the row of a pack says.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    reusable: bool,
    is_to_cut: bool,
    disk_size_bytes: u64,
}

impl Trimmable {
    /// `None` where layers cannot be trees.
    fn new() -> Option<Self> {
        // In memory, images cannot be mounted.
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let store = open(&directory.path().join("store"));
        if let Err(reason) = store.tree_support() {
            // In a user namespace there are none, whatever the kernel.
            assert!(!rustix::process::geteuid().is_root() || in_user_namespace(), "{reason}");
            eprintln!("SKIPPED: {reason}");
            return None;
        }
        let contents: Vec<String> =
            (0..4).map(|number| format!("{number:08}").repeat(CONTENT_BYTES / 8)).collect();
        let names = ["f0", "f1", "f2", "f3"];
        let all: Vec<(&str, &str)> = names.into_iter().zip(contents.iter().map(String::as_str)).collect();
        let mut test = Self { directory, store, kept: Snapshot::empty() };
        test.commit(&all);
        test.kept = test.commit(&all[1..2]);
        let target = crate::images::tests::store_image(&test.store, "{}");
        test.store.images().put(&"app".parse().unwrap(), &target, std::slice::from_ref(&test.kept)).unwrap();
        Some(test)
    }

    /// Commits a layer of these files.
    fn commit(&self, files: &[(&str, &str)]) -> Snapshot {
        let source = self.directory.path().join("source");
        fs::create_dir_all(&source).unwrap();
        let mut tree = Tree::new(Attributes::default());
        for (name, content) in files {
            fs::write(source.join(name), content).unwrap();
            let digest = Some(*blake3::hash(content.as_bytes()).as_bytes());
            let kind = Kind::File(Content { size_bytes: content.len() as u64, digest, place: None });
            let id =
                tree.add(Inode { attributes: Attributes { mode: 0o644, ..Attributes::default() }, kind });
            tree.name(InodeId::ROOT, OsString::from(name), id);
        }
        let mut active = self.store.prepare(&Snapshot::empty()).unwrap();
        fs::create_dir(active.upper().join("app")).unwrap();
        let source = RootDir::open(&source).unwrap();
        active.graft(Path::new("app"), tree, &pool(), &|directory| source.open_dir(directory)).unwrap();
        active.commit().unwrap()
    }

    /// What another process would do.
    fn prune(&self) -> PruneReport {
        open(self.store.root()).prune(&[PrunePolicy::default()]).unwrap()
    }

    fn pack(&self) -> PathBuf {
        fs::read_dir(self.store.0.layout.packs()).unwrap().next().unwrap().unwrap().path()
    }

    fn taken_bytes(&self) -> u64 {
        fs::metadata(self.pack()).unwrap().blocks() * 512
    }

    fn row(&self) -> Row {
        let sql = "SELECT reusable, to_cut IS NOT NULL, disk_size_bytes FROM pack";
        let read = |row: &rusqlite::Row<'_>| {
            let disk_size_bytes = row.get::<_, i64>(2)?.cast_unsigned();
            Ok(Row { reusable: row.get(0)?, is_to_cut: row.get(1)?, disk_size_bytes })
        };
        self.store.0.db.read("read", |db| Ok(db.query_row(sql, (), read)?)).unwrap()
    }

    fn set(&self, assignments: &str) {
        let sql = format!("UPDATE pack SET {assignments}");
        self.store.0.db.write("set", |db| Ok(db.execute(&sql, ()).map(drop)?)).unwrap();
    }

    /// Fails unless all was cut that nobody needs, and nothing else, and the row says so.
    #[track_caller]
    fn assert_cut(&self) {
        let taken = self.taken_bytes();
        assert!(taken < 2 * CONTENT_BYTES as u64, "{taken}");
        assert_eq!(self.row(), Row { reusable: false, is_to_cut: false, disk_size_bytes: taken });
        let content = read(&open(self.store.root()).view(&self.kept).unwrap(), "app/f1").unwrap();
        assert_eq!(content, "00000001".repeat(CONTENT_BYTES / 8));
        assert_eq!(problems(&self.store), []);
    }
}

fn in_user_namespace() -> bool {
    fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !map.contains("4294967295"))
}

fn open(root: &Path) -> Store {
    Store::open(root, &StoreOptions { layers: LayerForm::Tree, ..OPTIONS }).unwrap()
}

#[test]
fn kernel_a_pack_is_cut_when_all_have_ended_who_lived_when_it_was_retired() {
    require_overlay!();
    let Some(test) = Trimmable::new() else { return };
    let before = test.taken_bytes();
    let (other, third) = (open(test.store.root()), open(test.store.root()));
    let lease = other.lease().unwrap();
    for _ in 0..2 {
        assert_eq!(test.prune().trimmed_bytes, 0);
        assert_eq!(test.row(), Row { reusable: false, is_to_cut: true, disk_size_bytes: before });
    }
    let _later = third.lease().unwrap();
    assert_eq!(test.prune().trimmed_bytes, 0);
    assert_eq!(test.taken_bytes(), before);
    drop(lease);
    assert!(test.prune().trimmed_bytes >= 2 * CONTENT_BYTES as u64);
    test.assert_cut();
}

#[test]
fn kernel_what_a_killed_prune_has_left_is_cut_and_counted() {
    require_overlay!();
    let Some(test) = Trimmable::new() else { return };
    let before = test.taken_bytes();
    test.set("reusable = 0, to_cut = 1");
    assert_eq!(test.prune().trimmed_bytes, before - test.taken_bytes());
    test.assert_cut();
    // The other one was killed after it had cut.
    test.set(&format!("to_cut = 1, disk_size_bytes = {before}"));
    assert_eq!(test.prune().trimmed_bytes, before - test.taken_bytes());
    test.assert_cut();
}

#[test]
fn kernel_a_pack_that_may_be_damaged_is_left_as_it_is() {
    require_overlay!();
    let Some(test) = Trimmable::new() else { return };
    let before = test.taken_bytes();
    test.set("reusable = 0");
    assert_eq!((test.prune().trimmed_bytes, test.taken_bytes()), (0, before));
    test.set("to_cut = 1");
    test.store.forget_layer(test.kept.layers[0]).unwrap();
    assert_eq!(test.row(), Row { reusable: false, is_to_cut: false, disk_size_bytes: before });
}
