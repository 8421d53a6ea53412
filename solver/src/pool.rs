//! Carries out what the scheduler decides, on threads.
//!
//! A thread per job: jobs are few and long, a thread costs some 20 µs, and the scheduler bounds how many there are. The
//! scheduler itself stays on the caller's thread and hears of finished jobs through a channel. A panic in a job stops
//! the build and goes on in the caller.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};
use std::time::Duration;

use rbuild_llb::{InputIndex, VertexId};

use crate::build::{MissReason, SolveOptions, Solved};
use crate::cache_key::{self, CacheKey, ContentDigest, SourceIdentity};
use crate::cache_map::{InputRequest, Selection};
use crate::error::SolveError;
use crate::graph::Graph;
use crate::progress::{Event, EventSink, NoEvents};
use crate::scheduler::{Command, Job, Made, Probe, Report, Reuse, Scheduler, Step, Supplied};
use crate::worker::{Context, Found, Input, NewRecord, VertexRef, Wanted, Worker};

/// How often the caller's cancel flag is looked at while nothing else happens.
const CANCEL_POLL: Duration = Duration::from_millis(20);

/// What a job's thread sends back: its report, or what it panicked with.
type Message<W> = Result<Report<<W as Worker>::Output, <W as Worker>::Error>, Box<dyn Any + Send + 'static>>;

/// Carries out jobs of one build, each on the thread that asks.
pub struct Desk<'a, W> {
    graph: &'a Graph<'a>,
    worker: &'a W,
    events: &'a dyn EventSink,
    /// Set when jobs are to stop, by the user or because one failed.
    stop: AtomicBool,
}

impl<W> fmt::Debug for Desk<'_, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("stop", &self.stop).finish_non_exhaustive()
    }
}

/// Runs a build to its end.
pub(crate) fn drive<W: Worker>(
    graph: &Graph<'_>,
    worker: &W,
    options: &SolveOptions,
    events: &dyn EventSink,
    cancel: &AtomicBool,
) -> Result<Solved<W::Output>, SolveError<W::Error>> {
    let desk = Desk::new(graph, worker, events);
    let mut scheduler = Scheduler::new(graph, options.jobs);
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        let mut commands = VecDeque::new();
        let stop_if_asked = |scheduler: &mut Scheduler<'_, _, _>| {
            if cancel.load(Ordering::Relaxed) { scheduler.cancel() } else { Vec::new() }
        };
        // Before it begins, so that nothing does.
        commands.extend(stop_if_asked(&mut scheduler));
        commands.extend(scheduler.start());
        loop {
            commands.extend(stop_if_asked(&mut scheduler));
            for command in commands.drain(..) {
                desk.obey(command, scope, &sender);
            }
            if scheduler.is_over() {
                break;
            }
            if let Some(report) = desk.next_report(&receiver) {
                commands.extend(scheduler.handle(report));
            }
        }
    });
    scheduler.finish()
}

impl<'a, W: Worker> Desk<'a, W> {
    /// A desk for one build.
    pub const fn new(graph: &'a Graph<'a>, worker: &'a W, events: &'a dyn EventSink) -> Self {
        Self { graph, worker, events, stop: AtomicBool::new(false) }
    }

