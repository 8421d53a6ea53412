//! `rbuild run`, `ps` and `rm`, from the outside.

mod terminal;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::{Outcome, Rbuild, Running, TestEnvironment, tar_of};

/// `rbuild run --rm ARGUMENTS`.
fn run_rm(test: &TestEnvironment, arguments: &[&str]) -> Rbuild {
    test.rbuild(&["run", "--rm"]).args(arguments)
}

/// What a container prints that ends well.
#[track_caller]
fn printed(test: &TestEnvironment, arguments: &[&str]) -> String {
    run_rm(test, arguments).outcome().succeeds().stdout
}

/// Waits, and hears signals.
const LOOP: &str = "while :; do sleep 0.01; done";

/// Starts a container and waits until its script has said `ready` on standard error.
fn ready(test: &TestEnvironment, arguments: &[&str], [first, then]: [&str; 2]) -> Running {
    let script = format!("{first}; echo ready >&2; {then}");
    let mut running = test.rbuild(&["run"]).args(arguments).args(&["busybox", "sh", "-c", &script]).start();
    running.wait_for("ready");
    running
}

fn listed(test: &TestEnvironment, arguments: &[&str]) -> String {
    test.rbuild(&["ps"]).args(arguments).outcome().succeeds().stdout
}

/// Nothing is left of any container.
#[track_caller]
fn assert_no_containers(test: &TestEnvironment) {
    assert_eq!(listed(test, &["-a", "-q"]), "");
    assert_eq!(test.store_entries("containers"), 0);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(test.store().to_str().unwrap()), "{mounts}");
}

fn host_pid(test: &TestEnvironment, container: &str) -> Pid {
    let pid = test.inspect(container)["State"]["Pid"].as_i64().unwrap();
    Pid::from_raw(pid.try_into().unwrap())
}

#[test]
fn the_exit_code_is_the_process_s() {
    let Some(test) = TestEnvironment::with_base() else { return };
    for code in [0, 1, 9, 125, 255] {
        run_rm(&test, &["busybox", "sh", "-c", &format!("exit {code}")]).outcome().exits(code);
    }
    assert_no_containers(&test);
}

#[test]
fn a_signal_that_ends_the_process_is_128_and_its_number() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let running = ready(&test, &["--name", "victim"], [":", "sleep 1000"]);
    kill(host_pid(&test, "victim"), Signal::SIGKILL).unwrap();
    running.finish().exits(137);
    assert_eq!(test.inspect("victim")["State"]["ExitCode"], 137);
}

#[test]
fn what_cannot_be_run_has_docker_s_codes() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let tar = test.write("empty.tar", tar_of(&[("a", "")]));
    test.rbuild(&["import", tar.to_str().unwrap(), "empty"]).outcome().succeeds();
    let cases: [(&[&str], i32, &str); 9] = [
        (&["busybox", "nosuch"], 127, "`nosuch`: executable file not found in $PATH"),
        (&["busybox", "/bin/nosuch"], 127, "`/bin/nosuch`"),
        (&["busybox", "/etc/passwd"], 126, "`/etc/passwd`: Permission denied"),
        (&["-u", "nosuch", "busybox", "true"], 125, "unable to find user nosuch"),
        (&["-w", "here", "busybox", "true"], 125, "`here` is not absolute"),
        (&["--pull", "never", "nosuch", "true"], 125, "`nosuch:latest` is not in the store"),
        (&["-it", "busybox", "true"], 1, "the input device is not a TTY"),
        (&["--nosuch", "busybox", "true"], 125, "unexpected argument '--nosuch'"),
        (&["empty"], 125, "no command specified"),
    ];
    for (arguments, code, message) in cases {
        run_rm(&test, arguments).outcome().exits(code).says(&[message]);
    }
    assert_no_containers(&test);
}

#[test]
fn output_and_errors_are_kept_apart() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let outcome = run_rm(&test, &["busybox", "sh", "-c", "echo out; echo err >&2"]).outcome().succeeds();
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
}

