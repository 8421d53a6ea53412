//! What a control group does to the processes in it.

use rbuild_executor::cgroup::{Cgroup, CgroupSpec, CgroupSupport, Controller, Limits, Swap};
use rbuild_executor::{Container, Exit};

use super::fixture::{Fixture, succeeded};

/// Whether groups can be made here; the machine's word on why not is in the log.
fn support() -> Option<&'static CgroupSupport> {
    let support = CgroupSupport::get();
    if let Some(refusal) = support.refusal() {
        println!("    no limits here: {refusal}");
        return None;
    }
    Some(support)
}

fn limited(container: Container, name: &str, limits: Limits) -> Container {
    let (limits, discarded) = CgroupSupport::get().keep(limits);
    assert_eq!(discarded, []);
    let name = format!("test-{name}-{}", std::process::id());
    Container {
        cgroup: Some(CgroupSpec { name, limits, accounting: true, ..CgroupSpec::default() }),
        ..container
    }
}

pub(crate) fn processes_are_counted(fixture: &Fixture) {
    let Some(_) = support() else { return };
    let script = "i=0; while [ $i -lt 30 ]; do sleep 9 & i=$((i+1)); done; echo all";
    let limits = |pids| Limits { pids: Some(pids), ..Limits::default() };
    let output = fixture.run(limited(fixture.shell(script), "pids", limits(10)));
    assert!(output.stderr.contains("can't fork"), "{output:?}");
    assert_eq!(succeeded(fixture.run(limited(fixture.shell(script), "pids", limits(60)))), "all\n");
}

pub(crate) fn memory_is_bounded(fixture: &Fixture) {
    let Some(support) = support() else { return };
    let limits = Limits {
        memory_bytes: Some(32 << 20),
        memory_swap: Some(Swap::Total(32 << 20)),
        ..Limits::default()
    };
    let limits = support.keep(limits).0;
    let container =
        limited(fixture.container(&["dd", "if=/dev/zero", "of=/dev/null", "bs=300M"]), "memory", limits);
    let (mut running, _) = fixture.spawn(container).unwrap();
    let exit = running.wait().unwrap();
    assert_eq!((exit, running.oom_kills()), (Exit::Signal(libc::SIGKILL), 1));
    let small = limited(
        fixture.container(&["true"]),
        "memory",
        Limits { memory_bytes: Some(32 << 20), ..Limits::default() },
    );
    let (mut running, _) = fixture.spawn(small).unwrap();
    assert_eq!((running.wait().unwrap(), running.oom_kills()), (Exit::Code(0), 0));
}

/// What a running container's group is to another process: found by name, stopped, counted, changed, killed.
pub(crate) fn groups_are_found_by_name(fixture: &Fixture) {
    let Some(support) = support() else { return };
    let container =
        limited(fixture.container(&["sleep", "1000"]), "name", Limits { pids: Some(9), ..Limits::default() });
    let (mut running, _) = fixture.spawn(container).unwrap();
    let name = running.cgroup().unwrap().name().to_owned();
    let group = Cgroup::open(support, &name).unwrap();
    assert_eq!(group.processes(), [running.handle().pid()]);
    let stats = group.stats();
    assert_eq!((stats.pids, stats.pids_limit), (1, Some(9)));
    assert!(stats.cpu_ns > 0, "{stats:?}");
    group.update(&Limits { pids: Some(5), ..Limits::default() }).unwrap();
    assert_eq!(group.stats().pids_limit, Some(5));
    if support.controllers().iter().any(|(controller, _)| *controller == Controller::Freezer) {
        group.freeze().unwrap();
    }
    // A leftover it is not, even if nobody looked after it.
    rbuild_executor::cgroup::clean_up(support, None);
    group.kill().unwrap();
    assert_eq!(running.wait().unwrap(), Exit::Signal(libc::SIGKILL));
    drop((running, group));
    assert!(Cgroup::open(support, &name).is_err());
}

pub(crate) fn leftovers_are_removed(_: &Fixture) {
    let Some(support) = support() else { return };
    let spec = |name: &str| CgroupSpec {
        name: format!("test-{name}-{}", std::process::id()),
        accounting: true,
        ..CgroupSpec::default()
    };
    let (kept, left) = (spec("kept"), spec("left"));
    let kept = Cgroup::create(support, &kept).unwrap();
    let name = Cgroup::create(support, &left).unwrap().name().to_owned();
    rbuild_executor::cgroup::clean_up(support, None);
    assert!(Cgroup::open(support, &name).is_err());
    assert!(Cgroup::open(support, kept.name()).is_ok());
    kept.remove().unwrap();
}

pub(crate) fn impossible_limits_are_named(fixture: &Fixture) {
    let Some(_) = support() else { return };
    let limits = Limits { cpuset_cpus: Some("9999".to_owned()), ..Limits::default() };
    let error =
        fixture.try_run(limited(fixture.container(&["true"]), "cpus", limits)).unwrap_err().to_string();
    assert!(error.starts_with("failed to write `9999` to `/sys/fs/cgroup/"), "{error}");
}

/// Root may make device files, and does not get at the disks of the machine with them.
pub(crate) fn devices_are_shut(fixture: &Fixture) {
    if fixture.privilege.in_user_namespace() {
        let output = fixture.run(fixture.shell("mknod /tmp/null c 1 3"));
        assert!(output.stderr.contains("not permitted"), "{output:?}");
        return;
    }
    // A disk, and the kernel's log, which root can read as long as nobody forbids it.
    let script = "mknod /tmp/null c 1 3 && echo x >/tmp/null && echo null; rm -f /tmp/null
        for at in /tmp /dev; do mknod $at/disk b 8 0 && head -c 1 $at/disk; rm -f $at/disk; done
        mknod /tmp/log c 1 11 && head -c 1 /tmp/log | wc -c; rm -f /tmp/log; echo x >/dev/full";
    let output = fixture.run(fixture.shell(script));
    assert_eq!(output.stdout, "null\n0\n", "{output:?}");
    assert_eq!(output.stderr.matches("Operation not permitted").count(), 3, "{output:?}");
    let mut insecure = fixture.shell(script);
    insecure.security = rbuild_executor::Security::Insecure;
    let output = fixture.run(insecure);
    assert!(output.stdout.ends_with("1\n"), "{output:?}");
}
