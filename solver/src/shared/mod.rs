//! The shared cache: what other machines built, found under the same keys.
//!
//! It lives in a [`RemoteStore`]: a repository of a registry, a bucket, a directory. Each record is a document of its own (`record`),
//! named by its definition key, that names the layers of what the step gave by digest. So any number of builds write at once and
//! lose nothing of each other's: two that write one key write the same, and a record is written after its layers.
//!
//! * **Asked** in one batch, and only for steps that would have to run: behind the records of this store, which come first.
//! * **Fetched late**. What is found is a [`Tree`] that is elsewhere. Its layers come when a step has to run on it, or when the
//!   result has to be here; a result that is only pushed goes from one registry's repository to another without passing through.
//! * **Filled** after a build (`export`), from the records of this store.
//!
//! What a record is believed: that its layers are what the step gives. Whoever may write to the shared cache decides that, as with
//! any cache. What is not believed: that a document is of the key it was found under, or that a blob is what its digest says, or
//! unpacks to what its diff-id says. Keys are made here, from what is here. No record replaces one of this store.
//!
//! A shared cache that fails is not asked again in this build. If it fails while a layer is fetched, what was found in it has to
//! be made after all: the build begins again without it, and finds in this store what it made so far.

mod export;
mod fetch;
mod record;

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rbuild_cache::Snapshot;
use rbuild_registry::RemoteStore;

pub use export::{ExportMode, ExportOptions, Exported, Finished};
pub(crate) use record::{SharedLayer, SharedRecord};

use crate::cache_key::CacheKey;
use crate::images::PackedLayer;

/// What the name of a record begins with; the key follows.
const NAME_PREFIX: &str = "key-";

/// The name of a record.
fn name_of(key: CacheKey) -> String {
    format!("{NAME_PREFIX}{key}")
}

/// The shared caches of one build, in the order in which they are asked.
#[derive(Debug, Default)]
pub struct SharedCaches {
    caches: Vec<SharedCache>,
}

#[derive(Debug)]
struct SharedCache {
    store: RemoteStore,
    /// Why it is not asked any more.
    failure: Mutex<Option<String>>,
}

/// A shared cache that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedCacheFailure {
    /// Which.
    pub store: String,
    /// Why.
    pub reason: String,
}

impl SharedCaches {
    /// These, to be asked in this order.
    pub fn new(stores: Vec<RemoteStore>) -> Self {
        let cache = |store| SharedCache { store, failure: Mutex::default() };
        Self { caches: stores.into_iter().map(cache).collect() }
    }

    /// Those that failed.
    pub fn failures(&self) -> Vec<SharedCacheFailure> {
        let failure = |cache: &SharedCache| {
            let reason = lock(&cache.failure).clone()?;
            Some(SharedCacheFailure { store: cache.store.to_string(), reason })
        };
        self.caches.iter().filter_map(failure).collect()
    }

    /// Asks no more of a cache that failed.
    pub(crate) fn give_up(&self, store: &RemoteStore, error: &dyn std::error::Error) {
        let name = store.to_string();
        if let Some(cache) = self.caches.iter().find(|cache| cache.store.to_string() == name) {
            lock(&cache.failure).get_or_insert_with(|| chain(error));
        }
    }

    /// The records of keys, from the first cache that has each. One answer for each key, in order.
    pub(crate) fn lookup(
        &self,
        keys: &[CacheKey],
        cancel: &AtomicBool,
    ) -> Vec<Option<(RemoteStore, SharedRecord)>> {
        let mut found: Vec<Option<(RemoteStore, SharedRecord)>> = keys.iter().map(|_| None).collect();
        for cache in &self.caches {
            let missing: Vec<usize> = (0..keys.len()).filter(|index| found[*index].is_none()).collect();
            if missing.is_empty() || lock(&cache.failure).is_some() {
                continue;
            }
            let names: Vec<String> = missing.iter().map(|index| name_of(keys[*index])).collect();
            let documents = match cache.store.documents(&names, cancel) {
                Ok(documents) => documents,
                Err(error) => {
                    self.give_up(&cache.store, &error);
                    continue;
                }
            };
            for (index, document) in missing.into_iter().zip(documents) {
                let record = document.and_then(|bytes| SharedRecord::parse(&bytes, keys[index]));
                found[index] = record.map(|record| (cache.store.clone(), record));
            }
        }
        found
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// What a step gave.
#[derive(Debug, Clone)]
pub enum Tree {
    /// A snapshot of the store.
    Here(Snapshot),
    /// Layers that a shared cache has.
    Elsewhere(RemoteTree),
}

/// One output of a result that a shared cache has.
#[derive(Clone)]
pub struct RemoteTree {
    pub(crate) result: Arc<RemoteResult>,
    pub(crate) output: usize,
}

/// A result that a shared cache has, and what is recorded of it once it is here.
#[derive(Debug)]
pub(crate) struct RemoteResult {
    pub(crate) store: RemoteStore,
    pub(crate) record: SharedRecord,
    pub(crate) step: RecordedStep,
    /// Its outputs, once they are here.
    pub(crate) here: Mutex<Option<Vec<Snapshot>>>,
}

/// A step as it is recorded.
#[derive(Debug, Clone)]
pub(crate) struct RecordedStep {
    pub(crate) key: CacheKey,
    pub(crate) op_digest: [u8; 32],
    pub(crate) description: String,
    pub(crate) recipe: Vec<u8>,
    pub(crate) file_lists: Vec<[u8; 32]>,
    pub(crate) project: String,
}

impl fmt::Debug for RemoteTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteTree").field("key", &self.result.step.key).finish_non_exhaustive()
    }
}

impl RemoteTree {
    /// All outputs of a result.
    pub(crate) fn outputs(result: RemoteResult) -> Vec<Tree> {
        let result = Arc::new(result);
        let outputs = 0..result.record.outputs.len();
        outputs.map(|output| Tree::Elsewhere(Self { result: Arc::clone(&result), output })).collect()
    }

    /// Its layers, bottom first.
    pub(crate) fn layers(&self) -> &[SharedLayer] {
        &self.result.record.outputs[self.output]
    }

    /// What to fetch for an output of a record, and what it must unpack to.
    fn layers_of(record: &SharedRecord, output: usize) -> Vec<PackedLayer> {
        let packed = |layer: &SharedLayer| PackedLayer {
            blob: layer.blob.clone(),
            diff_id: layer.diff_id,
            created: Some(layer.created),
        };
        record.outputs[output].iter().map(packed).collect()
    }
}

impl Tree {
    /// How many layers it has.
    pub fn layer_count(&self) -> usize {
        match self {
            Self::Here(snapshot) => snapshot.layers.len(),
            Self::Elsewhere(tree) => tree.layers().len(),
        }
    }

    /// The snapshot, if it is here.
    pub const fn snapshot(&self) -> Option<&Snapshot> {
        match self {
            Self::Here(snapshot) => Some(snapshot),
            Self::Elsewhere(_) => None,
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
