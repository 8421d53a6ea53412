//! Images as they lie on the disk: compressed, and most of them as what differs from another.
//!
//! ```text
//! layers/<id>   a zstd frame
//!               or: what this is, a pack by its number in the layer, and what differs from that pack's key image
//! ```
//!
//! Builds that follow each other have images that are all but the same. So a pack may hold the image that was made with it, its *key
//! image*, compressed. A later layer that has the most of its contents in that pack says only what is different.

use std::io;

use crate::difference;

const MAGIC: &[u8; 6] = b"rbdiff";
const HEADER_BYTES: usize = MAGIC.len() + size_of::<u16>();

/// Compresses an image.
pub(super) fn whole(image: &[u8]) -> io::Result<Vec<u8>> {
    zstd::encode_all(image, zstd::DEFAULT_COMPRESSION_LEVEL)
}

/// Compresses what an image has that the key image of pack `number` has not.
pub(super) fn different(image: &[u8], number: u16, key: &[u8]) -> io::Result<Vec<u8>> {
    Ok([MAGIC.as_slice(), &number.to_le_bytes(), &difference::encode(image, key)?].concat())
}

/// The image again; `key` gives the key image of a pack by its number.
pub(crate) fn read(stored: &[u8], key: impl FnOnce(u16) -> io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
    match stored.split_at_checked(HEADER_BYTES).filter(|_| stored.starts_with(MAGIC)) {
        Some(([.., low, high], frame)) => difference::decode(frame, &key(u16::from_le_bytes([*low, *high]))?),
        _ => zstd::decode_all(stored),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_read_as_it_was() {
        let no_key = |_| panic!("none is needed");
        assert_eq!(read(&whole(b"image").unwrap(), no_key).unwrap(), b"image");
        let found = read(&different(b"image 2", 513, b"image 1").unwrap(), |number| {
            assert_eq!(number, 513);
            Ok(b"image 1".to_vec())
        });
        assert_eq!(found.unwrap(), b"image 2");
    }

    #[test]
    fn what_is_damaged_is_no_image() {
        let stored = different(b"image", 0, b"key").unwrap();
        for damaged in [b"rb", &MAGIC[..], &stored[..stored.len() - 1], &stored[1..]] {
            assert!(read(damaged, |_| Ok(b"key".to_vec())).is_err(), "{damaged:?}");
        }
        let lost = |_| Err(io::Error::from(io::ErrorKind::InvalidData));
        assert!(read(&stored, lost).is_err());
    }
}
