//! `--name[=value]` between an instruction and its arguments.

use crate::error::{Error, ErrorKind};
use crate::parser::Node;
use crate::suggest;

/// What values a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FlagKind {
    /// `--name`, `--name=true`, `--name=false`.
    Bool,
    /// `--name=value`, once.
    Text,
    /// `--name=value`, any number of times.
    List,
}

/// The flags of one instruction.
#[derive(Debug, Default)]
pub(super) struct Flags {
    values: Vec<(&'static str, String)>,
}

impl Flags {
    /// For instructions that have none.
    pub(super) fn none(node: &Node) -> Result<(), Error> {
        Self::parse(node, &[]).map(|_| ())
    }

    pub(super) fn parse(node: &Node, known: &[(&'static str, FlagKind)]) -> Result<Self, Error> {
        let mut flags = Self::default();
        for written in &node.flags {
            let text = written.strip_prefix("--").unwrap_or(written);
            let (name, value) =
                text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
            let Some((name, kind)) = known.iter().find(|(known, _)| *known == name).copied() else {
                let similar = suggest::nearest(name, known.iter().map(|(known, _)| *known));
                return Err(ErrorKind::UnknownFlag { flag: name.to_owned(), similar }.into());
            };
            if kind != FlagKind::List && flags.values.iter().any(|(seen, _)| *seen == name) {
                let (flag, written) = (name.to_owned(), written.clone());
                return Err(ErrorKind::DuplicateFlag { flag, written }.into());
            }
            flags.values.push((name, value_of(name, kind, value)?));
        }
        Ok(flags)
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.values.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
    }

    pub(super) fn bool(&self, name: &str) -> Option<bool> {
        self.text(name).map(|value| value == "true")
    }

    pub(super) fn list(&self, name: &str) -> Vec<String> {
        self.values.iter().filter(|(known, _)| *known == name).map(|(_, value)| value.clone()).collect()
    }
}

fn value_of(name: &str, kind: FlagKind, value: Option<&str>) -> Result<String, Error> {
    let missing = || ErrorKind::FlagWithoutValue { flag: name.to_owned() };
    if kind != FlagKind::Bool {
        return Ok(value.ok_or_else(missing)?.to_owned());
    }
    match value.map(str::to_ascii_lowercase).as_deref() {
        None => Ok("true".to_owned()),
        Some("") => Err(missing().into()),
        Some(value @ ("true" | "false")) => Ok(value.to_owned()),
        Some(_) => {
            let value = value.unwrap_or_default().to_owned();
            Err(ErrorKind::FlagNotBool { flag: name.to_owned(), value }.into())
        }
    }
}
