//! What another machine made by other ways is found by what it was made of.

use super::{another, machine, names};

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
