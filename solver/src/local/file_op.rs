//! A file op: its steps applied to active snapshots.
//!
//! Each tree that the steps make is a [`Draft`]. Steps that work on one another's result share one, so that a `COPY` of
//! several sources is one layer; the file of a heredoc is a draft of its own, which is thrown away once it was copied
//! from. Only the newest state of a draft exists: an op that asks for an older one would need a copy. Frontends do not
//! make such ops, and they are refused.

use std::collections::{BTreeMap, HashMap};

use rbuild_cache::root_dir::RootDir;
use rbuild_cache::{ActiveSnapshot, MountedRoot, Snapshot};
use rbuild_llb::pattern::Patterns;
use rbuild_llb::{CopyAction, FileAction, FileInput, FileOp, Op, SourceOp};

use super::file::{CopySource, FileOptions, SourceKind, apply};
use super::merge::snapshot;
use super::{LocalWorker, WorkerError};
use crate::progress::{Event, OutputStream};
use crate::worker::{Context, Input};

/// A tree that a step reads from.
pub(super) struct Source {
    pub(super) root: RootDir,
    pub(super) kind: SourceKind,
    pub(super) exclude: Option<Patterns>,
}

impl Source {
    pub(super) fn tree(&self) -> CopySource<'_> {
        CopySource { root: &self.root, kind: self.kind, exclude: self.exclude.as_ref() }
    }
}

/// A tree in the making.
struct Draft {
    active: ActiveSnapshot,
    root: RootDir,
    /// The step that changed it last.
    newest: usize,
}

impl Draft {
    fn tree(&self) -> CopySource<'_> {
        CopySource { root: &self.root, kind: SourceKind::Tree, exclude: None }
    }
}

/// All trees in the making, and which of them each step works on.
#[derive(Default)]
struct Drafts {
    drafts: Vec<Draft>,
    of_step: Vec<usize>,
}

impl Drafts {
    /// The draft that a step worked on.
    fn of(&self, step: u32) -> Option<&Draft> {
        self.drafts.get(*self.of_step.get(step as usize)?)
    }

    /// The draft that a step worked on last.
    fn unchanged_since(&self, step: u32) -> Result<usize, WorkerError> {
        match self.of(step) {
            Some(draft) if draft.newest == step as usize => Ok(self.of_step[step as usize]),
            _ => Err(WorkerError::Unsupported { what: "file ops that fork" }),
        }
    }

    fn begin(&mut self, active: ActiveSnapshot) -> Result<usize, WorkerError> {
        let root = root_of(active.mount(None)?);
        self.drafts.push(Draft { active, root, newest: self.of_step.len() });
        Ok(self.drafts.len() - 1)
    }

    /// Notes that the next step has worked on a draft.
    fn changed(&mut self, draft: usize) {
        self.drafts[draft].newest = self.of_step.len();
        self.of_step.push(draft);
    }

    /// Commits the drafts that are outputs.
    fn commit(self, op: &FileOp) -> Result<Vec<Snapshot>, WorkerError> {
        let mut outputs = BTreeMap::new();
        for (step, number) in op.steps.iter().zip(0..) {
            if let Some(output) = step.output {
                outputs.insert(output, self.unchanged_since(number)?);
            }
        }
        let mut drafts: Vec<Option<Draft>> = self.drafts.into_iter().map(Some).collect();
        let commit = |draft: usize| {
            let Draft { active, root, .. } =
                drafts[draft].take().ok_or(WorkerError::Unsupported { what: "file ops that fork" })?;
            // A layer is committed when nothing is mounted on it.
            drop(root);
            Ok(active.commit()?)
        };
        outputs.into_values().map(commit).collect()
    }
}

impl LocalWorker<'_> {
    pub(super) fn file_op(
        &self,
        op: &FileOp,
        inputs: &[Input<'_, Snapshot>],
        cx: &Context<'_>,
    ) -> Result<Vec<Snapshot>, WorkerError> {
        let sources = self.sources(op, inputs)?;
        let mut drafts = Drafts::default();
        for step in &op.steps {
            let draft = match step.base {
                FileInput::Step(used) => drafts.unchanged_since(used)?,
                FileInput::Input(input) => drafts.begin(self.prepare(snapshot(inputs, input)?)?)?,
                FileInput::Scratch => drafts.begin(self.prepare(&Snapshot::empty())?)?,
            };
            let named = |input: FileInput| match input {
                FileInput::Input(input) => sources.get(&input.0).map(Source::tree),
                FileInput::Scratch => None,
                FileInput::Step(step) => drafts.of(step).map(Draft::tree),
            };
            if let FileAction::Copy(CopyAction { from: FileInput::Step(used), .. }) = &step.action {
                drafts.unchanged_since(*used)?;
            }
            self.apply_action(&step.action, &drafts.drafts[draft].root, &named, cx)?;
            drafts.changed(draft);
        }
        drafts.commit(op)
    }

    pub(super) fn prepare(&self, parent: &Snapshot) -> Result<ActiveSnapshot, WorkerError> {
        Ok(self.store().prepare(parent)?)
    }

    /// Carries out an action on the tree `dest`; `named` gives the trees that it names.
    pub(super) fn apply_action<'a>(
        &self,
        action: &FileAction,
        dest: &RootDir,
        named: &dyn Fn(FileInput) -> Option<CopySource<'a>>,
        cx: &Context<'_>,
    ) -> Result<(), WorkerError> {
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
        for warning in apply(action, dest, named, &options)?.warnings {
            let bytes = format!("warning: {warning}\n").into_bytes();
            cx.emit(Event::Output { vertex: cx.vertex, stream: OutputStream::Stderr, bytes });
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

    pub(super) fn open_source(&self, input: Input<'_, Snapshot>) -> Result<Source, WorkerError> {
        match input {
            Input::Output(snapshot) => {
                let root = root_of(self.store().view(snapshot)?);
                Ok(Source { root, kind: SourceKind::Tree, exclude: None })
            }
            Input::Local(vertex) => match &vertex.vertex().op {
                Op::Source(SourceOp::Local(local)) => self.context(local),
                op => Err(WorkerError::unsupported(op)),
            },
        }
    }
}

/// A mounted tree as the root of paths.
pub(super) fn root_of(mounted: MountedRoot) -> RootDir {
    RootDir::from_fd(mounted.into())
}
