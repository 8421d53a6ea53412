//! Builds on several machines that share what they made: each machine a store of its own, the shared cache in a registry, a
//! directory or an object store.

mod azure;
mod content;
mod faulty_store;
mod github;
mod guarded;
mod hostile;
mod mounts;
mod proof;
mod trust;
mod upkeep;

use std::fs;
use std::path::{Path, PathBuf};

use rbuild_registry::testing::{FakeRegistry, Fault, S3Server};

use self::azure::Azurite;
use crate::common::{Context, TestEnvironment};
use crate::registry::Registry;

const DOCKERFILE: &str = "FROM busybox AS tools\nRUN echo tool >/tool\nFROM busybox\nRUN echo one >/one\n\
                          COPY --from=tools /tool /tool\nCOPY file /file\nRUN cat /one /tool /file >/all\n";
const STEPS: [&str; 5] = [
    "RUN echo tool >/tool",
    "RUN echo one >/one",
    "COPY --from=tools /tool /tool",
    "COPY file /file",
    "RUN cat /one /tool /file >/all",
];

/// A machine, what it builds, and a registry that has the base image.
fn machine() -> Option<(TestEnvironment, Context, FakeRegistry)> {
    let (mut test, registry) = (TestEnvironment::with_base()?, FakeRegistry::start().unwrap());
    let base = format!("{}/base", registry.name());
    test.rbuild(&["tag", "busybox", &base]).outcome().succeeds();
    test.rbuild(&["push", &base]).outcome().succeeds();
    // The registry has it under another digest than the store that it comes from.
    another(&mut test, "first");
    let context = app(&test, "app", &registry, "file\n");
    Some((test, context, registry))
}

fn app(test: &TestEnvironment, name: &str, registry: &FakeRegistry, file: &str) -> Context {
    let context = test.context(name, &[("file", file)]);
    context.dockerfile(&DOCKERFILE.replace("busybox", &format!("{}/base", registry.name())));
    context
}

/// A machine that has nothing yet.
fn another(test: &mut TestEnvironment, name: &str) {
    test.set_store(test.path(name));
}

/// The servers of one test, and the shared caches that they, and a directory, keep.
struct Caches {
    registry: Registry,
    s3: S3Server,
    azure: Azurite,
    directory: String,
}

impl Caches {
    fn start(test: &TestEnvironment) -> Option<Self> {
        let directory = test.path("cache").to_str().unwrap().to_owned();
        let s3 = S3Server::start(&test.path("s3")).unwrap();
        Some(Self { registry: Registry::start(test)?, s3, azure: Azurite::start(test)?, directory })
    }

    /// Each as `--cache-to` and as `--cache-from` take it.
    fn words(&self) -> [(String, String); 4] {
        let same = |word: String| (word.clone(), word);
        [
            same(format!("type=registry,ref={}", self.registry.name("cache"))),
            same(self.s3.cache(&self.s3.name(), "team")),
            same(self.azure.cache()),
            (format!("type=local,dest={}", self.directory), format!("type=local,src={}", self.directory)),
        ]
    }
}

/// The documents of a directory whose names begin so.
fn records(directory: &Path, prefix: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(directory.join("records")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|file| file.file_name().unwrap().to_str().unwrap().starts_with(prefix)).collect()
}

fn names(steps: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = steps.iter().map(|name| (*name).to_owned()).collect();
    names.sort();
    names
}

#[test]
fn what_one_machine_built_the_next_does_not_build() {
    let Some((mut test, context, registry)) = machine() else { return };
    let cache = format!("type=registry,ref={}/cache", registry.name());
    let to = format!("{cache},mode=max");
    let first = test.build(&context, &["-t", "app", "--cache-to", &to]).succeeds();
    assert_eq!(names(&first.ran()), names(&STEPS));
    let id = test.image_id("app");

    another(&mut test, "second");
    let second = test.build(&context, &["-t", "app", "--cache-from", &cache]).succeeds();
    assert_eq!(second.ran(), [""; 0]);
    assert_eq!(test.run("app", "cat /all"), "one\ntool\nfile\n");
    assert_eq!(test.image_id("app"), id);
    // What was fetched is this machine's own from then on.
    drop(registry);
    assert_eq!(test.build(&context, &["-t", "again"]).succeeds().ran(), [""; 0]);
    assert_eq!(test.image_id("again"), id);
    test.assert_sound();
}

