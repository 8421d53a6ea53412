//! `rbuild cache`, and what a cache forgets.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{Caches, STEPS, another, machine, names, records};
use crate::common::TestEnvironment;

const DAY: i64 = 24 * 60 * 60;

/// Sets the day on which records of a directory were last used, and when its blobs were written.
fn age(directory: &Path, used: i64) {
    for file in records(directory, "key-") {
        let mut document: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        document["annotations"]["dev.rbuild.cache.used"] = used.to_string().into();
        fs::write(file, serde_json::to_vec(&document).unwrap()).unwrap();
    }
    for blob in fs::read_dir(directory.join("blobs/sha256")).unwrap() {
        let file = fs::File::options().write(true).open(blob.unwrap().path()).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(used as u64)).unwrap();
    }
}

fn blobs(directory: &Path) -> usize {
    fs::read_dir(directory.join("blobs/sha256")).unwrap().count()
}

#[track_caller]
fn cache(test: &TestEnvironment, arguments: &[&str]) -> String {
    test.rbuild(&["cache"]).args(arguments).outcome().succeeds().stdout
}

/// How a cache in a directory is written to, and read.
fn in_directory(directory: &Path) -> (String, String) {
    let directory = directory.display();
    (format!("type=local,dest={directory},mode=max"), format!("type=local,src={directory}"))
}

#[test]
fn records_are_listed_inspected_and_removed() {
    let Some((mut test, context, _base)) = machine() else { return };
    let Some(caches) = Caches::start(&test) else { return };
    for (number, (to, from)) in caches.words().iter().enumerate() {
        another(&mut test, &format!("first {number}"));
        test.build(&context, &["--cache-to", &format!("{to},mode=max")]).succeeds();
        let listed = cache(&test, &["ls", "--from", from]);
        for step in STEPS {
            assert!(listed.contains(step), "{from}: {listed}");
        }
        assert_eq!(listed.matches("today").count(), STEPS.len(), "{from}: {listed}");
        let keys = cache(&test, &["ls", "-q", "--from", from]);
        let keys: Vec<&str> = keys.lines().collect();
        let inspected: Vec<Value> =
            serde_json::from_str(&cache(&test, &["inspect", "--from", from, keys[0]])).unwrap();
        assert_eq!((inspected.len(), inspected[0]["Key"].as_str()), (1, Some(keys[0])));
        assert!(STEPS.iter().any(|step| inspected[0]["Step"].as_str().unwrap().ends_with(step)));
        test.rbuild(&["cache", "inspect", "--from", from, "nosuch"])
            .outcome()
            .exits(2)
            .says(&["no record `nosuch`"]);

        let nothing = cache(&test, &["prune", "--force", "--filter", "until=1d", "--from", from]);
        assert!(nothing.starts_with("Removed: 0 records, 0 blobs"), "{from}: {nothing}");
        test.rbuild(&["cache", "prune", "--all", "--from", from])
            .outcome()
            .exits(2)
            .says(&["nobody can be asked"]);
        let said = cache(&test, &["prune", "--all", "--dry-run", "--from", from]);
        assert!(said.contains("Would remove: 5 records"), "{from}: {said}");
        assert_eq!(cache(&test, &["ls", "-q", "--from", from]).lines().count(), STEPS.len());
        let said = cache(&test, &["prune", "--all", "--force", "--grace", "0s", "--from", from]);
        assert!(said.contains("Removed: 5 records"), "{from}: {said}");
        assert_eq!(cache(&test, &["ls", "-q", "--from", from]), "");
        another(&mut test, &format!("second {number}"));
        let built = test.build(&context, &["--cache-from", from]).succeeds();
        assert_eq!(names(&built.ran()), names(&STEPS), "{from}");
    }
}

#[test]
fn what_nobody_uses_goes_with_its_layers() {
    let Some((mut test, context, _registry)) = machine() else { return };
    let directory = test.path("cache");
    let (to, from) = in_directory(&directory);
    test.build(&context, &["--cache-to", &to]).succeeds();
    let all = blobs(&directory);
    age(&directory, 10 * DAY);
    // Another machine uses all but what it changes; one that only reads leaves no trace.
    another(&mut test, "second");
    test.build(&context, &["--cache-from", &from]).succeeds();
    let unused = ["prune", "--dry-run", "--filter", "unused-for=30d", "--from", &from];
    assert!(cache(&test, &unused).contains("Would remove: 5 records"));
    context.write("file", "changed\n");
    test.build(&context, &["--cache-from", &from, "--cache-to", &to]).succeeds();
    let said = cache(&test, &unused);
    assert!(said.contains("Would remove: 2 records"), "the two that the change made others of: {said}");
    let said = cache(&test, &["prune", "--force", "--filter", "unused-for=30d", "--from", &from]);
    assert!(said.contains("Removed: 2 records, 2 blobs"), "{said}");
    assert_eq!(
        (records(&directory, "key-").len(), blobs(&directory)),
        (5, all),
        "two layers went and two came"
    );
    another(&mut test, "third");
    assert_eq!(test.build(&context, &["--cache-from", &from]).succeeds().ran(), [""; 0]);
    test.assert_sound();
}

#[test]
fn layers_that_a_build_has_just_sent_stay() {
    let Some((test, context, _registry)) = machine() else { return };
    let directory = test.path("cache");
    test.build(&context, &["--cache-to", &format!("type=local,dest={}", directory.display())]).succeeds();
    let all = blobs(&directory);
    // As if its records were still to come.
    records(&directory, "").iter().for_each(|file| fs::remove_file(file).unwrap());
    let from = format!("type=local,src={}", directory.display());
    assert!(cache(&test, &["prune", "--force", "--from", &from]).contains("0 blobs"));
    assert_eq!(blobs(&directory), all);
    assert!(!cache(&test, &["prune", "--force", "--grace", "0s", "--from", &from]).contains(" 0 blobs"));
    assert_eq!(blobs(&directory), 0);
}

#[test]
fn a_record_without_its_layers_is_made_and_written_anew() {
    let Some((mut test, context, _registry)) = machine() else { return };
    let directory = test.path("cache");
    let (to, from) = in_directory(&directory);
    test.build(&context, &["--cache-to", &to]).succeeds();
    for blob in fs::read_dir(directory.join("blobs/sha256")).unwrap() {
        fs::remove_file(blob.unwrap().path()).unwrap();
    }
    another(&mut test, "second");
    let second = test.build(&context, &["-t", "app", "--cache-from", &from, "--cache-to", &to]).succeeds();
    assert_eq!(names(&second.says(&["were not used: they or their layers"]).ran()), names(&STEPS));
    another(&mut test, "third");
    let third = test.build(&context, &["-t", "app", "--cache-from", &from]).succeeds();
    assert_eq!(third.says_nothing_of(&["warning"]).ran(), [""; 0]);
    assert_eq!(test.run("app", "cat /all"), "one\ntool\nfile\n");
    test.assert_sound();
}
