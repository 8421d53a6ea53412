//! Filling a shared cache after a build: layers first, then what leads to records, then the records.
//!
//! What is there already is marked as used, once a day: of all steps of the build, also those that nothing was needed of.

use std::collections::{HashMap, HashSet};

use rbuild_cache::{LayerTar, Record, Snapshot};
use rbuild_image::{Descriptor, DiffId, Manifest};
use rbuild_llb::{Definition, Op, OpDigest};
use rbuild_registry::RemoteStore;

use super::record::{ByContent, day_of, link, used, used_at};
use super::{DocumentName, SharedCaches, SharedLayer, SharedRecord, Tree, depends_on_steps, texts};
use crate::build::SolvedVertex;
use crate::cache_key::CacheKey;
use crate::images::{
    CompressionConfig, EMPTY, EMPTY_TYPE, ImageError, Images, LeavingLayer, Watch, in_parallel,
};
use crate::worker::VertexRef;

/// How many layers, or records, are sent at a time.
const SENT_AT_ONCE: usize = 4;

/// Which records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExportMode {
    /// Those whose layers are the result's.
    #[default]
    Min,
    /// All, of all stages.
    Max,
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exported {
    /// Records that the cache did not have.
    pub records: usize,
    /// Records of the build that it had.
    pub known: usize,
}

/// A finished build, as it is exported.
#[derive(Debug, Clone, Copy)]
pub struct Finished<'a> {
    /// Its graph.
    pub definition: &'a Definition,
    /// What became of its steps.
    pub vertices: &'a [SolvedVertex],
    /// Its results.
    pub results: &'a [&'a Tree],
}

/// How a build is exported.
#[derive(Debug, Clone, Copy)]
pub struct ExportOptions<'a> {
    /// To which cache.
    pub to: &'a RemoteStore,
    /// Which records.
    pub mode: ExportMode,
    /// In what form their layers.
    pub config: &'a CompressionConfig,
    /// The caches that the build asked: who is believed, and what turned out damaged.
    pub caches: &'a SharedCaches,
    /// The clock, Unix seconds.
    pub now: i64,
}

/// A step of a build, as it is looked for in the cache.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) key: CacheKey,
    depends_on_steps: bool,
}

/// A step that the cache lacks, as this store has it.
struct Lacking {
    step: Step,
    record: Record,
}

impl Lacking {
    fn by_content(&self) -> Option<ByContent> {
        let key = self.record.content_key.filter(|_| self.step.depends_on_steps)?;
        Some(ByContent { key: CacheKey(key.0), op: OpDigest(self.record.op_digest) })
    }
}

/// A layer of a record, in its place.
struct Placed {
    leaving: LeavingLayer,
    created: i64,
    continues: bool,
}

impl Images {
    /// Writes the records of a build to a shared cache, as far as it lacks them. What the build found in another shared cache and did
    /// not fetch goes from there to here.
    ///
    /// # Errors
    /// When the cache refuses something, or a layer cannot be read. What was written by then is of use.
    pub fn export_cache(
        &self,
        build: &Finished<'_>,
        options: &ExportOptions<'_>,
        watch: Watch<'_>,
    ) -> Result<Exported, ImageError> {
        let ExportOptions { to, now, caches, .. } = *options;
        // Where requests are counted, nobody asks twice, and the place itself knows what is used.
        let (read, steps): (Vec<_>, Vec<_>) =
            steps_of(build).into_iter().partition(|step| to.is_metered() && caches.was_read(to, step.key));
        let names: Vec<_> = steps.iter().map(|step| DocumentName::Record(step.key)).collect();
        let (mut lacking, mut stale, mut known) = (Vec::new(), Vec::new(), read.len());
        for (step, document) in steps.iter().zip(to.documents(&texts(&names), watch.cancel)?) {
            let manifest = document.and_then(|bytes| Manifest::parse(&bytes).ok());
            match manifest.filter(|manifest| is_fit(manifest, step.key, options)) {
                None => lacking.push(*step),
                Some(manifest) => {
                    known += 1;
                    let is_stale = !to.is_metered() && used(&manifest) < day_of(now);
                    stale.extend(is_stale.then(|| (step.key, used_at(manifest, now))));
                }
            }
        }
        let (lacking, elsewhere) = self.recorded(&lacking, build, options.mode)?;
        self.export_records(&lacking, options, watch)?;
        let copied = self.copy_records(&elsewhere, build, options, watch)?;
        in_parallel(&stale, SENT_AT_ONCE, |(key, manifest)| {
            to.put_document(&DocumentName::Record(*key).to_string(), &manifest.to_bytes(), watch.cancel)
        })?;
        Ok(Exported { records: lacking.len() + copied, known })
    }

