//! What happens when a step fails or the user has had enough.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};

use rbuild_llb::{Definition, VertexId};
use rbuild_solver::progress::{Event, NoEvents};
use rbuild_solver::testing::{RecordedEvents, Script, ScriptError, ScriptedWorker, Store};
use rbuild_solver::{SolveError, SolveOptions, solve};

use crate::{build, check_events, worker_with};

fn jobs_one() -> SolveOptions {
    SolveOptions { jobs: std::num::NonZeroUsize::MIN, ..SolveOptions::default() }
}

/// Three steps on one image, joined.
fn fork() -> (Definition, [VertexId; 3]) {
    let mut script = Script::new();
    let base = script.image("base");
    let steps = ["write /a x", "write /b x", "write /c x"].map(|name| script.run(name, &[base]));
    let merge = script.merge(&steps);
    (script.result(merge), steps)
}

#[test]
fn a_failure_names_the_step_and_is_not_recorded() {
    let store = Arc::default();
    let (definition, [_, failing, _]) = fork();
    let worker = ScriptedWorker::new(&store).with_fault("write /b x");
    let error = build(&definition, &worker).unwrap_err();
    assert_eq!(error.to_string(), "failed to solve `write /b x`");
    let SolveError::Vertex { vertex, source, .. } = error else { panic!("{error:?}") };
    assert_eq!((vertex, source), (failing, ScriptError::Fault("write /b x".to_owned())));

    let worker = ScriptedWorker::new(&store);
    build(&definition, &worker).unwrap();
    assert!(worker.calls().ran.contains(&"write /b x".to_owned()));
}

#[test]
fn a_failure_stops_what_runs_beside_it() {
    let (definition, [waiting, failing, also_waiting]) = fork();
    let all_began = Arc::new(Barrier::new(3));
    let until_cancelled = |barrier: &Arc<Barrier>| {
        let barrier = Arc::clone(barrier);
        move |cx: &rbuild_solver::Context<'_>| {
            barrier.wait();
            while !cx.is_cancelled() {
                std::thread::yield_now();
            }
            Err(ScriptError::Cancelled)
        }
    };
    let barrier = Arc::clone(&all_began);
    let worker = ScriptedWorker::new(&Arc::default())
        .with_hook("write /a x", until_cancelled(&all_began))
        .with_hook("write /c x", until_cancelled(&all_began))
        .with_hook("write /b x", move |_| {
            barrier.wait();
            Err(ScriptError::Fault("b".to_owned()))
        });
    let events = RecordedEvents::default();
    let solved = solve(&definition, &worker, &SolveOptions::default(), &events, &AtomicBool::new(false));
    let events = events.take();
    check_events(&events, false);
    assert!(matches!(solved, Err(SolveError::Vertex { vertex, .. }) if vertex == failing));
    for vertex in [waiting, also_waiting] {
        assert!(events.contains(&Event::Cancelled { vertex }), "{events:#?}");
    }
}

#[test]
fn nothing_begins_after_a_failure() {
    let (definition, _) = fork();
    let worker = ScriptedWorker::new(&Arc::default()).with_fault("write /a x");
    let events = RecordedEvents::default();
    solve(&definition, &worker, &jobs_one(), &events, &AtomicBool::new(false)).unwrap_err();
    check_events(&events.take(), false);
    assert_eq!(worker.calls().ran, ["base", "write /a x"]);
}

#[test]
fn a_cancelled_build_stops() {
    let (definition, _) = fork();
    let cancel = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&cancel);
    let worker = ScriptedWorker::new(&Arc::default()).with_hook("write /a x", move |cx| {
        flag.store(true, Ordering::Relaxed);
        while !cx.is_cancelled() {
            std::thread::yield_now();
        }
        Err(ScriptError::Cancelled)
    });
    let events = RecordedEvents::default();
    let solved = solve(&definition, &worker, &jobs_one(), &events, &cancel);
    check_events(&events.take(), false);
    assert!(matches!(solved, Err(SolveError::Cancelled)));
    assert_eq!(worker.calls().ran, ["base", "write /a x"]);
}

#[test]
fn a_build_that_is_cancelled_from_the_start_does_nothing() {
    let (definition, _) = fork();
    let worker = ScriptedWorker::new(&Arc::default());
    let solved = solve(&definition, &worker, &SolveOptions::default(), &NoEvents, &AtomicBool::new(true));
    assert!(matches!(solved, Err(SolveError::Cancelled)));
    assert_eq!(worker.calls(), rbuild_solver::testing::Calls::default());
}

#[test]
fn a_source_that_cannot_be_pinned_fails_the_build() {
    let mut script = Script::new();
    let base = script.image("base");
    let run = script.run("write /a x", &[base]);
    let fault = |_: &rbuild_solver::Context<'_>| Err(ScriptError::Fault("no such image".to_owned()));
    let worker = ScriptedWorker::new(&Arc::default()).with_hook("identify base", fault);
    let error = build(&script.result(run), &worker).unwrap_err();
    assert!(matches!(error, SolveError::Vertex { vertex, .. } if vertex == base));
}

#[test]
fn a_context_that_cannot_be_read_fails_the_build() {
    let mut script = Script::new();
    let context = script.local("context");
    let one = script.linked_copy(context, "/a", "/a");
    let two = script.linked_copy(context, "/other", "/b");
    let merge = script.merge(&[one, two]);
    let fault = |_: &rbuild_solver::Context<'_>| Err(ScriptError::Fault("unreadable".to_owned()));
    let worker = worker_with(&Arc::default(), "1").with_hook("digest context", fault);
    let error = build(&script.result(merge), &worker).unwrap_err();
    assert!(matches!(error, SolveError::Vertex { vertex, .. } if vertex == context));
}

#[test]
fn what_waits_for_its_turn_has_not_begun() {
    let mut script = Script::new();
    let base = script.image("base");
    let context = script.local("context");
    let copy = script.copy(base, context, "/a", "/a");
    let fault = |_: &rbuild_solver::Context<'_>| Err(ScriptError::Fault("no such image".to_owned()));
    let worker = worker_with(&Arc::default(), "1").with_hook("identify base", fault);
    let events = RecordedEvents::default();
    solve(&script.result(copy), &worker, &jobs_one(), &events, &AtomicBool::new(false)).unwrap_err();
    let events = events.take();
    check_events(&events, false);
    assert!(!events.contains(&Event::Started { vertex: context }), "{events:#?}");
}

#[test]
fn a_panic_in_a_step_reaches_the_caller_and_frees_the_key() {
    let (definition, _) = fork();
    let store = Arc::new(Store::default());
    let worker = ScriptedWorker::new(&store).with_hook("write /b x", |_| panic!("scripted panic"));
    let solve = || solve(&definition, &worker, &SolveOptions::default(), &NoEvents, &AtomicBool::new(false));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(solve));
    assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"scripted panic"));
    build(&definition, &ScriptedWorker::new(&store)).unwrap();
}
