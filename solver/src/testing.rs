//! A worker whose steps write strings, and short ways to write the graphs it runs.
//!
//! A tree is a map from path to text. What a step does is its argument list, applied to the tree of its root:
//!
//! | arguments | effect |
//! |---|---|
//! | `write PATH TEXT` | sets a file |
//! | `append PATH TEXT` | adds to a file |
//! | `length PATH OUT` | writes how long a file is, and removes it: many inputs, few results |
//! | `join PATH` | appends the file at that path of all further inputs |
//! | `unstable PATH` | writes something that was never written before |
//! | `nothing` | makes no output at all |
//!
//! Copies, merges and sources work as their ops say, as far as tests need it. Every call is counted, and faults can be
//! scripted by vertex name. Two workers on one [`Store`] stand for two processes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use rbuild_image::{KeyHasher, Reference};
use rbuild_llb::{
    Builder, CopyAction, Definition, Edge, ExecOp, FileAction, FileInput, FileOp, FileStep, ImageSource,
    InputIndex, LocalSource, MergeOp, Meta, Mount, MountKind, Network, Op, OpDigest, OutputIndex, Process,
    ResolveMode, Security, SourceOp, Vertex, VertexId,
};
use thiserror::Error;

use crate::cache_key::{CacheKey, ContentDigest, KeyTrace, SourceIdentity};
use crate::cache_map::{SelectedPath, Selection};
use crate::progress::{Event, EventSink};
use crate::worker::{Context, Found, Input, NewRecord, VertexRef, Wanted, Worker};

/// What a scripted step makes.
pub type Tree = Arc<BTreeMap<String, String>>;

/// Why a scripted step failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ScriptError {
    /// The script says so.
    #[error("scripted fault in `{0}`")]
    Fault(String),
    /// The build was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The op is not one that the worker knows.
    #[error("cannot run `{0}`")]
    Unknown(String),
}

/// A record of a [`Store`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What was made.
    pub outputs: Vec<Tree>,
    /// Its op.
    pub op: OpDigest,
    /// Its content key, once known.
    pub content_key: Option<CacheKey>,
}

/// What all workers of a test share, as processes share a store on disk.
#[derive(Debug, Default)]
pub struct Store {
    records: Mutex<HashMap<CacheKey, Record>>,
    locked: Mutex<BTreeSet<CacheKey>>,
    unlocked: Condvar,
    /// How many unstable steps ran.
    unstable: Mutex<u64>,
}

impl Store {
    fn records(&self) -> MutexGuard<'_, HashMap<CacheKey, Record>> {
        self.records.lock().expect("no test panics while it holds the records")
    }

    /// All that is recorded.
    pub fn snapshot(&self) -> HashMap<CacheKey, Record> {
        self.records().clone()
    }

    /// A store with these records.
    pub fn with(records: HashMap<CacheKey, Record>) -> Self {
        Self { records: Mutex::new(records), ..Self::default() }
    }

    /// Forgets a record.
    pub fn forget(&self, key: CacheKey) {
        self.records().remove(&key);
    }

    /// What a definition key leads to.
    pub fn get(&self, key: CacheKey) -> Found<Tree> {
        self.records().get(&key).map(|record| record.outputs.clone())
    }

    /// Whether any record is of the op.
    pub fn has_op(&self, op: OpDigest) -> bool {
        self.records().values().any(|record| record.op == op)
    }

    /// What a content key leads to. From then on a definition key leads there, too.
    pub fn link(&self, key: CacheKey, content_key: CacheKey) -> Found<Tree> {
        let mut records = self.records();
        // The smallest definition key, so that a test does not depend on the order of a map.
        let matching = records.iter().filter(|(_, record)| record.content_key == Some(content_key));
        let (_, record) = matching.min_by_key(|(key, _)| **key)?;
        let (record, outputs) = (record.clone(), record.outputs.clone());
        records.insert(key, record);
        Some(outputs)
    }

    /// Remembers a result.
    pub fn put(&self, key: CacheKey, record: Record) {
        self.records().insert(key, record);
    }

    /// Adds a content key to a record.
    pub fn set_content_key(&self, key: CacheKey, content_key: CacheKey) {
        if let Some(record) = self.records().get_mut(&key) {
            record.content_key = Some(content_key);
        }
    }

    /// A text that was never given before.
    fn never_seen(&self) -> String {
        let mut count = self.unstable.lock().expect("no test panics while it counts");
        *count += 1;
        format!("run {count}")
    }
}

