//! Where a layer is cut into parts.
//!
//! That depends on names and sizes only, and on what is near: so a change moves few cuts, and it is the same whatever form a layer is
//! kept in.
//!
//! * A part ends before a name whose digest says so, once it has its size; parts grow with their number, so that there are few
//!   of however large a layer.
//! * None ends between two names of one file, as a link leads to no other layer's file.

use std::io::Read;

use super::Entries;
use crate::layer::tar::{BLOCK_BYTES, TarEntry, TarKind, TarWriteError};
use crate::layer::whiteout::WHITEOUT_PREFIX;

/// What the first parts of a layer take at least.
pub const PART_SIZE_BYTES: u64 = 32 << 20;
/// After how many parts they are twice as large.
const PARTS_OF_ONE_SIZE: usize = 12;
/// Of how many names one ends a part that has its size.
const NAMES_TO_AN_END: u8 = 64;
/// How many times its size a part has when any name ends it.
const SIZE_FACTOR_MAX: u64 = 2;

/// The first names of the parts of a layer, but for the first part and one with nothing but directories.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cuts(Vec<Vec<u8>>);

/// Those of a layer that is whole.
pub(crate) static NO_CUTS: Cuts = Cuts(Vec::new());

impl Cuts {
    /// Whether the layer is whole.
    pub(crate) const fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub(crate) const fn count(&self) -> usize {
        self.0.len()
    }

    /// The first name of the part after one, counted from zero.
    pub(crate) fn begin_after(&self, part: usize) -> Option<&[u8]> {
        self.0.get(part).map(Vec::as_slice)
    }
}

impl FromIterator<Vec<u8>> for Cuts {
    fn from_iter<I: IntoIterator<Item = Vec<u8>>>(begins: I) -> Self {
        Self(begins.into_iter().collect())
    }
}

/// Finds where a layer is to be cut.
#[derive(Debug)]
pub(crate) struct Measure {
    size_bytes_min: u64,
    /// What this part has.
    part_bytes: u64,
    /// How many names are to come of files that have one in this part.
    names_open: u64,
    cuts: Cuts,
}

impl Measure {
    /// For parts of this size, or none if it is zero.
    pub(crate) const fn new(size_bytes_min: u64) -> Self {
        Self { size_bytes_min, part_bytes: 0, names_open: 0, cuts: Cuts(Vec::new()) }
    }

    /// Whether a cut was found.
    pub(crate) const fn is_cut(&self) -> bool {
        !self.cuts.is_none()
    }

    pub(crate) fn finish(self) -> Cuts {
        self.cuts
    }

    fn begins_with(&self, path: &[u8]) -> bool {
        if self.size_bytes_min == 0 || self.names_open > 0 {
            return false;
        }
        let doublings = (self.cuts.0.len() / PARTS_OF_ONE_SIZE).min(32);
        let size_bytes = self.size_bytes_min.saturating_mul(1 << doublings);
        self.part_bytes >= size_bytes
            && !is_mark(path)
            && (self.part_bytes >= size_bytes.saturating_mul(SIZE_FACTOR_MAX) || may_begin(path))
    }
}

impl Entries for Measure {
    fn entry(&mut self, entry: &TarEntry<'_>, names: u64) -> Result<bool, TarWriteError> {
        if self.begins_with(entry.path) {
            self.cuts.0.push(entry.path.to_owned());
            self.part_bytes = 0;
        }
        self.part_bytes += BLOCK_BYTES as u64;
        match entry.kind {
            TarKind::Directory => {}
            TarKind::HardLink { .. } => self.names_open = self.names_open.saturating_sub(1),
            _ => self.names_open += names.saturating_sub(1),
        }
        if let TarKind::File { size_bytes } = entry.kind {
            self.part_bytes += size_bytes.next_multiple_of(BLOCK_BYTES as u64);
        }
        Ok(false)
    }

    fn content(&mut self, _: &mut dyn Read, _: u64) -> Result<(), TarWriteError> {
        Ok(())
    }

    fn digest(&mut self, _: &[u8; 32]) -> Result<(), TarWriteError> {
        Ok(())
    }
}

/// Whether a part may begin with this name.
fn may_begin(path: &[u8]) -> bool {
    blake3::hash(path).as_bytes()[0].is_multiple_of(NAMES_TO_AN_END)
}

/// Whether it is a mark, which stays with what it is about.
fn is_mark(path: &[u8]) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    name.starts_with(WHITEOUT_PREFIX.as_bytes())
}
