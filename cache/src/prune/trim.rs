//! Packs lose what no layer needs any longer.
//!
//! A pack stays as long as one layer points into it. When all of them together need less than half of what it holds, the rest is cut out of the file: a
//! hole takes no room, and what is left stays where images say that it is. Nothing new points into a pack with holes, so that it goes with the
//! layers that there are; what a later build needs of it is written again, less than half of it.
//!
//! So a pack is retired first: nobody takes from it from then on. It is cut when all leases that lived at that moment have ended, as who has
//! one may have taken from it and have no layer yet, and when a power failure cannot bring back rows that say less. Both may be a later prune, which
//! also goes on where one that was killed has stopped.

use std::fs::File;
use std::path::Path;

use rusqlite::Connection;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::retry_on_intr;

use super::file_disk_size_bytes;
use crate::db::Failure;
use crate::root_dir::{At as _, PathError};
use crate::snapshot::Written;
use crate::tree::erofs;
use crate::{LayerId, Result, Store};

/// A pack as its row has it.
struct Candidate {
    written: Written,
    /// Where its contents end.
    end_bytes: u64,
    last_used: i64,
    disk_size_bytes: u64,
    /// When it was retired, if it was.
    to_cut: Option<i64>,
}

/// What layers need of a pack.
struct Needed {
    /// Which layers, and which of their packs it is.
    layers: Vec<(LayerId, u16)>,
    /// Where contents begin and end that they need, in their order.
    extents: Vec<(u64, u64)>,
}

impl Store {
    /// Cuts out of packs what no layer needs. Returns how much room that makes.
    pub(super) fn trim_packs(&self) -> Result<u64> {
        let candidates = self.0.db.read("list packs to trim", candidates)?;
        if candidates.is_empty() || !self.has_holes() {
            return Ok(0);
        }
        // One that cannot be cut now is left to a later prune. What else is to be swept does not wait for it.
        Ok(candidates.iter().map(|candidate| self.trim(candidate).unwrap_or(0)).sum())
    }

    /// Whether files can have holes here: where they cannot, packs are better left to be used.
    fn has_holes(&self) -> bool {
        let file = self.nameless(&[1; erofs::BLOCK_BYTES as usize]);
        file.is_ok_and(|file| cut(&file, Path::new("a file"), &[(0, erofs::BLOCK_BYTES)]).is_ok())
    }

    fn trim(&self, candidate: &Candidate) -> Result<u64> {
        let pack = candidate.written.pack;
        let path = self.0.layout.pack(pack);
        let file = File::options().read(true).write(true).open(&path).at("open", &path)?;
        let (to_cut, known) = match candidate.to_cut {
            Some(to_cut) => (to_cut, None),
            None => match self.retire(candidate, &file)? {
                Some((to_cut, needed)) => (to_cut, Some(needed)),
                None => return Ok(0),
            },
        };
        if self.in_use_since()?.is_some_and(|since| since.stamp <= to_cut) {
            return Ok(0);
        }
        let Some(needed) = self.needed_of(pack, known)? else { return Ok(0) };
        if !self.settle_retirement(pack, to_cut)? {
            return Ok(0);
        }
        let gaps: Vec<(u64, u64)> = gaps(&needed.extents, candidate.end_bytes).collect();
        cut(&file, &path, &gaps)?;
        let left = file_disk_size_bytes(&file, &path)?;
        self.0.db.write("record the size of a pack", |db| {
            let sql = "UPDATE pack SET disk_size_bytes = ?2, to_cut = NULL WHERE id = ?1";
            Ok(db.prepare_cached(sql)?.execute((pack, left.cast_signed())).map(drop)?)
        })?;
        // By what was known: one that was killed may have cut it already.
        Ok(candidate.disk_size_bytes.saturating_sub(left))
    }

