//! `login`, `logout`, `copy`, `manifest inspect`, `search`, and the form in which layers are pushed.

use rbuild_registry::testing::{Door, FakeRegistry};
use serde_json::Value;

use crate::common::{Rbuild, TestEnvironment};

/// A registry that has `busybox` as `base`.
fn with_base() -> Option<(TestEnvironment, FakeRegistry, String)> {
    let (test, registry) = (TestEnvironment::with_base()?, FakeRegistry::start().unwrap());
    let base = format!("{}/team/base:1", registry.name());
    test.rbuild(&["tag", "busybox", &base]).outcome().succeeds();
    test.rbuild(&["push", &base]).outcome().succeeds();
    Some((test, registry, base))
}

fn manifest(test: &TestEnvironment, name: &str) -> Value {
    test.rbuild(&["manifest", "inspect", name]).outcome().succeeds().json()
}

#[test]
fn what_a_registry_has_is_shown_and_copied_without_being_kept() {
    let Some((mut test, registry, base)) = with_base() else { return };
    test.set_store(test.path("second"));
    let digest = test.rbuild(&["manifest", "inspect", "--digest", &base]).outcome().succeeds().stdout;
    assert_eq!(manifest(&test, &base)["schemaVersion"], 2);
    let term = format!("{}/eam", registry.name());
    let search = |options: &[&str]| test.rbuild(&["search"]).args(options).args(&[&term]).outcome();
    let found = search(&["--format", "{{.Name}}|{{.StarCount}}"]).succeeds().stdout;
    assert_eq!(found, format!("{}/team/base|0\n", registry.name()));
    let table = search(&[]).succeeds().stdout;
    assert!(table.starts_with("NAME ") && table.contains("DESCRIPTION   STARS   OFFICIAL\n"), "{table}");
    assert!(!search(&["--filter", "stars=1"]).succeeds().stdout.contains("base"));
    search(&["--limit", "0"]).exits(2).says(&["outside the range of [1, 100]"]);
    search(&["--filter", "x=1"]).exits(1).says(&["invalid filter 'x=1'"]);
    // Docker Hub's index, which no test reaches.
    test.rbuild(&["search", "word"]).outcome().exits(4);

    let fetched = registry.count("GET", "/blobs/sha256");
    let here = format!("{}/other:2", registry.name());
    let said = test.rbuild(&["copy", &base, &here]).outcome().succeeds().stdout;
    assert_eq!(said, format!("{}/other@{digest}", registry.name()));
    assert_eq!(registry.count("GET", "/blobs/sha256"), fetched, "the registry takes blobs itself");
    let elsewhere = FakeRegistry::start().unwrap();
    let there = format!("{}/a/b:3", elsewhere.name());
    test.rbuild(&["copy", "-q", &here, &there]).outcome().succeeds();
    assert_eq!(manifest(&test, &there), manifest(&test, &base));
    assert_eq!(test.rbuild(&["run", "--rm", &there, "echo", "hi"]).outcome().succeeds().stdout, "hi\n");
    test.rbuild(&["copy", &format!("{}/nosuch", registry.name()), &there]).outcome().exits(4);
    test.assert_sound();
}

