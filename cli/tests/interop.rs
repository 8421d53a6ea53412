//! Images that rbuild writes, read by other tools, and the other way round.
//!
//! The tools are Debian's (`scripts/test.sh` installs them); nothing of them is called but their command lines.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::common::{TestEnvironment, is_root, skip};

/// What a container of the image `app` prints.
const GREETING: &str = "hello nobody /srv\n";

/// Another program, in the test's directory and with its home.
#[track_caller]
fn tool<S: AsRef<OsStr>>(test: &TestEnvironment, program: &str, arguments: &[S]) -> String {
    #[expect(clippy::disallowed_methods, reason = "other programs are what these tests are about")]
    let mut command = Command::new(program);
    let settings = test.path("containers.conf");
    command.args(arguments).current_dir(test.path("")).env("HOME", test.path("home"));
    command.env("CONTAINERS_CONF", settings).env_remove("XDG_RUNTIME_DIR");
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// An environment with the image `app`, where these programs are installed.
fn with_app(programs: &[&str]) -> Option<TestEnvironment> {
    let missing = |program: &&&str| !Path::new("/usr/bin").join(program).exists();
    if let Some(program) = programs.iter().find(missing) {
        skip(&format!("`{program}` is not installed"));
        return None;
    }
    let test = TestEnvironment::with_base()?;
    // A container may not be given more than the test itself may have.
    test.write("containers.conf", "[containers]\ndefault_ulimits = [\"nofile=256:256\", \"nproc=64:64\"]\n");
    let context = test.context("context", &[("Dockerfile", DOCKERFILE), ("file", "content\n")]);
    test.build(&context, &["-t", "app"]).succeeds();
    Some(test)
}

const DOCKERFILE: &str = "FROM busybox
RUN mkdir -p /data/empty && echo gone >/data/gone && ln -s file /data/link && chmod 4755 /bin/busybox
RUN rm /data/gone && ln /data/link /data/hard && chown 12:34 /data/empty
COPY --chown=55:66 --chmod=640 file /data/file
WORKDIR /srv
USER nobody
LABEL purpose=\"interop\"
ENV GREETING=hello
ENTRYPOINT [\"/bin/sh\", \"-c\", \"echo $GREETING $(id -un) $(pwd)\"]
";

/// `app` in all the forms that rbuild writes, as skopeo names them.
fn written_forms(test: &TestEnvironment) -> [String; 4] {
    for (format, file) in [("docker-archive", "app.docker"), ("oci-archive", "app.oci")] {
        test.rbuild(&["save", "--format", format, "-o", file, "app"]).outcome().succeeds();
    }
    for output in ["type=oci,tar=false,dest=app.layout", "type=docker,dest=app.built"] {
        test.rbuild(&["build", "-q", "-t", "app", "-o", output, "context"]).outcome().succeeds();
    }
    ["docker-archive:app.docker", "oci-archive:app.oci", "oci:app.layout", "docker-archive:app.built"]
        .map(str::to_owned)
}

#[test]
fn skopeo_reads_what_rbuild_writes() {
    let Some(test) = with_app(&["skopeo"]) else { return };
    let id = test.image_id("app");
    for source in written_forms(&test) {
        let found: Value = serde_json::from_str(&tool(&test, "skopeo", &["inspect", &source])).unwrap();
        assert_eq!(found["Labels"]["purpose"], "interop", "{source}");
        assert_eq!(found["Layers"].as_array().unwrap().len(), 5, "{source}");
        let config = tool(&test, "skopeo", &["inspect", "--config", "--raw", &source]);
        assert_eq!(rbuild_image::Digest::of(config.as_bytes()).to_string(), id, "{source}");
        let target = format!("oci:copy-of-{}:latest", source.replace([':', '.'], "-"));
        tool(&test, "skopeo", &["copy", "--quiet", &source, &target]);
    }
}

#[test]
fn umoci_unpacks_the_same_tree() {
    let Some(test) = with_app(&["umoci"]) else { return };
    written_forms(&test);
    let mut arguments = vec!["unpack", "--image", "app.layout:latest", "bundle"];
    let root = is_root("comparing the owners of files");
    if !root {
        arguments.insert(1, "--rootless");
    }
    tool(&test, "umoci", &arguments);
    let ours = test.rbuild(&["build", "-q", "-o", "type=tar,dest=-", "context"]).outcome().succeeds();
    let tree = crate::common::Tree::read(&ours.stdout_bytes);
    let rootfs = test.path("bundle/rootfs");
    for (path, entry) in &tree.0 {
        let found = rootfs.join(path).symlink_metadata().unwrap_or_else(|error| panic!("{path}: {error}"));
        let owner = (u64::from(found.uid()), u64::from(found.gid()));
        assert!(!root || owner == entry.owner, "{path}: {owner:?} and {:?}", entry.owner);
        if !found.is_symlink() {
            assert_eq!(found.mode() & 0o7777, entry.mode, "{path}");
        }
        if entry.kind.is_file() {
            assert!(fs::read(rootfs.join(path)).is_ok_and(|content| content == entry.content), "{path}");
        }
    }
    assert_eq!(count(&rootfs), tree.0.len());
}

/// How many entries there are below a directory.
fn count(directory: &Path) -> usize {
    let below = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        1 + if entry.file_type().unwrap().is_dir() { count(&entry.path()) } else { 0 }
    };
    fs::read_dir(directory).unwrap().map(below).sum()
}

/// podman, with a store in the test's directory.
#[track_caller]
fn podman(test: &TestEnvironment, arguments: &[&str]) -> String {
    // crun refuses a machine with both kinds of control groups, so it sees the newer kind alone.
    let unified = "umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"";
    let alone = ["--mount", "sh", "-c", unified, "sh", "podman"];
    let storage = ["--root", "podman", "--runroot", "podman-run", "--storage-driver", "vfs"];
    tool(test, "unshare", &[&alone[..], &storage, arguments].concat())
}

#[test]
fn podman_runs_what_rbuild_writes() {
    if !is_root("podman without a login session") {
        return;
    }
    let Some(test) = with_app(&["podman"]) else { return };
    let podman = |arguments: &[&str]| podman(&test, arguments);
    written_forms(&test);
    for archive in ["app.docker", "app.oci"] {
        let loaded = podman(&["load", "--quiet", "-i", archive]);
        assert_eq!(loaded, "Loaded image: docker.io/library/app:latest\n");
        let id = podman(&["image", "inspect", "--format", "{{.Id}}", "app"]);
        assert_eq!(format!("sha256:{}", id.trim()), test.image_id("app"));
        let shown = podman(&["run", "--rm", "--network", "host", "--cgroups", "disabled", "app"]);
        assert_eq!(shown, GREETING);
    }
}

#[test]
fn a_container_walks_from_one_engine_to_the_other_and_back() {
    if !is_root("podman without a login session") {
        return;
    }
    let Some(test) = with_app(&["podman"]) else { return };
    let rbuild = |line: &[&str]| test.rbuild(line).outcome().succeeds().stdout;
    let alone = ["--network", "host", "--user", "0", "--entrypoint", "/bin/sh"];
    let run = ["run", "--name", "first"];
    rbuild(&[&run[..], &alone, &["app", "-c", "echo rbuild >/trail"]].concat());
    rbuild(&["commit", "first", "trail:1"]);
    rbuild(&["save", "-o", "first.tar", "trail:1"]);
    podman(&test, &["load", "--quiet", "-i", "first.tar"]);
    let run = ["run", "--name", "second", "--cgroups", "disabled"];
    podman(&test, &[&run[..], &alone, &["trail:1", "-c", "echo podman >>/trail"]].concat());
    podman(&test, &["commit", "--quiet", "second", "trail:2"]);
    podman(&test, &["save", "--quiet", "-o", "second.tar", "localhost/trail:2"]);
    rbuild(&["load", "-i", "second.tar"]);
    let shown = rbuild(&[&["run", "--rm"], &alone[..], &["localhost/trail:2", "-c", "cat /trail"]].concat());
    assert_eq!(shown, "rbuild\npodman\n");
    rbuild(&["rm", "first"]);
    test.assert_sound();
}

#[test]
fn rbuild_runs_what_skopeo_writes() {
    let Some(mut test) = with_app(&["skopeo"]) else { return };
    written_forms(&test);
    let compressed = |format| ["--dest-compress", "--dest-compress-format", format];
    let copies: [(&[&str], &str); 6] = [
        (&[], "docker-archive:named.docker:team/app:1"),
        (&[], "oci-archive:plain.oci:latest"),
        (&compressed("gzip"), "oci:gzip.layout:latest"),
        (&compressed("gzip"), "oci-archive:gzip.oci:localhost/app:2"),
        (&compressed("zstd"), "oci-archive:zstd.oci"),
        (&[], "dir:directory"),
    ];
    for (number, (options, target)) in copies.into_iter().enumerate() {
        let line = [&["copy", "--quiet"], options, &["oci:app.layout", target]].concat();
        tool(&test, "skopeo", &line);
        test.set_store(test.path(&format!("store-{number}")));
        let file = target.split(':').nth(1).unwrap();
        let loaded = test.rbuild(&["load", "-i", file]).outcome().succeeds().stdout;
        let image = loaded.trim().rsplit(' ').next().unwrap().to_owned();
        let named = match number {
            0 => image == "team/app:1",
            3 => image == "localhost/app:2",
            _ => image.starts_with("sha256:"),
        };
        assert!(named, "{target}: {loaded}");
        let shown = test.rbuild(&["run", "--rm", &image]).outcome().succeeds().stdout;
        assert_eq!(shown, GREETING, "{target}");
        test.assert_sound();
    }
}

#[test]
fn rbuild_runs_what_podman_writes() {
    if !is_root("podman without a login session") {
        return;
    }
    let Some(mut test) = with_app(&["podman"]) else { return };
    written_forms(&test);
    let id = test.image_id("app");
    podman(&test, &["load", "--quiet", "-i", "app.docker"]);
    podman(&test, &["tag", "app", "localhost/other:2"]);
    // With two names, as one archive of several images has them, and in podman's own way with directories.
    for format in ["docker-archive", "oci-archive", "docker-dir", "oci-dir"] {
        let file = format!("podman.{format}");
        podman(&test, &["save", "--quiet", "--format", format, "-o", &file, "localhost/other:2"]);
        test.set_store(test.path(&format!("store-{format}")));
        let loaded = test.rbuild(&["load", "-i", &file]).outcome().succeeds().stdout;
        let image = loaded.trim().rsplit(' ').next().unwrap().to_owned();
        assert!(format.ends_with("-dir") || image == "localhost/other:2", "{format}: {loaded}");
        assert_eq!(test.image_id(&image), id, "{format}");
        assert_eq!(test.rbuild(&["run", "--rm", &image]).outcome().succeeds().stdout, GREETING, "{format}");
        test.assert_sound();
    }
}
