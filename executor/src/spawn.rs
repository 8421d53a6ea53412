//! The parent's side up to `execve`: opens what comes from the host, starts init, tells it everything.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};

use nix::sched::CloneFlags;
use rustix::fs::{CWD, MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;

use crate::capability::Capabilities;
use crate::cgroup::{Cgroup, CgroupSpec, Entrance, unique_name};
use crate::confinement::Confinement;
use crate::container::{Container, Device, PidNamespace, Security};
use crate::describe::{Descriptors, describe, namespaces};
use crate::error::Error;
use crate::handshake::{Channel, NewPlace, Place, Spec};
use crate::output::{OutputSink, Stdio, Stream, TerminalSize};
use crate::process::Process;
use crate::running::{Devices, Group, Handle, Running};
use crate::seccomp::Seccomp;
use crate::{seccomp, sys};

/// Choices that hold for all containers of an [`Executor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecutorOptions {
    /// Whether system calls are filtered in a sandbox.
    pub seccomp: bool,
}

impl Default for ExecutorOptions {
    fn default() -> Self {
        Self { seccomp: true }
    }
}

/// Starts processes in containers.
#[derive(Debug)]
pub struct Executor {
    options: ExecutorOptions,
    /// This program, in a form that nobody can write to; see [`own_program`].
    program: OwnedFd,
    /// The filter for [`Capabilities::DEFAULT`], compiled once.
    filter: OnceLock<OwnedFd>,
}

impl Executor {
    /// Prepares what all containers share.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`] when this process may not mount: it is neither root nor inside [`crate::rootless`].
    pub fn new(options: ExecutorOptions) -> Result<Self, Error> {
        let failed = |error| Error::setup_at("open", "/proc/self/exe", error);
        let program = own_program().map_err(failed)?;
        let program = prepared(program.as_fd()).map_err(|error| failed(error.into()))?;
        Ok(Self { options, program, filter: OnceLock::new() })
    }

    /// Starts the process of a container. When this returns, the program has been executed.
    ///
    /// Output is read by [`Running::wait`] only: a process that writes much stands still until then.
    ///
    /// # Errors
    ///
    /// Any but [`Error::Cancelled`]. Nothing is left of the container then.
    pub fn spawn(&self, mut container: Container, stdio: Stdio) -> Result<Running, Error> {
        if let Some(root) = container.plain_root() {
            return self.spawn_plain(container, root, stdio);
        }
        let mut wired = Wired::new(stdio)?;
        let (group, nodev) = confine(&mut container)?;
        wired.group = group;
        let network = std::mem::take(&mut container.network);
        let namespaces = namespaces(&network, &container);
        let pid = std::mem::take(&mut container.pid);
        if !matches!(pid, PidNamespace::Own) && wired.group.is_none() {
            return Err(Error::NoGroupToEnd);
        }
        let Container { process, security, .. } = &container;
        let (process, security) = (process.clone(), *security);
        let place = NewPlace { nodev, ..describe(container, &network, &mut wired.descriptors)? };
        let root = wired.descriptors.0[place.root].try_clone();
        wired.root = Some(root.map_err(|error| Error::setup("keep the root", error))?);
        let spec = self.spec(Place::New(Box::new(place)), process, security, &mut wired)?;
        let mut running = match pid {
            PidNamespace::Own => {
                let spawner = Spawner::shared().map_err(no_process)?;
                self.run(&spec, wired, spawner, move |init| sys::clone_init(namespaces, init))?
            }
            shared => self.run_among(&spec, wired, shared, namespaces)?,
        };
        running.keep_network(network);
        Ok(running)
    }

