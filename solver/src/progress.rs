//! What happens during a build, as events. The library emits them; a command draws them.
//!
//! Order: one [`Event::Planned`] with every vertex, then for each vertex at most one of `Cached`, or `Started` … followed
//! by exactly one of `Completed`, `Failed`, `Cancelled`. Nothing of a vertex comes after that. `Decided` and `Explained` come
//! before the end.

use rbuild_llb::{SourceRange, VertexId};

use crate::build::Outcome;
use crate::cache_key::CacheKey;
use crate::explain::Cause;
use crate::images::Transfer;

/// One thing that happened. Times are the receiver's: the library reads no clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The graph is known.
    Planned {
        /// Every vertex that a result depends on, in topological order.
        vertices: Vec<PlannedVertex>,
    },
    /// What is done with a vertex. Comes before what is then done; once more where another build did it meanwhile.
    Decided {
        /// Which.
        vertex: VertexId,
        /// Its definition key.
        key: Option<CacheKey>,
        /// What is done.
        outcome: Outcome,
    },
    /// Why a vertex runs.
    Explained {
        /// Which.
        vertex: VertexId,
        /// In what it differs from what ran before.
        causes: Vec<Cause>,
    },
    /// A vertex needs work and has begun it.
    Started {
        /// Which.
        vertex: VertexId,
    },
    /// A vertex needs no work: its result, or that of one which depends on it, was found.
    Cached {
        /// Which.
        vertex: VertexId,
    },
    /// A process printed something.
    Output {
        /// Which vertex's.
        vertex: VertexId,
        /// Which stream.
        stream: OutputStream,
        /// What, as it came: not always whole lines, not always UTF-8.
        bytes: Vec<u8>,
    },
    /// Bytes were moved.
    Transfer {
        /// Which vertex's.
        vertex: VertexId,
        /// What is moved: a blob's short digest, `extracting …`, `context`.
        name: String,
        /// How much has been moved.
        current_bytes: u64,
        /// How much there is, where that is known.
        total_bytes: Option<u64>,
    },
    /// A vertex is done.
    Completed {
        /// Which.
        vertex: VertexId,
    },
    /// A vertex failed. The error itself is what the build returns.
    Failed {
        /// Which.
        vertex: VertexId,
        /// The error in one line.
        message: String,
    },
    /// A vertex was stopped because another failed, or the user asked for it.
    Cancelled {
        /// Which.
        vertex: VertexId,
    },
    /// Work that belongs to no vertex: exporting an image, writing a tar.
    Task {
        /// What is done, stable for the whole task.
        name: String,
        /// How far it is.
        state: TaskState,
    },
}

/// A vertex as a display needs to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedVertex {
    /// Which.
    pub vertex: VertexId,
    /// What to call it: `[build 2/5] RUN make`.
    pub name: String,
    /// The Dockerfile lines that it comes from.
    pub source: Option<SourceRange>,
    /// Not a step that a person wrote.
    pub internal: bool,
}

/// How far a task is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskState {
    /// It has begun.
    Started,
    /// Bytes were moved.
    Moved(Transfer),
    /// It is done.
    Completed,
}

/// Which stream of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Where events go. Called from several threads; must not block for long, as the build waits.
pub trait EventSink: Send + Sync {
    /// Takes one event.
    fn emit(&self, event: Event);
}

/// Drops every event.
#[derive(Debug, Clone, Copy)]
pub struct NoEvents;

impl EventSink for NoEvents {
    fn emit(&self, _: Event) {}
}
