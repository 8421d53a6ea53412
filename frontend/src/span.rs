//! Where in a line of the Dockerfile the word stands that an error is about.
//!
//! Errors know the word as it was written and the lines of its instruction; continuation lines and here-documents are
//! joined and taken apart long before. So the word is looked for once, at the end, in the text itself. One that is
//! not found there as it is (quoted, escaped, broken over two lines) leaves the lines to blame.

use std::ops::Range;

use rbuild_llb::SourceRange;

/// A part of one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The line, from 1.
    pub line: u32,
    /// The columns, in characters from 1; the end is the first that does not belong to it.
    pub columns: Range<u32>,
}

impl Span {
    /// Finds a word in some lines of a file: where it stands alone, or else anywhere. Comments between the lines of
    /// an instruction are no part of it.
    pub fn find(source: &str, range: SourceRange, word: &str) -> Option<Self> {
        if word.is_empty() {
            return None;
        }
        let lines = || {
            let first = range.line_first;
            let count = range.line_last.saturating_sub(first) + 1;
            let lines = (1_u32..).zip(source.lines()).skip(first.saturating_sub(1) as usize);
            lines
                .take(count as usize)
                .filter(move |(number, line)| *number == first || !line.trim_start().starts_with('#'))
        };
        let at = |(number, line): (u32, &str), accept: fn(&str, usize, usize) -> bool| {
            let mut places = line.match_indices(word).map(|(at, _)| (at, at + word.len()));
            places
                .find(|(start, end)| accept(line, *start, *end))
                .map(|(start, end)| Self { line: number, columns: column(line, start)..column(line, end) })
        };
        lines()
            .find_map(|line| at(line, stands_alone))
            .or_else(|| lines().find_map(|line| at(line, anywhere)))
    }
}

/// The column of a byte, from 1. The mark of byte order in front of a file takes no room.
fn column(line: &str, byte: usize) -> u32 {
    let before = line[..byte].trim_start_matches('\u{feff}');
    u32::try_from(before.chars().count()).unwrap_or(u32::MAX).saturating_add(1)
}

const fn anywhere(_: &str, _: usize, _: usize) -> bool {
    true
}

/// Whether nothing that could belong to the word stands next to it.
fn stands_alone(line: &str, start: usize, end: usize) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || matches!(character, '_' | '-' | '.' | '/');
    !line[..start].ends_with(is_part) && !line[end..].starts_with(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_where_they_stand_alone() {
        let source = "\u{feff}FROM x\nRUN αxy x \\\n  # x y\n  y=1 --y\n";
        let cases = [
            (1, 1, "x", Some((1, 6..7))),
            (2, 4, "x", Some((2, 9..10))),
            (2, 4, "xy", Some((2, 6..8))),
            (2, 4, "y", Some((4, 3..4))),
            (2, 4, "--y", Some((4, 7..10))),
            (3, 3, "y", Some((3, 7..8))),
            (2, 4, "z", None),
            (2, 4, "", None),
            (9, 9, "x", None),
        ];
        for (line_first, line_last, word, expected) in cases {
            let found = Span::find(source, SourceRange { line_first, line_last }, word);
            assert_eq!(found.map(|span| (span.line, span.columns)), expected, "{word} in {line_first}");
        }
    }
}
