//! `import`, `save` and `load`, from the outside.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::process::Stdio;

use rbuild_image::Digest;
use rbuild_registry::testing::{FakeRegistry, ServedFile};
use serde_json::{Value, json};
use tar::EntryType;

use crate::common::{Outcome, TestEnvironment, Tree, gzip, tar_of, unpack};

/// `rbuild ARGUMENTS`, which must succeed.
#[track_caller]
fn rbuild(test: &TestEnvironment, arguments: &[&str]) -> Outcome {
    test.rbuild(arguments).outcome().succeeds()
}

/// A tar of a small file system.
fn small() -> Vec<u8> {
    tar_of(&[("etc/", ""), ("etc/motd", "hello\n")])
}

/// An environment with the small image `app` of three names, and `other` on top of it.
fn two_images() -> TestEnvironment {
    let test = TestEnvironment::new();
    let tar = test.write("small.tar", small());
    rbuild(&test, &["import", tar.to_str().unwrap(), "app:1"]);
    rbuild(&test, &["tag", "app:1", "app:2"]);
    let context =
        test.context("context", &[("Dockerfile", "FROM app:1\nCOPY file /\n"), ("file", "content")]);
    test.build(&context, &["-t", "other"]).succeeds();
    test
}

/// The tree of the one layer of an image.
fn layer(test: &TestEnvironment, image: &str) -> Tree {
    let archive = Tree::read(&rbuild(test, &["save", image]).stdout_bytes);
    let manifest: Value = serde_json::from_str(archive.text("manifest.json")).unwrap();
    Tree::read(&archive.entry(manifest[0]["Layers"][0].as_str().unwrap()).content)
}

#[test]
fn a_tar_becomes_an_image_however_it_is_compressed() {
    let test = TestEnvironment::new();
    let plain = small();
    let forms = [
        ("plain", plain.clone()),
        ("gzip", gzip(&plain)),
        ("zstd", zstd::encode_all(&*plain, 3).unwrap()),
        ("xz", liblzma::encode_all(&*plain, 1).unwrap()),
    ];
    let mut layers = BTreeSet::new();
    for (name, bytes) in forms {
        let path = test.write(name, &bytes);
        let id = rbuild(&test, &["import", path.to_str().unwrap(), name]).stdout;
        assert_eq!(test.image_id(name), id.trim());
        let piped = test.rbuild(&["import", "-"]).stdin(bytes).outcome().succeeds().stdout;
        for image in [name, piped.trim()] {
            layers.insert(test.inspect(image)["RootFS"]["Layers"].to_string());
        }
    }
    assert_eq!(layers.len(), 1, "{layers:?}");
    assert_eq!(layer(&test, "xz").text("etc/motd"), "hello\n");
}

