//! A definition as a graph, cut down to what its results depend on.
//!
//! Everything here is known before the build begins and does not change: who uses whom, and how each vertex enters its
//! keys. A vertex that no result depends on is not in the graph and is never looked at. Vertices are
//! referred to by [`Position`], dense and in an order in which inputs stand before their users.

use std::collections::HashMap;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::{Dfs, EdgeRef as _, Reversed};
use rbuild_llb::{Definition, Edge, InputIndex, Op, SourceOp, Vertex, VertexId};

use crate::cache_map::{self, CacheMap, Selection};

/// The place of a vertex in a [`Graph`].
pub(crate) type Position = usize;

/// Use of one vertex by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Use {
    pub(crate) user: Position,
    pub(crate) input: InputIndex,
}

/// The part of a definition that its results depend on.
#[derive(Debug)]
pub struct Graph<'a> {
    definition: &'a Definition,
    /// Each node is a vertex, each edge leads from an input to its user.
    graph: DiGraph<VertexId, InputIndex>,
    positions: HashMap<VertexId, Position>,
    maps: Vec<CacheMap>,
}

impl<'a> Graph<'a> {
    /// The graph of a definition; `None` when there is nothing to do: every result is the empty tree.
    pub fn new(definition: &'a Definition) -> Option<Self> {
        let reachable = reachable(definition);
        if reachable.is_empty() {
            return None;
        }
        let mut graph = DiGraph::with_capacity(reachable.len(), reachable.len());
        let mut positions = HashMap::with_capacity(reachable.len());
        // A definition's own order has inputs before users, and is the one that people wrote.
        for id in reachable {
            let node = graph.add_node(id);
            positions.insert(id, node.index());
            for (input, edge) in (0u32..).zip(&definition.vertex(id).inputs) {
                let from = NodeIndex::new(positions[&edge.vertex]);
                graph.add_edge(from, node, InputIndex(input));
            }
        }
        let maps = graph.node_weights().map(|id| CacheMap::of(definition.vertex(*id))).collect();
        Some(Self { definition, graph, positions, maps })
    }

    /// How many vertices there are.
    pub fn len(&self) -> usize {
        self.graph.node_count()
    }

    /// Never: there is always one that makes a result.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) const fn definition(&self) -> &'a Definition {
        self.definition
    }

    /// The results that some vertex makes.
    pub(crate) fn targets(&self) -> impl Iterator<Item = Edge> + use<'a> {
        self.definition.targets().iter().copied().flatten()
    }

    /// Whether a vertex makes a result.
    pub(crate) fn is_target(&self, position: Position) -> bool {
        self.targets().any(|target| target.vertex == self.id(position))
    }

    pub(crate) fn id(&self, position: Position) -> VertexId {
        self.graph[NodeIndex::new(position)]
    }

    pub(crate) fn vertex(&self, position: Position) -> &'a Vertex {
        self.definition.vertex(self.id(position))
    }

    pub(crate) fn position(&self, id: VertexId) -> Position {
        self.positions[&id]
    }

    /// How a vertex enters its keys.
    pub(crate) fn map(&self, position: Position) -> &CacheMap {
        &self.maps[position]
    }

    pub(crate) fn selection(&self, used: Use) -> &Selection {
        &self.maps[used.user].inputs[used.input.index()].selection
    }

    /// Who uses a vertex, once for each input that comes from it, in the definition's order.
    pub(crate) fn uses(&self, position: Position) -> impl Iterator<Item = Use> + use<> {
        let edges = self.graph.edges_directed(NodeIndex::new(position), Direction::Outgoing);
        let mut uses: Vec<Use> =
            edges.map(|edge| Use { user: edge.target().index(), input: *edge.weight() }).collect();
        // petgraph gives the edge first that was added last.
        uses.reverse();
        uses.into_iter()
    }

    /// How many outputs a vertex must make for its users.
    pub(crate) fn outputs_needed(&self, position: Position) -> usize {
        let of_targets = self.targets().filter(|target| target.vertex == self.id(position));
        let of_users =
            self.uses(position).map(|used| self.vertex(used.user).inputs[used.input.index()].output);
        of_users
            .chain(of_targets.map(|target| target.output))
            .map(|output| output.0 as usize + 1)
            .max()
            .unwrap_or(0)
    }

    pub(crate) fn is_local(&self, position: Position) -> bool {
        matches!(self.vertex(position).op, Op::Source(SourceOp::Local(_)))
    }

    pub(crate) fn is_source(&self, position: Position) -> bool {
        matches!(self.vertex(position).op, Op::Source(_))
    }

    pub(crate) fn has_content_key(&self, position: Position) -> bool {
        cache_map::has_content_key(&self.vertex(position).op)
    }
}

/// The vertices that make the results, and all that they depend on, in the definition's order.
fn reachable(definition: &Definition) -> Vec<VertexId> {
    let mut all = DiGraph::<(), (), u32>::with_capacity(definition.vertices().len(), 0);
    for _ in definition.vertices() {
        all.add_node(());
    }
    for id in definition.ids() {
        for edge in &definition.vertex(id).inputs {
            all.add_edge(NodeIndex::new(edge.vertex.index()), NodeIndex::new(id.index()), ());
        }
    }
    let mut walk = Dfs::empty(Reversed(&all));
    walk.stack
        .extend(definition.targets().iter().flatten().map(|target| NodeIndex::new(target.vertex.index())));
    let mut seen = vec![false; definition.vertices().len()];
    while let Some(node) = walk.next(Reversed(&all)) {
        seen[node.index()] = true;
    }
    definition.ids().filter(|id| seen[id.index()]).collect()
}