#[test]
fn a_changed_step_runs_on_what_is_fetched() {
    let Some((mut test, context, registry)) = machine() else { return };
    let cache = format!("type=registry,ref={}/cache", registry.name());
    test.build(&context, &["--cache-to", &format!("{cache},mode=max")]).succeeds();
    another(&mut test, "second");
    context.write("file", "changed\n");
    let changed = test.build(&context, &["-t", "app", "--cache-from", &cache, "--cache-to", &cache]);
    let changed = changed.succeeds();
    assert_eq!(names(&changed.ran()), names(&STEPS[3..]));
    assert_eq!(test.run("app", "cat /all"), "one\ntool\nchanged\n");
    test.assert_sound();
    another(&mut test, "third");
    let third = test.build(&context, &["-t", "app", "--cache-from", &cache]).succeeds();
    assert_eq!(third.ran(), [""; 0]);
}

#[test]
fn a_result_that_is_only_pushed_does_not_pass_through() {
    let Some((mut test, context, registry)) = machine() else { return };
    let cache = format!("type=registry,ref={}/cache", registry.name());
    let name = format!("{}/app:1", registry.name());
    test.build(&context, &["-t", &name, "--push", "--cache-to", &format!("{cache},mode=max")]).succeeds();
    let pushed = registry.count("PATCH", "/uploads/");

    another(&mut test, "second");
    let elsewhere = format!("{}/copy:1", registry.name());
    let before = (registry.count("GET", "/blobs/sha256"), registry.count("PUT", "/uploads/"));
    test.build(&context, &["-t", &elsewhere, "--push", "--cache-from", &cache]).succeeds();
    assert_eq!(registry.count("PATCH", "/uploads/"), pushed, "no layer is sent");
    assert_eq!(
        registry.count("GET", "/blobs/sha256"),
        before.0 + 1,
        "nothing is fetched but the base's config"
    );
    assert_eq!(registry.count("PUT", "/uploads/"), before.1 + 1, "only the config is");
    // The image is the store's by name; its layers come when they are needed.
    assert_eq!(test.run(&elsewhere, "cat /all"), "one\ntool\nfile\n");
    test.assert_sound();
}

#[test]
fn registries_object_stores_and_directories_are_shared_caches() {
    let Some((mut test, context, _base)) = machine() else { return };
    let Some(caches) = Caches::start(&test) else { return };
    for (number, (to, from)) in caches.words().iter().enumerate() {
        context.write("file", "file\n");
        another(&mut test, &format!("first {number}"));
        let first = test.build(&context, &["-t", "app", "--cache-to", to]).succeeds();
        assert_eq!(names(&first.ran()), names(&STEPS), "{to}");
        first.says_nothing_of(&["was not written"]);
        another(&mut test, &format!("second {number}"));
        let second = test.build(&context, &["-t", "app", "--cache-from", from]).succeeds();
        // Of the other stage, nothing is kept, and nothing is needed.
        assert_eq!(second.ran(), [""; 0], "{from}");
        context.write("file", "changed\n");
        another(&mut test, &format!("third {number}"));
        let third = test.build(&context, &["-t", "app", "--cache-from", from]).succeeds();
        assert_eq!(names(&third.ran()), names(&STEPS[3..]), "{from}");
        assert_eq!(test.run("app", "cat /all"), "one\ntool\nchanged\n");
        test.assert_sound();
    }
}

#[test]
fn a_shared_cache_that_fails_costs_time_and_nothing_else() {
    let status = |status| Fault::Status(status, Vec::new(), String::new());
    // The first step's layer is so short that nothing is missing of it.
    let faults: [(&str, &str, Fault, &[&str]); 5] = [
        ("refused", "/cache/manifests/", status(403), &STEPS),
        ("nonsense", "/cache/manifests/", Fault::WrongBytes, &STEPS),
        ("layers gone", "/cache/blobs/", status(404), &STEPS),
        ("layers wrong", "/cache/blobs/", Fault::WrongBytes, &STEPS),
        ("layers short", "/cache/blobs/", Fault::Shorter(100), &STEPS[1..]),
    ];
    for (name, path, fault, ran) in faults {
        let Some((mut test, context, registry)) = machine() else { return };
        let cache = format!("type=registry,ref={}/cache", registry.name());
        test.build(&context, &["--cache-to", &format!("{cache},mode=max")]).succeeds();
        registry.plan("GET", path, usize::MAX, fault);
        another(&mut test, "second");
        let built = test.build(&context, &["-t", "app", "--cache-from", &cache]).succeeds();
        assert_eq!(names(&built.ran()), names(ran), "{name}");
        assert_eq!(test.run("app", "cat /all"), "one\ntool\nfile\n", "{name}");
        test.assert_sound();
    }
}

