//! `testdata/lint/<case>/`: a Dockerfile for each rule, and what BuildKit says of it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use rbuild_frontend::{Checked, Options, check, dockerignore};
use rbuild_image::Platform;

use crate::images::Fixtures;

fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        fs::read_dir(crate::testdata("lint")).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    folders
}

fn check_folder(folder: &Path) -> Checked {
    let mut options = Options::new(Platform::new("linux", "amd64", None), "2026-01-02T03:04:05Z");
    options.ignore = dockerignore::parse(&fs::read(folder.join("dockerignore")).unwrap_or_default()).unwrap();
    check(&fs::read(folder.join("Dockerfile")).unwrap(), &options, &Fixtures)
}

/// The warnings, each with all that its rule says; those of one line in the order of their names.
fn describe(checked: &Checked) -> String {
    let mut entries: Vec<(u32, String)> = Vec::new();
    for warning in &checked.warnings {
        let mut entry = warning.range.line_first.to_string();
        if warning.range.line_last != warning.range.line_first {
            write!(entry, "-{}", warning.range.line_last).unwrap();
        }
        let rule = warning.rule;
        let url = rule.url().unwrap_or("-".to_owned());
        write!(entry, " {} {url}\n  {}\n  {}\n", rule.name(), rule.description(), warning.message).unwrap();
        entries.push((warning.range.line_first, entry));
    }
    entries.sort();
    entries.into_iter().map(|(_, entry)| entry).collect()
}

#[test]
fn rules_speak_as_in_buildkit() {
    let mut seen = Vec::new();
    for folder in folders() {
        let checked = check_folder(&folder);
        let expected = fs::read_to_string(folder.join("expected.txt")).unwrap();
        let actual = describe(&checked);
        assert!(expected == actual, "{} differs; it would be\n{actual}", folder.display());
        seen.extend(checked.warnings.iter().map(|warning| warning.rule));
    }
    let unseen: Vec<_> = rbuild_frontend::Rule::ALL.iter().filter(|rule| !seen.contains(rule)).collect();
    assert!(unseen.is_empty(), "no case for {unseen:?}");
}
