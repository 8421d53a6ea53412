//! Bytes as what differs from other bytes, the *key*: for documents of which each is all but the one before.
//!
//! Both begin with the same bytes. What comes then has as many bytes to the end in both, but for some that only one has, and is compared
//! in pieces: the pieces that differ are compressed, and what only one has.
//!
//! ```text
//! ├──────── head ────────┼─ middle ─┼──────────────── tail ────────────────┤
//!   equal                  in one     compared by pieces, from its beginning
//! ```

use std::io::{self, Read as _, Write as _};

use zstd::zstd_safe::CParameter;

/// What decompressors take without being asked, as a power of two.
const WINDOW_LOG_MAX: u32 = 27;
const WINDOW_LOG_MIN: u32 = 10;
/// From what length on it pays to look for what is far away.
const LONG_BYTES: usize = 1024 * 1024;

/// What is compared at once.
const PIECE_BYTES: usize = 4096;

/// What comes before a [`Shape`] that says all.
const WHOLE: &[u8; 4] = b"form";
/// What came before the lengths of a head and a tail without a difference.
const ENDS: &[u8; 4] = b"ends";
/// What came before the length of a tail that was all, and the number and the places of pieces.
const PIECES: &[u8; 4] = b"same";

/// What is equal and what is not.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    head_bytes: usize,
    tail_bytes: usize,
    /// Where in the tail pieces begin that differ.
    pieces: Vec<usize>,
}

/// Compresses what `bytes` have that `key` has not.
pub(crate) fn encode(bytes: &[u8], key: &[u8]) -> io::Result<Vec<u8>> {
    let shape = Shape::of(bytes, key);
    let frame = encode_frame(&shape.differing(bytes), &shape.differing(key))?;
    Ok([WHOLE.as_slice(), &shape.encode(), &frame].concat())
}

/// The bytes again, with the same `key`.
pub(crate) fn decode(difference: &[u8], key: &[u8]) -> io::Result<Vec<u8>> {
    let damaged = || io::Error::from(io::ErrorKind::InvalidData);
    let (shape, frame) = split(difference).filter(|(shape, _)| shape.fits(key)).ok_or_else(damaged)?;
    let differing = decode_frame(frame, &shape.differing(key))?;
    shape.join(&differing, key).ok_or_else(damaged)
}

impl Shape {
    fn of(bytes: &[u8], key: &[u8]) -> Self {
        let head = common(bytes.chunks_exact(PIECE_BYTES), key.chunks_exact(PIECE_BYTES)) * PIECE_BYTES;
        let head_bytes = head + common(bytes[head..].iter(), key[head..].iter());
        let tail_bytes = bytes.len().min(key.len()) - head_bytes;
        let (tail, key_tail) = (&bytes[bytes.len() - tail_bytes..], &key[key.len() - tail_bytes..]);
        let starts = (0..tail_bytes).step_by(PIECE_BYTES);
        let pieces = starts.filter(|start| piece(tail, *start) != piece(key_tail, *start)).collect();
        Self { head_bytes, tail_bytes, pieces }
    }

    /// The middle and the pieces that differ.
    fn differing(&self, bytes: &[u8]) -> Vec<u8> {
        let (before, tail) = bytes.split_at(bytes.len() - self.tail_bytes);
        let pieces = self.pieces.iter().map(|start| piece(tail, *start));
        std::iter::once(&before[self.head_bytes..]).chain(pieces).collect::<Vec<_>>().concat()
    }

    /// The other way round; `None` if that is not of this shape.
    fn join(&self, differing: &[u8], key: &[u8]) -> Option<Vec<u8>> {
        let tail = &key[key.len() - self.tail_bytes..];
        let in_pieces: usize = self.pieces.iter().map(|start| piece(tail, *start).len()).sum();
        let (middle, mut rest) = differing.split_at_checked(differing.len().checked_sub(in_pieces)?)?;
        let before = self.head_bytes + middle.len();
        let mut bytes = Vec::with_capacity(before + tail.len());
        bytes.extend_from_slice(&key[..self.head_bytes]);
        bytes.extend_from_slice(middle);
        bytes.extend_from_slice(tail);
        for start in &self.pieces {
            let (piece, after) = rest.split_at(piece(tail, *start).len());
            bytes[before + start..][..piece.len()].copy_from_slice(piece);
            rest = after;
        }
        Some(bytes)
    }

    /// Whether a key can be of this shape.
    fn fits(&self, key: &[u8]) -> bool {
        let ends = self.head_bytes.checked_add(self.tail_bytes);
        ends.is_some_and(|ends| ends <= key.len()) && self.pieces.iter().all(|start| *start < self.tail_bytes)
    }

    fn encode(&self) -> Vec<u8> {
        let lengths = [self.head_bytes, self.tail_bytes, self.pieces.len()];
        let numbers = lengths.iter().chain(&self.pieces);
        numbers.flat_map(|number| (*number as u64).to_le_bytes()).collect()
    }
}

