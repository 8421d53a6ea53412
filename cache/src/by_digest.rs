//! Maps whose keys are digests, which need no hashing: any part of one is as good as a hash of it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::content_digest::Blake3;

/// A map from digests.
pub(crate) type ByDigest<T> = HashMap<Blake3, T, BuildHasherDefault<FirstBytes>>;

/// Takes the first bytes of a key for its hash.
#[derive(Debug, Default)]
pub(crate) struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    /// The length, which all keys have in common.
    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}
