//! What is known of a running build: every step's number, name, state, times and last lines.
//!
//! Numbers are given in the order in which steps first do something, from 1, as BuildKit does. A task (exporting an
//! image) is a step like any other. Partial lines are given out before the step that printed them ends.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use rbuild_llb::VertexId;
use rbuild_solver::Outcome;
use rbuild_solver::progress::{Event, OutputStream, PlannedVertex, TaskState};

use super::line::{LineBuffer, one_line};

/// How many of a step's last lines are kept for the error report.
pub(super) const TAIL_LINES_MAX: usize = 20;

/// A transfer is reported when it is done, and as often as this before.
const TRANSFER_INTERVAL: Duration = Duration::from_secs(5);

/// The position of a step on its board.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct StepIndex(usize);

/// What happened to a step, as views need to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// It runs.
    Started,
    /// It printed a line.
    Line {
        /// Since the step started.
        at: Duration,
        /// Where to.
        stream: OutputStream,
        /// Safe to show.
        text: String,
    },
    /// Why it runs, or does not.
    Note(String),
    /// It moved bytes.
    Transferred(Transfer),
    /// It need not run. Ends the step.
    Cached,
    /// It is done. Ends the step.
    Completed {
        /// Since the step started.
        took: Duration,
    },
    /// It failed. Ends the step.
    Failed {
        /// Since the step started.
        took: Duration,
        /// In one line.
        message: String,
    },
    /// It was stopped. Ends the step.
    Cancelled,
}

impl Change {
    /// Nothing of the step comes after this.
    pub(super) const fn is_end(&self) -> bool {
        matches!(self, Self::Cached | Self::Completed { .. } | Self::Failed { .. } | Self::Cancelled)
    }
}

/// Bytes on their way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Transfer {
    /// What is moved.
    pub(super) name: String,
    /// How much has been moved.
    pub(super) current_bytes: u64,
    /// How much there is, where that is known.
    pub(super) total_bytes: Option<u64>,
    /// Since the transfer started.
    pub(super) took: Duration,
    /// Nothing is left to move.
    pub(super) done: bool,
}

/// One vertex or task.
#[derive(Debug)]
pub(super) struct Step {
    /// From 1; 0 until the step does something.
    pub(super) number: usize,
    /// In one line, safe to show.
    pub(super) name: String,
    /// Since when it runs, where it does.
    pub(super) running_since: Option<Duration>,
    counted: bool,
    ended: bool,
    stdout: LineBuffer,
    stderr: LineBuffer,
    tail: VecDeque<String>,
    transfers: BTreeMap<String, TransferState>,
}

#[derive(Debug)]
struct TransferState {
    transfer: Transfer,
    since: Duration,
    reported: Duration,
}

/// The whole build.
#[derive(Debug, Default)]
pub(super) struct Board {
    steps: Vec<Step>,
    vertices: HashMap<VertexId, StepIndex>,
    tasks: HashMap<String, StepIndex>,
    numbered: usize,
    /// Whether it is shown why steps run.
    pub(super) explains: bool,
}

/// Changes in the order in which they happened.
pub(super) type Changes = Vec<(StepIndex, Change)>;

impl Board {
    /// Takes in one event.
    pub(super) fn apply(&mut self, event: Event, now: Duration) -> Changes {
        match event {
            Event::Planned { vertices } => {
                vertices.into_iter().for_each(|vertex| self.plan(vertex));
                Vec::new()
            }
            Event::Decided { outcome: Outcome::Ran(_), .. } => Vec::new(),
            Event::Decided { vertex, outcome, .. } => self.explain(vertex, &[outcome]),
            Event::Explained { vertex, causes } => self.explain(vertex, &causes),
            Event::Started { vertex } => self.on_vertex(vertex, |step| step.start(now)),
            Event::Cached { vertex } => self.on_vertex(vertex, |step| step.end(now, |_| Change::Cached)),
            Event::Output { vertex, stream, bytes } => {
                self.on_vertex(vertex, |step| step.output(stream, &bytes, now))
            }
            Event::Transfer { vertex, name, current_bytes, total_bytes } => {
                self.on_vertex(vertex, |step| step.transfer(&name, current_bytes, total_bytes, now))
            }
            Event::Completed { vertex } => {
                self.on_vertex(vertex, |step| step.end(now, |took| Change::Completed { took }))
            }
            Event::Failed { vertex, message } => {
                let message = one_line(&message);
                self.on_vertex(vertex, |step| step.end(now, |took| Change::Failed { took, message }))
            }
            Event::Cancelled { vertex } => {
                self.on_vertex(vertex, |step| step.end(now, |_| Change::Cancelled))
            }
            Event::Task { name, state } => self.task(name, state, now),
        }
    }

