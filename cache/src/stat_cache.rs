//! What files of build contexts held when they were last read, by directory.
//!
//! In a database of its own: it is written in bulk, it can be lost at any time, and must not make the metadata wait. What a row
//! holds is the business of [`content_digest`](crate::content_digest).

use std::path::PathBuf;

use rusqlite::OptionalExtension as _;

use crate::Result;
use crate::db::Database;

/// Directories remembered: about a million files' worth. The oldest are forgotten beyond this.
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
            let sql = "DELETE FROM directory WHERE id <= (SELECT max(id) FROM directory) - ?1";
            db.prepare_cached(sql)?.execute([DIRECTORIES_MAX])?;
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
