//! The commands on containers, from the outside: what Docker's do, on containers that outlive the command that started them.

mod errors;
mod files;
mod flags;
mod lifecycle;
mod logs;
mod lost;
mod networks;
mod options;
mod soak;
mod terminals;
mod volumes;
mod walk;

use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::common::{Outcome, TestEnvironment};

/// Waits for ever, and hears nothing but SIGKILL.
const DEAF: &[&str] = &["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1000; done"];

/// `rbuild ARGUMENTS`, run to its end.
fn rbuild(test: &TestEnvironment, arguments: &[&str]) -> Outcome {
    test.rbuild(arguments).outcome()
}

/// What a command prints that succeeds.
#[track_caller]
fn printed(test: &TestEnvironment, arguments: &[&str]) -> String {
    rbuild(test, arguments).succeeds().stdout
}

/// Starts a container in the background.
#[track_caller]
fn detached(test: &TestEnvironment, name: &str, arguments: &[&str]) -> Container {
    let line = [&["run", "-d", "--network", "none", "--name", name, "busybox"], arguments].concat();
    let id = printed(test, &line).trim().to_owned();
    assert_eq!(id.len(), 64, "{id}");
    Container { id }
}

/// A container that a test has started.
struct Container {
    id: String,
}

/// One field of a container's state.
#[track_caller]
fn state(test: &TestEnvironment, name: &str, field: &str) -> String {
    printed(test, &["inspect", "-f", &format!("{{{{.State.{field}}}}}"), name]).trim().to_owned()
}

/// The processes of a container that runs: its first one, and its monitor.
fn processes(test: &TestEnvironment, name: &str) -> (Pid, Pid) {
    let first: i32 = state(test, name, "Pid").parse().unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{first}/stat")).unwrap();
    let monitor = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap();
    (Pid::from_raw(first), Pid::from_raw(monitor.parse().unwrap()))
}

/// Waits until a process is gone.
fn wait_gone(process: Pid) {
    while kill(process, None).is_ok() {
        std::thread::yield_now();
    }
}

/// Removes a container by force; nothing is left of any.
#[track_caller]
fn clean_up(test: &TestEnvironment, names: &[&str]) {
    rbuild(test, &[&["rm", "-f"], names].concat()).succeeds();
    assert_eq!(printed(test, &["ps", "-a", "-q"]), "");
    assert_eq!(test.store_entries("containers"), 0);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(test.store().to_str().unwrap()), "{mounts}");
}
