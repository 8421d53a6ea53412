//! The tokens that announce here-documents: `<<EOF`, `<<-"EOF"`, `3<<EOF`.
//!
//! A token is a whole shell word: `a<<EOF` is none. Blanks after `<<`, but not after `<<-`, are part of the word. Lexing always uses the backslash, whatever the file's escape
//! character is, as the text may be meant for a shell.

use super::ast::Heredoc;
use crate::expand::{Expander, NoVariables, Quotes};

/// The here-documents that a line announces, without their content.
pub(super) fn tokens(line: &str) -> Vec<Heredoc> {
    let as_written = Expander { quotes: Quotes::Keep, keep_escapes: true, keep_unset: true, escape: '\\' };
    let Ok(expanded) = as_written.expand(line, &NoVariables) else { return Vec::new() };
    let mut words = expanded.words.into_iter();
    std::iter::from_fn(|| {
        let word = words.next()?;
        Some(if word.ends_with("<<") { word + &words.next().unwrap_or_default() } else { word })
    })
    .filter_map(|word| token(&word))
    .collect()
}

/// The here-document that a word announces.
pub(crate) fn token(word: &str) -> Option<Heredoc> {
    let digits = word.len() - word.trim_start_matches(|first: char| first.is_ascii_digit()).len();
    let (descriptor, rest) = word.split_at(digits);
    let rest = rest.strip_prefix("<<")?;
    let (chomp, name) = rest.strip_prefix('-').map_or((false, rest), |name| (true, name));
    let name = name.trim_start();
    if name.is_empty() || name.contains('<') {
        return None;
    }
    let plain = Expander { keep_unset: true, ..Expander::new('\\') };
    let raw = Expander { quotes: Quotes::Keep, keep_escapes: true, ..plain };
    let single = |how: Expander| {
        let mut words = how.expand(name, &NoVariables).ok()?.words;
        if words.len() == 1 { words.pop() } else { None }
    };
    let (resolved, written) = (single(plain)?, single(raw)?);
    let expand = resolved == written;
    let descriptor = descriptor.to_owned();
    Some(Heredoc { name: resolved, content: String::new(), raw: None, expand, chomp, descriptor })
}
