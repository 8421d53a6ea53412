//! Lint: what is allowed and probably not meant. Warnings are data; a command shows them.
//!
//! Which rules speak is configured by `# check=` or the build argument `BUILDKIT_DOCKERFILE_CHECK`, and for one
//! instruction by a comment `# check=skip=…` right above it.

pub(crate) mod checks;
mod config;
mod rules;

use rbuild_llb::SourceRange;

use crate::error::{Error, ErrorKind};

pub use rules::Rule;

pub(crate) use config::Config;
pub use config::parse_bool;

/// A rule that was broken, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The rule.
    pub rule: Rule,
    /// What is wrong here.
    pub message: String,
    /// The lines it is about.
    pub range: SourceRange,
}

/// Collects warnings.
#[derive(Debug, Default)]
pub(crate) struct Linter {
    config: Config,
    warnings: Vec<Warning>,
}

impl Linter {
    /// Says which rules speak.
    pub(crate) fn configure(&mut self, config: Config) {
        self.config = config;
    }

    /// Reports a broken rule, unless it is switched off for the file or by `comments` above the instruction. The
    /// same finding is reported once, however often the instruction is evaluated.
    pub(crate) fn report(&mut self, rule: Rule, comments: &[String], range: SourceRange, message: String) {
        if !self.config.with_comments(comments).allows(rule) {
            return;
        }
        let warning = Warning { rule, message, range };
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// An error that holds the warnings, if the Dockerfile asks for one.
    pub(crate) fn verdict(&self) -> Result<(), Error> {
        let first = self.warnings.iter().map(|warning| warning.range).min_by_key(|range| range.line_first);
        let Some(range) = first.filter(|_| self.config.is_error) else { return Ok(()) };
        Err(Error::new(ErrorKind::Lint { warnings: self.warnings.clone() }).at(range))
    }

    /// The warnings in the order of the file.
    pub(crate) fn finish(self) -> Vec<Warning> {
        let mut warnings = self.warnings;
        warnings.sort_by_key(|warning| (warning.range.line_first, warning.range.line_last));
        warnings
    }
}

/// The rules that were broken, each once, in the order in which that was seen.
pub(crate) fn rule_names(warnings: &[Warning]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in warnings.iter().map(|warning| warning.rule.name()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(", ")
}
