//! Why a step runs although others like it have run before.
//!
//! With each record is kept what its key was made of: a [`Recipe`], and for local sources the list of files behind each
//! content digest. A step that was not found is compared with the nearest record, and what differs is its [`Cause`]s. Where
//! it is an input that differs, the steps that made the two inputs are compared in turn, down to the first cause.
//!
//! | the key differs in | is told as |
//! |---|---|
//! | the operation's command line | [`Cause::Command`] |
//! | its environment | [`Cause::Argument`] where the variable is a build argument, else [`Cause::Environment`] |
//! | any other field of it | [`Cause::Option`], by the name that the field has in a Dockerfile or on the command line |
//! | the files of a local source | [`Cause::Files`] |
//! | what a source is pinned to | [`Cause::BaseImage`], [`Cause::Source`] |
//! | an input | [`Cause::EarlierStep`] |
//!
//! Nothing here decides anything: a store that cannot be read explains less, and builds all the same. So a step begins at once, and
//! is explained beside; what it says waits for that.

mod files;
mod op;
mod words;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_image::Platform;
use rbuild_llb::{Meta, Op, SourceOp, Vertex, without_credentials};
use serde::{Deserialize, Serialize};

pub use self::files::{FileChange, FileChanges, FileEntry, FileList, Paths};
use crate::cache_key::{CacheKey, ContentDigest, Contribution, KeyTrace};

/// All that a definition key is made of, and the operation as data: what is kept with a record. No secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// What the key is made of.
    pub trace: KeyTrace,
    /// What the step does.
    pub op: Op,
    /// What it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Which variables of its environment are build arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
}

impl Recipe {
    /// Of a vertex whose key has this trace.
    pub fn of(vertex: &Vertex, trace: &KeyTrace) -> Self {
        let Vertex { op, inputs: _, platform, meta: Meta { arguments, .. } } = public(vertex);
        Self { trace: trace.clone(), op, platform, arguments }
    }
}

/// A vertex without what may hold credentials: proxies, and what is sent to servers.
pub fn public(vertex: &Vertex) -> Vertex {
    let mut vertex = vertex.clone();
    match &mut vertex.op {
        Op::Exec(exec) => exec.process.proxy = None,
        Op::Source(SourceOp::Git(git)) => git.remote = without_credentials(&git.remote),
        Op::Source(SourceOp::Http(http)) => {
            http.url = without_credentials(&http.url);
            http.headers.clear();
        }
        Op::Source(_) | Op::File(_) | Op::Merge(_) | Op::Diff(_) => {}
    }
    vertex
}

/// Something that a key differs in from the key it is best compared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Cause {
    /// The cache was not to be used.
    NoCache,
    /// Nothing like it was ever recorded.
    NeverBuilt,
    /// It was recorded, and the result is no longer in the store, or lacks what is needed of it.
    Forgotten,
    /// Another command line.
    Command(Change),
    /// A variable of the environment.
    Environment(NamedChange),
    /// A build argument.
    Argument(NamedChange),
    /// Another field of the operation.
    Option(NamedChange),
    /// Files of a local source. What changed is unknown where a list of them is not there.
    Files(FileChanges),
    /// The image that a stage begins with.
    BaseImage(Change),
    /// What another source is pinned to.
    Source(Change),
    /// An input was made anew, or is another.
    EarlierStep {
        /// The step that made it.
        step: String,
        /// Where it began.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        first: Option<Box<FirstCause>>,
    },
}

/// Something was another thing before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Then.
    pub before: String,
    /// Now.
    pub after: String,
}

/// A named thing was added, removed or had another value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedChange {
    /// Its name.
    pub name: String,
    /// Then; nothing when it was added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Now; nothing when it was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// What began a chain of steps that had to run again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstCause {
    /// The step that differs by itself.
    pub step: String,
    /// In what.
    pub cause: Cause,
}

/// A recorded step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The step in words.
    pub name: String,
    /// What its key is made of.
    pub recipe: Recipe,
}

/// What is remembered of keys. Whatever cannot be read is not there.
pub trait Memory {
    /// The record that a step is best compared with.
    fn nearest(&self, name: &str, recipe: &Recipe) -> Option<Recorded>;
    /// What a key was made of.
    fn recorded(&self, key: CacheKey) -> Option<Recorded>;
    /// The files behind the content digest of a local source.
    fn files(&self, digest: ContentDigest) -> Option<Arc<FileList>>;
}

/// Finds causes. Keeps those of pairs of inputs: in a chain of steps, each is asked about the one before.
#[derive(Debug, Default)]
pub struct Explainer {
    steps: Mutex<HashMap<(CacheKey, CacheKey), Cause>>,
    files: Mutex<HashMap<(ContentDigest, ContentDigest), FileChanges>>,
}

impl Explainer {
    /// Why a step that was not found by its key has to run.
    pub fn causes(&self, memory: &impl Memory, name: &str, recipe: &Recipe) -> Vec<Cause> {
        let Some(nearest) = memory.nearest(name, recipe) else { return vec![Cause::NeverBuilt] };
        let causes = self.differences(memory, recipe, &nearest.recipe);
        if causes.is_empty() { vec![Cause::Forgotten] } else { causes }
    }

    fn differences(&self, memory: &impl Memory, now: &Recipe, before: &Recipe) -> Vec<Cause> {
        let mut causes =
            if now.trace.op == before.trace.op { Vec::new() } else { op::differences(now, before) };
        for (now_input, before_input) in now.trace.inputs.iter().zip(&before.trace.inputs) {
            if now_input == before_input {
                continue;
            }
            let cause = match (now_input, before_input) {
                (Contribution::Content(now), Contribution::Content(before)) => {
                    Some(Cause::Files(self.changes(memory, *now, *before)))
                }
                (Contribution::Identity(_), Contribution::Identity(_)) => Some(op::source(now, before)),
                (Contribution::Definition { key: now, .. }, Contribution::Definition { key: before, .. })
                    if now != before =>
                {
                    Some(self.earlier(memory, *now, *before))
                }
                // Another part of the same input, or an input of another kind: the operation says so itself.
                _ => None,
            };
            causes.extend(cause.filter(|cause| !causes.contains(cause)));
        }
        causes
    }

    fn earlier(&self, memory: &impl Memory, now: CacheKey, before: CacheKey) -> Cause {
        let known = || self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cause) = known().get(&(now, before)) {
            return cause.clone();
        }
        let (now_recorded, before_recorded) = (memory.recorded(now), memory.recorded(before));
        let step = now_recorded.as_ref().map_or_else(String::new, |recorded| recorded.name.clone());
        let causes = match (&now_recorded, &before_recorded) {
            (Some(now), Some(before)) => self.differences(memory, &now.recipe, &before.recipe),
            _ => Vec::new(),
        };
        let first = causes.into_iter().next().and_then(|cause| match cause {
            Cause::EarlierStep { first, .. } => first,
            cause => Some(Box::new(FirstCause { step: step.clone(), cause })),
        });
        let cause = Cause::EarlierStep { step, first };
        known().insert((now, before), cause.clone());
        cause
    }

    fn changes(&self, memory: &impl Memory, now: ContentDigest, before: ContentDigest) -> FileChanges {
        let known = || self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(changes) = known().get(&(now, before)) {
            return changes.clone();
        }
        let changes = match (memory.files(now), memory.files(before)) {
            (Some(now), Some(before)) => now.changes_since(&before),
            _ => FileChanges::default(),
        };
        known().insert((now, before), changes.clone());
        changes
    }
}

#[cfg(test)]
mod tests;
