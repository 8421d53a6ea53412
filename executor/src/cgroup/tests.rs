//! Groups on a directory that stands for the kernel's: what is written where, by version.

use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::*;
use crate::sys;

/// A directory with the mounts of a machine, and files where groups of the name `rbuild/x` would have them.
struct Fixture {
    directory: tempfile::TempDir,
    support: CgroupSupport,
}

const V1_TREES: &[&str] = &["cpu,cpuacct", "memory", "pids", "blkio", "freezer", "cpuset", "devices"];

impl Fixture {
    fn v1() -> Self {
        Self::new(V1_TREES, None)
    }

    fn v2() -> Self {
        Self::new(&[], Some("cpuset cpu io memory pids"))
    }

    fn hybrid() -> Self {
        Self::new(V1_TREES, Some("hugetlb"))
    }

    fn new(v1: &[&str], v2: Option<&str>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut mountinfo = "22 1 0:21 / /proc rw - proc proc rw\n".to_owned();
        for tree in v1 {
            let path = directory.path().join(tree);
            fs::create_dir_all(&path).unwrap();
            mountinfo += &format!("1 1 0:1 / {} rw shared:9 - cgroup cgroup rw,{tree}\n", path.display());
            for file in ["cpuset.cpus", "cpuset.mems"] {
                fs::write(path.join(file), "0-1\n").unwrap();
            }
            fs::write(path.join("memory.memsw.limit_in_bytes"), "").unwrap();
        }
        if let Some(controllers) = v2 {
            let path = directory.path().join("unified");
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("cgroup.controllers"), controllers).unwrap();
            mountinfo += &format!("1 1 0:1 / {} rw - cgroup2 cgroup2 rw\n", path.display());
        }
        let support = CgroupSupport::probe(&mountinfo, "0::/\n");
        Self { directory, support }
    }

    /// Makes the files that the kernel would make.
    fn expect(&self, tree: &str, files: &[&str]) {
        let group = self.directory.path().join(tree).join("rbuild/x");
        fs::create_dir_all(&group).unwrap();
        files.iter().for_each(|file| fs::write(group.join(file), "").unwrap());
    }

    fn written(&self, tree: &str, file: &str) -> String {
        fs::read_to_string(self.directory.path().join(tree).join("rbuild/x").join(file)).unwrap()
    }
}

fn spec(limits: Limits) -> CgroupSpec {
    CgroupSpec { name: "x".to_owned(), limits, ..CgroupSpec::default() }
}

fn limits() -> Limits {
    Limits {
        memory_bytes: Some(1 << 28),
        memory_reservation_bytes: Some(1 << 27),
        memory_swap: Some(Swap::Total(3 << 27)),
        cpu_quota: CpuQuota::new(50_000, 0),
        cpu_shares: Some(512),
        cpuset_cpus: Some("0".to_owned()),
        pids: Some(100),
        io_weight: Some(300),
        devices: vec![DeviceLimit {
            device: DeviceNumber { major: 8, minor: 16 },
            rate: DeviceRate::WriteBytes,
            per_second: 1000,
        }],
        ..Limits::default()
    }
}

fn check(fixture: &Fixture, expected: &[(&str, &str, &str)]) {
    for (tree, _, _) in expected {
        let files: Vec<_> = expected.iter().filter(|one| one.0 == *tree).map(|one| one.1).collect();
        fixture.expect(tree, &files);
    }
    let group = Cgroup::create(&fixture.support, &spec(limits())).unwrap();
    assert_eq!(group.name(), "rbuild/x");
    let mut entrance = group.entrance().unwrap();
    // A child that cannot be made inside of the group is moved there.
    let mut refusals = vec![io::Error::from(io::ErrorKind::WouldBlock)];
    entrance.enter(|_| refusals.pop().map_or(Ok(()), Err)).unwrap();
    entrance.follow(42).unwrap();
    for (tree, file, value) in expected {
        assert_eq!(fixture.written(tree, file), *value, "{tree} {file}");
    }
}

#[test]
fn version_1_has_a_tree_for_each_controller() {
    let expected = [
        ("memory", "memory.limit_in_bytes", "268435456"),
        ("memory", "memory.memsw.limit_in_bytes", "402653184"),
        ("memory", "memory.soft_limit_in_bytes", "134217728"),
        ("memory", "cgroup.procs", "42"),
        ("cpu,cpuacct", "cpu.cfs_period_us", "100000"),
        ("cpu,cpuacct", "cpu.cfs_quota_us", "50000"),
        ("cpu,cpuacct", "cpu.shares", "512"),
        ("cpu,cpuacct", "cgroup.procs", "42"),
        ("cpuset", "cpuset.cpus", "0"),
        ("cpuset", "cpuset.mems", "0-1"),
        ("cpuset", "cgroup.procs", "42"),
        ("pids", "pids.max", "100"),
        ("pids", "cgroup.procs", "42"),
        ("blkio", "blkio.bfq.weight", "300"),
        ("blkio", "blkio.throttle.write_bps_device", "8:16 1000"),
        ("blkio", "cgroup.procs", "42"),
    ];
    for fixture in [Fixture::v1(), Fixture::hybrid()] {
        check(&fixture, &expected);
        // No limit asks for it.
        assert!(!fixture.directory.path().join("freezer/rbuild").exists());
    }
}

