//! `--cache-size`: how much the cache may take.

use rbuild_cache::prune::CacheLimit;
use rbuild_frontend::parse_size_bytes;

use crate::report::{Failure, Kind};

/// What the cache may take at least where nothing is said, in bytes.
const DEFAULT_MIN_BYTES: u64 = 10_000_000_000;

/// A tenth of the disk, at least 10 GB, and never more than four fifths of a small one.
pub(super) fn default_limit(disk_bytes: u64) -> CacheLimit {
    CacheLimit((disk_bytes / 10).max(DEFAULT_MIN_BYTES).min(disk_bytes / 5 * 4))
}

/// `20GB`, or `10%` of the disk.
///
/// # Errors
/// When it is neither.
pub(super) fn parse(text: &str, disk_bytes: u64) -> Result<CacheLimit, Failure> {
    let malformed =
        || Failure::new(Kind::Input, format!("invalid size of the cache `{text}` (expected 20gb, 10%)"));
    let bytes = match text.strip_suffix('%') {
        Some(percent) => {
            let percent = percent.trim().parse::<u64>().ok().filter(|percent| *percent <= 100);
            percent.map(|percent| disk_bytes / 100 * percent)
        }
        None => parse_size_bytes(text),
    };
    bytes.map(CacheLimit).ok_or_else(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_a_part_of_the_disk() {
        let cases = [("1gb", 1 << 30), ("10%", 100), ("0", 0), ("100 %", 1000), ("512m", 512 << 20)];
        for (text, expected) in cases {
            assert_eq!(parse(text, 1000).unwrap().0, expected, "{text}");
        }
        for text in ["", "%", "101%", "-1%", "much", "-5gb"] {
            assert!(parse(text, 1000).is_err(), "{text}");
        }
    }

    #[test]
    fn the_default_is_a_tenth_of_a_large_disk() {
        let gb = 1_000_000_000;
        for (disk, expected) in [(1000, 100), (50, 10), (10, 8)] {
            assert_eq!(default_limit(disk * gb).0, expected * gb, "{disk} GB");
        }
    }
}
