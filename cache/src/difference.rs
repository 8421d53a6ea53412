//! Bytes as what differs from other bytes: for documents of which each is all but the one before.

use std::io::{self, Read as _, Write as _};

use zstd::zstd_safe::CParameter;

/// What decompressors take without being asked, as a power of two.
const WINDOW_LOG_MAX: u32 = 27;
const WINDOW_LOG_MIN: u32 = 10;

/// What is compared at once.
const PIECE_BYTES: usize = 4096;

/// What comes before the lengths of what both have in common at their ends. Without it all is a frame, as it first was.
const MAGIC: &[u8; 4] = b"ends";

/// Compresses what `bytes` have that `key` has not.
///
/// What is equal at both ends is not looked at again, which is all but the whole where little has changed.
pub(crate) fn encode(bytes: &[u8], key: &[u8]) -> io::Result<Vec<u8>> {
    let before = common(bytes.chunks_exact(PIECE_BYTES), key.chunks_exact(PIECE_BYTES)) * PIECE_BYTES;
    let before = before + common(bytes[before..].iter(), key[before..].iter());
    let (bytes, key) = (&bytes[before..], &key[before..]);
    let after = common(bytes.rchunks_exact(PIECE_BYTES), key.rchunks_exact(PIECE_BYTES)) * PIECE_BYTES;
    let after = after + common(ending(bytes, after), ending(key, after));
    let (bytes, key) = (&bytes[..bytes.len() - after], &key[..key.len() - after]);
    let mut encoder = zstd::Encoder::with_ref_prefix(Vec::new(), zstd::DEFAULT_COMPRESSION_LEVEL, key)?;
    let window_log = usize::BITS - (bytes.len() + key.len()).leading_zeros();
    encoder.set_parameter(CParameter::WindowLog(window_log.clamp(WINDOW_LOG_MIN, WINDOW_LOG_MAX)))?;
    encoder.set_parameter(CParameter::EnableLongDistanceMatching(true))?;
    encoder.write_all(bytes)?;
    let length = |length: usize| (length as u64).to_le_bytes();
    Ok([MAGIC.as_slice(), &length(before), &length(after), &encoder.finish()?].concat())
}

/// The bytes again, with the same `key`.
pub(crate) fn decode(difference: &[u8], key: &[u8]) -> io::Result<Vec<u8>> {
    let Some(rest) = difference.strip_prefix(MAGIC) else { return decode_frame(difference, key) };
    let (before, after, frame) = split(rest).ok_or(io::ErrorKind::InvalidData)?;
    let until = key.len().checked_sub(after).filter(|until| before <= *until);
    let until = until.ok_or(io::ErrorKind::InvalidData)?;
    let middle = decode_frame(frame, &key[before..until])?;
    Ok([&key[..before], &middle, &key[until..]].concat())
}

fn decode_frame(frame: &[u8], key: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    zstd::Decoder::with_ref_prefix(frame, key)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn split(bytes: &[u8]) -> Option<(usize, usize, &[u8])> {
    let (before, rest) = bytes.split_first_chunk()?;
    let (after, frame) = rest.split_first_chunk()?;
    let length = |bytes: &[u8; 8]| usize::try_from(u64::from_le_bytes(*bytes)).ok();
    Some((length(before)?, length(after)?, frame))
}

/// How many items both begin with.
fn common<T: PartialEq>(a: impl Iterator<Item = T>, b: impl Iterator<Item = T>) -> usize {
    a.zip(b).take_while(|(a, b)| a == b).count()
}

/// The bytes before the last `after`, the last first.
fn ending(bytes: &[u8], after: usize) -> impl Iterator<Item = &u8> {
    bytes[..bytes.len() - after].iter().rev()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_is_written_of_what_is_the_same() {
        let mut state = 1_u64;
        let mut next = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        let key: Vec<u8> = (0..1_000_000).map(&mut next).collect();
        let mut changed = key.clone();
        changed.splice(500_000..500_010, [7; 100]);
        let frame = encode(&changed, &key).unwrap();
        assert!(frame.len() < 1000, "{}", frame.len());
        assert_eq!(decode(&frame, &key).unwrap(), changed);
        let end = frame.len() - 1;
        assert!([&frame[..9], &frame[..end], b""].iter().all(|part| decode(part, &key).is_err()));
        assert!(decode(&frame, &key[..500_000]).is_err(), "of another key");
    }

    #[test]
    fn what_is_equal_at_the_ends_is_told_by_its_length() {
        for (bytes, key) in
            [("", ""), ("a", ""), ("", "a"), ("aa", "a"), ("a", "aa"), ("abc", "axc"), ("abab", "ab")]
        {
            let frame = encode(bytes.as_bytes(), key.as_bytes()).unwrap();
            assert_eq!(decode(&frame, key.as_bytes()).unwrap(), bytes.as_bytes(), "{bytes} from {key}");
        }
    }

    #[test]
    fn differences_of_the_first_form_are_read() {
        let mut encoder = zstd::Encoder::with_ref_prefix(Vec::new(), 3, b"one two three").unwrap();
        encoder.write_all(b"one two four").unwrap();
        assert_eq!(decode(&encoder.finish().unwrap(), b"one two three").unwrap(), b"one two four");
    }
}