/// A key of a [`Store`], held.
#[derive(Debug)]
pub struct HeldLock {
    store: Arc<Store>,
    key: CacheKey,
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        if let Ok(mut locked) = self.store.locked.lock() {
            locked.remove(&self.key);
        }
        self.store.unlocked.notify_all();
    }
}

/// How often each method was called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calls {
    /// The names of sources that were pinned.
    pub identified: Vec<String>,
    /// The names of steps that ran.
    pub ran: Vec<String>,
    /// The local sources of which something was digested.
    pub digested_local: Vec<String>,
    /// How many trees were digested.
    pub digested_outputs: usize,
    /// How many times keys were looked up before the plan, and how many in all.
    pub looked_up: Vec<usize>,
    /// The names of the steps that a shared cache was asked for, each time.
    pub asked: Vec<Vec<String>>,
    /// How many content keys were looked up.
    pub looked_up_content: usize,
}

type Hook = Box<dyn Fn(&Context<'_>) -> Result<(), ScriptError> + Send + Sync>;

/// A worker that does what a test says.
#[derive(Default)]
pub struct ScriptedWorker {
    store: Arc<Store>,
    /// What other machines made.
    shared: Option<Arc<Store>>,
    /// Local directories by name.
    locals: BTreeMap<String, Tree>,
    calls: Mutex<Calls>,
    /// What happens in a step before it runs, by vertex name.
    hooks: HashMap<String, Hook>,
}

impl std::fmt::Debug for ScriptedWorker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScriptedWorker").field("calls", &self.calls).finish_non_exhaustive()
    }
}

impl ScriptedWorker {
    /// A worker on a store.
    pub fn new(store: &Arc<Store>) -> Self {
        Self { store: Arc::clone(store), ..Self::default() }
    }

    /// Lets it ask a shared cache, which holds whole trees.
    #[must_use]
    pub fn with_shared(self, shared: &Arc<Store>) -> Self {
        Self { shared: Some(Arc::clone(shared)), ..self }
    }

    /// Adds a local directory.
    #[must_use]
    pub fn with_local(mut self, name: &str, files: &[(&str, &str)]) -> Self {
        self.locals.insert(name.to_owned(), tree(files));
        self
    }

    /// Lets a step fail.
    #[must_use]
    pub fn with_fault(self, name: &str) -> Self {
        let error = ScriptError::Fault(name.to_owned());
        self.with_hook(name, move |_| Err(error.clone()))
    }

