//! What is said of an image beside it: in archives, in registries, in the store; and what others said of theirs.

use std::path::Path;

use rbuild_image::{DiffId, Digest, ImageConfig, Index, Manifest, MediaType, Platform};
use rbuild_registry::testing::{FakeRegistry, Fault, ServedFile};
use serde_json::{Value, json};

use crate::common::{Context, GitServer, Repository, TestEnvironment, Tree};

const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
const SPDX: &str = "https://spdx.dev/Document";

/// The documents of an OCI archive.
struct Archive(Tree);

impl Archive {
    fn read(test: &TestEnvironment, name: &str) -> Self {
        Self(Tree::read(&std::fs::read(test.path(name)).unwrap()))
    }

    fn blob(&self, digest: Digest) -> &[u8] {
        &self.0.0[&format!("blobs/sha256/{}", digest.hex())].content
    }

    /// The one index, whose digest the archive's own index names.
    fn index(&self) -> Index {
        let outer = Index::parse(&self.0.0["index.json"].content).unwrap();
        assert_eq!(outer.manifests.len(), 1);
        Index::parse(self.blob(outer.manifests[0].digest)).unwrap()
    }
}

/// What an index says of each of its images, in order: the statements. All that it says has to hold.
fn statements(index: &Index, blob: impl Fn(Digest) -> Vec<u8>) -> Vec<Vec<Value>> {
    let images: Vec<Digest> = index.images().map(|entry| entry.digest).collect();
    let said = index.manifests.iter().filter_map(|entry| Some((entry, entry.attests()?)));
    let statements_of = |(entry, of): (&rbuild_image::Descriptor, Digest)| {
        assert!(images.contains(&of), "{of} is no image of the index");
        assert_eq!(entry.platform.as_ref().unwrap().to_string(), "unknown/unknown");
        let manifest = Manifest::parse(&blob(entry.digest)).unwrap();
        let config = ImageConfig::parse(&blob(manifest.config.digest)).unwrap();
        let layers: Vec<DiffId> = manifest.layers.iter().map(|layer| DiffId(layer.digest)).collect();
        assert_eq!(config.rootfs.diff_ids, layers);
        let statement = |layer: &rbuild_image::Descriptor| {
            assert_eq!(layer.media_type.as_str(), "application/vnd.in-toto+json");
            let bytes = blob(layer.digest);
            assert_eq!((Digest::of(&bytes), bytes.len() as u64), (layer.digest, layer.size_bytes));
            let statement: Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(statement["_type"], "https://in-toto.io/Statement/v0.1");
            assert_eq!(statement["predicateType"], layer.annotations["in-toto.io/predicate-type"].as_str());
            assert_eq!(statement["subject"][0]["digest"]["sha256"], of.hex());
            statement
        };
        manifest.layers.iter().map(statement).collect()
    };
    said.map(statements_of).collect()
}

fn app_context(test: &TestEnvironment) -> Context {
    let text =
        "FROM busybox\nARG LEVEL\nCOPY file /file\nRUN --mount=type=secret,id=token cat /file >/copy\n";
    test.context("app", &[("Dockerfile", text), ("file", "content\n")])
}

/// The one statement about the one image.
fn only(mut said: Vec<Vec<Value>>) -> Value {
    assert_eq!((said.len(), said[0].len()), (1, 1), "{said:?}");
    said.remove(0).remove(0)
}

#[test]
fn an_archive_says_how_its_image_was_made() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let (context, token) = (app_context(&test), test.write("token", "hunter2"));
    let secret = format!("id=token,src={}", token.display());
    let cases =
        [("mode=min", vec!["resolvedDependencies"]), ("true", vec!["llbDefinition", "LEVEL", "token"])];
    for (mode, words) in cases {
        let line = ["--provenance", mode, "--secret", &secret, "--build-arg", "LEVEL=2"];
        let output = ["-t", "app:1", "-o", "type=oci,dest=app.tar"];
        test.build_command(&context, &line).args(&output).outcome().succeeds();
        let archive = Archive::read(&test, "app.tar");
        let statement = only(statements(&archive.index(), |digest| archive.blob(digest).to_vec()));
        assert_eq!(statement["predicateType"], PROVENANCE);
        let name = statement["subject"][0]["name"].as_str().unwrap();
        assert!(name.starts_with("pkg:docker/app@1?platform=linux%2F"), "{name}");
        let text = statement.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{mode}: {text}");
        assert_eq!(text.contains("LEVEL"), mode == "true", "{mode}: {text}");
        assert!(!text.contains("hunter2"), "{mode}");
    }
    assert_eq!(test.run("app:1", "cat /copy"), "content\n");
    test.assert_sound();
}

