use rbuild_image::Digest;
use rbuild_llb::{
    Builder, Edge, FileInput, GitSource, ImageSource, InputIndex, LocalSource, Meta, ResolveMode, SecretEnv,
    SourceRange,
};

use super::*;
use crate::testing::{copy_action, copy_op, exec_op};

const DOCKERFILE: &str = "FROM busybox:1\nCOPY . /\nRUN make\n";

fn vertex(op: Op, inputs: &[VertexId], line: u32) -> Vertex {
    let meta = Meta { source: Some(SourceRange::line(line)), ..Meta::default() };
    Vertex { op, inputs: inputs.iter().map(|id| Edge::from(*id)).collect(), platform: None, meta }
}

fn image() -> Op {
    let reference: Reference = "busybox:1".parse().unwrap();
    let reference = reference.with_digest(Digest::of(b"busybox"));
    Op::Source(SourceOp::Image(ImageSource {
        reference,
        resolve_mode: ResolveMode::Default,
        layer_limit: None,
    }))
}

fn git() -> SourceOp {
    SourceOp::Git(GitSource {
        remote: "https://user:hunter2@host/repository.git".to_owned(),
        git_ref: "main".to_owned(),
        ..GitSource::default()
    })
}

fn run() -> Op {
    let mut run = exec_op(&["make"]);
    "/".clone_into(&mut run.process.cwd);
    run.secret_env = vec![SecretEnv { id: "token".to_owned(), name: "TOKEN".to_owned(), optional: true }];
    Op::Exec(run)
}

/// An image, a source copied over it, a step; and a stage that nothing needs.
fn build(from: SourceOp) -> Definition {
    let mut builder = Builder::new();
    let base = builder.add(vertex(image(), &[], 1));
    let context = builder.add(vertex(Op::Source(from), &[], 2));
    let other = LocalSource { name: "other".to_owned(), ..LocalSource::default() };
    builder.add(vertex(Op::Source(SourceOp::Local(other)), &[], 2));
    let copy = copy_op(FileInput::Input(InputIndex(0)), copy_action("/", "/"));
    let copied = builder.add(vertex(copy, &[base, context], 2));
    let made = builder.add(vertex(run(), &[copied], 3));
    builder.finish(Some(made.into())).unwrap()
}

fn local() -> SourceOp {
    SourceOp::Local(LocalSource { name: "context".to_owned(), ..LocalSource::default() })
}

fn predicate(definition: &Definition, context: Option<SourceOp>, detail: Detail, form: Form) -> Predicate {
    let arguments = [("build-arg:LEVEL", "2"), ("label:a", "b"), ("target", "last")];
    let request = Request {
        dockerfile_name: "Dockerfile".to_owned(),
        dockerfile: DOCKERFILE.as_bytes().to_vec(),
        context,
        arguments: arguments.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
    };
    let provenance = Provenance {
        definition,
        pinned: &|source| match source {
            SourceOp::Image(image) => image.reference.digest().map(|digest| ("sha256", digest.hex())),
            _ => Some(("sha1", "c0ffee".to_owned())),
        },
        request: &request,
        builder_id: "https://ci/1",
        invocation_id: "42",
        started: "2026-01-01T00:00:00Z",
        finished: "2026-01-01T00:00:01Z",
        reproducible: false,
        detail,
        form,
        file: None,
    };
    provenance.predicate()
}

fn said(definition: &Definition, context: Option<SourceOp>, detail: Detail) -> Value {
    let predicate = predicate(definition, context, detail, Form::V1);
    assert_eq!(predicate.kind, "https://slsa.dev/provenance/v1");
    predicate.content
}

#[test]
fn the_least_says_what_of_and_when() {
    let said = said(&build(local()), None, Detail::Min);
    let definition = &said["buildDefinition"];
    let expected = json!([{
        "uri": format!("pkg:docker/busybox@1?platform=linux%2F{}", Platform::host().architecture),
        "digest": { "sha256": Digest::of(b"busybox").hex() },
    }]);
    assert_eq!(definition["resolvedDependencies"], expected);
    let request = &definition["externalParameters"]["request"];
    assert_eq!(request["args"], json!({ "target": "last" }));
    assert_eq!(request["locals"], json!([{ "name": "context" }, { "name": "dockerfile" }]));
    let metadata = &said["runDetails"]["metadata"];
    assert_eq!(metadata["buildkit_completeness"], json!({ "request": false, "resolvedDependencies": false }));
    let text = said.to_string();
    for private in ["LEVEL", "token", "make", "llbDefinition", "infos"] {
        assert!(!text.contains(private), "{private}: {text}");
    }
}

