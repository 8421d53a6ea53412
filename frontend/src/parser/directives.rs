//! The comments at the top of a file that speak to the parser: `# syntax=`, `# escape=`, `# check=`.
//!
//! A file for another frontend need not be a Dockerfile, so which one it asks for is found without parsing it, and in files
//! whose comments begin with `//` or that are JSON as well.

use rbuild_llb::SourceRange;

use super::line::{Lines, without_line_end};
use super::{Error, ErrorKind, text};

/// What the directives of a file say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives {
    /// The frontend image that the file asks for, and where.
    pub syntax: Option<(String, SourceRange)>,
    /// The escape and continuation character.
    pub escape: char,
    /// Which lint rules are skipped, and whether a violation is an error.
    pub check: Option<String>,
    /// Where `check` stands.
    pub check_range: Option<SourceRange>,
}

impl Default for Directives {
    fn default() -> Self {
        Self { syntax: None, escape: '\\', check: None, check_range: None }
    }
}

/// The frontend image that a file of any language asks for, with what follows its name.
pub(crate) fn syntax(source: &[u8]) -> Option<(String, SourceRange)> {
    let text = text(source);
    let in_comment = |marker| read_after(marker, source, &text).ok().and_then(|directives| directives.syntax);
    in_comment("#").or_else(|| in_comment("//")).or_else(|| syntax_of_json(&text))
}

fn syntax_of_json(text: &str) -> Option<(String, SourceRange)> {
    let document: serde_json::Value = serde_json::from_str(text).ok()?;
    let image = document.get("syntax")?.as_str()?;
    Some((image.to_owned(), SourceRange::line(1)))
}

/// Reads the directives. They end at the first line that is none, be it a blank one.
pub(super) fn read(source: &[u8], text: &str) -> Result<Directives, Error> {
    read_after("#", source, text)
}

/// Reads the directives of a file whose comments begin with `marker`.
fn read_after(marker: &str, source: &[u8], text: &str) -> Result<Directives, Error> {
    let mut directives = Directives::default();
    let mut escape_seen = false;
    let mut lines = Lines::new(source, text, directives.escape);
    while let Some(line) = lines.next()? {
        if line.number == 1 && line.text.starts_with("#!") {
            continue;
        }
        let comment = line.text.trim_start().strip_prefix(marker);
        let Some((key, value)) = comment.and_then(split) else { break };
        let range = SourceRange::line(line.number);
        let duplicate = |seen: bool| {
            let error = Error::new(ErrorKind::DuplicateDirective { name: key.clone() }).at(range);
            if seen { Err(error) } else { Ok(()) }
        };
        match key.as_str() {
            "syntax" => {
                duplicate(directives.syntax.is_some())?;
                directives.syntax = Some((value.to_owned(), range));
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
