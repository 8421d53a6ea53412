//! Rules about the text of files.

use std::path::Path;

use super::{Source, assert_none, sources, workspace};

/// The breaches of a rule that looks at one file.
fn complaints(breach: impl Fn(&Source) -> Option<String>) -> Vec<String> {
    let sources = sources();
    sources.iter().filter_map(|source| Some(format!("{}: {}", source.path, breach(source)?))).collect()
}

#[test]
fn every_rust_file_opens_with_its_story() {
    let breaches = complaints(|source| {
        // Tests beside the code are part of its story.
        let needs_story = source.is_rust() && !source.is_test();
        (needs_story && !source.text.starts_with("//!")).then(|| "no module documentation".to_owned())
    });
    assert_none("a file's first line says what it is in the story", &breaches);
}

#[test]
fn nothing_is_left_for_later() {
    // Put together so that this file does not break its own rule.
    let marks = [concat!("FIX", "ME"), concat!("XX", "X"), concat!("TO", "DO"), concat!("todo", "!(")];
    let breaches = complaints(|source| {
        let is_code = source.is_rust() || source.path.ends_with(".sh") || source.path.ends_with(".toml");
        let mark = marks.iter().find(|mark| is_code && has_word(&source.text, mark))?;
        Some(format!("`{mark}`"))
    });
    assert_none("what is not done is not there; shortcomings are written down for people to read", &breaches);
}

/// `mktemp`'s placeholder is a longer word than the mark that it contains.
fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(word).any(|(at, _)| {
        !is_part(text[..at].chars().next_back()) && !is_part(text[at + word.len()..].chars().next())
    })
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    let root = workspace();
    let root = root.to_str().unwrap();
    let breaches = complaints(|source| source.text.contains(root).then(|| format!("`{root}`")));
    assert_none("paths are relative to the repository", &breaches);
}

#[test]
fn no_test_module_is_forgotten() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let runner = std::fs::read_to_string(directory.join("runner.rs")).unwrap();
    let mut breaches = Vec::new();
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if name != "runner" && !runner.lines().any(|line| line == format!("mod {name};")) {
            breaches.push(format!("tests/runner.rs lacks `mod {name};`"));
        }
    }
    assert_none("the command's tests are one binary", &breaches);
}

#[test]
fn every_fixture_is_used() {
    let sources = sources();
    let users: Vec<&Source> = sources
        .iter()
        .filter(|source| source.is_rust() || source.path.starts_with("scripts/"))
        .filter(|source| !source.path.ends_with("tests/tidy/sources.rs"))
        .collect();
    let is_used = |name: &str| {
        let forms = [format!("testdata/{name}"), format!("\"{name}\""), format!("/{name}/")];
        users.iter().any(|user| forms.iter().any(|form| user.text.contains(form)))
    };
    let mut breaches = Vec::new();
    for entry in std::fs::read_dir(workspace().join("testdata")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name != "README.md" && !is_used(&name) {
            breaches.push(format!("testdata/{name}"));
        }
    }
    assert_none("a fixture that no test names proves nothing", &breaches);
}
