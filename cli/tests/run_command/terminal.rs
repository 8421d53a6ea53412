//! `rbuild run` at a terminal: the test holds the other side of it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::Child;

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};
use nix::unistd::Pid;
use rustix::termios::tcsetwinsize;

use super::run_rm;
use crate::common::TestEnvironment;

/// A program at a terminal.
struct Session {
    user: File,
    terminal: OwnedFd,
    before: Termios,
    rbuild: Child,
    shown: String,
}

impl Session {
    fn start(test: &TestEnvironment, arguments: &[&str]) -> Self {
        let size = Winsize { ws_row: 33, ws_col: 99, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        let end = || pty.slave.try_clone().unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        let rbuild = run_rm(test, arguments).start_on(end(), end(), end());
        Self { user: pty.master.into(), terminal: pty.slave, before, rbuild, shown: String::new() }
    }

    fn type_in(&mut self, keys: &str) {
        self.user.write_all(keys.as_bytes()).unwrap();
    }

    /// Reads what is shown until there is `text`; what was shown before is forgotten.
    #[track_caller]
    fn wait_for(&mut self, text: &str) {
        let mut buffer = [0; 4096];
        loop {
            if let Some(at) = self.shown.find(text) {
                self.shown.drain(..at + text.len());
                return;
            }
            let count = self.user.read(&mut buffer).unwrap();
            self.shown.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.terminal).unwrap().local_flags.intersects(LocalFlags::ICANON | LocalFlags::ECHO)
    }

    /// Waits for the end; the terminal must be as it was.
    #[track_caller]
    fn ends_with(mut self, code: i32) {
        assert_eq!(self.rbuild.wait().unwrap().code(), Some(code));
        assert_eq!(tcgetattr(&self.terminal).unwrap(), self.before);
    }
}

#[test]
fn a_terminal_is_the_container_s_own() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let script = "tty; stty size; echo $TERM; read line; echo got:$line; exit 7";
    let mut session = Session::start(&test, &["-it", "busybox", "sh", "-c", script]);
    session.wait_for("/dev/pts/0\r\n33 99\r\nxterm\r\n");
    assert!(session.is_raw());
    session.type_in("typed\r");
    session.wait_for("typed\r\ngot:typed\r\n");
    session.ends_with(7);
}

#[test]
fn a_terminal_follows_the_user_s_size() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let script = "trap 'stty size; exit' WINCH; echo up; while :; do sleep 0.01; done";
    let mut session = Session::start(&test, &["-it", "busybox", "sh", "-c", script]);
    session.wait_for("up\r\n");
    let size = rustix::termios::Winsize { ws_row: 50, ws_col: 132, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&session.terminal, size).unwrap();
    // The kernel tells only those whose controlling terminal it is.
    kill(Pid::from_raw(session.rbuild.id().try_into().unwrap()), Signal::SIGWINCH).unwrap();
    session.wait_for("50 132\r\n");
    session.ends_with(0);
}

#[test]
fn control_c_is_a_key_of_the_container_s() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let script = "trap 'echo interrupted; exit 4' INT; echo up; while :; do sleep 0.01; done";
    let mut session = Session::start(&test, &["-it", "busybox", "sh", "-c", script]);
    session.wait_for("up\r\n");
    session.type_in("\x03");
    session.wait_for("interrupted\r\n");
    session.ends_with(4);
}

#[test]
fn a_terminal_is_restored_when_nothing_could_run() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let mut session = Session::start(&test, &["-it", "busybox", "nosuch"]);
    session.wait_for("executable file not found");
    session.ends_with(127);
}

#[test]
fn without_t_the_user_s_terminal_is_not_given_away() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let script = "for n in 0 1 2; do [ -t $n ] && echo terminal $n; done; echo done";
    let mut session = Session::start(&test, &["-i", "busybox", "sh", "-c", script]);
    session.wait_for("done");
    assert!(!session.shown.contains("terminal"));
    session.ends_with(0);
}
