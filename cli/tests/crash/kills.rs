//! Kills at moments that nobody has chosen.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::Scene;
use super::fail_points::KILLED;
use crate::common::say;

/// How many are to hit a running rbuild. `RBUILD_TEST_KILLS` says otherwise.
const KILLS: u64 = 12;

#[test]
fn kills_at_random_moments_are_survived() {
    let Some(mut scene) = Scene::new() else { return };
    let mut took = duration_of(&mut scene);
    let mut random = Random::new();
    let (mut tried, mut hit) = (0, 0);
    while hit < kills() {
        scene.renew();
        tried += 1;
        match kill_at(&scene, random.below(took)) {
            Strike::Hit => hit += 1,
            // The machine has less to do than when it was measured.
            Strike::TooLate { took: less } => took = less,
        }
        scene.assert_recovers();
    }
    // The first that is lost ends the test.
    say(&format!("tried {tried} kills, hit {hit}, lost 0"));
}

fn duration_of(scene: &mut Scene) -> Duration {
    scene.renew();
    let start = Instant::now();
    scene.assert_builds();
    start.elapsed()
}

/// What a kill came to.
enum Strike {
    /// One died of it.
    Hit,
    /// All had ended, after so long.
    TooLate { took: Duration },
}

/// Runs the commands, and kills the one that runs at a moment.
fn kill_at(scene: &Scene, moment: Duration) -> Strike {
    let start = Instant::now();
    for command in scene.commands() {
        let left = moment.saturating_sub(start.elapsed());
        let mut running = command.start();
        if !running.ends_within(left) {
            running.signal(Signal::SIGKILL);
        }
        if running.finish().code == KILLED {
            return Strike::Hit;
        }
    }
    Strike::TooLate { took: start.elapsed() }
}

#[expect(clippy::disallowed_methods, reason = "the switch of scripts/crash.sh")]
fn kills() -> u64 {
    std::env::var("RBUILD_TEST_KILLS").ok().and_then(|count| count.parse().ok()).unwrap_or(KILLS)
}

/// Numbers without an order (`SplitMix64`), seeded by the process: kills come at other moments in each run.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new() -> Self {
        let seed = u64::from(std::process::id());
        say(&format!("seed {seed}"));
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, duration: Duration) -> Duration {
        let micros = u64::try_from(duration.as_micros()).unwrap().max(1);
        Duration::from_micros(self.next() % micros)
    }
}
