//! What the build of a target can be given.

use rbuild_llb::SourceRange;
use serde::Serialize;

use super::table::table;
use super::{Answer, WithSources, location};

/// What the build of a target can be given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outline {
    /// The target's name; empty when it has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What the comment above it says of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Build arguments that have an effect, in the order of their declarations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<OutlineArg>,
    /// Secrets, by id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<OutlineMount>,
    /// Ssh agents, by id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh: Vec<OutlineMount>,
    /// Cache mounts, by id.
    #[serde(rename = "cache", skip_serializing_if = "Vec::is_empty")]
    pub caches: Vec<OutlineMount>,
}

/// A build argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// What the comment above it says of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its value with the options as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Where it is declared.
    #[serde(rename = "location", serialize_with = "location")]
    pub range: SourceRange,
}

/// Something that is mounted into a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutlineMount {
    /// Which.
    #[serde(rename = "name")]
    pub id: String,
    /// Whether a step fails without it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// The lines of the first step that uses it.
    #[serde(rename = "location", serialize_with = "location")]
    pub range: SourceRange,
}

impl Outline {
    /// Both forms, of the file that the target is in.
    pub fn answer(&self, source: &[u8]) -> Answer {
        let sections = [
            self.heading(),
            section(["BUILD ARG", "VALUE", "DESCRIPTION"], self.args.iter().map(OutlineArg::row)),
            section(["SECRET", "REQUIRED"], self.secrets.iter().map(OutlineMount::row)),
            section(["SSH", "REQUIRED"], self.ssh.iter().map(OutlineMount::row)),
        ];
        Answer::new(&WithSources::new(self, source), sections.concat())
    }

    fn heading(&self) -> String {
        let name = ["TARGET:", self.name.as_str()];
        let description = self.description.as_deref().map(|text| ["DESCRIPTION:", text]);
        let rows: Vec<_> = (!self.name.is_empty()).then_some(name).into_iter().chain(description).collect();
        if rows.is_empty() { String::new() } else { table(&rows, 1) + "\n" }
    }
}

/// A table under its heading, unless it would be empty.
fn section<'a, const COLUMNS: usize>(
    heading: [&'a str; COLUMNS],
    rows: impl Iterator<Item = [&'a str; COLUMNS]>,
) -> String {
    let rows: Vec<_> = std::iter::once(heading).chain(rows).collect();
    if rows.len() == 1 { String::new() } else { table(&rows, 3) + "\n" }
}

impl OutlineArg {
    fn row(&self) -> [&str; 3] {
        [
            &self.name,
            self.value.as_deref().unwrap_or_default(),
            self.description.as_deref().unwrap_or_default(),
        ]
    }
}

impl OutlineMount {
    fn row(&self) -> [&str; 2] {
        [&self.id, if self.required { "true" } else { "" }]
    }
}

/// What the comments above a declaration say of a name: the rest of a line that begins with it.
pub(crate) fn description(comments: &[String], name: &str) -> Option<String> {
    if name.is_empty() {
        return None;
    }
    let rest = comments.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(rest.to_owned())
}
