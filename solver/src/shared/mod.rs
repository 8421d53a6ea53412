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
//! * **Found by content** too: where a step is given what another machine made by other ways, one document leads from its content
//!   key to the record. Only steps are asked about whose op the cache has a mark of. What the step added is fetched then and there, and laid on
//!   what it is given here.
//! * **Cache mounts** travel too (`mounts`), in chunks, so that a changed one costs its difference.
//! * **In images** (`inline`): an image may say itself which steps lead to it.
//! * **Kept up** (`upkeep`): who writes notes the day of use in what it finds, and whoever prunes goes by that.
//!
//! What a record is believed: that its layers are what the step gives. Whoever may write to the shared cache decides that, as with
//! any cache, or whoever has a key that is required (`signature`). What is not believed: that a document is of the key it was found
//! under, or that a blob is what its digest says, or unpacks to what its diff-id says. Keys are made here, from what is here. No
//! record replaces one of this store.
//!
//! A shared cache that fails is not asked again in this build; a record whose layers are not there or not what they should be is
//! set aside, and written anew. Either way, what was found has to be made after all: the build begins again without it, and finds
//! in this store what it made so far.

mod export;
mod fetch;
mod inline;
mod mounts;
mod name;
mod record;
mod signature;
mod upkeep;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rbuild_cache::Snapshot;
use rbuild_image::{Manifest, Platform};
use rbuild_llb::{Op, OpDigest};
use rbuild_registry::RemoteStore;

pub use export::{ExportMode, ExportOptions, Exported, Finished};
pub use inline::INLINE;
pub use mounts::{MountExported, SharedMount};
pub(crate) use name::DocumentName;
pub(crate) use record::{SharedLayer, SharedRecord};
pub use signature::{KeyError, PublicKey, SigningKey, Trust};
pub use upkeep::{Entry, Pruned, Upkeep};

use crate::cache_key::CacheKey;
use crate::worker::VertexRef;

/// How many records of one cache may turn out damaged before it is given up.
const DAMAGED_MAX: usize = 8;

/// The shared caches of one build, in the order in which they are asked.
#[derive(Debug, Default)]
pub struct SharedCaches {
    caches: Vec<SharedCache>,
    trust: Trust,
    /// Ops of which a cache has results that a content key leads to.
    ops: Mutex<HashSet<OpDigest>>,
}

#[derive(Debug)]
struct SharedCache {
    store: RemoteStore,
    /// Why it is not asked any more.
    failure: Mutex<Option<String>>,
    /// What nobody signed who is believed.
    unsigned: Mutex<HashSet<DocumentName>>,
    /// Records whose layers are not there, or not what they should be.
    damaged: Mutex<HashSet<CacheKey>>,
    /// Records that were read and believed.
    read: Mutex<HashSet<CacheKey>>,
    /// What is in the place of a document and is none.
    unreadable: Mutex<HashSet<DocumentName>>,
    /// What the image says that its reference names.
    inline: OnceLock<HashMap<CacheKey, SharedRecord>>,
}

/// What is to be said of a shared cache after a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// Which cache.
    pub store: String,
    /// What.
    pub what: RemarkKind,
}

/// What can be wrong with a shared cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemarkKind {
    /// It was given up, for this reason.
    Failed(String),
    /// So many of its documents were not used for want of a signature.
    Unsigned(usize),
    /// So many of its records, or their layers, are not what they should be.
    Damaged(usize),
}

impl SharedCaches {
    /// These, to be asked in this order, and believed as far as `trust` goes.
    pub fn new(stores: Vec<RemoteStore>, trust: Trust) -> Self {
        let cache = |store| SharedCache {
            store,
            failure: Mutex::default(),
            unsigned: Mutex::default(),
            damaged: Mutex::default(),
            read: Mutex::default(),
            unreadable: Mutex::default(),
            inline: OnceLock::new(),
        };
        Self { caches: stores.into_iter().map(cache).collect(), trust, ops: Mutex::default() }
    }

