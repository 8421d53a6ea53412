//! That nothing is lost, sent twice, torn or taken by halves: many builders at once, and wires that break. `scripts/cuts.sh` breaks more.

use std::collections::BTreeMap;

use rbuild_image::KeyHasher;
use rbuild_registry::testing::{FakeRegistry, S3Server, Wire};

use super::{another, machine};
use crate::common::{Context, TestEnvironment, say};
use crate::registry::Registry;

/// How many builders write at once.
const BUILDERS: usize = 32;
/// How many moments the wire breaks at; `RBUILD_TEST_CUTS` says otherwise.
const CUTS: usize = 8;

/// A step that all have, one that every fourth has, and one's own, on what another stage made.
fn overlapping(number: usize, base: &str) -> String {
    let group = number % 4;
    format!(
        "FROM {base} AS tools\nRUN echo tool >/tool\nFROM {base}\nRUN echo all >/all\nRUN echo {group} >/group\n\
         COPY --from=tools /tool /tool\nRUN echo {number} >/own\n"
    )
}

#[test]
fn of_thirty_two_builders_none_loses_anything_or_sends_it_twice() {
    let Some((mut test, _, registry)) = machine() else { return };
    let s3 = S3Server::start(&test.path("s3")).unwrap();
    let base = format!("{}/base", registry.name());
    let wires: Vec<Wire> = (0..BUILDERS).map(|_| Wire::to(&registry.name()).unwrap()).collect();
    let mut running = Vec::new();
    let mut contexts: Vec<Context> = Vec::new();
    for (number, wire) in wires.iter().enumerate() {
        let context = test.context(&format!("app {number}"), &[("Dockerfile", &overlapping(number, &base))]);
        another(&mut test, &format!("builder {number}"));
        // Each knows the registry under a name of its own, by which its requests are told apart.
        let (one, other) =
            (format!("type=registry,ref={}/cache,mode=max", wire.name()), s3.cache(&s3.name(), "team"));
        let build = test.build_command(&context, &["--cache-to", &one, "--cache-to", &(other + ",mode=max")]);
        running.push(build.start());
        contexts.push(context);
    }
    for build in running {
        build.finish().succeeds().says_nothing_of(&["warning"]);
    }
    assert_eq!(sent_twice(&registry), Vec::<String>::new());
    // One stage, one step of all, four groups with a copy each, and each one's own.
    let keys = 1 + 1 + 2 * 4 + BUILDERS;
    for from in [format!("type=registry,ref={}/cache", registry.name()), s3.cache(&s3.name(), "team")] {
        let listed = test.rbuild(&["cache", "ls", "-q", "--from", &from]).outcome().succeeds();
        assert_eq!(listed.stdout.lines().count(), keys, "{from}");
        another(&mut test, "reader");
        for (number, context) in contexts.iter().enumerate() {
            let read = test.build(context, &["-t", "app", "--cache-from", &from]).succeeds();
            assert_eq!(read.says_nothing_of(&["warning"]).ran(), [""; 0], "{from}: {number}");
        }
        test.assert_sound();
        test.set_store(test.path("reader of another"));
    }
}

/// Blobs that one builder sent more than once.
fn sent_twice(registry: &FakeRegistry) -> Vec<String> {
    let mut sent: BTreeMap<(String, String), usize> = BTreeMap::new();
    for request in registry.requests() {
        if request.method == "PUT" && request.path.contains("/cache/blobs/uploads/") {
            let (host, digest) =
                (request.header("host").unwrap().to_owned(), request.query("digest").pop().unwrap());
            *sent.entry((host, digest)).or_default() += 1;
        }
    }
    assert!(!sent.is_empty());
    sent.into_iter()
        .filter(|(_, times)| *times > 1)
        .map(|((host, digest), _)| format!("{host} {digest}"))
        .collect()
}

/// Layers of some size that say what they hold, so that one that is not whole shows.
fn large(test: &TestEnvironment, registry: &FakeRegistry) -> Context {
    let base = format!("{}/base", registry.name());
    let step =
        |name: &str| format!("RUN head -c 2000000 /dev/urandom >/{name} && sha256sum /{name} >/{name}.sum\n");
    let context = test.context("large", &[("own", "one\n")]);
    context.dockerfile(&format!(
        "FROM {base}\n{}{}COPY own /own\nRUN cat /own >/last\n",
        step("one"),
        step("two")
    ));
    context
}

