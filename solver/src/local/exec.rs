//! An exec: a process on an active snapshot of its root, committed if it ends well.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rbuild_cache::{ActiveSnapshot, Area, PlainTree, Snapshot, Trees};
use rbuild_executor::cgroup::{CgroupSpec, Limits, unique_name};
use rbuild_executor::{
    Container, Exit, PlainRoot, Process, Resource, Root, Security, Stdio, Stream, Stubs, Ulimit,
};
use rbuild_llb::{ExecOp, Mount, MountKind, Network, OutputIndex, ProxyEnv};

use super::merge::snapshot;
use super::mounts::{ResolvedMounts, make_stubs};
use super::{LocalWorker, StepEnd, StepError, WorkerError};
use crate::progress::{Event, OutputStream};
use crate::worker::{Context, Input};

/// What a `RUN` step calls its machine, as BuildKit does.
const HOSTNAME: &str = "buildkitsandbox";

/// What the processes of one step may use. In no key: a step that succeeds makes the same with more.
#[derive(Debug, Clone, Default)]
pub struct StepLimits {
    /// What its control group is given. Steps have a group of their own when this limits something.
    pub limits: Limits,
    /// Whether a step runs without its group where that cannot be made: nobody has asked for it.
    pub optional: bool,
    /// How long it may run.
    pub timeout: Option<Duration>,
}

/// A step that is ready to run.
pub(super) struct SetUp {
    container: Option<Container>,
    active: ActiveSnapshot,
    mounts: ResolvedMounts,
}

impl SetUp {
    /// The container, once. What it is made of lives as long as this.
    pub(super) fn container(&mut self) -> Container {
        self.container.take().expect("a container is run once")
    }
}