    /// Does something in a step before it runs. `identify NAME` and `digest NAME` are called while a source is pinned or
    /// digested, `digest output` while a tree is.
    #[must_use]
    pub fn with_hook(
        mut self,
        name: &str,
        hook: impl Fn(&Context<'_>) -> Result<(), ScriptError> + Send + Sync + 'static,
    ) -> Self {
        self.hooks.insert(name.to_owned(), Box::new(hook));
        self
    }

    /// What was called so far; steps in alphabetical order.
    pub fn calls(&self) -> Calls {
        let mut calls = self.count().clone();
        calls.ran.sort();
        calls.identified.sort();
        calls.digested_local.sort();
        calls
    }

    fn count(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().expect("no test panics while it counts")
    }

    fn hook(&self, name: &str, cx: &Context<'_>) -> Result<(), ScriptError> {
        self.hooks.get(name).map_or(Ok(()), |hook| hook(cx))
    }

    fn tree<'a>(&'a self, input: Input<'a, Tree>) -> Result<&'a Tree, ScriptError> {
        match input {
            Input::Output(tree) => Ok(tree),
            Input::Local(source) => {
                let name = name_of(source);
                self.locals.get(&name).ok_or(ScriptError::Unknown(name))
            }
        }
    }

    /// What a vertex makes of trees.
    ///
    /// # Errors
    /// When the op is not one that the worker knows.
    pub fn evaluate(&self, vertex: &Vertex, inputs: &[Tree]) -> Result<Vec<Tree>, ScriptError> {
        match &vertex.op {
            Op::Source(SourceOp::Image(image)) => Ok(vec![tree(&[("/image", &image.reference.to_string())])]),
            Op::Source(SourceOp::Local(local)) => {
                let files = self.locals.get(&local.name);
                Ok(vec![files.cloned().ok_or_else(|| ScriptError::Unknown(local.name.clone()))?])
            }
            Op::Exec(exec) => self.exec(exec, inputs),
            Op::File(file) => copy_files(file, inputs),
            Op::Merge(merge) => {
                let layers = merge.inputs.iter().flatten().map(|input| &inputs[input.index()]);
                let files = layers.flat_map(|tree| tree.iter());
                Ok(vec![Arc::new(files.map(|(path, text)| (path.clone(), text.clone())).collect())])
            }
            Op::Source(_) | Op::Diff(_) => Err(ScriptError::Unknown(vertex.meta.name.clone())),
        }
    }

    fn exec(&self, exec: &ExecOp, inputs: &[Tree]) -> Result<Vec<Tree>, ScriptError> {
        let mut files = inputs.first().map(|tree| BTreeMap::clone(tree)).unwrap_or_default();
        let args: Vec<&str> = exec.process.args.iter().map(String::as_str).collect();
        match args[..] {
            ["write", path, text] => {
                files.insert(path.to_owned(), text.to_owned());
            }
            ["append", path, text] => files.entry(path.to_owned()).or_default().push_str(text),
            ["length", path, out] => {
                let text = files.remove(path).unwrap_or_default();
                files.insert(out.to_owned(), text.len().to_string());
            }
            ["join", path] => {
                for other in inputs.iter().skip(1) {
                    let text = other.get(path).map_or("-", String::as_str);
                    files.entry(path.to_owned()).or_default().push_str(text);
                }
            }
            ["unstable", path] => {
                files.insert(path.to_owned(), self.store.never_seen());
            }
            ["nothing"] => return Ok(Vec::new()),
            _ => return Err(ScriptError::Unknown(args.join(" "))),
        }
        Ok(vec![Arc::new(files)])
    }
}

/// The digest of what a selection takes of a tree: of a path, the file there and those below it, by their names from
/// its last component on.
pub fn digest_tree(tree: &Tree, selection: &Selection) -> ContentDigest {
    let mut hasher = KeyHasher::new("test.tree.v1");
    let mut feed = |files: Vec<(&str, &str)>| {
        hasher.list(&files, |hasher, (path, text)| {
            hasher.str(path).str(text);
        });
    };
    match selection {
        Selection::Whole => feed(tree.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect()),
        Selection::Paths(paths) => paths.iter().for_each(|path| feed(selected(tree, path))),
    }
    ContentDigest(hasher.finish())
}

fn selected<'a>(tree: &'a Tree, selected: &SelectedPath) -> Vec<(&'a str, &'a str)> {
    let below = |path: &'a str| path.strip_prefix(selected.path.trim_end_matches('/'));
    tree.iter()
        .filter_map(|(path, text)| Some((below(path)?, text.as_str())))
        .filter(|(rest, _)| rest.is_empty() || rest.starts_with('/'))
        .collect()
}

fn copy_files(file: &FileOp, inputs: &[Tree]) -> Result<Vec<Tree>, ScriptError> {
    let mut made: Vec<Tree> = Vec::new();
    for step in &file.steps {
        let find = |input: FileInput, made: &[Tree]| match input {
            FileInput::Scratch => Tree::default(),
            FileInput::Input(input) => Arc::clone(&inputs[input.index()]),
            FileInput::Step(step) => Arc::clone(&made[step as usize]),
        };
        let mut files = BTreeMap::clone(&find(step.base, &made));
        let FileAction::Copy(copy) = &step.action else {
            return Err(ScriptError::Unknown("file action".to_owned()));
        };
        let source = find(copy.from, &made);
        let path = SelectedPath { path: copy.src.clone(), ..SelectedPath::default() };
        let copied = selected(&source, &path).into_iter();
        files.extend(copied.map(|(rest, text)| (format!("{}{rest}", copy.dest), text.to_owned())));
        made.push(Arc::new(files));
    }
    Ok(made.pop().into_iter().collect())
}

fn name_of(vertex: VertexRef<'_>) -> String {
    match &vertex.vertex().op {
        Op::Source(SourceOp::Local(local)) => local.name.clone(),
        _ => vertex.vertex().meta.name.clone(),
    }
}

impl Worker for ScriptedWorker {
    type Output = Tree;
    type Error = ScriptError;
    type Lock = HeldLock;

    fn identify(&self, vertex: VertexRef<'_>, cx: &Context<'_>) -> Result<SourceIdentity, ScriptError> {
        let name = name_of(vertex);
        self.hook(&format!("identify {name}"), cx)?;
        self.count().identified.push(name);
        match &vertex.vertex().op {
            Op::Source(SourceOp::Image(image)) => {
                let mut hasher = KeyHasher::new("test.image.v1");
                Ok(SourceIdentity(hasher.str(&image.reference.to_string()).finish()))
            }
            _ => Err(ScriptError::Unknown(vertex.vertex().meta.name.clone())),
        }
    }

