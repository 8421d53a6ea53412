//! What a copy takes from its source tree, read off the action.

use super::{Glob, PatternError, Patterns, clean_rooted};
use crate::CopyAction;

/// Separates, in the source of a `--parents` copy, the directory that is left behind from the path that is kept.
const PIVOT: &str = "/./";

/// Which paths of the source tree a copy takes.
///
/// A path is taken if it is [`base`](Self::base), or below it and matching [`glob`](Self::glob), or in a directory that is; and
/// then, relative to that source, if `include` matches it (where there is one) and `exclude` does not.
#[derive(Debug, Clone)]
pub struct CopySelection {
    /// The path without wildcards from which everything starts: rooted and clean.
    pub base: String,
    /// What is matched below `base`; `None` where `base` itself is the source.
    pub glob: Option<Glob>,
    /// What is taken of a source that is a directory; `None` is all of it.
    pub include: Option<Patterns>,
    /// What is left out of a source that is a directory.
    pub exclude: Option<Patterns>,
    /// A path, relative to `base`, that must exist: a `--parents` source without wildcards, before its pivot or behind it.
    pub required: Option<String>,
}

impl CopySelection {
    /// Reads the selection off an action.
    ///
    /// # Errors
    /// When one of its patterns is malformed.
    pub fn new(action: &CopyAction) -> Result<Self, PatternError> {
        let exclude = list(&action.exclude)?;
        let (source, kept) =
            if action.parents { split_at_pivot(&action.src) } else { (action.src.clone(), None) };
        let (base, glob) = wildcards(&source, action.allow_wildcard)?;
        let (include, required) = match kept {
            None => (list(&action.include)?, None),
            Some(kept) => {
                let required = if glob.is_none() { required(&kept)? } else { None };
                (Some(including(&kept, &action.include)?), required)
            }
        };
        Ok(Self { base, glob, include, exclude, required })
    }
}

/// The directory that is left behind, and the relative path that is kept: a pattern that may hold `**`.
fn split_at_pivot(source: &str) -> (String, Option<String>) {
    let rooted = format!("/{source}");
    let (behind, kept) = rooted.split_once(PIVOT).unwrap_or(("/", &rooted));
    let kept = clean_rooted(kept)[1..].to_owned();
    (behind.to_owned(), Some(kept))
}

/// The directory without wildcards, and what is matched below it.
fn wildcards(source: &str, allowed: bool) -> Result<(String, Option<Glob>), PatternError> {
    if !allowed {
        return Ok((clean_rooted(source), None));
    }
    let glob = Glob::new(source)?;
    let base = format!("/{}", glob.literal_prefix());
    Ok((base, (!glob.is_literal()).then(|| glob.below_literal_prefix())))
}

/// A pivot at the end keeps nothing of the path: all that is below it is taken.
fn including(kept: &str, more: &[String]) -> Result<Patterns, PatternError> {
    let kept = if kept.is_empty() { "**" } else { kept };
    let all: Vec<&str> = std::iter::once(kept).chain(more.iter().map(String::as_str)).collect();
    Patterns::new(&all)
}

fn required(kept: &str) -> Result<Option<String>, PatternError> {
    let glob = Glob::new(kept)?;
    Ok((glob.depth() > 0 && glob.is_literal()).then(|| glob.literal_prefix()))
}

fn list(patterns: &[String]) -> Result<Option<Patterns>, PatternError> {
    let list = Patterns::new(patterns)?;
    Ok((!list.is_empty()).then_some(list))
}
