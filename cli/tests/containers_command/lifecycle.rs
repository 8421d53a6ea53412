use super::{DEAF, clean_up, detached, printed, rbuild, state};
use crate::common::TestEnvironment;

#[test]
fn a_container_goes_through_its_life() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let id =
        printed(&test, &["create", "--name", "life", "--network", "none", "busybox", "sh", "-c", "exit 3"]);
    assert_eq!(state(&test, "life", "Status"), "created");
    rbuild(&test, &["exec", "life", "true"])
        .exits(1)
        .says(&[&format!("container {} is not running", id.trim())]);
    assert_eq!(printed(&test, &["start", "life"]), "life\n");
    assert_eq!(printed(&test, &["wait", "life"]), "3\n");
    assert_eq!(state(&test, "life", "Status"), "exited");
    rbuild(&test, &["start", "-a", "life"]).exits(3);
    printed(&test, &["rename", "life", "after"]);
    rbuild(&test, &["rm", "life"]).exits(1).says(&["No such container: life"]);
    clean_up(&test, &["after"]);
}

#[test]
fn what_removes_itself_is_waited_for() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let script = "while ! test -e /go; do sleep 0.01; done; exit 3";
    let line = ["run", "-d", "--rm", "--network", "none", "--name", "brief", "busybox", "sh", "-c", script];
    printed(&test, &line);
    let waiter = test.rbuild(&["wait", "brief"]).start();
    // It asks the monitor over the only socket that it has.
    while !has_socket(waiter.pid()) {}
    rbuild(&test, &["exec", "brief", "touch", "/go"]);
    assert_eq!(waiter.finish().succeeds().stdout, "3\n");
    rbuild(&test, &["wait", "brief"]).exits(1).says(&["No such container: brief"]);
    clean_up(&test, &["brief"]);
}

fn has_socket(process: nix::unistd::Pid) -> bool {
    let descriptors = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let mut targets = descriptors.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    targets.any(|target| target.as_os_str().as_encoded_bytes().starts_with(b"socket:"))
}

#[test]
fn illegal_changes_are_docker_s_errors() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let id = detached(&test, "busy", &["sleep", "1000"]).id;
    let cases: [(&[&str], &str); 4] = [
        (&["rm", "busy"], "cannot remove container \"busy\": container is running: stop the container"),
        (&["unpause", "busy"], "is not paused"),
        (&["kill", "-s", "NOSUCH", "busy"], "cannot kill container: busy: invalid signal: NOSUCH"),
        (&["rename", "busy", "-x"], "unexpected argument"),
    ];
    for (line, message) in cases {
        let outcome = rbuild(&test, line);
        assert!(outcome.code != 0 && outcome.stderr.contains(message), "{line:?}: {}", outcome.stderr);
    }
    // Started twice is started.
    assert_eq!(printed(&test, &["start", "busy"]), "busy\n");
    printed(&test, &["pause", "busy"]);
    assert_eq!(state(&test, "busy", "Status"), "paused");
    rbuild(&test, &["pause", "busy"]).exits(1).says(&[&format!("Container {id} is already paused")]);
    rbuild(&test, &["exec", "busy", "true"]).exits(1).says(&["is paused, unpause the container before exec"]);
    rbuild(&test, &["rm", "busy"]).exits(1).says(&["container is paused and must be unpaused first"]);
    printed(&test, &["unpause", "busy"]);
    printed(&test, &["exec", "busy", "true"]);
    printed(&test, &["kill", "busy"]);
    assert_eq!(state(&test, "busy", "ExitCode"), "137");
    for (line, message) in [
        (["kill", "busy"], format!("cannot kill container: busy: container {id} is not running")),
        (["pause", "busy"], format!("container {id} is not running")),
        (["attach", "busy"], "You cannot attach to a stopped container, start it first".to_owned()),
    ] {
        rbuild(&test, &line).exits(1).says(&[&message]);
    }
    // Stopped twice is stopped.
    assert_eq!(printed(&test, &["stop", "busy"]), "busy\n");
    clean_up(&test, &["busy"]);
}

