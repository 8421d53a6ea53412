//! Text to lines of instructions, each with the range of lines it was written on.
//!
//! What is done here and nowhere else: the byte order mark and line ends, bytes that are no text, comments, continuation lines, parser
//! directives, flags, the JSON form, here-documents. What an instruction means is the next module's.
//!
//! The order matters and is BuildKit's: comments go before continuation lines are joined, so a comment may stand
//! between two halves of an instruction; leading white space goes on the first line only.

mod ast;
mod directives;
pub(crate) mod heredoc;
pub(crate) mod json;
mod line;
pub(crate) mod words;

pub use ast::{Dockerfile, Heredoc, Node};
pub use directives::Directives;
pub(crate) use directives::syntax;

use std::borrow::Cow;

use rbuild_llb::SourceRange;

use crate::error::{Error, ErrorKind};
use line::Lines;

/// The largest Dockerfile that is read.
pub const FILE_SIZE_BYTES_MAX: usize = 16 << 20;
/// The longest physical line, as in BuildKit.
pub const LINE_LENGTH_BYTES_MAX: usize = 65_535;
/// The most instructions in a file.
pub const INSTRUCTIONS_MAX: usize = 20_000;

/// A file as text, and what stands there of a byte that is not UTF-8: one replacement character each, as in BuildKit's configs.
pub fn text(source: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = str::from_utf8(source) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(source.len());
    for chunk in source.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    Cow::Owned(text)
}

/// Parses a Dockerfile.
///
/// # Errors
/// When the text is too large, empty, or malformed where that can be told without knowing the instructions.
pub fn parse(source: &[u8]) -> Result<Dockerfile, Error> {
    if source.is_empty() {
        return Err(ErrorKind::Empty.into());
    }
    if source.len() > FILE_SIZE_BYTES_MAX {
        let (size_bytes, max) = (source.len(), FILE_SIZE_BYTES_MAX);
        return Err(ErrorKind::FileTooLarge { size_bytes, max }.into());
    }
    let text = text(source);
    let directives = directives::read(source, &text)?;
    let mut lines = Lines::new(source, &text, directives.escape);
    let mut file = Dockerfile { directives, nodes: Vec::new(), empty_continuations: Vec::new() };
    let mut comments = Vec::new();
    while let Some(first) = lines.next()? {
        let range = |lines: &Lines<'_>| SourceRange { line_first: first.number, line_last: lines.number() };
        if let Some(comment) = line::comment(first.text) {
            line::add_comment(&mut comments, comment);
            continue;
        }
        let joined = lines.join(first)?;
        if joined.text.trim().is_empty() {
            continue;
        }
        if joined.has_empty_line {
            file.empty_continuations.push(SourceRange::line(lines.number()));
        }
        let mut node = Node::new(&joined.text).map_err(|error| error.at(range(&lines)))?;
        node.read_heredocs(&mut lines).map_err(|error| error.at(range(&lines)))?;
        node.range = range(&lines);
        node.not_text = lines.take_not_text();
        node.comments = std::mem::take(&mut comments);
        file.nodes.push(node);
        if file.nodes.len() > INSTRUCTIONS_MAX {
            let error = Error::new(ErrorKind::TooManyInstructions { max: INSTRUCTIONS_MAX });
            return Err(error.at(range(&lines)));
        }
    }
    if file.nodes.is_empty() { Err(ErrorKind::NoInstructions.into()) } else { Ok(file) }
}
