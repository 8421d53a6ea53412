//! Disks that are full at moments that nobody has chosen.

use super::Scene;
use super::kills::Random;
use crate::common::{SmallDisk, is_root};

const ROUNDS: usize = 8;
/// Less than a store needs before it holds anything.
const SIZE_MIN_KB: u64 = 64;
/// Enough for the store, its base image and what is built.
const SIZE_MAX_KB: u64 = 9 << 10;

#[test]
fn disks_of_any_size_are_survived() {
    if !is_root("a disk of a test's own") {
        return;
    }
    let Some(mut scene) = Scene::new() else { return };
    let mut random = Random::new();
    for _ in 0..ROUNDS {
        scene.renew();
        let size = SIZE_MIN_KB + random.next() % (SIZE_MAX_KB - SIZE_MIN_KB);
        let disk = SmallDisk::new(scene.test.store().to_owned(), &format!("{size}k"));
        for command in scene.commands() {
            let outcome = command.outcome();
            assert!([0, 1, 3, 4].contains(&outcome.code), "{size}k: {} {}", outcome.code, outcome.stderr);
        }
        disk.grow("64m");
        scene.assert_recovers();
    }
}
