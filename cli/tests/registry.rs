//! `push`, `pull` and base images, with a registry: Debian's `docker-registry`, started on loopback.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::common::{TestEnvironment, skip};

/// A registry in a process of its own, ended when dropped.
pub(crate) struct Registry {
    child: Child,
    pub(crate) host: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Registry {
    /// Starts one that keeps its data in the test's directory. `None`, said aloud, where there is none.
    pub(crate) fn start(test: &TestEnvironment) -> Option<Self> {
        Self::start_with(test, &[])
    }

    /// The same, with these variables for its settings.
    pub(crate) fn start_with(test: &TestEnvironment, variables: &[(&str, &OsStr)]) -> Option<Self> {
        let settings = test.write("registry.yml", "version: 0.1\n");
        #[expect(clippy::disallowed_methods, reason = "a registry to test against")]
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(settings).stdout(Stdio::null()).stderr(Stdio::piped());
        command.env("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", test.path("registry"));
        command.env("REGISTRY_STORAGE_DELETE_ENABLED", "true");
        command.env("REGISTRY_HTTP_ADDR", "127.0.0.1:0").env("REGISTRY_LOG_FORMATTER", "json");
        command.envs(variables.iter().copied());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                skip(&format!("`docker-registry` cannot be started: {error}"));
                return None;
            }
        };
        let host = listening_on(&mut child);
        Some(Self { child, host })
    }

    pub(crate) fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.host)
    }
}

/// Reads the log up to `listening on 127.0.0.1:<port>`, and goes on reading it, lest the registry wait for a reader.
fn listening_on(child: &mut Child) -> String {
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    let host = loop {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "the registry ended");
        if let Some((_, rest)) = line.split_once("listening on ") {
            break rest.split(['"', ',', ' ']).next().unwrap().to_owned();
        }
    };
    std::thread::spawn(move || io::copy(&mut log, &mut io::sink()));
    host
}

/// A registry, and an environment whose image `busybox` is in it as `base`.
fn with_base() -> Option<(TestEnvironment, Registry)> {
    let test = TestEnvironment::with_base()?;
    let registry = Registry::start(&test)?;
    push(&test, "busybox", &registry.name("base"));
    Some((test, registry))
}

/// Pushes an image under a name; returns the digest it was pushed as.
#[track_caller]
fn push(test: &TestEnvironment, image: &str, name: &str) -> String {
    test.rbuild(&["tag", image, name]).outcome().succeeds();
    let said = test.rbuild(&["push", name]).outcome().succeeds().stdout;
    said.trim().rsplit('@').next().unwrap().to_owned()
}

fn manifest_digest(test: &TestEnvironment, image: &str) -> String {
    test.inspect(image)["Descriptor"]["digest"].as_str().unwrap().to_owned()
}

#[test]
fn what_was_pushed_can_be_pulled() {
    let Some((mut test, registry)) = with_base() else { return };
    let context = test.dockerfile("FROM busybox\nRUN echo content >/file\nCMD [\"cat\", \"/file\"]\n");
    test.build(&context, &["-t", "app"]).succeeds();
    let (name, id) = (registry.name("team/app:1"), test.image_id("app"));
    let digest = push(&test, "app", &name);
    assert_eq!(test.rbuild(&["push", "-q", &name]).outcome().succeeds().stdout, "");
    assert_eq!(push(&test, "app", &name), digest);

    test.set_store(test.path("fresh"));
    assert_eq!(test.rbuild(&["pull", &name]).outcome().succeeds().stdout, format!("{name}\n"));
    assert_eq!((test.image_id(&name), manifest_digest(&test, &name)), (id, digest.clone()));
    assert_eq!(test.rbuild(&["run", "--rm", &name]).outcome().succeeds().stdout, "content\n");
    // What was pulled is pushed again as it is.
    assert_eq!(push(&test, &name, &registry.name("team/app:2")), digest);
    test.assert_sound();

    test.set_store(test.path("by-digest"));
    let exact = registry.name(&format!("team/app@{digest}"));
    test.rbuild(&["pull", "-q", &exact]).outcome().succeeds();
    assert_eq!(test.rbuild(&["run", "--rm", &exact]).outcome().succeeds().stdout, "content\n");
}

