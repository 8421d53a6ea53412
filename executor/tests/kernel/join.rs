//! A further process in a container that runs.

use std::sync::{Arc, Mutex};

use rbuild_executor::{Error, Handle, Process, Security, Stdio, TerminalSize};

use super::fixture::Fixture;

/// What a script prints, and how it ends, in the container of a process.
fn joined(fixture: &Fixture, container: &Handle, script: &str) -> Result<(String, i32), Error> {
    let output = Arc::new(Mutex::new(Vec::<u8>::new()));
    let into = Arc::clone(&output);
    let stdio = Stdio::captured(move |_, bytes: &[u8]| into.lock().unwrap().extend(bytes));
    let mut running = fixture.executor.join(container, process(script), Security::Sandbox, stdio)?;
    let code = running.wait()?.code();
    let text = String::from_utf8(output.lock().unwrap().clone()).unwrap();
    Ok((text, code))
}

fn process(script: &str) -> Process {
    let mut process = Process::new(["sh", "-c", script]);
    process.env = vec!["PATH=/bin".to_owned()];
    process
}

pub(crate) fn joined_processes_see_the_container(fixture: &Fixture) {
    let mut container = fixture.shell("hostname >/tmp/name; exec sleep 1000");
    container.hostname = "inner".to_owned();
    let (mut running, _) = fixture.spawn(container).unwrap();
    let handle = running.handle();
    let links = "for n in mnt pid ipc uts net cgroup; do readlink /proc/self/ns/$n; done";
    let own = joined(fixture, &handle, links).unwrap().0;
    let first = joined(fixture, &handle, &links.replace("self", "1")).unwrap().0;
    assert_eq!(own, first);
    assert_eq!(joined(fixture, &handle, "hostname; exit 7").unwrap(), ("inner\n".to_owned(), 7));
    assert_eq!(joined(fixture, &handle, "test $$ -ne 1 && kill -0 1").unwrap().1, 0);
    let caps = "grep -E 'Cap(Prm|Eff|Bnd)|Seccomp:' /proc/self/status | cut -f2";
    let (own, first) = (joined(fixture, &handle, caps), joined(fixture, &handle, &caps.replace("self", "1")));
    assert_eq!(own.unwrap(), first.unwrap());
    assert_eq!(joined(fixture, &handle, "ls /proc/self/fd | wc -l").unwrap().0, "4\n");
    let root = handle.root().unwrap();
    rustix::fs::statat(&root, "tmp/name", rustix::fs::AtFlags::empty()).unwrap();
    running.kill().unwrap();
    running.wait().unwrap();
    assert!(joined(fixture, &handle, "true").is_err());
    assert!(handle.root().is_err());
}

pub(crate) fn joined_processes_end_with_the_container(fixture: &Fixture) {
    let (mut running, _) = fixture.spawn(fixture.shell("exec sleep 1000")).unwrap();
    let stdio = Stdio::captured(|_, _: &[u8]| {});
    let sleeping = process("exec sleep 1000");
    let mut joined = fixture.executor.join(&running.handle(), sleeping, Security::Sandbox, stdio).unwrap();
    running.kill().unwrap();
    assert_eq!(joined.wait().unwrap().code(), 137);
    assert_eq!(running.wait().unwrap().code(), 137);
}

pub(crate) fn joined_processes_have_terminals(fixture: &Fixture) {
    let (running, _) = fixture.spawn(fixture.shell("exec sleep 1000")).unwrap();
    let output = Arc::new(Mutex::new(Vec::<u8>::new()));
    let into = Arc::clone(&output);
    let sink = Box::new(move |_, bytes: &[u8]| into.lock().unwrap().extend(bytes));
    let stdio = Stdio::Terminal { size: TerminalSize { rows: 12, columns: 34 }, sink };
    let tty = process("tty; stty size");
    fixture.executor.join(&running.handle(), tty, Security::Sandbox, stdio).unwrap().wait().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.lock().unwrap()), "/dev/pts/0\r\n12 34\r\n");
}
