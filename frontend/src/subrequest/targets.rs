//! The stages of a Dockerfile.

use rbuild_llb::SourceRange;
use serde::Serialize;

use super::table::table;
use super::{Answer, WithSources, description, location};
use crate::error::Error;
use crate::file::FileText;
use crate::parser;

/// What a stage without a name that is built by default is called.
const DEFAULT: &str = "(default)";

/// The stages that can be built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Targets {
    /// In the order of the file.
    pub targets: Vec<Target>,
}

/// A stage that can be built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Target {
    /// Its name in lower case; empty when it has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Whether it is built when no target is named.
    #[serde(rename = "default", skip_serializing_if = "std::ops::Not::not")]
    pub is_default: bool,
    /// What the comment above it says of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What it starts from, as written.
    pub base: String,
    /// `--platform`, as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The lines of its FROM.
    #[serde(rename = "location", serialize_with = "location")]
    pub range: SourceRange,
}

/// Lists the stages of a Dockerfile.
///
/// # Errors
/// When it cannot be parsed.
pub fn targets(source: &[u8]) -> Result<Targets, Error> {
    let file = parser::parse(source).and_then(|file| FileText::new(&file));
    let file = file.map_err(|error| error.in_source(source))?;
    let last = file.stages.len() - 1;
    let targets = file.stages.into_iter().enumerate().map(|(index, stage)| Target {
        description: description(&stage.from.comments, &stage.name),
        name: stage.name,
        is_default: index == last,
        base: stage.from.base,
        platform: stage.from.platform,
        range: stage.from.range,
    });
    Ok(Targets { targets: targets.collect() })
}

impl Targets {
    /// Both forms, of the file that the stages are in.
    pub fn answer(&self, source: &[u8]) -> Answer {
        let names: Vec<String> = self.targets.iter().map(Target::shown_name).collect();
        let mut rows = vec![["TARGET", "DESCRIPTION"]];
        rows.extend(
            self.targets
                .iter()
                .zip(&names)
                .map(|(target, name)| [name.as_str(), target.description.as_deref().unwrap_or_default()]),
        );
        Answer::new(&WithSources::new(self, source), table(&rows, 1))
    }
}

impl Target {
    fn shown_name(&self) -> String {
        match (self.name.as_str(), self.is_default) {
            ("", true) => DEFAULT.to_owned(),
            (name, true) => format!("{name} {DEFAULT}"),
            (name, false) => name.to_owned(),
        }
    }
}