#[test]
fn stop_asks_and_then_kills() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let script = "trap 'echo told; exit 5' USR1; echo ready; while :; do sleep 0.01; done";
    let line = ["run", "-d", "--stop-signal", "USR1", "--name", "polite", "busybox", "sh", "-c", script];
    printed(&test, &line);
    while !printed(&test, &["logs", "polite"]).contains("ready") {}
    printed(&test, &["stop", "polite"]);
    assert_eq!(state(&test, "polite", "ExitCode"), "5");
    assert_eq!(printed(&test, &["logs", "polite"]), "ready\ntold\n");
    detached(&test, "deaf", DEAF);
    printed(&test, &["stop", "-t", "0", "deaf"]);
    assert_eq!(state(&test, "deaf", "ExitCode"), "137");
    clean_up(&test, &["polite", "deaf"]);
}

#[test]
fn many_are_stopped_at_once() {
    let Some(test) = TestEnvironment::with_base() else { return };
    // Each waits for the other's signal, passed on by the directory that both see.
    let shared = test.path("shared");
    std::fs::create_dir(&shared).unwrap();
    let volume = format!("{}:/s", shared.display());
    let start = |name: &str, other: &str| {
        let told = format!("touch /s/{name}; while ! test -e /s/{other}; do sleep 0.01; done; exit 5");
        let script = format!("trap '{told}' TERM; echo ready; while :; do sleep 0.01; done");
        let line = ["run", "-d", "--name", name, "--network", "none", "-v", &volume, "busybox", "sh", "-c"];
        printed(&test, &[&line[..], &[&script]].concat());
        while !printed(&test, &["logs", name]).contains("ready") {}
    };
    start("one", "two");
    start("two", "one");
    rbuild(&test, &["stop", "-t", "-1", "two", "nosuch", "one"])
        .exits(1)
        .says(&["No such container: nosuch"]);
    for name in ["one", "two"] {
        assert_eq!(state(&test, name, "ExitCode"), "5");
    }
    assert_eq!(printed(&test, &["restart", "two", "one", "two"]), "two\none\ntwo\n");
    assert_eq!(state(&test, "one", "Status"), "running");
    clean_up(&test, &["one", "two"]);
}

#[test]
fn names_are_unique_and_ids_may_be_cut() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let id = detached(&test, "first", &["sleep", "1000"]).id;
    let again = ["run", "-d", "--name", "first", "busybox", "true"];
    rbuild(&test, &again)
        .exits(125)
        .says(&["Conflict. The container name \"/first\" is already in use by container", &id]);
    rbuild(&test, &["create", "--name", "x y", "busybox"]).exits(1).says(&["Invalid container name (x y)"]);
    rbuild(&test, &["create", "--name", "first", "busybox"]).exits(1).says(&["Conflict."]);
    assert_eq!(printed(&test, &["exec", &id[..5], "echo", "hi"]), "hi\n");
    assert_eq!(printed(&test, &["ps", "-q", "--no-trunc"]), format!("{id}\n"));
    clean_up(&test, &[&id[..12]]);
}

#[test]
fn restart_policies_are_kept() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let line = [
        "run",
        "-d",
        "--restart",
        "on-failure:2",
        "--name",
        "again",
        "busybox",
        "sh",
        "-c",
        "echo run; exit 4",
    ];
    printed(&test, &line);
    assert_eq!(printed(&test, &["wait", "again"]), "4\n");
    assert_eq!(printed(&test, &["logs", "again"]), "run\nrun\nrun\n");
    assert_eq!(printed(&test, &["inspect", "-f", "{{.RestartCount}}", "again"]), "2\n");
    // A person's stop is the end, also between two starts.
    let line = ["run", "-d", "--restart", "always", "--name", "always", "busybox", "true"];
    printed(&test, &line);
    printed(&test, &["stop", "always"]);
    assert_eq!(state(&test, "always", "Status"), "exited");
    clean_up(&test, &["again", "always"]);
}

