//! Vertices and the edges between them.

use rbuild_image::Platform;
use serde::{Deserialize, Serialize};

use crate::Op;

/// The position of a vertex in its [`Definition`](crate::Definition).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VertexId(pub u32);

impl VertexId {
    /// The position as an index into a slice.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Which of a vertex's inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InputIndex(pub u32);

impl InputIndex {
    /// The input as an index into [`Vertex::inputs`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Which of a vertex's outputs. Most vertices have one; an exec has one for each mount it may write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OutputIndex(pub u32);

/// One output of one vertex: what another vertex depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Edge {
    /// The vertex that makes the output.
    pub vertex: VertexId,
    /// Which of its outputs.
    pub output: OutputIndex,
}

impl From<VertexId> for Edge {
    fn from(vertex: VertexId) -> Self {
        Self { vertex, output: OutputIndex(0) }
    }
}

/// One step of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vertex {
    /// What to do.
    pub op: Op,
    /// What it depends on. An op names these by [`InputIndex`].
    pub inputs: Vec<Edge>,
    /// What it runs on, where that matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Facts about the step that are no part of its key.
    pub meta: Meta,
}

/// Facts about a step for people and for the scheduler. Never part of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// What a progress display calls the step: `[build 2/5] RUN make`.
    pub name: String,
    /// The lines of the Dockerfile that it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceRange>,
    /// Do not take the result from the cache (`--no-cache`). What is made is still recorded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignore_cache: bool,
    /// Not a step that a person wrote (the base image's metadata, the context): shown, but not counted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub internal: bool,
    /// Which variables of its environment are build arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// Memory, CPU and other limits, which say how fast a step runs and not what it makes.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub limits: std::collections::BTreeMap<String, String>,
}

/// Lines of a Dockerfile, first and last, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRange {
    /// The first line.
    pub line_first: u32,
    /// The last line, itself included.
    pub line_last: u32,
}

impl SourceRange {
    /// One line.
    pub const fn line(number: u32) -> Self {
        Self { line_first: number, line_last: number }
    }
}
