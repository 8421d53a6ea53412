//! From start to end: exit codes, output, input, cancellation.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::Stdio as ProcessStdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rbuild_executor::{Container, Error, Exit, Process, Root, Stdio, TerminalSize};

use super::fixture::{Fixture, succeeded};

pub(crate) fn exit_codes(fixture: &Fixture) {
    for code in [0, 1, 3, 255] {
        let exit = fixture.run(fixture.shell(&format!("exit {code}"))).exit;
        assert_eq!(exit, Exit::Code(code));
        assert_eq!(exit.code(), code);
    }
}

pub(crate) fn signals(fixture: &Fixture) {
    // PID 1 ignores what it does not handle, even from outside of its namespace; others do not.
    assert_eq!(fixture.run(fixture.shell("sh -c 'kill -TERM $$'; exit $?")).exit, Exit::Code(143));
    let (mut running, _) =
        fixture.spawn(fixture.shell("trap 'exit 9' TERM; echo ready; while :; do :; done")).unwrap();
    let handle = running.handle();
    let signaller = std::thread::spawn(move || {
        // The handler is set some time after the program was executed; until then the signal is ignored.
        for _ in 0..1000 {
            handle.signal(libc::SIGTERM).unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    assert_eq!(running.wait().unwrap(), Exit::Code(9));
    drop(signaller);
    let (mut running, _) = fixture.spawn(fixture.shell("sleep 1000")).unwrap();
    running.kill().unwrap();
    let exit = running.wait().unwrap();
    assert_eq!((exit, exit.code()), (Exit::Signal(9), 137));
    // The end is remembered, and signals to what is gone are nothing.
    assert_eq!(running.wait().unwrap(), exit);
    running.signal(libc::SIGTERM).unwrap();
    assert!(running.signal(12345).is_err());
}

pub(crate) fn output_is_whole_and_in_order(fixture: &Fixture) {
    let output = fixture.run(fixture.shell("for i in $(seq 2000); do echo $i; echo e$i >&2; done"));
    let lines = |prefix: &str| (1..=2000).map(|i| format!("{prefix}{i}\n")).collect::<String>();
    assert_eq!(output.stdout, lines(""));
    assert_eq!(output.stderr, lines("e"));
    let big = fixture.sh("dd if=/dev/zero bs=65536 count=320 2>/dev/null | tr '\\0' x");
    assert_eq!(big.len(), 320 * 65536);
    // What a process in the background wrote before the end counts too.
    assert_eq!(fixture.sh("(echo late) & wait; printf tail"), "late\ntail");
}

pub(crate) fn stdin_is_empty(fixture: &Fixture) {
    assert_eq!(fixture.sh("cat; readlink /proc/self/fd/0"), "/dev/null\n");
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"given").unwrap();
    drop(writer);
    let collected = Arc::new(Mutex::new(Vec::<u8>::new()));
    let into = Arc::clone(&collected);
    let sink = Box::new(move |_, bytes: &[u8]| into.lock().unwrap().extend(bytes));
    let stdio = Stdio::Captured { stdin: Some(reader.into()), sink };
    fixture.executor.spawn(fixture.container(&["cat"]), stdio).unwrap().wait().unwrap();
    assert_eq!(*collected.lock().unwrap(), b"given");
}

pub(crate) fn environment_and_directory(fixture: &Fixture) {
    let mut container = fixture.container(&["env"]);
    container.process.env.push("ODD=a b=c".to_owned());
    assert_eq!(succeeded(fixture.run(container)), "PATH=/bin\nODD=a b=c\nHOME=/root\n");
    let mut container = fixture.container(&["env"]);
    container.process.env.push("HOME=/mine".to_owned());
    assert_eq!(succeeded(fixture.run(container)), "PATH=/bin\nHOME=/mine\n");

    let mut container = fixture.shell("pwd; stat -c %a .; umask");
    container.process.cwd = "/made/for/it".to_owned();
    assert_eq!(succeeded(fixture.run(container)), "/made/for/it\n755\n0022\n");
    assert!(fixture.root().join("made/for/it").is_dir(), "the directory is part of the result");
}

pub(crate) fn missing_programs(fixture: &Fixture) {
    let error = fixture.try_run(fixture.container(&["nosuch"])).unwrap_err();
    assert_eq!(error.exit_code(), Some(127));
    assert_eq!(error.to_string(), "exec: `nosuch`: executable file not found in $PATH");
    for program in ["/bin/nosuch", "./nosuch", "/bin/sh/nosuch"] {
        let error = fixture.try_run(fixture.container(&[program])).unwrap_err();
        assert_eq!(error.exit_code(), Some(127), "{program}: {error}");
    }
    assert!(matches!(fixture.try_run(fixture.container(&[])), Err(Error::NoProgram)));
    assert!(matches!(fixture.try_run(fixture.container(&[""])), Err(Error::ExecutableNotFound { .. })));
}

/// What the kernel said.
fn reason(error: &Error) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}

pub(crate) fn programs_that_cannot_run(fixture: &Fixture) {
    let tmp = fixture.root().join("tmp");
    std::fs::write(tmp.join("plain"), "text").unwrap();
    for program in ["/tmp/plain", "/tmp", "/"] {
        let error = fixture.try_run(fixture.container(&[program])).unwrap_err();
        assert_eq!(error.exit_code(), Some(126), "{error}");
        assert!(reason(&error).contains("Permission denied"), "{error:?}");
    }
    let mut container = fixture.container(&["plain"]);
    container.process.env = vec!["PATH=/tmp".to_owned()];
    assert_eq!(fixture.try_run(container).unwrap_err().exit_code(), Some(126));
    executable(&tmp.join("garbage"), "\0\0");
    let error = fixture.try_run(fixture.container(&["/tmp/garbage"])).unwrap_err();
    assert!(reason(&error).contains("Exec format error"), "{error:?}");
    executable(&tmp.join("orphan"), "#!/no/such/interpreter\n");
    assert_eq!(fixture.try_run(fixture.container(&["/tmp/orphan"])).unwrap_err().exit_code(), Some(127));
}

fn executable(path: &std::path::Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

pub(crate) fn scripts(fixture: &Fixture) {
    executable(&fixture.root().join("tmp/script"), "#!/bin/sh\necho \"$0 $1\"\n");
    assert_eq!(succeeded(fixture.run(fixture.container(&["/tmp/script", "x"]))), "/tmp/script x\n");
    // CVE-2019-5736: the name of init itself, which is rbuild's own file. It is another program by then, or cannot be written.
    executable(&fixture.root().join("tmp/evil"), "#!/proc/self/exe\n");
    match fixture.try_run(fixture.container(&["/tmp/evil"])) {
        Ok(output) => assert!(!output.exit.success(), "{output:?}"),
        Err(error) => assert!(error.exit_code().is_some(), "{error}"),
    }
}

pub(crate) fn cancellation(fixture: &Fixture) {
    let cancelled = Arc::new(AtomicBool::new(false));
    let (mut running, collected) = fixture.spawn(fixture.shell("echo started; sleep 1000")).unwrap();
    let flag = Arc::clone(&cancelled);
    let watched = Arc::clone(&collected);
    let canceller = std::thread::spawn(move || {
        while watched.lock().unwrap().0.is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
        flag.store(true, Ordering::Relaxed);
    });
    assert!(matches!(running.wait_cancellable(&cancelled), Err(Error::Cancelled)));
    canceller.join().unwrap();
    assert_eq!(collected.lock().unwrap().0, b"started\n");
    let (mut running, _) = fixture.spawn(fixture.shell("exit 4")).unwrap();
    assert_eq!(running.wait_cancellable(&AtomicBool::new(false)).unwrap(), Exit::Code(4));
}

pub(crate) fn killing_and_dropping(fixture: &Fixture) {
    let (running, _) = fixture.spawn(fixture.shell("sleep 1000 & sleep 1000")).unwrap();
    let pid = running.handle().pid();
    assert!(is_alive(pid));
    drop(running);
    assert!(!is_alive(pid));
}

fn is_alive(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // `pid (name) state`, and a zombie is not alive.
    status.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

pub(crate) fn terminal(fixture: &Fixture) {
    let collected = Arc::new(Mutex::new(Vec::<u8>::new()));
    let into = Arc::clone(&collected);
    let sink = Box::new(move |_, bytes: &[u8]| into.lock().unwrap().extend(bytes));
    let stdio = Stdio::Terminal { size: TerminalSize { rows: 33, columns: 44 }, sink };
    let script =
        "tty; stty size; echo >/dev/console console; read line; stty size; echo got $line; tty </dev/tty";
    let mut running = fixture.executor.spawn(fixture.shell(script), stdio).unwrap();
    running.resize(TerminalSize { rows: 33, columns: 44 }).unwrap();
    let handle = running.handle();
    let watched = Arc::clone(&collected);
    let typist = std::thread::spawn(move || {
        let contains = |what: &str| String::from_utf8_lossy(&watched.lock().unwrap()).contains(what);
        while !contains("console") {
            std::thread::sleep(Duration::from_millis(1));
        }
        handle.resize(TerminalSize { rows: 55, columns: 66 }).unwrap();
        let mut terminal = File::from(handle.terminal().unwrap().try_clone_to_owned().unwrap());
        terminal.write_all(b"typed\n").unwrap();
    });
    assert!(running.wait().unwrap().success());
    typist.join().unwrap();
    let text = String::from_utf8(collected.lock().unwrap().clone()).unwrap();
    assert_eq!(text.replace('\r', ""), "/dev/pts/0\n33 44\nconsole\ntyped\n55 66\ngot typed\n/dev/tty\n",);
}

/// Starts this program again as a parent, kills it, and looks whether its container went with it.
#[expect(clippy::disallowed_methods, reason = "a parent to kill")]
pub(crate) fn the_parents_death(fixture: &Fixture) {
    let mut parent = std::process::Command::new("/proc/self/exe")
        .arg("--victim")
        .arg(fixture.root())
        .stdout(ProcessStdio::piped())
        .spawn()
        .unwrap();
    let mut pid = String::new();
    let mut byte = [0];
    let mut stdout = parent.stdout.take().unwrap();
    while stdout.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        pid.push(char::from(byte[0]));
    }
    let pid: i32 = pid.parse().unwrap();
    assert!(is_alive(pid));
    parent.kill().unwrap();
    parent.wait().unwrap();
    for _ in 0..1000 {
        if !is_alive(pid) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("the container outlived its parent");
}

/// The parent to kill: prints the id of its container's process and waits for it.
pub(crate) fn victim() -> ! {
    let root = std::env::args_os().nth(2).unwrap();
    let executor = rbuild_executor::Executor::new(rbuild_executor::ExecutorOptions::default()).unwrap();
    let mut process = Process::new(["/bin/sleep", "1000"]);
    process.user = "0".to_owned();
    let container = Container::new(Root::Directory(root.into()), process);
    // Started on a thread that ends at once: only the end of the whole process counts.
    let spawned = std::thread::spawn(move || executor.spawn(container, Stdio::captured(|_, _: &[u8]| {})));
    let mut running = spawned.join().unwrap().unwrap();
    println!("{}", running.handle().pid());
    std::io::stdout().flush().unwrap();
    drop(running.wait());
    panic!("the container ended by itself");
}

pub(crate) fn many_at_once(fixture: &Fixture) {
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for round in 0..8 {
                    let script = format!("echo {thread}.{round}");
                    assert_eq!(fixture.sh(&script), format!("{thread}.{round}\n"));
                }
            });
        }
    });
}

pub(crate) fn inherited_files(fixture: &Fixture) {
    let directory = fixture.beside("files");
    let open = |name: &str| -> std::os::fd::OwnedFd {
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(directory.join(name))
            .unwrap()
            .into()
    };
    std::fs::write(directory.join("in"), "input").unwrap();
    let stdio = Stdio::Files { stdin: open("in"), stdout: open("out"), stderr: open("err") };
    let mut running = fixture.executor.spawn(fixture.shell("cat; echo wrong >&2"), stdio).unwrap();
    assert!(running.wait().unwrap().success());
    assert_eq!(std::fs::read_to_string(directory.join("out")).unwrap(), "input");
    assert_eq!(std::fs::read_to_string(directory.join("err")).unwrap(), "wrong\n");
}