#[test]
fn what_a_registry_lacks_is_a_remote_failure() {
    let Some((test, registry)) = with_base() else { return };
    test.rbuild(&["pull", &registry.name("nosuch")]).outcome().exits(4).says(&["manifest unknown"]);
    test.rbuild(&["push", &registry.name("nosuch")]).outcome().exits(1).says(&["No such image"]);
    let base = registry.name("base");
    drop(registry);
    test.rbuild(&["pull", &base]).outcome().exits(4).says(&["Connection refused"]);
    test.rbuild(&["push", &base]).outcome().exits(4).says(&["Connection refused"]);
    // Run is asked for an image, not for a registry.
    test.rbuild(&["run", "--rm", &base, "true"]).outcome().succeeds();
    test.rbuild(&["run", "--rm", "--pull", "always", &base, "true"]).outcome().exits(125);
    test.assert_sound();
}

#[test]
fn run_pulls_what_is_missing() {
    let Some((mut test, registry)) = with_base() else { return };
    test.set_store(test.path("fresh"));
    let base = registry.name("base");
    test.rbuild(&["run", "--rm", "--pull", "never", &base, "true"])
        .outcome()
        .exits(125)
        .says(&["not in the store"]);
    assert_eq!(test.rbuild(&["run", "--rm", &base, "echo", "hi"]).outcome().succeeds().stdout, "hi\n");
    drop(registry);
    assert_eq!(test.rbuild(&["run", "--rm", &base, "echo", "hi"]).outcome().succeeds().stdout, "hi\n");
}

#[test]
fn a_base_image_is_fetched_once() {
    let Some((mut test, registry)) = with_base() else { return };
    test.set_store(test.path("fresh"));
    let context = test.dockerfile(&format!("FROM {}\nRUN echo hi >/x\n", registry.name("base")));
    assert_eq!(test.build(&context, &["-t", "app"]).succeeds().ran(), ["RUN echo hi >/x"]);
    let id = test.image_id("app");
    drop(registry);
    let again = test.build(&context, &["-t", "app"]).succeeds();
    assert_eq!((again.ran(), again.cached()), (vec![], vec!["RUN echo hi >/x"]));
    assert_eq!(test.image_id("app"), id);
    test.build(&context, &["--pull"]).exits(4).says(&["Connection refused", "Dockerfile:1"]);
    test.assert_sound();
}

#[test]
fn pull_asks_for_a_newer_base_image() {
    let Some((mut test, registry)) = with_base() else { return };
    let base = registry.name("base");
    let newer = test.dockerfile("FROM busybox\nRUN echo newer >/version\n");
    test.build(&newer, &["-t", "newer"]).succeeds();
    let context = test.context("second", &[]);
    context.dockerfile(&format!("FROM {base}\nCMD [\"cat\", \"/version\"]\n"));
    let builder = test.path("builder");
    let publisher = test.store().to_owned();

    test.set_store(&builder);
    test.build(&context, &["-t", "app"]).succeeds();
    let id = test.image_id("app");
    test.set_store(&publisher);
    push(&test, "newer", &base);
    test.set_store(&builder);
    test.build(&context, &["-t", "app"]).succeeds();
    assert_eq!(test.image_id("app"), id);
    test.build(&context, &["--pull", "-t", "app"]).succeeds();
    assert_eq!(test.rbuild(&["run", "--rm", "app"]).outcome().succeeds().stdout, "newer\n");
    // What was asked for once is what the name stands for from then on.
    let id = test.image_id("app");
    test.build(&context, &["-t", "app"]).succeeds();
    assert_eq!(test.image_id("app"), id);
}