    fn content_digest(
        &self,
        input: Input<'_, Tree>,
        selection: &Selection,
        cx: &Context<'_>,
    ) -> Result<ContentDigest, ScriptError> {
        match input {
            Input::Output(_) => {
                self.hook("digest output", cx)?;
                self.count().digested_outputs += 1;
            }
            Input::Local(source) => {
                self.hook(&format!("digest {}", name_of(source)), cx)?;
                self.count().digested_local.push(name_of(source));
            }
        }
        Ok(digest_tree(self.tree(input)?, selection))
    }

    fn lookup(&self, keys: &[CacheKey]) -> Result<Vec<Found<Tree>>, ScriptError> {
        self.count().looked_up.push(keys.len());
        Ok(keys.iter().map(|key| self.store.get(*key)).collect())
    }

    fn lookup_shared(&self, steps: &[Wanted<'_>], _cancel: &AtomicBool) -> Vec<Found<Tree>> {
        let mut names: Vec<String> = steps.iter().map(|step| name_of(step.vertex)).collect();
        // What is asked at once has no order.
        names.sort();
        self.count().asked.push(names);
        steps.iter().map(|step| self.shared.as_ref()?.get(step.trace.key())).collect()
    }

    fn has_op(&self, op: OpDigest) -> Result<bool, ScriptError> {
        Ok(self.store.has_op(op))
    }

    fn find_by_content(
        &self,
        step: &Wanted<'_>,
        _: &[Input<'_, Tree>],
        content_key: CacheKey,
        _: &Context<'_>,
    ) -> Result<Found<Tree>, ScriptError> {
        self.count().looked_up_content += 1;
        Ok(self.store.link(step.trace.key(), content_key))
    }

    fn lock(&self, key: CacheKey, _: &Context<'_>) -> Result<HeldLock, ScriptError> {
        let locked = self.store.locked.lock().expect("no test panics while it locks");
        let mut locked = self
            .store
            .unlocked
            .wait_while(locked, |locked| locked.contains(&key))
            .expect("no test panics while it locks");
        locked.insert(key);
        Ok(HeldLock { store: Arc::clone(&self.store), key })
    }

    fn run(
        &self,
        vertex: VertexRef<'_>,
        inputs: &[Input<'_, Tree>],
        cx: &Context<'_>,
    ) -> Result<Vec<Tree>, ScriptError> {
        let name = vertex.vertex().meta.name.clone();
        self.count().ran.push(name.clone());
        self.hook(&name, cx)?;
        if cx.is_cancelled() {
            return Err(ScriptError::Cancelled);
        }
        let inputs: Result<Vec<Tree>, ScriptError> =
            inputs.iter().map(|input| self.tree(*input).cloned()).collect();
        self.evaluate(vertex.vertex(), &inputs?)
    }

    fn record(&self, record: NewRecord<'_, Tree>) -> Result<(), ScriptError> {
        assert_eq!(record.trace.key(), record.key, "the trace is what the key is made of");
        let NewRecord { key, content_key, outputs, trace: KeyTrace { op, .. }, .. } = record;
        let op = *op;
        self.store.put(key, Record { outputs: outputs.to_vec(), op, content_key });
        Ok(())
    }

    fn set_content_key(&self, key: CacheKey, content_key: CacheKey) -> Result<(), ScriptError> {
        self.store.set_content_key(key, content_key);
        Ok(())
    }
}

/// Keeps events, for a test to look at.
#[derive(Debug, Default)]
pub struct RecordedEvents(Mutex<Vec<Event>>);

impl RecordedEvents {
    /// What came so far.
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.lock().expect("no test panics while it records"))
    }
}

impl EventSink for RecordedEvents {
    fn emit(&self, event: Event) {
        self.0.lock().expect("no test panics while it records").push(event);
    }
}

/// A vertex, named after nothing.
pub fn vertex(op: Op, inputs: &[Edge]) -> Vertex {
    Vertex { op, inputs: inputs.to_vec(), platform: None, meta: Meta::default() }
}

/// A command on the first input as its root.
pub fn exec_op(args: &[&str]) -> ExecOp {
    let root = Mount {
        input: Some(InputIndex(0)),
        selector: String::new(),
        target: "/".to_owned(),
        output: Some(OutputIndex(0)),
        readonly: false,
        kind: MountKind::Bind,
    };
    ExecOp {
        process: Process { args: args.iter().map(|&arg| arg.to_owned()).collect(), ..Process::default() },
        mounts: vec![root],
        network: Network::Default,
        security: Security::Sandbox,
        secret_env: Vec::new(),
        devices: Vec::new(),
    }
}

/// A copy from the second input.
pub fn copy_action(src: &str, dest: &str) -> CopyAction {
    CopyAction::new(FileInput::Input(InputIndex(1)), src, dest)
}

/// A file op of one copy.
pub fn copy_op(base: FileInput, copy: CopyAction) -> Op {
    Op::File(FileOp {
        steps: vec![FileStep { base, action: FileAction::Copy(copy), output: Some(OutputIndex(0)) }],
    })
}

/// A tree of these files.
pub fn tree(files: &[(&str, &str)]) -> Tree {
    Arc::new(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect())
}

/// Writes graphs of scripted steps.
#[derive(Debug, Default)]
pub struct Script(Builder);

impl Script {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds any vertex, under a name.
    pub fn add(&mut self, name: &str, op: Op, inputs: &[VertexId]) -> VertexId {
        let inputs: Vec<Edge> = inputs.iter().map(|id| (*id).into()).collect();
        let mut vertex = vertex(op, &inputs);
        name.clone_into(&mut vertex.meta.name);
        self.0.add(vertex)
    }