    /// Runs a process that sees others than its own.
    fn run_among(
        &self,
        spec: &Spec,
        wired: Wired,
        others: PidNamespace,
        namespaces: i32,
    ) -> Result<Running, Error> {
        let spawner = Spawner::new().map_err(no_process)?;
        let clone = move |init: &sys::InitDescriptors<'_>| {
            if let PidNamespace::Of(namespace) = &others {
                nix::sched::setns(namespace, CloneFlags::CLONE_NEWPID)?;
            }
            sys::clone_init(namespaces, init)
        };
        let mut running = self.run(spec, wired, &spawner, clone)?;
        running.keep(spawner);
        running.end_group();
        Ok(running)
    }

    /// Starts a further process in the container of one that runs. When this returns, the program has been executed. It ends
    /// with the container, whose end is not seen before this process has been waited for (`pid_namespaces(7)`).
    ///
    /// # Errors
    ///
    /// As for [`Executor::spawn`]; [`Error::Setup`] as well when the container's process has ended.
    pub fn join(
        &self,
        container: &Handle,
        mut process: Process,
        security: Security,
        stdio: Stdio,
    ) -> Result<Running, Error> {
        let mut wired = Wired::new(stdio)?;
        wired.joined_group = container.cgroup()?;
        if security.shuts_devices() && wired.joined_group.is_none() {
            process.capabilities = process.capabilities.without(Capabilities::MKNOD);
        }
        let failed = |error: io::Error| Error::setup("find the container's namespaces", error);
        let namespaces = foreign_namespaces(container.pid()).map_err(failed)?;
        let container = container.pidfd().try_clone_to_owned().map_err(failed)?;
        let place = Place::Join {
            container: wired.descriptors.keep(container.try_clone().map_err(failed)?),
            namespaces,
        };
        let spec = self.spec(place, process, security, &mut wired)?;
        let spawner = Spawner::new().map_err(no_process)?;
        let mut running = self.run(&spec, wired, &spawner, move |init| clone_into(&container, init))?;
        running.keep(spawner);
        Ok(running)
    }

    /// What init is told, once it is known where.
    pub(crate) fn spec(
        &self,
        place: Place,
        mut process: Process,
        security: Security,
        wired: &mut Wired,
    ) -> Result<Spec, Error> {
        if process.args.is_empty() {
            return Err(Error::NoProgram);
        }
        let insecure = security == Security::Insecure;
        process.confinement.apparmor =
            if insecure { None } else { process.confinement.apparmor_profile(apparmor_profiles()) };
        let filtered = self.options.seccomp && !insecure;
        let filter = if filtered { self.filter(&process)? } else { None };
        Ok(Spec {
            place,
            process,
            insecure,
            terminal: wired.terminal,
            own_stdio: wired.own,
            seccomp: filter.map(|filter| wired.descriptors.keep(filter)),
        })
    }

    /// Starts init and sees it through to the program.
    pub(crate) fn run(
        &self,
        spec: &Spec,
        wired: Wired,
        spawner: &Spawner,
        clone: impl Fn(&sys::InitDescriptors<'_>) -> io::Result<(i32, OwnedFd)> + Send + 'static,
    ) -> Result<Running, Error> {
        let (mut channel, init_end) =
            Channel::pair().map_err(|error| Error::setup("make a socket", error))?;
        let control = prepared(init_end.as_fd()).map_err(no_process)?;
        // As long as we had it, the stream would not end.
        drop(init_end);
        let program = prepared(self.program.as_fd()).map_err(no_process)?;
        let mut entrance = wired.entrance()?;
        let child = wired.child;
        let start = move || {
            let ChildStdio { stdin, stdout, stderr } = &child;
            let stdio = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
            let (program, control) = (program.as_fd(), control.as_fd());
            let begun =
                entrance.enter(|cgroup| clone(&sys::InitDescriptors { program, stdio, control, cgroup }));
            begun.map(|(pid, pidfd)| (pid, pidfd, entrance))
        };
        let (pid, pidfd, entrance) = spawner.run(start).and_then(|started| started).map_err(no_process)?;
        let mut running = Running::new(pid, pidfd, wired.outputs, wired.sink);
        // Init waits for its instructions, so all that it will do is done in the group.
        entrance.follow(pid).map_err(|error| Error::setup("enter the control group", error))?;
        wired.group.into_iter().for_each(|group| running.keep_group(group));
        let borrowed: Vec<BorrowedFd<'_>> = wired.descriptors.0.iter().map(AsFd::as_fd).collect();
        let told = channel.send_spec(spec, &borrowed);
        drop(wired.descriptors);
        running.hear(channel, told, wired.root)?;
        Ok(running)
    }

    fn filter(&self, process: &Process) -> Result<Option<OwnedFd>, Error> {
        let failed = |error| Error::setup("store the system call filter", error);
        let Process { capabilities, confinement: Confinement { seccomp, .. }, .. } = process;
        let compile = || seccomp::compile_to_file(seccomp, *capabilities).map_err(failed);
        if (*capabilities, seccomp) != (Capabilities::DEFAULT, &Seccomp::Default) {
            return compile();
        }
        if let Some(filter) = self.filter.get() {
            return filter.try_clone().map(Some).map_err(failed);
        }
        let Some(filter) = compile()? else { return Ok(None) };
        // Two threads may both have compiled it; the loser's equal copy goes.
        self.filter.get_or_init(|| filter).try_clone().map(Some).map_err(failed)
    }
}

pub(crate) fn no_process(error: impl Into<io::Error>) -> Error {
    Error::setup("create a process in new namespaces", error)
}

