//! Without root: this process moves into a user namespace in which it is root.
//!
//! The process keeps its id, terminal and place in the process tree; only its view of ids changes. The order:
//!
//! 1. A helper is forked, which stays outside: the set-user-id programs that write the maps work only there.
//! 2. This process unshares its user and mount namespaces, and tells the helper.
//! 3. The helper runs `newuidmap` and `newgidmap` with the ranges of `/etc/subuid` and `/etc/subgid`.
//! 4. Where there are no ranges or no such programs, one id is mapped, and everything in the namespace is that user's.
//!
//! From then on all code runs as root does, and what the namespace cannot do degrades where it is used.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::OnceLock;

use nix::sched::CloneFlags;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, User};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::CapabilitySet;
use thiserror::Error;

use crate::sys;

/// The largest `/etc/subuid` that is read.
const SUBID_FILE_SIZE_BYTES_MAX: u64 = 1024 * 1024;
/// The kernel's limit of lines in a map, less the one for the user itself.
const RANGES_MAX: usize = 339;

/// Why a process could not become root of a user namespace.
#[derive(Debug, Error)]
pub enum Error {
    /// The kernel refuses user namespaces: a limit of zero, or a security module.
    #[error("failed to create a user namespace")]
    Unshare(#[source] io::Error),
    /// A map could not be written.
    #[error("failed to write `{path}`")]
    Map {
        /// Which.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The process could not become user 0 of its namespace.
    #[error("failed to become root of the user namespace")]
    BecomeRoot(#[source] io::Error),
    /// Root was asked for, and this is not root.
    #[error("user {0} is not root")]
    NotRoot(u32),
    /// Not even a root directory of its own is to be had.
    #[error("isolation `chroot` needs the capability {0}")]
    NoChroot(&'static str),
    /// The helper could not be started; more than one thread is running, as a rule.
    #[error("failed to start the helper that maps ids")]
    Helper(#[source] io::Error),
}

/// What this process is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Privilege {
    /// It was root already.
    Root {
        /// Of a user namespace that somebody else made.
        in_user_namespace: bool,
    },
    /// Root of a user namespace made here, with these ids in it.
    UserNamespace {
        /// How many user ids, the user's own included; 1 where there are no ranges.
        uids: u64,
        /// How many group ids.
        gids: u64,
        /// Why only one id is mapped, where that is so.
        single: Option<SingleId>,
    },
    /// User 0 who may make no namespaces; whether that was asked for.
    Chroot {
        /// Or found to be the best that there is.
        asked: bool,
    },
}

impl Privilege {
    /// Whether this process is in a user namespace, whoever made it.
    pub fn in_user_namespace(&self) -> bool {
        !matches!(self, Self::Root { in_user_namespace: false })
    }
}

/// Why only one id is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SingleId {
    /// The user has no line in `/etc/subuid` or `/etc/subgid`.
    #[error("the user has no range of ids in `/etc/subuid` and `/etc/subgid`")]
    NoRanges,
    /// `newuidmap` or `newgidmap` is missing or refused.
    #[error("`newuidmap` or `newgidmap` is missing or refused the ranges")]
    NoHelper,
}

/// Some ids outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u32,
    count: u32,
}

/// How steps and containers are set apart from the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Isolation {
    /// As root where this process is, else in a user namespace.
    #[default]
    Auto,
    /// In a user namespace, even as root: the root inside then has no right outside, beyond root's own files.
    User,
    /// As root of the machine, or not at all.
    Root,
    /// As user 0, without namespaces.
    Chroot,
}

/// What user 0 needs to build without namespaces, by number: Docker's containers have it.
const CHROOT_NEEDS: [(CapabilitySet, &str); 7] = [
    (CapabilitySet::CHOWN, "CAP_CHOWN"),
    (CapabilitySet::DAC_OVERRIDE, "CAP_DAC_OVERRIDE"),
    (CapabilitySet::FOWNER, "CAP_FOWNER"),
    (CapabilitySet::SETUID, "CAP_SETUID"),
    (CapabilitySet::SETGID, "CAP_SETGID"),
    (CapabilitySet::SYS_CHROOT, "CAP_SYS_CHROOT"),
    (CapabilitySet::MKNOD, "CAP_MKNOD"),
];

/// Makes this process root, of a user namespace where `isolation` says so.
///
/// Must be called before any thread exists: at the start of `main`, after [`crate::init_hook`].
///
/// # Errors
///
/// The machine allows no user namespaces, or a thread is running; or [`Isolation::Root`] is not to be had.
pub fn enter(isolation: Isolation) -> Result<Privilege, Error> {
    let is_root = nix::unistd::geteuid().is_root();
    if isolation == Isolation::Root && !is_root {
        return Err(Error::NotRoot(nix::unistd::geteuid().as_raw()));
    }
    if isolation == Isolation::Chroot {
        return chroot(true);
    }
    let is_mighty = is_root && (isolation == Isolation::Root || has(CapabilitySet::SYS_ADMIN));
    if is_mighty && isolation != Isolation::User {
        return Ok(Privilege::Root { in_user_namespace: in_user_namespace() });
    }
    match enter_user_namespace() {
        // Where that is not to be had either, what is missing for it is the nearest thing to be given.
        Err(Error::Unshare(_)) if isolation == Isolation::Auto && is_root => chroot(false),
        entered => entered,
    }
}

fn has(capability: CapabilitySet) -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(capability))
}