    /// An image.
    ///
    /// # Panics
    /// When `reference` is none.
    pub fn image(&mut self, reference: &str) -> VertexId {
        let reference_parsed: Reference = reference.parse().expect("a test's reference is well-formed");
        let image = ImageSource {
            reference: reference_parsed,
            resolve_mode: ResolveMode::Default,
            layer_limit: None,
        };
        self.add(reference, Op::Source(SourceOp::Image(image)), &[])
    }

    /// A local directory.
    pub fn local(&mut self, name: &str) -> VertexId {
        let local = LocalSource { name: name.to_owned(), ..LocalSource::default() };
        self.add(name, Op::Source(SourceOp::Local(local)), &[])
    }

    /// A command, named by its arguments; the first input is its root, the others are mounted.
    pub fn run(&mut self, args: &str, inputs: &[VertexId]) -> VertexId {
        self.named_run(args, args, inputs)
    }

    /// A command under a name of its own.
    pub fn named_run(&mut self, name: &str, args: &str, inputs: &[VertexId]) -> VertexId {
        let args: Vec<&str> = args.split(' ').collect();
        let mut exec = exec_op(&args);
        for input in (1u32..).take(inputs.len().saturating_sub(1)) {
            exec.mounts.push(Mount {
                input: Some(InputIndex(input)),
                selector: String::new(),
                target: format!("/mnt/{input}"),
                output: None,
                readonly: true,
                kind: MountKind::Bind,
            });
        }
        if inputs.is_empty() {
            exec.mounts[0].input = None;
        }
        self.add(name, Op::Exec(exec), inputs)
    }

    /// A copy of a path of `from` into `base`.
    pub fn copy(&mut self, base: VertexId, from: VertexId, src: &str, dest: &str) -> VertexId {
        let op = copy_op(FileInput::Input(InputIndex(0)), copy_action(src, dest));
        self.add(&format!("copy {src} {dest}"), op, &[base, from])
    }

    /// A copy of a path of `from` into nothing.
    pub fn linked_copy(&mut self, from: VertexId, src: &str, dest: &str) -> VertexId {
        let mut action = copy_action(src, dest);
        action.from = FileInput::Input(InputIndex(0));
        self.add(&format!("link {src} {dest}"), copy_op(FileInput::Scratch, action), &[from])
    }

    /// Trees over one another.
    pub fn merge(&mut self, inputs: &[VertexId]) -> VertexId {
        let merged = (0u32..).take(inputs.len()).map(|input| Some(InputIndex(input))).collect();
        self.add("merge", Op::Merge(MergeOp { inputs: merged }), inputs)
    }

    /// Makes a vertex ignore the cache.
    pub fn ignore_cache(&mut self, vertex: VertexId) {
        self.0.vertex_mut(vertex).meta.ignore_cache = true;
    }

    /// The definition with this result.
    ///
    /// # Panics
    /// When a vertex is malformed.
    pub fn result(self, target: VertexId) -> Definition {
        self.results(&[target])
    }

    /// The definition with these results.
    ///
    /// # Panics
    /// When a vertex is malformed.
    pub fn results(self, targets: &[VertexId]) -> Definition {
        let targets = targets.iter().map(|target| Some((*target).into())).collect();
        self.0.finish_all(targets).expect("a test's graph is well-formed")
    }
}
