//! A file op: its steps applied to active snapshots.
//!
//! Each tree that the steps make is a [`Draft`]. Steps that work on one another's result share one, so that a `COPY` of
//! several sources is one layer; the file of a heredoc is a draft of its own, which is thrown away once it was copied
//! from. Only the newest state of a draft exists: an op that asks for an older one would need a copy. Frontends do not
//! make such ops, and they are refused.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_cache::content_digest::{KnownContext, Seen};
use rbuild_cache::root_dir::{At as _, PathError, RootDir};
use rbuild_cache::tree::grow::PlannedTree;
use rbuild_cache::{ActiveSnapshot, Addition, Delta, Errand, KnownLayers, LayerForm, MountedRoot, Snapshot};
use rbuild_llb::pattern::Patterns;
use rbuild_llb::{CopyAction, FileAction, FileInput, FileOp, FileStep, InputIndex, OutputIndex, Vertex};
use rustix::io::Errno;

use super::content::local_source;
use super::file::{CopySource, Directories, FileError, FileOptions, Graft, Planned, SourceKind, apply};
use super::merge::snapshot;
use super::{LocalWorker, WorkerError};
use crate::cache_key;
use crate::progress::{Event, OutputStream};
use crate::worker::{Context, Input, VertexRef};

/// Directories with fewer files than this are copied: any other form costs each process that uses the layer a mount (measured: `docs/design/trees.md`).
const FILES_MIN: usize = 256;

/// A tree that a step reads from.
pub(super) struct Source {
    pub(super) root: RootDir,
    pub(super) kind: SourceKind,
    pub(super) exclude: Option<Patterns>,
    pub(super) layers: Option<KnownLayers>,
}

impl Source {
    pub(super) fn tree(&self) -> CopySource<'_> {
        let Self { root, kind, exclude, layers } = self;
        CopySource { root, kind: *kind, exclude: exclude.as_ref(), layers: layers.as_ref() }
    }
}

/// How many earlier runs of a copy it is compared with.
const EARLIER_MAX: u32 = 8;

/// An action that is to be carried out.
struct Wanted<'a> {
    action: &'a FileAction,
    directories: Directories<'a>,
    known: Option<&'a KnownContext<'a>>,
}

/// A step that is to be carried out.
struct WantedStep<'a> {
    action: &'a FileAction,
    form: Form,
    /// What was seen of what it takes of a context, and at which path.
    seen: Option<&'a (PathBuf, Arc<Seen>)>,
}

/// A copy and what it is compared with.
struct Comparison<'a> {
    /// The layer that it goes into.
    active: &'a ActiveSnapshot,
    earlier: &'a [Snapshot],
    /// What is copied from.
    source: Option<&'a RootDir>,
}

/// What becomes of a copy.
enum Form {
    /// Files.
    Directory,
    /// A tree, of a directory with so many files.
    Tree { files_min: usize },
    /// What differs from what the same copy left before.
    Delta { files_min: usize, earlier: Vec<Snapshot> },
}

/// What is left to do for a layer when its mount is done with.
enum Rest {
    Nothing,
    /// To put in what was planned, whose contents come from `source`.
    Graft {
        graft: Graft,
        source: Option<RootDir>,
    },
    /// To tell it from another.
    Delta(Delta),
}

impl Rest {
    /// Whether nothing is taken but what was seen at this path for the step's key, so that whatever has changed since cannot be in it.
    fn is_as_seen_at(&self, path: &Path) -> bool {
        let Self::Graft { graft: Graft::Planned(planned), .. } = self else { return false };
        planned.is_as_seen && planned.source == path
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
        CopySource { root: &self.root, kind: SourceKind::Tree, exclude: None, layers: None }
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
        let root = root_of(active.mount_to_copy()?);
        self.drafts.push(Draft { active, root, newest: self.of_step.len() });
        Ok(self.drafts.len() - 1)
    }

    /// Notes that the next step has worked on a draft.
    fn changed(&mut self, draft: usize) {
        self.drafts[draft].newest = self.of_step.len();
        self.of_step.push(draft);
    }

    /// Commits the drafts that are outputs. Of `described`, that is begun before, by `begin`.
    fn commit(
        self,
        op: &FileOp,
        described: Option<OutputIndex>,
        begin: &dyn Fn(Errand),
    ) -> Result<Vec<Snapshot>, WorkerError> {
        let mut outputs = BTreeMap::new();
        for (step, number) in op.steps.iter().zip(0..) {
            if let Some(output) = step.output {
                outputs.insert(output, self.unchanged_since(number)?);
            }
        }
        let mut drafts: Vec<Option<Draft>> = self.drafts.into_iter().map(Some).collect();
        let commit = |(output, draft): (OutputIndex, usize)| {
            let Draft { active, root, .. } =
                drafts[draft].take().ok_or(WorkerError::Unsupported { what: "file ops that fork" })?;
            // A layer is committed when nothing is mounted on it.
            drop(root);
            Ok(if described == Some(output) { active.commit_described(begin)? } else { active.commit()? })
        };
        outputs.into_iter().map(commit).collect()
    }
}

