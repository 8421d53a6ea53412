//! What the scheduler and those who carry out its jobs say to each other.

use rbuild_llb::{InputIndex, VertexId};

use crate::build::MissReason;
use crate::cache_key::{CacheKey, ContentDigest, KeyTrace, SourceIdentity};
use crate::progress::Event;
use crate::worker::Found;

/// What is to be done.
#[derive(Debug)]
pub enum Command<O> {
    /// Tell the user.
    Emit(Event),
    /// Begin a job. Its report is due.
    Start(Job<O>),
    /// Tell all running jobs to stop. Their reports are still due.
    Stop,
}

/// Work for a thread.
#[derive(Debug)]
pub enum Job<O> {
    /// Pin a source.
    Identify {
        /// The source.
        vertex: VertexId,
    },
    /// Digest what vertices take of a local source.
    Digest {
        /// The local source.
        local: VertexId,
        /// For each selection, one of those who take it.
        users: Vec<(VertexId, InputIndex)>,
    },
    /// Look up definition keys.
    Lookup {
        /// The keys.
        keys: Vec<CacheKey>,
    },
    /// Ask shared caches for what would have to run.
    LookupShared {
        /// The vertices, with what their keys are made of.
        steps: Vec<(VertexId, KeyTrace)>,
    },
    /// Make and look up a content key, if any record is of the op.
    Probe(Step<O>),
    /// Run a step and record what it made.
    Run {
        /// The step.
        step: Step<O>,
        /// Whether another build's result is welcome.
        reuse: Reuse,
        /// The content key, where it is known.
        content_key: Option<CacheKey>,
        /// Why it has to run.
        reason: MissReason,
    },
    /// Make the content key of a step that runs or ran without having been probed.
    DigestInputs(Step<O>),
    /// Add a content key to a record.
    StoreContentKey {
        /// The record's definition key.
        key: CacheKey,
        /// The content key.
        content_key: CacheKey,
    },
}

/// A vertex with its inputs at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step<O> {
    /// The vertex.
    pub vertex: VertexId,
    /// Its definition key.
    pub key: CacheKey,
    /// What its definition key is made of.
    pub trace: KeyTrace,
    /// Its inputs.
    pub inputs: Vec<Supplied<O>>,
}

/// An input at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Supplied<O> {
    /// What another vertex made.
    Output(O),
    /// A local source.
    Local {
        /// The source.
        vertex: VertexId,
        /// The digest of what is taken of it.
        digest: ContentDigest,
    },
}

/// Whether, before a step runs, the key is locked and looked up again, so that of several builds one runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// By its definition key.
    ByDefinition,
    /// By this content key: the definition key may lead to a result that the user wants made anew.
    ByContent(CacheKey),
    /// Not at all: it must run.
    Never,
}

/// What came of a job.
#[derive(Debug)]
pub enum Report<O, E> {
    /// Of [`Job::Identify`].
    Identified {
        /// The source.
        vertex: VertexId,
        /// What it is pinned to.
        identity: SourceIdentity,
    },
    /// Of [`Job::Digest`].
    Digested {
        /// The local source.
        local: VertexId,
        /// A digest for each selection.
        digests: Vec<ContentDigest>,
    },
    /// Of [`Job::Lookup`]: an answer for each key.
    LookedUp {
        /// The answers.
        found: Vec<Found<O>>,
    },
    /// Of [`Job::LookupShared`]: an answer for each step.
    LookedUpShared {
        /// The answers.
        found: Vec<Found<O>>,
    },
    /// Of [`Job::Probe`].
    Probed {
        /// The vertex.
        vertex: VertexId,
        /// What was found.
        probe: Probe<O>,
    },
    /// Of [`Job::Run`].
    Ran {
        /// The vertex.
        vertex: VertexId,
        /// The result, and who made it.
        made: Made<O>,
    },
    /// Of [`Job::DigestInputs`]. That it could not be made is no failure of the build.
    InputsDigested {
        /// The vertex.
        vertex: VertexId,
        /// The content key.
        content_key: Option<CacheKey>,
    },
    /// Of [`Job::StoreContentKey`].
    ContentKeyStored,
    /// Of any job that failed.
    Failed {
        /// The vertex it was for; `None` is [`Job::Lookup`].
        vertex: Option<VertexId>,
        /// Why.
        error: E,
    },
}

/// What a content key led to.
#[derive(Debug)]
pub enum Probe<O> {
    /// No record is of the op, so nothing was digested.
    NoRecord,
    /// The key is not recorded.
    Missed(CacheKey),
    /// It is, and the definition key now leads there too.
    Hit(Vec<O>),
}

/// Who made a result.
#[derive(Debug)]
pub enum Made<O> {
    /// The step ran and was recorded.
    Here(Vec<O>),
    /// Another build ran it while this one waited for the lock.
    Elsewhere(Vec<O>),
}
