//! What the command line gives to RUN steps, and what it lets them do.

use std::fs;
use std::path::Path;

use crate::common::{TestEnvironment, has_cgroups, is_root};

#[test]
fn what_is_not_allowed_does_not_run() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let cases = [
        ("--network=host", "network.host", &["--allow", "network.host"][..]),
        ("--network=host", "network.host", &["--network", "host"]),
        ("--security=insecure", "security.insecure", &["--allow", "network.host,security.insecure"]),
    ];
    for (flag, entitlement, allowing) in cases {
        let context = test.dockerfile(&format!("FROM busybox\nRUN echo early\nRUN {flag} true\n"));
        let refused = test.build(&context, &["--no-cache"]).exits(2);
        let hint = format!("`--allow {entitlement}` allows it");
        refused
            .says(&[&format!("{entitlement} is not allowed"), &hint, &format!("RUN {flag} true")])
            .says_nothing_of(&["RUN echo early\n#"]);
        test.build(&context, allowing).succeeds();
        test.build(&context, &["--target", "0", "--allow", "all"])
            .exits(2)
            .says(&["unknown entitlement `all`"]);
    }
    let unused = test.dockerfile("FROM busybox AS no\nRUN --network=host true\nFROM busybox\nRUN true\n");
    test.build(&unused, &[]).succeeds();
}

#[test]
fn insecure_steps_may_what_rbuild_may() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile(
        "FROM busybox\nRUN --security=insecure mkdir /m && mount -t tmpfs x /m && grep -q 'Seccomp:.*0$' /proc/self/status \
         && ! grep -q ' /proc/kcore ' /proc/self/mountinfo && echo fine >/fine\n",
    );
    let tree = test.build_tree(&context, &["--allow", "security.insecure"]);
    assert_eq!(tree.text("fine"), "fine\n");
    if is_root("making device files") {
        context.dockerfile("FROM busybox\nRUN --security=insecure test -c /dev/fuse && test -b /dev/loop0\n");
        test.build(&context, &["--allow", "security.insecure"]).succeeds();
    }
}

#[test]
fn limits_and_shared_memory() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile("FROM busybox\nRUN ulimit -Sn >/n; ulimit -Hn >>/n; df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2 >>/n\n");
    let limits = |arguments: &[&str]| test.build_tree(&context, arguments).text("n").to_owned();
    assert_eq!(limits(&["--ulimit", "nofile=50:60", "--shm-size", "1m"]), "50\n60\n1024\n");
    assert!(limits(&[]).ends_with("\n65536\n"));
    // Both are in the key.
    assert_eq!(
        test.build(&context, &["--ulimit", "nofile=50:60", "--shm-size", "2m"]).succeeds().ran().len(),
        1
    );
    assert_eq!(
        test.build(&context, &["--ulimit", "nofile=50:60", "--shm-size", "1m"]).succeeds().ran().len(),
        0
    );
    test.build(&context, &["--ulimit", "nofile=-1"])
        .exits(3)
        .says(&["failed to raise the hard limit `nofile` from"]);
    test.build(&context, &["--ulimit", "nofile"]).exits(2).says(&["invalid --ulimit `nofile`"]);
    test.build(&context, &["--shm-size", "x"]).exits(2).says(&["invalid --shm-size `x`"]);
}

#[test]
fn steps_are_in_the_control_group_that_was_asked_for() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile("FROM busybox\nRUN true\n");
    test.build(&context, &[]).succeeds();
    let parent = format!("/rbuild-test-{}", std::process::id());
    let outcome = test.build(&context, &["--cgroup-parent", &parent]).succeeds();
    assert_eq!(outcome.ran().len(), 1, "in the key, as in BuildKit");
    if !has_cgroups("control groups") {
        outcome.says(&["warning: `--cgroup-parent` is without effect: "]);
        return;
    }
    let made = Path::new("/sys/fs/cgroup/pids").join(&parent[1..]);
    assert!(made.is_dir(), "{parent}");
    assert_eq!(
        fs::read_dir(made).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).count(),
        0
    );
    for controller in fs::read_dir("/sys/fs/cgroup").unwrap() {
        drop(fs::remove_dir(controller.unwrap().path().join(&parent[1..])));
    }
}

#[test]
fn what_steps_use_is_limited() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile("FROM busybox\nRUN dd if=/dev/zero of=/dev/null bs=300M count=1\n");
    let limited = ["-m", "64m", "--memory-swap", "64m"];
    if !has_cgroups("limits") {
        test.build(&context, &limited).succeeds().says(&["warning: `--memory` is without effect: "]);
        return;
    }
    test.build(&context, &limited)
        .exits(1)
        .says(&["did not complete successfully: exit code: 137: killed: out of memory, limit 64 MiB"]);
    test.build(&context, &["--resource", "memory=1g"]).succeeds();
    assert!(
        test.build(&context, &["-m", "2g", "--cpu-quota", "50000"]).succeeds().ran().is_empty(),
        "in no key"
    );
    let forks = "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done";
    context.dockerfile(&format!("FROM busybox\nRUN {forks}\n"));
    test.build(&context, &["--pids-limit", "4"]).exits(1).says(&["can't fork"]);
    test.build(&context, &["--pids-limit", "40"]).succeeds();
    test.build(&context, &["--cpuset-cpus", "9999", "--no-cache"])
        .exits(3)
        .says(&["failed to write `9999` to"]);
}

