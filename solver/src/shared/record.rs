//! A record of the shared cache, as a document: an OCI manifest, so that a registry keeps what it names.
//!
//! Its layers are those of all outputs, each once; annotations say which of them an output is made of, and of a layer its diff-id
//! and when it was made. The config is the empty one of the OCI specification.
//!
//! A document comes from outside: one that is not as it should be is no record.

use std::collections::BTreeMap;

use rbuild_image::{Descriptor, DiffId, Digest, Manifest, MediaType};

use crate::cache_key::CacheKey;
use crate::images::{EMPTY, EMPTY_TYPE};

/// What a document says it is. Another number is another form.
const ARTIFACT_TYPE: &str = "application/vnd.rbuild.cache.record.v1";
const KEY: &str = "dev.rbuild.cache.key";
/// JSON: for each output the positions of its layers, bottom first.
const OUTPUTS: &str = "dev.rbuild.cache.outputs";
/// The step as a person wrote it.
const STEP: &str = "dev.rbuild.cache.step";
const DIFF_ID: &str = "dev.rbuild.diff-id";
/// Unix seconds.
const CREATED: &str = "dev.rbuild.created";

/// What a step gave, as the shared cache has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SharedRecord {
    /// The definition key.
    pub(crate) key: CacheKey,
    /// The step as a person wrote it.
    pub(crate) description: String,
    /// The layers of each output, bottom first.
    pub(crate) outputs: Vec<Vec<SharedLayer>>,
}

/// A layer that the shared cache has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SharedLayer {
    /// What it unpacks to.
    pub(crate) diff_id: DiffId,
    /// The blob.
    pub(crate) blob: Descriptor,
    /// When it was made, Unix seconds.
    pub(crate) created: i64,
}

impl SharedRecord {
    /// The document.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut layers: Vec<&SharedLayer> = Vec::new();
        let mut outputs: Vec<Vec<usize>> = Vec::new();
        for output in &self.outputs {
            let mut positions = Vec::new();
            for layer in output {
                let known = layers.iter().position(|known| *known == layer);
                positions.push(known.unwrap_or(layers.len()));
                if known.is_none() {
                    layers.push(layer);
                }
            }
            outputs.push(positions);
        }
        let annotations = BTreeMap::from([
            (KEY.to_owned(), self.key.to_string()),
            (STEP.to_owned(), self.description.clone()),
            (OUTPUTS.to_owned(), serde_json::to_string(&outputs).expect("lists of numbers are always JSON")),
        ]);
        let layers = layers.into_iter().map(SharedLayer::descriptor).collect();
        let artifact_type = Some(MediaType::from(ARTIFACT_TYPE));
        let config = Descriptor::of(EMPTY_TYPE.into(), EMPTY);
        Manifest { artifact_type, annotations, ..Manifest::new(config, layers) }.to_bytes()
    }

    /// Reads a document that was found under a key. `None` when it is not the record of that key.
    pub(super) fn parse(bytes: &[u8], key: CacheKey) -> Option<Self> {
        let Manifest { artifact_type, layers, annotations, .. } = Manifest::parse(bytes).ok()?;
        if artifact_type?.as_str() != ARTIFACT_TYPE || *annotations.get(KEY)? != key.to_string() {
            return None;
        }
        let layers = layers.iter().map(SharedLayer::parse).collect::<Option<Vec<_>>>()?;
        let outputs: Vec<Vec<usize>> = serde_json::from_str(annotations.get(OUTPUTS)?).ok()?;
        let output =
            |positions: Vec<usize>| positions.into_iter().map(|at| layers.get(at).cloned()).collect();
        let outputs = outputs.into_iter().map(output).collect::<Option<Vec<_>>>()?;
        let description = annotations.get(STEP).cloned().unwrap_or_default();
        Some(Self { key, description, outputs })
    }
}

impl SharedLayer {
    fn descriptor(&self) -> Descriptor {
        let annotations = BTreeMap::from([
            (DIFF_ID.to_owned(), self.diff_id.0.to_string()),
            (CREATED.to_owned(), self.created.to_string()),
        ]);
        Descriptor { annotations, ..self.blob.clone() }
    }

    fn parse(descriptor: &Descriptor) -> Option<Self> {
        let digest: Digest = descriptor.annotations.get(DIFF_ID)?.parse().ok()?;
        let created = descriptor.annotations.get(CREATED)?.parse().ok()?;
        let Descriptor { media_type, digest: blob, size_bytes, .. } = descriptor;
        let blob = Descriptor::new(media_type.clone(), *blob, *size_bytes);
        Some(Self { diff_id: DiffId(digest), blob, created })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str) -> SharedLayer {
        SharedLayer {
            diff_id: DiffId(Digest::of(name)),
            blob: Descriptor::of(MediaType::OciLayerGzip, name.repeat(2).as_bytes()),
            created: 1_700_000_000,
        }
    }

    fn record() -> SharedRecord {
        let outputs = vec![vec![layer("a"), layer("b")], vec![], vec![layer("a"), layer("c")]];
        SharedRecord { key: CacheKey([7; 32]), description: "RUN true".to_owned(), outputs }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let (record, bytes) = (record(), record().to_bytes());
        assert_eq!(SharedRecord::parse(&bytes, record.key), Some(record));
        assert_eq!(Manifest::parse(&bytes).unwrap().layers.len(), 3);
    }

    #[test]
    fn what_is_not_the_record_of_the_key_is_none() {
        let text = String::from_utf8(record().to_bytes()).unwrap();
        let parse = |text: &str| SharedRecord::parse(text.as_bytes(), record().key);
        assert!(parse(&text).is_some());
        assert_eq!(SharedRecord::parse(text.as_bytes(), CacheKey([8; 32])), None);
        for (part, other) in [
            ("record.v1", "record.v2"),
            (OUTPUTS, "else"),
            ("[[0,1]", "[[0,9]"),
            ("[[0,1]", "[[0,-1]"),
            (DIFF_ID, "else"),
            ("1700000000", "soon"),
            ("{", "["),
        ] {
            assert!(text.contains(part), "{part}");
            assert_eq!(parse(&text.replace(part, other)), None, "{part}");
        }
        assert_eq!(parse(""), None);
    }
}
