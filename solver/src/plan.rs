//! The first half of a build: from the graph to what must run.
//!
//! 1. Sources are pinned and what steps take of local sources is digested, all at once.
//! 2. Definition keys follow, inputs first, and are looked up in one go.
//! 3. From the results down: what was found needs no inputs, what was not found needs all of its own. Shared caches are
//!    asked, in one go, for what would have to run.
//!
//! A vertex that ignores the cache is not looked up, nor is any that depends on it: the definition key of such a one
//! would lead to what was made of the old result.

use std::collections::HashMap;

use rbuild_llb::InputIndex;

use crate::build::Outcome;
use crate::cache_key::{self, ContentDigest, Contribution, KeyTrace, SourceIdentity};
use crate::cache_map::Selection;
use crate::graph::{Position, Use};
use crate::progress::{Event, PlannedVertex};
use crate::scheduler::{Job, Scheduler};
use crate::state::State;
use crate::worker::Found;

/// What has to be known before there are keys.
#[derive(Debug, Clone)]
pub(crate) enum Preparation {
    /// What a source is.
    Identify(Position),
    /// The digests of what is taken of a local source.
    Digest(Position),
}

impl<O: Clone, E: std::error::Error + 'static> Scheduler<'_, O, E> {
    /// Announces the graph and queues what the keys need.
    pub(crate) fn plan(&mut self) {
        self.announce();
        self.mark_tainted();
        let graph = self.graph;
        for position in 0..graph.len() {
            if graph.is_local(position) {
                self.prepare_local(position);
            } else if graph.is_source(position) {
                self.preparations.push_back(Preparation::Identify(position));
            }
        }
        self.preparations_missing = self.preparations.len();
        self.look_up_when_prepared();
    }

    fn announce(&mut self) {
        let graph = self.graph;
        let vertices = (0..graph.len()).map(|position| {
            let meta = &graph.vertex(position).meta;
            PlannedVertex {
                vertex: graph.id(position),
                name: meta.name.clone(),
                source: meta.source,
                internal: meta.internal,
            }
        });
        self.emit(Event::Planned { vertices: vertices.collect() });
    }

    fn mark_tainted(&mut self) {
        let graph = self.graph;
        for position in 0..graph.len() {
            let must_run = |input: Position| {
                !graph.is_local(input)
                    && (graph.vertex(input).meta.ignore_cache || self.nodes[input].tainted_by.is_some())
            };
            let edges = (0u32..).zip(&graph.vertex(position).inputs);
            self.nodes[position].tainted_by = edges
                .into_iter()
                .find(|(_, edge)| must_run(graph.position(edge.vertex)))
                .map(|(input, _)| InputIndex(input));
        }
    }

    /// What is taken of a local source, each different selection once. One that is a result itself has no users, and is
    /// a source like any other, pinned to its content.
    fn prepare_local(&mut self, local: Position) {
        let graph = self.graph;
        if graph.is_target(local) {
            return self.preparations.push_back(Preparation::Identify(local));
        }
        let mut groups: Vec<Vec<Use>> = Vec::new();
        let mut group_of: HashMap<&Selection, usize> = HashMap::new();
        for used in graph.uses(local) {
            let selection = graph.selection(used);
            if selection.is_empty() {
                self.nodes[used.user].contents[used.input.index()] = Some(cache_key::nothing());
                continue;
            }
            let group = *group_of.entry(selection).or_insert(groups.len());
            groups.resize_with(groups.len().max(group + 1), Vec::new);
            groups[group].push(used);
        }
        if !groups.is_empty() {
            self.takers.insert(local, groups);
            self.preparations.push_back(Preparation::Digest(local));
        }
    }

    pub(crate) fn prepare(&mut self, preparation: Preparation) -> Job<O> {
        match preparation {
            Preparation::Identify(position) => Job::Identify { vertex: self.graph.id(position) },
            Preparation::Digest(local) => {
                self.emit(Event::Started { vertex: self.graph.id(local) });
                self.nodes[local].enter(State::Reading);
                let first_of_each = self.takers[&local].iter().map(|group| group[0]);
                let users = first_of_each.map(|used| (self.graph.id(used.user), used.input)).collect();
                Job::Digest { local: self.graph.id(local), users }
            }
        }
    }

    pub(crate) fn identified(&mut self, position: Position, identity: SourceIdentity) {
        self.nodes[position].identity = Some(identity);
        self.prepared();
    }

    pub(crate) fn digested(&mut self, local: Position, digests: &[ContentDigest]) {
        for (group, digest) in self.takers.remove(&local).unwrap_or_default().into_iter().zip(digests) {
            for used in group {
                self.nodes[used.user].contents[used.input.index()] = Some(*digest);
            }
        }
        self.nodes[local].enter(State::Read);
        self.emit(Event::Completed { vertex: self.graph.id(local) });
        self.prepared();
    }

    fn prepared(&mut self) {
        self.preparations_missing -= 1;
        self.look_up_when_prepared();
    }

