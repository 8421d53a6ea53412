//! Filling a shared cache after a build: layers first, then the records that name them.

use std::collections::{HashMap, HashSet};

use rbuild_cache::{Record, Snapshot};
use rbuild_image::{Descriptor, DiffId};
use rbuild_llb::{Definition, Op};
use rbuild_registry::RemoteStore;

use super::{SharedLayer, SharedRecord, Tree, name_of};
use crate::build::SolvedVertex;
use crate::cache_key::CacheKey;
use crate::images::{
    CompressionConfig, EMPTY, EMPTY_TYPE, ImageError, Images, LeavingLayer, Watch, in_parallel,
};

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
}

/// A layer of a record, in its place.
struct Placed {
    leaving: LeavingLayer,
    created: i64,
}

impl Images {
    /// Writes the records of a build to a shared cache, as far as it lacks them. What the build took from a shared cache and did
    /// not fetch is not written: it is in one.
    ///
    /// # Errors
    /// When the cache refuses something, or a layer cannot be read. What was written by then is of use.
    pub fn export_cache(
        &self,
        build: &Finished<'_>,
        options: &ExportOptions<'_>,
        watch: Watch<'_>,
    ) -> Result<Exported, ImageError> {
        let ExportOptions { to, mode, config } = *options;
        let records = self.records_of(build, mode)?;
        let names: Vec<String> = records.iter().map(|(key, _)| name_of(*key)).collect();
        let there = to.documents(&names, watch.cancel)?;
        let parsed = |(document, key): (Option<Vec<u8>>, CacheKey)| SharedRecord::parse(&document?, key);
        let known: Vec<bool> = there
            .into_iter()
            .zip(&records)
            .map(|(document, (key, _))| parsed((document, *key)).is_some())
            .collect();
        let missing: Vec<(CacheKey, Record)> =
            records.into_iter().zip(&known).filter(|(_, known)| !**known).map(|(record, _)| record).collect();
        if !missing.is_empty() {
            self.export_records(to, &missing, config, watch)?;
        }
        Ok(Exported { records: missing.len(), known: known.len() - missing.len() })
    }

    /// The records of this store that a build's steps lead to.
    fn records_of(
        &self,
        build: &Finished<'_>,
        mode: ExportMode,
    ) -> Result<Vec<(CacheKey, Record)>, ImageError> {
        let is_step =
            |solved: &&SolvedVertex| !matches!(build.definition.vertex(solved.vertex).op, Op::Source(_));
        let keys: Vec<CacheKey> =
            build.vertices.iter().filter(is_step).filter_map(|solved| solved.key).collect();
        let stored: Vec<_> = keys.iter().map(|key| rbuild_cache::CacheKey(key.0)).collect();
        let found = self.store().records().lookup_many(&stored)?;
        let results: Vec<&Snapshot> = build.results.iter().filter_map(|tree| tree.snapshot()).collect();
        let of_result =
            |output: &Snapshot| results.iter().any(|result| result.layers.starts_with(&output.layers));
        let wanted = |record: &Record| mode == ExportMode::Max || record.outputs.iter().all(of_result);
        let mut seen = HashSet::new();
        let found = keys.into_iter().zip(found).filter_map(|(key, record)| Some((key, record?)));
        Ok(found.filter(|(key, record)| wanted(record) && seen.insert(*key)).collect())
    }

    fn export_records(
        &self,
        to: &RemoteStore,
        records: &[(CacheKey, Record)],
        config: &CompressionConfig,
        watch: Watch<'_>,
    ) -> Result<(), ImageError> {
        let mut placed: Vec<Vec<Vec<Placed>>> = Vec::new();
        for (_, record) in records {
            placed.push(record.outputs.iter().map(|output| self.placed(output)).collect::<Result<_, _>>()?);
        }
        let mut layers: HashMap<DiffId, &LeavingLayer> = HashMap::new();
        for layer in placed.iter().flatten().flatten() {
            layers.entry(layer.leaving.diff_id).or_insert(&layer.leaving);
        }
        let layers: Vec<&LeavingLayer> = layers.into_values().collect();
        let sent = in_parallel(&layers, SENT_AT_ONCE, |layer| self.push_layer(to, layer, config, watch))?;
        let blobs: HashMap<DiffId, Descriptor> = layers.iter().map(|layer| layer.diff_id).zip(sent).collect();
        self.push_bytes(to, EMPTY_TYPE.into(), EMPTY, watch)?;
        let shared = |layer: &Placed| SharedLayer {
            diff_id: layer.leaving.diff_id,
            blob: blobs[&layer.leaving.diff_id].clone(),
            created: layer.created,
        };
        let documents: Vec<SharedRecord> = records
            .iter()
            .zip(&placed)
            .map(|((key, record), outputs)| SharedRecord {
                key: *key,
                description: record.description.clone(),
                outputs: outputs.iter().map(|output| output.iter().map(shared).collect()).collect(),
            })
            .collect();
        let put = |record: &SharedRecord| {
            Ok::<_, ImageError>(to.put_document(&name_of(record.key), &record.to_bytes(), watch.cancel)?)
        };
        in_parallel(&documents, SENT_AT_ONCE, put).map(drop)
    }

    /// The layers of a snapshot as they leave, bottom first.
    fn placed(&self, snapshot: &Snapshot) -> Result<Vec<Placed>, ImageError> {
        let infos = self.store().layer_infos(snapshot)?;
        let leaving = self.leaving_layers(snapshot)?;
        let placed = |(leaving, created)| Placed { leaving, created };
        Ok(leaving.into_iter().zip(infos.into_iter().map(|info| info.created)).map(placed).collect())
    }
}
