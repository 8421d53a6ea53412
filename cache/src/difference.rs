//! Bytes as what differs from other bytes: for documents of which each is all but the one before.

use std::io::{self, Read as _, Write as _};

use zstd::zstd_safe::CParameter;

/// What decompressors take without being asked, as a power of two.
const WINDOW_LOG_MAX: u32 = 27;
const WINDOW_LOG_MIN: u32 = 10;

/// Compresses what `bytes` have that `key` has not.
pub(crate) fn encode(bytes: &[u8], key: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::Encoder::with_ref_prefix(Vec::new(), zstd::DEFAULT_COMPRESSION_LEVEL, key)?;
    let window_log = usize::BITS - (bytes.len() + key.len()).leading_zeros();
    encoder.set_parameter(CParameter::WindowLog(window_log.clamp(WINDOW_LOG_MIN, WINDOW_LOG_MAX)))?;
    encoder.set_parameter(CParameter::EnableLongDistanceMatching(true))?;
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// The bytes again, with the same `key`.
pub(crate) fn decode(frame: &[u8], key: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    zstd::Decoder::with_ref_prefix(frame, key)?.read_to_end(&mut bytes)?;
    Ok(bytes)
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
        assert!(decode(&frame[..frame.len() - 1], &key).is_err());
        assert_eq!(decode(&encode(b"", b"").unwrap(), b"").unwrap(), b"");
    }
}