/// Which namespaces of a process are not this one's own. To join one's own is refused in the namespaces of another's.
fn foreign_namespaces(pid: i32) -> io::Result<i32> {
    const KINDS: [(&str, i32); 5] = [
        ("mnt", libc::CLONE_NEWNS),
        ("ipc", libc::CLONE_NEWIPC),
        ("uts", libc::CLONE_NEWUTS),
        ("net", libc::CLONE_NEWNET),
        ("cgroup", libc::CLONE_NEWCGROUP),
    ];
    let mut foreign = 0;
    for (name, flag) in KINDS {
        let of = |process: &dyn std::fmt::Display| std::fs::read_link(format!("/proc/{process}/ns/{name}"));
        if of(&pid)? != of(&"self")? {
            foreign |= flag;
        }
    }
    Ok(foreign)
}

/// Starts init in the PID namespace of another process. The calling thread cannot start others afterwards: the way back is
/// closed in a user namespace.
fn clone_into(container: &OwnedFd, init: &sys::InitDescriptors<'_>) -> io::Result<(i32, OwnedFd)> {
    nix::sched::setns(container, CloneFlags::CLONE_NEWPID)?;
    sys::clone_init(0, init)
}

/// The control group of a container, if it has one. A sandbox of root's always has one if it can: it is what keeps device files
/// shut. Where it cannot, none can be made, and those that an image brings must be shut by their mount: that is what is returned.
pub(crate) fn confine(container: &mut Container) -> Result<(Option<Group>, bool), Error> {
    let sandboxed = container.security.shuts_devices();
    let devices = if sandboxed { Devices::Confined } else { Devices::All };
    let own = || CgroupSpec { name: unique_name("sandbox"), optional: true, ..CgroupSpec::default() };
    let spec = container.cgroup.take().or_else(|| sandboxed.then(own));
    let mut allowed = container.devices.iter().map(Device::rule).collect::<Result<Vec<_>, _>>()?;
    allowed.append(&mut container.device_rules);
    let group = spec.map(|spec| Group::create(&spec, devices, &allowed)).transpose()?.flatten();
    let nodev = sandboxed && group.as_ref().is_none_or(|group| group.devices == Devices::All);
    if nodev {
        container.process.capabilities = container.process.capabilities.without(Capabilities::MKNOD);
    }
    Ok((group, nodev))
}

/// This program, to execute as init.
///
/// A process of a container can get hold of it: `#!/proc/self/exe` in an image names whatever executes the script
/// (CVE-2019-5736). So it is opened through a read-only mount of its own, or copied into a sealed file where its name leads to another file by now.
fn own_program() -> io::Result<OwnedFd> {
    let (path, own) = (std::fs::read_link("/proc/self/exe")?, rustix::fs::stat("/proc/self/exe")?);
    if let Ok(mount) = detached_clone(CWD, &path, OpenTreeFlags::empty()) {
        let opened = rustix::fs::fstat(&mount)?;
        if (opened.st_dev, opened.st_ino) == (own.st_dev, own.st_ino) {
            let readonly = sys::MountChange { set: libc::MOUNT_ATTR_RDONLY, ..Default::default() };
            sys::mount_setattr(mount.as_fd(), readonly)?;
            return Ok(mount);
        }
    }
    let copy = memfd_create("rbuild", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut copy = File::from(copy);
    io::copy(&mut File::open("/proc/self/exe")?, &mut copy)?;
    fcntl_add_seals(&copy, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(copy.into())
}

pub(crate) fn detached_clone(
    directory: BorrowedFd<'_>,
    path: &Path,
    flags: OpenTreeFlags,
) -> Result<OwnedFd, Errno> {
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(directory, path, clone | flags)
}

/// The AppArmor profiles of this machine, a line each; empty where only others may see them. None without AppArmor.
fn apparmor_profiles() -> Option<&'static str> {
    static PROFILES: OnceLock<Option<String>> = OnceLock::new();
    let look = || {
        let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").ok()?;
        let profiles =
            || std::fs::read_to_string("/sys/kernel/security/apparmor/profiles").unwrap_or_default();
        enabled.starts_with('Y').then(profiles)
    };
    PROFILES.get_or_init(look).as_deref()
}

/// A copy of a descriptor that is out of the way of those that a new init overwrites.
fn prepared(descriptor: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(descriptor, sys::PREPARED_FD_MIN)
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread that starts processes. It ends when this is dropped.
///
/// The kernel kills an init when the *thread* that made it ends (`PR_SET_PDEATHSIG`), so this must live as long as the process.
/// All its signals are blocked, which [`sys::clone_init`] needs.
#[derive(Debug)]
pub(crate) struct Spawner(Sender<Job>);

impl Spawner {
    fn new() -> io::Result<Self> {
        let (sender, jobs): (Sender<Job>, Receiver<Job>) = channel();
        let run = move || {
            // Blocking all signals of a thread cannot fail.
            let _ = nix::sys::signal::SigSet::all().thread_set_mask();
            jobs.into_iter().for_each(|job| job());
        };
        std::thread::Builder::new().name("spawner".to_owned()).spawn(run)?;
        Ok(Self(sender))
    }

    /// The one of all containers, which lives as long as this program.
    pub(crate) fn shared() -> io::Result<&'static Self> {
        static SHARED: OnceLock<Option<Spawner>> = OnceLock::new();
        SHARED.get_or_init(|| Self::new().ok()).as_ref().ok_or_else(Self::gone)
    }

    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let (sender, receiver) = channel();
        let job = Box::new(move || {
            // The receiver below waits for it.
            drop(sender.send(work()));
        });
        self.0.send(job).map_err(|_| Self::gone())?;
        receiver.recv().map_err(|_| Self::gone())
    }

    fn gone() -> io::Error {
        io::Error::other("the thread that starts containers is gone")
    }
}

