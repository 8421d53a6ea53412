//! The child's side: PID 1 of new namespaces or one more process in those of a container, single-threaded, from set-up to `execve`.
//!
//! The order is not free:
//!
//! 1. what needs the host's view: network, host name;
//! 2. mounts, then `pivot_root`, or the namespaces of the container that is joined: from here on every path is the container's;
//! 3. terminal, working directory, users: looked up in the container's files;
//! 4. the filter, while there is still the right to install one without `no_new_privs`;
//! 5. bounding set, limits (late: they are the process's, and may be too low for this program), groups, user, capabilities;
//! 6. the death signal, which a change of user clears;
//! 7. `execve`.

mod capabilities;
mod chroot;
mod exec;
mod join;
mod mounts;
mod reaper;
mod seccomp;
mod targets;
mod terminal;
mod user;

pub(crate) use mounts::{DEV_LINKS, DEVICES};
pub(crate) use targets::{open_beneath, read_beneath};

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use nix::sched::CloneFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::{DumpableBehavior, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::set_no_new_privs;

use crate::handshake::{
    Channel, Failure, IntoErrno as _, Message, NetworkSpec, NewPlace, Place, Spec, Step, StepExt as _,
};
use crate::process::Ulimit;
use crate::sys;

/// Becomes a container's init when this program was executed as one, and never returns then; otherwise does nothing.
///
/// Must be the first thing that `main` of every program does that uses [`crate::Executor`].
#[expect(clippy::exit, reason = "init has no caller to return to")]
pub fn init_hook() {
    let name = std::env::args_os().next();
    if name.is_some_and(|name| name.as_bytes() == sys::INIT_NAME.to_bytes()) {
        run();
        std::process::exit(libc::EXIT_FAILURE);
    }
}

/// Returns only when it failed, and has told the parent why.
fn run() {
    // Until it executes the program, which ends this, nobody in a container that is joined may look into it, or steer it.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let Ok(control) = sys::take_control_socket() else { return };
    let mut channel = Channel::new(control);
    let received = channel.receive_spec().map_err(|error| Failure::Handshake { reason: error.to_string() });
    let supervised = matches!(&received, Ok((Spec { place: Place::Chroot { .. }, .. }, _)));
    let go = move |mut channel: Channel| {
        let set_up = received.and_then(|(spec, descriptors)| set_up(spec, descriptors, &mut channel));
        let Err(failure) = set_up;
        // When the parent is gone there is nobody left to tell.
        drop(channel.send(&Message::Failed(failure)));
    };
    // What it fails with, the parent sees as an init that died.
    if supervised { drop(chroot::supervise(channel, go)) } else { go(channel) }
}

fn set_up(spec: Spec, descriptors: Vec<OwnedFd>, channel: &mut Channel) -> Step<std::convert::Infallible> {
    // Files of ours get exactly the permissions we ask for; the process's own mask comes last.
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    nix::unistd::setsid().step("start a session")?;
    let filter = spec.seccomp.map(|index| seccomp::read(&descriptors[index])).transpose()?;
    match &spec.place {
        Place::New(place) => create(place, &spec, descriptors, channel)?,
        Place::Join { container, namespaces } => join::enter(&descriptors[*container], *namespaces)?,
        Place::Chroot { root } => chroot::enter(&descriptors[*root])?,
    }
    if let Some(size) = spec.terminal {
        let name = terminal::open(size, channel)?;
        if let Place::New(_) = spec.place {
            terminal::console(&name)?;
        }
    }
    working_directory(&spec)?;
    if let Some(score) = spec.process.oom_score_adj {
        std::fs::write("/proc/self/oom_score_adj", score.to_string())
            .step(&format!("set the score for want of memory to {score}"))?;
    }
    // A machine without keyrings, or out of quota for them, has none to protect.
    drop(sys::join_new_session_keyring());
    let ids = user::look_up(&spec.process)?;
    let environment = user::environment(&spec.process, &ids);
    if spec.own_stdio {
        user::own_stdio(ids.uid);
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(spec.process.umask));

    if let Some(profile) = &spec.process.confinement.apparmor {
        apparmor(profile)?;
    }
    let no_new_privileges = spec.process.confinement.no_new_privileges;
    if no_new_privileges {
        set_no_new_privs(true).step("give up gaining privileges")?;
    }
    if let Place::Chroot { .. } = spec.place {
        chroot::confine(channel)?;
    }
    // With that given up nobody needs a right to install it, and what is in between need not be allowed by it.
    let (now, at_last) = if no_new_privileges { (None, filter) } else { (filter, None) };
    now.map_or(Ok(()), |filter| seccomp::install(&filter, channel))?;
    if !spec.insecure {
        capabilities::limit_bounding_set(spec.process.capabilities)?;
    }
    spec.process.ulimits.iter().try_for_each(limit)?;
    user::become_user(&ids, channel)?;
    if !spec.insecure {
        capabilities::limit(spec.process.capabilities)?;
    }
    die_with_parent(channel)?;
    at_last.map_or(Ok(()), |filter| seccomp::install(&filter, channel))?;
    let program = |channel: &mut Channel| exec::execute(&spec.process.args, &environment, channel);
    if spec.process.init { reaper::run(channel, program) } else { program(channel) }
}

/// The profile holds from the next `execve` on.
fn apparmor(profile: &str) -> Step<()> {
    let command = format!("exec {profile}");
    std::fs::write("/proc/self/attr/apparmor/exec", &command)
        .or_else(|_| std::fs::write("/proc/self/attr/exec", &command))
        .step(&format!("choose the AppArmor profile `{profile}`"))
}

/// Makes the container that this process is the first of.
fn create(place: &NewPlace, spec: &Spec, descriptors: Vec<OwnedFd>, channel: &mut Channel) -> Step<()> {
    // A kernel without cgroup namespaces shows the host's cgroup names, which does no harm.
    let _ = (!place.machine_cgroups).then(|| nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP));
    network(place.network, &descriptors)?;
    if !place.machine_uts {
        nix::unistd::sethostname(&place.hostname).step("set the host name")?;
        rustix::system::setdomainname(place.domainname.as_bytes()).step("set the domain name")?;
    }
    mounts::set_up(place, spec, descriptors, channel)
}

