//! Which rules speak: `skip=A,B;error=true;experimental=C`.

use crate::error::{Error, ErrorKind};

use super::Rule;

/// The parts of `# check=` are at most these three.
const PARTS_MAX: usize = 3;

/// Which rules speak, and what follows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Config {
    skip: Selection,
    experimental: Selection,
    pub(crate) is_error: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Selection {
    All,
    Named(Vec<String>),
}

impl Default for Selection {
    fn default() -> Self {
        Self::Named(Vec::new())
    }
}

impl Selection {
    fn parse(text: &str) -> Self {
        match text.trim() {
            "all" => Self::All,
            names => Self::Named(names.split(',').map(|name| name.trim().to_owned()).collect()),
        }
    }

    fn contains(&self, rule: Rule) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.iter().any(|name| name == rule.name()),
        }
    }

    fn join(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Named(names), Self::Named(more)) => names.extend(more),
            _ => *self = Self::All,
        }
    }
}

impl Config {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let mut config = Self::default();
        if text.trim().is_empty() {
            return Ok(config);
        }
        for part in text.splitn(PARTS_MAX, ';') {
            let invalid = || ErrorKind::CheckDirective { option: part.to_owned() };
            let (key, value) = part.split_once('=').ok_or_else(invalid)?;
            match key.trim() {
                "skip" => config.skip = Selection::parse(value),
                "experimental" => config.experimental = Selection::parse(value),
                "error" => config.is_error = parse_bool(value.trim()).ok_or_else(invalid)?,
                _ => return Err(invalid().into()),
            }
        }
        Ok(config)
    }

    /// The configuration for an instruction with these comments above it. They can switch rules off and
    /// experimental ones on; nonsense in them is a comment.
    pub(crate) fn with_comments(&self, comments: &[String]) -> Self {
        let mut config = self.clone();
        for comment in comments {
            let Some(("check", value)) = comment.split_once('=').map(|(key, value)| (key.trim(), value))
            else {
                continue;
            };
            if let Ok(more) = Self::parse(value) {
                config.skip.join(more.skip);
                config.experimental.join(more.experimental);
            }
        }
        config
    }

    pub(crate) fn allows(&self, rule: Rule) -> bool {
        !self.skip.contains(rule) && (!rule.is_experimental() || self.experimental.contains(rule))
    }
}

/// The spellings that Go's `strconv.ParseBool` takes.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