/// The descriptors that become 0, 1 and 2.
#[derive(Debug)]
struct ChildStdio {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

/// [`Stdio`], opened, and all other descriptors of a process to be.
pub(crate) struct Wired {
    child: ChildStdio,
    outputs: Vec<(Stream, OwnedFd)>,
    sink: Option<Box<dyn OutputSink>>,
    terminal: Option<TerminalSize>,
    own: bool,
    /// What else init is given.
    pub(crate) descriptors: Descriptors,
    /// The root of a new container, where init may leave mount targets behind.
    root: Option<OwnedFd>,
    /// The control group of the process.
    pub(crate) group: Option<Group>,
    /// The control group of the container that it joins.
    joined_group: Option<Cgroup>,
}

impl Wired {
    pub(crate) fn new(stdio: Stdio) -> Result<Self, Error> {
        Self::open(stdio).map_err(|error| Error::setup("open standard input and output", error))
    }

    /// The way into the group that its process is to be in.
    fn entrance(&self) -> Result<Entrance, Error> {
        let own = self.group.as_ref().and_then(Group::cgroup);
        let entrance = own.or(self.joined_group.as_ref()).map(Cgroup::entrance).transpose()?;
        Ok(entrance.unwrap_or_default())
    }

    fn open(stdio: Stdio) -> io::Result<Self> {
        let mut outputs = Vec::new();
        let (child, sink, terminal, own) = match stdio {
            Stdio::Captured { stdin, sink } => {
                let stdin = stdin.map_or_else(null, Ok)?;
                let stdout = output_pipe(Stream::Stdout, &mut outputs)?;
                let stderr = output_pipe(Stream::Stderr, &mut outputs)?;
                (ChildStdio::new(&stdin, &stdout, &stderr)?, Some(sink), None, true)
            }
            Stdio::Inherit => (ChildStdio::new(io::stdin(), io::stdout(), io::stderr())?, None, None, false),
            Stdio::Files { stdin, stdout, stderr } => {
                (ChildStdio::new(&stdin, &stdout, &stderr)?, None, None, false)
            }
            // Init replaces them by the terminal that it makes.
            Stdio::Terminal { size, sink } => {
                let null = null()?;
                (ChildStdio::new(&null, &null, &null)?, Some(sink), Some(size), true)
            }
        };
        Ok(Self {
            child,
            outputs,
            sink,
            terminal,
            own,
            descriptors: Descriptors::default(),
            root: None,
            group: None,
            joined_group: None,
        })
    }
}

impl ChildStdio {
    fn new(stdin: impl AsFd, stdout: impl AsFd, stderr: impl AsFd) -> io::Result<Self> {
        Ok(Self {
            stdin: prepared(stdin.as_fd())?,
            stdout: prepared(stdout.as_fd())?,
            stderr: prepared(stderr.as_fd())?,
        })
    }
}

fn null() -> io::Result<OwnedFd> {
    Ok(File::options().read(true).write(true).open("/dev/null")?.into())
}

fn output_pipe(stream: Stream, outputs: &mut Vec<(Stream, OwnedFd)>) -> io::Result<OwnedFd> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    outputs.push((stream, reader));
    Ok(writer)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{StatVfsMountFlags, fcntl_get_seals, fstatvfs};

    use super::*;

    #[test]
    fn nobody_writes_to_the_program_that_becomes_init() {
        let program = own_program().unwrap();
        let is_readonly = fstatvfs(&program).unwrap().f_flag.contains(StatVfsMountFlags::RDONLY);
        let is_sealed = fcntl_get_seals(&program).is_ok_and(|seals| seals.contains(SealFlags::WRITE));
        assert!(is_readonly || is_sealed);
    }
}