#[test]
fn health_is_checked() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let script = "touch /ok; sleep 1000";
    let flags = ["--health-cmd", "test -e /ok", "--health-interval", "10ms", "--health-retries", "1"];
    let line = [&["run", "-d", "--name", "well"], &flags[..], &["busybox", "sh", "-c", script]].concat();
    printed(&test, &line);
    while state(&test, "well", "Health.Status") != "healthy" {}
    assert!(printed(&test, &["ps"]).contains("(healthy)"));
    printed(&test, &["exec", "well", "rm", "/ok"]);
    while state(&test, "well", "Health.Status") != "unhealthy" {}
    assert_eq!(printed(&test, &["ps", "-q", "--filter", "health=healthy"]), "");
    clean_up(&test, &["well"]);
}

#[test]
fn further_processes_are_in_the_container() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let line = ["run", "-d", "--name", "host", "-e", "A=1", "-w", "/tmp", "busybox", "sleep", "1000"];
    printed(&test, &line);
    let exec = |arguments: &[&str]| rbuild(&test, &[&["exec"], arguments].concat());
    assert_eq!(exec(&["host", "sh", "-c", "echo $A $(pwd) $(id -u)"]).succeeds().stdout, "1 /tmp 0\n");
    let flags = ["-e", "A=2", "-w", "/", "-u", "1234"];
    let line = [&flags[..], &["host", "sh", "-c", "echo $A $(pwd) $(id -u)"]].concat();
    assert_eq!(exec(&line).succeeds().stdout, "2 / 1234\n");
    exec(&["host", "sh", "-c", "exit 9"]).exits(9);
    exec(&["host", "nosuch"]).exits(127).says(&["`nosuch`: executable file not found in $PATH"]);
    exec(&["host", "/etc/passwd"]).exits(126);
    exec(&["-w", "/nosuch", "host", "true"]).exits(127).says(&["/nosuch"]);
    exec(&["-w", "/etc/passwd", "host", "true"]).exits(126).says(&["/etc/passwd", "Not a directory"]);
    let input = "x".repeat(3_000_000);
    let cat = test.rbuild(&["exec", "-i", "host", "cat"]).stdin(input.as_bytes()).outcome().succeeds();
    assert_eq!(cat.stdout.len(), input.len());
    assert_eq!(exec(&["-d", "host", "touch", "/tmp/made"]).succeeds().stdout, "");
    while exec(&["host", "test", "-e", "/tmp/made"]).code != 0 {}
    clean_up(&test, &["host"]);
}

#[test]
fn an_init_reaps_and_passes_signals_on() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let script = "test $$ -ne 1 && trap 'exit 6' TERM; echo ready; while :; do sleep 0.01; done";
    let line = ["run", "-d", "--init", "--name", "small", "busybox", "sh", "-c", script];
    printed(&test, &line);
    while !printed(&test, &["logs", "small"]).contains("ready") {}
    printed(&test, &["stop", "small"]);
    assert_eq!(state(&test, "small", "ExitCode"), "6");
    assert_eq!(rbuild(&test, &["run", "--rm", "--init", "busybox", "nosuch"]).code, 127);
    clean_up(&test, &["small"]);
}

