//! The real worker: joins the store, the executor and the registry.
//!
//! What the scheduler asks is answered here, one file for each kind of op:
//!
//! * `source/image`: a pinned image → its snapshot, pulled when the store lacks it; `source/layout`: one from an OCI layout;
//! * `source/context`: the files of a build context → a digest, in place;
//! * `source/http`, `source/git`: what is elsewhere → pinned, fetched, a snapshot;
//! * `exec`: a process on an active snapshot, and `mounts`, what it sees; `ssh_relay` is its way to an agent;
//! * `file`: copies and the like;
//! * `merge`, `diff`: stacks of layers;
//! * `by_content`: what a step gave before, laid on what it is given now;
//! * `aside`: what no step waits for;
//! * `shared`: what other machines made, fetched when a step is given it.

mod aside;
mod by_content;
mod content;
mod diff;
mod error;
mod exec;
pub mod file;
mod file_op;
mod merge;
mod mounts;
mod recipe;
mod shared;
mod shell;
mod source;
mod ssh_relay;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::ThreadPool;
use rbuild_cache::content_digest::Seen;
use rbuild_cache::root_dir::RootDir;
use rbuild_cache::{BuildName, KeyLock, Origin, Snapshot, Store};
use rbuild_executor::network::Lack;
use rbuild_executor::{Confinement, Executor, Networks, Trust};
use rbuild_image::KeyHasher;
use rbuild_llb::pattern::Patterns;
use rbuild_llb::{InputIndex, LocalSource, Op, OpDigest, SourceOp};
use rbuild_registry::Secret;

use aside::{Aside, LateFileList};
use content::Digested;
pub use error::{StepEnd, StepError, WorkerError};
pub use exec::StepLimits;
pub use mounts::{cache_mount_key, make_stubs};
pub use shell::Moment;
use source::identify_layout;
pub use source::{GitError, GitOptions, HttpError, Pins};

use crate::build::MissReason;
use crate::cache_key::{CacheKey, ContentDigest, Contribution, KeyTrace, SourceIdentity};
use crate::cache_map::Selection;
use crate::explain::{Cause, Explainer, FirstCause, Recipe};
use crate::images::Images;
use crate::secrets::Secrets;
use crate::shared::{SharedCaches, Tree};
use crate::ssh::SshAgents;
use crate::worker::{Context, Found, Input, NewRecord, VertexRef, Wanted, Worker};

/// What a [`LocalWorker`] is made of.
#[derive(Debug)]
pub struct LocalWorkerOptions {
    /// Local sources, by the name under which definitions know them.
    pub contexts: BTreeMap<String, LocalContext>,
    /// OCI image layouts, by the name under which definitions know them.
    pub layouts: BTreeMap<String, PathBuf>,
    /// Where steps get a network of their own.
    pub networks: Networks,
    /// Whether a step gets the machine's network where none of its own can be had; else it gets none.
    pub may_use_host_network: bool,
    /// What holds the processes of steps.
    pub confinement: Confinement,
    /// Whose certificates they trust beside those that their images do. In no key and no layer.
    pub trust: Trust,
    /// What each process of a step may use.
    pub limits: StepLimits,
    /// The clock, Unix nanoseconds: the time of files that the build itself makes.
    pub now_ns: i64,
    /// Whether only one user id is mapped, so that files cannot be given to others.
    pub single_id: bool,
    /// What steps may be given under which id.
    pub secrets: Secrets,
    /// What of the host all processes see.
    pub volumes: Vec<Volume>,
    /// The ssh agents that steps may use.
    pub ssh: SshAgents,
    /// What git is given.
    pub git: GitOptions,
    /// Whether the file system of a step that fails is kept, for [`LocalWorker::shell`].
    pub keep_failed: bool,
    /// Whether results become images, with layers as they are: these are described while the build goes on.
    pub makes_images: bool,
    /// Under what the build is remembered.
    pub history: History,
    /// What other machines made.
    pub shared: Arc<SharedCaches>,
    /// What remote sources turned out to be; shared by all workers of one build.
    pub pins: Arc<Pins>,
}

