//! What the options of `rbuild build` do, and where results go.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::common::{Outcome, TestEnvironment, Tree, skip, unpack};

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
    let context = test.dockerfile("FROM busybox\nLABEL a=b\nMAINTAINER me\n");
    let arguments = ["-t", "app", "--label", "c=d", "--iidfile", "id", "--metadata-file", "facts.json"];
    test.build(&context, &arguments).succeeds();
    let image = test.inspect("app");
    assert_eq!(test.read("id"), image["Id"].as_str().unwrap());
    let facts: Value = serde_json::from_str(&test.read("facts.json")).unwrap();
    assert_eq!(facts["containerimage.config.digest"], image["Id"]);
    assert_eq!(facts["containerimage.digest"], image["Descriptor"]["digest"]);
    assert_eq!(facts["image.name"], "docker.io/library/app:latest");
    assert_eq!(image["Config"]["Labels"], serde_json::json!({ "a": "b", "c": "d" }));
    assert!(facts.get("buildx.build.warnings").is_none());

    test.build_command(&context, &arguments).env("BUILDX_METADATA_WARNINGS", "1").outcome().succeeds();
    let facts: Value = serde_json::from_str(&test.read("facts.json")).unwrap();
    let warning = &facts["buildx.build.warnings"][0];
    assert_eq!(warning["range"], serde_json::json!([{ "start": { "line": 3 }, "end": { "line": 3 } }]));
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

/// Whether steps can have a network of their own here; what is missing is said aloud.
fn has_networks(outcome: &Outcome) -> bool {
    let lacks = outcome.stderr.contains("instead of one of their own");
    if lacks {
        skip(&outcome.stderr);
    }
    !lacks
}

#[test]
fn a_step_has_a_network_of_its_own() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let list = "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ' | sort";
    let context = test.dockerfile(&format!(
        "FROM busybox AS one\nRUN {list} >/devices\n\
         FROM busybox AS two\nRUN readlink /proc/self/ns/net >/namespace\n\
         FROM busybox AS three\nRUN readlink /proc/self/ns/net >/namespace; cat /etc/hosts >/seen\n\
         FROM busybox\nCOPY --from=one /devices /\nCOPY --from=two /namespace /two\nCOPY --from=three /namespace /three\n\
         COPY --from=three /seen /\n",
    ));
    let outcome =
        test.build(&context, &["--add-host", "machine:host-gateway", "-o", "type=tar,dest=-"]).succeeds();
    if !has_networks(&outcome) {
        return;
    }
    let tree = Tree::read(&outcome.stdout_bytes);
    assert_eq!(tree.text("devices"), "eth0\nlo\n");
    let host = fs::read_link("/proc/self/ns/net").unwrap();
    let [two, three] = ["two", "three"].map(|name| tree.text(name).trim().to_owned());
    assert!(two != three && Path::new(&two) != host && Path::new(&three) != host);
    let hosts = tree.text("seen");
    let machine = hosts.lines().find_map(|line| line.strip_suffix("\tmachine")).unwrap();
    assert!(
        machine != "127.0.0.1" && hosts.contains(&format!("{machine}\thost.docker.internal\n")),
        "{hosts}"
    );
}

/// The process is killed while a step runs; the next build works and has the addresses again.
#[test]
fn a_killed_build_leaves_the_network_to_the_next() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile("FROM busybox\nRUN echo begun; sleep 600\n");
    let mut running = test.build_command(&context, &[]).start();
    running.wait_for("begun");
    running.signal(Signal::SIGKILL);
    running.finish();
    let again = test.context("again", &[("Dockerfile", "FROM busybox\nRUN cat /proc/net/dev\n")]);
    test.build(&again, &[]).succeeds();
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

#[test]
fn build_arguments_come_from_flags_files_and_the_environment() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test
        .dockerfile("FROM busybox\nARG A\nARG B\nARG C\nARG D=default\nRUN echo \"$A|$B|$C|$D\" >/args\n");
    test.write("args", "# a comment\n\nA=file # all of it\nB=file\nC\nD\n");
    let flags = ["--build-arg-file", "args", "--build-arg", "B=flag"];
    let outcome =
        test.build_command(&context, &[flags.as_slice(), &["-o", "-"]].concat()).env("C", "environment");
    let tree = Tree::read(&outcome.outcome().succeeds().stdout_bytes);
    assert_eq!(tree.text("args"), "file # all of it|flag|environment|default\n");

    test.build(&context, &["--build-arg-file", "none"])
        .exits(2)
        .says(&["failed to read build arguments `none`"]);
    test.write("nameless", "=x\n");
    let outcome = test.build(&context, &["--build-arg-file", "nameless"]);
    outcome.exits(2).says(&["invalid build argument `=x`: it has no name"]);
}

