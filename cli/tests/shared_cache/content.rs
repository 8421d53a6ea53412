//! What another machine made by other ways is found by what it was made of.

use super::{another, machine, names};
use crate::common::TestEnvironment;

/// `made` gives the same whatever `noise` is; the last two steps depend on it alone.
fn dockerfile(base: &str, noise: &str) -> String {
    format!(
        "FROM {base} AS made\nRUN : {noise} && echo same >/made\nFROM {base}\nCOPY --from=made /made /made\nRUN cat /made >/result\n"
    )
}

#[test]
fn a_step_is_found_though_its_input_was_made_anew() {
    let Some((mut test, context, registry)) = machine() else { return };
    let base = format!("{}/base", registry.name());
    let cache = format!("type=registry,ref={}/cache", registry.name());
    context.dockerfile(&dockerfile(&base, "one"));
    test.build(&context, &["-t", "app", "--cache-to", &format!("{cache},mode=max")]).succeeds();
    let id = test.image_id("app");

    another(&mut test, "second");
    context.dockerfile(&dockerfile(&base, "two"));
    let second =
        test.build(&context, &["-t", "app", "--cache-from", &cache, "--cache-to", &cache]).succeeds();
    assert_eq!(names(&second.ran()), ["RUN : two && echo same >/made"]);
    assert_eq!(test.run("app", "cat /result"), "same\n");
    test.assert_sound();
    // It is this machine's own from then on, and the cache's under its new key.
    assert_eq!(test.build(&context, &["-t", "again"]).succeeds().ran(), [""; 0]);
    another(&mut test, "third");
    let third = test.build(&context, &["-t", "app", "--cache-from", &cache]).succeeds();
    assert_eq!(third.ran(), [""; 0]);
    assert_ne!(id, "");

    // What comes out otherwise is made.
    another(&mut test, "fourth");
    context.dockerfile(&dockerfile(&base, "three").replace("same", "other"));
    let fourth = test.build(&context, &["-t", "app", "--cache-from", &cache]).succeeds();
    assert_eq!(fourth.ran().len(), 3);
    assert_eq!(test.run("app", "cat /result"), "other\n");
}

/// The step below has left something else than on the other machine, which no content digest tells; the layer above is in parts there.
#[test]
fn what_is_found_elsewhere_is_laid_on_what_was_made_here() {
    let Some((mut test, context, registry)) = machine() else { return };
    let cache = format!("type=registry,ref={}/cache", registry.name());
    for file in 0..20 {
        context.write(&format!("much/{file}"), format!("{file}").repeat(4000));
    }
    let dockerfile = |time: u32| {
        let base = format!("{}/base", registry.name());
        format!("FROM {base}\nRUN touch -d @{time} /file\nCOPY much /much\n")
    };
    let build = |test: &TestEnvironment, time: u32, options: &[&str]| {
        context.dockerfile(&dockerfile(time));
        let command = test.build_command(&context, &[&["-t", "app"], options].concat());
        let built = command.env("RBUILD_PART_SIZE", "16k").outcome().succeeds();
        (built, test.run("app", "stat -c %Y /file; cat /much/* | md5sum; stat -c '%n %Y' /much/*"))
    };
    let (_, first) = build(&test, 1, &["--cache-to", &format!("{cache},mode=max")]);

    another(&mut test, "second");
    let (built, second) = build(&test, 2, &["--cache-from", &cache]);
    assert_eq!(names(&built.ran()), ["RUN touch -d @2 /file"]);
    assert_eq!(second, format!("2{}", first.strip_prefix('1').unwrap()));
    assert_eq!(build(&test, 2, &[]).0.ran(), [""; 0]);
    // What came in parts is one step's here as well.
    let (built, third) = build(&test, 3, &[]);
    assert_eq!(names(&built.ran()), ["RUN touch -d @3 /file"]);
    assert_eq!(third, format!("3{}", first.strip_prefix('1').unwrap()));
    test.assert_sound();
}

#[test]
fn nobody_asks_for_what_cannot_be_there() {
    let Some((mut test, context, registry)) = machine() else { return };
    let base = format!("{}/base", registry.name());
    let cache = format!("type=registry,ref={}/cache", registry.name());
    context.dockerfile(&dockerfile(&base, "one"));
    test.build(&context, &["--cache-from", &cache]).succeeds();
    // One question for each step, and one for each op that is given what a step made.
    assert_eq!(registry.count("GET", "/cache/manifests/key-"), 3);
    assert_eq!(registry.count("GET", "/cache/manifests/op-"), 2);
    assert_eq!(registry.count("GET", "/cache/manifests/content-"), 0);
    another(&mut test, "second");
    test.build(&context, &["--cache-to", &format!("{cache},mode=max")]).succeeds();
    assert_eq!(registry.count("PUT", "/cache/manifests/content-"), 2, "of what depends on steps");
}