    /// The partial lines of all steps: nothing more will come.
    pub(super) fn flush(&mut self, now: Duration) -> Changes {
        let steps = self.steps.iter_mut().enumerate();
        steps
            .flat_map(|(index, step)| step.flush(now).into_iter().map(move |c| (StepIndex(index), c)))
            .collect()
    }

    /// The step at `index`, which this board gave out.
    pub(super) fn step(&self, index: StepIndex) -> &Step {
        &self.steps[index.0]
    }

    /// The steps that run, longest first.
    pub(super) fn running(&self) -> Vec<&Step> {
        let mut running: Vec<&Step> = self.steps.iter().filter(|step| step.running_since.is_some()).collect();
        running.sort_by_key(|step| (step.running_since, step.number));
        running
    }

    /// How many of the steps that a person wrote have ended, and how many there are.
    pub(super) fn counts(&self) -> (usize, usize) {
        let counted = || self.steps.iter().filter(|step| step.counted);
        (counted().filter(|step| step.ended).count(), counted().count())
    }

    /// Nothing has happened.
    pub(super) const fn is_empty(&self) -> bool {
        self.numbered == 0
    }

    /// The number of a vertex that has done something.
    pub(super) fn number(&self, vertex: VertexId) -> Option<usize> {
        let number = self.step(*self.vertices.get(&vertex)?).number;
        (number > 0).then_some(number)
    }

    /// The last lines of a vertex's output.
    pub(super) fn tail(&self, vertex: VertexId) -> Vec<String> {
        let step = self.vertices.get(&vertex).map(|index| self.step(*index));
        step.map_or_else(Vec::new, |step| step.tail.iter().cloned().collect())
    }

    /// A vertex that is planned a second time (another platform's graph in one command) is a new step.
    fn plan(&mut self, planned: PlannedVertex) {
        let index = self.add(&planned.name, !planned.internal);
        self.vertices.insert(planned.vertex, index);
    }

    fn add(&mut self, name: &str, counted: bool) -> StepIndex {
        self.steps.push(Step::new(one_line(name), counted));
        StepIndex(self.steps.len() - 1)
    }

    fn task(&mut self, name: String, state: TaskState, now: Duration) -> Changes {
        match state {
            TaskState::Started => {
                let index = self.add(&name, false);
                self.tasks.insert(name, index);
                self.on_step(index, |step| step.start(now))
            }
            TaskState::Moved(moved) => match self.tasks.get(&name) {
                Some(index) => self.on_step(*index, |step| {
                    step.transfer(&moved.name, moved.current_bytes, moved.total_bytes, now)
                }),
                None => Vec::new(),
            },
            TaskState::Completed => match self.tasks.remove(&name) {
                Some(index) => self.on_step(index, |step| step.end(now, |took| Change::Completed { took })),
                None => Vec::new(),
            },
        }
    }

    fn explain(&mut self, vertex: VertexId, reasons: &[impl ToString]) -> Changes {
        if !self.explains {
            return Vec::new();
        }
        let notes = reasons.iter().map(|reason| Change::Note(one_line(&reason.to_string()))).collect();
        self.on_vertex(vertex, |_| notes)
    }

    /// An event about a vertex that was never planned is shown all the same, under a made-up name.
    fn on_vertex(&mut self, vertex: VertexId, act: impl FnOnce(&mut Step) -> Vec<Change>) -> Changes {
        let index = match self.vertices.get(&vertex) {
            Some(index) => *index,
            None => {
                let index = self.add(&format!("[internal] vertex {}", vertex.0), false);
                self.vertices.insert(vertex, index);
                index
            }
        };
        self.on_step(index, act)
    }

    fn on_step(&mut self, index: StepIndex, act: impl FnOnce(&mut Step) -> Vec<Change>) -> Changes {
        let step = &mut self.steps[index.0];
        if step.ended {
            return Vec::new();
        }
        if step.number == 0 {
            self.numbered += 1;
            step.number = self.numbered;
        }
        act(step).into_iter().map(|change| (index, change)).collect()
    }
}

impl Step {
    fn new(name: String, counted: bool) -> Self {
        Self {
            number: 0,
            name,
            running_since: None,
            counted,
            ended: false,
            stdout: LineBuffer::default(),
            stderr: LineBuffer::default(),
            tail: VecDeque::new(),
            transfers: BTreeMap::new(),
        }
    }