/// Steps will be among the same processes as this one, which has secrets in its memory.
fn chroot(asked: bool) -> Result<Privilege, Error> {
    may_chroot()?;
    // It cannot be refused.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    Ok(Privilege::Chroot { asked })
}

fn may_chroot() -> Result<(), Error> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot(nix::unistd::geteuid().as_raw()));
    }
    let missing = CHROOT_NEEDS.iter().find(|(capability, _)| !has(*capability));
    missing.map_or(Ok(()), |(_, name)| Err(Error::NoChroot(name)))
}

fn enter_user_namespace() -> Result<Privilege, Error> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let ranges = (subordinate("/etc/subuid", uid), subordinate("/etc/subgid", uid));
    let privilege = match ranges {
        (uids, gids) if uids.is_empty() || gids.is_empty() => {
            unshare()?;
            map_single(uid, gid, SingleId::NoRanges)?
        }
        (uids, gids) => map_ranges((uid, &uids), (gid, &gids))?,
    };
    become_root().map_err(Error::BecomeRoot)?;
    Ok(privilege)
}

/// Whether this process is in a user namespace, whoever made it; looked at once, when all that are to come have been entered.
pub(crate) fn in_user_namespace() -> bool {
    static INSIDE: OnceLock<bool> = OnceLock::new();
    *INSIDE
        .get_or_init(|| !is_initial_map(&std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default()))
}

