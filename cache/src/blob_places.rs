//! Which repositories of which registries have a blob: those it came from, went to, or was found in. A registry that has it in
//! one repository need not be sent it for another.
//!
//! In a database of its own, as it can be lost at any time, and need not be true: a registry is asked before it is believed.

use std::path::PathBuf;

use rbuild_image::Digest;

use crate::Result;
use crate::db::Database;

/// Places remembered. The oldest are forgotten beyond this.
const PLACES_MAX: i64 = 100_000;

const SCHEMA: &str = "
CREATE TABLE place (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    digest BLOB NOT NULL,
    registry TEXT NOT NULL,
    repository TEXT NOT NULL,
    UNIQUE (digest, registry, repository)
) STRICT;
";

/// The remembered places.
#[derive(Debug)]
pub struct BlobPlaces(Database);

impl BlobPlaces {
    pub(crate) fn open(path: PathBuf) -> Result<Self> {
        Database::open_expendable(path, SCHEMA).map(Self)
    }

    /// The repositories of a registry that had a blob, the last one first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn get(&self, digest: Digest, registry: &str) -> Result<Vec<String>> {
        self.0.read("look up where a blob is", |db| {
            let sql = "SELECT repository FROM place WHERE digest = ?1 AND registry = ?2 ORDER BY id DESC";
            let mut statement = db.prepare_cached(sql)?;
            let rows = statement.query_map((digest.as_bytes(), registry), |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Remembers that a repository has these blobs.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn put(&self, digests: &[Digest], registry: &str, repository: &str) -> Result<()> {
        self.0.write("remember where a blob is", |db| {
            let sql = "INSERT OR REPLACE INTO place (digest, registry, repository) VALUES (?1, ?2, ?3)";
            let mut insert = db.prepare_cached(sql)?;
            for digest in digests {
                insert.execute((digest.as_bytes(), registry, repository))?;
            }
            let sql = "DELETE FROM place WHERE id <= (SELECT max(id) FROM place) - ?1";
            db.prepare_cached(sql)?.execute([PLACES_MAX])?;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_of_one_blob_and_one_registry() {
        let directory = tempfile::tempdir().unwrap();
        let places = BlobPlaces::open(directory.path().join("places.db")).unwrap();
        let [a, b] = [Digest::of(b"a"), Digest::of(b"b")];
        places.put(&[a, b], "r.example", "base").unwrap();
        places.put(&[a], "r.example", "app").unwrap();
        places.put(&[a], "s.example", "other").unwrap();
        assert_eq!(places.get(a, "r.example").unwrap(), ["app", "base"]);
        assert_eq!(places.get(b, "r.example").unwrap(), ["base"]);
        places.put(&[a], "r.example", "base").unwrap();
        assert_eq!(places.get(a, "r.example").unwrap(), ["base", "app"]);
        assert!(places.get(b, "s.example").unwrap().is_empty());
    }
}