    /// Those of a build's steps that this store has records of, as far as they are to be written; and the keys of those that it
    /// has none of.
    fn recorded(
        &self,
        steps: &[Step],
        build: &Finished<'_>,
        mode: ExportMode,
    ) -> Result<(Vec<Lacking>, Vec<CacheKey>), ImageError> {
        let stored: Vec<_> = steps.iter().map(|step| rbuild_cache::CacheKey(step.key.0)).collect();
        let found = self.store().records().lookup_many(&stored)?;
        let results: Vec<&Snapshot> = build.results.iter().filter_map(|tree| tree.snapshot()).collect();
        let of_result =
            |output: &Snapshot| results.iter().any(|result| result.layers.starts_with(&output.layers));
        let wanted = |record: &Record| mode == ExportMode::Max || record.outputs.iter().all(of_result);
        let (mut lacking, mut missing) = (Vec::new(), Vec::new());
        for (step, record) in steps.iter().zip(found) {
            match record {
                Some(record) => lacking.extend(wanted(&record).then_some(Lacking { step: *step, record })),
                None => missing.push(step.key),
            }
        }
        Ok((lacking, missing))
    }

    /// Copies what other caches of the build have under these keys, layers in the form that they have there. Returns how many
    /// records.
    fn copy_records(
        &self,
        keys: &[CacheKey],
        build: &Finished<'_>,
        options: &ExportOptions<'_>,
        watch: Watch<'_>,
    ) -> Result<usize, ImageError> {
        if keys.is_empty() || !options.caches.trust.may_pass_on() {
            return Ok(0);
        }
        let results = self.layers_of_results(build)?;
        let is_of_result = |output: &Vec<SharedLayer>| {
            let output: Vec<DiffId> = output.iter().map(|layer| layer.diff_id).collect();
            results.iter().any(|result| result.starts_with(&output))
        };
        let is_wanted = |record: &SharedRecord| {
            options.mode == ExportMode::Max || record.outputs.iter().all(is_of_result)
        };
        let found = options.caches.lookup_elsewhere(options.to, keys, watch.cancel);
        let found: Vec<_> = found.into_iter().flatten().filter(|(_, record)| is_wanted(record)).collect();
        let layers = found.iter().flat_map(|(store, record)| {
            record.outputs.iter().flatten().map(move |layer| (store, &layer.blob))
        });
        let mut seen = HashSet::new();
        let blobs: Vec<_> = layers.filter(|(_, blob)| seen.insert(blob.digest)).collect();
        in_parallel(&blobs, SENT_AT_ONCE, |(store, blob)| self.copy_blob(store, options.to, blob, watch))?;
        let records: Vec<SharedRecord> = found.into_iter().map(|(_, record)| record).collect();
        self.put_records(&records, options, watch)?;
        Ok(records.len())
    }

    /// What the layers of a build's results unpack to, bottom first.
    fn layers_of_results(&self, build: &Finished<'_>) -> Result<Vec<Vec<DiffId>>, ImageError> {
        let layers = |tree: &&Tree| match tree {
            Tree::Here(snapshot) => {
                Ok(self.leaving_layers(snapshot)?.iter().map(|(layer, _)| layer.diff_id).collect())
            }
            Tree::Elsewhere(tree) => Ok(tree.layers().iter().map(|layer| layer.diff_id).collect()),
        };
        build.results.iter().map(layers).collect()
    }

    fn export_records(
        &self,
        records: &[Lacking],
        options: &ExportOptions<'_>,
        watch: Watch<'_>,
    ) -> Result<(), ImageError> {
        let mut placed: Vec<Vec<Vec<Placed>>> = Vec::new();
        for Lacking { record, .. } in records {
            placed.push(record.outputs.iter().map(|output| self.placed(output)).collect::<Result<_, _>>()?);
        }
        let blobs = self.push_layers(placed.iter().flatten().flatten(), options, watch)?;
        let shared = |layer: &Placed| SharedLayer {
            diff_id: layer.leaving.diff_id,
            blob: blobs[&layer.leaving.diff_id].clone(),
            created: layer.created,
            continues: layer.continues,
        };
        let document = |(lacking, outputs): (&Lacking, &Vec<Vec<Placed>>)| SharedRecord {
            key: lacking.step.key,
            description: lacking.record.description.clone(),
            outputs: outputs.iter().map(|output| output.iter().map(shared).collect()).collect(),
            by_content: lacking.by_content(),
        };
        let records: Vec<SharedRecord> = records.iter().zip(&placed).map(document).collect();
        self.put_records(&records, options, watch)
    }

