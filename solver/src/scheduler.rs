//! What to do next: a state machine of one thread, without threads, I/O or a clock.
//!
//! A [`Scheduler`] is told what came to pass, as [`Report`]s, and answers with [`Command`]s. `pool` carries them out
//! with threads; the simulation test does it in any order that a seed dictates. For each started [`Job`] exactly one
//! report must come back.
//!
//! The phases of a build are in `plan` (until it is known what must run) and here (running it).

mod messages;

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;

use rbuild_llb::{OutputIndex, VertexId};

use crate::build::{MissReason, Outcome, Solved, SolvedVertex};
use crate::cache_key::CacheKey;
use crate::error::SolveError;
use crate::graph::{Graph, Position, Use};
use crate::plan::Preparation;
use crate::progress::Event;
use crate::state::{ContentKey, Node, State};

pub use messages::{Command, Job, Made, Probe, Report, Reuse, Step, Supplied};

/// How many content keys are made at a time beside the steps. They read whole trees, for the sake of later builds only.
const BACKGROUND_JOBS_MAX: usize = 1;

/// Decides what happens next in one build.
#[derive(Debug)]
pub struct Scheduler<'a, O, E> {
    pub(crate) graph: &'a Graph<'a>,
    pub(crate) nodes: Vec<Node<O>>,
    jobs: usize,
    in_flight: usize,
    /// What is to be done before the keys are known.
    pub(crate) preparations: VecDeque<Preparation>,
    /// How many preparations have not been reported.
    pub(crate) preparations_missing: usize,
    /// Who takes what of each local source that is being digested, grouped by what they take.
    pub(crate) takers: HashMap<Position, Vec<Vec<Use>>>,
    /// Vertices whose inputs are there.
    pub(crate) ready: VecDeque<Position>,
    /// Vertices whose content key is wanted when nothing else is to be done.
    background: VecDeque<Position>,
    /// How many of them are being worked on.
    background_in_flight: usize,
    /// Vertices whose content key was still wanted when the result was there.
    unkeyed: Vec<Position>,
    /// Why nothing more is begun.
    stopped: Option<Stop<E>>,
    commands: Vec<Command<O>>,
}

#[derive(Debug)]
enum Stop<E> {
    Cancelled,
    Lookup(E),
    Vertex(Position, E),
    MissingOutput(Position, OutputIndex),
}

