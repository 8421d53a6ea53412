//! Decides what of a build has to run, and runs it.
//!
//! A build is a [`Definition`](rbuild_llb::Definition): steps, each with the steps it takes its inputs from, and the one
//! that makes the result. [`solve`] makes that result and as little else as it can. All that it knows of the world goes
//! through the [`Worker`] trait.
//!
//! # How
//!
//! 1. **Graph** (`graph`). What the result does not depend on is cut off and never looked at again.
//! 2. **Sources** (`plan`). Images, repositories and URLs are pinned to what they are right now. Of local directories,
//!    the files that steps take are digested. All of it at once; nothing else can begin.
//! 3. **Definition keys** ([`cache_key`], [`cache_map`]). Inputs first, each step's key is made of what it does and of its
//!    inputs' keys. They are looked up in one go.
//! 4. **Plan**. From the result down: a step that was found needs no inputs; one that was not needs all of its own.
//!    A build in which nothing changed ends here. Sources are steps too: an image is pulled only for a step that has
//!    to run on top of it. What would have to run is asked of shared caches first ([`shared`]), in one go.
//! 5. **Run** (`scheduler`, `pool`). A step begins as soon as its inputs are there, beside all others whose are. Before it
//!    runs, its content key is tried: what it does and what its inputs really contain. So where an input was made anew
//!    and came out the same, the rebuild stops. When no record does the same as the step, there is nothing to find: it
//!    runs at once, and the content key is made beside it, for later builds. The result does not wait for that:
//!    what is left is handed back, for [`record_content_keys`].
//! 6. **Once** (`pool`). While it runs, a step holds a lock on its key that all processes see; who gets the lock second
//!    finds the record.
//!
//! Of each step that runs, [`explain`] says why: in what it differs from the nearest record.
//!
//! A step that ignores the cache always runs. What depends on it cannot be found by definition key, which would lead to
//! what was made of the old result; it may be found by content key.
//!
//! The first failure stops the build: nothing new begins, what runs is told to stop, and the error says which vertex
//! and which lines. Nothing of a failed step is recorded.
//!
//! # Invariants
//!
//! * The scheduler sees only [`Worker`]s' answers, has no clock and no threads: equal answers in equal order, equal
//!   commands.
//! * A record is written only after the step that made it succeeded.
//! * Events are as [`progress`] says: no vertex ends twice, none ends that did not begin.
//! * [`solve`] returns only after all that it started has ended.
//!
//! To read the source: `cache_map`, `cache_key`, `graph`, `state`, `plan`, `scheduler`, `pool`, `worker`.
#![forbid(unsafe_code)]

pub mod build;
pub mod cache_key;
pub mod cache_map;
pub mod entitlements;
mod error;
pub mod explain;
pub mod export;
mod graph;
pub mod images;
pub mod local;
mod plan;
pub mod pool;
pub mod progress;
pub mod provenance;
pub mod scheduler;
pub mod secrets;
pub mod shared;
pub mod ssh;
mod state;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod threads;
mod worker;

pub use build::{
    JOBS_DEFAULT, MissReason, Outcome, SolveOptions, Solved, SolvedVertex, Statistics, record_content_keys,
    solve,
};
pub use cache_key::{CacheKey, ContentDigest, Contribution, KeyTrace, SourceIdentity};
pub use cache_map::{CacheMap, InputRequest, SelectedPath, Selection};
pub use entitlements::Entitlements;
pub use error::SolveError;
pub use graph::Graph;
pub use worker::{Context, Found, Input, NewRecord, VertexRef, Wanted, Worker};