impl LocalWorker<'_> {
    pub(super) fn file_op(
        &self,
        vertex: VertexRef<'_>,
        op: &FileOp,
        inputs: &[Input<'_, Snapshot>],
        cx: &Context<'_>,
    ) -> Result<Vec<Snapshot>, WorkerError> {
        let sources = self.sources(op, inputs)?;
        let (mut drafts, mut looked_at_again) = (Drafts::default(), BTreeMap::new());
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
            let form = self.form(vertex.vertex(), op, drafts.of_step.len())?;
            let context = taken_of_context(&step.action, inputs);
            let seen = context.and_then(|(input, source)| self.seen_of_context(source, input, cx));
            let wanted = WantedStep { action: &step.action, form, seen: seen.as_ref() };
            let rest = self.carry_out(wanted, &drafts.drafts[draft], &named, cx);
            let done = rest.and_then(|rest| {
                let is_as_seen = seen.is_some_and(|(path, _)| rest.is_as_seen_at(&path));
                self.put_rest(&mut drafts.drafts[draft].active, rest, cx)?;
                Ok(is_as_seen)
            });
            match (done, context) {
                (Ok(true), _) | (Ok(_), None) => {}
                (Ok(false), Some((input, source))) => drop(looked_at_again.insert(input, source)),
                (Err(error), Some((input, source))) => {
                    return Err(self.changed_or(error, source, input, cx));
                }
                (Err(error), None) => return Err(error),
            }
            drafts.changed(draft);
        }
        for (input, source) in looked_at_again {
            self.check_context(source, input, cx)?;
        }
        drafts.commit(op, self.described(vertex), &|errand| self.aside.add(self.pool, errand))
    }

    /// What becomes of a step, by its number.
    fn form(&self, vertex: &Vertex, op: &FileOp, number: usize) -> Result<Form, WorkerError> {
        let step = &op.steps[number];
        if !matches!(step.action, FileAction::Copy(_)) || is_used(op, number) {
            return Ok(Form::Directory);
        }
        let (store, form) = (self.store(), self.store().layer_form());
        let files_min = files_min(form);
        Ok(match form {
            LayerForm::Default | LayerForm::Tree => Form::Tree { files_min },
            LayerForm::Auto if store.tree_support().is_ok() => Form::Tree { files_min },
            LayerForm::Auto | LayerForm::Delta if store.delta_support().is_ok() => {
                match self.earlier(vertex, op, step)? {
                    earlier if earlier.is_empty() => Form::Directory,
                    earlier => Form::Delta { files_min, earlier },
                }
            }
            _ => Form::Directory,
        })
    }

    /// Whether the copy of so many files is planned.
    pub(super) fn is_planned(&self, files: usize) -> bool {
        // To try whether trees can be mounted takes longer than to count.
        match self.store().layer_form() {
            LayerForm::Directory => false,
            form if files < files_min(form) => false,
            LayerForm::Default => self.store().tree_support().is_ok(),
            LayerForm::Auto | LayerForm::Tree | LayerForm::Delta => true,
        }
    }

    /// What a step left when it ran before.
    fn earlier(&self, vertex: &Vertex, op: &FileOp, step: &FileStep) -> Result<Vec<Snapshot>, WorkerError> {
        let outputs: BTreeSet<OutputIndex> = op.steps.iter().filter_map(|step| step.output).collect();
        let Some(place) = outputs.iter().position(|output| Some(*output) == step.output) else {
            return Ok(Vec::new());
        };
        let (op, project) = (cache_key::op_digest(vertex).0, &self.options.history.project);
        let runs = self.store().records().last_outputs(&op, project, EARLIER_MAX)?;
        Ok(runs.into_iter().filter_map(|mut outputs| outputs.drain(..).nth(place)).collect())
    }

    /// Carries out the action of a step on a draft.
    fn carry_out<'a>(
        &self,
        wanted: WantedStep<'_>,
        draft: &Draft,
        named: &dyn Fn(FileInput) -> Option<CopySource<'a>>,
        cx: &Context<'_>,
    ) -> Result<Rest, WorkerError> {
        let WantedStep { action, form, seen } = wanted;
        let seen: Vec<Arc<Seen>> = seen.map(|(_, seen)| Arc::clone(seen)).into_iter().collect();
        let known = match form {
            Form::Directory => None,
            Form::Tree { .. } | Form::Delta { .. } => {
                Some(KnownContext { seen, cache: self.store().stat_cache()? })
            }
        };
        let known = known.as_ref();
        let apply =
            |directories| self.apply_wanted(&Wanted { action, directories, known }, &draft.root, named, cx);
        let source = || match action {
            FileAction::Copy(copy) => named(copy.from).map(|source| source.root.try_clone()).transpose(),
            _ => Ok(None),
        };
        Ok(match form {
            Form::Directory => {
                apply(Directories::Copied)?;
                Rest::Nothing
            }
            Form::Tree { files_min } => {
                match apply(Directories::Planned { files_min, layer: &draft.active })? {
                    Some(graft) => Rest::Graft { graft, source: source()? },
                    None => Rest::Nothing,
                }
            }
            Form::Delta { files_min, earlier } => {
                let (source, delta) = (source()?, Mutex::new(None));
                let with = Comparison { active: &draft.active, earlier: &earlier, source: source.as_ref() };
                let compare = |planned: &Planned| {
                    let found = self.compare(planned, &with, cx)?;
                    let changed = found.as_ref().map(|found| found.changed().clone());
                    *delta.lock().unwrap_or_else(PoisonError::into_inner) = found;
                    Ok(changed)
                };
                apply(Directories::Compared { files_min, compare: &compare })?;
                let delta = delta.into_inner().unwrap_or_else(PoisonError::into_inner);
                delta.map_or(Rest::Nothing, Rest::Delta)
            }
        })
    }

    fn put_rest(&self, active: &mut ActiveSnapshot, rest: Rest, cx: &Context<'_>) -> Result<(), WorkerError> {
        match rest {
            Rest::Nothing => {}
            Rest::Graft { graft, source } => self.graft(active, graft, source.as_ref(), cx)?,
            Rest::Delta(delta) => active.tell_from(delta),
        }
        Ok(())
    }

    /// Compares a directory that is to be copied with what the same copy left before.
    fn compare(
        &self,
        planned: &Planned,
        with: &Comparison<'_>,
        cx: &Context<'_>,
    ) -> Result<Option<Delta>, FileError> {
        let open = |directory: &Path| open_source(with.source, &planned.source.join(directory), cx);
        let addition = Addition { path: &planned.path, tree: &planned.tree, open: &open };
        match with.active.compare(with.earlier, &addition, self.pool, cx.cancel) {
            Err(_) if cx.is_cancelled() => Err(FileError::Cancelled),
            compared => Ok(compared?),
        }
    }

    /// Puts what was planned into a layer. The contents of a directory come from `source`.
    fn graft(
        &self,
        active: &mut ActiveSnapshot,
        graft: Graft,
        source: Option<&RootDir>,
        cx: &Context<'_>,
    ) -> Result<(), WorkerError> {
        let Planned { path, tree, known, source: top, .. } = match graft {
            Graft::Planned(planned) => planned,
            Graft::Unpacked { path, tree } => {
                active.graft_packed(&path, tree);
                return Ok(());
            }
        };
        let open = |directory: &Path| open_source(source, &top.join(directory), cx);
        match active.graft(&path, PlannedTree { tree, known }, self.pool, &open) {
            Err(_) if cx.is_cancelled() => Err(FileError::Cancelled.into()),
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
        let wanted = Wanted { action, directories: Directories::Copied, known: None };
        self.apply_wanted(&wanted, dest, named, cx).map(drop)
    }

    /// The same, but for a directory that is to become a tree.
    fn apply_wanted<'a>(
        &self,
        wanted: &Wanted<'_>,
        dest: &RootDir,
        named: &dyn Fn(FileInput) -> Option<CopySource<'a>>,
        cx: &Context<'_>,
    ) -> Result<Option<Graft>, WorkerError> {
        let Wanted { action, directories, known } = *wanted;
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
            directories,
            known,
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
                let root = self.view(snapshot)?;
                let layers = Some(self.store().known_layers(snapshot, self.seen(snapshot)));
                Ok(Source { root, kind: SourceKind::Tree, exclude: None, layers })
            }
            Input::Local(vertex) => self.context(local_source(vertex)?),
        }
    }
}

