//! What web servers were last found to have: the validators under which a file came, and the digest of its content.
//!
//! In a database of its own, as it can be lost at any time: files are then fetched again.

use std::collections::HashSet;
use std::path::PathBuf;

use rbuild_image::Digest;
use rusqlite::OptionalExtension as _;

use crate::db::Database;
use crate::{CacheKey, Result};

/// Files remembered. The oldest are forgotten beyond this.
const DOWNLOADS_MAX: i64 = 100_000;

const SCHEMA: &str = "
CREATE TABLE download (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key BLOB NOT NULL UNIQUE,
    digest BLOB NOT NULL,
    etag TEXT,
    last_modified TEXT,
    last_modified_seconds INTEGER
) STRICT;
";

/// The remembered files.
#[derive(Debug)]
pub struct Downloads(Database);

/// A file as it was fetched last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// The digest of its content, which the content store may have or not.
    pub digest: Digest,
    /// Its `ETag`.
    pub etag: Option<String>,
    /// Its `Last-Modified`, as it was received.
    pub last_modified: Option<String>,
    /// The same in Unix seconds, if it is a date.
    pub last_modified_seconds: Option<i64>,
}

impl Downloads {
    pub(crate) fn open(path: PathBuf) -> Result<Self> {
        Database::open_expendable(path, SCHEMA).map(Self)
    }

    /// What was fetched last under a key, which stands for the address and all else that the request is made of.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn get(&self, key: CacheKey) -> Result<Option<Download>> {
        self.0.read("look up a download", |db| {
            let sql =
                "SELECT digest, etag, last_modified, last_modified_seconds FROM download WHERE key = ?1";
            let row = db.prepare_cached(sql)?.query_row([key.0], |row| {
                Ok(Download {
                    digest: Digest::from_bytes(row.get(0)?),
                    etag: row.get(1)?,
                    last_modified: row.get(2)?,
                    last_modified_seconds: row.get(3)?,
                })
            });
            Ok(row.optional()?)
        })
    }

    /// The contents of all remembered files.
    pub(crate) fn digests(&self) -> Result<HashSet<Digest>> {
        self.0.read("list the downloads", |db| {
            let mut statement = db.prepare_cached("SELECT digest FROM download")?;
            let digests = statement.query_map((), |row| row.get(0).map(Digest::from_bytes))?;
            Ok(digests.collect::<Result<_, _>>()?)
        })
    }

    /// Remembers a file, in the place of the one before.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn put(&self, key: CacheKey, download: &Download) -> Result<()> {
        let Download { digest, etag, last_modified, last_modified_seconds } = download;
        self.0.write("remember a download", |db| {
            let sql =
                "INSERT OR REPLACE INTO download (key, digest, etag, last_modified, last_modified_seconds)
                VALUES (?1, ?2, ?3, ?4, ?5)";
            let row = (key.0, digest.as_bytes(), etag, last_modified, last_modified_seconds);
            db.prepare_cached(sql)?.execute(row)?;
            let sql = "DELETE FROM download WHERE id <= (SELECT max(id) FROM download) - ?1";
            db.prepare_cached(sql)?.execute([DOWNLOADS_MAX])?;
            Ok(())
        })
    }
}