fn network(network: NetworkSpec, descriptors: &[OwnedFd]) -> Step<()> {
    match network {
        NetworkSpec::Host => Ok(()),
        NetworkSpec::None => {
            let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
                .step("open a socket")?;
            sys::loopback_up(socket.as_fd()).step("switch the loopback interface on")
        }
        NetworkSpec::Join(index) => nix::sched::setns(&descriptors[index], CloneFlags::CLONE_NEWNET)
            .step("join the network namespace"),
    }
}

fn limit(ulimit: &Ulimit) -> Step<()> {
    let value = |limit| (limit != u64::MAX).then_some(limit);
    let limit = Rlimit { current: value(ulimit.soft), maximum: value(ulimit.hard) };
    let name = ulimit.resource.name();
    match setrlimit(ulimit.resource.number(), limit) {
        Err(Errno::PERM) => {
            let shown =
                |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
            let here = shown(getrlimit(ulimit.resource.number()).maximum);
            let wanted = shown(limit.maximum);
            Err(Errno::PERM).step(&format!("raise the hard limit `{name}` from {here} to {wanted}"))
        }
        other => other.step(&format!("set the limit `{name}`")),
    }
}

/// A missing one is made: a step may have removed the directory that the next one starts in. Not in a container that runs:
/// as with Docker, its files are its own affair.
fn working_directory(spec: &Spec) -> Step<()> {
    let cwd = std::path::Path::new("/").join(&spec.process.cwd);
    let change = || {
        let changed = std::env::set_current_dir(&cwd);
        changed.map_err(|error| Failure::WorkingDirectory { path: cwd.clone(), errno: error.into_errno() })
    };
    let changed = change();
    if changed.is_ok() || matches!(spec.place, Place::Join { .. }) {
        return changed;
    }
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o755);
    builder.create(&cwd).step_at("create the working directory", &cwd)?;
    change()
}

/// From here on the kernel kills this process when the parent dies.
fn die_with_parent(channel: &Channel) -> Step<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .step("ask to be killed with the parent")?;
    // It may have died before.
    if channel.is_closed() {
        return Err(Failure::Handshake { reason: "the parent is gone".to_owned() });
    }
    Ok(())
}