#[test]
fn a_child_of_version_1_begins_where_the_thread_is() {
    let fixture = Fixture::hybrid();
    fixture.expect("memory", &["memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "tasks"]);
    let own = fixture.directory.path().join("memory/own");
    fs::create_dir(&own).unwrap();
    fs::write(own.join("tasks"), "").unwrap();
    let limits = Limits { memory_bytes: Some(1 << 20), ..Limits::default() };
    let group = Cgroup::create(&fixture.support, &spec(limits)).unwrap();
    let mut entrance = group.entrance_from("4:memory:/own\n3:pids:/\n0::/elsewhere\n").unwrap();
    let threads = || (fixture.written("memory", "tasks"), fs::read_to_string(own.join("tasks")).unwrap());
    let during = entrance.enter(|unified| Ok((threads(), unified.is_some()))).unwrap();
    assert_eq!(during, (("0".to_owned(), String::new()), false));
    assert_eq!(threads(), ("0".to_owned(), "0".to_owned()));
    entrance.follow(42).unwrap();
    assert!(!fixture.directory.path().join("memory/rbuild/x/cgroup.procs").exists());
}

#[test]
fn a_child_of_version_2_is_made_in_its_group() {
    let fixture = Fixture::v2();
    fixture.expect("unified", &["pids.max"]);
    let limits = Limits { pids: Some(3), ..Limits::default() };
    let group = Cgroup::create(&fixture.support, &spec(limits)).unwrap();
    assert!(group.entrance().unwrap().enter(|unified| Ok(unified.is_some())).unwrap());
}

#[test]
fn version_2_has_one_tree() {
    let fixture = Fixture::v2();
    let expected = [
        ("unified", "memory.max", "268435456"),
        ("unified", "memory.swap.max", "134217728"),
        ("unified", "memory.low", "134217728"),
        ("unified", "cpu.max", "50000 100000"),
        ("unified", "cpu.weight", "20"),
        ("unified", "cpuset.cpus", "0"),
        ("unified", "pids.max", "100"),
        ("unified", "io.bfq.weight", "300"),
        ("unified", "io.max", "8:16 wbps=1000"),
        ("unified", "cgroup.procs", "42"),
    ];
    check(&fixture, &expected);
    // The group above passes on what the group needs; in the kernel each write adds one.
    let passed = fixture.directory.path().join("unified/rbuild/cgroup.subtree_control");
    assert_eq!(fs::read_to_string(passed).unwrap(), "+io");
}

#[test]
fn groups_freeze_and_count_by_version() {
    let v1 = Fixture::v1();
    v1.expect("freezer", &["freezer.state"]);
    v1.expect("memory", &["memory.usage_in_bytes"]);
    let write = |fixture: &Fixture, tree: &str, file: &str, text: &str| {
        fs::write(fixture.directory.path().join(tree).join("rbuild/x").join(file), text).unwrap();
    };
    write(&v1, "memory", "memory.usage_in_bytes", "5000\n");
    write(&v1, "memory", "memory.limit_in_bytes", "9223372036854771712\n");
    write(&v1, "memory", "memory.stat", "cache 1\ntotal_inactive_file 1000\n");
    write(&v1, "memory", "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n");
    let spec = CgroupSpec { accounting: true, ..spec(Limits::default()) };
    let group = Cgroup::create(&v1.support, &spec).unwrap();
    group.freeze().unwrap();
    assert_eq!(v1.written("freezer", "freezer.state"), "FROZEN");
    assert_eq!(group.stats(), Stats { memory_bytes: 4000, oom_kills: 2, ..Stats::default() });

    let v2 = Fixture::v2();
    v2.expect("unified", &["cgroup.freeze"]);
    write(&v2, "unified", "memory.current", "5000\n");
    write(&v2, "unified", "memory.max", "max\n");
    write(&v2, "unified", "cpu.stat", "usage_usec 7\nuser_usec 1\n");
    write(&v2, "unified", "pids.current", "3\n");
    write(&v2, "unified", "pids.max", "10\n");
    let group = Cgroup::create(&v2.support, &spec).unwrap();
    group.freeze().unwrap();
    assert_eq!(v2.written("unified", "cgroup.freeze"), "1");
    group.thaw().unwrap();
    assert_eq!(v2.written("unified", "cgroup.freeze"), "0");
    let stats = Stats { memory_bytes: 5000, cpu_ns: 7000, pids: 3, pids_limit: Some(10), ..Stats::default() };
    assert_eq!(group.stats(), stats);
    assert_eq!(Cgroup::open(&v2.support, "/rbuild/x").unwrap().stats(), stats);
}

#[test]
fn what_cannot_be_kept_is_told() {
    let (kept, discarded) = Fixture::v2().support.keep(limits());
    assert_eq!((kept, discarded), (limits(), Vec::new()));
    let only_pids = Fixture::new(&["pids"], None);
    let asked = Limits { memory_bytes: Some(1), pids: Some(5), ..Limits::default() };
    let (kept, discarded) = only_pids.support.keep(asked.clone());
    assert_eq!(kept, Limits { pids: Some(5), ..Limits::default() });
    let told: Vec<_> = discarded.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["`--memory` is without effect: no control group controller `memory`"]);
    let none = CgroupSupport::probe("22 1 0:21 / /proc rw - proc proc rw\n", "");
    assert_eq!(none.refusal(), Some(Refusal::NotMounted));
    assert_eq!(none.keep(asked.clone()).1.len(), 2);
    assert!(matches!(Cgroup::create(&none, &spec(asked)), Err(Error::Refused(Refusal::NotMounted))));
}

#[test]
fn memory_may_be_swapped_out_once_more_by_default() {
    let fixture = Fixture::v1();
    let swap = |memory_swap| {
        let limits = Limits { memory_bytes: Some(100), memory_swap, ..Limits::default() };
        fixture.support.keep(limits).0.memory_swap
    };
    assert_eq!(swap(None), Some(Swap::Total(200)));
    assert_eq!(swap(Some(Swap::Unlimited)), Some(Swap::Unlimited));
}

#[test]
fn names_lead_nowhere_else() {
    let support = Fixture::v1().support;
    for (parent, name, whole) in [("/a/b", "x", "a/b/x"), ("a.slice", "x", "a.slice/x"), ("", "x", "x")] {
        assert_eq!(support.name(parent, name).unwrap(), whole);
    }
    for parent in ["..", "a/../..", "a\nb"] {
        assert!(matches!(support.name(parent, "x"), Err(Error::Name(_))), "{parent}");
    }
}

#[test]
fn quotas_are_read_as_docker_does() {
    let quota = |quota_us, period_us| Some(CpuQuota { quota_us, period_us });
    assert_eq!(CpuQuota::new(0, 0), None);
    assert_eq!(CpuQuota::new(0, 50_000), quota(None, 50_000));
    assert_eq!(CpuQuota::new(-1, 0), quota(None, 100_000));
    assert_eq!(CpuQuota::new(20_000, 50_000), quota(Some(20_000), 50_000));
    assert_eq!(Some(CpuQuota::of_nano_cpus(1_500_000_000)), quota(Some(150_000), 100_000));
}

/// A group of version 2 in the kernel: this machine may be a hybrid, whose version 2 has no other use.
fn kernel_group(fill: impl FnOnce(&mut Cgroup, &CgroupSupport)) -> Option<Cgroup> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let unified: String = mountinfo.lines().filter(|line| line.contains(" - cgroup2 ")).collect();
    let support = CgroupSupport::probe(&unified, "0::/\n");
    if support.refusal().is_some() || !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root and version 2 of control groups");
        return None;
    }
    let spec = CgroupSpec { name: unique_name("test"), ..CgroupSpec::default() };
    let mut group = Cgroup::create(&support, &spec).unwrap();
    fill(&mut group, &support);
    Some(group)
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a shell moves itself into the group")]
fn kernel_devices_are_confined_by_a_program() {
    let confine = |group: &mut Cgroup, support: &CgroupSupport| group.confine_devices(support, &[]).unwrap();
    let Some(group) = kernel_group(confine) else { return };
    let script = format!(
        "echo $$ >{}/cgroup.procs && echo x >/dev/null && ! head -c 1 /dev/kmsg 2>/dev/null",
        group.directories[0].path.display()
    );
    let status = std::process::Command::new("/bin/sh").args(["-c", &script]).status().unwrap();
    assert!(status.success());
    group.remove().unwrap();
}