#[test]
fn the_whole_says_which_steps_of_which_lines() {
    let said = said(&build(local()), None, Detail::Max);
    let definition = &said["buildDefinition"];
    let request = &definition["externalParameters"]["request"];
    assert_eq!(request["args"]["build-arg:LEVEL"], "2");
    assert_eq!(request["secrets"], json!([{ "id": "token", "optional": true }]));
    let steps = definition["internalParameters"]["buildConfig"]["llbDefinition"].as_array().unwrap();
    assert_eq!(steps.len(), 5, "what nothing needs is no step, and the last one is the result");
    assert_eq!(steps[3]["inputs"], json!(["step2:0"]));
    assert_eq!(steps[4], json!({ "id": "step4", "op": { "Op": {} }, "inputs": ["step3:0"] }));
    let metadata = &said["runDetails"]["metadata"];
    let source = &metadata["buildkit_metadata"]["source"];
    let line = &source["locations"]["step3"]["locations"][0]["ranges"][0]["start"]["line"];
    assert_eq!(line, 3);
    assert_eq!(source["infos"][0]["data"], STANDARD.encode(DOCKERFILE));
    assert_eq!(metadata["buildkit_completeness"]["request"], true);
    assert_eq!(metadata["buildkit_hermetic"], false);
}

#[test]
fn what_comes_from_the_network_is_said_without_credentials() {
    let said = said(&build(git()), Some(git()), Detail::Max);
    let source = json!({ "uri": "https://host/repository.git#main", "digest": { "sha1": "c0ffee" } });
    let definition = &said["buildDefinition"];
    assert_eq!(definition["resolvedDependencies"][0], source, "each once");
    assert_eq!(definition["resolvedDependencies"].as_array().unwrap().len(), 2);
    let found = &definition["externalParameters"]["configSource"];
    assert_eq!((&found["uri"], &found["path"]), (&source["uri"], &json!("Dockerfile")));
    assert!(!said.to_string().contains("hunter2"));
    assert_eq!(said["runDetails"]["metadata"]["buildkit_completeness"]["resolvedDependencies"], true);
}

#[test]
fn operations_are_in_buildkits_words() {
    let definition = build(local());
    let ops: Vec<Value> = definition.vertices().iter().map(ops::op).collect();
    let digest = Digest::of(b"busybox");
    assert_eq!(
        ops[0],
        json!({
            "Op": { "source": { "identifier": format!("docker-image://docker.io/library/busybox:1@{digest}") } },
            "constraints": {},
        })
    );
    let action = &ops[3]["Op"]["file"]["actions"][0];
    assert_eq!(
        (&action["input"], &action["secondaryInput"], &action["output"]),
        (&json!(0), &json!(1), &json!(0))
    );
    assert_eq!(
        action["Action"]["copy"],
        json!({
            "src": "/", "dest": "/", "mode": -1, "timestamp": -1, "followSymlink": true, "dirCopyContents": true,
            "createDestPath": true,
        })
    );
    assert_eq!(
        ops[4]["Op"]["exec"],
        json!({
            "meta": { "args": ["make"], "cwd": "/" },
            "mounts": [{ "dest": "/" }],
            "secretenv": [{ "ID": "token", "name": "TOKEN", "optional": true }],
        })
    );
}

#[test]
fn the_older_form_says_the_same_in_other_places() {
    let definition = build(git());
    let v1 = said(&definition, Some(git()), Detail::Max);
    let older = predicate(&definition, Some(git()), Detail::Max, Form::V02);
    assert_eq!(older.kind, "https://slsa.dev/provenance/v0.2");
    let (older, defined) = (older.content, &v1["buildDefinition"]);
    assert_eq!(older["materials"], defined["resolvedDependencies"]);
    assert_eq!(older["buildConfig"], defined["internalParameters"]["buildConfig"]);
    assert_eq!(older["invocation"]["parameters"], defined["externalParameters"]["request"]);
    assert_eq!(older["invocation"]["configSource"]["entryPoint"], "Dockerfile");
    assert_eq!(older["metadata"]["buildInvocationID"], "42");
    assert_eq!(older["metadata"]["completeness"]["materials"], true);
    let own = &older["metadata"]["https://mobyproject.org/buildkit@v1#metadata"];
    assert_eq!(own, &v1["runDetails"]["metadata"]["buildkit_metadata"]);
}
