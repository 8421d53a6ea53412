//! A file op: its steps applied to active snapshots.
//!
//! Steps that work on one another's result share one active snapshot, so that a `COPY` of several sources is one
//! layer. A step whose result another output needs as well would need a copy; frontends do not make such ops, and they are
//! refused.

use std::collections::HashMap;

use rbuild_cache::root_dir::RootDir;
use rbuild_cache::{ActiveSnapshot, MountedRoot, Snapshot};
use rbuild_llb::pattern::Patterns;
use rbuild_llb::{FileAction, FileInput, FileOp, Op, SourceOp};

use super::file::{CopySource, FileOptions, SourceKind, apply};
use super::merge::snapshot;
use super::{LocalWorker, WorkerError};
use crate::progress::Event;
use crate::worker::{Context, Input};

/// A tree that a step reads from.
struct Source {
    root: RootDir,
    kind: SourceKind,
    exclude: Option<Patterns>,
}

impl LocalWorker<'_> {
    pub(super) fn file_op(
        &self,
        op: &FileOp,
        inputs: &[Input<'_, Snapshot>],
        cx: &Context<'_>,
    ) -> Result<Vec<Snapshot>, WorkerError> {
        let sources = self.sources(op, inputs)?;
        let mut base = None;
        for (index, step) in op.steps.iter().enumerate() {
            let continues = matches!(step.base, FileInput::Step(used) if used as usize + 1 == index);
            let last = index + 1 == op.steps.len();
            if (index > 0 && !continues) || step.output.is_some() != last {
                return Err(WorkerError::Unsupported { what: "file ops that fork" });
            }
            if index == 0 {
                base = Some(step.base);
            }
        }
        let parent = match base {
            Some(FileInput::Input(input)) => snapshot(inputs, input)?.clone(),
            _ => Snapshot::empty(),
        };
        let mut active = self.store().prepare(&parent)?;
        if let Some(seconds) = self.options.mtime_max {
            active.set_mtime_max(seconds);
        }
        self.apply_steps(op, &active, &sources, cx)?;
        Ok(vec![active.commit()?])
    }

    fn apply_steps(
        &self,
        op: &FileOp,
        active: &ActiveSnapshot,
        sources: &HashMap<u32, Source>,
        cx: &Context<'_>,
    ) -> Result<(), WorkerError> {
        let dest = root_of(active.mount(None)?)?;
        let options = FileOptions {
            now_ns: self.options.now_ns,
            cancel: cx.cancel,
            progress: &|copied| {
                cx.emit(Event::Transfer {
                    vertex: cx.vertex,
                    name: "copying".to_owned(),
                    current_bytes: copied.bytes,
                    total_bytes: None,
                });
            },
            pool: self.pool,
            single_id: self.options.single_id,
        };
        let trees = |input: FileInput| match input {
            FileInput::Input(input) => sources.get(&input.0).map(|source| CopySource {
                root: &source.root,
                kind: source.kind,
                exclude: source.exclude.as_ref(),
            }),
            FileInput::Scratch => None,
            FileInput::Step(_) => Some(CopySource { root: &dest, kind: SourceKind::Tree, exclude: None }),
        };
        for step in &op.steps {
            apply(&step.action, &dest, &trees, &options)?;
        }
        Ok(())
    }

    /// Opens the inputs that copies read from, or owners are looked up in.
    fn sources(
        &self,
        op: &FileOp,
        inputs: &[Input<'_, Snapshot>],
    ) -> Result<HashMap<u32, Source>, WorkerError> {
        let mut sources = HashMap::new();
        for step in &op.steps {
            let from = match &step.action {
                FileAction::Copy(copy) => Some(copy.from),
                _ => None,
            };
            for input in [Some(step.base), from].into_iter().flatten() {
                if let FileInput::Input(input) = input
                    && !sources.contains_key(&input.0)
                    && let Some(found) = inputs.get(input.index())
                {
                    sources.insert(input.0, self.open_source(*found)?);
                }
            }
        }
        Ok(sources)
    }

    fn open_source(&self, input: Input<'_, Snapshot>) -> Result<Source, WorkerError> {
        match input {
            Input::Output(snapshot) => {
                let root = root_of(self.store().view(snapshot)?)?;
                Ok(Source { root, kind: SourceKind::Tree, exclude: None })
            }
            Input::Local(vertex) => match &vertex.vertex().op {
                Op::Source(SourceOp::Local(local)) => Ok(Source {
                    root: self.context(&local.name)?,
                    kind: SourceKind::Context,
                    exclude: Some(Patterns::new(&local.exclude)?),
                }),
                op => Err(WorkerError::unsupported(op)),
            },
        }
    }
}

/// A mounted tree as the root of paths.
pub(super) fn root_of(mounted: MountedRoot) -> Result<RootDir, WorkerError> {
    Ok(RootDir::from_fd(mounted.into()))
}
