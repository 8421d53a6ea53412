//! Flags of `run` that say what the process is, and what it shares.

use std::fs;

use super::{clean_up, detached, printed, rbuild};
use crate::common::{TestEnvironment, has_cgroups, is_root};

/// What a script prints in a container with these flags and no network.
#[track_caller]
fn inside(test: &TestEnvironment, flags: &[&str], script: &str) -> String {
    let line = [&["run", "--rm", "--network", "none"], flags, &["busybox", "sh", "-c", script]].concat();
    printed(test, &line)
}

#[test]
fn a_container_knows_its_names() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let script = "hostname; cat /etc/hostname; echo $HOSTNAME; cat /proc/sys/kernel/domainname; grep mcast /etc/hosts; \
        echo x >>/etc/hosts && echo x >/etc/resolv.conf && echo x >/etc/hostname && echo written";
    let names = ["-h", "box", "--domainname", "lan"];
    assert_eq!(inside(&test, &names, script), "box\nbox\nbox\nlan\nff00::\tip6-mcastprefix\nwritten\n");
    let refused = "for f in hosts hostname resolv.conf; do echo x 2>/dev/null >/etc/$f || echo kept; done";
    assert_eq!(inside(&test, &["--read-only"], refused), "kept\nkept\nkept\n");
    let id = detached(&test, "named", &["sleep", "1000"]).id;
    assert_eq!(printed(&test, &["exec", "named", "sh", "-c", "echo $HOSTNAME"]), format!("{}\n", &id[..12]));
    // They are no files of the container's.
    assert!(!printed(&test, &["diff", "named"]).contains("hostname"));
    clean_up(&test, &["named"]);
}

#[test]
fn a_process_is_what_was_asked_for() {
    let Some(test) = TestEnvironment::with_base() else { return };
    assert_eq!(inside(&test, &["-u", "1000", "--group-add", "7", "--group-add", "9"], "id -G"), "0 7 9\n");
    assert_eq!(inside(&test, &["--oom-score-adj", "100"], "cat /proc/self/oom_score_adj"), "100\n");
    let status = |option: &str, field: &str| {
        inside(&test, &["--security-opt", option], &format!("grep {field}: /proc/self/status"))
    };
    assert_eq!(status("no-new-privileges", "NoNewPrivs"), "NoNewPrivs:\t1\n");
    assert_eq!(status("seccomp=unconfined", "Seccomp"), "Seccomp:\t0\n");
    let forward = "cat /proc/sys/net/ipv4/ip_forward";
    assert_eq!(inside(&test, &["--sysctl", "net.ipv4.ip_forward=1"], forward), "1\n");
    test.write("labels", "# none\na=1\n\nb=2\n");
    let line = [
        "create",
        "--name",
        "x",
        "--label-file",
        "labels",
        "-l",
        "b=3",
        "--platform",
        "linux/amd64",
        "busybox",
    ];
    rbuild(&test, &line);
    if test.has("x") {
        assert_eq!(
            printed(&test, &["inspect", "-f", "{{.Config.Labels.a}}{{.Config.Labels.b}}", "x"]),
            "13\n"
        );
    }
    let both =
        ["run", "--rm", "--network", "none", "-a", "stderr", "busybox", "sh", "-c", "echo out; echo err >&2"];
    let outcome = rbuild(&test, &both).succeeds();
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("", "err\n"));
    clean_up(&test, &["x"]);
}

#[test]
fn volumes_are_taken_over() {
    let Some(test) = TestEnvironment::with_base() else { return };
    printed(&test, &["create", "--name", "donor", "-v", "box:/data", "-v", "/scratch", "busybox"]);
    inside(&test, &["--volumes-from", "donor"], "touch /data/kept /scratch/kept");
    assert_eq!(
        inside(&test, &["--volumes-from", "donor:ro"], "ls /data /scratch; touch /data/x || true"),
        "/data:\nkept\n\n/scratch:\nkept\n"
    );
    printed(&test, &["rm", "-v", "donor"]);
    assert_eq!(printed(&test, &["volume", "ls", "-q"]), "box\n");
}

