//! What a Dockerfile offers: its stages, and what a build of one can be given.

use rbuild_llb::SourceRange;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::file::FileText;
use crate::parser;

/// A stage that can be built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its name in lower case; empty when it has none.
    pub name: String,
    /// What the comment above it says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether it is built when no target is named.
    pub is_default: bool,
    /// What it starts from, as written.
    pub base: String,
    /// `--platform`, as written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The lines of its FROM.
    pub range: SourceRange,
}

/// What the build of a target can be given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outline {
    /// The target's name; empty when it has none.
    pub name: String,
    /// What the comment above it says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Build arguments that have an effect, by name.
    pub args: Vec<OutlineArg>,
    /// Secrets, by id.
    pub secrets: Vec<OutlineMount>,
    /// Ssh agents, by id.
    pub ssh: Vec<OutlineMount>,
    /// Cache mounts, by id.
    pub caches: Vec<OutlineMount>,
}

/// A build argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// What the comment above it says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its value with the options as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Where it is declared.
    pub range: SourceRange,
}

/// Something that is mounted into a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutlineMount {
    /// Which.
    pub id: String,
    /// Whether a step fails without it.
    pub required: bool,
    /// The lines of the first step that uses it.
    pub range: SourceRange,
}

/// Lists the stages of a Dockerfile.
///
/// # Errors
/// When it cannot be parsed.
pub fn targets(source: &[u8]) -> Result<Vec<Target>, Error> {
    let file = FileText::new(&parser::parse(source)?)?;
    let last = file.stages.len() - 1;
    let targets = file.stages.into_iter().enumerate().map(|(index, stage)| Target {
        description: description(&stage.from.comments, &stage.name),
        name: stage.name,
        is_default: index == last,
        base: stage.from.base,
        platform: stage.from.platform,
        range: stage.from.range,
    });
    Ok(targets.collect())
}

/// What the comments above a declaration say of a name: the rest of a line that begins with it.
pub(crate) fn description(comments: &[String], name: &str) -> Option<String> {
    if name.is_empty() {
        return None;
    }
    let rest = comments.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(rest.to_owned())
}
