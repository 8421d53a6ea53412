//! A whole build, checked.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{Edge, FileAction, FileInput, InputIndex, Op, Vertex, VertexId};

/// The most vertices a definition may have: far above any real build, far below what would exhaust memory.
pub const VERTICES_MAX: usize = 100_000;

/// A build: its vertices, inputs before users, and the edge that is its result.
///
/// Built by a [`Builder`](crate::Builder) or read by [`Definition::new`]; both leave one in which every index
/// is in range and there is no cycle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    vertices: Vec<Vertex>,
    /// `None` is the empty tree: a `FROM scratch` without a step.
    target: Option<Edge>,
}

/// Why a list of vertices is not a build.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DefinitionError {
    /// A vertex depends on one that does not stand before it.
    #[error("vertex {} depends on vertex {}, which does not stand before it", vertex.0, input.0)]
    InputNotBefore {
        /// The dependent.
        vertex: VertexId,
        /// What it depends on.
        input: VertexId,
    },
    /// An op names an input that its vertex does not have.
    #[error("vertex {} has no input {}", vertex.0, input.0)]
    InputOutOfRange {
        /// The vertex.
        vertex: VertexId,
        /// The input it names.
        input: InputIndex,
    },
    /// A file step names a step that does not stand before it.
    #[error("vertex {}: file step {step} uses step {used}, which does not stand before it", vertex.0)]
    StepNotBefore {
        /// The vertex.
        vertex: VertexId,
        /// The step.
        step: usize,
        /// The step it names.
        used: u32,
    },
    /// An exec without a command line.
    #[error("vertex {} runs nothing", vertex.0)]
    NoArgs {
        /// The vertex.
        vertex: VertexId,
    },
    /// An exec has no root file system, or several.
    #[error("vertex {} has {found} root mounts (expected 1)", vertex.0)]
    RootMounts {
        /// The vertex.
        vertex: VertexId,
        /// How many it has.
        found: usize,
    },
    /// The result is not an output of the list.
    #[error("the result names vertex {}, which does not exist", vertex.0)]
    Target {
        /// The vertex it names.
        vertex: VertexId,
    },
    /// More than [`VERTICES_MAX`].
    #[error("{found} vertices (at most {VERTICES_MAX} are accepted)")]
    TooMany {
        /// How many there are.
        found: usize,
    },
}

impl Definition {
    /// Checks a list of vertices.
    ///
    /// # Errors
    /// When an index is out of range or a vertex stands before one of its inputs.
    pub fn new(vertices: Vec<Vertex>, target: Option<Edge>) -> Result<Self, DefinitionError> {
        if vertices.len() > VERTICES_MAX {
            return Err(DefinitionError::TooMany { found: vertices.len() });
        }
        for (index, vertex) in vertices.iter().enumerate() {
            check(VertexId(u32::try_from(index).expect("bounded by VERTICES_MAX")), vertex)?;
        }
        if let Some(edge) = target
            && edge.vertex.index() >= vertices.len()
        {
            return Err(DefinitionError::Target { vertex: edge.vertex });
        }
        Ok(Self { vertices, target })
    }

    /// The vertices, inputs before users.
    pub fn vertices(&self) -> &[Vertex] {
        &self.vertices
    }

    /// One vertex.
    ///
    /// # Panics
    /// When the id is of another definition.
    pub fn vertex(&self, id: VertexId) -> &Vertex {
        &self.vertices[id.index()]
    }

    /// All ids, inputs before users.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = VertexId> + use<> {
        (0..u32::try_from(self.vertices.len()).expect("bounded by VERTICES_MAX")).map(VertexId)
    }

    /// The result; `None` is the empty tree.
    pub const fn target(&self) -> Option<Edge> {
        self.target
    }
}

fn check(id: VertexId, vertex: &Vertex) -> Result<(), DefinitionError> {
    if let Some(edge) = vertex.inputs.iter().find(|edge| edge.vertex >= id) {
        return Err(DefinitionError::InputNotBefore { vertex: id, input: edge.vertex });
    }
    let in_range = |input: InputIndex| {
        if input.index() < vertex.inputs.len() {
            Ok(())
        } else {
            Err(DefinitionError::InputOutOfRange { vertex: id, input })
        }
    };
    match &vertex.op {
        Op::Source(_) => Ok(()),
        Op::Exec(exec) => {
            if exec.process.args.is_empty() {
                return Err(DefinitionError::NoArgs { vertex: id });
            }
            let found = exec.mounts.iter().filter(|mount| mount.target == "/").count();
            if found != 1 {
                return Err(DefinitionError::RootMounts { vertex: id, found });
            }
            exec.mounts.iter().filter_map(|mount| mount.input).try_for_each(in_range)
        }
        Op::File(file) => file.steps.iter().enumerate().try_for_each(|(step, declared)| {
            let from = match &declared.action {
                FileAction::Copy(copy) => Some(copy.from),
                _ => None,
            };
            [Some(declared.base), from].into_iter().flatten().try_for_each(|input| match input {
                FileInput::Scratch => Ok(()),
                FileInput::Input(input) => in_range(input),
                FileInput::Step(used) if (used as usize) < step => Ok(()),
                FileInput::Step(used) => Err(DefinitionError::StepNotBefore { vertex: id, step, used }),
            })
        }),
        Op::Merge(merge) => merge.inputs.iter().flatten().copied().try_for_each(in_range),
        Op::Diff(diff) => [diff.lower, diff.upper].into_iter().flatten().try_for_each(in_range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LocalSource, MergeOp, Meta, SourceOp};

    fn vertex(op: Op, inputs: &[u32]) -> Vertex {
        let inputs = inputs.iter().map(|id| VertexId(*id).into()).collect();
        Vertex { op, inputs, platform: None, meta: Meta::default() }
    }

    fn source() -> Vertex {
        vertex(Op::Source(SourceOp::Local(LocalSource::default())), &[])
    }

    fn merge(named: u32, inputs: &[u32]) -> Vertex {
        vertex(Op::Merge(MergeOp { inputs: vec![Some(InputIndex(named))] }), inputs)
    }

    #[test]
    fn a_vertex_stands_after_its_inputs() {
        let target = Some(VertexId(1).into());
        assert!(Definition::new(vec![source(), merge(0, &[0])], target).is_ok());
        assert_eq!(
            Definition::new(vec![merge(0, &[0]), source()], target),
            Err(DefinitionError::InputNotBefore { vertex: VertexId(0), input: VertexId(0) })
        );
    }

    #[test]
    fn indices_are_in_range() {
        assert_eq!(
            Definition::new(vec![source(), merge(1, &[0])], None),
            Err(DefinitionError::InputOutOfRange { vertex: VertexId(1), input: InputIndex(1) })
        );
        assert_eq!(
            Definition::new(vec![source()], Some(VertexId(1).into())),
            Err(DefinitionError::Target { vertex: VertexId(1) })
        );
    }
}
