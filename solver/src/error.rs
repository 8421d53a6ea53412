//! Why a build has no result.

use rbuild_llb::{OutputIndex, SourceRange, VertexId};
use thiserror::Error;

use crate::entitlements::Entitlement;

/// Why a build has no result. `E` is the worker's error.
#[derive(Debug, Error)]
pub enum SolveError<E: std::error::Error + 'static> {
    /// A vertex failed; the rest was stopped.
    #[error("failed to solve `{name}`")]
    Vertex {
        /// Which.
        vertex: VertexId,
        /// What it is called.
        name: String,
        /// The Dockerfile lines that it comes from.
        range: Option<SourceRange>,
        /// What went wrong.
        source: E,
    },
    /// A step made fewer outputs than other steps take from it.
    #[error("`{name}` has no output {}", output.0)]
    MissingOutput {
        /// Which vertex.
        vertex: VertexId,
        /// What it is called.
        name: String,
        /// The output that is missing.
        output: OutputIndex,
    },
    /// The cache could not be asked what it has.
    #[error("failed to look up cache records")]
    Lookup {
        /// What went wrong.
        source: E,
    },
    /// A step needs a right that the build does not have.
    #[error("{entitlement} is not allowed")]
    NotAllowed {
        /// Which right.
        entitlement: Entitlement,
        /// The Dockerfile lines that need it.
        range: Option<SourceRange>,
    },
    /// The caller asked for it.
    #[error("the build was cancelled")]
    Cancelled,
}