#[test]
fn steps_are_held_as_asked_for() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}"#;
    let context = test.dockerfile(
        "FROM busybox\nRUN grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | cut -f2 | tr -d '\\n' >/held; mkdir /made || echo no >>/held\n",
    );
    context.write("profile.json", profile);
    let file = format!("seccomp={}", context.path.join("profile.json").display());
    let held = |options: &[&str]| {
        let options: Vec<&str> = options.iter().flat_map(|option| ["--security-opt", *option]).collect();
        test.build_tree(&context, &[&["--no-cache"], &options[..]].concat()).text("held").to_owned()
    };
    assert_eq!(held(&[]), "02");
    assert_eq!(held(&["no-new-privileges", "seccomp=unconfined"]), "10");
    assert_eq!(held(&[&file]), "02no\n");
    test.build(&context, &["--security-opt", "x=1"]).exits(2).says(&["unknown security option `x=1`"]);
    test.build(&context, &["--security-opt", "seccomp=/none.json"])
        .exits(2)
        .says(&["failed to read the profile of system calls `/none.json`"]);
}

#[test]
fn steps_end_when_their_time_is_up() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile("FROM busybox\nRUN sleep 1000 & sleep 1000\n");
    let outcome = test.build(&context, &["--step-timeout", "200ms"]).exits(1);
    outcome.says(&["did not complete successfully: timed out after 200ms"]);
    context.dockerfile("FROM busybox\nRUN true\n");
    test.build(&context, &["--step-timeout", "1h"]).succeeds();
    test.build(&context, &["--step-timeout", "1x"]).exits(2).says(&["invalid --step-timeout `1x`"]);
}

#[test]
fn hosts_are_added_and_only_their_names_matter() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile("FROM busybox\nRUN --network=none tail -n +3 /etc/hosts >/hosts\n");
    let hosts = ["--add-host", "a:1.2.3.4", "--add-host", "b=[::1]", "--add-host", "host:host-gateway"];
    assert_eq!(test.build_tree(&context, &hosts).text("hosts"), "1.2.3.4\ta\n::1\tb\n127.0.0.1\thost\n");
    let moved = ["--add-host", "a:4.3.2.1", "--add-host", "b=[::2]", "--add-host", "host:1.1.1.1"];
    assert_eq!(test.build(&context, &moved).succeeds().ran().len(), 0);
    assert_eq!(test.build(&context, &moved[..4]).succeeds().ran().len(), 1);
    test.build(&context, &["--add-host", "a:nowhere"]).exits(2).says(&["invalid --add-host `a:nowhere`"]);
}

#[test]
fn volumes_are_seen_and_leave_nothing() {
    let Some(test) = TestEnvironment::with_base() else { return };
    test.write("data/in", "from the host\n");
    let context = test.dockerfile(
        "FROM busybox\nRUN cat /v/in >/seen && echo out >/v/out && cat /w/in >/dev/null && ! touch /w/x\n",
    );
    let data = test.path("data").display().to_string();
    let volumes = [&*format!("{data}:/v:z"), &format!("{data}:/w:ro")].map(str::to_owned);
    let arguments = ["-v", volumes[0].as_str(), "--volume", volumes[1].as_str()];
    let tree = test.build_tree(&context, &arguments);
    assert_eq!(tree.text("seen"), "from the host\n");
    assert!(!tree.has("v") && !tree.has("w"));
    assert_eq!(test.read("data/out"), "out\n");
    // In no key.
    assert_eq!(test.build(&context, &[]).succeeds().ran().len(), 0);
    for (spec, expected) in [("/nosuch:/v", "No such file"), ("data:/v", "`data` is not an absolute path")] {
        test.build(&context, &["-v", spec]).exits(2).says(&["invalid --volume", expected]);
    }
}

#[test]
fn proxies_come_from_dockers_configuration() {
    let Some(test) = TestEnvironment::with_base() else { return };
    test.write(
        "home/.docker/config.json",
        r#"{"proxies": {"default": {"httpProxy": "http://user:hunter2@p:1", "noProxy": "x"}}}"#,
    );
    let context = test.dockerfile("FROM busybox\nRUN env | grep -i proxy | sort | wc -l; test \"$http_proxy\" = \"$HTTP_PROXY\" && test -n \"$no_proxy\"\n");
    test.build(&context, &["-t", "app"]).succeeds().says(&[" 4\n"]);
    let image = fs::read_dir(test.store().join("content/sha256")).unwrap();
    for entry in image.flatten().flat_map(|directory| fs::read_dir(directory.path()).unwrap()).flatten() {
        let bytes = fs::read(entry.path()).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("hunter2"), "{:?}", entry.path());
    }
    fs::remove_file(test.path("home/.docker/config.json")).unwrap();
    assert_eq!(test.build(&context, &[]).succeeds().ran().len(), 0);
    context.dockerfile(
        "FROM busybox\nARG HTTP_PROXY\nRUN test \"$HTTP_PROXY\" = mine && test -z \"$HTTPS_PROXY\"\n",
    );
    test.build(&context, &["--build-arg", "HTTP_PROXY=mine"]).succeeds();
}