impl LocalWorker<'_> {
    pub(super) fn exec(
        &self,
        op: &ExecOp,
        inputs: &[Input<'_, Snapshot>],
        cx: &Context<'_>,
    ) -> Result<Vec<Snapshot>, WorkerError> {
        if op.devices.iter().any(|(_, required)| *required) {
            return Err(WorkerError::Unsupported { what: "required devices" });
        }
        let mut set_up = self.set_up(op, inputs, None, cx)?;
        let end = self.run_container(set_up.container(), cx)?;
        let SetUp { active, mounts, .. } = set_up;
        let fine = op.process.valid_exit_codes.as_slice();
        if !end
            .exit()
            .is_some_and(|exit| exit.success() || matches!(exit, Exit::Code(code) if fine.contains(&code)))
        {
            let left = self.options.keep_failed.then(|| active.commit()).transpose()?.map(Box::new);
            return Err(StepError::Process { command: op.process.args.join(" "), end, left }.into());
        }
        self.commit_outputs(root_of(op), active, mounts.outputs)
    }

    /// All that a step needs, up to its process. `parent` is its root file system in the place of the one it names.
    pub(super) fn set_up(
        &self,
        op: &ExecOp,
        inputs: &[Input<'_, Snapshot>],
        parent: Option<&Snapshot>,
        cx: &Context<'_>,
    ) -> Result<SetUp, WorkerError> {
        if op.network == Network::Default && self.store().trees() == Trees::Mounted {
            self.options.networks.prepare();
        }
        let root = root_of(op);
        let active = match parent {
            Some(parent) => self.prepare(parent)?,
            None => self.prepare_mount(root, inputs)?,
        };
        let rootfs = self.root_file_system(&active)?;
        let mut mounts = self.resolve_mounts(op, inputs, cx)?;
        let extra_hosts = op.process.extra_hosts.iter();
        let container = Container {
            mounts: std::mem::take(&mut mounts.mounts),
            readonly_root: root.readonly,
            hostname: hostname(op),
            network: match &rootfs {
                Root::Plain(_) => shared_network(op.network)?,
                _ => self.network(op.network)?,
            },
            security: security(op.security),
            extra_hosts: extra_hosts.map(|extra| (extra.host.clone(), extra.ip.clone())).collect(),
            shm_size_bytes: mounts.shm_size_bytes,
            cgroup: self.cgroup(op),
            ..Container::new(
                rootfs,
                Process {
                    confinement: self.options.confinement.clone(),
                    trust: self.options.trust.clone(),
                    ..process(op, std::mem::take(&mut mounts.secret_env))
                },
            )
        };
        Ok(SetUp { container: Some(container), active, mounts })
    }

    fn root_file_system(&self, active: &ActiveSnapshot) -> Result<Root, WorkerError> {
        let stubs = self.stubs()?;
        Ok(match active.plain(Some(&stubs))? {
            Some(PlainTree { root, scratch }) => Root::Plain(PlainRoot { root, scratch }),
            None => Root::Detached(active.mount(Some(&stubs))?.into()),
        })
    }

    fn cgroup(&self, op: &ExecOp) -> Option<CgroupSpec> {
        let StepLimits { limits, optional, .. } = &self.options.limits;
        let parent = op.process.cgroup_parent.clone();
        (parent.is_some() || !limits.is_empty()).then(|| CgroupSpec {
            optional: *optional,
            parent,
            name: unique_name("step"),
            limits: limits.clone(),
            accounting: false,
        })
    }

    /// Begins a layer on what a mount shows.
    pub(super) fn prepare_mount(
        &self,
        mount: &Mount,
        inputs: &[Input<'_, Snapshot>],
    ) -> Result<ActiveSnapshot, WorkerError> {
        let parent = match mount.input {
            Some(input) => snapshot(inputs, input)?.clone(),
            None => Snapshot::empty(),
        };
        self.prepare(&parent)
    }

    /// Runs a container to its end; what it prints becomes events of the step.
    fn run_container(&self, container: Container, cx: &Context<'_>) -> Result<StepEnd, WorkerError> {
        let (sender, outputs) = mpsc::channel::<(Stream, Vec<u8>)>();
        let sink = move |stream: Stream, bytes: &[u8]| {
            // The receiver lives until the sender is dropped.
            drop(sender.send((stream, bytes.to_vec())));
        };
        thread::scope(|scope| {
            scope.spawn(move || {
                for (stream, bytes) in outputs {
                    let stream = match stream {
                        Stream::Stdout => OutputStream::Stdout,
                        Stream::Stderr => OutputStream::Stderr,
                    };
                    cx.emit(Event::Output { vertex: cx.vertex, stream, bytes });
                }
            });
            let mut running = self.executor.spawn(container, Stdio::captured(sink))?;
            let StepLimits { limits, timeout, .. } = &self.options.limits;
            match running.wait_at_most(*timeout, cx.cancel) {
                Err(rbuild_executor::Error::TimedOut) => Ok(StepEnd::TimedOut(timeout.unwrap_or_default())),
                exit if running.oom_kills() > 0 => {
                    Ok(StepEnd::OutOfMemory { exit: exit?, limit_bytes: limits.memory_bytes })
                }
                exit => Ok(StepEnd::Exit(exit?)),
            }
        })
    }

    fn commit_outputs(
        &self,
        root: &Mount,
        active: ActiveSnapshot,
        others: Vec<(OutputIndex, ActiveSnapshot)>,
    ) -> Result<Vec<Snapshot>, WorkerError> {
        let mut outputs = Vec::new();
        let all = root.output.map(|output| (output, active)).into_iter().chain(others);
        for (output, active) in all {
            let index = output.0 as usize;
            if outputs.len() <= index {
                outputs.resize(index + 1, Snapshot::empty());
            }
            outputs[index] = active.commit()?;
        }
        Ok(outputs)
    }

    /// The layer below all layers in which the mount points of every container exist.
    fn stubs(&self) -> Result<std::path::PathBuf, WorkerError> {
        make_stubs(&self.store().area(Area::Stubs), Stubs::STEP)
    }

    /// Where the machine lacks what a network of its own needs, a step gets none, or the machine's if that was allowed.
    fn network(&self, network: Network) -> Result<rbuild_executor::Network, WorkerError> {
        let may_use_host = self.options.may_use_host_network;
        Ok(match network {
            Network::None => rbuild_executor::Network::None,
            Network::Host => rbuild_executor::Network::Host,
            Network::Default => match self.options.networks.connect() {
                Ok(connection) => connection.into(),
                Err(rbuild_executor::Error::NoNetwork(_)) if may_use_host => rbuild_executor::Network::Host,
                Err(rbuild_executor::Error::NoNetwork(_)) => rbuild_executor::Network::None,
                Err(error) => return Err(error.into()),
            },
        })
    }
}

/// The network of a step that has no namespaces: never more than it asks for.
fn shared_network(network: Network) -> Result<rbuild_executor::Network, WorkerError> {
    match network {
        Network::Default | Network::Host => Ok(rbuild_executor::Network::Host),
        Network::None => {
            Err(WorkerError::NeedsNamespaces { what: "step without a network (`--network none`)".to_owned() })
        }
    }
}

fn root_of(op: &ExecOp) -> &Mount {
    op.mounts.iter().find(|mount| mount.target == "/").expect("definitions are checked for it")
}

fn hostname(op: &ExecOp) -> String {
    if op.process.hostname.is_empty() { HOSTNAME.to_owned() } else { op.process.hostname.clone() }
}

const fn security(security: rbuild_llb::Security) -> Security {
    match security {
        rbuild_llb::Security::Sandbox => Security::Sandbox,
        rbuild_llb::Security::Insecure => Security::Insecure,
    }
}

fn process(op: &ExecOp, secret_env: Vec<String>) -> Process {
    let declared = &op.process;
    let mut env = declared.env.clone();
    env.extend(declared.proxy.as_ref().into_iter().flat_map(proxy_env));
    env.extend(secret_env);
    let ulimit = |ulimit: &rbuild_llb::Ulimit| {
        // `--ulimit` writes "unlimited" as -1, which is what the largest number is to the kernel.
        let limit = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
        let resource = Resource::from_name(&ulimit.name)?;
        Some(Ulimit { resource, soft: limit(ulimit.soft), hard: limit(ulimit.hard) })
    };
    Process {
        env,
        cwd: if declared.cwd.is_empty() { "/".to_owned() } else { declared.cwd.clone() },
        user: declared.user.clone(),
        ulimits: declared.ulimits.iter().filter_map(ulimit).collect(),
        ..Process::new(declared.args.iter().cloned())
    }
}

/// Both spellings of each variable that is set: programs disagree on which they read.
fn proxy_env(proxy: &ProxyEnv) -> Vec<String> {
    let variables = [
        ("HTTP_PROXY", &proxy.http),
        ("HTTPS_PROXY", &proxy.https),
        ("FTP_PROXY", &proxy.ftp),
        ("NO_PROXY", &proxy.no),
        ("ALL_PROXY", &proxy.all),
    ];
    let set = variables.into_iter().filter(|(_, value)| !value.is_empty());
    set.flat_map(|(name, value)| [format!("{name}={value}"), format!("{}={value}", name.to_lowercase())])
        .collect()
}

/// Whether a mount is one of its own: neither the root nor the size of `/dev/shm`.
pub(super) fn is_extra(mount: &Mount) -> bool {
    mount.target != "/" && !is_shm(mount)
}

/// The size of `/dev/shm`, which a build asks for as a mount of memory there.
pub(super) fn shm_size_bytes(op: &ExecOp) -> Option<u64> {
    op.mounts.iter().filter(|mount| is_shm(mount)).find_map(|mount| match mount.kind {
        MountKind::Tmpfs { size_bytes } => size_bytes,
        _ => None,
    })
}

fn is_shm(mount: &Mount) -> bool {
    mount.target == "/dev/shm" && matches!(mount.kind, MountKind::Tmpfs { .. })
}
