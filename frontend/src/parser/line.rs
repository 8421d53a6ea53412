//! Physical lines, and how several become one.

use super::ast::Heredoc;
use super::{Error, ErrorKind, LINE_LENGTH_BYTES_MAX};
use rbuild_llb::SourceRange;

/// A physical line with its line end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    pub(super) text: &'a str,
    /// What it is in the file.
    raw: &'a [u8],
    pub(super) number: u32,
}

impl Line<'_> {
    /// Whether it is UTF-8: a replacement character is longer than the byte it stands for.
    const fn is_text(&self) -> bool {
        self.text.len() == self.raw.len()
    }
}

/// Lines that an escape character at the end joined.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) text: String,
    /// A blank line stood between.
    pub(super) has_empty_line: bool,
}

/// Reads a file line by line.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    rest: &'a str,
    raw: &'a [u8],
    number: u32,
    escape: char,
    /// The first line that was part of an instruction and is not UTF-8.
    not_text: Option<u32>,
}

impl<'a> Lines<'a> {
    /// `text` is what [`text`](super::text) makes of `source`.
    pub(super) fn new(source: &'a [u8], text: &'a str, escape: char) -> Self {
        let rest = text.strip_prefix('\u{feff}').unwrap_or(text);
        let raw = &source[text.len() - rest.len()..];
        Self { rest, raw, number: 0, escape, not_text: None }
    }

    /// The first line since the last call that is part of an instruction and is not UTF-8.
    pub(super) const fn take_not_text(&mut self) -> Option<u32> {
        self.not_text.take()
    }

    const fn note(&mut self, line: &Line<'_>) {
        if self.not_text.is_none() && !line.is_text() {
            self.not_text = Some(line.number);
        }
    }

    /// The number of the line read last.
    pub(super) const fn number(&self) -> u32 {
        self.number
    }

    /// The next line, with its line end.
    pub(super) fn next(&mut self) -> Result<Option<Line<'a>>, Error> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let end = self.rest.find('\n').map_or(self.rest.len(), |at| at + 1);
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        let end = self.raw.iter().position(|byte| *byte == b'\n').map_or(self.raw.len(), |at| at + 1);
        let (raw, after) = self.raw.split_at(end);
        self.raw = after;
        self.number += 1;
        if raw.len() > LINE_LENGTH_BYTES_MAX {
            let range = SourceRange::line(self.number);
            return Err(Error::new(ErrorKind::LineTooLong { max: LINE_LENGTH_BYTES_MAX }).at(range));
        }
        Ok(Some(Line { text, raw, number: self.number }))
    }

    /// Joins a line with those that continue it.
    pub(super) fn join(&mut self, first: Line<'a>) -> Result<Joined, Error> {
        self.note(&first);
        let trimmed = without_line_end(first.text).trim_start();
        let (start, mut continues) = split_continuation(trimmed, self.escape);
        let mut joined = Joined { text: start.to_owned(), has_empty_line: false };
        while continues {
            let Some(line) = self.next()? else { break };
            if comment(line.text).is_some() {
                continue;
            }
            self.note(&line);
            let text = without_line_end(line.text);
            if text.trim_start().is_empty() {
                joined.has_empty_line = true;
                continue;
            }
            let (part, more) = split_continuation(text, self.escape);
            joined.text.push_str(part);
            continues = more;
        }
        Ok(joined)
    }

    /// Reads a here-document up to its end. `false` when there is none.
    pub(super) fn read_heredoc(&mut self, document: &mut Heredoc) -> Result<bool, Error> {
        while let Some(line) = self.next()? {
            let mut text = without_line_end(line.text);
            if document.chomp {
                text = text.trim_start_matches('\t');
            }
            if line.is_text() && text == document.name {
                return Ok(true);
            }
            self.note(&line);
            document.push(line.text, line.raw);
        }
        Ok(false)
    }
}

pub(super) fn without_line_end(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

/// What stands behind the `#` of a comment line.
pub(super) fn comment(line: &str) -> Option<&str> {
    without_line_end(line).trim_start().strip_prefix('#')
}

/// Collects the comments above an instruction. An empty one separates: what is above it is about something else.
pub(super) fn add_comment(comments: &mut Vec<String>, comment: &str) {
    match comment.trim() {
        "" => comments.clear(),
        text => comments.push(text.to_owned()),
    }
}

/// The line without a continuation character, and whether it had one. An escaped escape is none.
fn split_continuation(line: &str, escape: char) -> (&str, bool) {
    let Some(start) = line.trim_end_matches([' ', '\t']).strip_suffix(escape) else {
        return (line, false);
    };
    if start.ends_with(escape) { (line, false) } else { (start, true) }
}