#[test]
fn import_takes_a_configuration() {
    let test = TestEnvironment::new();
    let tar = test.write("small.tar", small());
    let changes = [
        "CMD [\"a\", \"b\"]",
        "ENTRYPOINT c d",
        "ENV A=b C=\"d e\"",
        "USER nobody",
        "WORKDIR /srv/app",
        "LABEL l=1",
        "EXPOSE 80 81/udp",
        "VOLUME /data",
        "STOPSIGNAL SIGINT",
    ];
    let mut line = vec!["import", "--message", "by hand"];
    changes.iter().for_each(|change| line.extend(["--change", change]));
    line.extend([tar.to_str().unwrap(), "app"]);
    rbuild(&test, &line);
    let config = &test.inspect("app")["Config"];
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let expected = json!({
        "Cmd": ["a", "b"],
        "Entrypoint": ["/bin/sh", "-c", "c d"],
        "Env": [path, "A=b", "C=d e"],
        "User": "nobody",
        "WorkingDir": "/srv/app",
        "Labels": { "l": "1" },
        "ExposedPorts": { "80/tcp": {}, "81/udp": {} },
        "Volumes": { "/data": {} },
        "StopSignal": "SIGINT",
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(config[name], *value, "{name}");
    }
    assert!(rbuild(&test, &["history", "app"]).stdout.contains("by hand"));
    for change in ["RUN true", "COPY a b", "FROM x", "NONSENSE x", "CMD [\"a\"]\nADD a b"] {
        test.rbuild(&["import", "-c", change, tar.to_str().unwrap(), "bad"])
            .outcome()
            .exits(2)
            .says(&["--change"]);
    }
    assert!(!test.has("bad"));
}

#[test]
fn one_platform_of_an_archive_is_loaded() {
    let mut test = TestEnvironment::new();
    let context = test.dockerfile("FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /$TARGETARCH\n");
    test.build(&context, &["-t", "both", "--platform", "linux/amd64,linux/arm64"]).succeeds();
    rbuild(&test, &["save", "--format", "oci-archive", "-o", "both.tar", "both"]);
    let other = test.path("other");
    test.set_store(other);
    let load = |platform: &str| test.rbuild(&["load", "--platform", platform, "-i", "both.tar"]).outcome();
    load("linux/s390x").exits(2).says(&["linux/s390x"]);
    load("nosuch").exits(2).says(&["nosuch"]);
    assert_eq!(load("linux/arm64").succeeds().stdout, "Loaded image: both:latest\n");
    assert_eq!(test.inspect("both")["Architecture"], "arm64");
    let tree = rbuild(&test, &["images", "-a", "--tree"]).stdout;
    assert!(tree.contains("both:latest") && !tree.contains("amd64"), "{tree}");
}

/// Only the image for this machine is looked at when an archive is loaded.
#[test]
fn an_image_for_another_machine_that_is_wrong_is_told_when_it_leaves() {
    let test = TestEnvironment::new();
    let context = test.context("context", &[("Dockerfile", "FROM scratch\nCOPY file /\n"), ("file", "x")]);
    let layout =
        ["-t", "both", "--platform", "linux/amd64,linux/arm64", "-o", "type=oci,tar=false,dest=layout"];
    test.build(&context, &layout).succeeds();
    let blobs = test.path("layout/blobs/sha256");
    let read = |entry: &Value| -> Value {
        let name = entry["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        serde_json::from_slice(&fs::read(blobs.join(name)).unwrap()).unwrap()
    };
    // Changes what an entry names, and lets it name that.
    let replace = |entry: &mut Value, document: &Value| {
        let bytes = serde_json::to_vec(document).unwrap();
        let digest = Digest::of(&bytes);
        fs::write(blobs.join(digest.hex()), &bytes).unwrap();
        (entry["digest"], entry["size"]) = (digest.to_string().into(), bytes.len().into());
    };
    let top = test.path("layout/index.json");
    let mut outer: Value = serde_json::from_slice(&fs::read(&top).unwrap()).unwrap();
    let mut index = read(&outer["manifests"][0]);
    let other = usize::from(cfg!(target_arch = "x86_64"));
    let mut manifest = read(&index["manifests"][other]);
    let mut config = read(&manifest["config"]);
    config["rootfs"]["diff_ids"] = Value::Array(Vec::new());
    replace(&mut manifest["config"], &config);
    replace(&mut index["manifests"][other], &manifest);
    replace(&mut outer["manifests"][0], &index);
    fs::write(top, serde_json::to_vec(&outer).unwrap()).unwrap();
    rbuild(&test, &["load", "-i", "layout"]);
    test.rbuild(&["save", "-o", "both.tar", "both"])
        .outcome()
        .exits(4)
        .says(&["names 1 layers, but its config has 0"]);
}

#[test]
fn what_cannot_be_imported_leaves_nothing() {
    let test = TestEnvironment::new();
    let plain = small();
    let cases: [(&str, &[u8], &str); 3] = [
        ("garbage", &[7; 5000], "malformed"),
        ("truncated", &plain[..1200], "the archive ends in the middle of `etc/motd`"),
        ("truncated-gzip", &gzip(&plain)[..60], "failed to read the archive"),
    ];
    for (name, bytes, message) in cases {
        let path = test.write(name, bytes);
        let outcome = test.rbuild(&["import", path.to_str().unwrap(), name]).outcome();
        outcome.exits(2).says(&["failed to unpack the archive", message]);
    }
    test.rbuild(&["import", "nosuch", "x"]).outcome().exits(2).says(&["failed to open `nosuch`"]);
    assert_eq!(rbuild(&test, &["images", "-q"]).stdout, "");
    test.assert_sound();
}

#[test]
fn saved_images_come_back_with_the_same_ids() {
    let mut test = two_images();
    let (app, other) = (test.image_id("app:1"), test.image_id("other"));
    for format in ["docker-archive", "oci-archive"] {
        rbuild(&test, &["save", "--format", format, "-o", format, "app:1", "app:2", "other"]);
        let piped = rbuild(&test, &["save", "--format", format, "app:1", "app:2", "other"]).stdout_bytes;
        assert!(fs::read(test.path(format)).unwrap() == piped);
        let mut paths = BTreeSet::new();
        for entry in tar::Archive::new(&*piped).entries().unwrap() {
            let path = entry.unwrap().path().unwrap().to_str().unwrap().to_owned();
            assert!(paths.insert(path.clone()), "`{path}` twice");
        }
        // Two layers, two configs, two manifests.
        assert_eq!(
            paths.iter().filter(|path| path.starts_with("blobs/sha256/") && !path.ends_with('/')).count(),
            6
        );
        assert_eq!(paths.contains("manifest.json"), format == "docker-archive");
    }
    for (number, format) in ["docker-archive", "oci-archive"].into_iter().enumerate() {
        test.set_store(test.path(&format!("fresh-{number}")));
        let loaded = rbuild(&test, &["load", "-i", format]).stdout;
        assert_eq!(loaded, "Loaded image: app:1\nLoaded image: app:2\nLoaded image: other:latest\n");
        let ids = ["app:1", "app:2", "other"].map(|name| test.image_id(name));
        assert_eq!(ids, [app.clone(), app.clone(), other.clone()]);
        // And they are whole: saved again they are the same bytes.
        let again = rbuild(&test, &["save", "--format", format, "app:1", "app:2", "other"]).stdout_bytes;
        assert!(again == fs::read(test.path(format)).unwrap());
        test.assert_sound();
    }
}

#[test]
fn archives_are_loaded_in_every_form() {
    let mut test = two_images();
    let other = test.image_id("other");
    let plain = rbuild(&test, &["save", "other"]).stdout_bytes;
    let id_only = rbuild(&test, &["save", &other]).stdout_bytes;
    test.write("plain", &plain);
    test.write("gzip", gzip(&plain));
    test.write("zstd", zstd::encode_all(&*plain, 3).unwrap());
    unpack(&plain, &test.path("directory"));
    for form in ["plain", "gzip", "zstd", "directory"] {
        test.set_store(test.path(&format!("store-{form}")));
        assert_eq!(rbuild(&test, &["load", "-i", form]).stdout, "Loaded image: other:latest\n");
        assert_eq!(test.image_id("other"), other);
    }
    test.set_store(test.path("store-piped"));
    test.rbuild(&["load"]).stdin(id_only).outcome().succeeds();
    assert_eq!(test.image_id(&other), other);
}

#[test]
fn what_has_no_tag_is_saved_without_a_name() {
    let mut test = two_images();
    let registry = FakeRegistry::start().unwrap();
    let name = format!("{}/team/app", registry.name());
    let tag = format!("{name}:1");
    rbuild(&test, &["tag", "app:1", &tag]);
    rbuild(&test, &["push", &tag]);
    let digest = rbuild(&test, &["manifest", "inspect", "--digest", &tag]).stdout;
    let pinned = format!("{name}@{}", digest.trim());
    let id = test.image_id("app:1");
    test.set_store(test.path("pinned"));
    rbuild(&test, &["pull", &pinned]);
    let shown = test.inspect(&pinned);
    assert_eq!((&shown["RepoTags"], &shown["RepoDigests"]), (&json!([]), &json!([pinned])));
    rbuild(&test, &["tag", &pinned, "named:1"]);
    assert_eq!(test.inspect("named:1")["RepoTags"], json!(["named:1"]));
    for (image, tags) in [(&*pinned, Value::Null), (&id, Value::Null), ("named:1", json!(["named:1"]))] {
        let archive = Tree::read(&rbuild(&test, &["save", image]).stdout_bytes);
        let read = |path: &str| serde_json::from_str::<Value>(archive.text(path)).unwrap();
        assert_eq!(read("manifest.json")[0]["RepoTags"], tags, "{image}");
        assert_eq!(
            read("index.json")["manifests"][0].get("annotations").is_none(),
            tags.is_null(),
            "{image}"
        );
    }
    let archive = rbuild(&test, &["save", &pinned]).stdout_bytes;
    test.set_store(test.path("fresh"));
    let loaded = test.rbuild(&["load"]).stdin(archive).outcome().succeeds().stdout;
    assert_eq!(loaded, format!("Loaded image ID: {id}\n"));
}

/// An archive as Docker before 25 writes it, of an image whose layers are all the same: `x/layer.tar`, and a link to it as
/// `y/layer.tar`.
fn of_old(tag: &str, layers: Option<&[&str]>, link: (EntryType, &str)) -> Vec<u8> {
    let layer = small();
    let diff_ids = vec![Digest::of(&layer).to_string(); layers.map_or(0, <[_]>::len)];
    let rootfs = json!({ "type": "layers", "diff_ids": diff_ids });
    let config =
        json!({ "architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs }).to_string();
    let manifest = json!([{ "Config": "c.json", "RepoTags": [tag], "Layers": layers }]).to_string();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(0);
    header.set_entry_type(link.0);
    tar.append_link(&mut header, "y/layer.tar", link.1).unwrap();
    header.set_entry_type(EntryType::Regular);
    let files =
        [("c.json", config.as_bytes()), ("x/layer.tar", &layer), ("manifest.json", manifest.as_bytes())];
    for (path, content) in files {
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn archives_of_older_dockers_are_loaded() {
    let mut test = TestEnvironment::new();
    let both: Option<&[&str]> = Some(&["x/layer.tar", "y/layer.tar"]);
    let symlink = of_old("old:1", both, (EntryType::Symlink, "../x/layer.tar"));
    unpack(&symlink, &test.path("directory"));
    test.write("symlink", &symlink);
    test.write("hard", of_old("old:1", both, (EntryType::Link, "x/layer.tar")));
    test.write("none", of_old("old:1", None, (EntryType::Link, "x/layer.tar")));
    for (form, layers) in [("symlink", 2), ("directory", 2), ("hard", 2), ("none", 0)] {
        test.set_store(test.path(&format!("store-{form}")));
        assert_eq!(rbuild(&test, &["load", "-i", form]).stdout, "Loaded image: old:1\n");
        assert_eq!(test.inspect("old:1")["RootFS"]["Layers"].as_array().unwrap().len(), layers, "{form}");
        test.assert_sound();
    }
    test.set_store(test.path("fresh"));
    let digest = format!("old@{}", Digest::of("x"));
    let cases = [
        ("old:1", "../../x/layer.tar", "link `y/layer.tar` leads out of it, to `y/../../x/layer.tar`"),
        ("old:1", "layer.tar", "names `y/layer.tar`, but does not hold it"),
        ("OLD:1", "../x/layer.tar", "names an image `OLD:1`, which is no tag"),
        (&digest, "../x/layer.tar", "which is no tag"),
    ];
    for (tag, target, message) in cases {
        let archive = of_old(tag, both, (EntryType::Symlink, target));
        test.rbuild(&["load"]).stdin(archive).outcome().exits(2).says(&[message]);
    }
    assert_eq!(rbuild(&test, &["images", "-aq"]).stdout, "");
}

#[test]
fn directories_of_skopeo_are_loaded() {
    let mut test = two_images();
    let id = test.image_id("other");
    let layout = test.path("layout");
    unpack(&rbuild(&test, &["save", "other"]).stdout_bytes, &layout);
    let blobs = test.path("skopeo");
    fs::create_dir(&blobs).unwrap();
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let manifest = index["manifests"][0]["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    for blob in fs::read_dir(layout.join("blobs/sha256")).unwrap().map(Result::unwrap) {
        let name = blob.file_name();
        let name = if name == manifest { "manifest.json".into() } else { name };
        fs::write(blobs.join(name), fs::read(blob.path()).unwrap()).unwrap();
    }
    fs::write(blobs.join("version"), "Directory Transport Version: 1.1\n").unwrap();
    test.set_store(test.path("fresh"));
    let load = |test: &TestEnvironment| test.rbuild(&["load", "-i", "skopeo"]).outcome();
    assert_eq!(load(&test).succeeds().stdout, format!("Loaded image ID: {id}\n"));
    assert_eq!(test.image_id(&id), id);
    test.assert_sound();
    test.set_store(test.path("another"));
    fs::remove_file(blobs.join(id.strip_prefix("sha256:").unwrap())).unwrap();
    load(&test).exits(2).says(&["does not hold it"]);
    fs::write(blobs.join("manifest.json"), "{}").unwrap();
    load(&test).exits(2).says(&["failed to read document"]);
}

#[test]
fn a_damaged_archive_brings_no_image() {
    let mut test = two_images();
    let plain = rbuild(&test, &["save", "other"]).stdout_bytes;
    let layout = test.path("layout");
    unpack(&plain, &layout);
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let manifest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let manifest = format!("blobs/sha256/{}", &manifest["sha256:".len()..]);
    test.set_store(test.path("fresh"));

    let damaged = |name: &str, files: &[(&str, Option<&str>)]| {
        let directory = test.path(name);
        unpack(&plain, &directory);
        for (path, content) in files {
            drop(fs::remove_file(directory.join(path)));
            if let Some(content) = content {
                fs::write(directory.join(path), content).unwrap();
            }
        }
        name.to_owned()
    };
    let foreign = "[{\"Config\":\"../../etc/passwd\",\"RepoTags\":[\"a:b\"],\"Layers\":[\"x\"]}]";
    let cases = [
        (damaged("changed", &[(&manifest, Some("{}"))]), "is not what its name says"),
        (damaged("incomplete", &[(&manifest, None)]), "does not hold it"),
        (damaged("no-json", &[("index.json", Some("{"))]), "`index.json`"),
        (damaged("no-index", &[("index.json", Some("{}"))]), "`index.json`"),
        (damaged("foreign", &[("index.json", None), ("manifest.json", Some(foreign))]), "`../../etc/passwd`"),
        (damaged("nothing", &[("index.json", None), ("manifest.json", None)]), "the archive holds no image"),
        ("nosuch".to_owned(), "failed to open `nosuch`"),
    ];
    for (path, message) in cases {
        test.rbuild(&["load", "-i", &path]).outcome().exits(2).says(&[message]);
    }
    let streams: [(&[u8], &str); 5] = [
        (&[], "the archive holds no image"),
        (&[7; 5000], "no tar"),
        (b"short", "no tar"),
        (&plain[..plain.len() / 2], "damaged"),
        (&gzip(&plain)[..500], "damaged"),
    ];
    for (bytes, message) in streams {
        test.rbuild(&["load"]).stdin(bytes).outcome().exits(2).says(&[message]);
    }
    assert_eq!(rbuild(&test, &["images", "-aq"]).stdout, "");
    test.assert_sound();
}

#[test]
fn devices_and_empty_names_are_no_files() {
    let test = two_images();
    let piped = rbuild(&test, &["save", "app:1"]).stdout_bytes;
    // For scripts an empty name is none.
    assert!(rbuild(&test, &["save", "-o", "", "app:1"]).stdout_bytes == piped);
    assert!(test.rbuild(&["load", "-i", ""]).stdin(piped).outcome().succeeds().stdout.contains("app:1"));
    rbuild(&test, &["save", "-o", "/dev/null", "app:1"]);
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
}

#[test]
fn a_tar_of_a_web_server_is_imported() {
    let test = TestEnvironment::new();
    let web = FakeRegistry::start().unwrap();
    let serve = |name: &str, content: Vec<u8>| {
        web.add_file(name, ServedFile { content, ..ServedFile::default() });
        web.url(&format!("/files/{name}"))
    };
    let small = serve("small.tar", small());
    let id = rbuild(&test, &["import", "--platform", "linux/arm64", &small, "app"]).stdout;
    assert_eq!(test.image_id("app"), id.trim());
    assert_eq!(test.inspect("app")["Architecture"], "arm64");
    test.rbuild(&["import", &web.url("/files/nosuch"), "x"]).outcome().exits(4).says(&["404"]);
    let garbage = serve("garbage", vec![7; 5000]);
    test.rbuild(&["import", &garbage, "x"]).outcome().exits(2).says(&["failed to unpack"]);
    assert!(!test.has("x"));
}

#[test]
fn what_is_removed_while_it_is_saved_is_saved_whole() {
    let test = TestEnvironment::new();
    // More than a pipe holds, so that the archive waits in the middle of the first layer.
    let large = "x".repeat(1 << 20);
    let tar = test.write("large.tar", tar_of(&[("one", &large)]));
    rbuild(&test, &["import", tar.to_str().unwrap(), "app"]);
    let context = test.context("context", &[("Dockerfile", "FROM app\nCOPY two /\n"), ("two", &large)]);
    test.build(&context, &["-t", "other"]).succeeds();
    let expected = rbuild(&test, &["save", "other"]).stdout_bytes;
    let mut saving = test.rbuild(&["save", "other"]).start_on(Stdio::null(), Stdio::piped(), Stdio::null());
    let mut archive = saving.stdout.take().unwrap();
    let mut saved = vec![0; 512];
    archive.read_exact(&mut saved).unwrap();
    rbuild(&test, &["rmi", "-f", "other", "app"]);
    rbuild(&test, &["prune", "-af"]);
    archive.read_to_end(&mut saved).unwrap();
    assert!(saving.wait().unwrap().success() && saved == expected);
    rbuild(&test, &["prune", "-af"]);
    assert_eq!(["leases", "layers"].map(|directory| test.store_entries(directory)), [0, 0]);
}
