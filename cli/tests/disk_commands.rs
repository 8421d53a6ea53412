//! What the store holds, and how it is made to forget: `du`, `prune`, `system df`, `system prune`, `image prune`, `cache-mount`, and
//! the limit that builds keep the cache to.

use std::fs;
use std::path::PathBuf;

use rbuild_registry::testing::{FakeRegistry, ServedFile};
use serde_json::Value;

use crate::common::{Outcome, TestEnvironment, tar_of};

/// The lines of a command that prints JSON.
fn lines(test: &TestEnvironment, arguments: &[&str]) -> Vec<Value> {
    let outcome = test.rbuild(arguments).outcome().succeeds();
    outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Fails unless standard output has all of these texts and none of those.
#[track_caller]
fn prints(outcome: &Outcome, texts: &[&str], others: &[&str]) {
    let found = &outcome.stdout;
    assert!(texts.iter().all(|text| found.contains(text)), "not all of {texts:?} in\n{found}");
    assert!(!others.iter().any(|text| found.contains(text)), "one of {others:?} in\n{found}");
}

fn du(test: &TestEnvironment, filter: &str) -> Vec<Value> {
    lines(test, &["du", "--format", "json", "--filter", filter])
}

fn cache_bytes(test: &TestEnvironment) -> u64 {
    let lines = lines(test, &["system", "df", "--format", "json"]);
    let cache = lines.iter().find(|line| line["Type"] == "Build Cache").unwrap();
    let shown = cache["Size"].as_str().unwrap();
    let (number, unit) = shown.split_at(shown.find(char::is_alphabetic).unwrap());
    let scale =
        [("B", 1), ("kB", 1_000), ("MB", 1_000_000)].iter().find(|(name, _)| *name == unit).unwrap().1;
    // In thousandths, as four digits are shown.
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let thousandths: u64 = format!("{whole}{part:0<3}").parse().unwrap();
    thousandths * scale / 1000
}

/// Where the files of a cache mount are.
fn mount_path(test: &TestEnvironment, name: &str) -> PathBuf {
    let found: Value = test.rbuild(&["cache-mount", "inspect", name]).outcome().succeeds().json();
    found[0]["Path"].as_str().unwrap().into()
}

#[test]
fn what_is_cached_is_listed_and_forgotten() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile(
        "FROM busybox AS other\nRUN echo 1 >/a\nFROM busybox\nCOPY --from=other /a /b\n\
         RUN --mount=type=cache,target=/c echo 1 >/c/x\n",
    );
    test.build(&context, &["-t", "app"]).succeeds();
    let steps = du(&test, "type=step");
    assert_eq!(steps.len(), 3);
    let users = |text: &str| {
        let step = steps.iter().find(|step| step["Description"].as_str().unwrap().contains(text)).unwrap();
        (step["UsedBy"].clone(), step["Reclaimable"].as_bool().unwrap())
    };
    assert_eq!(users("COPY"), (serde_json::json!(["app:latest"]), false));
    assert_eq!(users("echo 1 >/a"), (serde_json::json!([]), true));
    assert_eq!(du(&test, "type=cache-mount")[0]["Description"], "/c");
    assert!(du(&test, "until=1h").is_empty());
    let full = test.rbuild(&["du", "--verbose"]).outcome().succeeds();
    prints(&full, &["Used by:", "app:latest", "Reclaimable:"], &[]);

    test.rbuild(&["prune"]).outcome().exits(2).says(&["nobody can be asked", "--force"]);
    test.rbuild(&["prune", "-f", "--filter", "x=y"]).outcome().exits(2).says(&["invalid filter `x=y`"]);
    let planned = test.rbuild(&["prune", "--dry-run"]).outcome().succeeds();
    prints(&planned, &["echo 1 >/a", "exec.cachemount", "not in use", "Would free:"], &["COPY"]);
    assert_eq!(du(&test, "type=step").len(), 3);
    test.rbuild(&["prune", "-f", "--filter", "type=cache-mount"]).outcome().succeeds();
    assert_eq!((du(&test, "type=step").len(), du(&test, "type=cache-mount").len()), (3, 0));
    prints(&test.rbuild(&["prune", "-f"]).outcome().succeeds(), &["echo 1 >/a", "Total:"], &[]);
    // What the image needs stays, and is found again.
    assert_eq!(test.build(&context, &[]).succeeds().ran(), ["[other 2/2] RUN echo 1 >/a"; 0]);
    test.rbuild(&["prune", "-af"]).outcome().succeeds();
    assert!(du(&test, "type=step").is_empty());
    assert_eq!(test.run("app", "cat /b"), "1\n");
    assert_eq!(test.build(&context, &[]).succeeds().ran().len(), 3);
    test.assert_sound();
}

