//! Several platforms in one build, and what is said of the image beside its config.

use serde_json::{Value, json};

use crate::common::{TestEnvironment, unpack};

const BOTH: &str = "linux/amd64,linux/arm64";

/// A Dockerfile that needs no base image, so that it can be built for anything.
const DOCKERFILE: &str = "FROM --platform=$BUILDPLATFORM scratch AS build
COPY f /built
FROM scratch
ARG TARGETARCH
COPY --from=build /built /$TARGETARCH
LABEL arch=$TARGETARCH
";

fn context(test: &TestEnvironment) -> crate::common::Context {
    test.context("context", &[("Dockerfile", DOCKERFILE), ("f", "1\n")])
}

fn document(test: &TestEnvironment, layout: &str, descriptor: &Value) -> Value {
    let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    serde_json::from_str(&test.read(&format!("{layout}/blobs/sha256/{digest}"))).unwrap()
}

#[test]
fn several_platforms_are_an_index() {
    let test = TestEnvironment::new();
    let arguments = ["-t", "app", "--platform", BOTH, "-o", "type=oci,tar=false,dest=layout", "-o", "files"];
    let outcome = test.build(&context(&test), &arguments).succeeds();
    // The stage of the builder's own platform is run once for both.
    assert_eq!(outcome.stderr.matches("build 1/1] COPY f /built").count(), 1);
    outcome.says(&["[linux/amd64 stage-1 1/1] COPY", "[linux/arm64 stage-1 1/1] COPY"]);

    let layout: Value = serde_json::from_str(&test.read("layout/index.json")).unwrap();
    let index = document(&test, "layout", &layout["manifests"][0]);
    let platforms: Vec<&Value> =
        index["manifests"].as_array().unwrap().iter().map(|it| &it["platform"]).collect();
    assert_eq!(
        platforms,
        [
            &json!({ "os": "linux", "architecture": "amd64" }),
            &json!({ "os": "linux", "architecture": "arm64" })
        ]
    );
    for (at, architecture) in ["amd64", "arm64"].into_iter().enumerate() {
        let manifest = document(&test, "layout", &index["manifests"][at]);
        let config = document(&test, "layout", &manifest["config"]);
        assert_eq!(config["architecture"], architecture);
        assert_eq!(config["config"]["Labels"]["arch"], architecture);
        assert_eq!(test.read(&format!("files/linux_{architecture}/{architecture}")), "1\n");
    }
    test.assert_sound();
}

#[test]
fn an_index_is_saved_and_loaded_as_one() {
    let test = TestEnvironment::new();
    test.build(&context(&test), &["-t", "app", "--platform", BOTH]).succeeds();
    let arguments = ["save", "--format", "oci-archive", "-o", "app.tar", "app"];
    test.rbuild(&arguments).outcome().succeeds();
    unpack(&std::fs::read(test.path("app.tar")).unwrap(), &test.path("saved"));
    let layout: Value = serde_json::from_str(&test.read("saved/index.json")).unwrap();
    assert_eq!(document(&test, "saved", &layout["manifests"][0])["manifests"].as_array().unwrap().len(), 2);

    let other = TestEnvironment::new();
    other.rbuild(&["load", "-i", test.path("app.tar").to_str().unwrap()]).outcome().succeeds();
    other.rbuild(&["save", "--format", "oci-archive", "-o", "again.tar", "app"]).outcome().succeeds();
    unpack(&std::fs::read(other.path("again.tar")).unwrap(), &other.path("again"));
    assert_eq!(other.read("again/index.json"), test.read("saved/index.json"));
    other.assert_sound();
}

#[test]
fn one_platform_is_an_index_only_where_that_is_asked_for() {
    let test = TestEnvironment::new();
    let layout = ["-o", "type=oci,tar=false,dest=layout", "--platform", "linux/arm64"];
    test.build(&context(&test), &layout).succeeds();
    let media_type = |index: &str| {
        let layout: Value = serde_json::from_str(&test.read(index)).unwrap();
        layout["manifests"][0]["mediaType"].as_str().unwrap().to_owned()
    };
    assert!(media_type("layout/index.json").contains("manifest"));
    test.build(&context(&test), &[&layout[..], &["--build-arg", "BUILDKIT_MULTI_PLATFORM=1"]].concat())
        .succeeds();
    assert!(media_type("layout/index.json").contains("index"));
}

#[test]
fn annotations_are_where_they_were_asked_for() {
    let test = TestEnvironment::new();
    let arguments = [
        "--platform",
        BOTH,
        "-o",
        "type=oci,tar=false,dest=layout",
        "--annotation",
        "all=1",
        "--annotation",
        "manifest[linux/arm64],index:some=2",
        "--annotation",
        "manifest-descriptor:named=3",
        "--annotation",
        "index-descriptor:listed=4",
    ];
    test.build(&context(&test), &arguments).succeeds();
    let layout: Value = serde_json::from_str(&test.read("layout/index.json")).unwrap();
    let listed = &layout["manifests"][0];
    let index = document(&test, "layout", listed);
    let manifest = |at: usize| document(&test, "layout", &index["manifests"][at]);
    assert_eq!(listed["annotations"], json!({ "listed": "4" }));
    assert_eq!(index["annotations"], json!({ "some": "2" }));
    assert_eq!(index["manifests"][0]["annotations"], json!({ "named": "3" }));
    assert_eq!(manifest(0)["annotations"], json!({ "all": "1" }));
    assert_eq!(manifest(1)["annotations"], json!({ "all": "1", "some": "2" }));

    let outcome = test.build(&context(&test), &["-t", "app", "--annotation", "index:a=b"]).exits(2);
    outcome.says(&["index annotations not supported for single platform export"]);
}

#[test]
fn what_cannot_hold_several_platforms_says_so() {
    let test = TestEnvironment::new();
    let arguments = ["--platform", BOTH, "-o", "type=docker,dest=x.tar"];
    let outcome = test.build(&context(&test), &arguments).exits(2);
    outcome.says(&["docker exporter does not currently support exporting manifest lists", "type=oci"]);
    assert!(!test.path("x.tar").exists());
}

#[test]
fn a_platform_that_this_machine_cannot_run_says_so() {
    let Some(test) = TestEnvironment::with_base() else { return };
    // A program of no machine that has a header of another one: 64-bit, little endian, s390x.
    let mut program = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x16\0\x01\0\0\0".to_vec();
    program.resize(256, 0);
    let context =
        test.context("context", &[("Dockerfile", "FROM scratch\nCOPY --chmod=755 p /p\nRUN [\"/p\"]\n")]);
    std::fs::write(context.path.join("p"), program).unwrap();
    let outcome = test.build(&context, &["--platform", "linux/s390x"]).exits(1);
    outcome.says(&["Exec format error", "binfmt_misc"]);
}