#[test]
fn layers_are_pushed_in_the_form_that_is_asked_for() {
    let Some((mut test, registry, base)) = with_base() else { return };
    let types = |test: &TestEnvironment, name: &str| -> Vec<String> {
        let manifest = manifest(test, name);
        let layers = manifest["layers"].as_array().unwrap().iter();
        layers
            .map(|layer| layer["mediaType"].as_str().unwrap().rsplit('.').next().unwrap().to_owned())
            .collect()
    };
    assert_eq!(types(&test, &base), ["tar+gzip"]);
    test.rbuild(&["push", "--compression", "zstd,7", &base]).outcome().succeeds();
    assert_eq!(types(&test, &base), ["tar+zstd"]);
    test.rbuild(&["push", "--compression", "none", &base]).outcome().succeeds();
    assert_eq!(types(&test, &base), ["tar"]);
    test.rbuild(&["push", "--compression", "lzma", &base]).outcome().exits(2).says(&["lzma"]);

    let context = test.dockerfile(&format!("FROM {base}\nRUN echo >/x\n"));
    let name = format!("{}/app:1", registry.name());
    test.rbuild(&["push", &base]).outcome().succeeds();
    test.set_store(test.path("second"));
    test.build(&context, &["-t", &name]).succeeds();
    let zstd = format!("type=image,push=true,name={name},compression=zstd");
    test.build(&context, &["-o", &zstd]).succeeds();
    assert_eq!(types(&test, &name), ["tar+gzip", "tar+zstd"], "what is compressed stays");
    test.build(&context, &["-o", &format!("{zstd},force-compression=true")]).succeeds();
    assert_eq!(types(&test, &name), ["tar+zstd", "tar+zstd"]);
    assert_eq!(test.run(&name, "cat /x"), "\n");
    test.assert_sound();
}

#[test]
fn a_login_opens_the_door_until_the_logout() {
    let Some((test, registry, base)) = with_base() else { return };
    registry.set_door(Door::Basic("user".to_owned(), "secret word".to_owned()));
    let server = registry.name();
    let login = |password: &str| -> Rbuild {
        test.rbuild(&["login", "-u", "user", "--password-stdin", &server]).stdin(format!("{password}\n"))
    };
    test.rbuild(&["pull", &base]).outcome().exits(4).says(&["401"]);
    login("wrong").outcome().exits(4).says(&["refuses the login"]).says_nothing_of(&["wrong\n"]);
    test.rbuild(&["pull", &base]).outcome().exits(4);
    login("secret word").outcome().succeeds().says_nothing_of(&["secret word"]);
    test.rbuild(&["pull", &base]).outcome().succeeds();
    test.rbuild(&["logout", &server]).outcome().succeeds();
    test.rbuild(&["pull", &base]).outcome().exits(4);
    test.rbuild(&["login", &server]).outcome().exits(2).says(&["no terminal"]);
}

#[test]
fn newer_is_asked_for_and_not_needed() {
    let Some((test, registry, base)) = with_base() else { return };
    let context = test.dockerfile(&format!("FROM {base}\nRUN echo >/x\n"));
    test.build(&context, &["--pull=newer", "-t", "app"]).succeeds();
    drop(registry);
    test.build(&context, &["--pull=always"]).exits(4);
    test.build(&context, &["--pull=newer", "-t", "app"]).succeeds();
}

#[test]
fn mirrors_stand_in_for_a_registry_that_cannot_be_reached() {
    let Some((mut test, registry, _)) = with_base() else { return };
    let far = "far.invalid/team/base:1";
    let settings = |location: &str| {
        format!(
            "[[registry]]\nprefix = \"far.invalid\"\nlocation = \"far.invalid\"\n[[registry.mirror]]\n\
             location = \"{location}\"\n[[registry]]\nprefix = \"bad.invalid\"\nblocked = true\n"
        )
    };
    test.write("home/.config/containers/registries.conf", settings(&registry.name()));
    test.set_store(test.path("second"));
    test.rbuild(&["pull", far]).outcome().succeeds();
    assert_eq!(test.rbuild(&["run", "--rm", far, "echo", "hi"]).outcome().succeeds().stdout, "hi\n");
    test.rbuild(&["pull", "bad.invalid/x"]).outcome().exits(4).says(&["`bad.invalid/x", "is blocked"]);

    // A loopback port where nobody listens, and then the one that does.
    test.set_store(test.path("third"));
    test.write("home/.config/containers/registries.conf", "");
    let own = format!("[registry.\"far.invalid\"]\nmirrors = [\"127.0.0.1:1\", \"{}\"]\n", registry.name());
    test.write("home/.config/rbuild/rbuild.toml", &own);
    test.rbuild(&["pull", far])
        .outcome()
        .succeeds()
        .says(&["127.0.0.1:1: this mirror is not asked any more"]);
}
