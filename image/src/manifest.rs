//! Manifests and indexes, and the choice of a manifest for a platform.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{Descriptor, MediaType, Platform};

/// The largest manifest or index that is read. The distribution specification asks registries to accept at
/// least 4 MiB; nobody needs more, and a hostile one must not fill memory.
pub const MANIFEST_SIZE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Why bytes are not a usable manifest or index.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// Not JSON, or not of the right shape.
    #[error("malformed {kind}")]
    Malformed {
        /// `manifest`, `index` or `image config`.
        kind: &'static str,
        /// What serde found.
        source: serde_json::Error,
    },
    /// Only schema version 2 exists today.
    #[error("unsupported {kind} schema version {found} (expected 2)")]
    SchemaVersion {
        /// `manifest` or `index`.
        kind: &'static str,
        /// The version that was found.
        found: u32,
    },
}

/// One image for one platform: a config and its layers, bottom first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// The manifest's own type. Optional in OCI documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// What this is when it is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<MediaType>,
    /// The image config.
    pub config: Descriptor,
    /// The layers, bottom first.
    pub layers: Vec<Descriptor>,
    /// Free-form facts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// An OCI manifest.
    pub const fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(MediaType::OciManifest),
            artifact_type: None,
            config,
            layers,
            annotations: BTreeMap::new(),
        }
    }

    /// The same with OCI's names for all types: a manifest that is made anew may have layers of a Docker image, and one that mixes the two
    /// vocabularies is refused by Podman, skopeo and umoci.
    #[must_use]
    pub fn in_oci(mut self) -> Self {
        self.media_type = Some(MediaType::OciManifest);
        for descriptor in self.layers.iter_mut().chain([&mut self.config]) {
            descriptor.media_type = descriptor.media_type.clone().in_oci();
        }
        self
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// When the bytes are not a schema 2 manifest.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self = parse(bytes, "manifest")?;
        check_schema("manifest", manifest.schema_version)?;
        Ok(manifest)
    }

    /// The bytes of a manifest that rbuild made.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest has no map with non-string keys")
    }
}

/// Several images under one name, usually one for each platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// The index's own type. Optional in OCI documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// The manifests, in order of preference.
    pub manifests: Vec<Descriptor>,
    /// Free-form facts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Index {
    /// An OCI index.
    pub const fn new(manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(MediaType::OciIndex),
            manifests,
            annotations: BTreeMap::new(),
        }
    }

    /// Reads an index.
    ///
    /// # Errors
    /// When the bytes are not a schema 2 index.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let index: Self = parse(bytes, "index")?;
        check_schema("index", index.schema_version)?;
        Ok(index)
    }

    /// The bytes of an index that rbuild made.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an index has no map with non-string keys")
    }

    /// The first entry that runs on `platform`. Entries without a platform match any; attestations
    /// (`unknown/unknown`) match none.
    pub fn select(&self, platform: &Platform) -> Option<&Descriptor> {
        let exact = |entry: &&Descriptor| entry.platform.as_ref().is_some_and(|found| found == platform);
        let runs = |entry: &&Descriptor| entry.platform.as_ref().is_none_or(|found| found.runs_on(platform));
        self.manifests.iter().find(exact).or_else(|| self.manifests.iter().find(runs))
    }
}

pub(crate) fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8], kind: &'static str) -> Result<T, ManifestError> {
    serde_json::from_slice(bytes).map_err(|source| ManifestError::Malformed { kind, source })
}

const fn check_schema(kind: &'static str, found: u32) -> Result<(), ManifestError> {
    if found == 2 { Ok(()) } else { Err(ManifestError::SchemaVersion { kind, found }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str, platform: Option<&str>) -> Descriptor {
        let mut entry = Descriptor::of(MediaType::OciManifest, text.as_bytes());
        entry.platform = platform.map(|platform| platform.parse().unwrap());
        entry
    }

    #[test]
    fn index_prefers_the_exact_platform() {
        let index = Index::new(vec![
            entry("attestation", Some("unknown/unknown")),
            entry("v6", Some("linux/arm/v6")),
            entry("v7", Some("linux/arm/v7")),
            entry("amd64", Some("linux/amd64")),
        ]);
        let pick = |platform: &str| index.select(&platform.parse().unwrap()).map(|entry| entry.digest);
        assert_eq!(pick("linux/amd64"), Some(Digest::of("amd64")));
        assert_eq!(pick("linux/arm/v7"), Some(Digest::of("v7")));
        assert_eq!(pick("linux/arm/v6"), Some(Digest::of("v6")));
        assert_eq!(pick("linux/s390x"), None);
    }

    #[test]
    fn manifest_round_trips() {
        let manifest = Manifest::new(
            Descriptor::of(MediaType::OciConfig, b"{}"),
            vec![Descriptor::of(MediaType::OciLayer, b"x")],
        );
        assert_eq!(Manifest::parse(&manifest.to_bytes()).unwrap(), manifest);
    }

    #[test]
    fn schema_1_is_refused() {
        let old = manifest_with_version(1);
        assert!(matches!(
            Manifest::parse(old.as_bytes()),
            Err(ManifestError::SchemaVersion { kind: "manifest", found: 1 })
        ));
    }

    fn manifest_with_version(version: u32) -> String {
        let config = serde_json::to_string(&Descriptor::of(MediaType::OciConfig, b"{}")).unwrap();
        format!(r#"{{"schemaVersion":{version},"config":{config},"layers":[]}}"#)
    }

    use crate::Digest;
}