/// The shape of a difference and its frame, in this form and those of before.
fn split(difference: &[u8]) -> Option<(Shape, &[u8])> {
    let Some((form, mut rest)) = difference.split_first_chunk().filter(|(form, _)| is_form(form)) else {
        // Once all was a frame.
        return Some((Shape { head_bytes: 0, tail_bytes: 0, pieces: Vec::new() }, difference));
    };
    let has_head = form != PIECES;
    let head_bytes = if has_head { number(&mut rest)? } else { 0 };
    let tail_bytes = number(&mut rest)?;
    let count = if form == ENDS { 0 } else { number(&mut rest)? };
    let (starts, frame) = rest.split_at_checked(count.checked_mul(size_of::<u64>())?)?;
    let start = |bytes: &[u8; 8]| usize::try_from(u64::from_le_bytes(*bytes)).ok();
    let pieces = starts.as_chunks().0.iter().map(start).collect::<Option<_>>()?;
    Some((Shape { head_bytes, tail_bytes, pieces }, frame))
}

fn is_form(form: &[u8; 4]) -> bool {
    [WHOLE, ENDS, PIECES].contains(&form)
}

fn number(bytes: &mut &[u8]) -> Option<usize> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    usize::try_from(u64::from_le_bytes(*number)).ok()
}

fn encode_frame(bytes: &[u8], key: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::Encoder::with_ref_prefix(Vec::new(), zstd::DEFAULT_COMPRESSION_LEVEL, key)?;
    let length = bytes.len() + key.len();
    let window_log = usize::BITS - length.leading_zeros();
    encoder.set_parameter(CParameter::WindowLog(window_log.clamp(WINDOW_LOG_MIN, WINDOW_LOG_MAX)))?;
    encoder.set_parameter(CParameter::EnableLongDistanceMatching(length >= LONG_BYTES))?;
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn decode_frame(frame: &[u8], key: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    zstd::Decoder::with_ref_prefix(frame, key)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The piece that begins at `start`; the last may be shorter.
fn piece(all: &[u8], start: usize) -> &[u8] {
    &all[start..all.len().min(start + PIECE_BYTES)]
}

/// How many items both begin with.
fn common<T: PartialEq>(a: impl Iterator<Item = T>, b: impl Iterator<Item = T>) -> usize {
    a.zip(b).take_while(|(a, b)| a == b).count()
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

    fn noise(length: usize) -> Vec<u8> {
        let number = |number: u32| blake3::hash(&number.to_le_bytes()).as_bytes()[..4].to_vec();
        (0..length.div_ceil(4) as u32).flat_map(number).take(length).collect()
    }

    #[test]
    fn pieces_that_differ_are_told_by_their_places() {
        let key = noise(400_000);
        let mut changed = key.clone();
        for at in [0, 5000, 8191, 8192, 399_999] {
            changed[at] ^= 1;
        }
        let mut longer = changed.clone();
        longer.splice(100..100, [1; 512]);
        let mut shorter = changed.clone();
        shorter.drain(100..612);
        for bytes in [&changed, &longer, &shorter] {
            let difference = encode(bytes, &key).unwrap();
            assert!(difference.len() < 1500, "{}", difference.len());
            assert_eq!(decode(&difference, &key).unwrap(), *bytes);
        }
        assert_eq!(decode(&encode(&key, &key).unwrap(), &key).unwrap(), key);
    }

    #[test]
    fn what_is_damaged_or_of_another_key_is_refused() {
        let key = noise(400_000);
        let mut bytes = key.clone();
        bytes[300_000] ^= 1;
        let difference = encode(&bytes, &key).unwrap();
        assert!(decode(&difference, &key[..300_000]).is_err() && decode(&difference, b"").is_err());
        let with = |at: usize, number: u64| {
            let mut damaged = difference.clone();
            damaged[at..at + 8].copy_from_slice(&number.to_le_bytes());
            damaged
        };
        let places =
            [(4, u64::MAX), (12, u64::MAX), (12, 400_001), (20, u64::MAX), (28, 400_000), (28, u64::MAX)];
        assert!(places.iter().all(|(at, number)| decode(&with(*at, *number), &key).is_err()));
        assert!((0..difference.len()).all(|end| decode(&difference[..end], &key).is_err()));
    }

    #[test]
    fn differences_of_the_first_forms_are_read() {
        let frame = |bytes: &[u8], key: &[u8]| {
            let mut encoder = zstd::Encoder::with_ref_prefix(Vec::new(), 3, key).unwrap();
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        let numbers =
            |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>();
        let (bytes, key) = (b"one two four", b"one two three");
        assert_eq!(decode(&frame(bytes, key), key).unwrap(), bytes);
        let ends = [ENDS.as_slice(), &numbers(&[8, 0]), &frame(b"four", b"three")].concat();
        assert_eq!(decode(&ends, key).unwrap(), bytes);
        let same = [PIECES.as_slice(), &numbers(&[13, 1, 0]), &frame(b"one two seven", key)].concat();
        assert_eq!(decode(&same, key).unwrap(), b"one two seven");
    }
}
