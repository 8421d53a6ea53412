//! What is known of a build: written by the one that runs, read by every later rbuild.
//!
//! Fields are added, never changed: a document of another version is read as far as it is understood.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rbuild_cache::Origin;
use rbuild_llb::{Definition, SourceRange, VertexId};
use rbuild_solver::explain::Cause;
use rbuild_solver::{CacheKey, Outcome};
use serde::{Deserialize, Serialize};

/// A build.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BuildDocument {
    /// What it is called: the names of its image, the target, or the context.
    pub(crate) name: String,
    /// The context, as typed.
    pub(crate) context: String,
    /// The Dockerfile, as messages call it.
    pub(crate) dockerfile: String,
    /// The stage that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<String>,
    /// Unix milliseconds.
    pub(crate) started_ms: i64,
    /// Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended_ms: Option<i64>,
    pub(crate) outcome: BuildOutcome,
    pub(crate) steps: Vec<StepDocument>,
    /// The whole build, without secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) definition: Option<Definition>,
    /// Where its local sources are.
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, PathBuf>,
}

/// How a build ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BuildOutcome {
    /// Not yet; or its process died.
    Running,
    Completed,
    /// With this error, in one line.
    Failed(String),
    Cancelled,
    /// Its process died. Never written: a reader finds it so.
    Died,
}

/// A vertex of a build.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StepDocument {
    /// The number that progress showed; nothing for one that was never reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) number: Option<usize>,
    pub(crate) vertex: VertexId,
    pub(crate) name: String,
    /// The lines of the Dockerfile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<SourceRange>,
    #[serde(default)]
    pub(crate) internal: bool,
    /// The definition key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<CacheKey>,
    /// What was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) decision: Option<Outcome>,
    /// Why it ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) causes: Vec<Cause>,
    pub(crate) state: StepState,
    /// Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) started_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) duration_ms: Option<i64>,
    /// The build that made its result, and the step in it, where that was another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) made_by: Option<(String, u32)>,
}

/// How far a step came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StepState {
    Waiting,
    Cached,
    Running,
    Completed,
    Failed(String),
    Cancelled,
}

impl BuildDocument {
    /// The step that is a vertex.
    pub(crate) fn step_mut(&mut self, vertex: VertexId) -> Option<&mut StepDocument> {
        // As a rule all vertices are steps, in their order.
        let at = match self.steps.get(vertex.index()) {
            Some(step) if step.vertex == vertex => Some(vertex.index()),
            _ => self.steps.iter().position(|step| step.vertex == vertex),
        };
        self.steps.get_mut(at?)
    }

    /// The definition key of a vertex.
    pub(crate) fn key(&self, vertex: VertexId) -> Option<CacheKey> {
        self.steps.iter().find(|step| step.vertex == vertex)?.key
    }
}

impl StepDocument {
    /// The step of the build that made its result: itself, unless it was found.
    pub(crate) fn origin(&self) -> Option<Origin> {
        let (build, step) = self.made_by.as_ref()?;
        Some(Origin { build: build.parse().ok()?, step: *step })
    }
}
