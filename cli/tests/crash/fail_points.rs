//! A failure at each place that the store lists.

use rbuild_cache::fail_point::FailPoint;

use super::Scene;
use crate::common::Outcome;

/// Killed by SIGKILL.
pub(super) const KILLED: i32 = 137;

/// Which passes of a fail point are tried. `RBUILD_TEST_ALL_KILLS=1` tries all.
const PASSES: [u32; 2] = [1, 3];

#[expect(clippy::disallowed_methods, reason = "the switch of scripts/crash.sh")]
fn passes() -> Vec<u32> {
    let all = std::env::var_os("RBUILD_TEST_ALL_KILLS").is_some();
    if all { (1..10_000).collect() } else { PASSES.to_vec() }
}

#[test]
fn a_kill_at_every_fail_point_is_survived() {
    let Some(mut scene) = Scene::new() else { return };
    for point in FailPoint::ALL {
        for pass in passes() {
            scene.renew();
            let outcomes = scene.fail(&format!("{point}:{pass}=kill"));
            let killed = outcomes.iter().any(|outcome| outcome.code == KILLED);
            assert!(killed || pass > 1, "{point} is never reached");
            scene.assert_recovers();
            if !killed {
                break;
            }
        }
    }
}

/// What the system refuses with, and the kernel's and SQLite's words for it.
const REFUSALS: [(&str, [&str; 2]); 2] = [
    ("enospc", ["No space left on device", "database or disk is full"]),
    ("eio", ["Input/output error", "disk I/O error"]),
];

#[test]
fn a_refusal_at_every_fail_point_is_survived() {
    let Some(mut scene) = Scene::new() else { return };
    for point in FailPoint::ALL {
        for (errno, texts) in REFUSALS {
            scene.renew();
            for outcome in scene.fail(&format!("{point}={errno}")) {
                assert_named(&outcome, &texts);
            }
            scene.assert_recovers();
        }
    }
}

/// Either it did not matter, or it is told as what it was.
#[track_caller]
fn assert_named(outcome: &Outcome, texts: &[&str]) {
    match outcome.code {
        0 => {}
        // The base image is not there, because of a failure before.
        4 => {}
        1 | 3 => {
            assert!(texts.iter().any(|text| outcome.stderr.contains(text)), "{}", outcome.stderr);
        }
        code => panic!("exit code {code}: {}", outcome.stderr),
    }
}
