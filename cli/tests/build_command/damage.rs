//! Images that are not what they say: each is refused with a reason, and leaves nothing behind.

use std::fs;
use std::path::{Path, PathBuf};

use rbuild_image::Digest;
use serde_json::{Value, json};

use crate::common::{TestEnvironment, gzip};

/// An OCI layout on disk, to be spoilt.
struct Layout(PathBuf);

impl Layout {
    fn json(&self, path: &str) -> Value {
        serde_json::from_slice(&fs::read(self.0.join(path)).unwrap()).unwrap()
    }

    fn index(&self) -> Value {
        self.json("index.json")
    }

    fn manifest(&self) -> Value {
        self.document(&self.index()["manifests"][0])
    }

    fn document(&self, descriptor: &Value) -> Value {
        serde_json::from_slice(&fs::read(self.blob(descriptor)).unwrap()).unwrap()
    }

    /// The file that a descriptor describes.
    fn blob(&self, descriptor: &Value) -> PathBuf {
        let digest = descriptor["digest"].as_str().unwrap();
        self.0.join("blobs").join(digest.replace(':', "/"))
    }

    /// Adds a blob, and lets a descriptor describe it.
    fn describe(&self, descriptor: &mut Value, content: &[u8]) {
        let digest = Digest::of(content);
        descriptor["digest"] = json!(digest.to_string());
        descriptor["size"] = json!(content.len());
        fs::write(self.blob(descriptor), content).unwrap();
    }

    /// Replaces the manifest.
    fn set_manifest(&self, manifest: &Value) {
        let mut index = self.index();
        self.describe(&mut index["manifests"][0], manifest.to_string().as_bytes());
        fs::write(self.0.join("index.json"), index.to_string()).unwrap();
    }

    /// Replaces the content of the first layer, and everything that names it.
    fn set_layer(&self, content: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        let mut manifest = self.manifest();
        let old = fs::read(self.blob(&manifest["layers"][0])).unwrap();
        self.describe(&mut manifest["layers"][0], &content(old));
        self.set_manifest(&manifest);
    }

    fn set_config(&self, change: impl FnOnce(Value) -> Vec<u8>) {
        let mut manifest = self.manifest();
        let config = change(self.document(&manifest["config"]));
        self.describe(&mut manifest["config"], &config);
        self.set_manifest(&manifest);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn half(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() / 2);
    bytes
}

/// How an image is spoilt, and what is said of it.
type Case<'a> = (&'a str, fn(&Layout), &'a [&'a str]);

const CASES: [Case<'_>; 8] = [
    (
        "one bit of a layer",
        |layout| {
            let path = layout.blob(&layout.manifest()["layers"][0]);
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(path, bytes).unwrap();
        },
        &["is not what its name says"],
    ),
    (
        "a layer that ends early",
        |layout| {
            let path = layout.blob(&layout.manifest()["layers"][0]);
            fs::write(&path, half(fs::read(&path).unwrap())).unwrap();
        },
        &["is not what its name says"],
    ),
    ("a compressed stream that ends early", |layout| layout.set_layer(half), &["failed to unpack layer"]),
    (
        "a layer that is no archive",
        |layout| layout.set_layer(|_| gzip(&b"no archive at all ".repeat(100))),
        &["failed to unpack layer", "malformed"],
    ),
    (
        "another diff-id",
        |layout| {
            layout.set_config(|mut config| {
                config["rootfs"]["diff_ids"][0] = json!(Digest::of(b"another").to_string());
                config.to_string().into()
            });
        },
        &["layer has diff-id `sha256:", "expected `sha256:"],
    ),
    (
        "a layer too few",
        |layout| {
            let mut manifest = layout.manifest();
            manifest["layers"].as_array_mut().unwrap().pop();
            layout.set_manifest(&manifest);
        },
        &["names 1 layers, but its config has 2"],
    ),
    (
        "a missing blob",
        |layout| fs::remove_file(layout.blob(&layout.manifest()["layers"][0])).unwrap(),
        &["blobs/sha256/"],
    ),
    ("a config that is no JSON", |layout| layout.set_config(|_| b"{nope".to_vec()), &["malformed"]),
];

#[test]
fn damaged_images_are_refused_and_leave_nothing() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile("FROM busybox\nRUN echo 1 >/x\n");
    test.build(&context, &["-t", "app", "-o", "type=oci,tar=false,dest=layout"]).succeeds();
    for (index, (what, spoil, texts)) in CASES.into_iter().enumerate() {
        let mut other = TestEnvironment::new();
        let layout = Layout(test.path(&format!("spoilt-{index}")));
        copy(&test.path("layout"), &layout.0);
        spoil(&layout);
        let outcome = other.rbuild(&["load", "-i", layout.0.to_str().unwrap()]).outcome();
        outcome.exits(2).says(texts);
        assert_eq!(other.rbuild(&["images", "-aq"]).outcome().succeeds().stdout, "", "{what}");
        for directory in ["layers", "active", "ingest"] {
            assert_eq!(other.store_entries(directory), 0, "{what}: {directory}");
        }
        other.assert_sound();
        // What came first is not in the way of what is whole.
        let whole = test.path("layout");
        other.rbuild(&["load", "-i", whole.to_str().unwrap()]).outcome().succeeds();
        other.assert_sound();
        other.set_store(test.store());
        assert!(other.has("app"));
    }
}

#[test]
fn a_damaged_store_is_found() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let config = test.image_id("busybox");
    let hex = config.strip_prefix("sha256:").unwrap();
    let path = test.store().join("content/sha256").join(&hex[..2]).join(hex);
    let own = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, b"{}").unwrap();
    let outcome = test.rbuild(&["system", "check"]).outcome().exits(3);
    assert!(outcome.stdout.contains(&format!("blob `{config}` has the content of")), "{}", outcome.stdout);
    fs::write(&path, own).unwrap();
    test.assert_sound();

    let layers = fs::read_dir(test.store().join("layers")).unwrap();
    let layer = layers.map(|entry| entry.unwrap().path()).find(|path| path.join("bin").exists()).unwrap();
    fs::rename(&layer, test.path("elsewhere")).unwrap();
    let outcome = test.rbuild(&["system", "check"]).outcome().exits(3);
    assert!(outcome.stdout.contains("is missing"), "{}", outcome.stdout);
    outcome.says(&["1 problem in the store"]);
}
