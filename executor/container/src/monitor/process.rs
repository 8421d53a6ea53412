//! From what a container is to what the executor runs.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use rbuild_executor::cgroup::{CgroupSpec, CgroupSupport, Limits};
use rbuild_executor::{
    Capabilities, Container as Room, Handle, Mount, MountFlags, MountSource, Names, Process, Root, Security,
    Stdio, TerminalSize,
};
use rustix::pipe::{PipeFlags, pipe_with};

use super::hub::{Hub, HubSink, locked};
use super::network::Joined;
use crate::protocol::Exec;
use crate::spec::{ContainerSpec, NetworkMode};
use crate::{Container, ContainerError, Volumes};

/// The `PATH` of an image that sets none, as Docker has it.
const PATH_DEFAULT: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the executor is to make of a container on its mounted root, and a word on each limit that cannot be kept.
pub(super) fn room(
    container: &Container,
    root: OwnedFd,
    network: Joined,
    mounts: Vec<Mount>,
) -> Result<(Room, Vec<String>), ContainerError> {
    let spec = &container.state.spec;
    let mut room = Room::new(Root::Detached(root), process(container)?);
    room.readonly_root = spec.readonly_root;
    room.hostname = hostname(container);
    room.names = names(spec);
    room.machine_ipc = spec.host_ipc;
    room.machine_cgroups = spec.host_cgroups;
    room.devices.clone_from(&spec.devices);
    room.device_rules.clone_from(&spec.device_rules);
    room.sysctls.clone_from(&spec.sysctls);
    room.network = network.network;
    room.dns = network.dns;
    room.security = security(spec.privileged);
    room.extra_hosts.clone_from(&spec.extra_hosts);
    room.mounts = mounts;
    room.shm_size_bytes = spec.shm_size_bytes.unwrap_or(room.shm_size_bytes);
    let support = CgroupSupport::get();
    let (limits, discarded) = support.keep(spec.limits.clone());
    if support.refusal().is_none() {
        room.cgroup = Some(CgroupSpec { limits, ..cgroup(container) });
    }
    let discarded = discarded.iter().map(ToString::to_string);
    Ok((room, discarded.chain(network.warning).collect()))
}

pub(super) const fn security(privileged: bool) -> Security {
    if privileged { Security::Insecure } else { Security::Sandbox }
}

/// The control group of a container, without limits.
pub(super) fn cgroup(container: &Container) -> CgroupSpec {
    let (parent, name) = (container.state.spec.cgroup_parent.clone(), container.id.clone());
    // Who names a parent relies on it.
    let optional = parent.is_none();
    CgroupSpec { parent, name, limits: Limits::default(), accounting: true, optional }
}

/// What it is called, and by whom.
pub(super) fn names(spec: &ContainerSpec) -> Names {
    if spec.host_uts { Names::Machine } else { Names::Own { domainname: spec.domainname.clone() } }
}

/// What its machine is called: on the host's network as the host, unless it was given a name.
pub(super) fn hostname(container: &Container) -> String {
    let spec = &container.state.spec;
    let is_hosts = spec.host_uts || spec.network == NetworkMode::Host;
    match spec.hostname.as_str() {
        "" if is_hosts => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        "" => container.short_id().to_owned(),
        name => name.to_owned(),
    }
}

fn process(container: &Container) -> Result<Process, ContainerError> {
    let spec = &container.state.spec;
    let args = spec.args();
    if args.is_empty() {
        return Err(ContainerError::NoCommand);
    }
    Ok(Process {
        env: environment(spec, &hostname(container), &[], spec.tty),
        cwd: absolute(&spec.config.working_dir),
        user: spec.config.user.clone(),
        groups: spec.groups.clone(),
        oom_score_adj: spec.oom_score_adj,
        ulimits: spec.ulimits.clone(),
        capabilities: capabilities(spec)?,
        trust: spec.trust.clone(),
        confinement: spec.confinement.clone(),
        init: spec.init,
        ..Process::new(args)
    })
}

/// A further process of a container.
pub(super) fn further(container: &Container, exec: &Exec) -> Result<Process, ContainerError> {
    let spec = &container.state.spec;
    Ok(Process {
        env: environment(spec, &hostname(container), &exec.env, exec.terminal.is_some()),
        cwd: absolute(exec.workdir.as_ref().unwrap_or(&spec.config.working_dir)),
        user: exec.user.as_ref().unwrap_or(&spec.config.user).clone(),
        groups: spec.groups.clone(),
        ulimits: spec.ulimits.clone(),
        capabilities: capabilities(spec)?,
        trust: spec.trust.clone(),
        confinement: spec.confinement.clone(),
        ..Process::new(exec.args.iter().cloned())
    })
}

