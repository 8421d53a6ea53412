//! What the scheduler needs done, as a trait: pin sources, digest contents, find records, run a step.
//!
//! The scheduler sees nothing of the world but this. The real worker is `local`; tests use
//! [`testing::ScriptedWorker`](crate::testing::ScriptedWorker), whose steps write strings.
//!
//! All methods are called from several threads at once, and may block. Those that get a [`Context`] must look at its
//! cancel flag whenever they wait or loop for long, and return an error when it is set; which error does not matter.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use rbuild_llb::{Definition, InputIndex, OpDigest, Vertex, VertexId};

use crate::build::MissReason;
use crate::cache_key::{CacheKey, ContentDigest, KeyTrace, SourceIdentity};
use crate::cache_map::Selection;
use crate::explain::Cause;
use crate::progress::{Event, EventSink};

/// What a key led to: the outputs of a record.
pub type Found<O> = Option<Vec<O>>;

/// Does what the scheduler decides.
pub trait Worker: Sync {
    /// What a step makes: a snapshot, for the real worker. Holding one must keep it from being pruned.
    type Output: Clone + Send + Sync;
    /// Why something could not be done.
    type Error: std::error::Error + Send + Sync + 'static;
    /// Held while a step runs; dropping it lets the next one in.
    type Lock;

    /// Pins a source to what it is right now: the digest of an image's manifest, the commit of a git reference.
    /// Not called for local sources: they are known by their content.
    ///
    /// # Errors
    /// When the source does not exist or cannot be reached.
    fn identify(&self, vertex: VertexRef<'_>, cx: &Context<'_>) -> Result<SourceIdentity, Self::Error>;

    /// The digest of the selected part of a tree, without modification times. Equal digests promise that a step which
    /// takes this selection makes the same of both.
    ///
    /// It depends on the order of the selected paths, and not on where in the tree they lie: of each, the names
    /// below the selected directory, or the names that a pattern matched, count. A path that is not there is
    /// hashed as absent: it is the step that fails, and knows how to say so. `selection` is never empty.
    ///
    /// # Errors
    /// When the tree cannot be read.
    fn content_digest(
        &self,
        input: Input<'_, Self::Output>,
        selection: &Selection,
        cx: &Context<'_>,
    ) -> Result<ContentDigest, Self::Error>;

    /// The digests of several selections of one local source, in their order. Called once in a build for each local source, so
    /// that a worker can walk the directory once.
    ///
    /// # Errors
    /// When the directory cannot be read.
    fn local_digests(
        &self,
        source: VertexRef<'_>,
        selections: &[&Selection],
        cx: &Context<'_>,
    ) -> Result<Vec<ContentDigest>, Self::Error> {
        let digest = |selection: &&Selection| self.content_digest(Input::Local(source), selection, cx);
        selections.iter().map(digest).collect()
    }

    /// Finds records by definition key, all in one go. The answers are in the order of the keys.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn lookup(&self, keys: &[CacheKey]) -> Result<Vec<Found<Self::Output>>, Self::Error>;

    /// Whether any record is of this op, on whatever inputs: whether digesting contents could find anything.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn has_op(&self, op: OpDigest) -> Result<bool, Self::Error>;

    /// Finds what other machines made of steps that would have to run here, all in one go. The answers are in the order of the
    /// steps; a failure to ask is no answer. What is given need not be here yet: whoever is given it as an input sees to that.
    fn lookup_shared(&self, steps: &[Wanted<'_>], _cancel: &AtomicBool) -> Vec<Found<Self::Output>> {
        steps.iter().map(|_| None).collect()
    }

    /// Finds what a step that is about to run gave when its inputs held the same, by its content key, and lets its definition key
    /// lead there. What its outputs are laid on is what `inputs` are now.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    fn find_by_content(
        &self,
        step: &Wanted<'_>,
        inputs: &[Input<'_, Self::Output>],
        content_key: CacheKey,
        cx: &Context<'_>,
    ) -> Result<Found<Self::Output>, Self::Error>;

    /// Waits until no other process and no other thread holds the key, and holds it.
    ///
    /// # Errors
    /// When the lock cannot be taken, or the build was cancelled.
    fn lock(&self, key: CacheKey, cx: &Context<'_>) -> Result<Self::Lock, Self::Error>;

    /// Runs a step. `inputs` are in the order of [`Vertex::inputs`]; the outputs are at their
    /// [`OutputIndex`](rbuild_llb::OutputIndex).
    ///
    /// # Errors
    /// When the step failed, could not be run or was cancelled.
    fn run(
        &self,
        vertex: VertexRef<'_>,
        inputs: &[Input<'_, Self::Output>],
        cx: &Context<'_>,
    ) -> Result<Vec<Self::Output>, Self::Error>;

    /// Remembers what a step made. An earlier record of the same key is replaced.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn record(&self, record: NewRecord<'_, Self::Output>) -> Result<(), Self::Error>;

    /// Adds the content key to the record of a definition key, if it is still there.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn set_content_key(&self, key: CacheKey, content_key: CacheKey) -> Result<(), Self::Error>;

    /// Why a vertex has to run: in what it differs from what is recorded. Nothing where nobody knows.
    fn explain(&self, _vertex: VertexRef<'_>, _trace: &KeyTrace, _reason: MissReason) -> Vec<Cause> {
        Vec::new()
    }
}

/// A vertex in its definition.
#[derive(Debug, Clone, Copy)]
pub struct VertexRef<'a> {
    /// The build that it is of.
    pub definition: &'a Definition,
    /// Which vertex.
    pub id: VertexId,
}

impl<'a> VertexRef<'a> {
    /// The vertex itself.
    pub fn vertex(&self) -> &'a Vertex {
        self.definition.vertex(self.id)
    }

    /// The vertex that an input comes from.
    pub fn input(&self, input: InputIndex) -> Option<Self> {
        let edge = self.vertex().inputs.get(input.index())?;
        Some(Self { definition: self.definition, id: edge.vertex })
    }
}

/// A step that would have to run.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The step.
    pub vertex: VertexRef<'a>,
    /// What its definition key is made of.
    pub trace: &'a KeyTrace,
}

/// What a step is given as an input, or what is to be digested.
#[derive(Debug)]
pub enum Input<'a, O> {
    /// What another step made.
    Output(&'a O),
    /// A local source: never run as a step of its own, but read in place by the steps that need it.
    Local(VertexRef<'a>),
}

impl<O> Clone for Input<'_, O> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<O> Copy for Input<'_, O> {}

/// A result to remember.
#[derive(Debug)]
pub struct NewRecord<'a, O> {
    /// The definition key.
    pub key: CacheKey,
    /// What ran.
    pub vertex: VertexRef<'a>,
    /// The content key, when it is already known. [`Worker::set_content_key`] may bring it later.
    pub content_key: Option<CacheKey>,
    /// What was made.
    pub outputs: &'a [O],
    /// What the definition key was made of.
    pub trace: &'a KeyTrace,
}

/// What surrounds one call: whether to go on, and whom to tell.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Set when the build is to stop.
    pub cancel: &'a AtomicBool,
    /// Where output and progress of the vertex go; nowhere while it counts as not begun.
    pub events: &'a dyn EventSink,
    /// The vertex that the work is for.
    pub vertex: VertexId,
}

impl Context<'_> {
    /// Whether the build is to stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    /// Reports what happened.
    pub fn emit(&self, event: Event) {
        self.events.emit(event);
    }
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("vertex", &self.vertex).finish_non_exhaustive()
    }
}
