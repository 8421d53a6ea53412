//! What a process does not see and may not do.

use rbuild_executor::{Capabilities, Network, Note, Resource, Security, Ulimit};

use super::fixture::{Fixture, succeeded};

pub(crate) fn only_three_descriptors(fixture: &Fixture) {
    // The fourth is the one that `ls` reads the directory with.
    assert_eq!(fixture.sh("ls /proc/self/fd"), "0\n1\n2\n3\n");
    assert_eq!(fixture.sh("ls /proc/1/fd; true"), "0\n1\n2\n");
}

pub(crate) fn first_process_of_its_own_namespace(fixture: &Fixture) {
    assert_eq!(fixture.sh("echo $$ $PPID; echo /proc/[0-9]*"), "1 0\n/proc/1\n");
    let own = |name: &str| fixture.sh(&format!("readlink /proc/self/ns/{name}")).trim().to_owned();
    let ours = |name: &str| {
        std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap().to_string_lossy().into_owned()
    };
    for name in ["pid", "mnt", "ipc", "uts", "cgroup"] {
        assert_ne!(own(name), ours(name), "{name}");
    }
    for name in ["net", "user"] {
        assert_eq!(own(name), ours(name), "{name}");
    }
    // No process group or session from outside.
    assert_eq!(fixture.sh("cut -d' ' -f5,6 /proc/self/stat"), "1 1\n");
}

fn status(text: &str, field: &str) -> String {
    let line = text.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).unwrap_or_default().to_owned()
}

pub(crate) fn capabilities(fixture: &Fixture) {
    let fields = ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:"];
    let check = |container, expected: [&str; 6]| {
        let text = succeeded(fixture.run(container));
        assert_eq!(fields.map(|field| status(&text, field)), expected);
    };
    let (none, default) = ("0000000000000000", "00000000a80425fb");
    check(fixture.container(&["cat", "/proc/self/status"]), [none, default, default, default, none, "0"]);
    let mut more = fixture.container(&["cat", "/proc/self/status"]);
    more.process.capabilities = Capabilities::NONE.union(Capabilities::from_name("NET_ADMIN").unwrap());
    let one = "0000000000001000";
    check(more, [none, one, one, one, none, "0"]);
    if fixture.has_ids() {
        let mut user = fixture.container(&["cat", "/proc/self/status"]);
        user.process.user = "ada".to_owned();
        check(user, [none, none, none, default, none, "0"]);
    }
}

pub(crate) fn system_calls(fixture: &Fixture) {
    let output = fixture.run(fixture.container(&["cat", "/proc/self/status"]));
    assert!(!output.notes.contains(&Note::NoSeccomp));
    assert_eq!(status(&output.stdout, "Seccomp:"), "2");
    for script in ["mount -t tmpfs none /tmp", "unshare -r true", "unshare -U true", "umount /dev/shm"] {
        let output = fixture.run(fixture.shell(script));
        assert!(output.stderr.to_lowercase().contains("permi"), "{script}: {output:?}");
    }
    assert_eq!(fixture.run(fixture.shell("hostname other")).exit.code(), 1);
}

pub(crate) fn confinement_as_asked_for(fixture: &Fixture) {
    let confined = |option: &str, script: &str| {
        let mut container = fixture.shell(script);
        let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]}"#;
        container.process.confinement.set(option, |_| Ok(profile.to_owned())).unwrap();
        fixture.run(container)
    };
    let status = "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | cut -f2";
    assert_eq!(succeeded(confined("no-new-privileges", status)), "1\n2\n");
    assert_eq!(succeeded(confined("seccomp=unconfined", status)), "0\n0\n");
    assert_eq!(
        succeeded(confined("systempaths=unconfined", "grep -c ' /proc/' /proc/self/mountinfo; true")),
        "0\n"
    );
    for option in ["seccomp=mine.json", "no-new-privileges"] {
        let output = confined(option, "mkdir /tmp/made && rmdir /tmp/made && unshare -U true");
        let expected = if option.starts_with("seccomp") { "can't create directory" } else { "unshare" };
        assert!(output.stderr.contains(expected), "{output:?}");
    }
    if !std::path::Path::new("/sys/module/apparmor").exists() {
        let mut container = fixture.shell("true");
        container.process.confinement.set("apparmor=mine", |_| Ok(String::new())).unwrap();
        let error = fixture.try_run(container).unwrap_err().to_string();
        assert_eq!(error, "failed to choose the AppArmor profile `mine`");
    }
}

