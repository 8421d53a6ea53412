//! Containers at a person's terminal: keys, sizes, signals, and the terminal as it was afterwards.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::Child;

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::termios::{tcgetattr, tcsetwinsize};

use super::{clean_up, printed, state};
use crate::common::TestEnvironment;

const SIZE: Winsize = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
/// Leaves a container.
const DETACH: &[u8] = b"\x10\x11";
/// Interrupts what runs.
const INTERRUPT: &[u8] = b"\x03";

/// A command at a terminal, and the person in front of it.
struct Terminal {
    person: File,
    /// The command's side, which stays open.
    command: OwnedFd,
    child: Child,
    shown: String,
}

impl Terminal {
    fn start(test: &TestEnvironment, arguments: &[&str]) -> Self {
        let pty = openpty(Some(&SIZE), None).unwrap();
        let end = || pty.slave.try_clone().unwrap();
        let child = test.rbuild(arguments).start_on(end(), end(), end());
        Self { person: pty.master.into(), command: pty.slave, child, shown: String::new() }
    }

    /// Waits until a text is shown, after all that was waited for before.
    fn wait_for(&mut self, text: &str) {
        let mut buffer = [0; 4096];
        while !self.shown.contains(text) {
            let count = self.person.read(&mut buffer).unwrap();
            self.shown += &String::from_utf8_lossy(&buffer[..count]);
        }
        let behind = self.shown.find(text).unwrap() + text.len();
        self.shown.drain(..behind);
    }

    fn types(&mut self, keys: &[u8]) {
        self.person.write_all(keys).unwrap();
    }

    /// Another size, which the kernel tells the command where the terminal is its own.
    fn resize(&self, rows: u16, columns: u16) {
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.command, size).unwrap();
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), Signal::SIGWINCH).unwrap();
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

/// Says how large its terminal is whenever that changes, and that it was interrupted.
const WATCHER: &str = "trap 'stty size' WINCH; trap 'echo interrupted; exit 3' INT; stty size; \
    echo ready; while :; do sleep 0.01; done";

#[test]
fn keys_sizes_and_interrupts_reach_a_process() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let mut terminal = Terminal::start(
        &test,
        &["run", "-it", "--network", "none", "--name", "tty", "busybox", "sh", "-c", WATCHER],
    );
    let before = tcgetattr(&terminal.command).unwrap();
    terminal.wait_for("30 100");
    terminal.wait_for("ready");
    terminal.resize(40, 120);
    terminal.wait_for("40 120");
    let mut exec = Terminal::start(&test, &["exec", "-it", "tty", "sh", "-c", WATCHER]);
    exec.wait_for("30 100");
    exec.wait_for("ready");
    exec.resize(20, 60);
    exec.wait_for("20 60");
    exec.types(INTERRUPT);
    exec.wait_for("interrupted");
    assert_eq!(exec.exit_code(), Some(3));
    terminal.types(INTERRUPT);
    terminal.wait_for("interrupted");
    assert_eq!(terminal.exit_code(), Some(3));
    let after = tcgetattr(&terminal.command).unwrap();
    assert_eq!((before.local_modes, before.input_modes), (after.local_modes, after.input_modes));
    clean_up(&test, &["tty"]);
}

#[test]
fn a_container_can_be_left_and_found_again() {
    let Some(test) = TestEnvironment::with_base() else { return };
    printed(&test, &["run", "-dit", "--network", "none", "--name", "cat", "busybox", "cat"]);
    for round in ["first", "second"] {
        let mut terminal = Terminal::start(&test, &["attach", "cat"]);
        // The terminal itself shows what is typed before the container is there to do that.
        terminal.types(format!("{round}\n").as_bytes());
        terminal.wait_for(round);
        terminal.wait_for(round);
        terminal.types(DETACH);
        terminal.wait_for("read escape sequence");
        assert_eq!(terminal.exit_code(), Some(0));
        assert_eq!(state(&test, "cat", "Status"), "running");
    }
    let mut exec = Terminal::start(&test, &["exec", "-it", "--detach-keys", "ctrl-a,x", "cat", "cat"]);
    exec.types(b"here\n");
    exec.wait_for("here");
    exec.types(b"\x01x");
    assert_eq!(exec.exit_code(), Some(0));
    clean_up(&test, &["cat"]);
}