/// The index that a registry has under a tag, and what it says.
fn in_registry(registry: &FakeRegistry, repository: &str) -> (Index, Vec<Vec<Value>>) {
    let manifest = |name: &str| registry.manifest(repository, name).unwrap();
    let index = Index::parse(&manifest("1")).unwrap();
    let said = statements(&index, |digest| {
        registry.blob(repository, digest).unwrap_or_else(|| manifest(&digest.to_string()))
    });
    (index, said)
}

#[test]
fn what_is_said_goes_where_the_image_goes() {
    let Some(mut test) = TestEnvironment::with_base() else { return };
    let registry = FakeRegistry::start().unwrap();
    let name = |repository: &str| format!("{}/{repository}:1", registry.name());
    let rbuild = |test: &TestEnvironment, line: &[&str]| test.rbuild(line).outcome().succeeds().stdout;
    let app = name("app");
    let metadata = ["--metadata-file", "metadata.json"];
    let pushed = ["-t", &app, "--push", "--provenance=mode=max"];
    test.build_command(&app_context(&test), &pushed).args(&metadata).outcome().succeeds();
    let (index, said) = in_registry(&registry, "app");
    assert_eq!((index.manifests.len(), said.len()), (2, 1));
    assert!(test.read("metadata.json").contains("\"buildx.build.provenance\""));

    // The store keeps it, and so does an archive; in another form, it is said of that.
    rbuild(&test, &["save", "--format", "oci-archive", "-o", "app.tar", &app]);
    rbuild(&test, &["tag", &app, &name("again")]);
    rbuild(&test, &["push", "--compression", "zstd", "--force-compression", &name("again")]);
    let (again, said_again) = in_registry(&registry, "again");
    assert_ne!(again.manifests[0].digest, index.manifests[0].digest);
    assert_eq!(said_again[0][0]["predicate"], said[0][0]["predicate"]);

    rbuild(&test, &["copy", "-q", &app, &name("copy")]);
    assert_eq!(in_registry(&registry, "copy"), (index.clone(), said.clone()));
    let shown: Value = test.rbuild(&["manifest", "inspect", &app]).outcome().succeeds().json();
    assert_eq!(shown["manifests"].as_array().unwrap().len(), 2);

    test.set_store(test.path("loaded"));
    rbuild(&test, &["load", "-i", "app.tar"]);
    assert_eq!(rbuild(&test, &["run", "--rm", &app, "cat", "/copy"]), "content\n");
    rbuild(&test, &["tag", &app, &name("loaded")]);
    rbuild(&test, &["push", &name("loaded")]);
    assert_eq!(in_registry(&registry, "loaded").1[0][0]["predicate"], said[0][0]["predicate"]);
    test.assert_sound();

    test.set_store(test.path("pulled"));
    rbuild(&test, &["pull", "-q", &app]);
    assert_eq!(rbuild(&test, &["run", "--rm", &app, "cat", "/copy"]), "content\n");
    let id = rbuild(&test, &["images", "-q"]);
    assert_eq!(rbuild(&test, &["run", "--rm", id.trim(), "cat", "/copy"]), "content\n");
    // What was said of what is pulled is pulled, and goes on with it, and goes with it.
    rbuild(&test, &["tag", &app, &name("pulled")]);
    rbuild(&test, &["push", &name("pulled")]);
    assert_eq!(in_registry(&registry, "pulled"), (index, said));
    test.assert_sound();
    rbuild(&test, &["rmi", &app, &name("pulled")]);
    rbuild(&test, &["system", "prune", "-af"]);
    assert_eq!(blobs(&test), 0);
    test.assert_sound();
}

