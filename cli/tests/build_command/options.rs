//! What the options of `rbuild build` do, and where results go.

use std::fs;

use serde_json::Value;

use crate::common::{TestEnvironment, Tree, unpack};

#[test]
fn a_build_may_be_told_which_file_stage_and_names() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.context("context", &[("f", "")]);
    test.write("other/My.file", "FROM busybox AS first\nRUN echo 1 >/x\nFROM first AS second\nRUN false\n");
    let arguments = ["-f", "other/My.file", "--target", "FIRST", "-t", "one", "-t", "localhost:5000/two:v2"];
    let outcome = test.build(&context, &arguments).succeeds();
    assert_eq!(outcome.ran(), ["RUN echo 1 >/x"]);
    assert_eq!(test.image_id("one"), test.image_id("localhost:5000/two:v2"));
    assert_eq!(test.run("one", "cat /x"), "1\n");
}

#[test]
fn build_is_what_a_line_without_a_command_means() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile("FROM busybox\nRUN echo 1 >/x\n");
    test.rbuild(&["-t", "app", "."]).current_dir(&context.path).outcome().succeeds();
    assert_eq!(test.run("app", "cat /x"), "1\n");
}

#[test]
fn quiet_prints_the_id_and_nothing_else() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile("FROM busybox\nRUN echo noise\n");
    let outcome = test.rbuild(&["build", "-q", "-t", "app", "context"]).outcome().succeeds();
    assert_eq!(outcome.stdout, format!("{}\n", test.image_id("app")));
    assert_eq!(outcome.stderr, "");

    context.dockerfile("FROM busybox\nRUN echo noise; exit 3\n");
    let outcome = test.rbuild(&["build", "-q", "context"]).outcome().exits(1);
    assert_eq!(outcome.stdout, "");
    outcome.says(&["exit code: 3", "noise"]);
}

#[test]
fn plain_progress_shows_steps_and_their_output() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile("FROM busybox\nRUN echo out; echo err >&2\n");
    let outcome = test.build(&context, &[]).succeeds();
    assert_eq!(outcome.stdout, "");
    let lines = ["[2/2] RUN echo out; echo err >&2\n", " out\n", " err\n", "#2 DONE "];
    outcome.says(&lines).says_nothing_of(&["exporting", "\x1b"]);
    test.build(&context, &[]).succeeds().says(&["#2 CACHED"]).says_nothing_of(&[" out\n"]);
}

#[test]
fn facts_are_written_to_files() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile("FROM busybox\nLABEL a=b\n");
    let arguments = ["-t", "app", "--label", "c=d", "--iidfile", "id", "--metadata-file", "facts.json"];
    test.build(&context, &arguments).succeeds();
    let image = test.inspect("app");
    assert_eq!(test.read("id"), image["Id"].as_str().unwrap());
    let facts: Value = serde_json::from_str(&test.read("facts.json")).unwrap();
    assert_eq!(facts["containerimage.config.digest"], image["Id"]);
    assert_eq!(facts["containerimage.digest"], image["Descriptor"]["digest"]);
    assert_eq!(facts["image.name"], "docker.io/library/app:latest");
    assert_eq!(image["Config"]["Labels"], serde_json::json!({ "a": "b", "c": "d" }));
}

