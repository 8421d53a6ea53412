//! What a shared cache has becomes a snapshot of this store, and its record one of this store's.

use std::io::Write;
use std::sync::atomic::AtomicBool;

use rbuild_cache::{NewRecord, Snapshot};
use rbuild_image::Reference;

use super::{RecordedStep, RemoteResult, RemoteTree, SharedLayer, lock};
use crate::images::{ImageError, Images, PackedLayer, Watch};

impl Images {
    /// A tree of a shared cache, fetched unless it is here. Who asks while another fetches, in whatever process, waits for it.
    ///
    /// # Errors
    /// When the cache fails, or has something else than its record says.
    pub(crate) fn fetch_tree(&self, tree: &RemoteTree, watch: Watch<'_>) -> Result<Snapshot, ImageError> {
        let mut here = lock(&tree.result.here);
        let outputs = match here.take() {
            Some(outputs) => outputs,
            None => self.fetch_result(&tree.result, watch)?,
        };
        Ok(here.insert(outputs)[tree.output].clone())
    }

    fn fetch_result(&self, result: &RemoteResult, watch: Watch<'_>) -> Result<Vec<Snapshot>, ImageError> {
        let key = rbuild_cache::CacheKey(result.step.key.0);
        let _lock = self.store().lock_key(&key, watch.cancel)?;
        if let Some(record) = self.store().records().lookup(key)?
            && record.outputs.len() == result.record.outputs.len()
        {
            return Ok(record.outputs);
        }
        let fetch = |layer: &_, out: &mut dyn Write| self.fetch_from(&result.store, layer, out, watch);
        let output = |layers: &Vec<SharedLayer>| self.unpack_layers(&packed(layers), &fetch, watch);
        let outputs = result.record.outputs.iter().map(output).collect::<Result<Vec<_>, _>>()?;
        self.store().records().insert(&result.step.record(&outputs))?;
        Ok(outputs)
    }

    /// What a step of a shared cache has added to its outputs, each laid on another base than there, and recorded.
    ///
    /// # Errors
    /// When the cache fails, or has something else than its record says.
    pub(crate) fn fetch_own_layers(
        &self,
        result: &RemoteResult,
        bases: &[Snapshot],
        watch: Watch<'_>,
    ) -> Result<Vec<Snapshot>, ImageError> {
        let fetch = |layer: &_, out: &mut dyn Write| self.fetch_from(&result.store, layer, out, watch);
        let output = |(layers, base): (&Vec<SharedLayer>, &Snapshot)| {
            let first = layers.iter().rposition(|layer| !layer.continues).unwrap_or(0);
            self.unpack_layers_on(base.clone(), &packed(&layers[first..]), &fetch, watch)
        };
        let outputs = result.record.outputs.iter().zip(bases).map(output).collect::<Result<Vec<_>, _>>()?;
        self.store().records().insert(&result.step.record(&outputs))?;
        Ok(outputs)
    }

    /// Whether a tree's layers are, or could be made to be without passing through here, where these names are.
    ///
    /// # Errors
    /// When a registry cannot be asked.
    pub fn is_pushed(
        &self,
        tree: &RemoteTree,
        names: &[Reference],
        cancel: &AtomicBool,
    ) -> Result<bool, ImageError> {
        for layer in tree.layers() {
            self.remember_place(&tree.result.store, layer.blob.digest)?;
        }
        for name in names {
            let to = self.repository(name);
            for layer in tree.layers() {
                if !self.is_there(&to, layer.blob.digest, cancel)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

/// What to fetch for layers, and what they must unpack to.
fn packed(layers: &[SharedLayer]) -> Vec<PackedLayer> {
    let packed = |layer: &SharedLayer| PackedLayer {
        blob: layer.blob.clone(),
        diff_id: layer.diff_id,
        created: Some(layer.created),
        continues: layer.continues,
    };
    layers.iter().map(packed).collect()
}

impl RecordedStep {
    /// Its record, of what it gave.
    pub(crate) fn record<'a>(&'a self, outputs: &'a [Snapshot]) -> NewRecord<'a> {
        NewRecord {
            key: rbuild_cache::CacheKey(self.key.0),
            op_digest: self.op_digest,
            content_key: self.content_key.map(|key| rbuild_cache::CacheKey(key.0)),
            outputs,
            description: &self.description,
            trace: &self.recipe,
            file_lists: &self.file_lists,
            project: &self.project,
            ..NewRecord::default()
        }
    }
}