#[test]
fn a_shared_cache_that_is_not_there_is_said_once() {
    let Some((test, context, _registry)) = machine() else { return };
    let cache = "type=registry,ref=127.0.0.1:1/cache";
    let built = test.build(&context, &["-t", "app", "--cache-from", cache, "--cache-to", cache]);
    let built = built.succeeds().says(&["was not used", "was not written"]);
    assert_eq!(built.stderr.matches("was not used").count(), 1);
    assert_eq!(names(&built.ran()), names(&STEPS));
    let quiet = format!("{cache},ignore-error=true");
    test.build(&context, &["--cache-to", &quiet]).succeeds().says_nothing_of(&["was not written"]);
    test.build(&context, &["--cache-to", "type=tape"]).exits(2).says(&["unknown cache type `tape`"]);
}

#[test]
fn an_image_is_a_shared_cache_of_its_own_steps() {
    let Some((mut test, context, registry)) = machine() else { return };
    let name = format!("{}/app:1", registry.name());
    test.build(&context, &["-t", &name, "--push", "--cache-to", "type=inline"]).succeeds();
    another(&mut test, "second");
    let second = test.build(&context, &["-t", "app", "--cache-from", &name]).succeeds();
    assert_eq!(second.says_nothing_of(&["warning"]).ran(), [""; 0]);
    assert_eq!(test.run("app", "cat /all"), "one\ntool\nfile\n");
    another(&mut test, "third");
    context.write("file", "changed\n");
    let third = test.build(&context, &["-t", "app", "--cache-from", &name]).succeeds();
    // The other stage is not in the image, and nothing is needed of it.
    assert_eq!(names(&third.ran()), names(&STEPS[3..]));
    test.assert_sound();
    test.build(&context, &["--cache-from", "type=inline"]).exits(2).says(&["type=registry,ref=IMAGE"]);
}

#[test]
fn what_was_found_in_one_cache_goes_to_the_other() {
    let Some((mut test, context, registry)) = machine() else { return };
    let from = format!("type=registry,ref={}/cache", registry.name());
    test.build(&context, &["--cache-to", &format!("{from},mode=max")]).succeeds();
    another(&mut test, "between");
    // Of the other stage, nothing is in the result.
    for (mode, count) in [("min", STEPS.len() - 1), ("max", STEPS.len())] {
        let to = format!("type=local,dest={},mode={mode}", test.path(mode).display());
        let between = test.build(&context, &["--cache-from", &from, "--cache-to", &to]).succeeds();
        assert_eq!(between.says_nothing_of(&["warning"]).ran(), [""; 0]);
        assert_eq!(records(&test.path(mode), "key-").len(), count, "{mode}");
    }
    context.write("file", "changed\n");
    another(&mut test, "second");
    let from = format!("type=local,src={}", test.path("max").display());
    let second = test.build(&context, &["-t", "app", "--cache-from", &from]).succeeds();
    assert_eq!(names(&second.ran()), names(&STEPS[3..]));
    assert_eq!(test.run("app", "cat /all"), "one\ntool\nchanged\n");
    test.assert_sound();
}

#[test]
fn many_builds_write_at_once() {
    let Some((mut test, _, registry)) = machine() else { return };
    let directory = test.path("cache");
    let to = format!("type=local,dest={},mode=max", directory.display());
    let contexts: Vec<Context> = (0..6)
        .map(|number| app(&test, &format!("app {number}"), &registry, &format!("{number}\n")))
        .collect();
    let mut running = Vec::new();
    for (number, context) in contexts.iter().enumerate() {
        another(&mut test, &format!("writer {number}"));
        running.push(test.build_command(context, &["--cache-to", &to]).start());
    }
    for build in running {
        build.finish().succeeds();
    }
    let from = format!("type=local,src={}", directory.display());
    another(&mut test, "reader");
    for context in &contexts {
        assert_eq!(test.build(context, &["--cache-from", &from]).succeeds().ran(), [""; 0]);
    }
    // The steps that all have, and two of each one's own.
    assert_eq!(records(&directory, "key-").len(), 3 + 6 * 2);
    test.assert_sound();
}
