//! The hash that keys and content digests inside rbuild are made of: framed, versioned, domain-tagged BLAKE3.
//!
//! A key must not depend on how a struct happens to print, and two different values must never feed the same bytes.
//! So a [`KeyHasher`] writes a length before each variable-sized field, and starts with a domain tag that carries a
//! version. What leaves rbuild is named by a [`Digest`](crate::Digest) instead.

use std::fmt;

/// How much is gathered before it is hashed: fields are short, and each piece that is hashed by itself costs as much again.
const GATHERED_BYTES: usize = 256;

/// A BLAKE3 hasher that frames what it is fed.
#[derive(Clone)]
pub struct KeyHasher {
    hasher: blake3::Hasher,
    gathered: [u8; GATHERED_BYTES],
    length: usize,
}

impl fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHasher")
    }
}

impl KeyHasher {
    /// Starts a hash in a domain, such as `rbuild.exec.v1`. Bump the version when the fields change.
    pub fn new(domain: &str) -> Self {
        let mut hasher = Self { hasher: blake3::Hasher::new(), gathered: [0; GATHERED_BYTES], length: 0 };
        hasher.str(domain);
        hasher
    }

    /// Feeds bytes of any length.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.feed(&(bytes.len() as u64).to_le_bytes()).feed(bytes)
    }

    /// Feeds text.
    pub fn str(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// Feeds a number, a boolean or the ordinal of a variant.
    pub fn number(&mut self, number: impl Into<u64>) -> &mut Self {
        self.feed(&number.into().to_le_bytes())
    }

    /// Feeds a signed number.
    pub fn signed(&mut self, number: i64) -> &mut Self {
        self.feed(&number.to_le_bytes())
    }

    /// Feeds a list: its length, then each element.
    pub fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) -> &mut Self {
        self.number(items.len() as u64);
        for item in items {
            each(self, item);
        }
        self
    }

    /// Feeds a value that may be absent: 0, or 1 and the value.
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
        let gathered = &self.gathered[..self.length];
        if self.hasher.count() == 0 {
            return *blake3::hash(gathered).as_bytes();
        }
        *self.hasher.clone().update(gathered).finalize().as_bytes()
    }

    fn feed(&mut self, bytes: &[u8]) -> &mut Self {
        if bytes.len() > GATHERED_BYTES - self.length {
            self.hasher.update(&self.gathered[..self.length]);
            self.length = 0;
        }
        match self.gathered[self.length..].get_mut(..bytes.len()) {
            Some(free) => {
                free.copy_from_slice(bytes);
                self.length += bytes.len();
            }
            None => drop(self.hasher.update(bytes)),
        }
        self
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
        let lengths = [0, 1, 200, 56, 300, GATHERED_BYTES, 3, GATHERED_BYTES + 1, 8];
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
