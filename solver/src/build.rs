//! The entry: one definition in, its results out.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};

use rbuild_llb::{Definition, InputIndex, VertexId};
use serde::{Deserialize, Serialize};

use crate::cache_key::CacheKey;
use crate::entitlements::Entitlements;
use crate::error::SolveError;
use crate::graph::Graph;
use crate::pool;
use crate::pool::Desk;
use crate::progress::{EventSink, NoEvents};
use crate::scheduler::Step;
use crate::worker::Worker;

/// How many vertices are worked on at a time, if nobody says. Most steps wait for a network, a disk or one core,
/// so this is far above any number of cores; it bounds memory and processes.
pub const JOBS_DEFAULT: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not zero");

/// How to build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SolveOptions {
    /// How many vertices are worked on at a time.
    pub jobs: NonZeroUsize,
    /// What steps may do beside what all may.
    pub entitlements: Entitlements,
}

impl Default for SolveOptions {
    fn default() -> Self {
        Self { jobs: JOBS_DEFAULT, entitlements: Entitlements::default() }
    }
}

/// A finished build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Solved<O> {
    /// The results, in the definition's order; `None` is the empty tree.
    pub outputs: Vec<Option<O>>,
    /// What became of each vertex that a result depends on, inputs before users.
    pub vertices: Vec<SolvedVertex>,
    /// Steps that ran and whose records have no content key yet. To make one means to read what the step was given, so
    /// the result was not kept waiting for it: pass them to [`record_content_keys`] when there is time.
    pub unkeyed: Vec<Step<O>>,
}

/// What became of a vertex.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SolvedVertex {
    /// Which.
    pub vertex: VertexId,
    /// Its definition key. A local source has none, unless it is the result itself.
    pub key: Option<CacheKey>,
    /// What happened.
    pub outcome: Outcome,
}

/// What a vertex came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was not needed: what depends on it was found.
    Unneeded,
    /// A local source: its files were digested.
    Digested,
    /// Found by its definition key.
    Cached,
    /// Found by its content key: its inputs were made anew, and turned out to be the same.
    CutOff,
    /// Another build made it while this one waited.
    Shared,
    /// It ran.
    Ran(MissReason),
}

/// What happened, in words.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unneeded => "not needed: what depends on it was found",
            Self::Digested => "files were looked at",
            Self::Cached => "found under its key",
            Self::CutOff => "found by content: its inputs were made anew and came out the same",
            Self::Shared => "made by another build at the same time",
            Self::Ran(_) => "ran",
        })
    }
}

/// Why a vertex had to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissReason {
    /// It was asked for that the cache is not used.
    IgnoreCache,
    /// Nothing that does the same was ever recorded, on whatever inputs.
    NoRecord,
    /// The same was recorded, but on other inputs.
    InputsChanged,
    /// An input had to run regardless of the cache, and what this makes of its result is not recorded.
    InputIgnoredCache {
        /// Which input.
        input: InputIndex,
    },
}

/// How many vertices came to what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// How many ran.
    pub ran: usize,
    /// How many were found by definition key, or not needed.
    pub cached: usize,
    /// How many were found by content key.
    pub cut_off: usize,
    /// How many were made by another build.
    pub shared: usize,
}

impl<O> Solved<O> {
    /// Counts what happened. Local sources are not counted.
    pub fn statistics(&self) -> Statistics {
        self.vertices.iter().fold(Statistics::default(), |mut count, solved| {
            match solved.outcome {
                Outcome::Unneeded | Outcome::Cached => count.cached += 1,
                Outcome::CutOff => count.cut_off += 1,
                Outcome::Shared => count.shared += 1,
                Outcome::Ran(_) => count.ran += 1,
                Outcome::Digested => {}
            }
            count
        })
    }

    /// What became of one vertex; `None` when the result does not depend on it.
    pub fn outcome(&self, vertex: VertexId) -> Option<Outcome> {
        self.vertices.iter().find(|solved| solved.vertex == vertex).map(|solved| solved.outcome)
    }
}

/// Makes what a definition describes, running only what is not recorded.
///
/// Blocks until the result is there or nothing runs any more; no thread outlives the call. When `cancel` becomes true,
/// running steps are told to stop, and the call returns once they have.
///
/// # Errors
/// [`SolveError::NotAllowed`] before anything runs; the first failure of a vertex; or [`SolveError::Cancelled`].
pub fn solve<W: Worker>(
    definition: &Definition,
    worker: &W,
    options: &SolveOptions,
    events: &dyn EventSink,
    cancel: &AtomicBool,
) -> Result<Solved<W::Output>, SolveError<W::Error>> {
    let Some(graph) = Graph::new(definition) else {
        let outputs = definition.targets().iter().map(|_| None).collect();
        return Ok(Solved { outputs, vertices: Vec::new(), unkeyed: Vec::new() });
    };
    match options.entitlements.lacking(&graph) {
        Some((entitlement, range)) => Err(SolveError::NotAllowed { entitlement, range }),
        None => pool::drive(&graph, worker, options, events, cancel),
    }
}

/// Adds content keys to the records of steps that ran, so that later builds can find them by what they were given.
/// Stops early, and without an error, when `cancel` becomes true.
///
/// # Errors
/// When an input cannot be read, or the store cannot be written.
pub fn record_content_keys<W: Worker>(
    definition: &Definition,
    worker: &W,
    unkeyed: &[Step<W::Output>],
    cancel: &AtomicBool,
) -> Result<(), W::Error> {
    let Some(graph) = Graph::new(definition) else { return Ok(()) };
    let desk = Desk::new(&graph, worker, &NoEvents);
    for step in unkeyed {
        match desk.content_key(step, cancel) {
            Ok(content_key) => worker.set_content_key(step.key, content_key)?,
            Err(_) if cancel.load(Ordering::Relaxed) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