    /// Tells all jobs to stop.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn obey<'scope>(
        &'scope self,
        command: Command<W::Output>,
        scope: &'scope Scope<'scope, '_>,
        sender: &Sender<Message<W>>,
    ) {
        match command {
            Command::Emit(event) => self.events.emit(event),
            Command::Stop => self.stop(),
            Command::Start(job) => {
                let sender = sender.clone();
                scope.spawn(move || {
                    let done = panic::catch_unwind(AssertUnwindSafe(|| self.carry_out(job)));
                    // Nobody listens any more when another job panicked.
                    sender.send(done).ok();
                });
            }
        }
    }

    /// Waits for a job to end; `None` when it is time to look at the cancel flag.
    fn next_report(&self, receiver: &Receiver<Message<W>>) -> Option<Report<W::Output, W::Error>> {
        match receiver.recv_timeout(CANCEL_POLL) {
            Ok(Ok(report)) => Some(report),
            Ok(Err(payload)) => {
                self.stop();
                panic::resume_unwind(payload);
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Does one job, and says what came of it.
    pub fn carry_out(&self, job: Job<W::Output>) -> Report<W::Output, W::Error> {
        match job {
            Job::Identify { vertex } => {
                report(vertex, self.identify(vertex), |identity| Report::Identified { vertex, identity })
            }
            Job::Digest { local, users } => {
                report(local, self.digest_local(local, &users), |digests| Report::Digested { local, digests })
            }
            Job::Lookup { keys } => match self.worker.lookup(&keys) {
                Ok(found) => Report::LookedUp { found },
                Err(error) => Report::Failed { vertex: None, error },
            },
            Job::LookupShared { steps } => {
                let wanted: Vec<Wanted<'_>> = steps
                    .iter()
                    .map(|(vertex, trace)| Wanted { vertex: self.vertex(*vertex), trace })
                    .collect();
                Report::LookedUpShared { found: self.worker.lookup_shared(&wanted, &self.stop) }
            }
            Job::Probe(step) => {
                report(step.vertex, self.probe(&step), |probe| Report::Probed { vertex: step.vertex, probe })
            }
            Job::Run { step, reuse, content_key, reason } => {
                report(step.vertex, self.run(&step, reuse, content_key, reason), |made| Report::Ran {
                    vertex: step.vertex,
                    made,
                })
            }
            Job::DigestInputs(step) => Report::InputsDigested {
                vertex: step.vertex,
                content_key: self.content_key(&step, &self.stop).ok(),
            },
            Job::StoreContentKey { key, content_key } => {
                // Without it the record is found by its definition key alone.
                self.worker.set_content_key(key, content_key).ok();
                Report::ContentKeyStored
            }
        }
    }

    fn identify(&self, id: VertexId) -> Result<SourceIdentity, W::Error> {
        let (vertex, cx) = (self.vertex(id), self.quiet_context(id));
        if self.graph.is_local(self.graph.position(id)) {
            let digest = self.worker.content_digest(Input::Local(vertex), &Selection::Whole, &cx)?;
            return Ok(SourceIdentity(digest.0));
        }
        self.worker.identify(vertex, &cx)
    }

    fn digest_local(
        &self,
        local: VertexId,
        users: &[(VertexId, InputIndex)],
    ) -> Result<Vec<ContentDigest>, W::Error> {
        let selections: Vec<&Selection> =
            users.iter().map(|(user, input)| &self.requests(*user)[input.index()].selection).collect();
        self.worker.local_digests(self.vertex(local), &selections, &self.context(local))
    }

    fn probe(&self, step: &Step<W::Output>) -> Result<Probe<W::Output>, W::Error> {
        if !self.worker.has_op(step.trace.op)? {
            return Ok(Probe::NoRecord);
        }
        let content_key = self.content_key(step, &self.stop)?;
        let found = self.find_by_content(step, content_key, &self.quiet_context(step.vertex))?;
        Ok(found.map_or(Probe::Missed(content_key), Probe::Hit))
    }

    fn find_by_content(
        &self,
        step: &Step<W::Output>,
        content_key: CacheKey,
        cx: &Context<'_>,
    ) -> Result<Found<W::Output>, W::Error> {
        let wanted = Wanted { vertex: self.vertex(step.vertex), trace: &step.trace };
        self.worker.find_by_content(&wanted, &self.inputs(step), content_key, cx)
    }

    /// The key of a step by what its inputs contain.
    pub(crate) fn content_key(
        &self,
        step: &Step<W::Output>,
        cancel: &AtomicBool,
    ) -> Result<CacheKey, W::Error> {
        let cx = Context { cancel, ..self.quiet_context(step.vertex) };
        let digests: Result<Vec<ContentDigest>, W::Error> = step
            .inputs
            .iter()
            .zip(self.requests(step.vertex))
            .map(|(input, request)| match input {
                Supplied::Local { digest, .. } => Ok(*digest),
                Supplied::Output(_) if request.selection.is_empty() => Ok(cache_key::nothing()),
                Supplied::Output(output) => {
                    self.worker.content_digest(Input::Output(output), &request.selection, &cx)
                }
            })
            .collect();
        Ok(cache_key::content_key(step.trace.op, &digests?))
    }

    fn run(
        &self,
        step: &Step<W::Output>,
        reuse: Reuse,
        content_key: Option<CacheKey>,
        reason: MissReason,
    ) -> Result<Made<W::Output>, W::Error> {
        let cx = self.context(step.vertex);
        let key = match reuse {
            Reuse::ByDefinition => Some(step.key),
            Reuse::ByContent(content_key) => Some(content_key),
            Reuse::Never => None,
        };
        let _lock = key.map(|key| self.worker.lock(key, &cx)).transpose()?;
        if let Some(outputs) = self.made_meanwhile(step, reuse, &cx)? {
            return Ok(Made::Elsewhere(outputs));
        }
        let inputs = self.inputs(step);
        let vertex = self.vertex(step.vertex);
        let events = ExplainedFirst { waiting: Mutex::new(Some(Vec::new())), events: self.events };
        let outputs = thread::scope(|scope| {
            let explained = scope.spawn(|| {
                let causes = self.worker.explain(vertex, &step.trace, reason);
                events.explain(Event::Explained { vertex: step.vertex, causes });
            });
            let outputs = self.worker.run(vertex, &inputs, &Context { events: &events, ..cx });
            explained.join().unwrap_or_else(|payload| panic::resume_unwind(payload));
            outputs
        })?;
        self.worker.record(NewRecord {
            key: step.key,
            vertex,
            content_key,
            outputs: &outputs,
            trace: &step.trace,
        })?;
        Ok(Made::Here(outputs))
    }

    /// What another build recorded before this one got the lock.
    fn made_meanwhile(
        &self,
        step: &Step<W::Output>,
        reuse: Reuse,
        cx: &Context<'_>,
    ) -> Result<Found<W::Output>, W::Error> {
        let found = match reuse {
            Reuse::Never => None,
            Reuse::ByDefinition => self.worker.lookup(&[step.key])?.pop().flatten(),
            Reuse::ByContent(content_key) => self.find_by_content(step, content_key, cx)?,
        };
        let needed = self.graph.outputs_needed(self.graph.position(step.vertex));
        Ok(found.filter(|outputs| outputs.len() >= needed))
    }

    fn inputs<'b>(&'b self, step: &'b Step<W::Output>) -> Vec<Input<'b, W::Output>> {
        let input = |supplied: &'b Supplied<W::Output>| match supplied {
            Supplied::Output(output) => Input::Output(output),
            Supplied::Local { vertex, .. } => Input::Local(self.vertex(*vertex)),
        };
        step.inputs.iter().map(input).collect()
    }

    fn requests(&self, vertex: VertexId) -> &[InputRequest] {
        &self.graph.map(self.graph.position(vertex)).inputs
    }

    fn vertex(&self, id: VertexId) -> VertexRef<'a> {
        VertexRef { definition: self.graph.definition(), id }
    }

    /// For work on a vertex that has not started, or has ended: nothing of it is shown.
    fn quiet_context(&self, vertex: VertexId) -> Context<'_> {
        Context { events: &NoEvents, ..self.context(vertex) }
    }

    fn context(&self, vertex: VertexId) -> Context<'_> {
        Context { cancel: &self.stop, events: self.events, vertex }
    }
}

/// Events of a step, before which comes why it runs. That is found out while it runs: what it says meanwhile waits, and the step does not.
struct ExplainedFirst<'a> {
    /// Until it is known.
    waiting: Mutex<Option<Vec<Event>>>,
    events: &'a dyn EventSink,
}

impl ExplainedFirst<'_> {
    fn explain(&self, explained: Event) {
        let mut waiting = self.lock();
        self.events.emit(explained);
        waiting.take().into_iter().flatten().for_each(|event| self.events.emit(event));
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Event>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventSink for ExplainedFirst<'_> {
    fn emit(&self, event: Event) {
        match &mut *self.lock() {
            Some(waiting) => waiting.push(event),
            None => self.events.emit(event),
        }
    }
}

fn report<T, O, E>(
    vertex: VertexId,
    result: Result<T, E>,
    done: impl FnOnce(T) -> Report<O, E>,
) -> Report<O, E> {
    result.map_or_else(|error| Report::Failed { vertex: Some(vertex), error }, done)
}
