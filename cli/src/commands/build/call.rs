//! `--call` and `--check`: what is done with a Dockerfile instead of building it. Answers go to standard output.

use std::str::FromStr;

use rbuild_frontend::{Answer, check, describe, outline, targets};
use thiserror::Error;

use super::failure::Blame;
use super::input::Remote;
use crate::commands;
use crate::report::Failure;

/// The exit code of a check that found something.
const EXIT_WARNINGS: u8 = 1;

/// What is done with a Dockerfile: `METHOD[,format=FORMAT]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// It is built.
    Build,
    /// It is asked.
    Question(Question),
}

/// A question, and the form of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Question {
    method: Method,
    is_json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Check,
    Outline,
    Targets,
    Describe,
}

/// Why a value of `--call` is none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum ParseCallError {
    /// Nothing that can be done.
    #[error("unknown method `{0}` (expected build, check, outline, targets or subrequests.describe)")]
    Method(String),
    /// Something else than a format.
    #[error("unknown field `{0}` (expected format=text or format=json)")]
    Field(String),
}

impl Call {
    /// `--check`.
    pub(crate) const CHECK: Self = Self::Question(Question { method: Method::Check, is_json: false });
}

impl FromStr for Call {
    type Err = ParseCallError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, fields) = text.split_once(',').map_or((text, None), |(name, rest)| (name, Some(rest)));
        let mut is_json = false;
        for field in fields.into_iter().flat_map(|fields| fields.split(',')) {
            is_json = match field {
                "format=json" => true,
                "format=text" => false,
                _ => return Err(ParseCallError::Field(field.to_owned())),
            };
        }
        let method = match name.strip_prefix("frontend.").unwrap_or(name) {
            "build" => return Ok(Self::Build),
            "check" | "lint" => Method::Check,
            "outline" => Method::Outline,
            "targets" => Method::Targets,
            "subrequests.describe" => Method::Describe,
            _ => return Err(ParseCallError::Method(name.to_owned())),
        };
        Ok(Self::Question(Question { method, is_json }))
    }
}

/// Answers a question. The exit code of a check says whether there are warnings.
pub(super) fn answer(question: Question, remote: &Remote<'_>, blame: &Blame<'_>) -> Result<u8, Failure> {
    let input = blame.input;
    let settings = remote.settings();
    let source = input.dockerfile.as_slice();
    let show = |answer: Answer| commands::print(if question.is_json { &answer.json } else { &answer.text });
    match question.method {
        Method::Describe => show(describe())?,
        Method::Targets => show(targets(source).map_err(|error| blame.frontend(&error))?.answer(source))?,
        Method::Outline => {
            let resolver = remote.resolver(&input.trees)?;
            let outline = outline(source, &settings.frontend(input)[0], &resolver);
            show(outline.map_err(|error| blame.frontend(&error))?.answer(source))?;
        }
        Method::Check => {
            let resolver = remote.resolver(&input.trees)?;
            let checked = check(source, &settings.frontend(input)[0], &resolver);
            show(checked.answer(&input.dockerfile_name, source))?;
            if let Some(error) = &checked.error {
                return Err(Failure { findings: Vec::new(), ..blame.frontend(error) });
            }
            return Ok(if checked.warnings.is_empty() { 0 } else { EXIT_WARNINGS });
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_as_buildx_reads_them() {
        let question = |method, is_json| Ok(Call::Question(Question { method, is_json }));
        let cases = [
            ("build", Ok(Call::Build)),
            ("check", question(Method::Check, false)),
            ("lint,format=json", question(Method::Check, true)),
            ("frontend.outline", question(Method::Outline, false)),
            ("targets,format=text", question(Method::Targets, false)),
            ("subrequests.describe,format=json", question(Method::Describe, true)),
            ("foo", Err(ParseCallError::Method("foo".into()))),
            ("check,format=yaml", Err(ParseCallError::Field("format=yaml".into()))),
            ("", Err(ParseCallError::Method(String::new()))),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse(), expected, "{text}");
        }
    }
}