/// Under what a build and its results are remembered.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// What is being built: the same for every build of one Dockerfile. Results are compared with those of their project first.
    pub project: String,
    /// The build, where it is remembered.
    pub build: Option<BuildName>,
}

/// A directory that steps may read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalContext {
    /// Where it is.
    pub path: PathBuf,
    /// Whose files it has: the host's, or those of an archive that was unpacked.
    pub kind: file::SourceKind,
    /// When it was last changed, Unix seconds, where that means something.
    pub time: Option<i64>,
}

/// A path of the host in all processes of a build. Neither in a key nor in a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Where it is.
    pub source: PathBuf,
    /// Where processes see it.
    pub target: PathBuf,
    /// Whether they may only read it.
    pub readonly: bool,
}

impl LocalContext {
    /// A directory of the host.
    pub const fn directory(path: PathBuf) -> Self {
        Self { path, kind: file::SourceKind::Context, time: None }
    }
}

/// Lists of files, by the digest of all of them.
type FileLists = Mutex<HashMap<[u8; 32], Arc<LateFileList>>>;

/// Runs the steps of a build on this machine.
#[derive(Debug)]
pub struct LocalWorker<'a> {
    images: &'a Images,
    executor: &'a Executor,
    pool: &'a ThreadPool,
    options: LocalWorkerOptions,
    explainer: Explainer,
    /// What was seen of snapshots lately, for keys.
    seen: Mutex<Vec<(Snapshot, Arc<Seen>)>>,
    /// What contexts held that keys are made of.
    digested: Mutex<Vec<Digested>>,
    /// The lists of files that are being kept.
    file_lists: FileLists,
    aside: Aside,
    /// What snapshots were looked at lately, the latest last.
    views: Mutex<Vec<(Snapshot, RootDir)>>,
}

/// How many views of snapshots are kept: a stage that is copied from is looked at for a key and for the copy, and the kernel keeps what it
/// has found there with the mount.
const VIEWS_MAX: usize = 4;

impl<'a> LocalWorker<'a> {
    /// A worker on the store behind `images`; heavy work on many files is done on `pool`.
    pub fn new(
        images: &'a Images,
        executor: &'a Executor,
        pool: &'a ThreadPool,
        options: LocalWorkerOptions,
    ) -> Self {
        let (explainer, seen, digested, file_lists, aside, views) = Default::default();
        Self { images, executor, pool, options, explainer, seen, digested, file_lists, aside, views }
    }

    /// Why steps that wanted a network of their own had none.
    pub fn network_lack(&self) -> Option<&Lack> {
        self.options.networks.lack()
    }

