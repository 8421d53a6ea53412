//! A process without namespaces of its own: in a root directory of its own, beneath a supervisor that ends what it leaves.
//!
//! The supervisor is a copy of init that stays outside of the root directory. Every process that loses its parent becomes its
//! child, so it finds all of them, whatever they have become, as a PID namespace would.

use std::os::fd::OwnedFd;

use landlock::{
    ABI, Access as _, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _,
    RulesetError, RulesetStatus, Scope,
};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::error::Note;
use crate::handshake::{Channel, Failure, Message, Step, StepExt as _};
use crate::sys;

/// The newest rights that this knows; the kernel takes those that it knows.
const LANDLOCK: ABI = ABI::V6;

/// Runs `child` in a copy of this process, and ends like it when all processes that came of it have ended.
pub(super) fn supervise(channel: Channel, child: impl FnOnce(Channel)) -> Step<()> {
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own)).step("adopt the processes that are left")?;
    // All signals are blocked: it is waited for below.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .step("ask to be told of the parent's end")?;
    let mut channel = Some(channel);
    let first = sys::fork(|| {
        channel.take().map(child);
        libc::EXIT_FAILURE
    });
    let first = first.step("create a process")?;
    // Else the parent would not see the child's end of it closed.
    drop(channel);
    let end = wait_for(first);
    end_all();
    end_like(end)
}

/// Waits for the process, or for a word that it is to end.
fn wait_for(first: Pid) -> WaitStatus {
    let signals: SigSet = [Signal::SIGCHLD, Signal::SIGTERM].into_iter().collect();
    loop {
        if signals.wait() == Ok(Signal::SIGTERM) {
            return WaitStatus::Signaled(first, Signal::SIGKILL, false);
        }
        // Several ends are one signal.
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(status) if status.pid() == Some(first) => return status,
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(_) => {}
            }
        }
    }
}

/// Kills children until there are none: those of one that is killed become ours.
fn end_all() {
    let path = format!("/proc/self/task/{}/children", nix::unistd::gettid());
    loop {
        let children = std::fs::read_to_string(&path).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            // One that has ended meanwhile is a zombie until it is waited for here: the number is no other's.
            let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
        }
        if waitpid(None, None) == Err(Errno::ECHILD) {
            return;
        }
    }
}

#[expect(clippy::exit, reason = "the supervisor has nothing else to do")]
fn end_like(end: WaitStatus) -> ! {
    sys::reset_signals();
    if let WaitStatus::Signaled(_, signal, _) = end {
        let _ = kill(Pid::this(), signal);
    }
    std::process::exit(match end {
        WaitStatus::Exited(_, code) => code,
        _ => libc::EXIT_FAILURE,
    })
}

/// Makes `root` the root directory.
pub(super) fn enter(root: &OwnedFd) -> Step<()> {
    rustix::process::fchdir(root).step("change to the root directory")?;
    nix::unistd::chroot(".").step("change the root directory")
}

/// Keeps this process and all that come of it from files beside their root directory, which some way out of it may lead to, and
/// from processes that are not of them.
pub(super) fn confine(channel: &mut Channel) -> Step<()> {
    let restricted = restrict().map_err(|error| Failure::Handshake { reason: error.to_string() })?;
    if restricted == RulesetStatus::FullyEnforced {
        return Ok(());
    }
    let note = Message::Note(Note::NoLandlock);
    channel.send(&note).map_err(|error| Failure::Handshake { reason: error.to_string() })
}

fn restrict() -> Result<RulesetStatus, RulesetError> {
    let all = AccessFs::from_all(LANDLOCK);
    let ruleset = Ruleset::default().handle_access(all)?.scope(Scope::from_all(LANDLOCK))?.create()?;
    let status = match PathFd::new("/") {
        Ok(root) => ruleset.add_rule(PathBeneath::new(root, all))?.restrict_self()?,
        // Of no use then: nothing could be read.
        Err(_) => return Ok(RulesetStatus::NotEnforced),
    };
    Ok(status.ruleset)
}