    /// The last `count` lines of what there is to show below a running step: its transfers, then its output.
    pub(super) fn details(&self, count: usize) -> Vec<String> {
        let moving = self.transfers.values().map(|state| &state.transfer).filter(|transfer| !transfer.done);
        let lines: Vec<String> = moving.map(ToString::to_string).chain(self.tail.iter().cloned()).collect();
        lines[lines.len().saturating_sub(count)..].to_vec()
    }

    fn start(&mut self, now: Duration) -> Vec<Change> {
        self.running_since = Some(now);
        vec![Change::Started]
    }

    fn elapsed(&self, now: Duration) -> Duration {
        now.saturating_sub(self.running_since.unwrap_or(now))
    }

    fn output(&mut self, stream: OutputStream, bytes: &[u8], now: Duration) -> Vec<Change> {
        let lines = match stream {
            OutputStream::Stdout => self.stdout.push(bytes),
            OutputStream::Stderr => self.stderr.push(bytes),
        };
        lines.into_iter().map(|text| self.line(stream, text, now)).collect()
    }

    fn line(&mut self, stream: OutputStream, text: String, now: Duration) -> Change {
        if self.tail.len() == TAIL_LINES_MAX {
            self.tail.pop_front();
        }
        self.tail.push_back(text.clone());
        Change::Line { at: self.elapsed(now), stream, text }
    }

    fn flush(&mut self, now: Duration) -> Vec<Change> {
        let rests =
            [(OutputStream::Stdout, self.stdout.flush()), (OutputStream::Stderr, self.stderr.flush())];
        let rests = rests.into_iter().filter_map(|(stream, rest)| Some((stream, rest?)));
        rests.map(|(stream, text)| self.line(stream, text, now)).collect()
    }

    fn transfer(
        &mut self,
        name: &str,
        current_bytes: u64,
        total_bytes: Option<u64>,
        now: Duration,
    ) -> Vec<Change> {
        let name = one_line(name);
        let state = self.transfers.entry(name.clone()).or_insert_with(|| TransferState {
            transfer: Transfer { name, current_bytes, total_bytes, took: Duration::ZERO, done: false },
            since: now,
            reported: now,
        });
        let was_done = state.transfer.done;
        state.transfer.current_bytes = current_bytes;
        state.transfer.total_bytes = total_bytes;
        state.transfer.took = now.saturating_sub(state.since);
        state.transfer.done = total_bytes.is_some_and(|total| current_bytes >= total);
        let due = now.saturating_sub(state.reported) >= TRANSFER_INTERVAL;
        if was_done || !(due || state.transfer.done) {
            return Vec::new();
        }
        state.reported = now;
        vec![Change::Transferred(state.transfer.clone())]
    }

    /// The lines and transfers that are still open, then the end. A step that did not fail needs no tail any more.
    fn end(&mut self, now: Duration, change: impl FnOnce(Duration) -> Change) -> Vec<Change> {
        let mut changes = self.flush(now);
        let last = change(self.elapsed(now));
        if matches!(last, Change::Completed { .. }) {
            changes.extend(self.finish_transfers());
            self.tail = VecDeque::new();
        }
        changes.push(last);
        self.transfers = BTreeMap::new();
        self.running_since = None;
        self.ended = true;
        changes
    }

    /// A transfer whose size nobody knew is done when its step is.
    fn finish_transfers(&mut self) -> Vec<Change> {
        let open =
            self.transfers.values_mut().map(|state| &mut state.transfer).filter(|transfer| !transfer.done);
        open.map(|transfer| Change::Transferred(Transfer { done: true, ..transfer.clone() })).collect()
    }
}

/// `sha256:5a16… 1.05MB / 3.62MB`, as BuildKit writes it.
impl std::fmt::Display for Transfer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.name, Bytes(self.current_bytes))?;
        self.total_bytes.map_or(Ok(()), |total| write!(f, " / {}", Bytes(total)))
    }
}

/// A size for people, in decimal units: `349B`, `1.09MB`.
struct Bytes(u64);

impl std::fmt::Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const UNITS: [(u64, &str); 4] =
            [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
        match UNITS.iter().find(|(unit, _)| self.0 >= *unit) {
            Some((unit, name)) => write!(f, "{:.2}{name}", self.0 as f64 / *unit as f64),
            None => write!(f, "{}B", self.0),
        }
    }
}
