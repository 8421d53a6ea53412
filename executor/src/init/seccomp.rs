//! Installing the filter that the parent compiled.

use std::os::fd::OwnedFd;

use crate::error::Note;
use crate::handshake::{Channel, Failure, Message, Step, StepExt as _};
use crate::{seccomp, sys};

/// Reads the filter; the file is shared between containers, so its position is left alone.
pub(super) fn read(file: &OwnedFd) -> Step<Vec<libc::sock_filter>> {
    seccomp::read_file(file).step("read the system call filter")
}

/// Installs the filter without `no_new_privs`: set-user-id programs keep working, as in Docker.
pub(super) fn install(filter: &[libc::sock_filter], channel: &mut Channel) -> Step<()> {
    match sys::install_filter(filter) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => channel
            .send(&Message::Note(Note::NoSeccomp))
            .map_err(|error| Failure::Handshake { reason: error.to_string() }),
        other => other.step("install the system call filter"),
    }
}
