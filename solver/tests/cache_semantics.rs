//! What is run again, and what is not.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Barrier};

use rbuild_llb::{Definition, VertexId};
use rbuild_solver::progress::{Event, NoEvents};
use rbuild_solver::testing::{RecordedEvents, Script, ScriptError, ScriptedWorker, Store, tree};
use rbuild_solver::{MissReason, Outcome, SolveError, SolveOptions, Statistics, record_content_keys, solve};

use crate::{build, worker_with};

const NONE: [&str; 0] = [];

/// `FROM base`, `COPY a /a`, `RUN append`.
fn simple() -> (Definition, VertexId) {
    let mut script = Script::new();
    let base = script.image("base");
    let context = script.local("context");
    let copy = script.copy(base, context, "/a", "/a");
    let run = script.run("append /a !", &[copy]);
    (script.result(run), run)
}

#[test]
fn a_cold_build_runs_everything_once() {
    let worker = worker_with(&Arc::default(), "1");
    let (definition, run) = simple();
    let solved = build(&definition, &worker).unwrap();
    assert_eq!(solved.outputs[0].as_ref().unwrap()["/a"], "1!");
    assert_eq!(worker.calls().ran, ["append /a !", "base", "copy /a /a"]);
    assert_eq!(solved.statistics(), Statistics { ran: 3, ..Statistics::default() });
    assert_eq!(solved.outcome(run), Some(Outcome::Ran(MissReason::NoRecord)));
}

#[test]
fn an_unchanged_build_asks_once_and_runs_nothing() {
    let store = Arc::default();
    let (definition, run) = simple();
    build(&definition, &worker_with(&store, "1")).unwrap();
    let worker = worker_with(&store, "1");
    let solved = build(&definition, &worker).unwrap();
    let calls = worker.calls();
    assert_eq!(calls.ran, NONE);
    assert_eq!(calls.looked_up, [3]);
    assert_eq!((calls.looked_up_content, calls.digested_outputs), (0, 0));
    assert_eq!(solved.outcome(run), Some(Outcome::Cached));
    assert_eq!(solved.outputs[0], Some(tree(&[("/a", "1!"), ("/image", "docker.io/library/base:latest")])));
}

#[test]
fn a_shared_cache_is_asked_once_for_what_would_run() {
    let (shared, store) = (Arc::default(), Arc::default());
    let (definition, _) = simple();
    build(&definition, &worker_with(&shared, "1")).unwrap();

    let worker = worker_with(&store, "1").with_shared(&shared);
    let solved = build(&definition, &worker).unwrap();
    let calls = worker.calls();
    assert_eq!((calls.ran, calls.asked), (vec![], vec![names(&["append /a !", "copy /a /a"])]));
    assert_eq!(solved.outputs[0].as_ref().unwrap()["/a"], "1!");

    // What is found makes the rest unneeded; what is not runs, on what is found.
    let mut script = Script::new();
    let base = script.image("base");
    let context = script.local("context");
    let copy = script.copy(base, context, "/a", "/a");
    let run = script.run("append /a !", &[copy]);
    let more = script.run("append /a ?", &[run]);
    let worker = worker_with(&store, "1").with_shared(&shared);
    let solved = build(&script.result(more), &worker).unwrap();
    assert_eq!(worker.calls().ran, ["append /a ?"]);
    assert_eq!(solved.outputs[0].as_ref().unwrap()["/a"], "1!?");

    // What is recorded here is asked of nobody.
    let (definition, _) = simple();
    build(&definition, &worker_with(&store, "1")).unwrap();
    let worker = worker_with(&store, "1").with_shared(&shared);
    build(&definition, &worker).unwrap();
    assert!(worker.calls().asked.is_empty());
}

fn names(steps: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = steps.iter().map(|name| (*name).to_owned()).collect();
    names.sort();
    names
}

#[test]
fn every_vertex_of_an_unchanged_build_is_shown_as_cached() {
    let store = Arc::default();
    let (definition, _) = simple();
    build(&definition, &worker_with(&store, "1")).unwrap();
    let events = RecordedEvents::default();
    let worker = worker_with(&store, "1");
    solve(&definition, &worker, &SolveOptions::default(), &events, &AtomicBool::new(false)).unwrap();
    let events = events.take();
    let cached = events.iter().filter(|event| matches!(event, Event::Cached { .. })).count();
    assert_eq!(cached, 3, "{events:#?}");
}