    /// What is to be said of them.
    pub fn remarks(&self) -> Vec<Remark> {
        let counted = |count: usize, kind: fn(usize) -> RemarkKind| (count > 0).then(|| kind(count));
        let remarks = |cache: &SharedCache| {
            let kinds = [
                lock(&cache.failure).clone().map(RemarkKind::Failed),
                counted(lock(&cache.unsigned).len(), RemarkKind::Unsigned),
                counted(lock(&cache.damaged).len() + lock(&cache.unreadable).len(), RemarkKind::Damaged),
            ];
            let store = cache.store.to_string();
            kinds.into_iter().flatten().map(move |what| Remark { store: store.clone(), what })
        };
        self.caches.iter().flat_map(remarks).collect()
    }

    /// Asks no more of a cache that failed.
    pub(crate) fn give_up(&self, store: &RemoteStore, error: &dyn std::error::Error) {
        if let Some(cache) = self.cache(store) {
            lock(&cache.failure).get_or_insert_with(|| chain(error));
        }
    }

    /// Believes a record no more: its layers are not what it says. A cache that has many such is given up.
    pub(crate) fn set_aside(&self, store: &RemoteStore, key: CacheKey, error: &dyn std::error::Error) {
        let Some(cache) = self.cache(store) else { return };
        let count = {
            let mut damaged = lock(&cache.damaged);
            damaged.insert(key);
            damaged.len()
        };
        if count >= DAMAGED_MAX {
            self.give_up(store, error);
        }
    }

    /// Whether a cache's record was set aside.
    fn is_damaged(&self, store: &RemoteStore, key: CacheKey) -> bool {
        self.cache(store).is_some_and(|cache| lock(&cache.damaged).contains(&key))
    }

    /// Whether a cache was found to have a record that can stay.
    fn was_read(&self, store: &RemoteStore, key: CacheKey) -> bool {
        self.cache(store).is_some_and(|cache| lock(&cache.read).contains(&key))
            && !self.is_damaged(store, key)
    }

    fn cache(&self, store: &RemoteStore) -> Option<&SharedCache> {
        let name = store.to_string();
        self.caches.iter().find(|cache| cache.store.to_string() == name)
    }

    /// The records of keys, from the first cache that has each. One answer for each key, in order.
    pub(crate) fn lookup(
        &self,
        keys: &[CacheKey],
        cancel: &AtomicBool,
    ) -> Vec<Option<(RemoteStore, SharedRecord)>> {
        self.lookup_in(self.caches.iter(), keys, cancel)
    }

    /// The same, without asking `store`.
    pub(crate) fn lookup_elsewhere(
        &self,
        store: &RemoteStore,
        keys: &[CacheKey],
        cancel: &AtomicBool,
    ) -> Vec<Option<(RemoteStore, SharedRecord)>> {
        let name = store.to_string();
        self.lookup_in(self.caches.iter().filter(|cache| cache.store.to_string() != name), keys, cancel)
    }