#[test]
fn what_a_running_build_uses_is_not_removed() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let wait =
        "touch /c/begun; n=0; until [ -e /c/go ] || [ $n = 600 ]; do sleep 0.1; n=$((n+1)); done; cat /a";
    let context = test.dockerfile(&format!(
        "FROM busybox\nRUN echo kept >/a\nRUN --mount=type=cache,target=/c echo waiting && {wait} >/b\n"
    ));
    let mut build = test.build_command(&context, &["-t", "app"]).start();
    build.wait_for(" waiting\n");
    let path = mount_path(&test, "/c");
    let pruned = test.rbuild(&["prune", "-af"]).outcome().succeeds();
    prints(&pruned, &["Total:"], &["echo kept", "exec.cachemount"]);
    test.rbuild(&["cache-mount", "rm", "/c"]).outcome().exits(3).says(&["is in use"]);
    test.rbuild(&["system", "prune", "-af"]).outcome().succeeds();
    fs::write(path.join("go"), "").unwrap();
    build.finish().succeeds();
    assert_eq!(test.run("app", "cat /b"), "kept\n");
    test.assert_sound();
    test.rbuild(&["cache-mount", "rm", "/c"]).outcome().succeeds();
}

#[test]
fn what_a_context_from_elsewhere_was_needed_for_goes_if_it_is_too_much() {
    let content = tar_of(&[("Dockerfile", "FROM scratch\nCOPY x /\n"), ("x", &"x".repeat(1 << 20))]);
    let web = FakeRegistry::start().unwrap();
    web.add_file("context.tar", ServedFile { content: content.clone(), ..ServedFile::default() });
    for (context, stdin) in [("-", content), (&*web.url("/files/context.tar"), Vec::new())] {
        let test = TestEnvironment::new();
        let outcome = test.rbuild(&["build", "--cache-size", "100kb", context]).stdin(stdin).outcome();
        outcome.succeeds().says(&["warning: the cache took"]);
        assert!(cache_bytes(&test) <= 100 << 10, "{context}: {}", cache_bytes(&test));
    }
}

#[test]
fn builds_keep_the_cache_to_its_size() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let limit = 4 << 20;
    let build = |number: u32, size: &str| {
        let context =
            test.dockerfile(&format!("FROM busybox\nRUN head -c 1m /dev/zero >/x && echo {number}\n"));
        test.build(&context, &["--cache-size", size])
    };
    for number in 0..8 {
        assert_eq!(build(number, "4mb").succeeds().says_nothing_of(&["warning"]).ran().len(), 1);
        assert!(cache_bytes(&test) <= limit, "{number}: {}", cache_bytes(&test));
        assert!(build(number, "4mb").succeeds().ran().is_empty(), "the latest stays: {number}");
    }
    assert_eq!(du(&test, "type=step").len(), 3, "and as many as there is room for");
    // What one build needs may be too much.
    build(1000, "100kb").succeeds().says(&["warning: the cache took", "all of it in use, and may take 102"]);
    assert!(cache_bytes(&test) <= 100 << 10);
    build(0, "much").exits(2).says(&["invalid size of the cache `much`"]);
    test.write("home/.config/rbuild/rbuild.toml", "[cache]\nsise = \"1gb\"\n");
    let context = test.dockerfile("FROM busybox\n");
    test.build(&context, &[]).exits(2).says(&["rbuild.toml`: unknown field `sise`"]);
    test.write("home/.config/rbuild/rbuild.toml", "[cache]\nsize = \"5%\"\n");
    test.build(&context, &[]).succeeds();
    test.assert_sound();
}

