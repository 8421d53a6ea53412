//! What can be asked of a Dockerfile besides building it, and answers in BuildKit's two forms: JSON for programs, text for
//! people.
//!
//! ```text
//! check     what lint finds              outline   what the build of a target can be given
//! targets   which stages there are       describe  which of these questions there are
//! ```

mod check;
mod describe;
mod outline;
mod table;
mod targets;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rbuild_llb::SourceRange;
use serde::{Serialize, Serializer};

pub use check::{Checked, warning_documents};
pub use describe::describe;
pub use outline::{Outline, OutlineArg, OutlineMount};
pub use targets::{Target, Targets, targets};

pub(crate) use outline::description;

/// An answer in both forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// For programs.
    pub json: String,
    /// For people; every line ends in a line feed.
    pub text: String,
}

impl Answer {
    fn new(document: &impl Serialize, text: String) -> Self {
        // Documents are made of strings, numbers and lists of them, which all have a form in JSON.
        let mut json = serde_json::to_string_pretty(document).unwrap_or_default();
        json.push('\n');
        Self { json, text }
    }
}

/// A document together with the file it is about.
#[derive(Serialize)]
struct WithSources<'a, T> {
    #[serde(flatten)]
    document: &'a T,
    sources: [String; 1],
}

impl<'a, T: Serialize> WithSources<'a, T> {
    fn new(document: &'a T, source: &[u8]) -> Self {
        Self { document, sources: [STANDARD.encode(source)] }
    }
}

/// Lines as BuildKit's `pb.Location`: one range for each.
#[derive(Serialize)]
struct Location {
    ranges: Vec<LineRange>,
}

impl Location {
    fn new(range: SourceRange) -> Self {
        Self { ranges: LineRange::all(range) }
    }
}

fn location<S: Serializer>(range: &SourceRange, serializer: S) -> Result<S::Ok, S::Error> {
    Location::new(*range).serialize(serializer)
}

#[derive(Serialize)]
struct LineRange {
    start: Position,
    end: Position,
}

#[derive(Serialize)]
struct Position {
    line: u32,
}

impl LineRange {
    fn all(range: SourceRange) -> Vec<Self> {
        let lines = range.line_first..=range.line_last;
        lines.map(|line| Self { start: Position { line }, end: Position { line } }).collect()
    }
}
