//! The log of a container: what its process printed, line by line, as Docker's `json-file` driver writes it.
//!
//! ```text
//! containers/<id>/json.log      {"log":"a line\n","stream":"stdout","time":"2026-01-02T03:04:05.678901234Z"}
//! containers/<id>/json.log.1    the one before, where a size was given at which to begin anew
//! ```
//!
//! A line is whole, with its newline; one that is longer than 16 KiB comes in parts, and the last one of a stream may lack its newline.

mod read;
mod write;

use serde::{Deserialize, Serialize};

pub use read::{LogReader, LogTail};
pub(crate) use write::{LogWriter, time};

/// The current file.
const FILE: &str = "json.log";

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// The text, with its newline.
    pub log: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// When, RFC 3339 with nanoseconds.
    pub time: String,
}

impl LogLine {
    /// When, Unix nanoseconds.
    pub fn time_ns(&self) -> Option<i64> {
        let time: jiff::Timestamp = self.time.parse().ok()?;
        i64::try_from(time.as_nanosecond()).ok()
    }
}

/// The name of the `n`-th file before the current one.
fn rotated(number: u32) -> String {
    if number == 0 { FILE.to_owned() } else { format!("{FILE}.{number}") }
}

#[cfg(test)]
mod tests;