#[test]
fn a_build_makes_room_while_it_runs() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let limit: u64 = 4 << 20;
    let fill = |name: &str| format!("RUN head -c 1m /dev/zero >/{name}\n");
    let before = ["a", "b", "c"].map(fill).concat();
    let context = test.dockerfile(&format!("FROM busybox\n{before}"));
    test.build(&context, &["--cache-size", "4mb"]).succeeds();
    let wait = "RUN --mount=type=cache,target=/c echo waiting; n=0; \
                until [ -e /c/go ] || [ $n = 600 ]; do sleep 0.1; n=$((n+1)); done\n";
    let steps = ["d", "e", "f"].map(fill).concat();
    let context = test.dockerfile(&format!("FROM busybox\n{steps}{wait}{}", fill("g")));
    let mut build = test.build_command(&context, &["--cache-size", "4mb"]).start();
    build.wait_for(" waiting\n");
    let in_flight: u64 = 3 << 20;
    // Until the collector has looked, what the build has made comes on top.
    let mut bytes = cache_bytes(&test);
    while bytes > limit {
        assert!(bytes <= limit + in_flight, "{bytes}");
        bytes = cache_bytes(&test);
    }
    assert!(bytes >= in_flight, "{bytes}");
    fs::write(mount_path(&test, "/c").join("go"), "").unwrap();
    build.finish().succeeds().says(&["warning: the cache took"]);
    assert!(cache_bytes(&test) <= limit);
    test.assert_sound();
}

