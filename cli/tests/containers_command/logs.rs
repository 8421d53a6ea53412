use std::process::Stdio;

use super::{clean_up, detached, printed, rbuild};
use crate::common::TestEnvironment;

#[test]
fn logs_are_what_was_printed() {
    let Some(test) = TestEnvironment::with_base() else { return };
    detached(&test, "talk", &["sh", "-c", "for i in 1 2 3; do echo out $i; done; echo err >&2; printf end"]);
    printed(&test, &["wait", "talk"]);
    let logs = rbuild(&test, &["logs", "talk"]).succeeds();
    assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("out 1\nout 2\nout 3\nend", "err\n"));
    assert_eq!(printed(&test, &["logs", "--tail", "1", "talk"]), "end");
    let dated = printed(&test, &["logs", "-t", "-n", "1", "talk"]);
    assert!(dated.starts_with("20") && dated.contains("Z end"), "{dated}");
    assert_eq!(printed(&test, &["logs", "--until", "1h", "talk"]), "");
    assert_eq!(printed(&test, &["logs", "--since", "1h", "--tail", "2", "talk"]).len(), 3);
    clean_up(&test, &["talk"]);
}

#[test]
fn logs_are_followed_to_the_end() {
    let Some(test) = TestEnvironment::with_base() else { return };
    detached(&test, "slow", &["sh", "-c", "echo begun; while ! test -e /go; do sleep 0.01; done; echo over"]);
    let follower = test.rbuild(&["logs", "-f", "slow"]).start();
    // The container may end, and this process with it, before it has ended by itself: any code will do.
    drop(rbuild(&test, &["exec", "slow", "touch", "/go"]));
    assert_eq!(follower.finish().succeeds().stdout, "begun\nover\n");
    clean_up(&test, &["slow"]);
}

#[test]
fn large_outputs_are_whole() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let script = "dd if=/dev/zero bs=65536 count=320 2>/dev/null | tr '\\0' x; seq 100000";
    let line = ["run", "--name", "large", "busybox", "sh", "-c", script];
    let attached = rbuild(&test, &line).succeeds().stdout;
    assert_eq!(attached.len(), 320 * 65536 + 588_895);
    assert!(printed(&test, &["logs", "large"]) == attached);
    clean_up(&test, &["large"]);
}

#[test]
fn logs_rotate() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let options = ["--log-opt", "max-size=10k", "--log-opt", "max-file=2"];
    let line = [&["run", "--name", "turn"], &options[..], &["busybox", "seq", "5000"]].concat();
    rbuild(&test, &line).succeeds();
    let kept = printed(&test, &["logs", "turn"]);
    assert!(kept.ends_with("4999\n5000\n") && kept.len() < 5000, "{}", kept.len());
    clean_up(&test, &["turn"]);
}

#[test]
fn a_full_disk_is_said() {
    let Some(test) = TestEnvironment::with_base() else { return };
    detached(&test, "full", &["sh", "-c", "echo x; sleep 1000"]);
    while printed(&test, &["logs", "full"]) != "x\n" {}
    let run = |script| ["run", "--rm", "--network", "none", "busybox", "sh", "-c", script].to_vec();
    let cases = [
        (run("echo x"), 1),
        (run("trap '' PIPE; echo x; exit 4"), 4),
        (vec!["exec", "full", "echo", "x"], 1),
        (vec!["logs", "full"], 1),
    ];
    for (words, code) in cases {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let child = test.rbuild(&words).start_on(Stdio::null(), full, Stdio::piped());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            said.contains("failed to write to standard output: No space left on device"),
            "{words:?}: {said}"
        );
        assert!(!said.contains("rbuild rmi"), "{said}");
        assert_eq!(output.status.code(), Some(code), "{words:?}");
    }
    clean_up(&test, &["full"]);
}
