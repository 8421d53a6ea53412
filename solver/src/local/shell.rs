//! A shell where a step is, was or will be: in its file system, with its environment, user, directory and mounts.
//!
//! What the shell changes is thrown away. Secrets and ssh agents are there where the caller has them.

use std::sync::atomic::AtomicBool;

use rbuild_cache::Snapshot;
use rbuild_executor::{Container, Executor};
use rbuild_llb::{
    Edge, ExecOp, FileInput, InputIndex, Mount, MountKind, Network, Op, OutputIndex, Process, Security,
    SourceOp, Vertex, VertexId,
};

use super::{LocalWorker, WorkerError, stored};
use crate::cache_key::CacheKey;
use crate::progress::NoEvents;
use crate::worker::{Context, Input, VertexRef};

/// What runs where a step names no shell of its own.
const SHELL: &str = "/bin/sh";

/// When the shell is opened, seen from the step.
#[derive(Debug)]
pub enum Moment {
    /// Before it.
    Before,
    /// After it ended well.
    After,
    /// After it failed, on what it left.
    Failed(Box<Snapshot>),
}

impl LocalWorker<'_> {
    /// Prepares a container with a shell, and lets `serve` run it. `key_of` knows the definition keys of the build's steps.
    ///
    /// # Errors
    /// When the step has no file system, or one that it needs is no longer in the store.
    pub fn shell<T>(
        &self,
        step: VertexRef<'_>,
        key_of: impl Fn(VertexId) -> Option<CacheKey>,
        moment: Moment,
        serve: impl FnOnce(&Executor, Container) -> T,
    ) -> Result<T, WorkerError> {
        // Ctrl-C is for the shell.
        let cancel = AtomicBool::new(false);
        let cx = Context { cancel: &cancel, events: &NoEvents, vertex: step.id };
        let output_of = |edge: Edge| self.recorded_output(step, edge, key_of(edge.vertex));
        let (exec, root) = match moment {
            Moment::Before => (before(step.vertex())?, None),
            Moment::Failed(left) => (before(step.vertex())?, Some(*left)),
            Moment::After => (after(step.vertex()), Some(output_of(step.id.into())?)),
        };
        let mut outputs: Vec<Option<Snapshot>> = Vec::new();
        for (input, edge) in (0u32..).zip(&step.vertex().inputs) {
            let is_named = exec.mounts.iter().any(|mount| mount.input == Some(InputIndex(input)));
            let is_root =
                exec.mounts.iter().any(|mount| mount.target == "/" && mount.input == Some(InputIndex(input)));
            let wanted = is_named && !is_local(step, *edge) && !(is_root && root.is_some());
            outputs.push(if wanted { Some(output_of(*edge)?) } else { None });
        }
        let empty = Snapshot::empty();
        let inputs: Vec<Input<'_, Snapshot>> = outputs
            .iter()
            .zip(&step.vertex().inputs)
            .map(|(output, edge)| match output {
                None if is_local(step, *edge) => Input::Local(VertexRef { id: edge.vertex, ..step }),
                output => Input::Output(output.as_ref().unwrap_or(&empty)),
            })
            .collect();
        let mut set_up = self.set_up(&exec, &inputs, root.as_ref(), &cx)?;
        Ok(serve(self.executor, set_up.container()))
    }

    fn recorded_output(
        &self,
        step: VertexRef<'_>,
        edge: Edge,
        key: Option<CacheKey>,
    ) -> Result<Snapshot, WorkerError> {
        let name = || step.definition.vertex(edge.vertex).meta.name.clone();
        let record = match key {
            Some(key) => self.store().records().lookup(stored(key))?,
            None => None,
        };
        let output = record.and_then(|record| record.outputs.into_iter().nth(edge.output.0 as usize));
        output.ok_or_else(|| WorkerError::ResultMissing { step: name() })
    }
}

fn is_local(step: VertexRef<'_>, edge: Edge) -> bool {
    matches!(step.definition.vertex(edge.vertex).op, Op::Source(SourceOp::Local(_)))
}

/// A shell in the place of a step.
fn before(vertex: &Vertex) -> Result<ExecOp, WorkerError> {
    match &vertex.op {
        Op::Exec(exec) => Ok(with_shell(exec)),
        Op::File(file) => {
            let base = file.steps.iter().find_map(|step| match step.base {
                FileInput::Input(input) => Some(input),
                FileInput::Scratch | FileInput::Step(_) => None,
            });
            base.map(|base| bare(Some(base))).ok_or(WorkerError::NoFileSystem)
        }
        Op::Source(_) | Op::Merge(_) | Op::Diff(_) => Err(WorkerError::NoFileSystem),
    }
}

fn after(vertex: &Vertex) -> ExecOp {
    match &vertex.op {
        Op::Exec(exec) => with_shell(exec),
        Op::Source(_) | Op::File(_) | Op::Merge(_) | Op::Diff(_) => bare(None),
    }
}

/// The step's own shell where it has one. Nothing that the step requires is required here.
fn with_shell(exec: &ExecOp) -> ExecOp {
    let mut exec = exec.clone();
    let own = exec.process.args.first().filter(|program| program.ends_with("sh"));
    exec.process.args = vec![own.cloned().unwrap_or_else(|| SHELL.to_owned())];
    exec.devices.clear();
    exec.secret_env.iter_mut().for_each(|secret| secret.optional = true);
    for mount in &mut exec.mounts {
        match &mut mount.kind {
            MountKind::Secret(secret) => secret.optional = true,
            MountKind::Ssh(socket) => socket.optional = true,
            MountKind::Bind | MountKind::Cache { .. } | MountKind::Tmpfs { .. } => {}
        }
    }
    exec
}

/// A shell on a tree and nothing else.
fn bare(root: Option<InputIndex>) -> ExecOp {
    let root = Mount {
        input: root,
        selector: String::new(),
        target: "/".to_owned(),
        output: Some(OutputIndex(0)),
        readonly: false,
        kind: MountKind::Bind,
    };
    let process = Process {
        args: vec![SHELL.to_owned()],
        env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()],
        cwd: "/".to_owned(),
        ..Process::default()
    };
    ExecOp {
        process,
        mounts: vec![root],
        network: Network::Default,
        security: Security::Sandbox,
        secret_env: Vec::new(),
        devices: Vec::new(),
    }
}
