//! Packs lose what no layer needs any longer.
//!
//! A pack stays as long as one layer points into it. When all of them together need less than half of what it holds, the rest is cut out of the file: a
//! hole takes no room, and what is left stays where images say that it is. Nothing new points into a pack with holes, so that it goes with the
//! layers that there are; what a later build needs of it is written again, less than half of it.

use std::fs::File;

use rusqlite::Connection;
use rustix::fs::{FallocateFlags, fallocate};

use super::file_disk_size_bytes;
use crate::db::Failure;
use crate::root_dir::At as _;
use crate::snapshot::Written;
use crate::tree::erofs;
use crate::{LayerId, Result, Store};

/// A pack as its row has it.
struct Candidate {
    written: Written,
    /// Where its contents end.
    end_bytes: u64,
    last_used: i64,
}

impl Store {
    /// Cuts out of packs what no layer needs. Returns how much room that makes.
    pub(super) fn trim_packs(&self) -> Result<u64> {
        let candidates = self.0.db.read("list packs to trim", candidates)?;
        candidates.iter().map(|candidate| self.trim(candidate)).sum()
    }

    fn trim(&self, candidate: &Candidate) -> Result<u64> {
        let path = self.0.layout.pack(candidate.written.pack);
        let Ok(file) = File::options().read(true).write(true).open(&path) else { return Ok(0) };
        if self.unneeded_of(candidate)?.is_none()
            // With holes it is not what its index says. So nobody may have to compare the two.
            || !self.settle_pack(&candidate.written, &file)?
            || !self.retire(candidate)?
        {
            return Ok(0);
        }
        // Nobody takes from it any longer. Who has before has a lease still, or a layer by now.
        let Some(unneeded) = self.unneeded_of(candidate)? else { return Ok(0) };
        let before = file_disk_size_bytes(&file, &path)?;
        for (start, length) in unneeded {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match fallocate(&file, flags, start, length) {
                // A file system without holes.
                Err(rustix::io::Errno::OPNOTSUPP) => return Ok(0),
                cut => cut.at("cut unused contents out of", &path)?,
            }
        }
        let after = file_disk_size_bytes(&file, &path)?;
        self.0.db.write("record the size of a pack", |db| {
            let sql = "UPDATE pack SET disk_size_bytes = ?2 WHERE id = ?1";
            let row = (candidate.written.pack, after.cast_signed());
            Ok(db.prepare_cached(sql)?.execute(row).map(drop)?)
        })?;
        Ok(before.saturating_sub(after))
    }

    /// What of a pack nobody needs, as begin and length, if that is worth it and nobody is using it.
    fn unneeded_of(&self, candidate: &Candidate) -> Result<Option<Vec<(u64, u64)>>> {
        if self.in_use_since()?.is_some_and(|since| candidate.last_used >= since.stamp) {
            return Ok(None);
        }
        let needed = self.needed_of(candidate.written.pack)?;
        let needed = needed.filter(|needed| is_mostly_unneeded(needed, candidate.end_bytes));
        Ok(needed.map(|needed| gaps(&needed, candidate.end_bytes).collect()))
    }

    /// Lets nobody take anything from a pack any longer; false if somebody has meanwhile.
    fn retire(&self, candidate: &Candidate) -> Result<bool> {
        let sql = "UPDATE pack SET reusable = 0 WHERE id = ?1 AND last_used = ?2 AND reusable";
        let row = (candidate.written.pack, candidate.last_used);
        let retired = self.0.db.write("retire a pack", |db| Ok(db.prepare_cached(sql)?.execute(row)?))?;
        Ok(retired > 0)
    }

    /// Where contents begin and end that layers need, in their order; `None` if one of these cannot be read.
    fn needed_of(&self, pack: i64) -> Result<Option<Vec<(u64, u64)>>> {
        let layers = self.0.db.read("list the layers of a pack", |db| {
            let sql = "SELECT layer, number FROM layer_pack WHERE pack = ?1";
            let mut statement = db.prepare_cached(sql)?;
            let rows = statement.query_map([pack], |row| Ok((LayerId(row.get(0)?), row.get(1)?)))?;
            Ok(rows.collect::<Result<Vec<(LayerId, u16)>, _>>()?)
        })?;
        let mut needed = Vec::new();
        for (layer, number) in layers {
            let Ok(tree) = self.placed_tree(layer) else { return Ok(None) };
            needed.extend(tree.extents_in(number));
        }
        needed.sort_unstable();
        needed.dedup();
        Ok(Some(needed))
    }
}

/// Packs of which no layer by itself needs half.
fn candidates(db: &Connection) -> Result<Vec<Candidate>, Failure> {
    let sql = format!(
        "SELECT id, created, boot, blocks, last_used FROM pack JOIN layer_pack ON pack = id WHERE reusable
        GROUP BY id HAVING 2 * max(ifnull(needed_bytes, blocks * {block})) < blocks * {block}",
        block = erofs::BLOCK_BYTES,
    );
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map((), |row| {
        let blocks: i64 = row.get(3)?;
        let end_bytes = blocks.cast_unsigned() * erofs::BLOCK_BYTES;
        Ok(Candidate { written: Written::of_row(row)?, end_bytes, last_used: row.get(4)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
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
mod tests {
    use super::*;

    #[test]
    fn what_lies_between_is_not_needed() {
        let all = |needed: &[(u64, u64)], end| gaps(needed, end).collect::<Vec<_>>();
        assert_eq!(all(&[], 10), [(0, 10)]);
        assert_eq!(all(&[(0, 10)], 10), []);
        assert_eq!(all(&[(0, 2), (2, 3), (5, 7)], 10), [(3, 2), (7, 3)]);
        assert_eq!(all(&[(4, 10)], 10), [(0, 4)]);
    }

    #[test]
    fn half_of_a_pack_is_worth_keeping_it_whole() {
        assert!(is_mostly_unneeded(&[], 10));
        assert!(is_mostly_unneeded(&[(0, 2), (5, 7)], 10));
        assert!(!is_mostly_unneeded(&[(0, 2), (5, 8)], 10));
    }
}
