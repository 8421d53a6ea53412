//! Many builds at once on one store.

use std::fs;

use nix::sys::signal::Signal;

use crate::common::{Context, TestEnvironment};

const BUILDS: usize = 16;
const STAGES: usize = 8;

/// Each stage tells a file outside that it ran. A build has three of them, each of which other builds have, too.
fn dockerfile(build: usize) -> String {
    let stages: Vec<usize> = (0..3).map(|offset| (build + offset) % STAGES).collect();
    let stage = |number: &usize| {
        format!("FROM busybox AS s{number}\nRUN echo {number} >>/ran/steps && echo {number} >/{number}\n")
    };
    let copy = |number: &usize| format!("COPY --from=s{number} /{number} /{number}\n");
    let (stages_text, copies): (String, String) =
        (stages.iter().map(stage).collect(), stages.iter().map(copy).collect());
    format!("{stages_text}FROM busybox\n{copies}")
}

fn contexts(test: &TestEnvironment) -> Vec<Context> {
    let context =
        |build| test.context(&format!("context-{build}"), &[("Dockerfile", dockerfile(build).as_str())]);
    (0..BUILDS).map(context).collect()
}

/// The directory that steps see as `/ran`.
fn volume(test: &TestEnvironment) -> String {
    let path = test.path("ran");
    fs::create_dir_all(&path).unwrap();
    format!("{}:/ran", path.to_str().unwrap())
}

const EPOCH: (&str, &str) = ("SOURCE_DATE_EPOCH", "1000000000");

#[test]
fn many_builds_at_once_run_each_step_once() {
    let Some(mut test) = TestEnvironment::with_base() else { return };
    let base = test.path("base.tar");
    test.rbuild(&["save", "-o", base.to_str().unwrap(), "busybox"]).outcome().succeeds();
    let (contexts, volume) = (contexts(&test), volume(&test));
    let names: Vec<String> = (0..BUILDS).map(|build| format!("app-{build}")).collect();
    let build = |test: &TestEnvironment, index: usize| {
        let arguments = ["-t", &names[index], "-v", &volume];
        test.build_command(&contexts[index], &arguments).env(EPOCH.0, EPOCH.1)
    };
    let running: Vec<_> = (0..BUILDS).map(|index| build(&test, index).start()).collect();
    running.into_iter().for_each(|build| drop(build.finish().succeeds()));
    let mut ran: Vec<String> = test.read("ran/steps").lines().map(ToOwned::to_owned).collect();
    ran.sort();
    assert_eq!(ran, (0..STAGES).map(|stage| stage.to_string()).collect::<Vec<_>>());
    test.assert_sound();
    for directory in ["active", "ingest", "trash", "leases", "locks"] {
        assert_eq!(test.store_entries(directory), 0, "{directory}");
    }
    let ids: Vec<String> = names.iter().map(|name| test.image_id(name)).collect();

    test.set_store(test.path("serial"));
    test.rbuild(&["load", "-i", base.to_str().unwrap()]).outcome().succeeds();
    for (index, id) in ids.iter().enumerate() {
        build(&test, index).outcome().succeeds();
        assert_eq!(&test.image_id(&names[index]), id);
    }
}

#[test]
fn a_build_takes_over_the_step_of_one_that_was_killed() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let volume = volume(&test);
    let step = "printf 'star%s\\n' ted; if [ ! -e /ran/first ]; then touch /ran/first; sleep 1000; fi";
    let context = test.dockerfile(&format!("FROM busybox\nRUN {step}; echo done >/done\n"));
    let mut first = test.build_command(&context, &["-t", "first", "-v", &volume]).start();
    first.wait_for("started");
    while !test.path("ran/first").exists() {
        std::thread::yield_now();
    }
    let second = test.build_command(&context, &["-t", "second", "-v", &volume]).start();
    first.signal(Signal::SIGKILL);
    first.finish().exits(137);
    assert_eq!(second.finish().succeeds().ran().len(), 1);
    assert_eq!(test.run("second", "cat /done"), "done\n");
    test.assert_sound();
}

#[test]
fn a_running_step_is_in_nobodys_way() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let volume = volume(&test);
    // The first waits for the second, which has the base, the copied file and the store in common with it.
    let wait = "printf 'star%s\\n' ted; until [ -e /ran/go ]; do sleep 0.01; done";
    let first = test.context(
        "first",
        &[("Dockerfile", &format!("FROM busybox\nCOPY a /a\nRUN {wait}\n")), ("a", "shared\n")],
    );
    let second = test.context(
        "second",
        &[("Dockerfile", "FROM busybox\nCOPY a /a\nRUN touch /ran/go\n"), ("a", "shared\n")],
    );
    let mut first = test.build_command(&first, &["-t", "first", "-v", &volume]).start();
    first.wait_for("started");
    let outcome = test.build(&second, &["-t", "second", "-v", &volume]).succeeds();
    assert_eq!(outcome.ran(), ["RUN touch /ran/go"]);
    first.finish().succeeds();
    test.assert_sound();
}