#[test]
fn labels_and_variables_are_taken_from_the_result() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile("FROM busybox\nLABEL a=1 b=2 c=3\nENV X=1 Y=2\nRUN test $X$Y = 12\n");
    let arguments = ["--unsetlabel=a", "--unsetlabel", "b", "--label", "b=4", "--unsetenv", "X"];
    test.build(&context, &[&["-t", "app"], arguments.as_slice()].concat()).succeeds();
    let config = &test.inspect("app")["Config"];
    assert_eq!(config["Labels"], serde_json::json!({ "b": "4", "c": "3" }));
    let env = config["Env"].as_array().unwrap();
    assert!(env.contains(&"Y=2".into()) && !env.contains(&"X=1".into()), "{env:?}");
    test.build(&context, &["--label", "=x"]).exits(2).says(&["invalid label `=x`: it has no name"]);
}

#[test]
fn a_timestamp_is_the_time_of_all_that_is_made() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile("FROM busybox\nRUN echo 1 >/x\n");
    let with_flag = test.build(&context, &["-q", "--timestamp", "1000000000"]).succeeds().stdout;
    assert_eq!(test.inspect(with_flag.trim())["Created"], "2001-09-09T01:46:40Z");
    let with_argument = test.build(&context, &["-q", "--build-arg", "SOURCE_DATE_EPOCH=1000000000"]);
    assert_eq!(with_argument.succeeds().stdout, with_flag);
    test.build(&context, &["--timestamp", "soon"]).exits(2).says(&["invalid value 'soon'"]);
}

#[test]
fn progress_can_be_read_by_programs_or_by_nobody() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile("FROM busybox\nRUN echo out\nCMD x\n");
    let build = |progress| test.rbuild(&["build", "--progress", progress, context.path.to_str().unwrap()]);
    let lines: Vec<Value> = build("rawjson")
        .outcome()
        .succeeds()
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let all =
        |kind: &str| lines.iter().filter_map(|line| line[kind].as_array()).flatten().collect::<Vec<_>>();
    assert!(
        all("vertexes")
            .iter()
            .any(|vertex| vertex["name"] == "[2/2] RUN echo out" && !vertex["completed"].is_null())
    );
    assert_eq!(all("logs")[0]["data"], "b3V0Cg==");
    assert_eq!(
        all("warnings")[0]["url"],
        "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/"
    );

    let none = build("none").outcome().succeeds();
    assert!(
        none.stdout.is_empty() && none.stderr.starts_with("\nwarning[JSONArgsRecommended]: "),
        "{}",
        none.stderr
    );
    let quiet = build("quiet").outcome().succeeds();
    assert!(quiet.stdout.starts_with("sha256:") && quiet.stderr.is_empty(), "{}", quiet.stderr);
}

#[test]
fn flags_of_other_builders_are_accepted() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile("FROM busybox\n");
    test.build(&context, &["--load", "--debug", "--builder", "default", "--pull=false"]).succeeds();
    test.build(&context, &["--pull=never"]).succeeds();
    context.dockerfile("FROM localhost:1/none\n");
    test.build(&context, &["--pull=never"]).exits(2).says_nothing_of(&["Connection refused"]);
    test.build(&context, &["--pull=sometimes"]).exits(2).says(&["possible values: always, missing, never"]);
}

#[test]
fn a_frontend_that_is_not_there_is_refused() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile("# syntax=example.com/other:1\nFROM busybox\n");
    test.build(&context, &[])
        .exits(2)
        .says(&["unsupported frontend `example.com/other:1`", "Dockerfile:1:10"]);
    test.build(&context, &["--build-arg", "BUILDKIT_SYNTAX=docker/dockerfile:1"]).succeeds();
    context.dockerfile("FROM busybox\n");
    let outcome = test.build(&context, &["--build-arg", "BUILDKIT_SYNTAX=example.com/other"]);
    outcome.exits(2).says(&["unsupported frontend `example.com/other`"]);
    for other in [
        "# syntax=example.com/other\nvalues: 1\n",
        "// syntax=example.com/other\n",
        "{\"syntax\": \"example.com/other\"}",
    ] {
        context.dockerfile(other);
        test.build(&context, &[])
            .exits(2)
            .says(&["unsupported frontend `example.com/other`", "Dockerfile:1"]);
    }
}

#[test]
fn empty_values_are_none() {
    let test = TestEnvironment::new();
    let context = test.context("context", &[("Dockerfile", "FROM scratch\nCOPY x /\n"), ("x", "1")]);
    let empty =
        ["-o", "", "-f", "", "--iidfile", "", "--metadata-file", "", "--target", "", "--platform", ""];
    test.build(&context, &empty).succeeds();
    let off = ["--provenance=false", "--attest", "type=sbom,disabled=true"];
    test.build(&context, &off).succeeds();
    test.build(&context, &["--sbom=false", "--attest", "type=sbom"]).succeeds();
}