#[test]
fn input_goes_in_only_when_asked_for() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let cat = |arguments: &[&str], input: &[u8]| -> Outcome {
        run_rm(&test, arguments).args(&["busybox", "cat"]).stdin(input).outcome().succeeds()
    };
    assert_eq!(cat(&[], b"unseen").stdout, "");
    assert_eq!(cat(&["-i"], b"").stdout, "");
    // More than a pipe holds, and every byte.
    let input: Vec<u8> = (0..5_000_000_u32).map(|number| (number % 251) as u8).collect();
    assert!(cat(&["-i"], &input).stdout_bytes == input);
    // A process that does not read it does not wait for its end.
    run_rm(&test, &["-i", "busybox", "true"]).stdin(input).outcome().succeeds();
}

#[test]
fn users_may_open_the_standard_devices() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let script = "cat /dev/stdin >/dev/stdout; echo err >/dev/stderr";
    let arguments = ["-i", "-u", "nobody", "busybox", "sh", "-c", script];
    let outcome = run_rm(&test, &arguments).stdin(*b"in\n").outcome().succeeds();
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("in\n", "err\n"));
}

#[test]
fn a_reader_that_goes_away_ends_the_process() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let mut rbuild =
        run_rm(&test, &["busybox", "yes"]).start_on(Stdio::null(), Stdio::piped(), Stdio::null());
    let mut line = String::new();
    BufReader::new(rbuild.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "y\n");
    assert!(!rbuild.wait().unwrap().success());
    assert_no_containers(&test);
}

#[test]
fn the_environment_is_the_image_s_and_the_user_s() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let given = ["-h", "box", "-e", "GIVEN=a b=c", "-e", "TAKEN", "-e", "UNSET", "-e", "EMPTY="];
    let arguments = [&given[..], &["busybox", "env"]].concat();
    let outcome = run_rm(&test, &arguments).env("TAKEN", "from outside").env("OTHER", "x").outcome();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n";
    let rest = "GIVEN=a b=c\nTAKEN=from outside\nEMPTY=\nHOSTNAME=box\nHOME=/root\n";
    assert_eq!(outcome.succeeds().stdout, format!("{path}{rest}"));
}

#[test]
fn options_of_run_are_seen_inside() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let cases: [(&[&str], &str); 10] = [
        (&["-w", "/made/for/it", "busybox", "pwd"], "/made/for/it\n"),
        (&["-u", "nobody", "busybox", "sh", "-c", "id -u; id -g; echo $HOME"], "65534\n65534\n/\n"),
        (&["-u", "1234", "busybox", "sh", "-c", "id -u; id -g; echo $HOME"], "1234\n0\n/\n"),
        (&["-u", "12:34", "busybox", "sh", "-c", "id -u; id -g"], "12\n34\n"),
        (&["--entrypoint", "echo", "busybox", "-e", "a"], "a\n"),
        (&["--entrypoint", "", "busybox", "echo", "a"], "a\n"),
        (&["--hostname", "box", "busybox", "hostname"], "box\n"),
        (&["--add-host", "db:10.1.2.3", "busybox", "grep", "-w", "db", "/etc/hosts"], "10.1.2.3\tdb\n"),
        (&["--network", "none", "busybox", "ls", "/sys/class/net"], "lo\n"),
        (&["--read-only", "busybox", "sh", "-c", "touch /tmp/x 2>/dev/null; echo $?"], "1\n"),
    ];
    for (arguments, expected) in cases {
        assert_eq!(printed(&test, arguments), expected, "{arguments:?}");
    }
    let network = fs::read_link("/proc/self/ns/net").unwrap();
    let inside = |network: &str| {
        printed(&test, &["--network", network, "busybox", "readlink", "/proc/self/ns/net"]).trim().to_owned()
    };
    assert_eq!(inside("host"), network.to_str().unwrap());
    assert_ne!(inside("none"), network.to_str().unwrap());
    assert_no_containers(&test);
}