    /// Lets nobody take anything from a pack any longer, if most of it is not needed. Returns when that was, and what is needed; `None`
    /// if it is better kept, or somebody is using it.
    fn retire(&self, candidate: &Candidate, file: &File) -> Result<Option<(i64, Needed)>> {
        let leases = self.live_leases()?;
        if leases.oldest.is_some_and(|since| candidate.last_used >= since.stamp) {
            return Ok(None);
        }
        let Some(needed) = self.needed_of(candidate.written.pack, None)? else { return Ok(None) };
        if !is_mostly_unneeded(&needed.extents, candidate.end_bytes)
            // With holes it is not what its index says. So nobody may have to compare the two.
            || !self.settle_pack(&candidate.written, file)?
        {
            return Ok(None);
        }
        let retired = self.0.db.write("retire a pack", |db| {
            // Not before the leases that live, even if the clock was set back.
            let to_cut = leases.newest_stamp.map_or(i64::MIN, |stamp| stamp + 1).max(self.stamp());
            let sql =
                "UPDATE pack SET reusable = 0, to_cut = ?3 WHERE id = ?1 AND last_used = ?2 AND reusable";
            let row = (candidate.written.pack, candidate.last_used, to_cut);
            Ok((db.prepare_cached(sql)?.execute(row)? > 0).then_some(to_cut))
        })?;
        Ok(retired.map(|to_cut| (to_cut, needed)))
    }

    /// Waits until it is on the disk that a pack is retired, and need not be compared with its index; false if it is damaged.
    fn settle_retirement(&self, pack: i64, to_cut: i64) -> Result<bool> {
        // A row that changes nothing would not be written, and those of a prune that was killed may not be on the disk.
        let sql = "UPDATE pack SET to_cut = to_cut + 1 WHERE id = ?1 AND to_cut = ?2";
        let written = self.0.db.write_durably("retire a pack for good", |db| {
            Ok(db.prepare_cached(sql)?.execute((pack, to_cut))?)
        })?;
        Ok(written > 0)
    }

    /// What layers need of a pack: `known`, if that is of the same layers. `None` if one of these cannot be read.
    fn needed_of(&self, pack: i64, known: Option<Needed>) -> Result<Option<Needed>> {
        let layers = self.0.db.read("list the layers of a pack", |db| {
            let sql = "SELECT layer, number FROM layer_pack WHERE pack = ?1 ORDER BY layer, number";
            let mut statement = db.prepare_cached(sql)?;
            let rows = statement.query_map([pack], |row| Ok((LayerId(row.get(0)?), row.get(1)?)))?;
            Ok(rows.collect::<Result<Vec<(LayerId, u16)>, _>>()?)
        })?;
        if let Some(known) = known.filter(|known| known.layers == layers) {
            return Ok(Some(known));
        }
        let mut extents = Vec::new();
        for (layer, number) in &layers {
            let Ok(tree) = self.placed_tree(*layer) else { return Ok(None) };
            extents.extend(tree.extents_in(*number));
        }
        extents.sort_unstable();
        extents.dedup();
        Ok(Some(Needed { layers, extents }))
    }
}

/// Packs of which no layer by itself needs half, and those that are to be cut already.
fn candidates(db: &Connection) -> Result<Vec<Candidate>, Failure> {
    let sql = format!(
        "SELECT id, created, boot, blocks, last_used, disk_size_bytes, to_cut FROM pack JOIN layer_pack ON pack = id
        WHERE reusable OR to_cut IS NOT NULL GROUP BY id
        HAVING to_cut IS NOT NULL OR 2 * max(ifnull(needed_bytes, blocks * {block})) < blocks * {block}",
        block = erofs::BLOCK_BYTES,
    );
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map((), |row| {
        let blocks: i64 = row.get(3)?;
        Ok(Candidate {
            written: Written::of_row(row)?,
            end_bytes: blocks.cast_unsigned() * erofs::BLOCK_BYTES,
            last_used: row.get(4)?,
            disk_size_bytes: row.get::<_, i64>(5)?.cast_unsigned(),
            to_cut: row.get(6)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Makes holes, each given as begin and length.
fn cut(file: &File, path: &Path, gaps: &[(u64, u64)]) -> Result<(), PathError> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let punch = |(start, length): &(u64, u64)| retry_on_intr(|| fallocate(file, flags, *start, *length));
    gaps.iter().try_for_each(punch).at("cut unused contents out of", path)
}

fn is_mostly_unneeded(needed: &[(u64, u64)], end_bytes: u64) -> bool {
    2 * needed.iter().map(|(start, end)| end - start).sum::<u64>() < end_bytes
}

/// What lies between, as begin and length.
fn gaps(needed: &[(u64, u64)], end_bytes: u64) -> impl Iterator<Item = (u64, u64)> {
    let ends = std::iter::once(0).chain(needed.iter().map(|(_, end)| *end));
    let starts = needed.iter().map(|(start, _)| *start).chain([end_bytes]);
    ends.zip(starts).filter(|(end, start)| end < start).map(|(end, start)| (end, start - end))
}

#[cfg(test)]
mod tests;
