//! What lint found.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::{Answer, LineRange, Location};
use crate::error::Error;
use crate::lint::Warning;
use crate::parser;

/// How many lines around those of one line are shown, and around those of several.
const CONTEXT_LINES: usize = 4;
const CONTEXT_LINES_OF_SEVERAL: usize = 2;
const RULER: &str = "--------------------\n";

/// What [`check`](crate::check) found.
#[derive(Debug)]
pub struct Checked {
    /// What lint found, up to the error if there is one, in the order of the file.
    pub warnings: Vec<Warning>,
    /// Why the Dockerfile cannot be built.
    pub error: Option<Error>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    /// `null` where there are none, as in BuildKit.
    warnings: Option<Vec<WarningDocument<'a>>>,
    sources: [Source<'a>; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    build_error: Option<BuildError>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WarningDocument<'a> {
    rule_name: &'static str,
    description: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    detail: &'a str,
    location: Location,
}

#[derive(Serialize)]
struct Source<'a> {
    filename: &'a str,
    data: String,
    language: &'static str,
}

#[derive(Serialize)]
struct BuildError {
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<Location>,
}

/// A warning as it is streamed during a build.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VertexWarning<'a> {
    level: u8,
    short: String,
    detail: [String; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    source_info: Source<'a>,
    range: Vec<LineRange>,
}

/// Warnings as BuildKit streams them in a `SolveStatus` and writes them into a metadata file.
pub fn warning_documents(warnings: &[Warning], filename: &str, source: &[u8]) -> Vec<serde_json::Value> {
    let document = |warning: &Warning| {
        let (name, line) = (warning.rule.name(), warning.range.line_first);
        let document = VertexWarning {
            level: 1,
            short: STANDARD.encode(format!("{name}: {} (line {line})", warning.message)),
            detail: [STANDARD.encode(warning.rule.description())],
            url: warning.rule.url(),
            source_info: Source::new(filename, source),
            range: LineRange::all(warning.range),
        };
        // Strings and numbers always have a form in JSON.
        serde_json::to_value(document).unwrap_or_default()
    };
    warnings.iter().map(document).collect()
}

impl<'a> Source<'a> {
    fn new(filename: &'a str, source: &[u8]) -> Self {
        Self { filename, data: STANDARD.encode(source), language: "Dockerfile" }
    }
}

impl Checked {
    /// Both forms, of a file of a name. The text says nothing of an error: that is for the caller to show, as any
    /// other.
    pub fn answer(&self, filename: &str, source: &[u8]) -> Answer {
        let warnings = self.warnings.iter().map(|warning| WarningDocument {
            rule_name: warning.rule.name(),
            description: warning.rule.description(),
            url: warning.rule.url(),
            detail: &warning.message,
            location: Location::new(warning.range),
        });
        let document = Document {
            warnings: (!self.warnings.is_empty()).then(|| warnings.collect()),
            sources: [Source::new(filename, source)],
            build_error: self.error.as_ref().map(|error| BuildError {
                message: error.to_string(),
                location: error.range().map(Location::new),
            }),
        };
        Answer::new(&document, self.text(filename, &parser::text(source)))
    }

    fn text(&self, filename: &str, source: &str) -> String {
        let mut text = match (self.warnings.len(), &self.error) {
            (0, Some(_)) => String::new(),
            (0, None) => "Check complete, no warnings found.\n".to_owned(),
            (1, _) => "Check complete, 1 warning has been found!\n".to_owned(),
            (count, _) => format!("Check complete, {count} warnings have been found!\n"),
        };
        let lines: Vec<&str> = source.split('\n').collect();
        for warning in &self.warnings {
            let name = warning.rule.name();
            let url = warning.rule.url().map(|url| format!(" - {url}")).unwrap_or_default();
            text.push_str(&format!("\nWARNING: {name}{url}\n{}\n", warning.message));
            text.push_str(&excerpt(warning, filename, &lines));
        }
        text
    }
}

/// The lines to blame, marked, with some around them, as BuildKit shows them.
fn excerpt(warning: &Warning, filename: &str, lines: &[&str]) -> String {
    let blamed = warning.range.line_first as usize..=warning.range.line_last as usize;
    let (first, last) = window(*blamed.start(), (*blamed.end()).min(lines.len()), lines.len());
    let mut text = format!("{filename}:{}\n{RULER}", blamed.start());
    for (number, line) in (1..).zip(lines).take(last).skip(first - 1) {
        let mark = if blamed.contains(&number) { ">>>" } else { "   " };
        text.push_str(&format!(" {number:>3} | {mark} {line}\n"));
    }
    text + RULER
}

/// Takes a line before and a line after by turns, until there are enough or none is left.
fn window(mut first: usize, mut last: usize, count: usize) -> (usize, usize) {
    let enough = if first == last { CONTEXT_LINES } else { CONTEXT_LINES_OF_SEVERAL };
    let mut taken = 0;
    while taken < enough {
        if first > 1 {
            first -= 1;
            taken += 1;
        }
        if last < count {
            last += 1;
            taken += 1;
        }
        // A turn counts as well, so that this ends where nothing is left.
        taken += 1;
    }
    (first, last)
}