    fn lookup_in<'a>(
        &'a self,
        caches: impl Iterator<Item = &'a SharedCache>,
        keys: &[CacheKey],
        cancel: &AtomicBool,
    ) -> Vec<Option<(RemoteStore, SharedRecord)>> {
        let mut found: Vec<Option<(RemoteStore, SharedRecord)>> = keys.iter().map(|_| None).collect();
        for cache in caches {
            let missing: Vec<usize> = (0..keys.len()).filter(|index| found[*index].is_none()).collect();
            let names: Vec<_> = missing.iter().map(|index| DocumentName::Record(keys[*index])).collect();
            for (index, document) in missing.into_iter().zip(self.documents(cache, &names, cancel)) {
                let record = document.and_then(|manifest| SharedRecord::read(&manifest, keys[index]));
                lock(&cache.read).extend(record.is_some().then_some(keys[index]));
                let record = record.or_else(|| self.inline(cache, keys[index], cancel));
                let record = record.filter(|record| !lock(&cache.damaged).contains(&record.key));
                found[index] = record.map(|record| (cache.store.clone(), record));
            }
        }
        found
    }

    /// The record of a key in the image that a cache's reference names. Nobody signs those.
    fn inline(&self, cache: &SharedCache, key: CacheKey, cancel: &AtomicBool) -> Option<SharedRecord> {
        if lock(&cache.failure).is_some() {
            return None;
        }
        let read = || match cache.store.image(&Platform::host(), cancel) {
            Ok(Some(image)) => inline::read(&image),
            // What is no image has no records; a registry that fails does so for those that it keeps as well.
            Ok(None) | Err(_) => HashMap::new(),
        };
        let record = cache.inline.get_or_init(read).get(&key)?;
        if self.trust.require.is_empty() {
            return Some(record.clone());
        }
        lock(&cache.unsigned).insert(DocumentName::Record(key));
        None
    }

    /// Finds out of which ops the caches have results that a content key leads to.
    pub(crate) fn look_for_ops(&self, ops: &[OpDigest], cancel: &AtomicBool) {
        let names: Vec<_> = ops.iter().copied().map(DocumentName::Op).collect();
        for cache in self.with_links() {
            let found = self.documents(cache, &names, cancel).into_iter().zip(ops);
            lock(&self.ops).extend(found.filter_map(|(document, op)| document.map(|_| *op)));
        }
    }

    /// Those in which content keys lead to records. Where requests are counted, none do: it would take as many again.
    fn with_links(&self) -> impl Iterator<Item = &SharedCache> {
        self.caches.iter().filter(|cache| !cache.store.is_metered())
    }

    /// Whether a content key of this op may lead to something.
    pub(crate) fn has_op(&self, op: OpDigest) -> bool {
        lock(&self.ops).contains(&op)
    }

    /// The record that a content key leads to.
    pub(crate) fn lookup_content(
        &self,
        content_key: CacheKey,
        cancel: &AtomicBool,
    ) -> Option<(RemoteStore, SharedRecord)> {
        let name = [DocumentName::Content(content_key)];
        let link = |cache| record::read_link(self.documents(cache, &name, cancel).pop()??.as_ref());
        let keys: Vec<CacheKey> = self.with_links().filter_map(link).collect();
        let leads_back = |record: &SharedRecord| record.by_content.is_some_and(|by| by.key == content_key);
        self.lookup(&keys, cancel).into_iter().flatten().find(|(_, record)| leads_back(record))
    }

    /// Documents of one cache, as far as they are believed; nothing of one that failed. One answer for each name, in order.
    fn documents(
        &self,
        cache: &SharedCache,
        names: &[DocumentName],
        cancel: &AtomicBool,
    ) -> Vec<Option<Box<Manifest>>> {
        let nothing = || names.iter().map(|_| None).collect();
        if names.is_empty() || lock(&cache.failure).is_some() {
            return nothing();
        }
        match cache.store.documents(&texts(names), cancel) {
            Err(error) => {
                self.give_up(&cache.store, &error);
                nothing()
            }
            Ok(documents) => documents
                .into_iter()
                .zip(names)
                .map(|(document, name)| {
                    let set_aside = match Manifest::parse(&document?) {
                        Ok(manifest) if self.trust.accepts(&manifest) => return Some(Box::new(manifest)),
                        Ok(_) => &cache.unsigned,
                        Err(_) => &cache.unreadable,
                    };
                    lock(set_aside).insert(*name);
                    None
                })
                .collect(),
        }
    }
}

/// Names as a place takes them.
fn texts(names: &[DocumentName]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// Whether a step is given what another step makes: only then can its content key find what its definition key does not.
pub(crate) fn depends_on_steps(vertex: VertexRef<'_>) -> bool {
    let mut inputs = vertex.vertex().inputs.iter();
    inputs.any(|edge| !matches!(vertex.definition.vertex(edge.vertex).op, Op::Source(_)))
}

/// An error with its causes, in one line, each once: those of other crates often say their causes themselves.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
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
    /// What it was found by, if not by its definition key.
    pub(crate) content_key: Option<CacheKey>,
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