pub(crate) fn masked_and_protected(fixture: &Fixture) {
    assert_eq!(
        fixture.sh(
            "for f in keys timer_list kcore; do test -e /proc/$f && cat /proc/$f; done; ls /sys/firmware"
        ),
        ""
    );
    for path in ["/proc/sys/kernel/panic", "/proc/irq/default_smp_affinity", "/sys/kernel/profiling"] {
        let output = fixture.run(fixture.shell(&format!("echo 0 > {path}")));
        assert!(output.stderr.contains("Read-only file system"), "{path}: {output:?}");
    }
    let options = fixture.sh("grep -E ' (/proc|/sys) ' /proc/self/mounts | cut -d' ' -f2,4 | cut -d, -f1-4");
    assert!(options.starts_with("/proc rw,nosuid,nodev,noexec\n/sys ro,nosuid,nodev,noexec\n"), "{options}");
}

/// Nothing of the host's tree is left: not above the root, not in the table of mounts.
pub(crate) fn nothing_of_the_host(fixture: &Fixture) {
    let mark = fixture.beside("marks");
    std::fs::write(fixture.root().join("root/inside"), "").unwrap();
    assert_eq!(fixture.sh("ls /../root; cd ..; cd ..; ls root; ls /proc/1/root/root"), "inside\n".repeat(3));
    assert_eq!(fixture.sh(&format!("ls /..{} 2>/dev/null; true", mark.display())), "");
    std::fs::remove_file(fixture.root().join("root/inside")).unwrap();
    // All mounts but the root itself are on directories that a container has.
    let others = "cut -d' ' -f5 /proc/self/mountinfo | grep -v -E '^/(proc|sys|dev|etc)(/|$)'";
    assert_eq!(fixture.sh(others), "/\n");
}

pub(crate) fn network_without_interfaces(fixture: &Fixture) {
    let mut container =
        fixture.shell("ls /sys/class/net; ip -o addr show up | grep -c 127.0.0.1; ip route | wc -l");
    container.network = Network::None;
    assert_eq!(succeeded(fixture.run(container)), "lo\n1\n0\n");
    if fixture.privilege.in_user_namespace() {
        return;
    }
    // A namespace of the caller's: here, the one that this process is in.
    let mut container = fixture.container(&["readlink", "/proc/self/ns/net"]);
    container.network = Network::Namespace(std::fs::File::open("/proc/self/ns/net").unwrap().into());
    let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(succeeded(fixture.run(container)).trim(), ours.to_str().unwrap());
}

pub(crate) fn host_name(fixture: &Fixture) {
    assert_eq!(fixture.sh("hostname"), "buildkitsandbox\n");
    let mut container = fixture.container(&["hostname"]);
    container.hostname = "other".to_owned();
    assert_eq!(succeeded(fixture.run(container)), "other\n");
}

pub(crate) fn insecure(fixture: &Fixture) {
    let script =
        "grep -E 'CapEff|Seccomp:' /proc/self/status | cut -f2; mount -t tmpfs x /tmp && echo mounted";
    let mut container = fixture.shell(script);
    container.security = Security::Insecure;
    let output = succeeded(fixture.run(container));
    let ours = std::fs::read_to_string("/proc/self/status").unwrap();
    assert_eq!(output, format!("{}\n0\nmounted\n", status(&ours, "CapEff:")));
}

pub(crate) fn limits(fixture: &Fixture) {
    let mut container = fixture.shell("ulimit -n; ulimit -Hn; ulimit -c");
    container.process.ulimits = vec![
        Ulimit { resource: Resource::OpenFiles, soft: 100, hard: 200 },
        Ulimit { resource: Resource::Core, soft: 0, hard: 0 },
    ];
    container.process.umask = 0o77;
    assert_eq!(succeeded(fixture.run(container)), "100\n200\n0\n");
}

pub(crate) fn limits_that_cannot_be(fixture: &Fixture) {
    // Fewer descriptors than it takes to set a container up, which is not what they limit.
    let mut container = fixture.shell("ulimit -n");
    container.process.ulimits = vec![Ulimit { resource: Resource::OpenFiles, soft: 5, hard: 5 }];
    assert_eq!(succeeded(fixture.run(container)), "5\n");
    // More descriptors than the kernel gives to anybody.
    let mut container = fixture.container(&["true"]);
    container.process.ulimits =
        vec![Ulimit { resource: Resource::OpenFiles, soft: u64::MAX, hard: u64::MAX }];
    let error = fixture.try_run(container).unwrap_err().to_string();
    assert!(error.starts_with("failed to raise the hard limit `nofile` from "), "{error}");
    assert!(error.ends_with(" to unlimited"), "{error}");
}

pub(crate) fn signals_are_reset(fixture: &Fixture) {
    let container = fixture.container(&["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"]);
    let none = "0000000000000000";
    assert_eq!(succeeded(fixture.run(container)), format!("SigBlk:\t{none}\nSigIgn:\t{none}\n"));
}
