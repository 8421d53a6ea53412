//! Becoming the user, as the container's own files define it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::unistd::{Gid, Uid};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};

use super::targets::read_beneath;
use crate::error::Note;
use crate::handshake::{Channel, Failure, Message, Step, StepExt as _};
use crate::process::Process;
use crate::user::{self, USER_FILE_SIZE_BYTES_MAX, UserDatabase, UserIds};

/// Finds the user, and the groups; after `pivot_root`.
pub(super) fn look_up(process: &Process) -> Step<UserIds> {
    let root = openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).step_at("open", "/")?;
    let read = |path| read(root.as_fd(), path);
    let database = UserDatabase::parse(&read("/etc/passwd")?, &read("/etc/group")?).map_err(Failure::User)?;
    let mut ids = database.resolve(&process.user).map_err(Failure::User)?;
    database.join(&mut ids, &process.groups).map_err(Failure::User)?;
    Ok(ids)
}

/// The bytes of a regular file within the limit; none when it is missing.
fn read(root: BorrowedFd<'_>, path: &str) -> Step<Vec<u8>> {
    match read_beneath(root, path.as_ref(), USER_FILE_SIZE_BYTES_MAX) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        bytes => {
            bytes.step_at("read", path)?.ok_or_else(|| Failure::User(user::Error::BadFile(path.to_owned())))
        }
    }
}

/// The process's environment, with `HOME` where it has none, and with what leads it to those that it trusts.
pub(super) fn environment(process: &Process, ids: &UserIds) -> Vec<String> {
    let mut environment = process.env.clone();
    if !environment.iter().any(|line| line.starts_with("HOME=")) {
        let home = if ids.home.is_empty() { "/" } else { &ids.home };
        environment.push(format!("HOME={home}"));
    }
    process.trust.tell(&mut environment);
    environment
}

/// Gives the user the pipes or the terminal that were made for it, so that it can open `/dev/stdout`.
///
/// Never a device like `/dev/null`, which is the host's. A failure shows when the process opens it, if ever.
pub(super) fn own_stdio(uid: u32) {
    let own = |stream: BorrowedFd<'_>| {
        let _ = rustix::fs::fchown(stream, Some(rustix::fs::Uid::from_raw(uid)), None);
    };
    if rustix::termios::isatty(io::stdin()) {
        own(io::stdin().as_fd());
        return;
    }
    let is_pipe = |stream: BorrowedFd<'_>| {
        fstat(stream).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_fifo())
    };
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let streams = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    streams.into_iter().filter(|stream| is_pipe(*stream)).for_each(own);
}

/// Takes on the groups and the user. A user other than 0 loses all capabilities by it.
pub(super) fn become_user(ids: &UserIds, channel: &mut Channel) -> Step<()> {
    let (uid, gid) = (Uid::from_raw(ids.uid), Gid::from_raw(ids.gid));
    let groups: Vec<Gid> =
        std::iter::once(gid).chain(ids.additional.iter().copied().map(Gid::from_raw)).collect();
    match nix::unistd::setgroups(&groups) {
        Err(nix::errno::Errno::EPERM) if setgroups_denied() => {
            if !ids.additional.is_empty() {
                let note = Message::Note(Note::NoSupplementaryGroups);
                channel.send(&note).map_err(|error| Failure::Handshake { reason: error.to_string() })?;
            }
        }
        // Distributions list their root in groups that a short range of ids does not map.
        Err(nix::errno::Errno::EINVAL) => {
            nix::unistd::setgroups(&[gid]).step(&format!("set the group {gid}"))?;
        }
        other => other.step("set the supplementary groups")?,
    }
    become_id(nix::unistd::setresgid(gid, gid, gid), &format!("group {gid}"))?;
    become_id(nix::unistd::setresuid(uid, uid, uid), &format!("user {uid}"))
}

/// An id that the namespace has not is no valid one to the kernel.
fn become_id(changed: nix::Result<()>, id: &str) -> Step<()> {
    match changed {
        Err(nix::errno::Errno::EINVAL) => {
            changed.step(&format!("become {id}, which this user namespace has not"))
        }
        _ => changed.step(&format!("become {id}")),
    }
}

fn setgroups_denied() -> bool {
    std::fs::read_to_string(Path::new("/proc/self/setgroups")).is_ok_and(|text| text.trim() == "deny")
}
