//! What documents of a shared cache are called: what they are, and the key that says which.

use std::fmt;
use std::str::FromStr;

use rbuild_llb::OpDigest;

use crate::cache_key::CacheKey;

/// The name of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum DocumentName {
    /// The record of a definition key.
    Record(CacheKey),
    /// Where a content key leads: to the record of which definition key.
    Content(CacheKey),
    /// That there are records of an op which a content key leads to.
    Op(OpDigest),
    /// A cache mount, by the key of its id.
    Mount(CacheKey),
}

impl DocumentName {
    const fn parts(&self) -> (&'static str, &[u8; 32]) {
        match self {
            Self::Record(key) => ("key", &key.0),
            Self::Content(key) => ("content", &key.0),
            Self::Op(op) => ("op", &op.0),
            Self::Mount(key) => ("mount", &key.0),
        }
    }

    /// Whether it stays until it is old, rather than for as long as one that does leads to it.
    pub(super) const fn is_root(&self) -> bool {
        matches!(self, Self::Record(_) | Self::Mount(_))
    }
}

impl fmt::Display for DocumentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, key) = self.parts();
        write!(f, "{kind}-{}", CacheKey(*key))
    }
}

/// Another name is none of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OtherName;

impl FromStr for DocumentName {
    type Err = OtherName;

    fn from_str(text: &str) -> Result<Self, OtherName> {
        let (kind, key) = text.split_once('-').ok_or(OtherName)?;
        let key = parse_key(key).ok_or(OtherName)?;
        match kind {
            "key" => Ok(Self::Record(key)),
            "content" => Ok(Self::Content(key)),
            "op" => Ok(Self::Op(OpDigest(key.0))),
            "mount" => Ok(Self::Mount(key)),
            _ => Err(OtherName),
        }
    }
}

/// A key from its 64 hexadecimal digits, as it is shown.
pub(super) fn parse_key(text: &str) -> Option<CacheKey> {
    let mut key = [0; 32];
    let pairs = text.as_bytes().chunks_exact(2);
    if text.len() != 2 * key.len() || text.bytes().any(|digit| digit.is_ascii_uppercase()) {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(pairs) {
        *byte = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(CacheKey(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let key: [u8; 32] = std::array::from_fn(|at| at as u8 * 8);
        for name in [
            DocumentName::Record(CacheKey(key)),
            DocumentName::Content(CacheKey(key)),
            DocumentName::Op(OpDigest(key)),
            DocumentName::Mount(CacheKey(key)),
        ] {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
        let text = DocumentName::Record(CacheKey(key)).to_string();
        for other in [
            "",
            "latest",
            "key-",
            &text[1..],
            &text[..67],
            &text.to_uppercase(),
            &text.replace("key", "lock"),
        ] {
            assert_eq!(other.parse::<DocumentName>(), Err(OtherName), "{other}");
        }
    }
}