    fn look_up_when_prepared(&mut self) {
        if self.preparations_missing > 0 || self.is_stopped() {
            return;
        }
        (0..self.graph.len()).for_each(|position| self.derive_key(position));
        let keys: Vec<_> = self.may_be_found().filter_map(|position| self.nodes[position].key).collect();
        if keys.is_empty() {
            self.looked_up(Vec::new());
        } else {
            self.begin(Job::Lookup { keys });
        }
    }

    /// The vertices that are looked up by definition key.
    fn may_be_found(&self) -> impl Iterator<Item = Position> {
        (0..self.graph.len()).filter(|position| {
            let node = &self.nodes[*position];
            let ignores = self.graph.vertex(*position).meta.ignore_cache;
            node.key.is_some() && node.tainted_by.is_none() && !ignores
        })
    }

    /// The key of a vertex whose inputs have theirs. A local source has one only if it was digested as the result.
    fn derive_key(&mut self, position: Position) {
        let graph = self.graph;
        let edges = &graph.vertex(position).inputs;
        let node = &self.nodes[position];
        if graph.is_local(position) && node.identity.is_none() {
            return;
        }
        let requests = &graph.map(position).inputs;
        let of_inputs = edges.iter().zip(requests).zip(&node.contents).map(|((edge, request), digest)| {
            digest.map_or_else(
                || Contribution::Definition {
                    key: self.nodes[graph.position(edge.vertex)].key.expect("inputs have their keys first"),
                    output: edge.output,
                    selection: request.selection.clone(),
                },
                Contribution::Content,
            )
        });
        let inputs = node.identity.map(Contribution::Identity).into_iter().chain(of_inputs).collect();
        let trace = KeyTrace { op: graph.map(position).op, inputs };
        let node = &mut self.nodes[position];
        node.key = Some(trace.key());
        node.trace = Some(trace);
    }

    pub(crate) fn looked_up(&mut self, found: Vec<Found<O>>) {
        let looked_up: Vec<Position> = self.may_be_found().collect();
        for (position, found) in looked_up.into_iter().zip(found) {
            let needed = self.graph.outputs_needed(position);
            // A record that lacks an output that is needed here is as good as none.
            self.nodes[position].found = found.filter(|outputs| outputs.len() >= needed);
        }
        let steps: Vec<_> = self
            .missing()
            .into_iter()
            .filter_map(|position| Some((self.graph.id(position), self.nodes[position].trace.clone()?)))
            .collect();
        if steps.is_empty() {
            self.settle_all();
        } else {
            self.begin(Job::LookupShared { steps });
        }
    }

    pub(crate) fn looked_up_shared(&mut self, found: Vec<Found<O>>) {
        for (position, found) in self.missing().into_iter().zip(found) {
            let needed = self.graph.outputs_needed(position);
            self.nodes[position].found = found.filter(|outputs| outputs.len() >= needed);
        }
        self.settle_all();
    }

    /// The steps that would have to run, and could have been found. What sources are is known where they are.
    fn missing(&self) -> Vec<Position> {
        let needed = self.needed();
        let is_missing = |position: &Position| {
            needed[*position] && self.nodes[*position].found.is_none() && !self.graph.is_source(*position)
        };
        self.may_be_found().filter(is_missing).collect()
    }

    fn settle_all(&mut self) {
        // Inputs first, so that a vertex that is found is there when its users look.
        for (position, needed) in (0..).zip(self.needed()) {
            self.settle(position, needed);
        }
    }

    /// What must be there: the results, and the inputs of all that must be there and was not found.
    fn needed(&self) -> Vec<bool> {
        let graph = self.graph;
        let mut needed = vec![false; graph.len()];
        graph.targets().for_each(|target| needed[graph.position(target.vertex)] = true);
        for position in (0..graph.len()).rev() {
            if needed[position] && self.nodes[position].found.is_none() {
                for edge in &graph.vertex(position).inputs {
                    needed[graph.position(edge.vertex)] = true;
                }
            }
        }
        needed
    }

    fn settle(&mut self, position: Position, needed: bool) {
        let vertex = self.graph.id(position);
        let found = self.nodes[position].found.take();
        match (needed, found) {
            _ if matches!(self.nodes[position].state(), State::Read) => {}
            (true, Some(outputs)) => {
                self.nodes[position].enter(State::Complete { outputs, outcome: Outcome::Cached });
                self.decide(position, Outcome::Cached);
                self.emit(Event::Cached { vertex });
            }
            (true, None) if self.nodes[position].key.is_some() => self.wait_for_inputs(position),
            _ => {
                self.nodes[position].enter(State::Unneeded);
                self.decide(position, Outcome::Unneeded);
                self.emit(Event::Cached { vertex });
            }
        }
    }

    fn wait_for_inputs(&mut self, position: Position) {
        let graph = self.graph;
        let is_missing = |input: Position| {
            !graph.is_local(input) && !matches!(self.nodes[input].state(), State::Complete { .. })
        };
        let edges = graph.vertex(position).inputs.iter();
        let inputs_missing = edges.filter(|edge| is_missing(graph.position(edge.vertex))).count();
        self.nodes[position].enter(State::Waiting { inputs_missing });
        if inputs_missing == 0 {
            self.nodes[position].enter(State::Ready);
            self.ready.push_back(position);
        }
    }
}
