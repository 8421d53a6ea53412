//! `--init`: PID 1 stays this program, and the user's program is its child.
//!
//! It passes on every signal that it gets, reaps what nobody else does, and ends as its child ended. By now it is the user,
//! without the capabilities that were taken away, and filtered.

use std::convert::Infallible;
use std::os::fd::AsFd as _;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, setpgid, tcsetpgrp};

use crate::handshake::{Channel, Failure, Message, Step, StepExt as _};
use crate::sys;

/// What a shell adds to the number of the signal that ended a command.
const EXIT_SIGNAL_BASE: i32 = 128;

/// Runs `program` in a child, and never returns in this process.
#[expect(clippy::exit, reason = "init has no caller to return to")]
pub(super) fn run(
    channel: &mut Channel,
    program: impl FnOnce(&mut Channel) -> Step<Infallible>,
) -> Step<Infallible> {
    // All that comes is waited for, and nothing gets lost meanwhile.
    SigSet::all().thread_set_mask().step("block signals")?;
    let child = sys::fork(|| {
        take_terminal();
        let failure = match program(channel) {
            Ok(never) => match never {},
            Err(failure) => failure,
        };
        // When the parent is gone there is nobody left to tell.
        drop(channel.send(&Message::Failed(failure)));
        libc::EXIT_FAILURE
    });
    let child = child.step("start the program")?;
    // The parent of both waits for the end of this stream, which the child's copy alone may hold up.
    let (none, _) = Channel::pair().map_err(|error| Failure::Handshake { reason: error.to_string() })?;
    *channel = none;
    std::process::exit(serve(child));
}

/// What the user types is for the program, and not for PID 1 as well.
fn take_terminal() {
    let stdin = std::io::stdin();
    // Where there is no terminal there is nothing to take.
    if setpgid(Pid::from_raw(0), Pid::from_raw(0)).is_ok() {
        let _ = tcsetpgrp(stdin.as_fd(), getpid());
    }
}

/// The exit code of the child, when it has ended.
fn serve(child: Pid) -> i32 {
    loop {
        match SigSet::all().wait() {
            Ok(Signal::SIGCHLD) => {
                if let Some(code) = reap(child) {
                    return code;
                }
            }
            // One that has ended meanwhile needs no signal.
            Ok(signal) => drop(kill(child, signal)),
            // A real-time signal, for which there is no name.
            Err(_) => {}
        }
    }
}

/// Reaps all that has ended; the exit code of the child, if it was among it.
fn reap(child: Pid) -> Option<i32> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == child => code = Some(status),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                code = Some(EXIT_SIGNAL_BASE + signal as i32);
            }
            Ok(WaitStatus::StillAlive) => return code,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return code,
        }
    }
}