#[test]
fn results_go_where_they_are_told_to() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile("FROM busybox\nRUN echo 1 >/x; chmod 700 /x\n");
    let outputs = [
        "type=oci,dest=oci.tar",
        "type=oci,tar=false,dest=layout",
        "type=docker,dest=docker.tar",
        "type=tar,dest=root.tar",
        "type=local,dest=files",
        "short",
        "type=image,name=stored",
        "type=cacheonly",
    ];
    let arguments: Vec<&str> = outputs.iter().flat_map(|output| ["-o", output]).collect();
    test.build(&context, &[&["-t", "app"], arguments.as_slice()].concat()).succeeds();

    assert_eq!(Tree::read(&fs::read(test.path("root.tar")).unwrap()).text("x"), "1\n");
    assert_eq!(test.read("files/x"), "1\n");
    assert_eq!(test.read("short/x"), "1\n");
    let id = test.image_id("app");
    assert_eq!(test.image_id("stored"), id);

    unpack(&fs::read(test.path("oci.tar")).unwrap(), &test.path("from-oci"));
    unpack(&fs::read(test.path("docker.tar")).unwrap(), &test.path("from-docker"));
    for layout in ["layout", "from-oci", "from-docker"] {
        assert!(test.read(&format!("{layout}/oci-layout")).contains("1.0.0"));
        assert!(test.path(&format!("{layout}/blobs/sha256/{}", &id["sha256:".len()..])).exists(), "{layout}");
    }
    assert!(!test.path("from-oci/manifest.json").exists());
    let manifest: Value = serde_json::from_str(&test.read("from-docker/manifest.json")).unwrap();
    assert_eq!(manifest[0]["RepoTags"][0], "app:latest");

    for archive in ["oci.tar", "docker.tar", "layout"] {
        let other = TestEnvironment::new();
        let archive = test.path(archive);
        other.rbuild(&["load", "-i", archive.to_str().unwrap()]).outcome().succeeds();
        assert_eq!(other.image_id("app"), id, "{}", archive.display());
        other.assert_sound();
    }
}

#[test]
fn results_go_to_standard_output() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile("FROM busybox\nRUN echo 1 >/x\n");
    for output in ["-", "type=tar,dest=-"] {
        let outcome = test.build(&context, &["-o", output]).succeeds();
        assert_eq!(Tree::read(&outcome.stdout_bytes).text("x"), "1\n", "{output}");
    }
    for (output, has_manifest) in [("type=oci,dest=-", false), ("type=docker,dest=-", true)] {
        let tree = Tree::read(&test.build(&context, &["-o", output]).succeeds().stdout_bytes);
        assert!(tree.has("index.json"), "{output}");
        assert_eq!(tree.has("manifest.json"), has_manifest, "{output}");
    }
}

#[test]
fn a_result_without_a_name_is_only_cached() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile("FROM busybox\nRUN echo 1 >/x\n");
    test.build(&context, &[]).succeeds();
    let images = test.rbuild(&["images", "-q"]).outcome().succeeds().stdout;
    assert_eq!(images.lines().count(), 1, "{images}");
}

#[test]
fn a_step_has_the_network_that_is_asked_for() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile(
        "FROM busybox\nRUN tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ' >/devices; cp /etc/hosts /seen\n",
    );
    let tree = test.build_tree(&context, &["--network", "none", "--add-host", "db:10.1.2.3"]);
    assert_eq!(tree.text("devices"), "lo\n");
    assert!(tree.text("seen").contains("10.1.2.3\tdb\n"), "{}", tree.text("seen"));
    assert!(!tree.has("etc/hosts"));
    context.dockerfile("FROM busybox\nRUN --network=none tail -n +3 /proc/net/dev | wc -l >/count\n");
    assert_eq!(test.build_tree(&context, &["--network", "host"]).text("count"), "1\n");
}

#[test]
fn pull_asks_the_registry_even_for_what_is_there() {
    let Some(test) = TestEnvironment::with_base() else { return };
    test.rbuild(&["tag", "busybox", "localhost:1/base"]).outcome().succeeds();
    let context = test.dockerfile("FROM localhost:1/base\n");
    test.build(&context, &[]).succeeds();
    let texts =
        ["failed to resolve image `localhost:1/base:latest`", "Connection refused", "--> Dockerfile:1"];
    test.build(&context, &["--pull"]).exits(4).says(&texts);
}

#[test]
fn the_same_inputs_give_the_same_bytes_in_another_store() {
    let (Some(one), Some(other)) = (TestEnvironment::with_base(), TestEnvironment::with_base()) else {
        return;
    };
    let ids = [one, other].map(|test| {
        let context = test.context(
            "context",
            &[
                ("Dockerfile", "FROM scratch\nCOPY f /d/f\nCOPY --from=busybox /bin /bin\nRUN echo 1 >/x\n"),
                ("f", "f"),
            ],
        );
        let arguments = ["-q", "--build-arg", "SOURCE_DATE_EPOCH=1000000000"];
        test.build(&context, &arguments).succeeds().stdout
    });
    assert_eq!(ids[0], ids[1]);
}