    /// Writes records whose layers are there, after what leads to them.
    fn put_records(
        &self,
        records: &[SharedRecord],
        options: &ExportOptions<'_>,
        watch: Watch<'_>,
    ) -> Result<(), ImageError> {
        if records.is_empty() {
            return Ok(());
        }
        self.push_config(options.to, watch)?;
        let linked = records.iter().filter(|_| !options.to.is_metered());
        let links = linked.filter_map(|record| Some((record.by_content?.names(), link(record.key))));
        let links = links.flat_map(|(names, link)| names.map(|name| (name, link.clone())));
        put_documents(options, &links.collect::<Vec<_>>(), watch)?;
        let records = records.iter().map(|record| (DocumentName::Record(record.key), record.to_manifest()));
        put_documents(options, &records.collect::<Vec<_>>(), watch)
    }

    /// Sends the config that documents name, where somebody looks whether it is there.
    pub(super) fn push_config(&self, to: &RemoteStore, watch: Watch<'_>) -> Result<(), ImageError> {
        if to.reference().is_none() {
            return Ok(());
        }
        self.push_bytes(to, EMPTY_TYPE.into(), EMPTY, watch)
    }

    /// Sends layers, each once, and says what they became.
    fn push_layers<'a>(
        &self,
        placed: impl Iterator<Item = &'a Placed>,
        options: &ExportOptions<'_>,
        watch: Watch<'_>,
    ) -> Result<HashMap<DiffId, Descriptor>, ImageError> {
        let mut layers: HashMap<DiffId, &LeavingLayer> = HashMap::new();
        for layer in placed {
            layers.entry(layer.leaving.diff_id).or_insert(&layer.leaving);
        }
        let layers: Vec<&LeavingLayer> = layers.into_values().collect();
        let push = |layer: &&LeavingLayer| self.push_layer(options.to, layer, options.config, watch);
        let sent = in_parallel(&layers, SENT_AT_ONCE, push)?;
        Ok(layers.iter().map(|layer| layer.diff_id).zip(sent).collect())
    }

    /// The layers of a snapshot as they leave, bottom first.
    fn placed(&self, snapshot: &Snapshot) -> Result<Vec<Placed>, ImageError> {
        let infos = self.store().layer_infos(snapshot)?;
        let placed = |(leaving, LayerTar { layer, continues, .. })| {
            let created = infos[layer].created;
            Placed { leaving, created, continues }
        };
        Ok(self.leaving_layers(snapshot)?.into_iter().map(placed).collect())
    }
}

/// The steps of a build, each key once.
pub(super) fn steps_of(build: &Finished<'_>) -> Vec<Step> {
    let definition = build.definition;
    let mut seen = HashSet::new();
    let step = |solved: &SolvedVertex| {
        let (key, vertex) = (solved.key?, VertexRef { definition, id: solved.vertex });
        let is_step = !matches!(vertex.vertex().op, Op::Source(_));
        (is_step && seen.insert(key)).then(|| Step { key, depends_on_steps: depends_on_steps(vertex) })
    };
    build.vertices.iter().filter_map(step).collect()
}

/// Whether a document can stay: a record of the key that is believed, and whose layers are not known to be damaged.
fn is_fit(manifest: &Manifest, key: CacheKey, options: &ExportOptions<'_>) -> bool {
    SharedRecord::read(manifest, key).is_some()
        && options.caches.trust.is_content_with(manifest)
        && !options.caches.is_damaged(options.to, key)
}

/// Writes documents, signed where there is a key for that, and used today.
fn put_documents(
    options: &ExportOptions<'_>,
    documents: &[(DocumentName, Manifest)],
    watch: Watch<'_>,
) -> Result<(), ImageError> {
    let put = |(name, manifest): &(DocumentName, Manifest)| {
        let manifest = used_at(options.caches.trust.seal(manifest.clone()), options.now);
        options.to.put_document(&name.to_string(), &manifest.to_bytes(), watch.cancel)
    };
    in_parallel(documents, SENT_AT_ONCE, put)?;
    Ok(())
}
