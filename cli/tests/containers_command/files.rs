use std::io::Read as _;
use std::process::Stdio;

use super::{clean_up, detached, printed, rbuild};
use crate::common::{TestEnvironment, Tree, has_cgroups};

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
    rbuild(&test, &["commit", "-c", "RUN x", "work"]).exits(1).says(&["--change takes instructions"]);
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

/// What is in a container's directory, with owners.
fn listed(test: &TestEnvironment, name: &str, directory: &str) -> String {
    let script = "cd $1 && find . ! -name . | sort | while read -r f; do stat -c '%n %u:%g' $f; done";
    printed(test, &["exec", name, "sh", "-c", script, "sh", directory])
}

#[test]
fn files_are_copied_both_ways() {
    let Some(test) = TestEnvironment::with_base() else { return };
    detached(&test, "box", &["sh", "-c", "mkdir -p /work/sub; echo in >/work/sub/in; exec sleep 1000"]);
    while rbuild(&test, &["exec", "box", "test", "-s", "/work/sub/in"]).code != 0 {}
    test.write("tree/sub/file", "out\n");
    printed(&test, &["cp", "tree/.", "box:/work"]);
    printed(&test, &["cp", "tree", "box:/work"]);
    let expected =
        "./sub 0:0\n./sub/file 0:0\n./sub/in 0:0\n./tree 0:0\n./tree/sub 0:0\n./tree/sub/file 0:0\n";
    assert_eq!(listed(&test, "box", "/work"), expected);
    printed(&test, &["cp", "box:/work/sub", "here"]);
    assert_eq!((test.read("here/in"), test.read("here/file")), ("in\n".to_owned(), "out\n".to_owned()));
    // A tar out, and the same in elsewhere.
    let archive = rbuild(&test, &["cp", "box:/work/tree", "-"]).succeeds().stdout_bytes;
    assert_eq!(Tree::read(&archive).text("tree/sub/file"), "out\n");
    printed(&test, &["exec", "box", "mkdir", "/new"]);
    test.rbuild(&["cp", "-", "box:/new"]).stdin(archive).outcome().succeeds();
    assert_eq!(listed(&test, "box", "/new/tree/sub"), "./file 0:0\n");
    let cases: [(&[&str], &str); 6] = [
        (&["cp", "none", "box:/"], "/none: no such file or directory"),
        (&["cp", "box:/none", "."], "Could not find the file /none in container box"),
        (&["cp", "tree", "box:/etc/passwd"], "cannot copy directory"),
        (&["cp", "-", "box:/etc/passwd"], "destination \"box:/etc/passwd\" must be a directory"),
        (&["cp", "tree", "here"], "must specify at least one container source"),
        (&["cp", "box:/etc", "none:/etc"], "copying between containers is not supported"),
    ];
    for (line, message) in cases {
        rbuild(&test, line).exits(1).says(&[message]);
    }
    clean_up(&test, &["box"]);
}

#[test]
fn files_are_copied_of_containers_that_do_not_run() {
    let Some(test) = TestEnvironment::with_base() else { return };
    test.write("file", "one\n");
    let line = ["create", "--name", "box", "-v", "kept:/data", "-v", "shut:/shut:ro", "-u", "1234:5"];
    printed(&test, &[&line[..], &["busybox", "cat", "/data/file", "/tmp/link"]].concat());
    printed(&test, &["cp", "-a", "file", "box:/data/"]);
    printed(&test, &["cp", "file", "box:/tmp/link"]);
    rbuild(&test, &["cp", "file", "box:/shut/x"]).exits(1).says(&["mounted volume is marked read-only"]);
    // The link leads to the container's own file.
    assert_eq!(rbuild(&test, &["start", "-a", "box"]).succeeds().stdout, "one\none\n");
    std::os::unix::fs::symlink("/etc/passwd", test.path("link")).unwrap();
    printed(&test, &["cp", "link", "box:/tmp/passwd"]);
    printed(&test, &["cp", "-L", "box:/tmp/passwd", "own"]);
    assert_eq!(
        test.read("own"),
        rbuild(&test, &["cp", "box:/etc/passwd", "-"]).succeeds().stdout[512..][..test.read("own").len()]
    );
    assert_eq!(
        printed(
            &test,
            &[
                "run",
                "--rm",
                "--network",
                "none",
                "-v",
                "kept:/k",
                "busybox",
                "stat",
                "-c",
                "%u:%g",
                "/k/file"
            ]
        ),
        "1234:5\n"
    );
    clean_up(&test, &["box"]);
}

#[test]
fn what_is_used_is_shown() {
    let Some(test) = TestEnvironment::with_base() else { return };
    detached(&test, "busy", &["sleep", "1000"]);
    printed(&test, &["create", "--name", "idle", "busybox"]);
    let shown = printed(&test, &["stats", "--no-stream"]);
    let (heading, row) = shown.split_once('\n').unwrap();
    let columns =
        ["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"];
    assert_eq!(
        heading.split("   ").map(str::trim).filter(|word| !word.is_empty()).collect::<Vec<_>>(),
        columns
    );
    assert!(row.contains("busy") && !shown.contains("idle"), "{shown}");
    let row: serde_json::Value =
        rbuild(&test, &["stats", "--no-stream", "--format", "json", "busy"]).succeeds().json();
    assert_eq!((&row["Name"], &row["Container"]), (&"busy".into(), &"busy".into()));
    if has_cgroups("counting processes") {
        assert_eq!(row["PIDs"], "1");
    }
    let all = printed(&test, &["stats", "--no-stream", "-a", "--format", "{{.Name}} {{.CPUPerc}}"]);
    assert!(all.contains("idle 0.00%\n"), "{all}");
    rbuild(&test, &["stats", "--no-stream", "none"]).exits(1).says(&["No such container: none"]);
    clean_up(&test, &["busy", "idle"]);
}

#[test]
fn what_is_removed_while_it_is_exported_is_exported_whole() {
    let Some(test) = TestEnvironment::with_base() else { return };
    printed(&test, &["create", "--name", "box", "busybox", "true"]);
    let expected = rbuild(&test, &["export", "box"]).succeeds().stdout_bytes;
    let mut exporting =
        test.rbuild(&["export", "box"]).start_on(Stdio::null(), Stdio::piped(), Stdio::null());
    let mut archive = exporting.stdout.take().unwrap();
    let mut exported = vec![0; 512];
    archive.read_exact(&mut exported).unwrap();
    printed(&test, &["rm", "box"]);
    printed(&test, &["rmi", "busybox"]);
    printed(&test, &["prune", "-af"]);
    archive.read_to_end(&mut exported).unwrap();
    assert!(exporting.wait().unwrap().success() && exported == expected);
}

#[test]
fn a_container_that_runs_keeps_prune_from_nothing_else() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let line =
        ["run", "--network", "none", "--name", "box", "busybox", "sh", "-c", "echo ready; exec sleep 1000"];
    let running = test.rbuild(&line).start();
    while !rbuild(&test, &["logs", "box"]).stdout.contains("ready") {}
    assert_eq!(test.store_entries("leases"), 0);
    clean_up(&test, &["box"]);
    drop(running.finish());
}
