//! A whole build, checked: one result, or one for each platform, in one graph.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{Builder, Edge, FileAction, FileInput, InputIndex, Op, Vertex, VertexId};

/// The most vertices a definition may have: far above any real build, far below what would exhaust memory.
pub const VERTICES_MAX: usize = 100_000;

/// A build: its vertices, inputs before users, and the edges that are its results.
///
/// Built by a [`Builder`](crate::Builder) or read by [`Definition::new`]; both leave one in which every index
/// is in range and there is no cycle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    vertices: Vec<Vertex>,
    /// `None` is the empty tree: a `FROM scratch` without a step.
    targets: Vec<Option<Edge>>,
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
    /// A result is not an output of the list.
    #[error("a result names vertex {}, which does not exist", vertex.0)]
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
    pub fn new(vertices: Vec<Vertex>, targets: Vec<Option<Edge>>) -> Result<Self, DefinitionError> {
        if vertices.len() > VERTICES_MAX {
            return Err(DefinitionError::TooMany { found: vertices.len() });
        }
        for (index, vertex) in vertices.iter().enumerate() {
            check(VertexId(u32::try_from(index).expect("bounded by VERTICES_MAX")), vertex)?;
        }
        if let Some(edge) = targets.iter().flatten().find(|edge| edge.vertex.index() >= vertices.len()) {
            return Err(DefinitionError::Target { vertex: edge.vertex });
        }
        Ok(Self { vertices, targets })
    }

    /// Several builds as one, with the results of each in order. What they have in common is there once: the stages that
    /// run on the builder's own platform, whatever the platform they build for.
    ///
    /// # Errors
    /// [`DefinitionError::TooMany`].
    pub fn join(definitions: impl IntoIterator<Item = Self>) -> Result<Self, DefinitionError> {
        let mut builder = Builder::new();
        let mut targets = Vec::new();
        for definition in definitions {
            let mut ids = Vec::with_capacity(definition.vertices.len());
            let moved = |ids: &[VertexId], edge: Edge| Edge { vertex: ids[edge.vertex.index()], ..edge };
            for mut vertex in definition.vertices {
                vertex.inputs.iter_mut().for_each(|edge| *edge = moved(&ids, *edge));
                ids.push(builder.add(vertex));
            }
            targets.extend(definition.targets.iter().map(|target| target.map(|edge| moved(&ids, edge))));
        }
        builder.finish_all(targets)
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

    /// The results; `None` is the empty tree.
    pub fn targets(&self) -> &[Option<Edge>] {
        &self.targets
    }

    /// An output, and all that it lies on, down to what lies on nothing.
    pub fn stack(&self, top: Edge) -> impl Iterator<Item = Edge> {
        std::iter::successors(Some(top), |edge| {
            let vertex = self.vertex(edge.vertex);
            vertex.inputs.get(vertex.op.base(edge.output)?.index()).copied()
        })
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
    use crate::{FileAction, FileOp, FileStep, LocalSource, MergeOp, Meta, OutputIndex, RmAction, SourceOp};

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
        let targets = vec![Some(VertexId(1).into())];
        assert!(Definition::new(vec![source(), merge(0, &[0])], targets.clone()).is_ok());
        assert_eq!(
            Definition::new(vec![merge(0, &[0]), source()], targets),
            Err(DefinitionError::InputNotBefore { vertex: VertexId(0), input: VertexId(0) })
        );
    }

    #[test]
    fn indices_are_in_range() {
        assert_eq!(
            Definition::new(vec![source(), merge(1, &[0])], Vec::new()),
            Err(DefinitionError::InputOutOfRange { vertex: VertexId(1), input: InputIndex(1) })
        );
        assert_eq!(
            Definition::new(vec![source()], vec![Some(VertexId(1).into())]),
            Err(DefinitionError::Target { vertex: VertexId(1) })
        );
    }

    #[test]
    fn what_builds_have_in_common_is_joined() {
        let on = |platform: &str| Vertex { platform: Some(platform.parse().unwrap()), ..merge(0, &[0]) };
        let of = |platform: &str| {
            Definition::new(vec![source(), on(platform)], vec![Some(VertexId(1).into()), None]).unwrap()
        };
        let joined = Definition::join([of("linux/amd64"), of("linux/arm64"), of("linux/amd64")]).unwrap();
        assert_eq!(joined.vertices(), [source(), on("linux/amd64"), on("linux/arm64")]);
        let of_vertex = |id: u32| Some(VertexId(id).into());
        assert_eq!(joined.targets(), [of_vertex(1), None, of_vertex(2), None, of_vertex(1), None]);
    }

    #[test]
    fn an_output_lies_on_what_it_was_made_of() {
        let rm = |base: FileInput, output: Option<u32>| FileStep {
            base,
            action: FileAction::Rm(RmAction {
                path: "/".to_owned(),
                allow_not_found: true,
                allow_wildcard: false,
            }),
            output: output.map(OutputIndex),
        };
        let steps = vec![
            rm(FileInput::Input(InputIndex(1)), None),
            rm(FileInput::Step(0), Some(0)),
            rm(FileInput::Scratch, Some(1)),
        ];
        let file = vertex(Op::File(FileOp { steps }), &[0, 1]);
        let vertices = vec![source(), merge(0, &[0]), file, merge(0, &[2])];
        let definition = Definition::new(vertices, Vec::new()).unwrap();
        let stack = |id: u32, output: u32| {
            let top = Edge { vertex: VertexId(id), output: OutputIndex(output) };
            definition.stack(top).map(|edge| edge.vertex.0).collect::<Vec<_>>()
        };
        assert_eq!(stack(3, 0), [3, 2, 1, 0]);
        assert_eq!(stack(2, 1), [2], "the second output was begun with nothing");
    }
}
