//! The repository's rules, held by a test rather than by memory. Each rule names the file that breaks it and what to do.
//!
//! What is looked at is what is on disk below the workspace, but for what is built or fetched.

mod crates;
mod functions;
mod sources;

use std::fs;
use std::path::{Path, PathBuf};

/// A text file of the repository.
struct Source {
    /// Relative to the workspace.
    path: String,
    text: String,
}

impl Source {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Only tests see it: a `tests` directory or module, fakes, benchmarks.
    fn is_test(&self) -> bool {
        let is_test_name = |name: &str| {
            matches!(name, "tests" | "tests.rs" | "testing" | "testing.rs" | "benches")
                || name.ends_with("_tests.rs")
        };
        self.path.split('/').any(is_test_name)
    }
}

/// The directory of the workspace's `Cargo.toml`.
fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every text file of the repository, in the order of their paths.
fn sources() -> Vec<Source> {
    let root = workspace();
    let mut sources = Vec::new();
    collect(&root, &root, &mut sources);
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(sources.len() > 50, "no sources below `{}`?", root.display());
    sources
}

fn collect(root: &Path, directory: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let path = entry.path();
        let name = entry.file_name();
        if entry.file_type().unwrap().is_dir() {
            if !path.join("CACHEDIR.TAG").exists() && !matches!(name.to_str(), Some(".git" | "target")) {
                collect(root, &path, sources);
            }
        } else if entry.file_type().unwrap().is_file() {
            // What is no text is no source.
            let Ok(text) = fs::read_to_string(&path) else { continue };
            let path = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            sources.push(Source { path, text });
        }
    }
}

/// Fails with all complaints at once.
#[track_caller]
fn assert_none(rule: &str, complaints: &[String]) {
    assert!(complaints.is_empty(), "{rule}:\n  {}", complaints.join("\n  "));
}
