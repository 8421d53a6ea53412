//! Content digests: SHA-256, because everything that leaves rbuild in OCI form is named by it.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

const PREFIX: &str = "sha256:";

/// A SHA-256 digest, printed as `sha256:<64 hex digits>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// Why a string is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseDigestError {
    /// There is no `algorithm:` prefix, or the part after it is not 64 lower-case hex digits.
    #[error("`{0}` is not a digest (expected `sha256:` and 64 hex digits)")]
    Malformed(String),
    /// A well-formed digest of an algorithm that rbuild does not speak.
    #[error("digest `{0}` uses an unsupported algorithm (only sha256 is)")]
    UnsupportedAlgorithm(String),
}

impl Digest {
    /// Hashes bytes that are at hand.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(Sha256::digest(bytes.as_ref()).into())
    }

    /// Takes a SHA-256 value that was stored as bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hex digits, without the algorithm.
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("writing to a string cannot fail");
            hex
        })
    }

    /// The first twelve hex digits: the short id that people read.
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || ParseDigestError::Malformed(text.to_owned());
        let (algorithm, hex) = text.split_once(':').ok_or_else(malformed)?;
        if algorithm != "sha256" {
            let plausible = !algorithm.is_empty() && hex.len() >= 32 && hex.bytes().all(is_lower_hex);
            return Err(if plausible {
                ParseDigestError::UnsupportedAlgorithm(text.to_owned())
            } else {
                malformed()
            });
        }
        if hex.len() != 64 || !hex.bytes().all(is_lower_hex) {
            return Err(malformed());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = hex_value(pair[0]) << 4 | hex_value(pair[1]);
        }
        Ok(Self(bytes))
    }
}

const fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// The value of a digit that [`is_lower_hex`] accepted.
const fn hex_value(digit: u8) -> u8 {
    if digit <= b'9' { digit - b'0' } else { digit - b'a' + 10 }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The digest of a layer's uncompressed tar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiffId(pub Digest);

impl fmt::Display for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The identity of a stack of layers (OCI image specification, "Layer ChainID").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChainId(pub Digest);

impl ChainId {
    /// The chain id of `layer` on top of `parent`; the bottom layer's is its diff-id.
    pub fn extend(parent: Option<Self>, layer: DiffId) -> Self {
        match parent {
            None => Self(layer.0),
            Some(parent) => Self(Digest::of(format!("{} {}", parent.0, layer.0))),
        }
    }

    /// The chain ids of a whole stack, bottom first.
    pub fn of_stack(layers: &[DiffId]) -> Vec<Self> {
        let mut parent = None;
        layers
            .iter()
            .map(|layer| {
                let chain = Self::extend(parent, *layer);
                parent = Some(chain);
                chain
            })
            .collect()
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An incremental SHA-256 that counts what it was fed.
#[derive(Debug, Clone, Default)]
pub struct Hasher {
    sha: Sha256,
    size_bytes: u64,
}

impl Hasher {
    /// Feeds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha.update(bytes);
        self.size_bytes += bytes.len() as u64;
    }

    /// The number of bytes fed so far.
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The digest of all that was fed.
    pub fn finish(self) -> Digest {
        Digest(self.sha.finalize().into())
    }
}

/// A reader that hashes what passes through it.
#[derive(Debug)]
pub struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
}

impl<R> HashingReader<R> {
    /// Starts hashing what `inner` yields from here on.
    pub fn new(inner: R) -> Self {
        Self { inner, hasher: Hasher::default() }
    }

    /// Ends the reading: the digest and size of what was read, and the reader.
    pub fn finish(self) -> (Digest, u64, R) {
        let size_bytes = self.hasher.size_bytes();
        (self.hasher.finish(), size_bytes, self.inner)
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

/// A writer that hashes what passes through it.
#[derive(Debug)]
pub struct HashingWriter<W> {
    inner: W,
    hasher: Hasher,
}

impl<W> HashingWriter<W> {
    /// Starts hashing what is written to `inner` from here on.
    pub fn new(inner: W) -> Self {
        Self { inner, hasher: Hasher::default() }
    }

    /// Ends the writing: the digest and size of what was written, and the writer. Does not flush.
    pub fn finish(self) -> (Digest, u64, W) {
        let size_bytes = self.hasher.size_bytes();
        (self.hasher.finish(), size_bytes, self.inner)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digest_prints_what_it_parses() {
        let digest: Digest = EMPTY.parse().unwrap();
        assert_eq!(digest, Digest::of(b""));
        assert_eq!(digest.to_string(), EMPTY);
        assert_eq!(digest.short(), "e3b0c44298fc");
    }

    #[test]
    fn malformed_digests_are_refused() {
        let upper = EMPTY.replace("e3b0", "E3B0");
        for text in ["", "sha256", "sha256:", "sha256:zz", &EMPTY[..70], &upper, "md5:00"] {
            assert_eq!(text.parse::<Digest>(), Err(ParseDigestError::Malformed(text.to_owned())));
        }
        let other = format!("sha512:{}", "0".repeat(128));
        assert_eq!(other.parse::<Digest>(), Err(ParseDigestError::UnsupportedAlgorithm(other)));
    }

    #[test]
    fn chain_ids_follow_the_specification() {
        let (a, b) = (DiffId(Digest::of("a")), DiffId(Digest::of("b")));
        let chain = ChainId::of_stack(&[a, b]);
        assert_eq!(chain[0].0, a.0);
        assert_eq!(chain[1].0, Digest::of(format!("{a} {b}")));
    }

    #[test]
    fn reader_and_writer_hash_what_passes() {
        let mut reader = HashingReader::new(&b"hello"[..]);
        let mut writer = HashingWriter::new(Vec::new());
        io::copy(&mut reader, &mut writer).unwrap();
        let (read, size_bytes, _) = reader.finish();
        let (written, _, bytes) = writer.finish();
        assert_eq!((read, written, size_bytes), (Digest::of("hello"), Digest::of("hello"), 5));
        assert_eq!(bytes, b"hello");
    }
}
