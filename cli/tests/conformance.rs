//! The cases of `testdata/conformance`: each is built by rbuild and compared with what is recorded in it, and by BuildKit too
//! where `RBUILD_CONFORMANCE_DOCKER` says how to call a Docker engine. `testdata/conformance/README.md` describes the cases
//! and the switches.

mod builder;
mod case;
mod image;
mod node;
mod settings;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use builder::{Builders, Outcome, normalized};
use case::{Case, Verdict};
use image::Image;

use crate::common::{is_root, layers_are_deltas, say};

/// A test for each directory of cases.
macro_rules! topics {
    ($($topic:ident)*) => {
        $(#[test] fn $topic() { run_topic(stringify!($topic)); })*
        const TOPICS: &[&str] = &[$(stringify!($topic)),*];
    };
}

topics!(add arguments config contexts copy expand ignore onbuild parse run stages traps workdir);

#[test]
fn every_directory_of_cases_is_run() {
    let directories: BTreeSet<String> = entries(&root())
        .into_iter()
        .filter(|path| path.is_dir() && !path.ends_with("bases"))
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(directories, TOPICS.iter().map(|topic| (*topic).to_owned()).collect());
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("testdata/conformance")
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// What became of the cases of a topic.
#[derive(Debug, Default)]
struct Tally {
    cases: usize,
    /// Those of which BuildKit comes to the same.
    equal: usize,
    /// Those of which it is meant not to.
    different: usize,
    /// Those that the engine is too old to build.
    newer: usize,
    complaints: Vec<String>,
}

fn run_topic(topic: &str) {
    let cases: Vec<Case> = entries(&root().join(topic)).iter().map(|path| Case::read(path)).collect();
    let cases: Vec<Case> = cases.into_iter().filter(|case| settings::selects(&case.name())).collect();
    let Some(builders) = Builders::new().filter(|_| !cases.is_empty()) else { return };
    let base = builders.base();
    let mut tally = Tally::default();
    for mut case in cases {
        if case.needs_root() && !is_root(&case.name()) || case.needs_ids() && builders.single_id {
            continue;
        }
        tally.cases += 1;
        check(&builders, &base, &mut case, &mut tally);
    }
    say(&format!(
        "conformance: {topic}: {} cases, {} as BuildKit, {} meant to differ, {} newer than it, {} failed",
        tally.cases,
        tally.equal,
        tally.different,
        tally.newer,
        tally.complaints.len()
    ));
    assert!(tally.complaints.is_empty(), "{}", tally.complaints.join("\n"));
}

fn check(builders: &Builders, base: &Image, case: &mut Case, tally: &mut Tally) {
    let context = builders.context();
    // A case of several builds tells of what was built before, and a secret is in no key.
    let is_told_from_another = layers_are_deltas() && case.builds().len() == 1;
    let ours = build_all(case, context.path(), |path, arguments| {
        if is_told_from_another && !arguments.iter().any(|argument| argument.contains("secret")) {
            builders.rbuild_changed(path, arguments);
        }
        Some(builders.rbuild(path, arguments))
    });
    let ours = verdict(case, base, &ours.unwrap());
    if settings::update() {
        case.record(&ours, None);
    }
    let seen =
        |verdict: &Verdict| if builders.single_id { verdict.without_owners() } else { verdict.clone() };
    let expected = case.expected().map(|expected| seen(&expected));
    if expected.as_ref() != Some(&ours) {
        let expected = expected.map(|expected| expected.lines()).unwrap_or_default();
        let difference = difference(&expected, &ours.lines());
        tally.complaints.push(format!("{}: not as recorded\n{difference}", case.name()));
    }
    let context = builders.context();
    if let Some(theirs) =
        build_all(case, context.path(), |path, arguments| builders.buildkit(path, arguments))
    {
        let theirs = verdict(case, base, &theirs);
        if case.is_newer() && matches!(&theirs, Verdict::Failed(message) if message.contains("unknown flag"))
        {
            tally.newer += 1;
            return;
        }
        compare(case, &difference(&ours.lines(), &theirs.lines()), tally);
    }
}

/// Does the builds of a case, one after the other in one context, and gives the outcome of the last.
fn build_all(
    case: &Case,
    context: &Path,
    build: impl Fn(&Path, &[String]) -> Option<Outcome>,
) -> Option<Outcome> {
    // A new one each time: what comes after it is in nobody's cache.
    let nonce = context.file_name().unwrap().to_str().unwrap();
    let mut outcome = None;
    for step in case.builds() {
        for node in &step.nodes {
            node.write(context, nonce);
        }
        outcome = Some(build(context, &step.arguments)?);
    }
    outcome
}

/// What an outcome is, in the terms of the case.
fn verdict(case: &Case, base: &Image, outcome: &Outcome) -> Verdict {
    match outcome.image() {
        Ok(_) if case.builds().len() > 1 => Verdict::Built(outcome.describe_steps()),
        Ok(image) => Verdict::Built(image.describe(base, &case.mtimes())),
        Err(message) => Verdict::Failed(match case.expected() {
            // The record holds the words that matter, and says no more than that they are there.
            Some(Verdict::Failed(words)) if words.lines().all(|line| says(&message, line)) => words,
            _ => message + "\n",
        }),
    }
}

/// Whether a message has these words, or others where builders have different words: `ONE || OTHER`.
fn says(message: &str, words: &str) -> bool {
    words.split(" || ").any(|words| message.contains(&normalized(words)))
}

/// Counts a case for which BuildKit's lines differ so from rbuild's.
fn compare(case: &mut Case, difference: &str, tally: &mut Tally) {
    match (difference, case.differs()) {
        ("", None) => tally.equal += 1,
        ("", Some(_)) => tally.complaints.push(format!("{}: does not differ from BuildKit", case.name())),
        (_, None) => tally.complaints.push(format!("{}: - rbuild + BuildKit\n{difference}", case.name())),
        (_, Some(_)) => {
            if settings::update() {
                let ours = case.expected().unwrap();
                case.record(&ours, Some(difference));
            }
            if case.difference() == difference {
                tally.different += 1;
            } else {
                tally
                    .complaints
                    .push(format!("{}: differs otherwise than recorded\n{difference}", case.name()));
            }
        }
    }
}

/// The lines of one that the other lacks: `- ` of the first, `+ ` of the second.
fn difference(first: &[String], second: &[String]) -> String {
    let only = |sign: &str, of: &[String], other: &[String]| -> String {
        of.iter().filter(|line| !other.contains(line)).map(|line| format!("{sign} {line}\n")).collect()
    };
    let lines = only("-", first, second) + &only("+", second, first);
    // The same lines in another order.
    if lines.is_empty() && first != second { format!("- {first:?}\n+ {second:?}\n") } else { lines }
}