    fn run_here(
        &self,
        vertex: VertexRef<'_>,
        inputs: &[Input<'_, Snapshot>],
        cx: &Context<'_>,
    ) -> Result<Vec<Snapshot>, WorkerError> {
        match &vertex.vertex().op {
            Op::Source(SourceOp::Image(image)) => self.unpack_image(vertex.vertex(), image, cx),
            Op::Source(SourceOp::OciLayout(layout)) => self.unpack_layout(vertex.vertex(), layout, cx),
            Op::Source(SourceOp::Http(http)) => self.unpack_http(http, cx),
            Op::Source(SourceOp::Git(git)) => self.unpack_git(git, cx),
            Op::Exec(exec) => self.exec(exec, inputs, cx),
            Op::File(file) => self.file_op(vertex, file, inputs, cx),
            Op::Merge(merge) => self.merge(merge, inputs).map(|snapshot| vec![snapshot]),
            Op::Diff(diff) => self.diff(diff, inputs).map(|snapshot| vec![snapshot]),
            op @ Op::Source(SourceOp::Local(_)) => Err(WorkerError::unsupported(op)),
        }
    }

    /// The tree of a snapshot.
    fn view(&self, snapshot: &Snapshot) -> Result<RootDir, WorkerError> {
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, root)) = views.iter().find(|(known, _)| known == snapshot) {
            return Ok(root.try_clone()?);
        }
        let root = file_op::root_of(self.store().view(snapshot)?);
        views.push((snapshot.clone(), root.try_clone()?));
        let forgotten = views.len().saturating_sub(VIEWS_MAX);
        views.drain(..forgotten);
        Ok(root)
    }

    /// What a source is to keys. With a single id all files belong to root, whoever they are given to: such results are nobody else's, in this store later or in
    /// shared caches.
    fn as_taken_here(&self, digest: [u8; 32]) -> [u8; 32] {
        if !self.options.single_id {
            return digest;
        }
        let mut hasher = KeyHasher::new("rbuild.single-id.v1");
        hasher.bytes(&digest);
        hasher.finish()
    }

    const fn store(&self) -> &Store {
        self.images.store()
    }

    /// A local source as the steps that read it see it.
    fn context(&self, local: &LocalSource) -> Result<file_op::Source, WorkerError> {
        let name = &local.name;
        let context = self.options.contexts.get(name);
        let context = context.ok_or_else(|| WorkerError::UnknownContext { name: name.clone() })?;
        Ok(file_op::Source {
            root: RootDir::open(&context.path)?,
            kind: context.kind,
            exclude: Some(Patterns::new(&local.exclude)?),
            layers: None,
        })
    }

    /// A secret that is sent in a header: one line of text, of which a newline at its end is no part.
    fn secret_text(&self, id: &str) -> Result<Option<Secret>, WorkerError> {
        let Some(value) = self.options.secrets.get(id)? else { return Ok(None) };
        let text = str::from_utf8(value.as_bytes()).map(|text| text.trim_end_matches(['\r', '\n']));
        match text {
            Ok(text) if !text.contains(char::is_control) => Ok(Some(Secret::new(text))),
            _ => Err(WorkerError::SecretNotText { id: id.to_owned() }),
        }
    }
}

/// An input of a vertex had to run, or had one that had to.
fn ignored_cache(vertex: VertexRef<'_>, input: InputIndex) -> Cause {
    let meta = vertex.input(input).map(|input| input.vertex().meta.clone()).unwrap_or_default();
    let first = FirstCause { step: meta.name.clone(), cause: Cause::NoCache };
    Cause::EarlierStep { step: meta.name, first: meta.ignore_cache.then(|| Box::new(first)) }
}

/// What is in the store.
fn here(outputs: Vec<Snapshot>) -> Vec<Tree> {
    outputs.into_iter().map(Tree::Here).collect()
}

/// The lists of files that went into a key.
fn file_lists(trace: &KeyTrace) -> Vec<[u8; 32]> {
    trace.inputs.iter().filter_map(Contribution::content).collect()
}

/// Cache keys are computed in `cache_key` and stored by the cache, which derives none: the same bytes on both sides.
const fn stored(key: CacheKey) -> rbuild_cache::CacheKey {
    rbuild_cache::CacheKey(key.0)
}

