//! Layers: the difference between two file systems, as a directory and as an archive.
//!
//! [`diff`] and [`apply`] are a pair: the tar that `diff` makes of an overlay upper directory, applied to an
//! empty directory, is that directory again. [`export`] is for whole trees.
//!
//! * [`tar`] writes archives whose bytes depend on nothing but what is archived.
//! * `parts` cuts the archive of a large layer.
//! * [`whiteout`] is the one place that knows how deletions are written.
//! * [`compression`] recognises, reads and makes the compressed forms.
//! * [`reader`] reads archives, which come from strangers; `apply` says what is refused, limited and repaired.

mod apply;
pub(crate) mod archive;
pub mod compression;
mod error;
pub(crate) mod merged;
mod parents;
pub(crate) mod parts;
mod read_ahead;
pub mod reader;
pub mod tar;
pub mod whiteout;

use std::ffi::OsStr;
use std::io::{BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub use apply::{Applied, ApplyOptions, Devices, Form, Limits, Owners, apply};
pub(crate) use apply::{NAME_BYTES_MAX, Target, apply_to, is_welcome, path_in_root};
pub use archive::{
    ArchiveOptions, ArchiveStats, Mtimes, TREE_DEPTH_MAX, diff, export, export_all, export_as,
};
pub use error::{Error, Refusal};
pub use parents::copy_directory_attributes;
pub use parts::PART_SIZE_BYTES;
pub use whiteout::OverlayXattrs;
pub(crate) use whiteout::{make_opaque, make_whiteout};

/// The most that a layer may expand to: a terabyte. Disks end before; this ends a stream that never does.
pub const LAYER_SIZE_BYTES_MAX: u64 = 1 << 40;

/// How much of an archive is looked at to count its entries.
const LOOK_BYTES_MAX: u64 = 8 << 20;

/// Whether a file is what `ADD` unpacks: a tar with at least one entry, plain or compressed. Reads as far as
/// the first header goes; names and suffixes do not matter, and an empty file is none.
pub fn is_archive(input: impl Read) -> bool {
    has_entries(input, 1)
}

/// Whether an archive begins with so many entries, in its first eight megabytes.
pub fn has_entries(input: impl Read, count: usize) -> bool {
    let begins = |tar| reader::starts_with_entries(BufReader::new(Read::take(tar, LOOK_BYTES_MAX)), count);
    compression::decompress(input).is_ok_and(begins)
}

pub(crate) fn bytes_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

#[cfg(test)]
pub(crate) mod tests;
