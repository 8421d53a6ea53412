//! `login`, `logout`, `copy`, `manifest inspect`, `search`, and the form in which layers are pushed.

use rbuild_image::MediaType;
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

/// What an image's manifest, its config and its layers say that they are.
fn media_types(manifest: &Value) -> Vec<&str> {
    let layers = manifest["layers"].as_array().unwrap().iter();
    let all = [manifest, &manifest["config"]].into_iter().chain(layers);
    all.map(|it| it["mediaType"].as_str().unwrap()).collect()
}

/// Others refuse what mixes Docker's words with OCI's.
#[test]
fn an_image_on_one_of_dockers_is_in_one_vocabulary() {
    let Some((mut test, registry, base)) = with_base() else { return };
    let mut document = manifest(&test, &base);
    let docker = |kind: &str| Value::from(format!("application/vnd.docker.{kind}"));
    document["mediaType"] = docker("distribution.manifest.v2+json");
    document["config"]["mediaType"] = docker("container.image.v1+json");
    document["layers"][0]["mediaType"] = docker("image.rootfs.diff.tar.gzip");
    let media_type = MediaType::from(document["mediaType"].as_str().unwrap());
    registry.add_manifest("team/base", "docker", &media_type, &serde_json::to_vec(&document).unwrap());
    let base = format!("{}/team/base:docker", registry.name());
    test.set_store(test.path("second"));

    let name = format!("{}/team/app:1", registry.name());
    let context = test.dockerfile(&format!("FROM {base}\nRUN echo >/x\n"));
    test.build(&context, &["-t", &name, "--push"]).succeeds();
    let pushed = manifest(&test, &name);
    let layer = "application/vnd.oci.image.layer.v1.tar+gzip";
    let [document, config] =
        ["manifest", "config"].map(|it| format!("application/vnd.oci.image.{it}.v1+json"));
    assert_eq!(media_types(&pushed), [&*document, &config, layer, layer]);

    // What is pushed as it was pulled stays what it was.
    let again = format!("{}/team/again:1", registry.name());
    test.rbuild(&["pull", &base]).outcome().succeeds();
    test.rbuild(&["tag", &base, &again]).outcome().succeeds();
    test.rbuild(&["push", &again]).outcome().succeeds();
    assert_eq!(digest(&test, &again), digest(&test, &base));
    test.rbuild(&["push", "--compression", "zstd", "--force-compression", &again]).outcome().succeeds();
    let zstd = "application/vnd.oci.image.layer.v1.tar+zstd";
    assert_eq!(media_types(&manifest(&test, &again)), [&*document, &config, zstd]);
}

fn digest(test: &TestEnvironment, name: &str) -> String {
    test.rbuild(&["manifest", "inspect", "--digest", name]).outcome().succeeds().stdout.trim().to_owned()
}

#[test]
fn the_digests_that_are_told_are_the_registrys() {
    let Some((test, registry, _)) = with_base() else { return };
    let context = test.dockerfile("FROM busybox\nRUN echo >/x\n");
    let name = format!("{}/team/app:1", registry.name());
    let told = || -> Value { serde_json::from_str(&test.read("told.json")).unwrap() };
    let build = |options: &[&str]| {
        let told_in = ["-t", &name, "--metadata-file", "told.json", "--iidfile", "id"];
        test.build(&context, &[&told_in, options].concat()).succeeds();
        told()["containerimage.digest"].as_str().unwrap().to_owned()
    };
    let repo_digest = || {
        let template = "{{index .RepoDigests 0}}";
        test.rbuild(&["inspect", "-f", template, &name]).outcome().succeeds().stdout.trim().to_owned()
    };
    for options in [&["--push"][..], &["--push", "--provenance=true"], &["--push", "--platform", BOTH]] {
        let told = build(options);
        assert_eq!(told, digest(&test, &name), "{options:?}");
        assert_eq!(repo_digest(), format!("{}/team/app@{told}", registry.name()));
        let id = test.read("id");
        test.rbuild(&["image", "inspect", &id]).outcome().succeeds();
    }
    let listed = test.rbuild(&["images", "--digests", "--format", "{{.Digest}}", &name]).outcome().succeeds();
    assert_eq!(listed.stdout.trim(), digest(&test, &name));
    // The name stands for something else from now on, which nobody has pushed.
    let before = repo_digest();
    assert!(!before.ends_with(&build(&[])));
    assert_ne!(repo_digest(), before);
    test.rbuild(&["push", &name]).outcome().succeeds();
    assert!(repo_digest().ends_with(&digest(&test, &name)));
    // Somebody else pushes something else, which is pulled: what was pushed before is forgotten.
    test.rbuild(&["push", "--compression", "none", &name]).outcome().succeeds();
    let here = digest(&test, &name);
    test.rbuild(&["push", &name]).outcome().succeeds();
    let document = registry.manifest("team/app", &here).unwrap();
    registry.add_manifest("team/app", "1", &MediaType::OciManifest, &document);
    test.rbuild(&["pull", &name]).outcome().succeeds();
    assert!(repo_digest().ends_with(&here));

    let archived = build(&["-o", "type=oci,tar=false,dest=layout"]);
    let index: Value = serde_json::from_str(&test.read("layout/index.json")).unwrap();
    assert_eq!(index["manifests"][0]["digest"], archived);
}

/// A pull takes no blob of a layer that is here unpacked; whoever wants the image whole is given it all the same.
#[test]
fn what_was_pulled_onto_layers_that_were_here_leaves_whole() {
    let Some((mut test, registry, _)) = with_base() else { return };
    let context = test.dockerfile("FROM busybox\nRUN echo here >/x\n");
    let name = format!("{}/team/app:1", registry.name());
    test.build(&context, &["-t", &name, "--push"]).succeeds();
    test.rbuild(&["pull", &name]).outcome().succeeds();
    test.rbuild(&["save", "-o", "app.tar", &name]).outcome().succeeds();
    let elsewhere = FakeRegistry::start().unwrap();
    let there = format!("{}/app:1", elsewhere.name());
    test.rbuild(&["tag", &name, &there]).outcome().succeeds();
    test.rbuild(&["push", &there]).outcome().succeeds();
    assert_eq!(digest(&test, &there), digest(&test, &name), "the same compressed again");
    let id = test.image_id(&name);
    test.set_store(test.path("second"));
    test.rbuild(&["load", "-i", "app.tar"]).outcome().succeeds();
    assert_eq!((test.image_id(&name), test.run(&name, "cat /x")), (id, "here\n".to_owned()));
    test.assert_sound();
}

const BOTH: &str = "linux/amd64,linux/arm64";

#[test]
fn an_image_for_another_machine_is_an_image() {
    let Some((mut test, registry, _)) = with_base() else { return };
    let context = test.context("context", &[("Dockerfile", "FROM scratch\nCOPY file /\n"), ("file", "x")]);
    let name = format!("{}/team/both:1", registry.name());
    test.build(&context, &["-t", &name, "--push", "--platform", BOTH]).succeeds();
    test.set_store(test.path("second"));
    let other = if cfg!(target_arch = "x86_64") { "arm64" } else { "amd64" };
    test.rbuild(&["pull", "--platform", &format!("linux/{other}"), &name]).outcome().succeeds();
    assert_eq!(test.rbuild(&["images", "-q"]).outcome().succeeds().stdout.lines().count(), 1);
    assert_eq!(test.inspect(&name)["Architecture"], other);
    for command in ["history", "save"] {
        test.rbuild(&[command, &name]).outcome().succeeds();
    }
    test.rbuild(&["create", "--platform", "linux/s390x", &name, "x"]).outcome().exits(125);
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
