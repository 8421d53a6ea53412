//! A file op: its steps applied to active snapshots.
//!
//! Each tree that the steps make is a [`Draft`]. Steps that work on one another's result share one, so that a `COPY` of
//! several sources is one layer; the file of a heredoc is a draft of its own, which is thrown away once it was copied
//! from. Only the newest state of a draft exists: an op that asks for an older one would need a copy. Frontends do not
//! make such ops, and they are refused.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;

use rbuild_cache::root_dir::{At as _, OFlags, RootDir};
use rbuild_cache::{ActiveSnapshot, LayerForm, MountedRoot, Snapshot};
use rbuild_llb::pattern::Patterns;
use rbuild_llb::{CopyAction, FileAction, FileInput, FileOp, Op, SourceOp};
use rustix::io::Errno;

use super::file::{CopySource, FileError, FileOptions, Graft, SourceKind, apply};
use super::merge::snapshot;
use super::{LocalWorker, WorkerError};
use crate::progress::{Event, OutputStream};
use crate::worker::{Context, Input};

/// Directories with fewer files than this are copied: an image costs each process that uses the layer a mount. Chosen, not measured.
const TREE_FILES_MIN: usize = 256;

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

/// An action that is to be carried out.
struct Wanted<'a> {
    action: &'a FileAction,
    /// How many files make a directory worth to be left for a tree; `None` where none is.
    trees_min: Option<usize>,
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
            let number = u32::try_from(drafts.of_step.len()).unwrap_or(u32::MAX);
            let may_graft = matches!(step.action, FileAction::Copy(_)) && !is_used(op, number);
            let trees_min = if may_graft { self.trees_min() } else { None };
            let wanted = Wanted { action: &step.action, trees_min };
            let planned = self.plan_action(&wanted, &drafts.drafts[draft].root, &named, cx)?;
            if let (Some(graft), FileAction::Copy(copy)) = (planned, &step.action) {
                let source = named(copy.from).map(|source| source.root.try_clone()).transpose()?;
                self.graft(&mut drafts.drafts[draft].active, graft, source.as_ref(), cx)?;
            }
            drafts.changed(draft);
        }
        drafts.commit(op)
    }

    /// How many files make a directory worth to be a tree; `None` where layers cannot be trees.
    fn trees_min(&self) -> Option<usize> {
        let files = match self.store().layer_form() {
            LayerForm::Directory => return None,
            LayerForm::Auto => TREE_FILES_MIN,
            LayerForm::Tree => 0,
        };
        self.store().tree_support().ok().map(|()| files)
    }

    /// Puts what was planned into a layer. The contents come from `source`.
    fn graft(
        &self,
        active: &mut ActiveSnapshot,
        graft: Graft,
        source: Option<&RootDir>,
        cx: &Context<'_>,
    ) -> Result<(), WorkerError> {
        let Graft { path, tree, sources } = graft;
        let open = |file| {
            let (Some(source), Some(path)) = (source, sources.get(&file)) else {
                return Err(Errno::NOENT).at("open", "a file to copy");
            };
            if cx.cancel.load(Ordering::Relaxed) {
                return Err(Errno::CANCELED).at("open", path);
            }
            source.open_file(path, OFlags::RDONLY | OFlags::NOFOLLOW)
        };
        match active.graft(&path, tree, self.pool, &open) {
            Err(_) if cx.cancel.load(Ordering::Relaxed) => Err(FileError::Cancelled.into()),
            grafted => Ok(grafted?),
        }
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
        self.plan_action(&Wanted { action, trees_min: None }, dest, named, cx).map(drop)
    }

    /// The same, but for a directory that is to become a tree.
    fn plan_action<'a>(
        &self,
        wanted: &Wanted<'_>,
        dest: &RootDir,
        named: &dyn Fn(FileInput) -> Option<CopySource<'a>>,
        cx: &Context<'_>,
    ) -> Result<Option<Graft>, WorkerError> {
        let Wanted { action, trees_min } = *wanted;
        let known = trees_min.map(|_| self.store().stat_cache()).transpose()?;
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
            trees_min,
            known: known.map(|known| known as _),
            single_id: self.options.single_id,
        };
        let done = apply(action, dest, named, &options)?;
        for warning in done.warnings {
            let bytes = format!("warning: {warning}\n").into_bytes();
            cx.emit(Event::Output { vertex: cx.vertex, stream: OutputStream::Stderr, bytes });
        }
        Ok(done.graft)
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

/// Whether a later step works on what a step has made, or copies from it.
fn is_used(op: &FileOp, step: u32) -> bool {
    let uses = |action: &FileAction| match action {
        FileAction::Copy(copy) => copy.from == FileInput::Step(step),
        _ => false,
    };
    op.steps.iter().any(|later| later.base == FileInput::Step(step) || uses(&later.action))
}

/// A mounted tree as the root of paths.
pub(super) fn root_of(mounted: MountedRoot) -> RootDir {
    RootDir::from_fd(mounted.into())
}