#[test]
fn kernel_makes_a_child_in_a_group_of_version_2() {
    // Nothing of a group is made in a tree that none of its controllers is in.
    let fill = |group: &mut Cgroup, support: &CgroupSupport| {
        group.fill(support, &[Controller::Freezer], &[]).unwrap();
    };
    let Some(group) = kernel_group(fill) else { return };
    let prepared = |path| {
        let file = File::options().read(true).open(path).unwrap();
        rustix::io::fcntl_dupfd_cloexec(file, sys::PREPARED_FD_MIN).unwrap()
    };
    let (program, null) = (prepared("/bin/true"), prepared("/dev/null"));
    let make = move |cgroup: Option<BorrowedFd<'_>>| {
        nix::sys::signal::SigSet::all().thread_set_mask()?;
        let (program, control) = (program.as_fd(), null.as_fd());
        sys::clone_init(0, &sys::InitDescriptors { program, stdio: [null.as_fd(); 3], control, cgroup })
    };
    let mut entrance = group.entrance().unwrap();
    let (pid, pidfd) = std::thread::spawn(move || entrance.enter(make)).join().unwrap().unwrap();
    let wait =
        |options| waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | options).unwrap().unwrap();
    let status = wait(WaitIdOptions::NOWAIT).exit_status();
    // One that has ended is in its group until it has been waited for.
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    wait(WaitIdOptions::empty());
    let name = group.name().to_owned();
    group.remove().unwrap();
    assert_eq!(status, Some(0));
    assert!(groups.lines().any(|line| line == format!("0::/{name}")), "{groups}");
}
