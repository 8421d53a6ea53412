//! Writes the history of a build while it runs: every event goes to the display, and here.
//!
//! That history cannot be written never fails a build.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rbuild_cache::builds::{LogChunk, LogStream};
use rbuild_cache::{BuildName, BuildWriter, Store};
use rbuild_llb::{Definition, VertexId};
use rbuild_solver::explain::public;
use rbuild_solver::progress::{Event, EventSink, OutputStream, PlannedVertex};
use rbuild_solver::{CacheKey, Outcome};

use super::document::{BuildDocument, BuildOutcome, StepDocument, StepState};
use crate::app::unix_now_ns;
use crate::progress::Progress;
use crate::report::{Failure, Kind};

/// What is known of a build before it begins.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) name: String,
    pub(crate) context: String,
    pub(crate) dockerfile: String,
    pub(crate) target: Option<String>,
    pub(crate) contexts: BTreeMap<String, PathBuf>,
}

/// Remembers one build.
#[derive(Debug)]
pub(crate) struct Recorder {
    store: Store,
    progress: Arc<Progress>,
    writer: Option<BuildWriter>,
    document: Mutex<BuildDocument>,
    /// Whether the steps were saved when the first of them began to run.
    saved_running: AtomicBool,
}

impl Recorder {
    /// Begins to remember a build; its events go on to `progress`.
    pub(crate) fn begin(store: &Store, progress: Arc<Progress>, header: Header) -> Self {
        let Header { name, context, dockerfile, target, contexts } = header;
        let started_ms = now_ms();
        let document = BuildDocument {
            name,
            context,
            dockerfile,
            target,
            started_ms,
            ended_ms: None,
            outcome: BuildOutcome::Running,
            steps: Vec::new(),
            definition: None,
            contexts,
        };
        let writer = store.builds().begin(started_ms).ok();
        let document = Mutex::new(document);
        let this =
            Self { store: store.clone(), progress, writer, document, saved_running: AtomicBool::new(false) };
        this.save(&this.lock());
        this
    }

    /// The build's name in the store.
    pub(crate) fn build(&self) -> Option<&BuildName> {
        Some(self.writer.as_ref()?.name())
    }

    /// The build's id, and when it began, Unix milliseconds.
    pub(crate) fn invocation(&self) -> (String, i64) {
        (self.build().map(|build| build.id().to_owned()).unwrap_or_default(), self.lock().started_ms)
    }

    /// What is known by now.
    pub(crate) fn document(&self) -> BuildDocument {
        self.lock().clone()
    }

    /// The definition key of a vertex.
    pub(crate) fn key(&self, vertex: VertexId) -> Option<CacheKey> {
        self.lock().key(vertex)
    }

    /// Takes note of what is built.
    pub(crate) fn define(&self, definition: &Definition) {
        let vertices = definition.vertices().iter().map(public).collect();
        self.lock().definition = Definition::new(vertices, definition.targets().to_vec()).ok();
    }

    /// Takes note of the end.
    pub(crate) fn finish(&self, result: Result<(), &Failure>) {
        let mut document = self.lock();
        document.ended_ms = Some(now_ms());
        document.outcome = match result {
            Ok(()) => BuildOutcome::Completed,
            Err(failure) if failure.kind == Kind::Cancelled => BuildOutcome::Cancelled,
            Err(failure) => BuildOutcome::Failed(failure.message.clone()),
        };
        self.find_origins(&mut document);
        self.save(&document);
        if let Some(writer) = &self.writer {
            drop(writer.compress_logs());
            drop(self.store.builds().forget_oldest());
        }
    }

    /// Where the results that were found come from.
    fn find_origins(&self, document: &mut BuildDocument) {
        let found = |step: &&mut StepDocument| {
            matches!(
                step.decision,
                Some(Outcome::Cached | Outcome::Unneeded | Outcome::CutOff | Outcome::Shared)
            )
        };
        let mut steps: Vec<&mut StepDocument> = document.steps.iter_mut().filter(found).collect();
        steps.retain(|step| step.key.is_some());
        let keys: Vec<_> =
            steps.iter().filter_map(|step| step.key).map(|key| rbuild_cache::CacheKey(key.0)).collect();
        let origins = self.store.records().origins(&keys).unwrap_or_default();
        for (step, origin) in steps.into_iter().zip(origins) {
            step.made_by = origin.map(|origin| (origin.build.to_string(), origin.step));
        }
    }

