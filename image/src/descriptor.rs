//! Descriptors: how one document, or one crate, names a blob to another.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, MediaType, Platform};

/// Names a blob by type, digest and size (OCI image specification, "Content Descriptors").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob holds.
    pub media_type: MediaType,
    /// The digest of the blob's bytes.
    pub digest: Digest,
    /// The length of the blob. Checked as well as the digest, and before a byte is stored.
    #[serde(rename = "size")]
    pub size_bytes: u64,
    /// In an index: which platform the manifest is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Free-form facts, sorted so that the bytes are stable.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// A descriptor without platform and annotations.
    pub const fn new(media_type: MediaType, digest: Digest, size_bytes: u64) -> Self {
        Self { media_type, digest, size_bytes, platform: None, annotations: BTreeMap::new() }
    }

    /// Describes bytes that are at hand.
    pub fn of(media_type: MediaType, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }
}
