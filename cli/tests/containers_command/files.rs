use super::{clean_up, detached, printed, rbuild};
use crate::common::{TestEnvironment, Tree};

#[test]
fn what_was_written_is_told_committed_and_exported() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let script = "echo new >/tmp/new; rm /etc/passwd; echo x >>/etc/group; echo ready; exec sleep 1000";
    detached(&test, "work", &["sh", "-c", script]);
    while !printed(&test, &["logs", "work"]).contains("ready") {}
    let changes = printed(&test, &["diff", "work"]);
    for line in ["C /etc\n", "D /etc/passwd\n", "A /tmp/new\n", "C /tmp\n"] {
        assert!(changes.contains(line), "{changes}");
    }
    let line = ["commit", "-m", "done", "-a", "me", "-c", "CMD [\"cat\", \"/tmp/new\"]", "work", "made"];
    assert!(printed(&test, &line).starts_with("sha256:"));
    assert_eq!(printed(&test, &["run", "--rm", "made"]), "new\n");
    rbuild(&test, &["run", "--rm", "made", "ls", "/etc/passwd"]).exits(1);
    assert_eq!(test.inspect("made")["Author"], "me");
    // Frozen meanwhile, and going on.
    assert_eq!(printed(&test, &["inspect", "-f", "{{.State.Status}}", "work"]), "running\n");
    let tree = Tree::read(&rbuild(&test, &["export", "work"]).succeeds().stdout_bytes);
    assert_eq!(tree.text("tmp/new"), "new\n");
    clean_up(&test, &["work"]);
    test.assert_sound();
}

#[test]
fn binds_and_memory_are_mounted() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let file = test.write("shared/file", "host\n");
    std::fs::set_permissions(file.parent().unwrap(), std::os::unix::fs::PermissionsExt::from_mode(0o777))
        .unwrap();
    let bind = format!("{}:/shared:ro", file.parent().unwrap().display());
    let script = "cat /shared/file; touch /shared/x 2>/dev/null || echo kept; touch /mem/x && echo memory";
    let line = ["run", "--rm", "-v", &bind, "--tmpfs", "/mem:size=1m", "busybox", "sh", "-c", script];
    assert_eq!(printed(&test, &line), "host\nkept\nmemory\n");
}
