//! The hash that keys and content digests inside rbuild are made of: framed, versioned, domain-tagged BLAKE3.
//!
//! A key must not depend on how a struct happens to print, and two different values must never feed the same bytes.
//! So a [`KeyHasher`] writes a length before each variable-sized field, and starts with a domain tag that carries a
//! version. What leaves rbuild is named by a [`Digest`](crate::Digest) instead.

use std::fmt;

/// What most hashes are made of is no longer than this, and hashed at once.
const SHORT_BYTES: usize = 256;
/// How much of a long one is hashed at once: sixteen of BLAKE3's chunks, which it takes side by side.
const LONG_BYTES: usize = 16 * 1024;

/// A BLAKE3 hasher that frames what it is fed.
#[derive(Clone)]
pub struct KeyHasher {
    short: [u8; SHORT_BYTES],
    length: usize,
    /// All, once it is more than `short` holds.
    long: Option<Box<Long>>,
}

/// What is too long to be gathered.
#[derive(Clone)]
struct Long {
    hasher: blake3::Hasher,
    /// Whole pieces only are hashed before the end, so that each begins with a chunk.
    piece: Vec<u8>,
}

impl fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHasher")
    }
}

impl KeyHasher {
    /// Starts a hash in a domain, such as `rbuild.exec.v1`. Bump the version when the fields change.
    pub fn new(domain: &str) -> Self {
        let mut hasher = Self { short: [0; SHORT_BYTES], length: 0, long: None };
        hasher.str(domain);
        hasher
    }

    /// Feeds bytes of any length.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.feed_number(bytes.len() as u64).feed(bytes)
    }

    /// Feeds text.
    pub fn str(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// Feeds a number, a boolean or the ordinal of a variant.
    #[inline]
    pub fn number(&mut self, number: impl Into<u64>) -> &mut Self {
        self.feed_number(number.into())
    }

    /// Feeds a signed number.
    #[inline]
    pub fn signed(&mut self, number: i64) -> &mut Self {
        self.feed_number(number.cast_unsigned())
    }

    /// Feeds a list: its length, then each element.
    #[inline]
    pub fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) -> &mut Self {
        self.number(items.len() as u64);
        for item in items {
            each(self, item);
        }
        self
    }

    /// Feeds a value that may be absent: 0, or 1 and the value.
    #[inline]
    pub fn option<T>(&mut self, value: Option<&T>, each: impl FnOnce(&mut Self, &T)) -> &mut Self {
        match value {
            None => self.number(0u64),
            Some(value) => {
                self.number(1u64);
                each(self, value);
                self
            }
        }
    }

    /// The hash of all that was fed.
    pub fn finish(&self) -> [u8; 32] {
        match &self.long {
            None => *blake3::hash(&self.short[..self.length]).as_bytes(),
            Some(long) => *long.hasher.clone().update(&long.piece).finalize().as_bytes(),
        }
    }

    /// Most of what is fed are numbers: as many bytes each time, for which nothing has to be called.
    #[inline]
    fn feed_number(&mut self, number: u64) -> &mut Self {
        let bytes = number.to_le_bytes();
        match &mut self.long {
            None => {
                if let Some(free) = self.short[self.length..].first_chunk_mut() {
                    *free = bytes;
                    self.length += bytes.len();
                    return self;
                }
            }
            Some(long) if long.piece.len() + bytes.len() < LONG_BYTES => {
                long.piece.extend_from_slice(&bytes);
                return self;
            }
            Some(_) => {}
        }
        self.feed(&bytes)
    }

    fn feed(&mut self, bytes: &[u8]) -> &mut Self {
        if self.long.is_none()
            && let Some(free) = self.short[self.length..].get_mut(..bytes.len())
        {
            free.copy_from_slice(bytes);
            self.length += bytes.len();
            return self;
        }
        let short = &self.short[..self.length];
        self.long.get_or_insert_with(|| Box::new(Long::new(short))).feed(bytes);
        self
    }
}

impl Long {
    fn new(short: &[u8]) -> Self {
        let mut piece = Vec::with_capacity(LONG_BYTES);
        piece.extend_from_slice(short);
        Self { hasher: blake3::Hasher::new(), piece }
    }

    fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(LONG_BYTES - self.piece.len()));
            self.piece.extend_from_slice(now);
            if self.piece.len() == LONG_BYTES {
                self.hasher.update(&self.piece);
                self.piece.clear();
            }
            bytes = later;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_framed() {
        let hash = |fields: &[&str]| {
            let mut hasher = KeyHasher::new("test.v1");
            fields.iter().for_each(|field| {
                hasher.str(field);
            });
            hasher.finish()
        };
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
        assert_ne!(hash(&["a"]), hash(&["a", ""]));
        assert_ne!(KeyHasher::new("a.v1").finish(), KeyHasher::new("a.v2").finish());
    }

    #[test]
    fn pieces_of_any_length_are_hashed_in_their_order() {
        let lengths =
            [0, 1, 200, 56, 300, SHORT_BYTES, 3, SHORT_BYTES + 1, 8, LONG_BYTES, 40_000, 2 * LONG_BYTES];
        let mut expected = blake3::Hasher::new();
        let mut hasher = KeyHasher::new("test.v1");
        expected.update(&7_u64.to_le_bytes()).update(b"test.v1");
        for (length, byte) in lengths.into_iter().zip(0..) {
            let bytes = vec![byte; length];
            expected.update(&(length as u64).to_le_bytes()).update(&bytes);
            assert_eq!(hasher.bytes(&bytes).finish(), *expected.finalize().as_bytes(), "{length}");
        }
    }

    #[test]
    fn absent_differs_from_empty() {
        let hash = |value: Option<&String>| {
            KeyHasher::new("test.v1")
                .option(value, |hasher, value| {
                    hasher.str(value);
                })
                .finish()
        };
        assert_ne!(hash(None), hash(Some(&String::new())));
    }
}
