//! From the bytes that a process prints to lines that are safe to show.
//!
//! A step's output is hostile: it may be no UTF-8, hold no line end for megabytes, or move the cursor. What leaves this module
//! holds no control character but the tab.

use std::borrow::Cow;

use console::strip_ansi_codes;

use crate::format::is_control;

/// A line longer than this is shown in pieces, so that output without line ends does not pile up in memory.
pub(super) const LINE_BYTES_MAX: usize = 16 * 1024;

/// Collects one stream's bytes until a line is whole.
#[derive(Debug, Default)]
pub(crate) struct LineBuffer {
    partial: Vec<u8>,
}

impl LineBuffer {
    /// Takes bytes as they come; returns the lines that they completed.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for part in piece.chunks(LINE_BYTES_MAX) {
                self.push_part(part, &mut lines);
            }
        }
        lines
    }

    fn push_part(&mut self, part: &[u8], lines: &mut Vec<String>) {
        if self.partial.len() + part.len() > LINE_BYTES_MAX {
            lines.extend(self.flush());
        }
        self.partial.extend_from_slice(part);
        if part.ends_with(b"\n") {
            lines.extend(self.flush());
        }
    }

    /// The line that was begun, if any: nothing more will come.
    pub(crate) fn flush(&mut self) -> Option<String> {
        if self.partial.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.partial);
        Some(sanitize(&String::from_utf8_lossy(&bytes)))
    }
}

/// What a terminal would show of a line in the end: without control sequences, and only what follows the last carriage
/// return, as progress bars draw over themselves.
fn sanitize(text: &str) -> String {
    let text = text.trim_end_matches(['\n', '\r']);
    let last = text.rsplit('\r').next().unwrap_or(text);
    strip_ansi_codes(last).chars().filter(|c| *c == '\t' || !is_control(*c)).collect()
}

/// A name or a message as one line: every run of white space and control characters is one space.
pub(super) fn one_line(text: &str) -> String {
    let text: Cow<'_, str> = strip_ansi_codes(text);
    text.split(|c: char| c.is_whitespace() || is_control(c))
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::{LINE_BYTES_MAX, LineBuffer, one_line};

    fn lines_of(chunks: &[&[u8]]) -> Vec<String> {
        let mut buffer = LineBuffer::default();
        let mut lines: Vec<String> = chunks.iter().flat_map(|chunk| buffer.push(chunk)).collect();
        lines.extend(buffer.flush());
        lines
    }

    #[test]
    fn lines_are_joined_across_chunks_and_decoded_lossily() {
        let cases: [(&[&[u8]], &[&str]); 11] = [
            (&[b"a\nb\n"], &["a", "b"]),
            (&[b"par", b"tial\nrest"], &["partial", "rest"]),
            (&[b"\xc3", b"\xa9\n"], &["é"]),
            (&[b"bad \xff\n"], &["bad \u{fffd}"]),
            (&[b"windows\r\n"], &["windows"]),
            (&[b"10%\r50%\r", b"100%\n"], &["100%"]),
            (&[b"\n\n"], &["", ""]),
            (&[b"\x1b[31mred\x1b[0m \x1b[2Jx\x1b[?25l\n"], &["red x"]),
            (&[b"\x1b]0;title\x07text\n"], &["text"]),
            (&[b"bell\x07 back\x08 tab\t.\n"], &["bell back tab\t."]),
            (&["rtl \u{202e}x\n".as_bytes()], &["rtl x"]),
        ];
        for (chunks, expected) in cases {
            assert_eq!(lines_of(chunks), expected, "{chunks:?}");
        }
    }

    #[test]
    fn no_control_character_survives() {
        for byte in 0..=u8::MAX {
            let line = lines_of(&[&[b'\x1b', byte, b'[', byte, b'm', byte, b'\n']]).concat();
            assert!(line.chars().all(|c| c == '\t' || !c.is_control()), "{byte}: {line:?}");
        }
    }

    #[test]
    fn a_line_at_the_limit_is_whole_and_one_past_it_is_not() {
        let mut line = vec![b'x'; LINE_BYTES_MAX - 1];
        line.push(b'\n');
        assert_eq!(lines_of(&[&line]).len(), 1);
        assert_eq!(lines_of(&[&[b'x'; LINE_BYTES_MAX + 1]]).len(), 2);
    }

    #[test]
    fn names_are_one_line() {
        assert_eq!(one_line("[2/3] RUN a &&\n\t  b\x1b[1m c"), "[2/3] RUN a && b c");
    }
}
