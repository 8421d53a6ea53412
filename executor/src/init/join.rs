//! Entering the namespaces of a container that runs, for one more process in it.
//!
//! The PID namespace is not among them: only children enter one, so the parent has made this process in it. Until it has become
//! the user, this process holds all that rbuild may do, in sight of the container: it lets nobody look at its memory and its
//! descriptors.

use std::os::fd::OwnedFd;

use nix::sched::CloneFlags;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::handshake::{Step, StepExt as _};

/// Enters these namespaces of the process; the root of its mount namespace is `/` from then on.
pub(super) fn enter(container: &OwnedFd, namespaces: i32) -> Step<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step("hide from the container")?;
    nix::sched::setns(container, CloneFlags::from_bits_retain(namespaces))
        .step("join the namespaces of the container")
}