#[test]
fn a_changed_file_runs_what_takes_it_and_what_follows() {
    let store = Arc::default();
    let (definition, run) = simple();
    build(&definition, &worker_with(&store, "1")).unwrap();
    let worker = worker_with(&store, "2");
    let solved = build(&definition, &worker).unwrap();
    assert_eq!(worker.calls().ran, ["append /a !", "copy /a /a"]);
    assert_eq!(solved.outcome(run), Some(Outcome::Ran(MissReason::InputsChanged)));
    assert_eq!(solved.outputs[0].as_ref().unwrap()["/a"], "2!");
}

#[test]
fn a_file_that_nobody_takes_changes_nothing() {
    let store = Arc::default();
    let (definition, _) = simple();
    build(&definition, &worker_with(&store, "1")).unwrap();
    let worker = ScriptedWorker::new(&store).with_local("context", &[("/a", "1"), ("/other", "changed")]);
    build(&definition, &worker).unwrap();
    assert_eq!(worker.calls().ran, NONE);
}

#[test]
fn the_same_result_of_a_changed_step_stops_the_rebuild() {
    let graph = || {
        let mut script = Script::new();
        let base = script.image("base");
        let context = script.local("context");
        let copy = script.copy(base, context, "/a", "/a");
        let length = script.run("length /a /length", &[copy]);
        let after = script.run("append /length !", &[length]);
        let last = script.run("append /length ?", &[after]);
        (script.result(last), [length, after, last])
    };
    let store = Arc::default();
    let (definition, [length, after, last]) = graph();
    build(&definition, &worker_with(&store, "one")).unwrap();
    let worker = worker_with(&store, "two");
    let solved = build(&definition, &worker).unwrap();
    assert_eq!(worker.calls().ran, ["copy /a /a", "length /a /length"]);
    assert_eq!(solved.outcome(length), Some(Outcome::Ran(MissReason::InputsChanged)));
    assert_eq!(solved.outcome(after), Some(Outcome::CutOff));
    assert_eq!(solved.outcome(last), Some(Outcome::CutOff));

    // The definition keys were linked, so that the next build does not have to look at contents.
    let worker = worker_with(&store, "two");
    build(&definition, &worker).unwrap();
    let calls = worker.calls();
    assert_eq!((calls.ran.len(), calls.digested_outputs), (0, 0));
}

#[test]
fn a_copy_from_a_step_depends_on_what_it_takes() {
    let graph = |text: &str| {
        let mut script = Script::new();
        let base = script.image("base");
        let made = script.run("write /out yes", &[base]);
        let made = script.run(&format!("write /log {text}"), &[made]);
        let copy = script.copy(base, made, "/out", "/out");
        (script.result(copy), copy)
    };
    let store = Arc::default();
    build(&graph("1").0, &ScriptedWorker::new(&store)).unwrap();
    let worker = ScriptedWorker::new(&store);
    let (definition, copy) = graph("2");
    let solved = build(&definition, &worker).unwrap();
    assert_eq!(worker.calls().ran, ["write /log 2"]);
    assert_eq!(solved.outcome(copy), Some(Outcome::CutOff));
}

#[test]
fn a_cold_build_never_waits_for_contents() {
    let worker = worker_with(&Arc::default(), "1");
    build(&simple().0, &worker).unwrap();
    assert_eq!(worker.calls().looked_up_content, 0);
}

#[test]
fn a_result_never_waits_for_content_keys() {
    let store = Arc::new(Store::default());
    let until_cancelled = |cx: &rbuild_solver::Context<'_>| {
        while !cx.is_cancelled() {
            std::thread::yield_now();
        }
        Err(ScriptError::Cancelled)
    };
    let worker = worker_with(&store, "1").with_hook("digest output", until_cancelled);
    let (definition, run) = simple();
    let never = AtomicBool::new(false);
    let solved = solve(&definition, &worker, &SolveOptions::default(), &NoEvents, &never).unwrap();
    let unkeyed: Vec<VertexId> = solved.unkeyed.iter().map(|step| step.vertex).collect();
    assert!(unkeyed.contains(&run), "{unkeyed:?}");
    let without_key = || store.snapshot().values().filter(|record| record.content_key.is_none()).count();
    assert_eq!(without_key(), 3);

    let stopped = AtomicBool::new(true);
    record_content_keys(&definition, &worker, &solved.unkeyed, &stopped).unwrap();
    assert_eq!(without_key(), 3);
    record_content_keys(&definition, &worker_with(&store, "1"), &solved.unkeyed, &never).unwrap();
    // The image has none: it is known by its manifest.
    assert_eq!(without_key(), 1);
}