/// Whether a map is the one of the machine itself: every id is itself.
fn is_initial_map(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

fn unshare() -> Result<(), Error> {
    nix::sched::unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
        .map_err(|errno| Error::Unshare(errno.into()))
}

fn map_ranges((uid, uids): (Uid, &[Range]), (gid, gids): (Gid, &[Range])) -> Result<Privilege, Error> {
    let target = nix::unistd::getpid();
    let uid_map = map_arguments(target, uid.as_raw(), uids);
    let gid_map = map_arguments(target, gid.as_raw(), gids);
    let (mut go, helper) = start_helper(&uid_map, &gid_map).map_err(Error::Helper)?;
    unshare()?;
    go.write_all(b"!").map_err(Error::Helper)?;
    let status = loop {
        match waitpid(helper, None) {
            Err(nix::errno::Errno::EINTR) => {}
            other => break other.map_err(|errno| Error::Helper(errno.into()))?,
        }
    };
    if status != WaitStatus::Exited(helper, 0) {
        return map_single(uid, gid, SingleId::NoHelper);
    }
    Ok(Privilege::UserNamespace { uids: total(uids), gids: total(gids), single: None })
}

/// Forks the helper, which waits for one byte and then runs the two programs. No byte means that there is nothing to do.
fn start_helper(uid_map: &[String], gid_map: &[String]) -> io::Result<(File, Pid)> {
    let (wait, go) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let mut go = Some(go);
    let mut wait = Some(wait);
    let helper = sys::fork(|| {
        // Its own copy of the writing end would keep the pipe open.
        go.take();
        i32::from(!wait.take().is_some_and(|wait| help(wait, uid_map, gid_map)))
    })?;
    let go = go.take().ok_or(io::ErrorKind::BrokenPipe)?;
    Ok((File::from(go), helper))
}

fn help(wait: OwnedFd, uid_map: &[String], gid_map: &[String]) -> bool {
    File::from(wait).read_exact(&mut [0]).is_ok() && run("newuidmap", uid_map) && run("newgidmap", gid_map)
}

#[expect(clippy::disallowed_methods, reason = "the two set-user-id programs are the system's way to map ids")]
fn run(program: &str, arguments: &[String]) -> bool {
    let mut command = std::process::Command::new(program);
    command.args(arguments).stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// What `newuidmap` wants: the process, then triples of inside, outside, count. The user itself is root.
fn map_arguments(target: Pid, own: u32, ranges: &[Range]) -> Vec<String> {
    let mut arguments = vec![target.to_string(), "0".to_owned(), own.to_string(), "1".to_owned()];
    let mut inside = 1;
    for range in ranges {
        arguments.extend([inside.to_string(), range.first.to_string(), range.count.to_string()]);
        inside += u64::from(range.count);
    }
    arguments
}

fn total(ranges: &[Range]) -> u64 {
    1 + ranges.iter().map(|range| u64::from(range.count)).sum::<u64>()
}

/// Maps root to the user, and nothing else. The kernel allows it to everybody, for the right to set groups.
fn map_single(uid: Uid, gid: Gid, reason: SingleId) -> Result<Privilege, Error> {
    let write = |path: &str, text: &str| {
        std::fs::write(path, text).map_err(|source| Error::Map { path: path.into(), source })
    };
    // A helper that failed half-way has written the first map.
    if std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.trim().is_empty()) {
        write("/proc/self/uid_map", &format!("0 {uid} 1"))?;
    }
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/gid_map", &format!("0 {gid} 1"))?;
    Ok(Privilege::UserNamespace { uids: 1, gids: 1, single: Some(reason) })
}

/// The supplementary groups stay: they are what lets the user read its own files.
fn become_root() -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    nix::unistd::setresgid(gid, gid, gid)?;
    nix::unistd::setresuid(uid, uid, uid)?;
    Ok(())
}

/// The ranges of the user in a file like `/etc/subuid`; none when it cannot be read.
fn subordinate(path: &str, uid: Uid) -> Vec<Range> {
    let mut text = String::new();
    let Ok(file) = File::open(path) else { return Vec::new() };
    if file.take(SUBID_FILE_SIZE_BYTES_MAX).read_to_string(&mut text).is_err() {
        return Vec::new();
    }
    let name = User::from_uid(uid).ok().flatten().map(|user| user.name);
    parse_subordinate(&text, name.as_deref(), uid.as_raw())
}

/// Lines of `user:first:count`, where the user is a name or a number.
fn parse_subordinate(text: &str, name: Option<&str>, uid: u32) -> Vec<Range> {
    let range = |line: &str| {
        let (user, numbers) = line.split_once(':')?;
        let (first, count) = numbers.split_once(':')?;
        let mine = Some(user) == name || user.parse() == Ok(uid);
        let (first, count) = (first.trim().parse().ok()?, count.trim().parse().ok()?);
        (mine && count > 0).then_some(Range { first, count })
    };
    text.lines().filter_map(range).take(RANGES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_number() {
        let text = "# comment\nada:100000:65536\nbob:200000:65536\n1000:300000:10\nada:broken\nada:1:0\n";
        let ranges = [Range { first: 100_000, count: 65_536 }, Range { first: 300_000, count: 10 }];
        assert_eq!(parse_subordinate(text, Some("ada"), 1000), ranges);
        assert_eq!(parse_subordinate(text, None, 1000), ranges[1..]);
        assert_eq!(parse_subordinate(text, Some("eve"), 7), []);
    }

    #[test]
    fn maps_are_contiguous_from_the_user_up() {
        let ranges = [Range { first: 100_000, count: 65_536 }, Range { first: 300_000, count: 10 }];
        let arguments = map_arguments(Pid::from_raw(42), 1000, &ranges);
        assert_eq!(arguments.join(" "), "42 0 1000 1 1 100000 65536 65537 300000 10");
        assert_eq!(total(&ranges), 65_547);
    }

    #[test]
    fn the_machines_own_map_is_recognized() {
        assert!(is_initial_map("         0          0 4294967295\n"));
        assert!(!is_initial_map("         0       1000          1\n"));
        assert!(!is_initial_map(""));
    }
}
