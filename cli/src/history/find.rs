//! What a user means by BUILD and STEP.
//!
//! | typed | is |
//! |---|---|
//! | nothing | the newest build, all its steps |
//! | hex digits that one id begins with | that build |
//! | `#4`, `4` | the step that progress showed under this number |
//! | anything else | the step whose name holds it |
//!
//! A lone word is a step where it is a number or no build's id.

use rbuild_cache::{BuildName, Store};

use super::document::{BuildDocument, BuildOutcome, StepDocument};
use crate::report::{Failure, Kind};

/// The longest number that is taken for a step's.
const STEP_NUMBER_DIGITS_MAX: usize = 5;

/// A build of the history.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) name: BuildName,
    pub(crate) document: BuildDocument,
}

/// All that can be read, newest first.
///
/// # Errors
/// When the history cannot be listed.
pub(crate) fn all(store: &Store) -> Result<Vec<Found>, Failure> {
    let names = store.builds().names()?;
    Ok(names.into_iter().filter_map(|name| read(store, name).ok()).collect())
}

/// The build that a word means; the newest for none.
///
/// # Errors
/// When there is none, or several.
pub(crate) fn build(store: &Store, word: Option<&str>) -> Result<Found, Failure> {
    let mut names = store.builds().names()?;
    names.retain(|name| word.is_none_or(|word| name.id().starts_with(word)));
    match (word, names.as_slice()) {
        (None, []) => Err(Failure::new(Kind::Input, "no build is remembered")),
        (Some(word), []) => Err(Failure::new(Kind::Input, format!("there is no build `{word}`"))
            .hint("`rbuild builds ls` lists what there is")),
        (Some(word), [_, _, ..]) => Err(Failure::new(Kind::Input, format!("`{word}` means several builds"))
            .hint("more digits tell them apart")),
        (_, [newest, ..]) => read(store, newest.clone()),
    }
}

/// What one or two words mean: a build, a step of it, or both.
///
/// # Errors
/// As [`build`] and [`step`].
pub(crate) fn build_and_step<'a>(
    store: &Store,
    words: &'a [String],
) -> Result<(Found, Option<&'a str>), Failure> {
    match words {
        [] => Ok((build(store, None)?, None)),
        [word] if is_step(store, word)? => Ok((build(store, None)?, Some(word))),
        [word] => Ok((build(store, Some(word))?, None)),
        [first, step, ..] => Ok((build(store, Some(first))?, Some(step))),
    }
}

fn is_step(store: &Store, word: &str) -> Result<bool, Failure> {
    let is_number = word.len() <= STEP_NUMBER_DIGITS_MAX && word.bytes().all(|byte| byte.is_ascii_digit());
    let is_build = || -> Result<bool, Failure> {
        Ok(store.builds().names()?.iter().any(|name| name.id().starts_with(word)))
    };
    Ok(word.starts_with('#') || is_number || !is_build()?)
}

/// The step that a word means.
///
/// # Errors
/// When there is none, or several.
pub(crate) fn step<'a>(document: &'a BuildDocument, word: &str) -> Result<&'a StepDocument, Failure> {
    let number = word.trim_start_matches('#').parse::<usize>().ok();
    let steps = || document.steps.iter();
    let named: Vec<&StepDocument> = match number {
        Some(number) => steps().filter(|step| step.number == Some(number)).collect(),
        None => steps().filter(|step| step.name.contains(word)).collect(),
    };
    match named.as_slice() {
        [step] => Ok(step),
        [] => Err(Failure::new(Kind::Input, format!("the build has no step `{word}`"))
            .hint("`rbuild builds inspect` lists its steps")),
        _ => Err(Failure::new(Kind::Input, format!("`{word}` means several steps"))
            .hint("a step's number tells which: `#4`")),
    }
}

fn read(store: &Store, name: BuildName) -> Result<Found, Failure> {
    let forgotten = || Failure::new(Kind::Input, format!("build `{}` was forgotten meanwhile", name.id()));
    let recorded = store.builds().read(&name)?.ok_or_else(forgotten)?;
    let mut document: BuildDocument = serde_json::from_slice(&recorded.document).map_err(|error| {
        Failure::new(
            Kind::Environment,
            format!("failed to read what is known of build `{}`: {error}", name.id()),
        )
    })?;
    if !recorded.runs && document.outcome == BuildOutcome::Running {
        document.outcome = BuildOutcome::Died;
    }
    Ok(Found { name, document })
}
