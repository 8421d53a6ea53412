//! Cache mounts that travel with a shared cache.

use rbuild_registry::testing::{S3Server, Wire};

use super::{another, machine};

/// Some 12 MB that do not shrink, in files of which `number` is one.
fn dockerfile(base: &str, number: usize) -> String {
    format!(
        "FROM {base}\nARG STEP\nRUN --mount=type=cache,id=pip,target=/c \
         ls /c >/seen; for n in 1 2 3 4 5 6; do test -e /c/$n || head -c 2000000 /dev/urandom >/c/$n; done; \
         echo {number} >/c/changed; cat /c/* | sha256sum >/sum\n"
    )
}

#[test]
fn a_changed_cache_mount_costs_its_difference() {
    let Some((mut test, context, base)) = machine() else { return };
    let s3 = S3Server::start(&test.path("s3")).unwrap();
    let base = format!("{}/base", base.name());
    let wire = Wire::to(&s3.name()).unwrap();
    let cache = s3.cache(&wire.name(), "team") + ",mounts=pip";
    let mut seen = String::new();
    for (number, least, most) in [(0, 12_000_000, 20_000_000), (1, 100, 3_000_000)] {
        context.dockerfile(&dockerfile(&base, number));
        let before = wire.moved();
        test.build(&context, &["-t", "app", "--cache-from", &cache, "--cache-to", &cache]).succeeds();
        let up_bytes = wire.moved().since(before).up_bytes;
        assert!((least..most).contains(&up_bytes), "build {number} sent {up_bytes}");
        seen = test.run("app", "cat /sum");
    }
    // A fresh machine has what the last one left.
    another(&mut test, "fresh");
    context.dockerfile(&dockerfile(&base, 1).replace("ls /c", "ls -l /c"));
    test.build(&context, &["-t", "app", "--cache-from", &cache]).succeeds().says_nothing_of(&["warning"]);
    assert_eq!(test.run("app", "cat /sum"), seen);
    assert!(test.run("app", "cat /seen").contains("changed"));
    // What a machine has itself stays as it is.
    context.dockerfile(&dockerfile(&base, 2));
    test.build(&context, &["-t", "app", "--cache-from", &cache]).succeeds();
    assert_ne!(test.run("app", "cat /sum"), seen);
    let listed =
        test.rbuild(&["cache", "ls", "--from", &s3.cache(&wire.name(), "team")]).outcome().succeeds();
    assert!(listed.stdout.lines().any(|line| line.ends_with("pip")), "{}", listed.stdout);
}

#[test]
fn a_cache_mount_that_is_not_whole_is_not_there() {
    let Some((mut test, context, base)) = machine() else { return };
    let base = format!("{}/base", base.name());
    let directory = test.path("cache");
    let word = |key: &str| format!("type=local,{key}={},mounts=pip;nosuch", directory.display());
    context.dockerfile(&dockerfile(&base, 0));
    let built = test.build(&context, &["--cache-to", &word("dest")]).succeeds();
    built.says(&["the cache mount `nosuch`", "was not written: no cache mount `nosuch`"]);
    for blob in std::fs::read_dir(directory.join("blobs/sha256")).unwrap() {
        let blob = blob.unwrap().path();
        if std::fs::metadata(&blob).unwrap().len() > 100_000 {
            std::fs::remove_file(blob).unwrap();
        }
    }
    another(&mut test, "fresh");
    context.dockerfile(&dockerfile(&base, 0).replace("ls /c", "ls -l /c"));
    let built = test.build(&context, &["-t", "app", "--cache-from", &word("src")]).succeeds();
    built.says(&["warning: the cache mount `pip` was not taken from a shared cache"]);
    assert!(!test.run("app", "cat /seen").contains("changed"));
    test.assert_sound();
}
