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
