//! What a step and a container do to the machine around them: its processes, its services, its terminal, its memory, its users.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use nix::pty::openpty;

use super::sandbox::Sandbox;
use crate::common::{TestEnvironment, has_cgroups};

#[test]
fn signals_to_all_processes_reach_none_outside() {
    let Some(test) = TestEnvironment::with_base() else { return };
    for signal in ["KILL", "STOP", "TERM", "HUP"] {
        let lines = format!("RUN kill -{signal} -1; kill -{signal} 1; true\nRUN true");
        let context = test.dockerfile(&format!("FROM busybox\n{lines}\n"));
        test.build(&context, &[]).succeeds();
    }
}

/// Services that listen on the loopback interface alone are for the machine alone.
#[test]
fn services_of_the_machine_s_loopback_interface_are_out_of_reach() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!(
        "for host in 127.0.0.1 0.0.0.0 machine $(ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p'); do \
         ! nc -w 3 $host {port} </dev/null || exit 1; done"
    );
    let context = test.dockerfile(&format!("FROM busybox\nRUN {script}\n"));
    test.build(&context, &["--add-host", "machine:host-gateway"]).succeeds();
    let run = ["run", "--rm", "--add-host", "machine:host-gateway", "busybox", "sh", "-c", &script];
    test.rbuild(&run).outcome().succeeds();
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "somebody came");
}

/// A container that was given the caller's terminal as a stream cannot type into it.
#[test]
fn the_terminal_of_the_caller_is_not_the_container_s() {
    let Some(sandbox) = Sandbox::new(&[]) else { return };
    for descriptor in ["0", "1", "2"] {
        let pty = openpty(None, None).unwrap();
        let end = || pty.slave.try_clone().unwrap();
        let run = [
            "run",
            "--rm",
            "-i",
            "--network",
            "none",
            "sandbox",
            "call",
            "ioctl",
            descriptor,
            "0x5412",
            "%61",
        ];
        let mut rbuild = sandbox.test.rbuild(&run).start_on(Stdio::null(), end(), end());
        assert!(!rbuild.wait().unwrap().success());
        let mut shown = [0; 4096];
        let count = File::from(pty.master).read(&mut shown).unwrap();
        let shown = String::from_utf8_lossy(&shown[..count]);
        assert!(shown.trim_end().ends_with("ENOTTY"), "descriptor {descriptor}: {shown}");
    }
}

/// Layers hold set-user-id programs: nobody else may come near them.
#[test]
fn other_users_do_not_get_at_programs_of_layers() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile("FROM busybox\nRUN cp /bin/busybox /suid && chmod 4755 /suid\n");
    test.build(&context, &["-t", "app"]).succeeds();
    let mode = fs::metadata(test.store()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

/// Where rbuild itself stays as the first process of a container, nobody inside sees what it has open, or steers it.
#[test]
fn the_small_init_is_closed() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let looks = "echo >>/proc/1/exe || readlink /proc/1/exe /proc/1/fd/* || cat /proc/1/environ || cat /proc/1/maps || ls /proc/1/root || \
                 readlink /proc/2/exe";
    let run = ["run", "--rm", "--init", "--network", "none", "busybox", "sh", "-c", looks];
    // The shell can be looked into, as a sign that one can look.
    assert_eq!(test.rbuild(&run).outcome().succeeds().stdout, "/bin/busybox\n");
}

#[test]
fn memory_that_looks_like_files_is_bounded() {
    let Some(test) = TestEnvironment::with_base() else { return };
    for (mount, path) in
        [("", "/dev/shm/x"), ("", "/dev/x"), ("--mount=type=tmpfs,target=/t,size=1m ", "/t/x")]
    {
        let context =
            test.dockerfile(&format!("FROM busybox\nRUN {mount}dd if=/dev/zero of={path} bs=1M count=80\n"));
        test.build(&context, &[]).exits(1).says(&["No space left on device"]);
    }
}

#[test]
fn bombs_go_off_inside() {
    let Some(test) = TestEnvironment::with_base() else { return };
    if !has_cgroups("bombs") {
        return;
    }
    let forks = "FROM busybox\nRUN bomb() { bomb | bomb & }; bomb; sleep 2\n";
    let limits = ["--pids-limit", "40", "-m", "64m", "--memory-swap", "64m"];
    let outcome = test.build(&test.dockerfile(forks), &limits);
    outcome.says(&["can't fork"]);
    let memory = "FROM busybox\nRUN tail /dev/zero\n";
    test.build(&test.dockerfile(memory), &limits).exits(1).says(&["killed: out of memory, limit 64 MiB"]);
    let files = "FROM busybox\nRUN --mount=type=tmpfs,target=/t dd if=/dev/zero of=/t/x bs=1M count=200\n";
    test.build(&test.dockerfile(files), &limits).exits(1).says(&["killed: out of memory, limit 64 MiB"]);
}
