//! Flags that change one thing each: what a process may use, how it is looked after, and what lists show of it.

use serde_json::json;

use super::{DEAF, clean_up, printed, rbuild, state};
use crate::common::{TestEnvironment, has_cgroups};

/// What a script prints in a container with these flags and no network.
#[track_caller]
fn inside(test: &TestEnvironment, flags: &[&str], script: &str) -> String {
    printed(test, &[&["run", "--rm", "--network", "none"], flags, &["busybox", "sh", "-c", script]].concat())
}

/// Starts a container with these flags in the background.
#[track_caller]
fn started(test: &TestEnvironment, name: &str, flags: &[&str], line: &[&str]) {
    let run = ["run", "-d", "--network", "none", "--name", name];
    printed(test, &[&run[..], flags, &["busybox"], line].concat());
}

#[test]
fn a_process_has_what_was_asked_for() {
    let Some(test) = TestEnvironment::with_base() else { return };
    test.write("variables", "A=1\n# none\n\nB=2 3\n");
    let cases: [(&[&str], &str, &str); 6] = [
        (&["--ulimit", "nofile=77:88"], "ulimit -Sn; ulimit -Hn", "77\n88\n"),
        (&["--shm-size", "16m"], "df -m /dev/shm | tail -n 1 | tr -s ' ' | cut -d' ' -f2", "16\n"),
        (&["--cap-drop", "ALL"], "grep CapEff /proc/self/status", "CapEff:\t0000000000000000\n"),
        (
            &["--cap-drop", "ALL", "--cap-add", "CHOWN"],
            "grep CapEff /proc/self/status",
            "CapEff:\t0000000000000001\n",
        ),
        (&["--env-file", "variables", "-e", "A=9"], "echo $A $B", "9 2 3\n"),
        (
            &["--dns", "192.0.2.53", "--dns-search", "example", "--dns-option", "ndots:3"],
            "cat /etc/resolv.conf",
            "nameserver 192.0.2.53\nsearch example\noptions ndots:3\n",
        ),
    ];
    for (flags, script, expected) in cases {
        assert_eq!(inside(&test, flags, script), expected, "{flags:?}");
    }
}

#[test]
fn an_id_is_written_to_a_file_that_is_not_there() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let line = ["run", "--network", "none", "--name", "one", "--cidfile", "id", "busybox", "true"];
    rbuild(&test, &line).succeeds();
    assert_eq!(test.inspect("one")["Id"], test.read("id"));
    rbuild(&test, &line).exits(125).says(&["container ID file found"]);
    clean_up(&test, &["one"]);
}

#[test]
fn what_a_container_may_have_is_shown() {
    let Some(test) = TestEnvironment::with_base() else { return };
    printed(&test, &["create", "--name", "plain", "busybox"]);
    let device =
        ["--device", "/dev/null:/dev/n:r", "--security-opt", "no-new-privileges", "--ulimit", "nofile=10:20"];
    let network =
        ["-p", "80", "-p", "127.0.0.1:81:82/udp", "--sysctl", "net.core.somaxconn=5", "--tmpfs", "/t:ro"];
    let line =
        [&["create", "--name", "set"], &device[..], &network, &["--cpu-shares", "512", "busybox"]].concat();
    printed(&test, &line);
    let cases = [
        (".Config.Healthcheck", "null", "null"),
        (".Config.StopSignal", "\"\"", "\"\""),
        (".State.Health", "null", "null"),
        (".NetworkSettings.Ports", "{}", "{}"),
        (".HostConfig.MemorySwap", "0", "0"),
        (".HostConfig.CpuShares", "0", "512"),
        (".HostConfig.StorageOpt", "null", "null"),
        (".HostConfig.Sysctls", "null", "{\"net.core.somaxconn\":\"5\"}"),
        (".HostConfig.Tmpfs", "null", "{\"/t\":\"ro\"}"),
        (".HostConfig.SecurityOpt", "[]", "[\"no-new-privileges\"]"),
        (".HostConfig.Ulimits", "[]", "[{\"Hard\":20,\"Name\":\"nofile\",\"Soft\":10}]"),
        (
            ".HostConfig.Devices",
            "[]",
            "[{\"CgroupPermissions\":\"r\",\"PathInContainer\":\"/dev/n\",\"PathOnHost\":\"/dev/null\"}]",
        ),
    ];
    for (field, plain, set) in cases {
        let shown = printed(&test, &["inspect", "-f", &format!("{{{{json {field}}}}}"), "plain", "set"]);
        assert_eq!(shown, format!("{plain}\n{set}\n"), "{field}");
    }
    let ports = json!({
        "80/tcp": [{ "HostIp": "", "HostPort": "" }], "82/udp": [{ "HostIp": "127.0.0.1", "HostPort": "81" }],
    });
    assert_eq!(test.inspect("set")["HostConfig"]["PortBindings"], ports);
    clean_up(&test, &["plain", "set"]);
}