const CHECK: &str = "sha256sum -c /one.sum /two.sum >/dev/null && cat /last";

#[test]
fn a_cached_push_from_a_fresh_machine_moves_no_layer() {
    let Some((mut test, _, base)) = machine() else { return };
    let Some(registry) = Registry::start(&test) else { return };
    let context = large(&test, &base);
    let wire = Wire::to(&registry.host).unwrap();
    let (cache, name) =
        (format!("type=registry,ref={}/cache", wire.name()), format!("{}/app:1", wire.name()));
    test.build(&context, &["-t", &name, "--push", "--cache-to", &format!("{cache},mode=max")]).succeeds();
    assert!(wire.moved().up_bytes > 4_000_000, "{:?}", wire.moved());
    for (number, name) in [name.clone(), format!("{}/other:1", wire.name())].iter().enumerate() {
        another(&mut test, &format!("fresh {number}"));
        let before = wire.moved();
        test.build(&context, &["-t", name, "--push", "--cache-from", &cache]).succeeds();
        let moved = wire.moved().since(before);
        say(&format!("a cached push to {name}: {moved:?}"));
        assert!(moved.up_bytes + moved.down_bytes < 100_000, "{name}: {moved:?}");
    }
    another(&mut test, "reader");
    test.rbuild(&["pull", "-q", &name]).outcome().succeeds();
    assert_eq!(test.run(&name, CHECK), "one\n");
}

/// The next number of a sequence that looks like chance, and is the same each time.
fn chance(seed: usize, below: u64) -> u64 {
    let mut hasher = KeyHasher::new("rbuild.test.chance");
    hasher.number(seed as u64);
    u64::from_le_bytes(hasher.finish()[..8].try_into().unwrap()) % below
}

#[test]
fn whatever_breaks_the_build_is_right() {
    let Some((mut test, _, base)) = machine() else { return };
    let Some(mut registry) = Registry::start(&test) else { return };
    let context = large(&test, &base);
    let wire = Wire::to(&registry.host).unwrap();
    let cache = format!("type=registry,ref={}/cache", wire.name());
    let both = ["-t", "app", "--cache-from", &cache, "--cache-to", &format!("{cache},mode=max")];
    test.build(&context, &both).succeeds();
    let whole = wire.moved();
    let whole_bytes = whole.up_bytes + whole.down_bytes;
    #[expect(clippy::disallowed_methods, reason = "the switch with which `scripts/cuts.sh` breaks more")]
    let cuts = std::env::var("RBUILD_TEST_CUTS").map_or(CUTS, |count| count.parse().unwrap());
    let mut reused = 0;
    for cut in 0..cuts {
        another(&mut test, &format!("machine {cut}"));
        let own = format!("{}\n", cut / 2);
        context.write("own", &own);
        let (after_bytes, refusals) = (chance(2 * cut, whole_bytes), chance(2 * cut + 1, 12) as usize);
        wire.set_slow(cut % 3 == 0);
        wire.break_after(after_bytes, refusals);
        let build = test.build_command(&context, &both).start();
        if cut % 4 == 3 {
            drop(registry);
            registry = Registry::start(&test).unwrap();
            wire.lead_to(&registry.host);
        }
        let built = build.finish().succeeds();
        assert_eq!(
            test.run("app", CHECK),
            own,
            "cut {cut} after {after_bytes} bytes, then {refusals} refusals"
        );
        test.assert_sound();
        reused += usize::from(built.ran().len() < 4);
        wire.mend();
    }
    // What was left there is whole.
    another(&mut test, "reader");
    let read = test.build(&context, &both).succeeds().says_nothing_of(&["warning"]);
    assert_eq!(test.run("app", CHECK), format!("{}\n", (cuts - 1) / 2));
    say(&format!("{cuts} cuts, {reused} builds found something; the last one ran {:?}", read.ran()));
}