impl<'a, O: Clone, E: std::error::Error + 'static> Scheduler<'a, O, E> {
    /// A build that has not begun. At most `jobs` jobs run at a time.
    pub fn new(graph: &'a Graph<'a>, jobs: NonZeroUsize) -> Self {
        Self {
            nodes: (0..graph.len()).map(|position| Node::new(graph.vertex(position).inputs.len())).collect(),
            graph,
            jobs: jobs.get(),
            in_flight: 0,
            preparations: VecDeque::new(),
            preparations_missing: 0,
            takers: HashMap::new(),
            ready: VecDeque::new(),
            background: VecDeque::new(),
            background_in_flight: 0,
            unkeyed: Vec::new(),
            stopped: None,
            commands: Vec::new(),
        }
    }

    /// Begins the build.
    pub fn start(&mut self) -> Vec<Command<O>> {
        self.plan();
        self.dispatch()
    }

    /// Takes note of what a job came to.
    pub fn handle(&mut self, report: Report<O, E>) -> Vec<Command<O>> {
        self.in_flight -= 1;
        match report {
            Report::Identified { vertex, identity } => self.identified(self.graph.position(vertex), identity),
            Report::Digested { local, digests } => self.digested(self.graph.position(local), &digests),
            Report::LookedUp { found } if self.stopped.is_none() => self.looked_up(found),
            Report::LookedUpShared { found } if self.stopped.is_none() => self.looked_up_shared(found),
            Report::Probed { vertex, probe } if self.stopped.is_none() => {
                self.probed(self.graph.position(vertex), probe);
            }
            Report::LookedUp { .. }
            | Report::LookedUpShared { .. }
            | Report::Probed { .. }
            | Report::ContentKeyStored => {}
            Report::Ran { vertex, made } => self.ran(self.graph.position(vertex), made),
            Report::InputsDigested { vertex, content_key } => {
                self.inputs_digested(self.graph.position(vertex), content_key);
            }
            Report::Failed { vertex, error } => self.failed(vertex, error),
        }
        self.dispatch()
    }

    /// Takes note that the user wants no more.
    pub fn cancel(&mut self) -> Vec<Command<O>> {
        self.stop(Stop::Cancelled);
        self.dispatch()
    }

    /// Whether no report is due any more: the build is over.
    pub const fn is_over(&self) -> bool {
        self.in_flight == 0
    }

    /// Whether nothing more is begun.
    pub const fn is_stopped(&self) -> bool {
        self.stopped.is_some()
    }

    /// The results of a build that is over.
    ///
    /// # Errors
    /// What stopped it.
    pub fn finish(self) -> Result<Solved<O>, SolveError<E>> {
        debug_assert!(self.is_over(), "every job has been reported");
        let graph = self.graph;
        match self.stopped {
            Some(Stop::Cancelled) => Err(SolveError::Cancelled),
            Some(Stop::Lookup(source)) => Err(SolveError::Lookup { source }),
            Some(Stop::Vertex(position, source)) => {
                let meta = &graph.vertex(position).meta;
                let (vertex, name, range) = (graph.id(position), meta.name.clone(), meta.source);
                Err(SolveError::Vertex { vertex, name, range, source })
            }
            Some(Stop::MissingOutput(position, output)) => {
                let name = graph.vertex(position).meta.name.clone();
                Err(SolveError::MissingOutput { vertex: graph.id(position), name, output })
            }
            None => Ok(self.solved()),
        }
    }

    fn solved(&self) -> Solved<O> {
        let outputs = self.graph.definition().targets().iter().map(|target| {
            let edge = (*target)?;
            let output = self.output(self.graph.position(edge.vertex), edge.output);
            debug_assert!(output.is_some(), "a build that was not stopped has its results");
            output.cloned()
        });
        let vertices = (0..).zip(&self.nodes).map(|(position, node)| SolvedVertex {
            vertex: self.graph.id(position),
            key: node.key,
            outcome: node.state().outcome(),
        });
        let unkeyed = self.unkeyed.iter().map(|position| self.step(*position)).collect();
        Solved { outputs: outputs.collect(), vertices: vertices.collect(), unkeyed }
    }

    fn output(&self, position: Position, output: OutputIndex) -> Option<&O> {
        match self.nodes[position].state() {
            State::Complete { outputs, .. } => outputs.get(output.0 as usize),
            _ => None,
        }
    }

    /// Begins as much as may run at a time: what the keys need, then steps, then what only later builds profit from.
    fn dispatch(&mut self) -> Vec<Command<O>> {
        while self.stopped.is_none() && self.in_flight < self.jobs {
            if let Some(preparation) = self.preparations.pop_front() {
                let job = self.prepare(preparation);
                self.begin(job);
            } else if let Some(position) = self.ready.pop_front() {
                self.begin_step(position);
            } else if !self.begin_background() {
                break;
            }
        }
        std::mem::take(&mut self.commands)
    }

    pub(crate) fn begin(&mut self, job: Job<O>) {
        self.in_flight += 1;
        self.commands.push(Command::Start(job));
    }

    pub(crate) fn emit(&mut self, event: Event) {
        self.commands.push(Command::Emit(event));
    }

    pub(crate) fn decide(&mut self, position: Position, outcome: Outcome) {
        let (vertex, key) = (self.graph.id(position), self.nodes[position].key);
        self.emit(Event::Decided { vertex, key, outcome });
    }

    fn begin_background(&mut self) -> bool {
        if self.background_in_flight == BACKGROUND_JOBS_MAX {
            return false;
        }
        let Some(position) = self.background.pop_front() else { return false };
        self.background_in_flight += 1;
        let step = self.step(position);
        self.begin(Job::DigestInputs(step));
        true
    }

    fn begin_step(&mut self, position: Position) {
        let vertex = self.graph.vertex(position);
        if vertex.meta.ignore_cache {
            self.run(position, MissReason::IgnoreCache);
        } else if !self.graph.has_content_key(position) {
            let reason = self.reason(position, MissReason::NoRecord);
            self.run(position, reason);
        } else {
            self.nodes[position].enter(State::Probing);
            let step = self.step(position);
            self.begin(Job::Probe(step));
        }
    }

    fn probed(&mut self, position: Position, probe: Probe<O>) {
        match probe {
            Probe::Hit(outputs) if outputs.len() >= self.graph.outputs_needed(position) => {
                self.decide(position, Outcome::CutOff);
                self.emit(Event::Cached { vertex: self.graph.id(position) });
                self.complete(position, outputs, Outcome::CutOff);
            }
            // A record that lacks an output that is needed here is as good as none.
            Probe::Hit(_) | Probe::NoRecord => {
                let reason = self.reason(position, MissReason::NoRecord);
                self.run(position, reason);
            }
            Probe::Missed(content_key) => {
                self.nodes[position].content_key = ContentKey::Known(content_key);
                let reason = self.reason(position, MissReason::InputsChanged);
                self.run(position, reason);
            }
        }
    }

    fn reason(&self, position: Position, otherwise: MissReason) -> MissReason {
        self.nodes[position].tainted_by.map_or(otherwise, |input| MissReason::InputIgnoredCache { input })
    }

    fn run(&mut self, position: Position, reason: MissReason) {
        self.decide(position, Outcome::Ran(reason));
        self.emit(Event::Started { vertex: self.graph.id(position) });
        let known = match self.nodes[position].content_key {
            ContentKey::Known(content_key) => Some(content_key),
            _ => None,
        };
        let reuse = match (reason, self.nodes[position].tainted_by, known) {
            (MissReason::IgnoreCache, ..) | (_, Some(_), None) => Reuse::Never,
            (_, Some(_), Some(content_key)) => Reuse::ByContent(content_key),
            (_, None, _) => Reuse::ByDefinition,
        };
        let step = self.step(position);
        let node = &mut self.nodes[position];
        node.enter(State::Running(reason));
        if known.is_some() {
            node.content_key = ContentKey::Settled;
        } else if self.graph.has_content_key(position) {
            node.content_key = ContentKey::Pending;
            self.background.push_back(position);
        }
        self.begin(Job::Run { step, reuse, content_key: known, reason });
    }

    fn ran(&mut self, position: Position, made: Made<O>) {
        let State::Running(reason) = *self.nodes[position].state() else { return };
        let (outputs, outcome) = match made {
            Made::Here(outputs) => (outputs, Outcome::Ran(reason)),
            Made::Elsewhere(outputs) => (outputs, Outcome::Shared),
        };
        let needed = self.graph.outputs_needed(position);
        if outputs.len() < needed {
            let missing = OutputIndex(u32::try_from(needed - 1).unwrap_or(u32::MAX));
            let message = format!("output {} is missing", missing.0);
            self.fail(position, message, |position| Stop::MissingOutput(position, missing));
            return;
        }
        if outcome == Outcome::Shared {
            self.decide(position, outcome);
        }
        self.emit(Event::Completed { vertex: self.graph.id(position) });
        if outcome == Outcome::Shared {
            self.background.retain(|waiting| *waiting != position);
            self.nodes[position].content_key = ContentKey::Settled;
        }
        self.complete(position, outputs, outcome);
        self.store_content_key(position);
    }

    fn complete(&mut self, position: Position, outputs: Vec<O>, outcome: Outcome) {
        self.nodes[position].enter(State::Complete { outputs, outcome });
        for used in self.graph.uses(position) {
            if self.nodes[used.user].input_arrived() {
                self.ready.push_back(used.user);
            }
        }
        if self.graph.is_target(position) && self.has_results() {
            self.leave_background();
        }
    }

    fn has_results(&self) -> bool {
        self.graph
            .targets()
            .all(|target| self.output(self.graph.position(target.vertex), target.output).is_some())
    }

    /// The results are there: content keys must not keep them waiting.
    fn leave_background(&mut self) {
        self.unkeyed.extend(self.background.drain(..));
        if self.background_in_flight > 0 {
            self.commands.push(Command::Stop);
        }
    }

    fn inputs_digested(&mut self, position: Position, content_key: Option<CacheKey>) {
        self.background_in_flight -= 1;
        let node = &mut self.nodes[position];
        match content_key {
            // Another build made the record meanwhile, and will add the key.
            _ if node.content_key != ContentKey::Pending => {}
            None => self.unkeyed.push(position),
            Some(content_key) => {
                node.content_key = ContentKey::Known(content_key);
                self.store_content_key(position);
            }
        }
    }

    /// Once both the record and the content key are there.
    fn store_content_key(&mut self, position: Position) {
        let node = &mut self.nodes[position];
        if let (State::Complete { .. }, ContentKey::Known(content_key), Some(key), None) =
            (node.state(), node.content_key, node.key, &self.stopped)
        {
            node.content_key = ContentKey::Settled;
            self.begin(Job::StoreContentKey { key, content_key });
        }
    }

    fn failed(&mut self, vertex: Option<VertexId>, error: E) {
        match vertex.map(|vertex| self.graph.position(vertex)) {
            None => self.stop(Stop::Lookup(error)),
            Some(position) if self.stopped.is_some() => self.close(position),
            Some(position) => {
                let message = error.to_string();
                self.fail(position, message, |position| Stop::Vertex(position, error));
            }
        }
    }

    fn fail(&mut self, position: Position, message: String, stop: impl FnOnce(Position) -> Stop<E>) {
        if self.stopped.is_some() {
            return self.close(position);
        }
        let vertex = self.graph.id(position);
        if !self.nodes[position].state().is_open() {
            self.emit(Event::Started { vertex });
        }
        self.nodes[position].enter(State::Failed);
        self.emit(Event::Failed { vertex, message });
        self.stop(stop(position));
    }

    /// Ends a vertex that ran when the build stopped.
    fn close(&mut self, position: Position) {
        if self.nodes[position].state().is_open() {
            self.nodes[position].enter(State::Cancelled);
            self.emit(Event::Cancelled { vertex: self.graph.id(position) });
        }
    }

    /// Begins nothing more. The first reason counts.
    fn stop(&mut self, why: Stop<E>) {
        if self.stopped.is_none() {
            self.stopped = Some(why);
            self.preparations.clear();
            self.ready.clear();
            self.background.clear();
            self.commands.push(Command::Stop);
        }
    }

    /// A vertex with its inputs, which are all there.
    fn step(&self, position: Position) -> Step<O> {
        let node = &self.nodes[position];
        let edges = &self.graph.vertex(position).inputs;
        let inputs = edges.iter().zip(&node.contents).map(|(edge, digest)| match digest {
            Some(digest) => Supplied::Local { vertex: edge.vertex, digest: *digest },
            None => {
                let output = self.output(self.graph.position(edge.vertex), edge.output);
                Supplied::Output(output.expect("a step begins when its inputs are there").clone())
            }
        });
        Step {
            vertex: self.graph.id(position),
            key: node.key.expect("a step that may run has a key"),
            trace: node.trace.clone().expect("a step that may run has a key"),
            inputs: inputs.collect(),
        }
    }
}
