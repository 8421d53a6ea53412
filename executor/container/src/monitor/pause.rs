//! Freezing a container: by its control group, or one process at a time where there is none.

use rustix::process::{Pid, Signal, kill_process};

use super::{Current, Monitor};
use crate::ContainerError;
use crate::processes::descendants;
use crate::signal::{CONT, STOP};
use crate::state::Status;

impl Monitor {
    /// Freezes all processes; a word on how, where that is not as it should be.
    pub(super) fn pause(&self, current: &Current) -> Result<Option<String>, ContainerError> {
        let frozen = current.handle.cgroup().ok().flatten().map(|cgroup| cgroup.freeze());
        let note = match frozen {
            Some(Ok(())) => None,
            _ => {
                signal_all(STOP);
                Some(
                    "there is no freezer: the processes were stopped with SIGSTOP, which they can tell"
                        .to_owned(),
                )
            }
        };
        self.containers.change(&self.id, |state| {
            if let Status::Running(run) = &state.status {
                state.status = Status::Paused(run.clone());
            }
        })?;
        Ok(note)
    }

    /// Lets a frozen container go on, and notes that.
    pub(super) fn unpause(&self, current: &Current) -> Result<(), ContainerError> {
        let thawed = current.handle.cgroup().ok().flatten().map(|cgroup| cgroup.thaw());
        if !matches!(thawed, Some(Ok(()))) {
            signal_all(CONT);
        }
        self.containers.change(&self.id, |state| {
            if let Status::Paused(run) = &state.status {
                state.status = Status::Running(run.clone());
            }
        })
    }

    /// The same where it is frozen; otherwise nothing.
    pub(super) fn thaw(&self, current: &Current) -> Result<(), ContainerError> {
        let is_paused = matches!(self.container()?.state.status, Status::Paused(_));
        if is_paused { self.unpause(current) } else { Ok(()) }
    }
}

/// Signals all processes of the container, which are the descendants of this one.
fn signal_all(number: i32) {
    let Some(signal) = Signal::from_named_raw(number) else { return };
    for pid in descendants(rustix::process::getpid().as_raw_nonzero().get()) {
        // One that has ended meanwhile needs no signal.
        let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, signal));
    }
}