#[test]
fn what_the_result_does_not_need_is_never_touched() {
    let mut script = Script::new();
    let base = script.image("base");
    let unused_image = script.image("unused");
    let unused_context = script.local("unused");
    script.copy(unused_image, unused_context, "/a", "/a");
    let run = script.run("write /x y", &[base]);
    let worker = ScriptedWorker::new(&Arc::default());
    let solved = build(&script.result(run), &worker).unwrap();
    let calls = worker.calls();
    assert_eq!((calls.identified, calls.digested_local), (vec!["base".to_owned()], Vec::new()));
    assert_eq!(calls.ran, ["base", "write /x y"]);
    assert_eq!(solved.outcome(unused_image), None);
}

#[test]
fn an_image_is_only_pulled_for_a_step_on_top_of_it() {
    let graph = |last: &str| {
        let mut script = Script::new();
        let base = script.image("base");
        let first = script.run("write /x y", &[base]);
        let last = script.run(last, &[first]);
        script.result(last)
    };
    let store = Arc::new(Store::default());
    let solved = build(&graph("write /z 1"), &ScriptedWorker::new(&store)).unwrap();
    store.forget(solved.vertices[0].key.unwrap());
    let worker = ScriptedWorker::new(&store);
    build(&graph("write /z 2"), &worker).unwrap();
    assert_eq!(worker.calls().ran, ["write /z 2"]);
}

#[test]
fn a_linked_copy_does_not_depend_on_its_base() {
    let graph = |image: &str| {
        let mut script = Script::new();
        let base = script.image(image);
        let context = script.local("context");
        let copy = script.linked_copy(context, "/a", "/a");
        let merge = script.merge(&[base, copy]);
        script.result(merge)
    };
    let store = Arc::default();
    build(&graph("one"), &worker_with(&store, "1")).unwrap();
    let worker = worker_with(&store, "1");
    build(&graph("two"), &worker).unwrap();
    assert_eq!(worker.calls().ran, ["merge", "two"]);
}

#[test]
fn a_step_that_ignores_the_cache_runs_each_time() {
    let graph = || {
        let mut script = Script::new();
        let base = script.image("base");
        let unstable = script.run("unstable /x", &[base]);
        script.ignore_cache(unstable);
        let after = script.run("append /x !", &[unstable]);
        (script.result(after), unstable, after)
    };
    let store = Arc::default();
    let (definition, unstable, after) = graph();
    let first = build(&definition, &ScriptedWorker::new(&store)).unwrap();
    let worker = ScriptedWorker::new(&store);
    let second = build(&definition, &worker).unwrap();
    assert_eq!(worker.calls().ran, ["append /x !", "unstable /x"]);
    assert_ne!(first.outputs, second.outputs);
    assert_eq!(second.outcome(unstable), Some(Outcome::Ran(MissReason::IgnoreCache)));
    let Some(Outcome::Ran(MissReason::InputIgnoredCache { input })) = second.outcome(after) else {
        panic!("{second:?}")
    };
    assert_eq!(input.index(), 0);
}

#[test]
fn what_follows_a_step_that_ignores_the_cache_is_cut_off_where_nothing_changed() {
    let mut script = Script::new();
    let base = script.image("base");
    let stable = script.run("write /x y", &[base]);
    script.ignore_cache(stable);
    let after = script.run("append /x !", &[stable]);
    let definition = script.result(after);
    let store = Arc::default();
    build(&definition, &ScriptedWorker::new(&store)).unwrap();
    let worker = ScriptedWorker::new(&store);
    let solved = build(&definition, &worker).unwrap();
    assert_eq!(worker.calls().ran, ["write /x y"]);
    assert_eq!(solved.outcome(after), Some(Outcome::CutOff));
}

#[test]
fn what_was_made_without_the_cache_is_what_later_builds_find() {
    let graph = |ignore: bool| {
        let mut script = Script::new();
        let base = script.image("base");
        let unstable = script.run("unstable /x", &[base]);
        if ignore {
            script.ignore_cache(unstable);
        }
        let after = script.run("append /x !", &[unstable]);
        script.result(after)
    };
    let store = Arc::default();
    build(&graph(false), &ScriptedWorker::new(&store)).unwrap();
    let anew = build(&graph(true), &ScriptedWorker::new(&store)).unwrap();
    let worker = ScriptedWorker::new(&store);
    let later = build(&graph(false), &worker).unwrap();
    assert_eq!(worker.calls().ran, NONE);
    assert_eq!(anew.outputs, later.outputs);
}

