use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use super::{clean_up, detached, printed, processes, rbuild, state, wait_gone};
use crate::common::{Outcome, TestEnvironment};

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
fn a_frozen_container_goes_with_its_monitor() {
    let Some(test) = TestEnvironment::with_base() else { return };
    for then in [&["rm", "ice"][..], &["start", "ice"]] {
        detached(&test, "ice", &["sleep", "1000"]);
        let (first, monitor) = processes(&test, "ice");
        printed(&test, &["pause", "ice"]);
        kill(monitor, Signal::SIGKILL).unwrap();
        wait_gone(monitor);
        printed(&test, then);
        wait_gone(first);
        clean_up(&test, &["ice"]);
    }
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
fn a_killed_client_of_run_leaves_the_container_running() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let line = ["run", "--rm", "--network", "none", "--name", "left", "busybox", "sh", "-c"];
    let mut run = test.rbuild(&[&line[..], &["echo ready >&2; exec sleep 1000"]].concat()).start();
    run.wait_for("ready");
    run.signal(Signal::SIGKILL);
    run.finish();
    assert_eq!(state(&test, "left", "Status"), "running");
    printed(&test, &["exec", "left", "true"]);
    // It goes when it ends, though nobody waits for that.
    printed(&test, &["stop", "-t", "0", "left"]);
    assert!(!test.has("left"));
    clean_up(&test, &["left"]);
}

#[test]
fn a_client_that_is_killed_at_any_moment_leaves_a_legal_state() {
    let Some(test) = TestEnvironment::with_base() else { return };
    for moment in 0..20 {
        let line = [
            "run",
            "-d",
            "--network",
            "none",
            "-v",
            "/scratch",
            "--name",
            "early",
            "busybox",
            "sleep",
            "1000",
        ];
        let mut client = test.rbuild(&line).start();
        if !client.ends_within(Duration::from_millis(3 * moment)) {
            client.signal(Signal::SIGKILL);
        }
        client.finish();
        if test.has("early") {
            let status = state(&test, "early", "Status");
            assert!(["created", "running"].contains(&status.as_str()), "{status}");
            // It may be on its way: who is asked to start it says so.
            assert!(is_clear(&rbuild(&test, &["start", "early"])));
            printed(&test, &["rm", "-f", "-v", "early"]);
        }
        assert_eq!(printed(&test, &["ps", "-aq"]), "");
    }
    // A directory, or a volume, that no container came to have.
    printed(&test, &["system", "prune", "--volumes", "-f"]);
    clean_up(&test, &["early"]);
    test.assert_sound();
}

#[test]
fn a_container_outlives_its_image() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile("FROM busybox\nRUN echo one >/one\nENV A=1\n");
    test.build(&context, &["-t", "gone"]).succeeds();
    printed(&test, &["create", "--name", "stays", "--network", "none", "gone", "sh", "-c", "echo two >/two"]);
    printed(&test, &["rmi", "-f", "gone"]);
    printed(&test, &["system", "prune", "--all", "-f", "--filter", "label=none"]);
    rbuild(&test, &["start", "-a", "stays"]).succeeds();
    printed(&test, &["commit", "stays", "again"]);
    let script = ["sh", "-c", "cat /one /two; echo $A"];
    let line = [&["run", "--rm", "--network", "none", "again"], &script[..]].concat();
    assert_eq!(printed(&test, &line), "one\ntwo\n1\n");
    assert!(printed(&test, &["history", "again"]).contains("echo two"));
    clean_up(&test, &["stays"]);
    test.assert_sound();
}

/// What each of two commands that race may say: nothing, or why the other one was faster.
fn is_clear(outcome: &Outcome) -> bool {
    const WORDS: [&str; 5] = [
        "No such container",
        "is not running",
        "is already running",
        "cannot remove container",
        "is marked for removal",
    ];
    outcome.code == 0 || (outcome.code < 3 && WORDS.iter().any(|words| outcome.stderr.contains(words)))
}

#[test]
fn races_end_in_a_legal_state() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let race = |lines: &[&[&str]]| {
        thread::scope(|scope| {
            let started: Vec<_> = lines.iter().map(|line| scope.spawn(|| rbuild(&test, line))).collect();
            for outcome in started.into_iter().map(|thread| thread.join().unwrap()) {
                assert!(is_clear(&outcome), "{outcome:?}");
            }
        });
    };
    for _ in 0..8 {
        printed(&test, &["create", "--name", "race", "--network", "none", "busybox", "sleep", "1000"]);
        race(&[&["start", "race"], &["start", "race"], &["rm", "race"], &["rm", "-f", "race"]]);
        clean_up(&test, &["race"]);
        detached(&test, "race", &["sleep", "1000"]);
        race(&[&["stop", "-t", "0", "race"], &["kill", "race"], &["commit", "race"]]);
        assert_eq!(state(&test, "race", "Status"), "exited");
        race(&[&["commit", "race"], &["rm", "race"], &["start", "race"]]);
        clean_up(&test, &["race"]);
    }
    test.assert_sound();
}