#[test]
fn lists_are_filtered_and_formatted() {
    let Some(test) = TestEnvironment::with_base() else { return };
    detached(&test, "one", &["sleep", "1000"]);
    let line = ["create", "--name", "two", "--label", "kind=test", "-v", "/tmp:/t", "busybox", "true"];
    printed(&test, &line);
    let bridge = printed(&test, &["network", "inspect", "-f", "{{.Id}}", "bridge"]);
    let network = format!("network={}", bridge.trim());
    let cases: [(&[&str], &str); 21] = [
        (&["-a", "--filter", "name=^/two$", "--format", "{{.Names}}"], "two\n"),
        (&["-a", "--filter", "name=^two$", "--format", "{{.Names}}"], "two\n"),
        (&["-a", "--filter", "name=^tw$", "--format", "{{.Names}}"], ""),
        (&["-a", "--filter", "name=/one", "--format", "{{.Names}}"], "one\n"),
        (&["-a", "--filter", "name=t.o", "--format", "{{.Names}}"], "two\n"),
        (&["-a", "--filter", "network=none", "--format", "{{.Names}}"], "one\n"),
        (&["-a", "--filter", &network, "--format", "{{.Names}}"], "two\n"),
        (&["-a", "--filter", "volume=/t", "--format", "{{.Names}}"], "two\n"),
        (&["-aq", "--filter", "publish=80", "--filter", "expose=80/udp"], ""),
        (&["-a", "--filter", "is-task=true", "-q"], ""),
        (&["--filter", "is-task=false", "--format", "{{.Names}}"], "one\n"),
        (&["-a", "--format", "{{.Names}} {{.Label \"kind\"}}"], "two test\none \n"),
        (&["-a", "--format", "table {{.Names}}\\t{{.Label \"kind\"}}"], "NAMES   kind\ntwo     test\none\n"),
        (&["--format", "{{.Names}}"], "one\n"),
        (&["-a", "--filter", "status=created", "--format", "{{.Names}} {{.State}}"], "two created\n"),
        (&["--filter", "status=created", "--format", "{{.Names}}"], "two\n"),
        (&["-a", "--filter", "label=kind=test", "--format", "{{.Names}}"], "two\n"),
        (&["-a", "--filter", "name=on", "--format", "{{.Names}}"], "one\n"),
        (
            &["-a", "--filter", "ancestor=busybox", "--filter", "name=two", "--format", "{{.Labels}}"],
            "kind=test\n",
        ),
        (&["-l", "-q", "--filter", "name=none"], ""),
        (&["--format", "table {{.Names}}\\t{{.State}}"], "NAMES   STATE\none     running\n"),
    ];
    for (arguments, expected) in cases {
        assert_eq!(printed(&test, &[&["ps"], arguments].concat()), expected, "{arguments:?}");
    }
    let json: serde_json::Value = rbuild(&test, &["ps", "--format", "json"]).succeeds().json();
    assert_eq!((&json["Names"], &json["Networks"]), (&"one".into(), &"none".into()));
    rbuild(&test, &["ps", "--filter", "nosuch=1"]).exits(1).says(&["invalid filter 'nosuch'"]);
    rbuild(&test, &["ps", "--filter", "status=foo"]).exits(1).says(&[
        "invalid filter 'status=foo': invalid value for state (foo): must be one of created, running",
    ]);
    rbuild(&test, &["ps", "--format", "{{.Nosuch}}"]).exits(1).says(&["template parsing error"]);
    let pruned = printed(&test, &["container", "prune", "-f", "--filter", "label=kind"]);
    assert!(pruned.starts_with("Deleted Containers:\n"), "{pruned}");
    assert_eq!(printed(&test, &["container", "ls", "-a", "--format", "{{.Names}}"]), "one\n");
    clean_up(&test, &["one"]);
}

#[test]
fn processes_are_listed_and_limits_are_changed() {
    let Some(test) = TestEnvironment::with_base() else { return };
    detached(&test, "busy", &["sh", "-c", "sleep 1234 & exec sleep 4321"]);
    while !printed(&test, &["top", "busy"]).contains("sleep 1234") {}
    let shown = printed(&test, &["top", "busy", "-o", "pid,args"]);
    assert_eq!(shown.lines().count(), 3, "{shown}");
    rbuild(&test, &["top", "busy", "-o", "args"]).exits(1).says(&["Couldn't find PID field in ps output"]);
    printed(&test, &["update", "--restart", "on-failure:2", "busy"]);
    let format = "{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}";
    assert_eq!(printed(&test, &["inspect", "-f", format, "busy"]), "on-failure 2\n");
    printed(&test, &["stop", "-t", "0", "busy"]);
    rbuild(&test, &["top", "busy"]).exits(1).says(&["is not running"]);
    printed(&test, &["update", "--memory", "64m", "busy"]);
    assert_eq!(printed(&test, &["inspect", "-f", "{{.HostConfig.Memory}}", "busy"]), "67108864\n");
    clean_up(&test, &["busy"]);
}
