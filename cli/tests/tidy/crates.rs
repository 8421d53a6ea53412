//! Which crate may import which: the table of `ARCHITECTURE.md`, "Crates". And that the fuzz targets, a workspace of
//! their own, are whole.

use std::collections::BTreeSet;
use std::process::Command;

use super::{assert_none, workspace};

const ALLOWED: [(&str, &[&str]); 9] = [
    ("rbuild-image", &[]),
    ("rbuild-registry", &["rbuild-image"]),
    ("rbuild-llb", &["rbuild-image"]),
    ("rbuild-frontend", &["rbuild-llb", "rbuild-image"]),
    ("rbuild-cache", &["rbuild-image"]),
    ("rbuild-executor", &[]),
    ("rbuild-solver", &["rbuild-llb", "rbuild-image", "rbuild-registry", "rbuild-cache", "rbuild-executor"]),
    ("rbuild-container", &["rbuild-image", "rbuild-cache", "rbuild-executor"]),
    (
        "rbuild",
        &[
            "rbuild-image",
            "rbuild-registry",
            "rbuild-llb",
            "rbuild-frontend",
            "rbuild-cache",
            "rbuild-executor",
            "rbuild-solver",
            "rbuild-container",
        ],
    ),
];

#[test]
fn arrows_between_crates_point_one_way() {
    let mut complaints = Vec::new();
    for (from, to) in edges() {
        match ALLOWED.iter().find(|(name, _)| *name == from) {
            None => complaints.push(format!("`{from}` is not in the table")),
            Some((_, allowed)) if !allowed.contains(&to.as_str()) => {
                complaints.push(format!("`{from}` must not import `{to}`"));
            }
            Some(_) => {}
        }
    }
    assert_none("one kind of effect per crate, arrows one way; see ARCHITECTURE.md", &complaints);
}

#[test]
fn the_table_of_crates_is_written_down() {
    let document = std::fs::read_to_string(workspace().join("ARCHITECTURE.md")).unwrap();
    let missing = ALLOWED.iter().filter(|(name, _)| !document.contains(&format!("| `{name}` |")));
    let complaints: Vec<String> = missing.map(|(name, _)| format!("`{name}`")).collect();
    assert_none("ARCHITECTURE.md must have a row for each crate", &complaints);
}

/// Which of our crates imports which, tests aside.
fn edges() -> Vec<(String, String)> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    let edges = packages.iter().flat_map(|package| {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let ours =
            dependencies.filter(|dependency| dependency["kind"].is_null() && !dependency["path"].is_null());
        ours.map(|dependency| (text(&package["name"]), text(&dependency["name"])))
    });
    edges.collect()
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().unwrap().to_owned()
}

#[expect(clippy::disallowed_methods, reason = "cargo is the only one who knows what a manifest means")]
fn metadata() -> serde_json::Value {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version=1", "--no-deps", "--offline"]).current_dir(workspace());
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn every_fuzz_target_is_built_and_has_seeds() {
    let names = |folder: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(workspace().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    let manifest = std::fs::read_to_string(workspace().join("fuzz/Cargo.toml")).unwrap();
    let named = |line: &str| Some(line.strip_prefix("name = \"")?.strip_suffix('"')?.to_owned());
    // The first name is the package's.
    let built: BTreeSet<String> = manifest.lines().filter_map(named).skip(1).collect();
    assert_eq!(names("fuzz/fuzz_targets"), built);
    assert_eq!(names("testdata/fuzz"), built);
}
