//! Maps whose keys are digests, which need no hashing: any part of one is as good as a hash of it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::content_digest::Blake3;

/// A map from digests.
pub(crate) type ByDigest<T> = HashMap<Blake3, T, BuildHasherDefault<FirstBytes>>;

/// How many bits of a digest say in which part of a table it is.
const PART_BITS: u32 = 16;

/// A map from digests that is made once, of what is sorted by them for the most part.
#[derive(Debug)]
pub(crate) struct DigestTable<T> {
    /// Sorted.
    entries: Vec<(Blake3, T)>,
    /// Where each part begins, and after the last its end.
    starts: Vec<usize>,
}

impl<T> DigestTable<T> {
    /// Of several entries with one digest the first counts.
    pub(crate) fn new(mut entries: Vec<(Blake3, T)>) -> Self {
        entries.sort_by_key(|(digest, _)| *digest);
        entries.dedup_by_key(|(digest, _)| *digest);
        let mut starts = vec![0; (1 << PART_BITS) + 1];
        entries.iter().for_each(|(digest, _)| starts[part_of(digest) + 1] += 1);
        for part in 1..starts.len() {
            starts[part] += starts[part - 1];
        }
        Self { entries, starts }
    }

    /// What is under a digest.
    pub(crate) fn get(&self, digest: &Blake3) -> Option<&T> {
        let part = part_of(digest);
        let entries = &self.entries[self.starts[part]..self.starts[part + 1]];
        let at = entries.binary_search_by_key(&digest, |(digest, _)| digest).ok()?;
        Some(&entries[at].1)
    }
}

fn part_of(digest: &Blake3) -> usize {
    digest.iter().take(PART_BITS as usize / 8).fold(0, |part, byte| part << 8 | usize::from(*byte))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_the_first_of_each() {
        let digest = |number: u32| *blake3::hash(&number.to_le_bytes()).as_bytes();
        let ends = [([0; 32], 7), ([255; 32], 8)];
        let entries = (0..1000).chain(500..2000).zip(0..).map(|(number, place)| (digest(number), place));
        let table = DigestTable::new(entries.chain(ends).collect());
        let place = |number: u32| if number < 1000 { number } else { number + 500 };
        assert!((0..2000).all(|number| table.get(&digest(number)) == Some(&place(number))));
        assert_eq!(
            [[0; 32], [255; 32], digest(2000)].map(|digest| table.get(&digest)),
            [Some(&7), Some(&8), None]
        );
        assert_eq!(DigestTable::<u32>::new(Vec::new()).get(&[0; 32]), None);
    }
}