#[test]
fn the_image_says_what_is_run() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile(
        "FROM busybox\nENV A=image B=image\nWORKDIR /srv/app\nUSER nobody\n\
         ENTRYPOINT [\"sh\", \"-c\", \"echo $A $B $(pwd) $(id -u) $0\"]\nCMD [\"two words\"]\n",
    );
    test.build(&context, &["-t", "app"]).succeeds();
    assert_eq!(printed(&test, &["app"]), "image image /srv/app 65534 two words\n");
    assert_eq!(printed(&test, &["app", "mine"]), "image image /srv/app 65534 mine\n");
    let changed = printed(&test, &["-e", "B=mine", "-w", "/tmp", "-u", "0", "app", "x"]);
    assert_eq!(changed, "image mine /tmp 0 x\n");
    assert_eq!(printed(&test, &["--entrypoint", "pwd", "app"]), "/srv/app\n");
}

#[test]
fn sigterm_reaches_the_process() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let trap = "trap 'echo told; exit 5' TERM";
    let running = ready(&test, &["--rm"], [trap, LOOP]);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.finish().exits(5).stdout, "told\n");
    assert_no_containers(&test);
}

#[test]
fn a_container_is_kept_until_it_is_removed() {
    let Some(test) = TestEnvironment::with_base() else { return };
    test.rbuild(&["run", "--name", "kept", "busybox", "sh", "-c", "echo hi >/x; exit 3"]).outcome().exits(3);
    assert_eq!(listed(&test, &["-q"]), "");
    let all = listed(&test, &["-a"]);
    let header: Vec<&str> = all.lines().next().unwrap().split("   ").map(str::trim).collect();
    let columns = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];
    assert_eq!(header.into_iter().filter(|cell| !cell.is_empty()).collect::<Vec<_>>(), columns);
    assert!(all.contains("Exited (3)") && all.contains("kept"), "{all}");

    let kept = test.inspect("kept");
    assert_eq!((kept["Name"].as_str(), kept["State"]["Status"].as_str()), (Some("/kept"), Some("exited")));
    let id = kept["Id"].as_str().unwrap();
    assert_eq!(listed(&test, &["-a", "-q"]), format!("{}\n", &id[..12]));
    let file = test.store().join("containers").join(id).join("upper/x");
    assert_eq!(fs::read_to_string(file).unwrap(), "hi\n");

    test.rbuild(&["run", "--name", "kept", "busybox", "true"]).outcome().exits(125).says(&["already in use"]);
    assert_eq!(test.rbuild(&["rm", &id[..9]]).outcome().succeeds().stdout, format!("{}\n", &id[..9]));
    test.rbuild(&["rm", "kept"]).outcome().exits(1).says(&["No such container: kept"]);
    assert_no_containers(&test);
    test.assert_sound();
}

#[test]
fn a_running_container_is_listed_and_not_removed() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let running = ready(&test, &["--name", "busy"], ["trap 'exit 0' TERM", LOOP]);
    assert!(listed(&test, &[]).contains("Up "));
    test.rbuild(&["rm", "busy"]).outcome().exits(1).says(&["container is running: stop"]);
    running.signal(Signal::SIGTERM);
    running.finish().succeeds();
    assert_eq!(listed(&test, &["-q"]), "");
    test.rbuild(&["rm", "busy"]).outcome().succeeds();
    assert_no_containers(&test);
}

#[test]
fn a_killed_client_leaves_its_container_running() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let running = ready(&test, &["--name", "orphan"], [":", "sleep 1000"]);
    running.signal(Signal::SIGKILL);
    running.finish().exits(137);
    assert_eq!(test.inspect("orphan")["State"]["Status"], "running");
    test.rbuild(&["rm", "-f", "orphan"]).outcome().succeeds();
    assert_no_containers(&test);
}