#[test]
fn processes_and_processors_are_limited() {
    let Some(test) = TestEnvironment::with_base() else { return };
    if !has_cgroups("a limit") {
        return;
    }
    let flags = ["--network", "none", "--name", "one", "--pids-limit", "20", "--cpus", "0.5"];
    let script = "for n in $(seq 40); do sleep 100 & done";
    let line = [&["run"], &flags[..], &["busybox", "sh", "-c", script]].concat();
    rbuild(&test, &line).exits(2).says(&["can't fork"]);
    let limits = &test.inspect("one")["HostConfig"];
    assert_eq!((&limits["PidsLimit"], &limits["NanoCpus"]), (&20.into(), &500_000_000.into()));
    clean_up(&test, &["one"]);
}

#[test]
fn a_container_says_how_long_it_is_waited_for() {
    let Some(test) = TestEnvironment::with_base() else { return };
    started(&test, "deaf", &["--stop-timeout", "0", "--stop-signal", "INT"], DEAF);
    printed(&test, &["stop", "deaf"]);
    assert_eq!(state(&test, "deaf", "ExitCode"), "137");
    let config = &test.inspect("deaf")["Config"];
    assert_eq!((&config["StopTimeout"], &config["StopSignal"]), (&0.into(), &"INT".into()));
    clean_up(&test, &["deaf"]);
}

#[test]
fn health_checks_have_their_time() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let often = ["--health-interval", "100ms", "--health-retries", "1"];
    let sleep = ["sleep", "1000"];
    let slow = ["--health-cmd", "sleep 100", "--health-timeout", "100ms"];
    started(&test, "slow", &[&often[..], &slow].concat(), &sleep);
    let young = ["--health-cmd", "false", "--health-start-period", "1h", "--health-start-interval", "100ms"];
    started(&test, "young", &[&often[..], &young].concat(), &sleep);
    let health = |name: &str| test.inspect(name)["State"]["Health"].clone();
    while health("slow")["Status"] != "unhealthy" {}
    let first = || health("young")["Log"].as_array().unwrap().first().cloned();
    let failed = loop {
        if let Some(check) = first() {
            break check;
        }
    };
    assert_eq!((&failed["ExitCode"], &health("young")["Status"]), (&1.into(), &"starting".into()));

    printed(&test, &["commit", "-c", "HEALTHCHECK CMD false", "young", "checked"]);
    let run = ["run", "-d", "--network", "none"];
    printed(&test, &[&run[..], &["--name", "image-s", "checked", "sleep", "1000"]].concat());
    printed(&test, &[&run[..], &["--name", "none", "--no-healthcheck", "checked", "sleep", "1000"]].concat());
    assert!(health("image-s").is_object() && health("none").is_null());
    clean_up(&test, &["slow", "young", "image-s", "none"]);
}

