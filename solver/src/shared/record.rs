//! A record of the shared cache, as a document: an OCI manifest, so that a registry keeps what it names.
//!
//! Its layers are those of all outputs, each once; annotations say which of them an output is made of, and of a layer its diff-id
//! and when it was made. The config is the empty one of the OCI specification.
//!
//! A step that depends on other steps has two more documents: one that leads from its content key to the record, and a mark that
//! there are such of its op, so that nobody digests contents where nothing can be found.
//!
//! A document comes from outside: one that is not as it should be is no record.

use std::collections::BTreeMap;

use rbuild_image::{Descriptor, DiffId, Digest, Manifest, MediaType};
use rbuild_llb::OpDigest;

use super::name::{DocumentName, parse_key};
use crate::cache_key::CacheKey;
use crate::images::{EMPTY, EMPTY_TYPE};

/// What a document says it is. Another number is another form.
const ARTIFACT_TYPE: &str = "application/vnd.rbuild.cache.record.v1";
/// What leads to a record, and what says that something does.
const LINK_TYPE: &str = "application/vnd.rbuild.cache.link.v1";
const KEY: &str = "dev.rbuild.cache.key";
/// The content key, and the digest of the op: what leads here.
const CONTENT: &str = "dev.rbuild.cache.content";
const OP: &str = "dev.rbuild.cache.op";
/// JSON: for each output the positions of its layers, bottom first.
const OUTPUTS: &str = "dev.rbuild.cache.outputs";
/// The step as a person wrote it.
pub(super) const STEP: &str = "dev.rbuild.cache.step";
/// The day on which it was last used: its beginning, Unix seconds.
pub(super) const USED: &str = "dev.rbuild.cache.used";
const DIFF_ID: &str = "dev.rbuild.diff-id";
/// Unix seconds.
pub(super) const CREATED: &str = "dev.rbuild.created";
/// Of a layer that is of the same step as the one below it.
const CONTINUES: &str = "dev.rbuild.continues";
const DAY_SECONDS: i64 = 24 * 60 * 60;

/// What a step gave, as the shared cache has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SharedRecord {
    /// The definition key.
    pub(crate) key: CacheKey,
    /// The step as a person wrote it.
    pub(crate) description: String,
    /// The layers of each output, bottom first.
    pub(crate) outputs: Vec<Vec<SharedLayer>>,
    /// How it is found by what its inputs hold, where that can find more than the definition key does.
    pub(crate) by_content: Option<ByContent>,
}

/// A second way to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByContent {
    /// What the step is given.
    pub(crate) key: CacheKey,
    /// What it does.
    pub(crate) op: OpDigest,
}

impl ByContent {
    /// The documents that lead to the record.
    pub(super) const fn names(&self) -> [DocumentName; 2] {
        [DocumentName::Content(self.key), DocumentName::Op(self.op)]
    }

    /// What a record says of it.
    pub(super) fn parse(manifest: &Manifest) -> Option<Self> {
        let key = |name| manifest.annotations.get(name).and_then(|text| parse_key(text));
        Some(Self { key: key(CONTENT)?, op: OpDigest(key(OP)?.0) })
    }
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
    /// Whether the step that made it has made the one below it, too.
    pub(crate) continues: bool,
}

impl SharedRecord {
    /// The document.
    pub(super) fn to_manifest(&self) -> Manifest {
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
        let mut annotations = BTreeMap::from([
            (KEY.to_owned(), self.key.to_string()),
            (STEP.to_owned(), self.description.clone()),
            (OUTPUTS.to_owned(), serde_json::to_string(&outputs).expect("lists of numbers are always JSON")),
        ]);
        if let Some(ByContent { key, op }) = self.by_content {
            annotations.insert(CONTENT.to_owned(), key.to_string());
            annotations.insert(OP.to_owned(), CacheKey(op.0).to_string());
        }
        artifact(ARTIFACT_TYPE, annotations, layers.into_iter().map(SharedLayer::descriptor).collect())
    }

    /// Reads a document that was found under a key. `None` when it is not the record of that key.
    pub(super) fn read(manifest: &Manifest, key: CacheKey) -> Option<Self> {
        let Manifest { artifact_type, layers, annotations, .. } = manifest;
        if artifact_type.as_ref()?.as_str() != ARTIFACT_TYPE || *annotations.get(KEY)? != key.to_string() {
            return None;
        }
        let layers = layers.iter().map(SharedLayer::parse).collect::<Option<Vec<_>>>()?;
        let outputs: Vec<Vec<usize>> = serde_json::from_str(annotations.get(OUTPUTS)?).ok()?;
        let output =
            |positions: Vec<usize>| positions.into_iter().map(|at| layers.get(at).cloned()).collect();
        let outputs = outputs.into_iter().map(output).collect::<Option<Vec<_>>>()?;
        let description = annotations.get(STEP).cloned().unwrap_or_default();
        Some(Self { key, description, outputs, by_content: ByContent::parse(manifest) })
    }
}

