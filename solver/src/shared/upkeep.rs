//! What a shared cache has, and what of it goes: `rbuild cache`.
//!
//! Nobody keeps time centrally. Who writes to a cache notes in what it finds there, once a day, that it was used; a prune goes by that
//! day, or by when the newest layer was made. From an object store or a directory it then takes what leads to no record any more, and
//! the blobs that none names. A registry collects its garbage itself.
//!
//! Builds may write meanwhile. A blob is sent before the record that names it, so one that is younger than a day of grace is left
//! alone; and records are listed once more just before blobs go. What remains is a build that counts on an old blob in the seconds
//! between that and its own record: whoever reads the record finds it damaged, makes the step, and writes it anew.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::AtomicBool;

use rbuild_image::{Digest, Manifest};
use rbuild_registry::RemoteStore;

use super::record::{ByContent, STEP, made, used};
use super::{DocumentName, Trust, texts};
use crate::images::in_parallel;

type Result<T> = std::result::Result<T, rbuild_registry::Error>;

/// How many documents are read at once, so that many of them do not fill memory as bytes.
const READ_AT_ONCE: usize = 256;
/// How many things are removed at a time.
const REMOVED_AT_ONCE: usize = 16;

/// A record of a shared cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name of its document.
    pub name: String,
    /// The step as a person wrote it, or the id of a cache mount.
    pub description: String,
    /// When the newest of its layers was made, Unix seconds.
    pub made: i64,
    /// The day on which it was last used, Unix seconds.
    pub used: i64,
    /// Whether somebody signed it who is believed here.
    pub is_believed: bool,
    /// Its layers' blobs, and their sizes.
    pub blobs: BTreeMap<Digest, u64>,
    document: DocumentName,
    led_to_by: Option<ByContent>,
    config: Digest,
}

impl Entry {
    fn new(document: DocumentName, manifest: &Manifest, trust: &Trust) -> Self {
        Self {
            name: document.to_string(),
            description: manifest.annotations.get(STEP).cloned().unwrap_or_default(),
            made: made(manifest),
            used: used(manifest),
            is_believed: trust.accepts(manifest),
            blobs: manifest.layers.iter().map(|layer| (layer.digest, layer.size_bytes)).collect(),
            document,
            led_to_by: ByContent::parse(manifest),
            config: manifest.config.digest,
        }
    }

    /// What its layers take.
    pub fn size_bytes(&self) -> u64 {
        self.blobs.values().sum()
    }

    fn digests(&self) -> impl Iterator<Item = Digest> {
        self.blobs.keys().copied().chain([self.config])
    }
}

/// What was taken from a shared cache, or would be.
#[derive(Debug, Default)]
pub struct Pruned {
    /// Records.
    pub entries: Vec<Entry>,
    /// How many blobs; none of a registry, which collects its garbage itself.
    pub blobs: usize,
    /// What they took.
    pub freed_bytes: u64,
}

/// A shared cache that is looked after.
#[derive(Debug, Clone, Copy)]
pub struct Upkeep<'a> {
    /// Where it is.
    pub store: &'a RemoteStore,
    /// Who is believed.
    pub trust: &'a Trust,
    /// Stops it.
    pub cancel: &'a AtomicBool,
}

impl Upkeep<'_> {
    /// All records.
    ///
    /// # Errors
    /// When the cache cannot be listed or read.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let names = self.names()?;
        self.read(&names.into_iter().filter(DocumentName::is_root).collect::<Vec<_>>())
    }

    /// Removes records, and what nothing leads to or names any more, except blobs that were written since `spare_since` (Unix
    /// seconds). Removes nothing if it is only to say what would go.
    ///
    /// # Errors
    /// When the cache cannot be read, or refuses. What was removed by then is gone.
    pub fn prune(&self, goes: &dyn Fn(&Entry) -> bool, spare_since: i64, only_say: bool) -> Result<Pruned> {
        let names = self.names()?;
        let (roots, leads): (Vec<_>, Vec<_>) = names.into_iter().partition(DocumentName::is_root);
        let (gone, living): (Vec<Entry>, Vec<Entry>) =
            self.read(&roots)?.into_iter().partition(|entry| goes(entry));
        let needed: HashSet<DocumentName> =
            living.iter().filter_map(|entry| entry.led_to_by).flat_map(|by| by.names()).collect();
        let mut going: Vec<DocumentName> = gone.iter().map(|entry| entry.document).collect();
        going.extend(leads.into_iter().filter(|name| !needed.contains(name)));
        if !only_say {
            self.remove(&going, |name| self.store.remove_document(&name.to_string(), self.cancel))?;
        }
        let mut pruned = Pruned { entries: gone, ..Pruned::default() };
        self.prune_blobs((&living, &roots), spare_since, only_say, &mut pruned)?;
        Ok(pruned)
    }

    /// Removes blobs that no record names: neither one of these, nor one that came meanwhile.
    fn prune_blobs(
        &self,
        (living, known): (&[Entry], &[DocumentName]),
        spare_since: i64,
        only_say: bool,
        pruned: &mut Pruned,
    ) -> Result<()> {
        let Some(blobs) = self.store.blobs(self.cancel)? else { return Ok(()) };
        let known: HashSet<&DocumentName> = known.iter().collect();
        let names = self.names()?.into_iter();
        let new =
            self.read(&names.filter(|name| name.is_root() && !known.contains(name)).collect::<Vec<_>>())?;
        let named: HashSet<Digest> = living.iter().chain(&new).flat_map(Entry::digests).collect();
        let goes =
            |blob: &rbuild_registry::ListedBlob| !named.contains(&blob.digest) && blob.written <= spare_since;
        let going: Vec<_> = blobs.into_iter().filter(goes).collect();
        if !only_say {
            self.remove(&going, |blob| self.store.remove_blob(blob.digest, self.cancel))?;
        }
        pruned.blobs = going.len();
        pruned.freed_bytes = going.iter().map(|blob| blob.size_bytes).sum();
        Ok(())
    }

    fn names(&self) -> Result<Vec<DocumentName>> {
        let names = self.store.document_names(self.cancel)?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Documents that are there and can be read: of whatever form, as their blobs are theirs.
    fn read(&self, names: &[DocumentName]) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for some in names.chunks(READ_AT_ONCE) {
            let documents = self.store.documents(&texts(some), self.cancel)?.into_iter().zip(some);
            entries.extend(documents.filter_map(|(document, name)| {
                Some(Entry::new(*name, &Manifest::parse(&document?).ok()?, self.trust))
            }));
        }
        Ok(entries)
    }

    fn remove<T: Sync>(&self, things: &[T], remove: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
        in_parallel(things, REMOVED_AT_ONCE, remove).map(drop)
    }
}