#[test]
fn an_index_gives_this_machine_s_image() {
    let Some((mut test, registry)) = with_base() else { return };
    if !PathBuf::from("/usr/bin/skopeo").exists() {
        skip("`skopeo` is not installed");
        return;
    }
    // A layout whose index has another platform's image first.
    let context = test.dockerfile("FROM busybox\nCMD [\"echo\", \"mine\"]\n");
    test.build(&context, &["-t", "app", "-o", "type=oci,tar=false,dest=layout"]).succeeds();
    let layout = test.path("layout");
    let blob = |bytes: &[u8]| {
        let digest = rbuild_image::Digest::of(bytes);
        fs::write(layout.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        digest.to_string()
    };
    let read = |digest: &str| -> serde_json::Value {
        serde_json::from_slice(&fs::read(layout.join("blobs/sha256").join(&digest[7..])).unwrap()).unwrap()
    };
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let mut mine = index["manifests"][0].clone();
    mine["annotations"] = serde_json::json!({});
    let mut manifest = read(mine["digest"].as_str().unwrap());
    let mut config = read(manifest["config"]["digest"].as_str().unwrap());
    config["architecture"] = "s390x".into();
    let bytes = serde_json::to_vec(&config).unwrap();
    (manifest["config"]["digest"], manifest["config"]["size"]) = (blob(&bytes).into(), bytes.len().into());
    let bytes = serde_json::to_vec(&manifest).unwrap();
    let mut other = mine.clone();
    (other["digest"], other["size"]) = (blob(&bytes).into(), bytes.len().into());
    other["platform"]["architecture"] = "s390x".into();
    let media_type = "application/vnd.oci.image.index.v1+json";
    let bytes = serde_json::to_vec(
        &serde_json::json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": [other, mine] }),
    );
    let bytes = bytes.unwrap();
    let entry = serde_json::json!({ "mediaType": media_type, "digest": blob(&bytes), "size": bytes.len() });
    let outer = serde_json::json!({ "schemaVersion": 2, "manifests": [entry] });
    fs::write(layout.join("index.json"), outer.to_string()).unwrap();
    let name = registry.name("multi:1");
    skopeo(
        &test,
        &["copy", "--all", "--quiet", "--dest-tls-verify=false", "oci:layout", &format!("docker://{name}")],
    );

    test.set_store(test.path("fresh"));
    test.rbuild(&["pull", &name]).outcome().succeeds();
    assert_eq!(test.rbuild(&["run", "--rm", &name]).outcome().succeeds().stdout, "mine\n");
    assert_eq!(test.inspect(&name)["Architecture"], rbuild_image::Platform::host().architecture);
    // It goes by the id that is shown.
    let id = test.rbuild(&["images", "-q"]).outcome().succeeds().stdout;
    assert_eq!(test.rbuild(&["run", "--rm", id.trim()]).outcome().succeeds().stdout, "mine\n");
    test.set_store(test.path("other"));
    test.rbuild(&["pull", "--platform", "linux/s390x", &name]).outcome().succeeds();
    test.rbuild(&["pull", "--platform", "linux/riscv64", &name]).outcome().exits(4).says(&["linux/riscv64"]);
    test.assert_sound();
}

#[test]
fn skopeo_pulls_what_was_pushed() {
    let Some((test, registry)) = with_base() else { return };
    if !PathBuf::from("/usr/bin/skopeo").exists() {
        skip("`skopeo` is not installed");
        return;
    }
    let digest = push(&test, "busybox", &registry.name("app:1"));
    let source = format!("docker://{}", registry.name("app:1"));
    let found = skopeo(&test, &["inspect", "--tls-verify=false", &source]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&found).unwrap()["Digest"], digest.as_str());
    skopeo(&test, &["copy", "--quiet", "--src-tls-verify=false", &source, "oci:copy:latest"]);
    assert!(fs::read_to_string(test.path("copy/index.json")).unwrap().contains(&digest));
}

#[track_caller]
fn skopeo(test: &TestEnvironment, arguments: &[&str]) -> String {
    #[expect(clippy::disallowed_methods, reason = "another client of the registry")]
    let mut command = Command::new("skopeo");
    command.args(arguments).current_dir(test.path("")).env("HOME", test.path("home"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{arguments:?}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn cache_mounts_are_carried_through_a_registry() {
    let Some((mut test, registry)) = with_base() else { return };
    let fill = "mkdir /c/d && echo carried >/c/d/x && ln -s d/x /c/link";
    let context = test.dockerfile(&format!("FROM busybox\nRUN --mount=type=cache,target=/c {fill}\n"));
    test.build(&context, &[]).succeeds();
    let name = registry.name("caches/c:1");
    let said = test.rbuild(&["cache-mount", "export", "/c", "--to", &name]).outcome().succeeds().stdout;
    assert!(said.starts_with(&registry.name("caches/c@sha256:")), "{said}");
    let import = |test: &TestEnvironment, from: &str| {
        test.rbuild(&["cache-mount", "import", "/c", "--from", from]).outcome()
    };
    test.set_store(test.path("other"));
    assert!(test.import_base());
    import(&test, &name).succeeds();
    let context = test.dockerfile("FROM busybox\nRUN --mount=type=cache,target=/c cat /c/link >/seen\n");
    assert_eq!(test.build_tree(&context, &[]).text("seen"), "carried\n");
    // What is refused changes nothing.
    import(&test, &registry.name("base"))
        .exits(2)
        .says(&["is of type `application/vnd.oci.image.config.v1+json`"]);
    import(&test, &registry.name("nosuch")).exits(4).says(&["manifest unknown"]);
    test.rbuild(&["cache-mount", "import", "/c"]).outcome().exits(2).says(&["--from"]);
    test.rbuild(&["cache-mount", "export", "/c", "-o", "x", "--to", "y"]).outcome().exits(2);
    assert_eq!(test.rbuild(&["cache-mount", "ls", "-q"]).outcome().succeeds().stdout.lines().count(), 1);
    test.assert_sound();
}