/// The input that is a context of which an action takes something.
fn taken_of_context<'a>(
    action: &FileAction,
    inputs: &[Input<'a, Snapshot>],
) -> Option<(InputIndex, VertexRef<'a>)> {
    let FileAction::Copy(CopyAction { from: FileInput::Input(input), .. }) = action else { return None };
    match inputs.get(input.index())? {
        Input::Local(source) => Some((*input, *source)),
        Input::Output(_) => None,
    }
}

/// How many files are worth a form of their own.
const fn files_min(form: LayerForm) -> usize {
    match form {
        LayerForm::Tree | LayerForm::Delta => 0,
        LayerForm::Default | LayerForm::Auto | LayerForm::Directory => FILES_MIN,
    }
}

/// Opens a directory that was planned to be copied.
fn open_source(source: Option<&RootDir>, path: &Path, cx: &Context<'_>) -> Result<OwnedFd, PathError> {
    let Some(source) = source else { return Err(Errno::NOENT).at("open", path) };
    if cx.is_cancelled() {
        return Err(Errno::CANCELED).at("open", path);
    }
    source.open_dir(path)
}

/// Whether a later step works on what a step has made, or copies from it.
fn is_used(op: &FileOp, step: usize) -> bool {
    let step = u32::try_from(step).unwrap_or(u32::MAX);
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