#[test]
fn namespaces_are_shared() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let own = |kind: &str| format!("{}\n", fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display());
    assert_eq!(inside(&test, &["--uts", "host"], "readlink /proc/self/ns/uts"), own("uts"));
    assert_eq!(inside(&test, &["--ipc", "host"], "readlink /proc/self/ns/ipc; test -d /dev/shm"), own("ipc"));
    assert_ne!(inside(&test, &[], "readlink /proc/self/ns/ipc"), own("ipc"));
    if !is_root("sharing processes") {
        return;
    }
    assert_eq!(inside(&test, &["--pid", "host"], "readlink /proc/self/ns/pid"), own("pid"));
    // What is left behind ends with it, though no namespace does that.
    let duration = format!("{}.5", 1_000_000 + std::process::id());
    inside(&test, &["--pid", "host"], &format!("sleep {duration} & sleep 0.01"));
    let commands = || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        processes.filter_map(|process| fs::read_to_string(process.path().join("cmdline")).ok())
    };
    assert!(!commands().any(|command| command.contains(&duration)));
    detached(&test, "first", &["sleep", "1000"]);
    let seen = inside(&test, &["--pid", "container:first"], "cat /proc/1/cmdline | tr '\\0' ' '");
    assert_eq!(seen, "sleep 1000 ");
    printed(&test, &["exec", "first", "true"]);
    clean_up(&test, &["first"]);
}

#[test]
fn devices_are_opened_where_they_were_given() {
    let Some(test) = TestEnvironment::with_base() else { return };
    if !is_root("devices") || !fs::exists("/dev/net/tun").unwrap() {
        return;
    }
    let open = "mknod /tun c 10 200; (: </tun) 2>/dev/null && echo open || echo shut";
    assert_eq!(inside(&test, &[], open), "shut\n");
    assert_eq!(
        inside(&test, &["--device", "/dev/net/tun:/dev/x"], "test -c /dev/x && : <>/dev/x && echo open"),
        "open\n"
    );
    assert_eq!(
        inside(&test, &["--device", "/dev/net:/dev/net:r"], "(: <>/dev/net/tun) 2>/dev/null || echo shut"),
        "shut\n"
    );
    assert_eq!(
        inside(&test, &["--privileged"], "test -c /dev/net/tun && : <>/dev/net/tun && echo open"),
        "open\n"
    );
    let count = |path: &str| fs::read_dir(path).unwrap().count();
    let seen: usize = inside(&test, &["--privileged"], "ls /dev | wc -l").trim().parse().unwrap();
    assert!(seen + 8 > count("/dev"), "{seen}");
}

#[test]
fn control_groups_are_the_machine_s_where_that_is_asked_for() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let seen = |mode: &str| inside(&test, &["--cgroupns", mode], "readlink /proc/self/ns/cgroup");
    let own = fs::read_link("/proc/self/ns/cgroup").unwrap();
    assert_ne!(seen("private").trim(), own.to_str().unwrap());
    assert_eq!(seen("host").trim(), own.to_str().unwrap());
}

#[test]
fn devices_are_opened_where_a_rule_allows_it() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let line = |rules: &[&str], script: &str| {
        let flags = rules.iter().flat_map(|rule| ["--device-cgroup-rule", rule]).collect::<Vec<_>>();
        let line = [&["run", "--rm", "--network", "none"], &flags[..], &["busybox", "sh", "-c", script]];
        rbuild(&test, &line.concat())
    };
    line(&["c 10:200"], "true").exits(125).says(&["invalid device cgroup format 'c 10:200'"]);
    if has_cgroups("a rule for devices") {
        let script = "mknod /tun c 10 200 && exec 3</tun && echo open";
        line(&[], script).says(&["Operation not permitted"]);
        assert_eq!(line(&["c 10:* rm"], script).succeeds().stdout, "open\n");
    }
}