/// A document that leads to the record of a definition key; of an op, the last one that was written.
pub(super) fn link(to: CacheKey) -> Manifest {
    artifact(LINK_TYPE, BTreeMap::from([(KEY.to_owned(), to.to_string())]), Vec::new())
}

/// Where a document leads.
pub(super) fn read_link(manifest: &Manifest) -> Option<CacheKey> {
    (manifest.artifact_type.as_ref()?.as_str() == LINK_TYPE)
        .then(|| parse_key(manifest.annotations.get(KEY)?))
        .flatten()
}

pub(super) fn artifact(
    kind: &str,
    annotations: BTreeMap<String, String>,
    layers: Vec<Descriptor>,
) -> Manifest {
    let config = Descriptor::of(EMPTY_TYPE.into(), EMPTY);
    Manifest { artifact_type: Some(MediaType::from(kind)), annotations, ..Manifest::new(config, layers) }
}

/// When a document was last used, Unix seconds, to the day; never, where it does not say.
pub(super) fn used(manifest: &Manifest) -> i64 {
    manifest.annotations.get(USED).and_then(|day| day.parse().ok()).unwrap_or_default()
}

/// The document, used at a time.
pub(super) fn used_at(mut manifest: Manifest, now: i64) -> Manifest {
    manifest.annotations.insert(USED.to_owned(), day_of(now).to_string());
    manifest
}

/// The beginning of a day, Unix seconds.
pub(super) const fn day_of(now: i64) -> i64 {
    now - now.rem_euclid(DAY_SECONDS)
}

/// When the newest of the layers was made, or what is no step's result as a whole, Unix seconds.
pub(super) fn made(manifest: &Manifest) -> i64 {
    let layers = manifest.layers.iter().map(|layer| &layer.annotations);
    let created = layers.chain([&manifest.annotations]).filter_map(|said| said.get(CREATED)?.parse().ok());
    created.max().unwrap_or_default()
}

impl SharedLayer {
    fn descriptor(&self) -> Descriptor {
        let mut annotations = BTreeMap::from([
            (DIFF_ID.to_owned(), self.diff_id.0.to_string()),
            (CREATED.to_owned(), self.created.to_string()),
        ]);
        if self.continues {
            annotations.insert(CONTINUES.to_owned(), true.to_string());
        }
        Descriptor { annotations, ..self.blob.clone() }
    }

    fn parse(descriptor: &Descriptor) -> Option<Self> {
        let digest: Digest = descriptor.annotations.get(DIFF_ID)?.parse().ok()?;
        let created = descriptor.annotations.get(CREATED)?.parse().ok()?;
        let Descriptor { media_type, digest: blob, size_bytes, .. } = descriptor;
        let blob = Descriptor::new(media_type.clone(), *blob, *size_bytes);
        let continues = descriptor.annotations.contains_key(CONTINUES);
        Some(Self { diff_id: DiffId(digest), blob, created, continues })
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
            continues: name == "b",
        }
    }

    fn record() -> SharedRecord {
        let outputs = vec![vec![layer("a"), layer("b")], vec![], vec![layer("a"), layer("c")]];
        let by_content = Some(ByContent { key: CacheKey([8; 32]), op: OpDigest([9; 32]) });
        SharedRecord { key: CacheKey([7; 32]), description: "RUN true".to_owned(), outputs, by_content }
    }

    fn parse(bytes: &[u8], key: CacheKey) -> Option<SharedRecord> {
        SharedRecord::read(&Manifest::parse(bytes).ok()?, key)
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        for by_content in [record().by_content, None] {
            let record = SharedRecord { by_content, ..record() };
            let manifest = record.to_manifest();
            assert_eq!((manifest.layers.len(), made(&manifest), used(&manifest)), (3, 1_700_000_000, 0));
            let manifest = used_at(manifest, 86_400 * 3 + 5);
            assert_eq!(used(&manifest), 86_400 * 3);
            assert_eq!(parse(&manifest.to_bytes(), record.key), Some(record));
        }
        let manifest = link(CacheKey([7; 32]));
        assert_eq!(read_link(&manifest), Some(CacheKey([7; 32])));
        assert_eq!(read_link(&record().to_manifest()), None);
    }

    #[test]
    fn what_is_not_the_record_of_the_key_is_none() {
        let text = String::from_utf8(record().to_manifest().to_bytes()).unwrap();
        assert_eq!(parse(text.as_bytes(), CacheKey([8; 32])), None);
        let parse = |text: &str| parse(text.as_bytes(), record().key);
        assert!(parse(&text).is_some());
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
