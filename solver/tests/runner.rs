//! One binary for all tests of the scheduler on scripted steps.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests, which clippy does not take for tests"
)]

mod cache_semantics;
mod cancellation;
mod keys;
mod simulation;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rbuild_llb::{Definition, VertexId};
use rbuild_solver::progress::Event;
use rbuild_solver::testing::{RecordedEvents, ScriptError, ScriptedWorker, Store, Tree};
use rbuild_solver::{SolveError, SolveOptions, Solved, record_content_keys, solve};

type Outcome = Result<Solved<Tree>, SolveError<ScriptError>>;

/// Builds, checks that the events are well-formed, and completes the records.
fn build(definition: &Definition, worker: &ScriptedWorker) -> Outcome {
    let events = RecordedEvents::default();
    let solved = solve(definition, worker, &SolveOptions::default(), &events, &AtomicBool::new(false));
    check_events(&events.take(), solved.is_ok());
    if let Ok(solved) = &solved {
        record_content_keys(definition, worker, &solved.unkeyed, &AtomicBool::new(false)).unwrap();
    }
    solved
}

/// A worker on a store, with a context of one file.
fn worker_with(store: &Arc<Store>, content: &str) -> ScriptedWorker {
    ScriptedWorker::new(store).with_local("context", &[("/a", content), ("/other", "same")])
}

/// The rules of `progress`: planned first, at most one beginning, one end for each beginning, nothing after the
/// end. Of a build that succeeded, every vertex ended.
fn check_events(events: &[Event], succeeded: bool) {
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Seen {
        Planned,
        Started,
        Ended,
    }
    let Some(Event::Planned { vertices }) = events.first() else { panic!("not planned first: {events:?}") };
    let mut seen: HashMap<VertexId, Seen> =
        vertices.iter().map(|planned| (planned.vertex, Seen::Planned)).collect();
    for event in &events[1..] {
        let (vertex, from, to) = match event {
            Event::Started { vertex } => (vertex, Seen::Planned, Seen::Started),
            Event::Cached { vertex } => (vertex, Seen::Planned, Seen::Ended),
            Event::Completed { vertex } | Event::Failed { vertex, .. } | Event::Cancelled { vertex } => {
                (vertex, Seen::Started, Seen::Ended)
            }
            Event::Output { vertex, .. } | Event::Transfer { vertex, .. } => {
                (vertex, Seen::Started, Seen::Started)
            }
            Event::Decided { .. } | Event::Explained { .. } => continue,
            Event::Planned { .. } | Event::Task { .. } => panic!("unexpected {event:?}"),
        };
        let before = seen.insert(*vertex, to);
        assert_eq!(before, Some(from), "{event:?} in {events:#?}");
    }
    if succeeded {
        assert!(seen.values().all(|seen| *seen == Seen::Ended), "not all ended: {events:#?}");
    } else {
        assert!(seen.values().all(|seen| *seen != Seen::Started), "some are left open: {events:#?}");
    }
}
