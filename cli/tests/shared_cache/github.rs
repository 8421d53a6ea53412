//! The cache of a repository at GitHub, `type=gha`, against a stand-in that GitHub's own client takes for the service (the tests of the
//! registry crate say so).

use rbuild_registry::testing::{FakeActions, Fault};

use super::hostile::{LIMIT, is_right_and_says_so_once, status};
use super::{STEPS, another, machine, names};
use crate::common::{Context, Outcome, TestEnvironment};

const CACHE: &str = "type=gha,scope=app";

/// A build in a job of GitHub's.
fn job(test: &TestEnvironment, context: &Context, server: &FakeActions, arguments: &[&str]) -> Outcome {
    let build = test.build_command(context, arguments);
    server.environment().into_iter().fold(build, |build, (name, value)| build.env(name, value)).outcome()
}

/// How often the service is asked in a while, and how often what it keeps.
fn asked(server: &FakeActions, what: impl FnOnce()) -> (usize, usize) {
    let count = || (server.count("POST", "/twirp/"), server.requests().len());
    let before = count();
    what();
    let (calls, all) = count();
    (calls - before.0, all - calls - (before.1 - before.0))
}

#[test]
fn a_job_does_not_build_what_another_built() {
    let Some((mut test, context, _registry)) = machine() else { return };
    let server = FakeActions::start().unwrap();
    let (to, both) = (format!("{CACHE},mode=max"), ["-t", "app", "--cache-from", CACHE, "--cache-to", CACHE]);
    let cold = asked(&server, || {
        let first = job(&test, &context, &server, &["--cache-to", &to]).succeeds();
        assert_eq!(names(&first.says_nothing_of(&["warning"]).ran()), names(&STEPS));
    });
    // A record and a layer for each step, and whether the records are there; steps that give the same share a layer.
    assert_eq!(server.keys().iter().filter(|key| key.starts_with("rbuild-app-key-")).count(), STEPS.len());
    assert!(cold.0 <= STEPS.len() * 6, "{cold:?}");

    another(&mut test, "second");
    let warm = asked(&server, || {
        let second = job(&test, &context, &server, &both).succeeds();
        assert_eq!(second.says_nothing_of(&["warning"]).ran(), [""; 0]);
    });
    assert_eq!(test.run("app", "cat /all"), "one\ntool\nfile\n");
    // Each record once, and the layers of the result: the base's and four.
    assert!(warm.0 <= 2 * STEPS.len() + 1 && warm.1 <= 2 * STEPS.len() + 1, "{warm:?}");

    another(&mut test, "third");
    context.write("file", "changed\n");
    let third = job(&test, &context, &server, &both).succeeds();
    assert_eq!(names(&third.says_nothing_of(&["warning"]).ran()), names(&STEPS[3..]));
    assert_eq!(test.run("app", "cat /all"), "one\ntool\nchanged\n");
    test.assert_sound();
    another(&mut test, "fourth");
    assert_eq!(job(&test, &context, &server, &both).succeeds().ran(), [""; 0]);
}

#[test]
fn layers_that_github_removed_are_made_and_sent_anew() {
    let Some((mut test, context, _registry)) = machine() else { return };
    let server = FakeActions::start().unwrap();
    let both = ["-t", "app", "--cache-from", CACHE, "--cache-to", &format!("{CACHE},mode=max")];
    job(&test, &context, &server, &both).succeeds();
    server.evict("rbuild-blob-");
    another(&mut test, "second");
    let second =
        job(&test, &context, &server, &both).succeeds().says(&["were not used: they or their layers"]);
    assert_eq!(names(&second.ran()), names(&STEPS));
    another(&mut test, "third");
    let third = job(&test, &context, &server, &both).succeeds();
    assert_eq!(third.says_nothing_of(&["warning"]).ran(), [""; 0]);
    assert_eq!(test.run("app", "cat /all"), "one\ntool\nfile\n");
    test.assert_sound();
}

