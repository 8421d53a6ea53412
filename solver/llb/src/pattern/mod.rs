//! The two pattern languages of a Dockerfile, kept apart.
//!
//! * [`Patterns`] is a `.dockerignore` file, and `COPY --exclude`: an ordered list, anchored at the root, `!` takes back, the
//!   last line that matches wins, a match on a directory holds for all that is in it, and `**` is any number of
//!   directories.
//! * [`Glob`] is a COPY source, Go's `filepath.Match`: one pattern, component by component, without `**`.
//!
//! Both have `*` and `?` (never a slash), `[a-z]`, `[^a-z]` and `\` before a character that is meant literally. Both
//! are compiled into the same kind of program (`program.rs`), which takes time linear in the path whatever the pattern: these
//! languages have no backtracking to exploit.
//!
//! [`CopySelection`] says for a copy which of the two applies to what. Paths are bytes; what is not UTF-8 matches only wildcards.

mod clean;
mod glob;
mod list;
mod program;
mod selection;

#[cfg(test)]
mod tests;

use thiserror::Error;

pub use clean::{clean, clean_rooted};
pub use glob::Glob;
pub use list::{PATTERNS_MAX, Patterns, State, Verdict};
pub use selection::CopySelection;

/// The longest pattern, in characters: no path on Linux is longer.
pub const PATTERN_LENGTH_MAX: usize = 4096;

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatternError {
    /// A `[` without its `]`, an empty class or range, or a `\` at the end.
    #[error("invalid pattern `{pattern}`: {problem}")]
    Syntax {
        /// The pattern as it was given.
        pattern: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A `!` with nothing after it.
    #[error("invalid pattern `!`: nothing follows the exclamation mark")]
    NothingNegated,
    /// Longer than [`PATTERN_LENGTH_MAX`].
    #[error("a pattern is {found} characters long (at most {PATTERN_LENGTH_MAX} are accepted)")]
    TooLong {
        /// Its length.
        found: usize,
    },
    /// More than [`PATTERNS_MAX`].
    #[error("{found} patterns (at most {PATTERNS_MAX} are accepted)")]
    TooMany {
        /// How many there are.
        found: usize,
    },
}
