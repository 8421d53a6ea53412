//! What files of build contexts held when they were last read, by directory.
//!
//! In a database of its own: it is written in bulk, it can be lost at any time, and must not make the metadata wait. What a row
//! holds is the business of [`content_digest`](crate::content_digest).

use std::path::PathBuf;

use rusqlite::OptionalExtension as _;

use crate::Result;
use crate::db::Database;

/// Directories remembered: about a million files' worth. With more, those that changed longest ago are forgotten.
const DIRECTORIES_MAX: i64 = 100_000;

const SCHEMA: &str = "
CREATE TABLE directory (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    device INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    entries BLOB NOT NULL,
    UNIQUE (device, inode)
) STRICT;
";

/// The remembered directories of build contexts.
#[derive(Debug)]
pub struct StatCacheTable(Database);

/// One directory's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatCacheRow {
    /// The device that the directory is on.
    pub device: u64,
    /// The directory's inode number.
    pub inode: u64,
    /// What is remembered of it.
    pub entries: Vec<u8>,
}

impl StatCacheTable {
    pub(crate) fn open(path: PathBuf) -> Result<Self> {
        Database::open_expendable(path, SCHEMA).map(Self)
    }

    /// What is remembered of directories, given by device and inode, in their order.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn get(&self, directories: impl IntoIterator<Item = (u64, u64)>) -> Result<Vec<Option<Vec<u8>>>> {
        self.0.read("look up directories", |db| {
            let sql = "SELECT entries FROM directory WHERE device = ?1 AND inode = ?2";
            let mut lookup = db.prepare_cached(sql)?;
            let rows = directories.into_iter().map(|(device, inode)| {
                let key = (device.cast_signed(), inode.cast_signed());
                Ok(lookup.query_row(key, |row| row.get(0)).optional()?)
            });
            rows.collect()
        })
    }

    /// Remembers directories, all in one transaction. To be called once, after a walk.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn put(&self, rows: &[StatCacheRow]) -> Result<()> {
        self.put_up_to(DIRECTORIES_MAX, rows)
    }

    fn put_up_to(&self, directories_max: i64, rows: &[StatCacheRow]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        self.0.write("remember directories", |db| {
            let mut insert = db.prepare_cached(
                "INSERT OR REPLACE INTO directory (device, inode, entries) VALUES (?1, ?2, ?3)",
            )?;
            for row in rows {
                insert.execute((row.device.cast_signed(), row.inode.cast_signed(), &row.entries))?;
            }
            // A row that is written again has another id, so that ids say less than a count, which takes longer.
            let sql = "SELECT (SELECT max(id) FROM directory) - (SELECT min(id) FROM directory) >= ?1
                AND (SELECT count(*) FROM directory) > ?1";
            if db.prepare_cached(sql)?.query_row([directories_max], |row| row.get(0))? {
                let sql = "DELETE FROM directory WHERE id IN
                    (SELECT id FROM directory ORDER BY id DESC LIMIT -1 OFFSET ?1)";
                db.prepare_cached(sql)?.execute([directories_max])?;
            }
            Ok(())
        })
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn clear(&self) -> Result<()> {
        self.0.write("forget directories", |db| Ok(db.execute("DELETE FROM directory", ()).map(drop)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_longest_ago_is_forgotten_when_there_is_too_much() {
        let directory = tempfile::tempdir().unwrap();
        let table = StatCacheTable::open(directory.path().join("cache")).unwrap();
        let put = |inode| {
            let row = StatCacheRow { device: 1, inode, entries: vec![7] };
            table.put_up_to(3, &[row]).unwrap();
        };
        let known = || table.get((0..6).map(|inode| (1, inode))).unwrap();
        let has = |known: &[Option<Vec<u8>>]| known.iter().map(Option::is_some).collect::<Vec<_>>();
        put(0);
        // However often others change, what does not is remembered as long as there is room.
        (0..10).for_each(|number| put(1 + number % 2));
        assert_eq!(has(&known()), [true, true, true, false, false, false]);
        put(5);
        assert_eq!(has(&known()), [false, true, true, false, false, true]);
    }
}
