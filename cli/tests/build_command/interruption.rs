//! A build that is stopped, or dies: its processes go with it, its mounts were never anyone else's, and what it left is
//! cleaned up by the next.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::common::{Running, TestEnvironment};

/// How long processes may take to appear or to disappear before the test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_build_can_be_interrupted() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        stop(signal, 130);
    }
}

#[test]
fn a_build_can_be_killed() {
    stop(Signal::SIGKILL, 137);
}

/// Stops a build in the middle of a step, and builds again.
fn stop(signal: Signal, code: i32) {
    let Some(test) = TestEnvironment::with_base() else { return };
    // An argument that no other process has.
    let seconds = format!("{}", 1_000_000 + u64::from(std::process::id()) * 100 + signal as u64);
    let dockerfile = |last: &str| format!("FROM busybox\nRUN echo kept >/kept\nRUN {last}\n");
    let context = test.dockerfile(&dockerfile(&format!("printf 'star%s\\n' ted; sleep {seconds}")));
    let mut build = test.build_command(&context, &["-t", "app"]).start();
    build.wait_for("started");
    wait_until(&seconds, true);
    assert_no_mounts(&test, &build);
    build.signal(signal);
    build.finish().exits(code);
    wait_until(&seconds, false);
    assert!(!test.has("app"));
    test.assert_sound();

    context.dockerfile(&dockerfile("echo done >/done"));
    let outcome = test.build(&context, &["-t", "app"]).succeeds();
    assert_eq!(outcome.ran(), ["RUN echo done >/done"]);
    assert_eq!(test.run("app", "cat /kept /done"), "kept\ndone\n");
    assert_eq!(test.store_entries("active"), 0);
    test.assert_sound();
}

/// Neither here nor in rbuild's own mount namespace.
#[track_caller]
fn assert_no_mounts(test: &TestEnvironment, build: &Running) {
    let store = test.store().to_str().unwrap();
    for process in ["self".to_owned(), build.pid().to_string()] {
        let mounts = fs::read_to_string(format!("/proc/{process}/mountinfo")).unwrap();
        assert!(!mounts.contains(store), "{mounts}");
    }
}

/// Processes with this argument.
fn processes_with(argument: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let lines = processes.filter_map(|path| fs::read_to_string(path.join("cmdline")).ok());
    lines.filter(|line| line.split('\0').any(|word| word == argument)).collect()
}

#[track_caller]
fn wait_until(argument: &str, there: bool) {
    let start = Instant::now();
    while processes_with(argument).is_empty() == there {
        assert!(start.elapsed() < PATIENCE, "{:?}", processes_with(argument));
        std::thread::sleep(Duration::from_millis(10));
    }
}