#[test]
fn independent_steps_run_beside_each_other() {
    const STEPS: usize = 8;
    // Each waits until all have begun: were they run one after the other, this test would not end.
    let all_began = Arc::new(Barrier::new(STEPS));
    let mut script = Script::new();
    let base = script.image("base");
    let mut worker = ScriptedWorker::new(&Arc::default());
    let steps: Vec<VertexId> = (0..STEPS)
        .map(|step| {
            let name = format!("write /{step} x");
            let barrier = Arc::clone(&all_began);
            worker = std::mem::take(&mut worker).with_hook(&name, move |_| {
                barrier.wait();
                Ok(())
            });
            script.run(&name, &[base])
        })
        .collect();
    let merge = script.merge(&steps);
    let solved = build(&script.result(merge), &worker).unwrap();
    assert_eq!(solved.outputs[0].as_ref().unwrap().len(), STEPS + 1);
}

#[test]
fn sources_are_pinned_beside_each_other() {
    let began = Arc::new(Barrier::new(3));
    let wait = || {
        let began = Arc::clone(&began);
        move |_: &rbuild_solver::Context<'_>| {
            began.wait();
            Ok(())
        }
    };
    let worker = worker_with(&Arc::default(), "1")
        .with_hook("identify one", wait())
        .with_hook("identify two", wait())
        .with_hook("digest context", wait());
    let mut script = Script::new();
    let (one, two, context) = (script.image("one"), script.image("two"), script.local("context"));
    let copy = script.linked_copy(context, "/a", "/a");
    let merge = script.merge(&[one, two, copy]);
    build(&script.result(merge), &worker).unwrap();
}

#[test]
fn equal_steps_of_two_builds_run_once() {
    let store = Arc::new(Store::default());
    let (definition, _) = simple();
    // Both builds have looked up and found nothing before either runs anything.
    let both_planned = Arc::new(Barrier::new(2));
    let run = || {
        let barrier = Arc::clone(&both_planned);
        let worker = worker_with(&store, "1").with_hook("identify base", move |_| {
            barrier.wait();
            Ok(())
        });
        build(&definition, &worker).unwrap();
        worker.calls().ran
    };
    let ran = std::thread::scope(|scope| {
        let other = scope.spawn(run);
        let mut ran = run();
        ran.extend(other.join().unwrap());
        ran.sort();
        ran
    });
    assert_eq!(ran, ["append /a !", "base", "copy /a /a"]);
}

#[test]
fn steps_that_take_the_same_share_one_digest() {
    let mut script = Script::new();
    let (one, two, context) = (script.image("one"), script.image("two"), script.local("context"));
    let first = script.copy(one, context, "/a", "/x");
    let second = script.copy(two, context, "/a", "/y");
    let third = script.copy(second, context, "/other", "/z");
    let merge = script.merge(&[first, third]);
    let worker = worker_with(&Arc::default(), "1");
    build(&script.result(merge), &worker).unwrap();
    assert_eq!(worker.calls().digested_local.len(), 2);
}

#[test]
fn a_local_source_can_be_the_result() {
    let graph = || {
        let mut script = Script::new();
        let context = script.local("context");
        script.result(context)
    };
    let store = Arc::default();
    let solved = build(&graph(), &worker_with(&store, "1")).unwrap();
    assert_eq!(solved.outputs[0].as_ref().unwrap()["/a"], "1");
    let worker = worker_with(&store, "1");
    build(&graph(), &worker).unwrap();
    assert_eq!(worker.calls().ran, NONE);
    let changed = build(&graph(), &worker_with(&store, "2")).unwrap();
    assert_eq!(changed.outputs[0].as_ref().unwrap()["/a"], "2");
}

#[test]
fn the_empty_tree_needs_nothing() {
    let definition = rbuild_llb::Builder::new().finish(None).unwrap();
    let worker = ScriptedWorker::default();
    let options = SolveOptions::default();
    let solved = solve(&definition, &worker, &options, &NoEvents, &AtomicBool::new(false));
    assert_eq!(solved.unwrap().outputs, [None]);
    assert_eq!(worker.calls(), rbuild_solver::testing::Calls::default());
}

#[test]
fn an_output_that_was_not_made_is_an_error() {
    let mut script = Script::new();
    let base = script.image("base");
    let nothing = script.run("nothing", &[base]);
    let after = script.run("write /x y", &[nothing]);
    let error = build(&script.result(after), &ScriptedWorker::new(&Arc::default())).unwrap_err();
    let SolveError::MissingOutput { vertex, output, .. } = error else { panic!("{error:?}") };
    assert_eq!((vertex, output.0), (nothing, 0));
}
