//! History entries, in the form that `docker history` and image scanners read.

use std::collections::HashSet;
use std::rc::Rc;

use rbuild_image::{Healthcheck, History, ImageConfig};

use super::state::{Current, State};
use super::{Lowerer, Variables};
use crate::instruction::duration;

/// What tools take for "made from a Dockerfile".
const COMMENT: &str = "buildkit.dockerfile.v0";
/// And for a layer that no instruction made.
const ROOT_COMMENT: &str = "buildkit.exporter.image.v0";

/// How many layers an image has. Very old ones say so only in their history.
pub(super) fn layer_count(config: &ImageConfig) -> usize {
    let in_history = config.history.iter().filter(|entry| !entry.empty_layer).count();
    config.rootfs.diff_ids.len().max(in_history)
}

/// The history of a stage as it grows. What its bases have recorded is shared with them, not copied: a chain of
/// stages would else cost the square of its length.
#[derive(Debug, Clone, Default)]
pub(super) struct Timeline {
    inherited: Vec<Rc<Vec<History>>>,
    own: Vec<History>,
}

impl Timeline {
    /// The history of a base image.
    pub(super) fn of_image(history: Vec<History>) -> Self {
        Self { inherited: vec![Rc::new(history)], own: Vec::new() }
    }

    /// Ends a stage: what it recorded can now be shared.
    pub(super) fn freeze(&mut self) {
        if !self.own.is_empty() {
            self.inherited.push(Rc::new(std::mem::take(&mut self.own)));
        }
    }

    pub(super) fn into_entries(self) -> Vec<History> {
        let inherited = self.inherited.iter().flat_map(|part| part.iter().cloned());
        inherited.chain(self.own).collect()
    }
}

impl Lowerer<'_> {
    /// Records an instruction that made no layer.
    pub(super) fn record(&self, current: &mut Current, created_by: String) {
        self.push_history(current, created_by, true);
    }

    /// Records an instruction that made a layer.
    pub(super) fn record_layer(&self, current: &mut Current, created_by: String) {
        self.push_history(current, created_by, false);
    }

    /// Records the layer that a stage stands on where its base is no image. BuildKit has the entry too, but as the last one, so that
    /// every entry tells of the layer above its own.
    pub(super) fn record_root(&self, state: &mut State, created_by: String) {
        state.history.own.push(History {
            created: self.times.created.clone(),
            created_by: Some(created_by),
            author: None,
            comment: Some(ROOT_COMMENT.to_owned()),
            empty_layer: false,
        });
    }

    fn push_history(&self, current: &mut Current, created_by: String, empty_layer: bool) {
        current.state.history.own.push(History {
            created: self.times.created.clone(),
            created_by: Some(created_by),
            author: None,
            comment: Some(COMMENT.to_owned()),
            empty_layer,
        });
    }
}

/// `|2 A=1 B=2 /bin/sh -c …`: the declared arguments as the process sees them, then its arguments.
pub(super) fn run_command(state: &State, args: &[String]) -> String {
    let mut seen = HashSet::new();
    let declared: Vec<&str> =
        state.args.iter().map(|(name, _)| name.as_str()).filter(|name| seen.insert(*name)).collect();
    let mut words = Vec::new();
    if !declared.is_empty() {
        words.push(format!("|{}", declared.len()));
    }
    words.extend(declared.iter().map(|name| format!("{name}={}", state.env.get(name).unwrap_or_default())));
    words.extend_from_slice(args);
    words.join(" ")
}

/// A list of words as Go's `%q` prints it: `["a" "b"]`.
pub(super) fn quoted_list(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| quote(word)).collect();
    format!("[{}]", quoted.join(" "))
}

/// A list of words as Go's `%v` prints it: `[a b]`.
pub(super) fn plain_list(words: &[String]) -> String {
    format!("[{}]", words.join(" "))
}

/// A string literal as Go writes it.
fn quote(text: &str) -> String {
    enclose(text, '"')
}

/// A health check as Go's `%q` prints a pointer to BuildKit's: the number of retries comes out as a character.
pub(super) fn quoted_healthcheck(check: &Healthcheck) -> String {
    let times = [check.interval_ns, check.timeout_ns, check.start_period_ns, check.start_interval_ns];
    let times = times.map(|ns| quote(&duration::format(ns)));
    let retries = u32::try_from(check.retries).ok().and_then(char::from_u32);
    let retries = enclose(&retries.unwrap_or(char::REPLACEMENT_CHARACTER).to_string(), '\'');
    format!("&{{{} {} {retries}}}", quoted_list(&check.test), times.join(" "))
}

fn enclose(text: &str, delimiter: char) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push(delimiter);
    for character in text.chars() {
        match character {
            _ if character == delimiter => quoted.extend(['\\', character]),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0b' => quoted.push_str("\\v"),
            '\x0c' => quoted.push_str("\\f"),
            '\0'..='\x1f' | '\x7f' => quoted.push_str(&format!("\\x{:02x}", u32::from(character))),
            '\u{80}'..='\u{a0}' | '\u{ad}' => quoted.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => quoted.push(character),
        }
    }
    quoted.push(delimiter);
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_quoted_as_go_does() {
        assert_eq!(quote("a\"b\\c\n\u{1}é"), r#""a\"b\\c\n\x01é""#);
        assert_eq!(quoted_list(&["a".to_owned(), "b c".to_owned()]), r#"["a" "b c"]"#);
    }
}