#[test]
fn lists_and_logs_show_more_where_that_is_asked_for() {
    let Some(test) = TestEnvironment::with_base() else { return };
    for name in ["first", "second"] {
        printed(
            &test,
            &["run", "--network", "none", "--name", name, "busybox", "sh", "-c", "echo 1 >/f; echo said"],
        );
    }
    for flags in [&["-l"][..], &["-n", "1"], &["--latest"], &["--last=1"]] {
        let line = [&["ps", "--format", "{{.Names}}"], flags].concat();
        assert_eq!(printed(&test, &line), "second\n", "{flags:?}");
    }
    assert_eq!(printed(&test, &["ps", "-n", "5", "-q"]).lines().count(), 2);
    let list = printed(&test, &["ps", "-a", "-s"]);
    assert!(list.lines().next().unwrap().contains("SIZE") && list.contains("2B (virtual "), "{list}");
    let logged = printed(&test, &["logs", "-t", "second"]);
    let (time, said) = logged.split_once(' ').unwrap();
    assert!(time.starts_with("20") && time.ends_with('Z') && said == "said\n", "{logged}");
    clean_up(&test, &["first", "second"]);
}

#[test]
fn a_file_system_in_memory_is_as_it_is_asked_for() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let shown = |flags: &[&str]| {
        let script = "stat -c '%a %u %g' /x; grep ' /x ' /proc/mounts";
        let line = [&["run", "--rm", "--network", "none"], flags, &["busybox", "sh", "-c", script]].concat();
        printed(&test, &line)
    };
    let all = shown(&["--tmpfs", "/x:mode=1770,uid=5,gid=6,nr_inodes=50,suid,dev"]);
    assert!(all.starts_with("1770 5 6\n") && all.contains("rw,noexec,relatime,nr_inodes=50"), "{all}");
    let mode = shown(&["--mount", "type=tmpfs,dst=/x,tmpfs-mode=1770"]);
    assert!(mode.starts_with("1770 0 0\n") && mode.contains("rw,nosuid,nodev,noexec"), "{mode}");
}

#[test]
fn mounts_and_capabilities_are_inspected() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let flags = "-v /tmp:/t:ro -v box:/v --tmpfs /x:mode=1770 --cap-add net_admin -m 64m --memory-swap 128m";
    let flags: Vec<&str> = flags.split_whitespace().collect();
    printed(&test, &[&["create", "--name", "all"], &flags[..], &["busybox", "nosuch"]].concat());
    let cases = [
        ("json .HostConfig.Binds", r#"["/tmp:/t:ro","box:/v"]"#),
        ("range .Mounts}}{{.Name}} {{.Destination}} {{.Mode}};{{end", " /t ro;box /v ; /x ;"),
        ("json .HostConfig.CapAdd", r#"["CAP_NET_ADMIN"]"#),
        ("json .HostConfig.Tmpfs", r#"{"/x":"mode=1770"}"#),
        (".HostConfig.MemorySwap", "134217728"),
        (".Config.AttachStdin}} {{.Config.AttachStdout}} {{.Config.AttachStderr", "false true true"),
        (".GraphDriver.Name}} {{json .ExecIDs", "overlayfs null"),
    ];
    for (template, expected) in cases {
        let shown = printed(&test, &["inspect", "-f", &format!("{{{{{template}}}}}"), "all"]);
        assert_eq!(shown, format!("{expected}\n"), "{template}");
    }
    clean_up(&test, &["all"]);
}

#[test]
fn why_a_start_failed_is_kept() {
    let Some(test) = TestEnvironment::with_base() else { return };
    rbuild(&test, &["run", "--name", "not", "--network", "none", "busybox", "nosuch"]).exits(127);
    assert_eq!(state(&test, "not", "Status}} {{.State.ExitCode"), "created 127");
    assert!(state(&test, "not", "Error").contains("executable file not found in $PATH"));
    clean_up(&test, &["not"]);
}
