//! An object store that does not what it should: the build is right, says at most once of each direction what was wrong, and nothing wrong is
//! kept, here or there. The server is a real one, with something before it that spoils what it answers.

use std::time::Duration;

use rbuild_registry::testing::{FakeRegistry, Fault, FaultyS3, S3Server};

use super::hostile::{LIMIT, is_right_and_says_so_once, status};
use super::{STEPS, another, machine};
use crate::common::{Context, TestEnvironment};

/// What is not XML, or none that is expected.
fn nonsense(code: u16) -> Fault {
    Fault::Status(code, vec![("Content-Type", "application/xml".to_owned())], "<Error><Code>".repeat(2000))
}

fn slow_down() -> Fault {
    let body = "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
    Fault::Status(503, Vec::new(), body.to_owned())
}

/// What any answer can be.
fn answers() -> Vec<(&'static str, Fault)> {
    let redirect = |to: &str| Fault::Redirect(to.to_owned());
    vec![
        ("an error", status(500)),
        ("slow down", slow_down()),
        ("a refusal", status(403)),
        ("nonsense", nonsense(400)),
        ("an error that is none", nonsense(200)),
        ("from a file", redirect("file:///etc/passwd")),
        ("from the link", redirect("http://169.254.169.254/latest/meta-data")),
        ("in a circle", redirect("/cache/team/blobs/sha256/x/records/x")),
        ("silence", Fault::Silence),
    ]
}

/// What an object can come as.
fn bodies() -> Vec<(&'static str, Fault)> {
    vec![
        ("of another length", Fault::Shorter(10)),
        ("cut", Fault::CutAfter(10)),
        ("of another digest", Fault::WrongBytes),
        ("endless", Fault::Endless),
        ("a drip", Fault::Drip(Duration::from_millis(20))),
        ("not there", status(404)),
    ]
}

/// A machine that wrote to the cache, and what spoils it for the others.
struct World {
    test: TestEnvironment,
    context: Context,
    faulty: FaultyS3,
    cache: String,
    _servers: (S3Server, FakeRegistry),
}

impl World {
    fn new() -> Option<Self> {
        let (test, context, registry) = machine()?;
        let server = S3Server::start(&test.path("s3")).unwrap();
        let faulty = FaultyS3::before(&server).unwrap();
        let cache = server.cache(&faulty.name(), "team");
        Some(Self { test, context, faulty, cache, _servers: (server, registry) })
    }

    fn is_as_it_should_be(&mut self, name: &str) {
        assert_eq!(self.test.run("app", "cat /all"), "one\ntool\nfile\n", "{name}");
        self.test.assert_sound();
    }
}

#[test]
fn what_an_object_store_answers_is_right_or_is_not_used() {
    let Some(mut world) = World::new() else { return };
    let to = format!("{},mode=max", world.cache);
    world.test.build(&world.context, &["--cache-to", &to]).succeeds().says_nothing_of(&["warning"]);
    let faults = || answers().into_iter().chain(bodies());
    let cases =
        ["/records/", "/blobs/"].into_iter().flat_map(|path| faults().map(move |fault| (path, fault)));
    for (number, (path, (name, fault))) in cases.enumerate() {
        let name = format!("{path}: {name}");
        world.faulty.forgive();
        world.faulty.plan("GET", path, usize::MAX, fault);
        another(&mut world.test, &format!("reader {number}"));
        let from = format!("{},{LIMIT}", world.cache);
        let built = world.test.build(&world.context, &["-t", "app", "--cache-from", &from]);
        let built = is_right_and_says_so_once(built, &name);
        assert!(!built.ran().is_empty(), "{name}: something was taken");
        world.is_as_it_should_be(&name);
    }
    world.faulty.forgive();
    // What passes is waited for.
    for (number, fault) in [status(500), slow_down(), Fault::CutAfter(10)].into_iter().enumerate() {
        world.faulty.plan("GET", "/blobs/", 2, fault);
        another(&mut world.test, &format!("patient {number}"));
        let patient =
            world.test.build(&world.context, &["-t", "app", "--cache-from", &world.cache]).succeeds();
        assert_eq!(patient.says_nothing_of(&["warning"]).ran(), [""; 0]);
    }
}

/// Builds into a cache of which requests like this fail, and from it.
fn does_not_take(cases: impl Iterator<Item = (&'static str, &'static str, (&'static str, Fault))>) {
    let Some(mut world) = World::new() else { return };
    for (number, (method, path, (name, fault))) in cases.enumerate() {
        let name = format!("{method} {path}: {name}");
        world.faulty.forgive();
        world.faulty.plan(method, path, usize::MAX, fault);
        let cache = world.cache.replace("prefix=team", &format!("prefix=team{number}"));
        another(&mut world.test, &format!("writer {number}"));
        let limited = format!("{cache},{LIMIT}");
        let line = ["-t", "app", "--cache-from", &limited, "--cache-to", &format!("{limited},mode=max")];
        let built = is_right_and_says_so_once(world.test.build(&world.context, &line), &name);
        assert_eq!(built.ran().len(), STEPS.len(), "{name}");
        world.is_as_it_should_be(&name);
        // What it has all the same is whole, or is seen not to be.
        world.faulty.forgive();
        another(&mut world.test, &format!("reader {number}"));
        let read = world.test.build(&world.context, &["-t", "app", "--cache-from", &cache]);
        is_right_and_says_so_once(read, &name);
        world.is_as_it_should_be(&name);
    }
}

#[test]
fn layers_that_an_object_store_does_not_take_are_not_in_it() {
    let lost = [("answer lost", Fault::LostAnswer), ("half lost", Fault::HalfLost)];
    does_not_take(answers().into_iter().chain(lost).map(|fault| ("PUT", "/blobs/", fault)));
}

#[test]
fn records_that_an_object_store_does_not_take_are_not_in_it() {
    let lost = [("answer lost", Fault::LostAnswer), ("half lost", Fault::HalfLost)];
    does_not_take(answers().into_iter().chain(lost).map(|fault| ("PUT", "/records/", fault)));
}

#[test]
fn an_object_store_that_does_not_say_what_it_has_is_given_nothing_wrong() {
    does_not_take(answers().into_iter().step_by(2).map(|fault| ("HEAD", "/blobs/", fault)));
}
