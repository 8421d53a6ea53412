use std::thread;

use nix::sys::signal::{Signal, kill};

use super::{clean_up, detached, printed, processes, rbuild, state, wait_gone};
use crate::common::TestEnvironment;

#[test]
fn a_killed_monitor_is_noticed() {
    let Some(test) = TestEnvironment::with_base() else { return };
    detached(&test, "lost", &["sleep", "1000"]);
    let (first, monitor) = processes(&test, "lost");
    let waiting = test.rbuild(&["wait", "lost"]).start();
    let attached = test.rbuild(&["attach", "--no-stdin", "lost"]).start();
    kill(monitor, Signal::SIGKILL).unwrap();
    wait_gone(first);
    attached.finish();
    waiting.finish();
    wait_gone(monitor);
    assert_eq!(
        (state(&test, "lost", "Status"), state(&test, "lost", "ExitCode")),
        ("exited".into(), "137".into())
    );
    assert_eq!(state(&test, "lost", "Error"), "the monitor was lost");
    rbuild(&test, &["exec", "lost", "true"]).exits(1).says(&["is not running"]);
    printed(&test, &["start", "lost"]);
    assert_eq!(state(&test, "lost", "Status"), "running");
    clean_up(&test, &["lost"]);
}

#[test]
fn a_killed_first_process_is_the_end() {
    let Some(test) = TestEnvironment::with_base() else { return };
    detached(&test, "victim", &["sleep", "1000"]);
    let exec = test.rbuild(&["exec", "victim", "sleep", "1000"]).start();
    kill(processes(&test, "victim").0, Signal::SIGKILL).unwrap();
    assert_eq!(printed(&test, &["wait", "victim"]), "137\n");
    assert_ne!(exec.finish().code, 0);
    clean_up(&test, &["victim"]);
}

#[test]
fn a_killed_client_of_exec_leaves_the_container_alone() {
    let Some(test) = TestEnvironment::with_base() else { return };
    detached(&test, "host", &["sleep", "1000"]);
    let mut exec = test.rbuild(&["exec", "host", "sh", "-c", "echo ready >&2; sleep 1000"]).start();
    exec.wait_for("ready");
    exec.signal(Signal::SIGKILL);
    exec.finish();
    printed(&test, &["exec", "host", "true"]);
    clean_up(&test, &["host"]);
}

#[test]
fn races_end_in_a_legal_state() {
    let Some(test) = TestEnvironment::with_base() else { return };
    for _ in 0..5 {
        printed(&test, &["create", "--name", "race", "--network", "none", "busybox", "sleep", "1000"]);
        thread::scope(|scope| {
            scope.spawn(|| rbuild(&test, &["start", "race"]));
            scope.spawn(|| rbuild(&test, &["start", "race"]));
            scope.spawn(|| rbuild(&test, &["rm", "race"]));
            scope.spawn(|| rbuild(&test, &["rm", "-f", "race"]));
        });
        clean_up(&test, &["race"]);
        detached(&test, "race", &["sleep", "1000"]);
        thread::scope(|scope| {
            scope.spawn(|| rbuild(&test, &["stop", "-t", "0", "race"]));
            scope.spawn(|| rbuild(&test, &["kill", "race"]));
            scope.spawn(|| rbuild(&test, &["commit", "race"]));
        });
        assert_eq!(state(&test, "race", "Status"), "exited");
        clean_up(&test, &["race"]);
    }
    test.assert_sound();
}
