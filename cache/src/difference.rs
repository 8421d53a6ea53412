//! Bytes as what differs from other bytes: for documents of which each is all but the one before.

use std::io::{self, Read as _, Write as _};

use zstd::zstd_safe::CParameter;

/// What decompressors take without being asked, as a power of two.
const WINDOW_LOG_MAX: u32 = 27;
const WINDOW_LOG_MIN: u32 = 10;

/// What is compared at once.
const PIECE_BYTES: usize = 4096;

/// What comes before the lengths of what both have in common at their ends. Without it all is a frame, as it first was.
const ENDS: &[u8; 4] = b"ends";

/// What comes before the length that both have, and the number and the places of the pieces that differ.
const PIECES: &[u8; 4] = b"same";

/// Compresses what `bytes` have that `key` has not.
///
/// What is equal is not looked at again, which is all but the whole where little has changed: pieces at the same place, or, where one
/// is longer, both ends.
pub(crate) fn encode(bytes: &[u8], key: &[u8]) -> io::Result<Vec<u8>> {
    if bytes.len() == key.len() { encode_pieces(bytes, key) } else { encode_ends(bytes, key) }
}

fn encode_pieces(bytes: &[u8], key: &[u8]) -> io::Result<Vec<u8>> {
    let starts = (0..bytes.len()).step_by(PIECE_BYTES);
    let starts: Vec<usize> = starts.filter(|start| piece(bytes, *start) != piece(key, *start)).collect();
    let header = [bytes.len(), starts.len()].into_iter().chain(starts.iter().copied());
    let header: Vec<u8> = header.flat_map(|number| (number as u64).to_le_bytes()).collect();
    let frame = encode_frame(&pieces(bytes, &starts), &pieces(key, &starts))?;
    Ok([PIECES.as_slice(), &header, &frame].concat())
}

fn encode_ends(bytes: &[u8], key: &[u8]) -> io::Result<Vec<u8>> {
    let before = common(bytes.chunks_exact(PIECE_BYTES), key.chunks_exact(PIECE_BYTES)) * PIECE_BYTES;
    let before = before + common(bytes[before..].iter(), key[before..].iter());
    let (bytes, key) = (&bytes[before..], &key[before..]);
    let after = common(bytes.rchunks_exact(PIECE_BYTES), key.rchunks_exact(PIECE_BYTES)) * PIECE_BYTES;
    let after = after + common(ending(bytes, after), ending(key, after));
    let (bytes, key) = (&bytes[..bytes.len() - after], &key[..key.len() - after]);
    let length = |length: usize| (length as u64).to_le_bytes();
    Ok([ENDS.as_slice(), &length(before), &length(after), &encode_frame(bytes, key)?].concat())
}

fn encode_frame(bytes: &[u8], key: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::Encoder::with_ref_prefix(Vec::new(), zstd::DEFAULT_COMPRESSION_LEVEL, key)?;
    let window_log = usize::BITS - (bytes.len() + key.len()).leading_zeros();
    encoder.set_parameter(CParameter::WindowLog(window_log.clamp(WINDOW_LOG_MIN, WINDOW_LOG_MAX)))?;
    encoder.set_parameter(CParameter::EnableLongDistanceMatching(true))?;
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// The bytes again, with the same `key`.
pub(crate) fn decode(difference: &[u8], key: &[u8]) -> io::Result<Vec<u8>> {
    if let Some(rest) = difference.strip_prefix(PIECES) {
        return decode_pieces(rest, key)?.ok_or_else(|| io::ErrorKind::InvalidData.into());
    }
    let Some(rest) = difference.strip_prefix(ENDS) else { return decode_frame(difference, key) };
    let (before, after, frame) = split(rest).ok_or(io::ErrorKind::InvalidData)?;
    let until = key.len().checked_sub(after).filter(|until| before <= *until);
    let until = until.ok_or(io::ErrorKind::InvalidData)?;
    let middle = decode_frame(frame, &key[before..until])?;
    Ok([&key[..before], &middle, &key[until..]].concat())
}

/// `None` if it is not of this key.
fn decode_pieces(difference: &[u8], key: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let Some((starts, frame)) = split_pieces(difference, key.len()) else { return Ok(None) };
    let decoded = decode_frame(frame, &pieces(key, &starts))?;
    let (mut bytes, mut rest) = (key.to_vec(), &decoded[..]);
    for start in starts {
        let length = piece(key, start).len();
        let Some((piece, after)) = rest.split_at_checked(length) else { return Ok(None) };
        bytes[start..start + length].copy_from_slice(piece);
        rest = after;
    }
    Ok(rest.is_empty().then_some(bytes))
}

/// Where the pieces begin, and the frame; `None` if they are not all in a key of this length.
fn split_pieces(difference: &[u8], key_length: usize) -> Option<(Vec<usize>, &[u8])> {
    let (length, count, rest) = split(difference)?;
    let (starts, frame) = rest.split_at_checked(count.checked_mul(size_of::<u64>())?)?;
    let start = |bytes: &[u8; 8]| usize::try_from(u64::from_le_bytes(*bytes)).ok();
    let starts: Vec<usize> = starts.as_chunks().0.iter().map(start).collect::<Option<_>>()?;
    let is_of_key = length == key_length && starts.iter().all(|start| *start < key_length);
    is_of_key.then_some((starts, frame))
}

fn pieces(all: &[u8], starts: &[usize]) -> Vec<u8> {
    starts.iter().map(|start| piece(all, *start)).collect::<Vec<_>>().concat()
}

fn piece(all: &[u8], start: usize) -> &[u8] {
    &all[start..all.len().min(start + PIECE_BYTES)]
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
    fn pieces_that_differ_are_told_by_their_places() {
        let key: Vec<u8> = (0..100_000_u32)
            .flat_map(|number| blake3::hash(&number.to_le_bytes()).as_bytes()[..4].to_vec())
            .collect();
        let mut bytes = key.clone();
        for at in [0, 5000, 8191, 8192, 399_999] {
            bytes[at] ^= 1;
        }
        let difference = encode(&bytes, &key).unwrap();
        assert!(difference.len() < 200, "{}", difference.len());
        assert_eq!(decode(&difference, &key).unwrap(), bytes);
        assert_eq!(decode(&encode(&key, &key).unwrap(), &key).unwrap(), key);
        let of_another = [&key[..], b"x"].concat();
        assert!(decode(&difference, &of_another).is_err() && decode(&difference, b"").is_err());
        let mut elsewhere = difference.clone();
        elsewhere[20..28].copy_from_slice(&400_000_u64.to_le_bytes());
        let many = [&difference[..12], &u64::MAX.to_le_bytes(), &difference[20..]].concat();
        assert!([&elsewhere, &many, &difference[..30]].iter().all(|damaged| decode(damaged, &key).is_err()));
    }

    #[test]
    fn differences_of_the_first_form_are_read() {
        let mut encoder = zstd::Encoder::with_ref_prefix(Vec::new(), 3, b"one two three").unwrap();
        encoder.write_all(b"one two four").unwrap();
        assert_eq!(decode(&encoder.finish().unwrap(), b"one two three").unwrap(), b"one two four");
    }
}