/// How many documents and blobs the store has.
fn blobs(test: &TestEnvironment) -> usize {
    let below = |directory: &Path| std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    below(&test.store().join("content/sha256")).map(|some| below(&some).count()).sum()
}

#[test]
fn what_is_said_of_one_of_several_platforms_comes_with_it() {
    let mut test = TestEnvironment::new();
    let registry = FakeRegistry::start().unwrap();
    let name = |repository: &str| format!("{}/{repository}:1", registry.name());
    let context = test.context("context", &[("Dockerfile", "FROM scratch\nCOPY x /\n"), ("x", "1")]);
    let platforms = format!("{},linux/s390x", Platform::host());
    let line = ["--platform", &platforms, "--provenance=true", "-t", &name("both"), "--push"];
    test.build(&context, &line).succeeds();
    let (both, said_of_both) = in_registry(&registry, "both");
    assert_eq!((both.manifests.len(), said_of_both.len()), (4, 2));
    test.set_store(test.path("pulled"));
    test.rbuild(&["pull", "-q", &name("both")]).outcome().succeeds();
    test.rbuild(&["tag", &name("both"), &name("one")]).outcome().succeeds();
    test.rbuild(&["push", &name("one")]).outcome().succeeds();
    let (one, said) = in_registry(&registry, "one");
    let images: Vec<Digest> = one.images().map(|entry| entry.digest).collect();
    assert_eq!((one.manifests.len(), images), (2, vec![both.manifests[0].digest]));
    assert_eq!(said, said_of_both[..1]);
    // A registry that has the image alone gives the image alone.
    registry.plan(
        "GET",
        &both.manifests[2].digest.to_string(),
        usize::MAX,
        Fault::Status(404, vec![], String::new()),
    );
    test.set_store(test.path("without"));
    test.rbuild(&["pull", "-q", &name("both")]).outcome().succeeds();
    test.assert_sound();
}

#[test]
fn what_is_said_of_files_is_beside_them() {
    let test = TestEnvironment::new();
    let text = "FROM scratch\nCOPY file /d/file\nCOPY file /other\n";
    let context = test.context("context", &[("Dockerfile", text), ("file", "content\n")]);
    let digest = Digest::of(b"content\n").hex();
    let is_said = |text: &[u8]| {
        let statement: Value = serde_json::from_slice(text).unwrap();
        let subject = |name: &str| json!({ "name": name, "digest": { "sha256": digest } });
        assert_eq!(statement["subject"], json!([subject("d/file"), subject("other")]));
        assert_eq!(
            (&statement["predicateType"], &statement["_type"]),
            (&json!(PROVENANCE), &json!("https://in-toto.io/Statement/v0.1"))
        );
    };
    let tree = test.build_tree(&context, &["--provenance=mode=min"]);
    is_said(&tree.0["provenance.json"].content);
    assert_eq!(tree.0["provenance.json"].mode, 0o600);
    test.build(&context, &["--provenance=filename=how.json", "-o", "out"]).succeeds();
    is_said(test.read("out/how.json").as_bytes());
    assert!(!test.path("out/provenance.json").exists());
    let inline = test.build_tree(&context, &["--provenance=mode=min,inline-only=true"]);
    assert!(!inline.0.contains_key("provenance.json"));
    let several = ["--platform", "linux/amd64,linux/arm64", "--provenance=true", "-o", "several"];
    test.build(&context, &several).succeeds();
    for platform in ["linux_amd64", "linux_arm64"] {
        is_said(test.read(&format!("several/{platform}/provenance.json")).as_bytes());
    }
    test.assert_sound();
}

#[test]
fn a_scanner_says_what_is_in_the_image() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let scanner = r#"FROM busybox
COPY --chmod=755 scan /scan
ENTRYPOINT ["/scan"]
"#;
    let script = r#"#!/bin/sh