#[test]
fn whatever_github_answers_the_build_is_right() {
    let Some((mut test, context, _registry)) = machine() else { return };
    let later = Fault::Status(429, vec![("Retry-After", "86400".to_owned())], String::new());
    let says = |text: &str| Fault::Status(200, Vec::new(), text.to_owned());
    let (ask, create, finish) = ("/GetCacheEntry", "/CreateCacheEntry", "/FinalizeCacheEntry");
    let cases: [(&str, &str, &str, Fault); 18] = [
        ("too many questions", "POST", ask, later.clone()),
        ("too many entries", "POST", create, later),
        ("out of order", "POST", ask, status(503)),
        ("out of order to write", "POST", create, status(503)),
        ("nonsense", "POST", ask, says("<html>")),
        ("endless", "POST", ask, Fault::Endless),
        (
            "not its own",
            "POST",
            ask,
            says(r#"{"ok":true,"matched_key":"other","signed_download_url":"http://a/b/c"}"#),
        ),
        ("all names given away", "POST", create, status(409)),
        (
            "only to be read",
            "POST",
            create,
            says(r#"{"ok":false,"message":"cache write denied: read only"}"#),
        ),
        ("not finished", "POST", finish, says(r#"{"ok":false}"#)),
        ("finished, unheard", "POST", finish, Fault::LostAnswer),
        ("gone", "GET", "/account/", status(404)),
        ("of another's", "GET", "/account/", status(403)),
        ("cut", "GET", "/account/", Fault::CutAfter(10)),
        ("wrong", "GET", "/account/", Fault::WrongBytes),
        ("short", "GET", "/account/", Fault::Shorter(10)),
        ("full", "PUT", "/account/", status(507)),
        ("half of it lost", "PUT", "/account/", Fault::HalfLost),
    ];
    for (number, (name, method, path, fault)) in cases.into_iter().enumerate() {
        let server = FakeActions::start().unwrap();
        let both = ["-t", "app", "--cache-from", CACHE, "--cache-to", &format!("{CACHE},mode=max")];
        another(&mut test, &format!("first {number}"));
        job(&test, &context, &server, &both).succeeds();
        context.write("file", format!("{number}\n"));
        server.plan(method, path, usize::MAX, fault);
        another(&mut test, &format!("second {number}"));
        let limited = both.map(|word| word.replace(CACHE, &format!("{CACHE},{LIMIT}")));
        let limited = limited.each_ref().map(String::as_str);
        let built = is_right_and_says_so_once(job(&test, &context, &server, &limited), name);
        assert!(built.ran().len() >= 2, "{name}: {:?}", built.ran());
        assert_eq!(test.run("app", "cat /all"), format!("one\ntool\n{number}\n"), "{name}");
        test.assert_sound();
        // What it has all the same is whole.
        server.forgive();
        another(&mut test, &format!("third {number}"));
        let read = job(&test, &context, &server, &both).succeeds();
        assert_eq!(test.run("app", "cat /all"), format!("one\ntool\n{number}\n"), "{name}");
        assert!(!read.stderr.contains("warning"), "{name}: {}", read.stderr);
    }
}

#[test]
fn who_may_not_ask_is_told_once() {
    let Some((test, context, _registry)) = machine() else { return };
    let server = FakeActions::start().unwrap();
    let both = ["--cache-from", CACHE, "--cache-to", CACHE];
    // The same command line serves outside of GitHub.
    let outside = test.build(&context, &both).succeeds();
    let outside =
        outside.says(&["`gha:app` was not used", "`gha:app` was not written", "ACTIONS_RESULTS_URL"]);
    assert_eq!((outside.stderr.matches("warning").count(), outside.ran().len()), (2, STEPS.len()));
    server.expire();
    let late =
        job(&test, &context, &server, &["--no-cache", "--cache-from", CACHE, "--cache-to", CACHE]).succeeds();
    let late = late.says(&["was not written", "token is expired"]);
    assert!(!late.stderr.contains("the-token"), "{}", late.stderr);
    let first = test.build_command(&context, &both).env("ACTIONS_CACHE_URL", server.url("/")).outcome();
    first.exits(2).says(&["GitHub has shut off version 1"]);
    let listed = test.rbuild(&["cache", "ls", "--from", CACHE]).outcome();
    listed.exits(4).says(&["`gha:app` does not list what it has"]);
}
