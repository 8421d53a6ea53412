//! What keys were made of, as it is kept in the store.

use std::sync::{Arc, PoisonError};

use rbuild_cache::{Likeness, RecordedTrace, Store};
use rbuild_llb::{Op, Vertex};

use super::{FileLists, stored};
use crate::cache_key::{CacheKey, ContentDigest, KeyTrace};
use crate::explain::{FileList, Memory, Recipe, Recorded};

/// What is kept with a record.
pub(super) fn encode(vertex: &Vertex, trace: &KeyTrace) -> Vec<u8> {
    serde_json::to_vec(&Recipe::of(vertex, trace)).expect("a recipe is lists and strings")
}

/// The recipes of a store, as they look from one project.
pub(super) struct Recipes<'a> {
    pub(super) store: &'a Store,
    pub(super) project: &'a str,
    pub(super) file_lists: &'a FileLists,
}

impl Memory for Recipes<'_> {
    fn nearest(&self, name: &str, recipe: &Recipe) -> Option<Recorded> {
        // What a source does is all in what it is pinned to: another of the same op is another thing.
        let is_source = matches!(recipe.op, Op::Source(_));
        let likeness = Likeness {
            op_digest: (!is_source).then_some(&recipe.trace.op.0),
            description: name,
            place: place(name),
            project: self.project,
        };
        decode(self.store.records().nearest(&likeness).ok()??)
    }

    fn recorded(&self, key: CacheKey) -> Option<Recorded> {
        decode(self.store.records().trace(stored(key)).ok()??)
    }

    fn files(&self, digest: ContentDigest) -> Option<Arc<FileList>> {
        let late = self.file_lists.lock().unwrap_or_else(PoisonError::into_inner).get(&digest.0).cloned();
        let of_this_build = late.map(|late| Arc::clone(&**late));
        let kept = || FileList::decode(self.store.read_file_list(&digest.0).ok()??).map(Arc::new);
        of_this_build.or_else(kept)
    }
}

fn decode(recorded: RecordedTrace) -> Option<Recorded> {
    let recipe = serde_json::from_slice(&recorded.trace).ok()?;
    Some(Recorded { name: recorded.description, recipe })
}

/// `[build 2/5] ` of `[build 2/5] RUN make`.
fn place(name: &str) -> Option<&str> {
    let end = name.find("] ")? + 2;
    let place = name.get(..end)?;
    (place.starts_with('[') && !place.starts_with("[internal")).then_some(place)
}