! touch "$BUILDKIT_SCAN_SOURCE/mark" 2>/dev/null || exit 1
say() {
    echo "{\"_type\":\"https://in-toto.io/Statement/v0.1\",\"predicateType\":\"https://spdx.dev/Document\",\"predicate\":$2}" \
        >"$BUILDKIT_SCAN_DESTINATION/$1.spdx.json"
}
say another '{"name":"another"}'
say "$(basename "$BUILDKIT_SCAN_SOURCE")" "{\"name\":\"$(cat "$BUILDKIT_SCAN_SOURCE/copy")\",\"level\":$BUILDKIT_SCAN_LEVEL}"
"#;
    let context = test.context("scanner", &[("Dockerfile", scanner), ("scan", script)]);
    test.build(&context, &["-t", "scanner"]).succeeds();
    let line = ["-t", "app", "--sbom", "generator=scanner,LEVEL=3", "--provenance=mode=min"];
    let build = || {
        let output = ["-o", "type=oci,dest=app.tar"];
        test.build_command(&app_context(&test), &line).args(&output).outcome().succeeds()
    };
    build();
    let archive = Archive::read(&test, "app.tar");
    let said = statements(&archive.index(), |digest| archive.blob(digest).to_vec()).remove(0);
    let kinds: Vec<&str> = said.iter().map(|said| said["predicateType"].as_str().unwrap()).collect();
    assert_eq!(kinds, [SPDX, SPDX, PROVENANCE]);
    assert_eq!(said[0]["predicate"], json!({ "name": "content", "level": 3 }));
    assert_eq!(said[1]["predicate"], json!({ "name": "another" }));
    let files = test.build_tree(&app_context(&test), &line[2..]);
    for (file, of) in [("sbom.spdx.json", 0), ("another.spdx.json", 1)] {
        let beside: Value = serde_json::from_slice(&files.0[file].content).unwrap();
        assert_eq!(beside["predicate"], said[of]["predicate"], "{file}");
    }
    // A scan is a step like others: what was scanned is not scanned again.
    assert_eq!(build().ran(), [""; 0]);
    test.build(&app_context(&test), &["--sbom", "generator=busybox"]).succeeds();
    test.assert_sound();

    let broken = r#"FROM busybox
ENTRYPOINT ["sh", "-c", "echo nonsense >$BUILDKIT_SCAN_DESTINATION/sbom.spdx.json"]
"#;
    let context = test.context("broken", &[("Dockerfile", broken)]);
    test.build(&context, &["-t", "broken"]).succeeds();
    let outcome = test.build(&app_context(&test), &["--sbom", "generator=broken"]);
    outcome.exits(1).says(&["failed to read statement `sbom.spdx.json` of the scanner"]);
}

#[test]
fn each_platform_has_its_own() {
    let test = TestEnvironment::new();
    let context = test.context("context", &[("Dockerfile", "FROM scratch\nCOPY x /\n"), ("x", "1")]);
    let line = ["--platform", "linux/amd64,linux/arm64", "--provenance=true", "-o", "type=oci,dest=app.tar"];
    test.build(&context, &line).succeeds();
    let archive = Archive::read(&test, "app.tar");
    let index = archive.index();
    let platforms = index.images().map(|entry| entry.platform.as_ref().unwrap().to_string());
    assert_eq!(platforms.collect::<Vec<_>>(), ["linux/amd64", "linux/arm64"]);
    let said = statements(&index, |digest| archive.blob(digest).to_vec());
    assert_eq!(said.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(said[0][0]["subject"][0]["name"], "_", "it has no name");
    test.build(&context, &["--provenance=mode=all"]).exits(2).says(&["`mode` cannot be `all`"]);
}

/// As BuildKit writes it: a layer of a type that is no layer's, and a config that is an image's.
fn as_buildkit_pushes(registry: &FakeRegistry, image: &rbuild_image::Descriptor) {
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": PROVENANCE,
        "subject": [{ "name": "pkg:docker/app@1", "digest": { "sha256": image.digest.hex() } }],
        "predicate": { "builder": { "id": "" } },
    });
    let statement = serde_json::to_vec_pretty(&statement).unwrap();
    let mut layer = registry.add_blob("theirs", &statement);
    layer.media_type = MediaType::InToto;
    layer.annotations.insert("in-toto.io/predicate-type".to_owned(), PROVENANCE.to_owned());
    let mut config = ImageConfig::new(Platform::new("unknown", "unknown", None));
    config.rootfs.diff_ids = vec![DiffId(layer.digest)];
    let mut config = registry.add_blob("theirs", &config.to_bytes());
    config.media_type = MediaType::OciConfig;
    let manifest = Manifest::new(config, vec![layer]).to_bytes();
    let entry = registry.add_manifest("theirs", "said", &MediaType::OciManifest, &manifest);
    let index = Index::new(vec![image.clone(), entry.attesting(image.digest)]);
    registry.add_manifest("theirs", "1", &MediaType::OciIndex, &index.to_bytes());
}