impl Worker for LocalWorker<'_> {
    type Output = Tree;
    type Error = WorkerError;
    type Lock = KeyLock;

    fn identify(&self, vertex: VertexRef<'_>, cx: &Context<'_>) -> Result<SourceIdentity, WorkerError> {
        let identity = match &vertex.vertex().op {
            Op::Source(SourceOp::Image(image)) => self.identify_image(image),
            Op::Source(SourceOp::OciLayout(layout)) => Ok(identify_layout(layout)),
            Op::Source(SourceOp::Http(http)) => self.identify_http(http, cx),
            Op::Source(SourceOp::Git(git)) => self.identify_git(git, cx),
            op => Err(WorkerError::unsupported(op)),
        };
        Ok(SourceIdentity(self.as_taken_here(identity?.0)))
    }

    fn content_digest(
        &self,
        input: Input<'_, Tree>,
        selection: &Selection,
        cx: &Context<'_>,
    ) -> Result<ContentDigest, WorkerError> {
        match input {
            Input::Output(tree) => self.digest_snapshot(&self.here(tree, cx)?, selection, cx),
            Input::Local(vertex) => self.digest_local(vertex, selection, cx),
        }
    }

    fn lookup(&self, keys: &[CacheKey]) -> Result<Vec<Found<Tree>>, WorkerError> {
        let keys: Vec<_> = keys.iter().copied().map(stored).collect();
        let records = self.store().records().lookup_many(&keys)?;
        Ok(records.into_iter().map(|record| record.map(|record| here(record.outputs))).collect())
    }

    fn lookup_shared(&self, steps: &[Wanted<'_>], cancel: &AtomicBool) -> Vec<Found<Tree>> {
        self.find_shared(steps, cancel)
    }

    fn has_op(&self, op: OpDigest) -> Result<bool, WorkerError> {
        Ok(self.options.shared.has_op(op) || self.store().records().has_op(&op.0)?)
    }

    fn find_by_content(
        &self,
        step: &Wanted<'_>,
        inputs: &[Input<'_, Tree>],
        content_key: CacheKey,
        cx: &Context<'_>,
    ) -> Result<Found<Tree>, WorkerError> {
        Ok(self.laid_on_inputs(step, inputs, content_key, cx)?.map(here))
    }

    fn lock(&self, key: CacheKey, cx: &Context<'_>) -> Result<KeyLock, WorkerError> {
        Ok(self.store().lock_key(&stored(key), cx.cancel)?)
    }

    fn run(
        &self,
        vertex: VertexRef<'_>,
        inputs: &[Input<'_, Tree>],
        cx: &Context<'_>,
    ) -> Result<Vec<Tree>, WorkerError> {
        let snapshots = self.all_here(inputs, cx)?;
        let inputs: Vec<Input<'_, Snapshot>> = inputs
            .iter()
            .zip(&snapshots)
            .map(|(input, snapshot)| match input {
                Input::Output(_) => Input::Output(snapshot),
                Input::Local(vertex) => Input::Local(*vertex),
            })
            .collect();
        self.run_here(vertex, &inputs, cx).map(here)
    }

    fn record(&self, record: NewRecord<'_, Tree>) -> Result<(), WorkerError> {
        let vertex = record.vertex.vertex();
        let file_lists = file_lists(record.trace);
        let outputs: Vec<Snapshot> = record.outputs.iter().filter_map(Tree::snapshot).cloned().collect();
        debug_assert_eq!(outputs.len(), record.outputs.len(), "what ran here is here");
        let History { project, build } = &self.options.history;
        let origin = build.as_ref().map(|build| Origin { build: build.clone(), step: record.vertex.id.0 });
        self.store().records().insert(&rbuild_cache::NewRecord {
            key: stored(record.key),
            op_digest: record.trace.op.0,
            content_key: record.content_key.map(stored),
            outputs: &outputs,
            description: &vertex.meta.name,
            trace: &recipe::encode(vertex, record.trace),
            file_lists: &file_lists,
            project,
            origin: origin.as_ref(),
            is_source: matches!(vertex.op, Op::Source(_)),
        })?;
        self.describe_ahead(record.vertex, &outputs);
        Ok(())
    }

    fn set_content_key(&self, key: CacheKey, content_key: CacheKey) -> Result<(), WorkerError> {
        let build = self.options.history.build.as_ref();
        self.store().records().set_content_key(stored(key), stored(content_key), build)?;
        Ok(())
    }

    fn explain(&self, vertex: VertexRef<'_>, trace: &KeyTrace, reason: MissReason) -> Vec<Cause> {
        match reason {
            MissReason::IgnoreCache => vec![Cause::NoCache],
            MissReason::InputIgnoredCache { input } => vec![ignored_cache(vertex, input)],
            MissReason::NoRecord | MissReason::InputsChanged => {
                let (store, project) = (self.store(), &self.options.history.project);
                let memory = recipe::Recipes { store, project, file_lists: &self.file_lists };
                let recipe = Recipe::of(vertex.vertex(), trace);
                self.explainer.causes(&memory, &vertex.vertex().meta.name, &recipe)
            }
        }
    }
}
