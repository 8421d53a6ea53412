use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::*;
use crate::Snapshot;
use crate::prune::{PrunePolicy, PruneReport};
use crate::testing::{problems, read, require_overlay};
use crate::tree::tests::DiskStore;

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

/// A store with an image that needs one of the four contents of its only pack.
struct Trimmable {
    disk: DiskStore,
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
        let disk = DiskStore::new();
        if !disk.has_trees() {
            return None;
        }
        let contents: Vec<String> =
            (0..4).map(|number| format!("{number:08}").repeat(CONTENT_BYTES / 8)).collect();
        let names = ["f0", "f1", "f2", "f3"];
        let all: Vec<(&str, &str)> = names.into_iter().zip(contents.iter().map(String::as_str)).collect();
        disk.commit(&Snapshot::empty(), &all, |_| {});
        let kept = disk.commit(&Snapshot::empty(), &all[1..2], |_| {});
        let target = crate::images::tests::store_image(&disk.store, "{}");
        disk.store.images().put(&"app".parse().unwrap(), &target, std::slice::from_ref(&kept)).unwrap();
        Some(Self { disk, kept })
    }

    /// What another process would do.
    fn prune(&self) -> PruneReport {
        self.disk.again().prune(&[PrunePolicy::default()]).unwrap()
    }

    fn pack(&self) -> PathBuf {
        self.disk.packs().remove(0)
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
        self.disk.store.0.db.read("read", |db| Ok(db.query_row(sql, (), read)?)).unwrap()
    }

    fn set(&self, assignments: &str) {
        let sql = format!("UPDATE pack SET {assignments}");
        self.disk.store.0.db.write("set", |db| Ok(db.execute(&sql, ()).map(drop)?)).unwrap();
    }

    /// Fails unless all was cut that nobody needs, and nothing else, and the row says so.
    #[track_caller]
    fn assert_cut(&self) {
        let taken = self.taken_bytes();
        assert!(taken < 2 * CONTENT_BYTES as u64, "{taken}");
        assert_eq!(self.row(), Row { reusable: false, is_to_cut: false, disk_size_bytes: taken });
        let content = read(&self.disk.again().view(&self.kept).unwrap(), "app/f1").unwrap();
        assert_eq!(content, "00000001".repeat(CONTENT_BYTES / 8));
        assert_eq!(problems(&self.disk.store), []);
    }
}

#[test]
fn kernel_a_pack_is_cut_when_all_have_ended_who_lived_when_it_was_retired() {
    require_overlay!();
    let Some(test) = Trimmable::new() else { return };
    let before = test.taken_bytes();
    let (other, third) = (test.disk.again(), test.disk.again());
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
    test.disk.store.forget_layer(test.kept.layers[0]).unwrap();
    assert_eq!(test.row(), Row { reusable: false, is_to_cut: false, disk_size_bytes: before });
}