#[test]
fn images_of_which_others_said_something_are_images() {
    let test = TestEnvironment::new();
    let registry = FakeRegistry::start().unwrap();
    let layer = crate::common::tar_of(&[("file", "theirs\n")]);
    let image = registry.add_image("theirs", "plain", &Platform::host(), &[&layer]);
    as_buildkit_pushes(&registry, &image);
    let name = format!("{}/theirs:1", registry.name());
    let context = test.dockerfile(&format!("FROM {name}\nCOPY --from={name} /file /copy\n"));
    let metadata = ["--provenance=mode=min", "--metadata-file", "metadata.json"];
    let tree = test.build_tree(&context, &metadata);
    assert_eq!((tree.text("file"), tree.text("copy")), ("theirs\n", "theirs\n"));
    // The name led to an index, and that is what the result is made of.
    let made: Value = serde_json::from_str(&test.read("metadata.json")).unwrap();
    let made_of = &made["buildx.build.provenance"]["buildDefinition"]["resolvedDependencies"];
    let index = Digest::of(registry.manifest("theirs", "1").unwrap()).hex();
    assert_eq!(made_of[0]["digest"]["sha256"], index, "{made_of}");
    test.rbuild(&["pull", "-q", &name]).outcome().succeeds();
    assert_eq!(test.inspect(&name)["Architecture"], Platform::host().architecture);
    let (from, to) = (name.as_str(), format!("{}/copy:1", registry.name()));
    test.rbuild(&["copy", "-q", from, &to]).outcome().succeeds();
    assert_eq!(in_registry(&registry, "copy"), in_registry(&registry, "theirs"));
    // What was pulled of it goes on as the image that it is.
    test.rbuild(&["save", "-o", "theirs.tar", &name]).outcome().succeeds();
    test.assert_sound();
}

#[test]
fn what_comes_from_the_network_is_named_with_what_it_was() {
    let test = TestEnvironment::new();
    let web = FakeRegistry::start().unwrap();
    web.add_file("a.txt", ServedFile { content: b"one".to_vec(), ..ServedFile::default() });
    let repository = Repository::new(test.path("repos/app"));
    let commit =
        repository.commit(&[("Dockerfile", &format!("FROM scratch\nADD {} /\n", web.url("/files/a.txt")))]);
    let server = GitServer::start(&test.path("repos"), None);
    let said = |line: &[&str]| -> Value {
        let output = ["--provenance=mode=max", "--metadata-file", "metadata.json", &server.url("app")];
        test.rbuild(&["build"]).args(line).args(&output).outcome().succeeds();
        let metadata: Value = serde_json::from_str(&test.read("metadata.json")).unwrap();
        metadata["buildx.build.provenance"].clone()
    };
    for line in [&["--no-cache"][..], &[]] {
        let said = said(line);
        let (definition, metadata) = (&said["buildDefinition"], &said["runDetails"]["metadata"]);
        let file =
            json!({ "uri": web.url("/files/a.txt"), "digest": { "sha256": Digest::of(b"one").hex() } });
        let tree = json!({ "uri": server.url("app"), "digest": { "sha1": commit } });
        let found = definition["resolvedDependencies"].as_array().unwrap();
        assert!(found.len() == 2 && found.contains(&file) && found.contains(&tree), "{line:?}: {found:?}");
        assert_eq!(definition["externalParameters"]["configSource"]["digest"]["sha1"], commit);
        assert_eq!(metadata["buildkit_completeness"]["resolvedDependencies"], true);
        assert_eq!(metadata["buildkit_hermetic"], true, "no step ran with a network");
    }
}
