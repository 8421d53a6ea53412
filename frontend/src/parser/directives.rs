//! The comments at the top of a file that speak to the parser: `# syntax=`, `# escape=`, `# check=`.

use rbuild_llb::SourceRange;

use super::line::{Lines, comment, without_line_end};
use super::{Error, ErrorKind};

/// What the directives of a file say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives {
    /// The frontend image that the file asks for.
    pub syntax: Option<String>,
    /// The escape and continuation character.
    pub escape: char,
    /// Which lint rules are skipped, and whether a violation is an error.
    pub check: Option<String>,
    /// Where `syntax` stands.
    pub syntax_range: Option<SourceRange>,
    /// Where `check` stands.
    pub check_range: Option<SourceRange>,
}

impl Default for Directives {
    fn default() -> Self {
        Self { syntax: None, escape: '\\', check: None, syntax_range: None, check_range: None }
    }
}

/// Reads the directives. They end at the first line that is none, be it a blank one.
pub(super) fn read(text: &str) -> Result<Directives, Error> {
    let mut directives = Directives::default();
    let mut escape_seen = false;
    let mut lines = Lines::new(text, directives.escape);
    while let Some(line) = lines.next()? {
        if line.number == 1 && line.text.starts_with("#!") {
            continue;
        }
        let Some((key, value)) = comment(line.text).and_then(split) else { break };
        let range = SourceRange::line(line.number);
        let duplicate = |seen: bool| {
            let error = Error::new(ErrorKind::DuplicateDirective { name: key.clone() }).at(range);
            if seen { Err(error) } else { Ok(()) }
        };
        match key.as_str() {
            "syntax" => {
                duplicate(directives.syntax_range.is_some())?;
                directives.syntax = Some(value.to_owned());
                directives.syntax_range = Some(range);
            }
            "check" => {
                duplicate(directives.check_range.is_some())?;
                directives.check = Some(value.to_owned());
                directives.check_range = Some(range);
            }
            "escape" => {
                duplicate(std::mem::replace(&mut escape_seen, true))?;
                directives.escape = escape(value).map_err(|error| error.at(range))?;
            }
            _ => break,
        }
    }
    Ok(directives)
}

fn split(comment: &str) -> Option<(String, &str)> {
    let (key, value) = comment.split_once('=')?;
    let (key, value) = (key.trim(), without_line_end(value).trim());
    let starts_well = key.starts_with(|first: char| first.is_ascii_alphabetic());
    let well_formed = starts_well && key.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (well_formed && !value.is_empty()).then(|| (key.to_ascii_lowercase(), value))
}

fn escape(value: &str) -> Result<char, Error> {
    match value {
        "\\" => Ok('\\'),
        "`" => Ok('`'),
        _ => Err(ErrorKind::EscapeDirective { value: value.to_owned() }.into()),
    }
}