    fn save(&self, document: &BuildDocument) {
        if let (Some(writer), Ok(bytes)) = (&self.writer, serde_json::to_vec(document)) {
            drop(writer.save(&bytes));
        }
    }

    fn take(&self, event: &Event) {
        let (vertex, now) = match event {
            Event::Planned { vertices } => {
                // A build that begins again plans the same steps.
                self.lock().steps = vertices.iter().map(planned).collect();
                return;
            }
            Event::Output { .. } | Event::Transfer { .. } | Event::Task { .. } => return,
            Event::Decided { vertex, .. }
            | Event::Explained { vertex, .. }
            | Event::Started { vertex }
            | Event::Cached { vertex }
            | Event::Completed { vertex }
            | Event::Failed { vertex, .. }
            | Event::Cancelled { vertex } => (*vertex, now_ms()),
        };
        let number = self.progress.number(vertex);
        let mut document = self.lock();
        let Some(step) = document.step_mut(vertex) else { return };
        step.number = number;
        change(step, event, now);
        // From here on there is something to lose; a build in which nothing runs is over before.
        let runs = matches!(event, Event::Started { .. }) && matches!(step.decision, Some(Outcome::Ran(_)));
        if runs && !self.saved_running.swap(true, Ordering::Relaxed) {
            self.save(&document);
        }
    }

    fn log(&self, vertex: VertexId, stream: OutputStream, bytes: &[u8]) {
        let Some(writer) = &self.writer else { return };
        let started_ms = self.lock().step_mut(vertex).and_then(|step| step.started_ms);
        let at_ms = now_ms().saturating_sub(started_ms.unwrap_or_default());
        let stream = match stream {
            OutputStream::Stdout => LogStream::Stdout,
            OutputStream::Stderr => LogStream::Stderr,
        };
        let chunk =
            LogChunk { stream, at_ms: u32::try_from(at_ms).unwrap_or(u32::MAX), bytes: bytes.to_vec() };
        drop(writer.append(vertex.0, &chunk));
    }

    fn lock(&self) -> MutexGuard<'_, BuildDocument> {
        self.document.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventSink for Recorder {
    fn emit(&self, event: Event) {
        if let Event::Output { vertex, stream, bytes } = &event {
            // What was shown is kept, whatever happens next.
            self.log(*vertex, *stream, bytes);
            return self.progress.emit(event);
        }
        // The display gives the numbers.
        self.progress.emit(event.clone());
        self.take(&event);
    }
}

fn planned(planned: &PlannedVertex) -> StepDocument {
    StepDocument {
        number: None,
        vertex: planned.vertex,
        name: planned.name.clone(),
        source: planned.source,
        internal: planned.internal,
        key: None,
        decision: None,
        causes: Vec::new(),
        state: StepState::Waiting,
        started_ms: None,
        duration_ms: None,
        made_by: None,
    }
}

fn change(step: &mut StepDocument, event: &Event, now: i64) {
    match event {
        Event::Decided { key, outcome, .. } => {
            step.key = *key;
            step.decision = Some(*outcome);
        }
        Event::Explained { causes, .. } => causes.clone_into(&mut step.causes),
        Event::Started { .. } => {
            step.started_ms = Some(now);
            step.state = StepState::Running;
        }
        Event::Cached { .. } => step.state = StepState::Cached,
        Event::Completed { .. } => end(step, now, StepState::Completed),
        Event::Failed { message, .. } => end(step, now, StepState::Failed(message.clone())),
        Event::Cancelled { .. } => end(step, now, StepState::Cancelled),
        Event::Planned { .. } | Event::Output { .. } | Event::Transfer { .. } | Event::Task { .. } => {}
    }
}

fn end(step: &mut StepDocument, now: i64, state: StepState) {
    step.duration_ms = step.started_ms.map(|started| now.saturating_sub(started));
    step.state = state;
}

fn now_ms() -> i64 {
    unix_now_ns() / 1_000_000
}
