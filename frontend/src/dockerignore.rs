//! `.dockerignore`: text to rules. What they match is the matter of who walks the context.

use thiserror::Error;

use crate::paths;

/// The largest file that is read.
pub const FILE_SIZE_BYTES_MAX: usize = 4 << 20;

/// Why a `.dockerignore` cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseError {
    /// A `!` alone.
    #[error("illegal exclusion pattern: `!` on line {line}")]
    BareExclamation {
        /// The line, counted from 1.
        line: u32,
    },
    /// More than [`FILE_SIZE_BYTES_MAX`].
    #[error(
        "a .dockerignore file of {size_bytes} bytes is larger than the {FILE_SIZE_BYTES_MAX} that are read"
    )]
    TooLarge {
        /// How large it is.
        size_bytes: usize,
    },
}

/// The rules of a file, in order, each cleaned and without a leading slash; `!` is kept. Bytes that are not UTF-8 are
/// replaced: they cannot match a name that is text.
///
/// # Errors
/// When a rule is nothing but `!`, or the file is too large.
pub fn parse(text: &[u8]) -> Result<Vec<String>, ParseError> {
    if text.len() > FILE_SIZE_BYTES_MAX {
        return Err(ParseError::TooLarge { size_bytes: text.len() });
    }
    let text = String::from_utf8_lossy(text);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut rules = Vec::new();
    for (line, number) in text.lines().zip(1_u32..) {
        // A comment begins in the first column; further in, `#` is part of a name.
        if line.starts_with('#') {
            continue;
        }
        let line = line.trim();
        let (negation, pattern) = line.strip_prefix('!').map_or(("", line), |rest| ("!", rest.trim()));
        match (negation, pattern) {
            ("", "") => {}
            (_, "") => return Err(ParseError::BareExclamation { line: number }),
            _ => rules.push(format!("{negation}{}", literal(clean(pattern), negation.is_empty()))),
        }
    }
    Ok(rules)
}

fn clean(pattern: &str) -> String {
    let clean = paths::clean(pattern);
    clean.strip_prefix('/').filter(|rest| !rest.is_empty()).map(str::to_owned).unwrap_or(clean)
}

/// A name that begins with `!` once its leading slash is gone must not be taken for a rule that takes back.
fn literal(pattern: String, is_name: bool) -> String {
    if is_name && pattern.starts_with('!') { format!("\\{pattern}") } else { pattern }
}