#[test]
fn cache_mounts_are_carried_to_another_store() {
    let Some(mut test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile(
        "FROM busybox\nRUN --mount=type=cache,target=/c mkdir /c/d && echo carried >/c/d/x && ln -s d/x /c/link\n",
    );
    test.build(&context, &[]).succeeds();
    let listed = test.rbuild(&["cache-mount", "ls", "-q"]).outcome().succeeds().stdout;
    let tar = test.rbuild(&["cache-mount", "export", listed.trim()]).outcome().succeeds().stdout_bytes;
    test.write("mount.tar", tar);
    test.rbuild(&["cache-mount", "export", "/nosuch"]).outcome().exits(2).says(&["no cache mount `/nosuch`"]);

    test.set_store(test.path("other"));
    assert!(test.import_base());
    let import = |file: &str| test.rbuild(&["cache-mount", "import", "/c", file]).outcome();
    import("mount.tar").succeeds();
    let context = test.dockerfile("FROM busybox\nRUN --mount=type=cache,target=/c cat /c/link >/seen\n");
    assert_eq!(test.build_tree(&context, &[]).text("seen"), "carried\n");
    // What is refused changes nothing, and what is taken replaces all.
    test.write("broken.tar", &tar_of(&[("broken", "x")])[..600]);
    import("broken.tar").exits(2).says(&["failed to import `broken.tar`"]);
    assert!(mount_path(&test, "/c").join("d/x").exists());
    test.write("new.tar", tar_of(&[("only", "x")]));
    import("new.tar").succeeds();
    assert_eq!(fs::read_dir(mount_path(&test, "/c")).unwrap().count(), 1);
    let pruned = test.rbuild(&["cache-mount", "prune", "-f"]).outcome().succeeds();
    prints(&pruned, &["Total reclaimed space:"], &[]);
    assert_eq!(test.rbuild(&["cache-mount", "ls", "-q"]).outcome().succeeds().stdout, "");
    assert_eq!(test.store_entries("cache-mounts"), 0);
}

#[test]
fn images_and_containers_are_pruned_in_dockers_words() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let build = |text: &str| {
        let context = test.dockerfile(&format!("FROM busybox\nRUN echo {text} >/x\n"));
        test.build(&context, &["-t", "app"]).succeeds();
    };
    build("one");
    build("two");
    let images = ["images", "-q"];
    let count = || test.rbuild(&images).outcome().succeeds().stdout.lines().count();
    assert_eq!(count(), 3);
    let pruned = test.rbuild(&["image", "prune", "-f"]).outcome().succeeds();
    prints(&pruned, &["Deleted Images:\ndeleted: sha256:", "Total reclaimed space:"], &["untagged"]);
    assert_eq!(count(), 2);
    test.rbuild(&["run", "--network", "none", "app", "true"]).outcome().succeeds();
    let pruned = test.rbuild(&["image", "prune", "-af"]).outcome().succeeds();
    prints(&pruned, &["untagged: busybox:latest"], &["app"]);
    assert!(test.has("app"), "a container uses it");
    let df = test.rbuild(&["system", "df"]).outcome().succeeds();
    let counts =
        ["TYPE            TOTAL   ACTIVE   SIZE", "Images          1       1", "Containers      1       0"];
    prints(&df, &counts, &[]);
    let json = lines(&test, &["system", "df", "--format", "json"]);
    assert_eq!((&json[0]["Type"], &json[0]["TotalCount"]), (&"Images".into(), &"1".into()));
    assert!(json[0]["Reclaimable"].as_str().unwrap().ends_with("%)"), "{json:?}");
    let template = ["system", "df", "--format", "{{.Type}}={{.Active}}"];
    prints(&test.rbuild(&template).outcome().succeeds(), &["Images=1\nContainers=0\n"], &[]);
    let full = test.rbuild(&["system", "df", "-v"]).outcome().succeeds();
    let parts = ["Images space", "Containers space", "Local Volumes space", "Build cache usage: "];
    prints(&full, &parts, &[]);
    prints(&full, &["app:latest", "UNIQUE SIZE", "CACHE TYPE", "\"true\""], &[]);
    let pruned = test.rbuild(&["system", "prune", "-af"]).outcome().succeeds();
    let deleted = ["Deleted Containers:", "untagged: app:latest", "Deleted build cache objects:"];
    prints(&pruned, &deleted, &[]);
    assert_eq!((count(), test.store_entries("layers"), test.store_entries("containers")), (0, 0, 0));
    test.assert_sound();
}

#[test]
fn images_are_pruned_by_type_and_by_label() {
    let Some(test) = TestEnvironment::with_base() else { return };
    for team in ["one", "two", "three"] {
        let context = test.dockerfile(&format!("FROM busybox\nLABEL team={team}\nRUN echo {team} >/x\n"));
        test.build(&context, &["-t", "app"]).succeeds();
    }
    let count = || test.rbuild(&["images", "-q"]).outcome().succeeds().stdout.lines().count();
    test.rbuild(&["image", "prune", "-f", "--filter", "label=team=none"]).outcome().succeeds();
    let maybe = ["image", "prune", "-f", "--filter", "dangling=maybe"];
    test.rbuild(&maybe).outcome().exits(1).says(&["dangling=maybe"]);
    test.rbuild(&["image", "prune", "-f", "--filter", "type=step"])
        .outcome()
        .exits(1)
        .says(&["invalid filter"]);
    assert_eq!(count(), 4);
    let filter = ["system", "prune", "-f", "--filter", "label=team=one"];
    prints(&test.rbuild(&filter).outcome().succeeds(), &["Deleted Images:"], &[]);
    assert_eq!((count(), du(&test, "type=step").len()), (3, 3), "what is cached has no labels");
    let prune = |option: &str| test.rbuild(&["prune", option, "--filter", "type=image"]).outcome().succeeds();
    prints(&prune("--dry-run"), &[" image ", "Would free:", "selected"], &["app:latest", "regular"]);
    assert_eq!(count(), 3);
    prints(&prune("-f"), &[" image ", "Total:"], &["app:latest", "regular"]);
    assert_eq!(count(), 2);
    test.assert_sound();
}
