//! Records in an image itself: `type=inline`. An annotation of the image's manifest says which keys lead to how many of its layers, so
//! that whoever names the image as a cache finds the steps of its last stage, and nothing else has to be kept.
//!
//! BuildKit's own form lies in the image's config, under keys that BuildKit makes: neither could be of use to the other.

use std::collections::HashMap;

use rbuild_cache::{MtimeClamp, Record, Snapshot};
use rbuild_image::{Descriptor, DiffId, ImageConfig};
use rbuild_registry::ResolvedImage;
use serde::{Deserialize, Serialize};

use super::export::steps_of;
use super::name::parse_key;
use super::{Finished, SharedLayer, SharedRecord};
use crate::cache_key::CacheKey;
use crate::images::{ImageError, Images};

/// The annotation of the manifest.
pub const INLINE: &str = "dev.rbuild.cache.inline";

#[derive(Debug, Serialize, Deserialize)]
struct Inline {
    /// When each layer was made, Unix seconds, bottom first.
    created: Vec<i64>,
    /// Which of them are of the same step as the one below.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    continues: Vec<usize>,
    steps: Vec<InlineStep>,
}

#[derive(Debug, Serialize, Deserialize)]
struct InlineStep {
    key: String,
    step: String,
    /// How many of the image's layers it gives.
    layers: usize,
}

impl Images {
    /// What the annotation of a result says: which of a build's steps lead to it. The clamp is the one that the image is described with,
    /// so that nothing is hashed for this alone.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn inline_cache(
        &self,
        build: &Finished<'_>,
        result: &Snapshot,
        clamp: Option<MtimeClamp>,
    ) -> Result<String, ImageError> {
        let infos = self.store().layer_infos(result)?;
        let tars = self.store().describe_layers(result, clamp)?;
        let created = tars.iter().map(|tar| infos[tar.layer].created).collect();
        let continues = (0..tars.len()).filter(|at| tars[*at].continues).collect();
        let keys: Vec<CacheKey> = steps_of(build).iter().map(|step| step.key).collect();
        let stored: Vec<_> = keys.iter().map(|key| rbuild_cache::CacheKey(key.0)).collect();
        let step = |(key, record): (&CacheKey, Option<Record>)| {
            let Record { outputs, description, .. } = record?;
            let [output] = outputs.as_slice() else { return None };
            let leads_to_it = result.layers.starts_with(&output.layers);
            leads_to_it.then(|| InlineStep {
                key: key.to_string(),
                step: description,
                layers: tars.iter().filter(|tar| tar.layer < output.layers.len()).count(),
            })
        };
        let steps = keys.iter().zip(self.store().records().lookup_many(&stored)?).filter_map(step).collect();
        Ok(serde_json::to_string(&Inline { created, continues, steps })
            .expect("numbers and strings are always JSON"))
    }
}

/// The records of an image; of one that is not as it should be, none.
pub(super) fn read(image: &ResolvedImage) -> HashMap<CacheKey, SharedRecord> {
    let said = image.parsed.annotations.get(INLINE).and_then(|text| serde_json::from_str(text).ok());
    let config = ImageConfig::parse(&image.config.bytes).ok();
    match (said, config) {
        (Some(said), Some(config)) => records(said, &image.parsed.layers, &config.rootfs.diff_ids),
        _ => HashMap::new(),
    }
}

fn records(said: Inline, layers: &[Descriptor], diff_ids: &[DiffId]) -> HashMap<CacheKey, SharedRecord> {
    if layers.len() != diff_ids.len() || layers.len() != said.created.len() {
        return HashMap::new();
    }
    let layer = |(at, (blob, diff_id)): (usize, (&Descriptor, &DiffId))| SharedLayer {
        diff_id: *diff_id,
        blob: Descriptor::new(blob.media_type.clone(), blob.digest, blob.size_bytes),
        created: said.created[at],
        continues: said.continues.contains(&at),
    };
    let layers: Vec<SharedLayer> = layers.iter().zip(diff_ids).enumerate().map(layer).collect();
    let record = |step: InlineStep| {
        let (key, outputs) = (parse_key(&step.key)?, vec![layers.get(..step.layers)?.to_vec()]);
        Some((key, SharedRecord { key, description: step.step, outputs, by_content: None }))
    };
    said.steps.into_iter().filter_map(record).collect()
}

#[cfg(test)]
mod tests {
    use rbuild_image::{Digest, MediaType};

    use super::*;

    #[test]
    fn only_what_fits_the_image_is_a_record() {
        let layers = [b"a", b"b"].map(|bytes| Descriptor::of(MediaType::OciLayerGzip, bytes));
        let diff_ids = [b"c", b"d"].map(|bytes| DiffId(Digest::of(bytes)));
        let said = |created: &[i64], key: &str, layers| Inline {
            created: created.to_vec(),
            continues: vec![1],
            steps: vec![InlineStep { key: key.to_owned(), step: "RUN true".to_owned(), layers }],
        };
        let key = CacheKey([7; 32]);
        let found = records(said(&[1, 2], &key.to_string(), 2), &layers, &diff_ids);
        assert_eq!(found[&key].outputs[0].iter().map(|layer| layer.created).collect::<Vec<_>>(), [1, 2]);
        for said in
            [said(&[1], &key.to_string(), 1), said(&[1, 2], "key", 1), said(&[1, 2], &key.to_string(), 3)]
        {
            assert!(records(said, &layers, &diff_ids).is_empty());
        }
        assert!(records(said(&[1, 2], &key.to_string(), 1), &layers, &diff_ids[..1]).is_empty());
    }
}
