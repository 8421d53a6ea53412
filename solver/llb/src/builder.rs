//! Chains vertices into a definition. Equal vertices become one.

use std::collections::HashMap;

use crate::encode::VertexDigest;
use crate::{Definition, Edge, Vertex, VertexId};

/// Collects vertices, merging those that do the same to the same inputs.
#[derive(Debug, Default)]
pub struct Builder {
    vertices: Vec<Vertex>,
    digests: Vec<VertexDigest>,
    known: HashMap<VertexDigest, VertexId>,
}

impl Builder {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a vertex, or finds the one that does the same: equal op, inputs and platform, whatever its name.
    ///
    /// # Panics
    /// When an input is not a vertex of this builder.
    pub fn add(&mut self, vertex: Vertex) -> VertexId {
        let inputs = vertex.inputs.iter().map(|edge| (self.digests[edge.vertex.index()], edge.output));
        let digest = VertexDigest::of(&vertex, inputs);
        if let Some(id) = self.known.get(&digest) {
            self.vertices[id.index()].meta.ignore_cache |= vertex.meta.ignore_cache;
            return *id;
        }
        let id =
            VertexId(u32::try_from(self.vertices.len()).expect("fewer than 2^32 vertices fit in memory"));
        self.vertices.push(vertex);
        self.digests.push(digest);
        self.known.insert(digest, id);
        id
    }

    /// The vertex that was added under `id`, to complete its facts for people.
    ///
    /// # Panics
    /// When the id is not of this builder.
    pub fn vertex_mut(&mut self, id: VertexId) -> &mut Vertex {
        &mut self.vertices[id.index()]
    }

    /// Ends the graph with its one result.
    ///
    /// # Errors
    /// As [`finish_all`](Self::finish_all).
    pub fn finish(self, target: Option<Edge>) -> Result<Definition, crate::DefinitionError> {
        self.finish_all(vec![target])
    }

    /// Ends the graph with its results.
    ///
    /// # Errors
    /// When a vertex was malformed, or there are too many.
    pub fn finish_all(self, targets: Vec<Option<Edge>>) -> Result<Definition, crate::DefinitionError> {
        Definition::new(self.vertices, targets)
    }
}
