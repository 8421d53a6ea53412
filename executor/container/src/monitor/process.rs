//! From what a container is to what the executor runs.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use rbuild_executor::cgroup::{CgroupSpec, CgroupSupport};
use rbuild_executor::{
    Capabilities, Container as Room, Handle, Mount, MountFlags, MountSource, Process, Root, Security, Stdio,
    TerminalSize,
};
use rustix::pipe::{PipeFlags, pipe_with};

use super::hub::{Hub, HubSink, locked};
use super::network::Joined;
use crate::protocol::Exec;
use crate::spec::ContainerSpec;
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
    let mut room = Room::new(Root::Detached(root), process(spec)?);
    room.readonly_root = spec.readonly_root;
    room.hostname =
        if spec.hostname.is_empty() { container.short_id().to_owned() } else { spec.hostname.clone() };
    room.network = network.network;
    room.dns = network.dns;
    room.security = security(spec.privileged);
    room.extra_hosts.clone_from(&spec.extra_hosts);
    room.mounts = mounts;
    room.shm_size_bytes = spec.shm_size_bytes.unwrap_or(room.shm_size_bytes);
    let support = CgroupSupport::get();
    let (limits, discarded) = support.keep(spec.limits.clone());
    if support.refusal().is_none() {
        let name = container.id.clone();
        room.cgroup = Some(CgroupSpec { parent: None, name, limits, accounting: true, optional: true });
    }
    let discarded = discarded.iter().map(ToString::to_string);
    Ok((room, discarded.chain(network.warning).collect()))
}

pub(super) const fn security(privileged: bool) -> Security {
    if privileged { Security::Insecure } else { Security::Sandbox }
}

fn process(spec: &ContainerSpec) -> Result<Process, ContainerError> {
    let args = spec.args();
    if args.is_empty() {
        return Err(ContainerError::NoCommand);
    }
    Ok(Process {
        env: environment(spec, &[], spec.tty),
        cwd: absolute(&spec.config.working_dir),
        user: spec.config.user.clone(),
        ulimits: spec.ulimits.clone(),
        capabilities: capabilities(spec)?,
        trust: spec.trust.clone(),
        init: spec.init,
        ..Process::new(args)
    })
}

/// A further process of a container.
pub(super) fn further(spec: &ContainerSpec, exec: &Exec) -> Result<Process, ContainerError> {
    Ok(Process {
        env: environment(spec, &exec.env, exec.terminal.is_some()),
        cwd: absolute(exec.workdir.as_ref().unwrap_or(&spec.config.working_dir)),
        user: exec.user.as_ref().unwrap_or(&spec.config.user).clone(),
        ulimits: spec.ulimits.clone(),
        capabilities: capabilities(spec)?,
        trust: spec.trust.clone(),
        ..Process::new(exec.args.iter().cloned())
    })
}

fn environment(spec: &ContainerSpec, extra: &[String], terminal: bool) -> Vec<String> {
    let mut config = spec.config.clone();
    for pair in extra {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        config.env_set(name, value);
    }
    if config.env_get("PATH").is_none() {
        config.env.insert(0, PATH_DEFAULT.to_owned());
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
        source: MountSource::Tmpfs { size_bytes: tmpfs.size_bytes },
        flags: MountFlags { readonly: tmpfs.readonly, nosuid: true, nodev: true, noexec: !tmpfs.exec },
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
        assert_eq!(environment(&spec, &extra, true), [PATH_DEFAULT, "A=9", "B=2", "C=3", "TERM=xterm"]);
        assert_eq!(absolute(""), "/");
    }
}