fn environment(spec: &ContainerSpec, hostname: &str, extra: &[String], terminal: bool) -> Vec<String> {
    let mut config = spec.config.clone();
    for pair in extra {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        config.env_set(name, value);
    }
    if config.env_get("PATH").is_none() {
        config.env.insert(0, PATH_DEFAULT.to_owned());
    }
    if config.env_get("HOSTNAME").is_none() {
        config.env_set("HOSTNAME", hostname);
    }
    if terminal && config.env_get("TERM").is_none() {
        config.env_set("TERM", "xterm");
    }
    config.env
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// Docker's capabilities with those that were added and without those that were dropped. `ALL` comes first, as in Docker.
fn capabilities(spec: &ContainerSpec) -> Result<Capabilities, ContainerError> {
    let parse = |name: &String| {
        Capabilities::from_name(name).ok_or_else(|| ContainerError::UnknownCapability { name: name.clone() })
    };
    let added = spec.cap_add.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    let dropped = spec.cap_drop.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    let base = match (added.contains(&Capabilities::ALL), dropped.contains(&Capabilities::ALL)) {
        (true, _) => Capabilities::ALL,
        (false, true) => Capabilities::NONE,
        (false, false) => Capabilities::DEFAULT,
    };
    let single = |set: &Capabilities| *set != Capabilities::ALL;
    let with = added.into_iter().filter(single).fold(base, Capabilities::union);
    Ok(dropped.into_iter().filter(single).fold(with, Capabilities::without))
}

/// What it is shown beside its own files; what is inside of something else comes after it.
pub(super) fn mounts(spec: &ContainerSpec, volumes: &Volumes) -> Vec<Mount> {
    let volumes = spec.volumes.iter().map(|volume| Mount {
        target: volume.target.clone().into(),
        source: MountSource::Bind(volumes.data(&volume.name)),
        flags: MountFlags { readonly: volume.readonly, ..MountFlags::default() },
    });
    let binds = spec.binds.iter().map(|bind| Mount {
        target: bind.target.clone().into(),
        source: MountSource::Bind(bind.source.clone().into()),
        flags: MountFlags { readonly: bind.readonly, ..MountFlags::default() },
    });
    let tmpfs = spec.tmpfs.iter().map(|tmpfs| Mount {
        target: tmpfs.target.clone().into(),
        source: MountSource::Tmpfs(tmpfs.options),
        flags: MountFlags {
            readonly: tmpfs.readonly,
            nosuid: !tmpfs.suid,
            nodev: !tmpfs.dev,
            noexec: !tmpfs.exec,
        },
    });
    let mut mounts: Vec<Mount> = volumes.chain(binds).chain(tmpfs).collect();
    mounts.sort_by_key(|mount| mount.target.components().count());
    mounts
}

/// The input of a process, as long as there is one.
#[derive(Debug, Default)]
pub(super) struct Input(Mutex<Option<Arc<Sink>>>);

#[derive(Debug)]
enum Sink {
    Pipe(File),
    Terminal(Handle),
}

impl Input {
    /// The standard descriptors of a process, and its input as far as there is one before it runs.
    pub(super) fn stdio(
        terminal: Option<TerminalSize>,
        open: bool,
        hub: &Arc<Hub>,
    ) -> Result<(Stdio, Self), ContainerError> {
        let sink = Box::new(HubSink(Arc::clone(hub)));
        if let Some(size) = terminal {
            return Ok((Stdio::Terminal { size, sink }, Self::default()));
        }
        let pipe = open.then(|| pipe_with(PipeFlags::CLOEXEC)).transpose();
        let pipe = pipe.map_err(|error| ContainerError::io("make", "a pipe".as_ref())(error.into()))?;
        let (stdin, input) = pipe.unzip();
        let input = input.map(|writer| Arc::new(Sink::Pipe(writer.into())));
        Ok((Stdio::Captured { stdin, sink }, Self(Mutex::new(input))))
    }

    /// A terminal is known only when the process runs.
    pub(super) fn connect(&self, handle: &Handle, open: bool) {
        if open && handle.terminal().is_some() {
            *locked(&self.0) = Some(Arc::new(Sink::Terminal(handle.clone())));
        }
    }

    /// Writes all. A process that does not listen any more is no error.
    pub(super) fn write(&self, bytes: &[u8]) {
        let Some(sink) = locked(&self.0).clone() else { return };
        let written = match &*sink {
            Sink::Pipe(pipe) => (&*pipe).write_all(bytes),
            Sink::Terminal(handle) => write_terminal(handle, bytes),
        };
        drop(written);
    }

    /// Ends it. A terminal has no end: its user types one.
    pub(super) fn close(&self) {
        let mut sink = locked(&self.0);
        if let Some(Sink::Pipe(_)) = sink.as_deref() {
            *sink = None;
        }
    }
}

fn write_terminal(handle: &Handle, mut bytes: &[u8]) -> io::Result<()> {
    let terminal = handle.terminal().ok_or(io::ErrorKind::NotConnected)?;
    while !bytes.is_empty() {
        let count = rustix::io::retry_on_intr(|| rustix::io::write(terminal, bytes))?;
        bytes = &bytes[count..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(add: &[&str], drop: &[&str]) -> ContainerSpec {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        ContainerSpec { cap_add: list(add), cap_drop: list(drop), ..ContainerSpec::default() }
    }

    #[test]
    fn capabilities_are_docker_s() {
        let one = |name| Capabilities::from_name(name).unwrap();
        let cases = [
            (spec(&[], &[]), Capabilities::DEFAULT),
            (spec(&["SYS_ADMIN"], &[]), Capabilities::DEFAULT.union(one("SYS_ADMIN"))),
            (spec(&[], &["CAP_CHOWN"]), Capabilities::DEFAULT.without(one("CHOWN"))),
            (spec(&["NET_RAW"], &["ALL"]), one("NET_RAW")),
            (spec(&["ALL"], &["NET_RAW"]), Capabilities::ALL.without(one("NET_RAW"))),
        ];
        for (spec, expected) in cases {
            assert_eq!(capabilities(&spec).unwrap(), expected, "{:?} {:?}", spec.cap_add, spec.cap_drop);
        }
        assert!(capabilities(&spec(&["NOSUCH"], &[])).is_err());
    }

    #[test]
    fn the_environment_is_the_image_s_under_the_user_s() {
        let mut spec = ContainerSpec::default();
        spec.config.env = vec!["A=1".into(), "B=2".into()];
        let extra = ["A=9".to_owned(), "C=3".to_owned()];
        let expected = [PATH_DEFAULT, "A=9", "B=2", "C=3", "HOSTNAME=box", "TERM=xterm"];
        assert_eq!(environment(&spec, "box", &extra, true), expected);
        assert_eq!(absolute(""), "/");
    }
}
