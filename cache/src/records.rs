//! What the cache remembers: keys of steps, and what they gave.
//!
//! A *result* is what one run of a step gave: its output snapshots. It is found under its definition keys, each with
//! the *trace* of what went into that key, and under its content key, once that is known. Several keys lead to one result when
//! a step turned out to have the same inputs as one that ran before.
//!
//! Looking up stamps what is found, so that the least recently used can be forgotten first, and nothing that somebody has
//! just found.

use std::collections::HashSet;
use std::fmt;

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use serde::{Deserialize, Serialize};

use crate::db::{Failure, pack, unpack};
use crate::snapshot::find_snapshot;
use crate::{BuildName, Error, Origin, Result, Snapshot, SnapshotId, Store};

/// The name that a result is found under: the hash of a step and of what it is given.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CacheKey(pub [u8; 32]);

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A result, as found under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The definition key that it was found under; for one found by content, the first of its definition keys.
    pub key: CacheKey,
    /// The digest of the step's operation, without its inputs.
    pub op_digest: [u8; 32],
    /// The key made of what the inputs hold, where it is known.
    pub content_key: Option<CacheKey>,
    /// What the step gave, by output.
    pub outputs: Vec<Snapshot>,
    /// The step as a person wrote it.
    pub description: String,
    /// When the step ran, Unix nanoseconds.
    pub created: i64,
    /// When the record was last found, Unix nanoseconds.
    pub last_used: i64,
    /// The build that ran the step, where that was remembered.
    pub origin: Option<Origin>,
}

/// A result to remember.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewRecord<'a> {
    /// The definition key. What it led to before is forgotten.
    pub key: CacheKey,
    /// The digest of the step's operation, without its inputs.
    pub op_digest: [u8; 32],
    /// The key made of what the inputs hold, if it is known by now.
    pub content_key: Option<CacheKey>,
    /// What the step gave, by output. Committed before this is recorded.
    pub outputs: &'a [Snapshot],
    /// The step as a person wrote it. No secrets.
    pub description: &'a str,
    /// What went into `key`. No secrets.
    pub trace: &'a [u8],
    /// The lists of files that went into `key`, by digest.
    pub file_lists: &'a [[u8; 32]],
    /// What is being built, so that the records of one project find each other.
    pub project: &'a str,
    /// Where the step ran.
    pub origin: Option<&'a Origin>,
    /// Whether the step brought something from elsewhere.
    pub is_source: bool,
}

/// A step, as others are compared with it.
#[derive(Debug, Clone, Copy)]
pub struct Likeness<'a> {
    /// The digest of its operation, where that says what it does.
    pub op_digest: Option<&'a [u8; 32]>,
    /// The step as a person wrote it.
    pub description: &'a str,
    /// What descriptions of steps at the same place begin with.
    pub place: Option<&'a str>,
    /// What is being built.
    pub project: &'a str,
}

/// What went into a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedTrace {
    /// The step as a person wrote it.
    pub description: String,
    /// What went into the key, in a form that the writer of the record can read.
    pub trace: Vec<u8>,
    /// The build that ran the step, where that was remembered.
    pub origin: Option<Origin>,
}

/// The records of a store.
#[derive(Debug, Clone, Copy)]
pub struct Records<'a>(pub(crate) &'a Store);

/// A row, and the id of the result that it leads to.
struct RecordRow {
    result: i64,
    record: Record,
}

const COLUMNS: &str = "result.id, record.key, op_digest, outputs, description, created, last_used,
    (SELECT key FROM content_record WHERE content_record.result = result.id LIMIT 1), build, step";

const TRACE_COLUMNS: &str = "SELECT description, trace, build, step";

impl Records<'_> {
    /// Looks up definition keys, all at once, and stamps what is found. One entry for each key, in order.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn lookup_many(&self, keys: &[CacheKey]) -> Result<Vec<Option<Record>>> {
        let sql =
            format!("SELECT {COLUMNS} FROM record JOIN result ON result = result.id WHERE record.key = ?1");
        self.lookup_by(&sql, keys)
    }

    /// Looks up one definition key, and stamps what is found.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn lookup(&self, key: CacheKey) -> Result<Option<Record>> {
        Ok(self.lookup_many(&[key])?.pop().flatten())
    }

    /// Looks up a content key, and stamps what is found.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn lookup_content(&self, key: CacheKey) -> Result<Option<Record>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM content_record JOIN result ON content_record.result = result.id
             JOIN record ON record.result = result.id WHERE content_record.key = ?1 LIMIT 1"
        );
        Ok(self.lookup_by(&sql, &[key])?.pop().flatten())
    }

    /// Whether any record is of this operation. If not, no content key of it can be found.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn has_op(&self, op_digest: &[u8; 32]) -> Result<bool> {
        self.0.0.db.read("look for an operation", |db| {
            let sql = "SELECT EXISTS (SELECT 1 FROM result WHERE op_digest = ?1)";
            Ok(db.prepare_cached(sql)?.query_row([op_digest], |row| row.get(0))?)
        })
    }

    /// What the last runs of an operation in a project gave, the newest first, as far as it is there. Stamps nothing.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn last_outputs(
        &self,
        op_digest: &[u8; 32],
        project: &str,
        count: u32,
    ) -> Result<Vec<Vec<Snapshot>>> {
        self.0.0.db.read("look for earlier runs of a step", |db| {
            let sql = "SELECT outputs FROM result WHERE op_digest = ?1 AND project = ?2
                ORDER BY id DESC LIMIT ?3";
            let mut statement = db.prepare_cached(sql)?;
            let rows = statement.query_map(params![op_digest, project, count], |row| row.get(0))?;
            let mut runs = Vec::new();
            for packed in rows.collect::<Result<Vec<Vec<u8>>, _>>()? {
                runs.extend(snapshots(db, &packed)?);
            }
            Ok(runs)
        })
    }

    /// The record that a step is best compared with, to say how it differs: the newest of the same operation in the project, then of
    /// the same place in the project, then of the same operation, then of the same words. Stamps nothing.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn nearest(&self, wanted: &Likeness<'_>) -> Result<Option<RecordedTrace>> {
        let Likeness { op_digest, description, place, project } = *wanted;
        self.0.0.db.read("look for a similar step", |db| {
            for (condition, values) in [
                ("op_digest = ?1 AND project = ?2", params![op_digest, project]),
                (
                    "project = ?1 AND description >= ?2 AND description < ?2 || char(1114111)",
                    params![project, place.filter(|_| !project.is_empty())],
                ),
                ("op_digest = ?1", params![op_digest]),
                ("description = ?1", params![description]),
            ] {
                let sql = format!(
                    "{TRACE_COLUMNS} FROM result JOIN record ON record.result = result.id
                     WHERE {condition} ORDER BY result.id DESC LIMIT 1"
                );
                let found = db.prepare_cached(&sql)?.query_row(values, read_trace).optional()?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            Ok(None)
        })
    }

    /// What went into a key, and where what it leads to was made. Stamps nothing.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn trace(&self, key: CacheKey) -> Result<Option<RecordedTrace>> {
        let sql =
            format!("{TRACE_COLUMNS} FROM record JOIN result ON result = result.id WHERE record.key = ?1");
        self.0.0.db.read("read what a key is made of", |db| {
            Ok(db.prepare_cached(&sql)?.query_row([key.0], read_trace).optional()?)
        })
    }

    /// Where the results of keys were made. One entry for each key, in order. Stamps nothing.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn origins(&self, keys: &[CacheKey]) -> Result<Vec<Option<Origin>>> {
        self.0.0.db.read("look up where results were made", |db| {
            let sql =
                "SELECT build, step FROM record JOIN result ON result = result.id WHERE record.key = ?1";
            let mut statement = db.prepare_cached(sql)?;
            let mut origin = |key: &CacheKey| {
                let found = statement.query_row([key.0], |row| read_origin(row, 0)).optional()?;
                Ok(found.flatten())
            };
            keys.iter().map(&mut origin).collect()
        })
    }

    /// The steps of a build whose results are remembered.
    pub(crate) fn steps_of(&self, build: &BuildName) -> Result<HashSet<u32>> {
        self.0.0.db.read("list the results of a build", |db| {
            let mut statement = db.prepare_cached("SELECT step FROM result WHERE build = ?1")?;
            Ok(statement.query_map([build.to_string()], |row| row.get(0))?.collect::<Result<_, _>>()?)
        })
    }

    /// Remembers a result.
    ///
    /// # Errors
    /// When it cannot be written, or one of the outputs has been pruned.
    pub fn insert(&self, new: &NewRecord<'_>) -> Result<()> {
        let stamp = self.0.stamp();
        let outputs = pack(new.outputs.iter().map(|output| output.id.map_or(0, |id| id.0)));
        self.0.0.db.write("record a result", |db| {
            check_outputs(db, new.outputs)?;
            forget_key(db, new.key)?;
            db.prepare_cached(
                "INSERT INTO result
                    (op_digest, outputs, description, is_source, created, last_used, project, build, step)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                new.op_digest,
                outputs,
                new.description,
                new.is_source,
                stamp,
                new.project,
                new.origin.map(|origin| origin.build.to_string()),
                new.origin.map(|origin| origin.step)
            ])?;
            let result = db.last_insert_rowid();
            let mut name_list = db.prepare_cached("INSERT OR IGNORE INTO result_files VALUES (?1, ?2)")?;
            for digest in new.file_lists {
                name_list.execute(params![result, digest])?;
            }
            link(db, new.key, result, new.trace)?;
            if let Some(key) = new.content_key {
                set_content_key(db, key, result)?;
            }
            Ok(())
        })
    }

    /// Says under which content key the result of `key` can be found, which was not known when it was recorded. With a `build` only if that has made it: another
    /// one may have run the step again meanwhile, on what its own inputs held.
    ///
    /// Returns false when there is no such record.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_content_key(
        &self,
        key: CacheKey,
        content_key: CacheKey,
        build: Option<&BuildName>,
    ) -> Result<bool> {
        self.0.0.db.write("record a content key", |db| {
            let Some(result) = result_of(db, key)? else { return Ok(false) };
            let sql = "SELECT build FROM result WHERE id = ?1";
            let made_by: Option<String> = db.prepare_cached(sql)?.query_row([result], |row| row.get(0))?;
            if build.is_some_and(|build| made_by != Some(build.to_string())) {
                return Ok(false);
            }
            set_content_key(db, content_key, result)?;
            Ok(true)
        })
    }

    /// Lets `key` lead to the result that `existing` leads to: the inputs differ by definition, not by content.
    ///
    /// Returns false when there is no such record.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn link(&self, key: CacheKey, existing: CacheKey, trace: &[u8]) -> Result<bool> {
        self.0.0.db.write("link a key to a result", |db| {
            let Some(result) = result_of(db, existing)? else { return Ok(false) };
            if key != existing {
                forget_key(db, key)?;
                link(db, key, result, trace)?;
            }
            Ok(true)
        })
    }

    /// Forgets a definition key; its result too, when no other key leads there. Returns whether it was known.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn remove(&self, key: CacheKey) -> Result<bool> {
        self.0.0.db.write("forget a result", |db| forget_key(db, key))
    }

    /// Every record, newest first. Stamps nothing.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn list(&self) -> Result<Vec<Record>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM record JOIN result ON result = result.id ORDER BY result.id DESC, record.key"
        );
        self.0.0.db.read("list the records", |db| {
            let mut statement = db.prepare_cached(&sql)?;
            let rows = statement.query_map((), read_row)?.collect::<Result<Vec<_>, _>>()?;
            let complete = |row| Ok(complete(db, row)?.map(|row| row.record));
            rows.into_iter().filter_map(|row| complete(row).transpose()).collect()
        })
    }

    fn lookup_by(&self, sql: &str, keys: &[CacheKey]) -> Result<Vec<Option<Record>>> {
        let rows = self.0.0.db.read("look up records", |db| {
            let mut statement = db.prepare_cached(sql)?;
            let mut find = |key: &CacheKey| match statement.query_row([key.0], read_row).optional()? {
                Some(row) => complete(db, row),
                None => Ok(None),
            };
            keys.iter().map(&mut find).collect::<Result<Vec<_>, Failure>>()
        })?;
        let there = self.stamp(&rows)?;
        let still = |row: RecordRow| there.contains(&row.result).then_some(row.record);
        Ok(rows.into_iter().map(|row| row.and_then(still)).collect())
    }

    /// Stamps the results that were found, and returns those that are still there.
    ///
    /// What carries the stamp already is in use by this handle's lease or was found this very second: no write is needed.
    fn stamp(&self, rows: &[Option<RecordRow>]) -> Result<HashSet<i64>> {
        let stamp = self.0.stamp();
        let found = || rows.iter().flatten();
        if found().all(|row| self.0.is_fresh(row.record.last_used, stamp)) {
            return Ok(found().map(|row| row.result).collect());
        }
        self.0.0.db.write("stamp records", |db| {
            let mut statement =
                db.prepare_cached("UPDATE result SET last_used = max(last_used + 1, ?2) WHERE id = ?1")?;
            let mut there = HashSet::new();
            for row in found() {
                if statement.execute((row.result, stamp))? == 1 {
                    there.insert(row.result);
                }
            }
            Ok(there)
        })
    }
}

/// A row as it is stored: its snapshots are ids.
fn read_row(row: &Row<'_>) -> rusqlite::Result<(RecordRow, Vec<u8>)> {
    let record = Record {
        key: CacheKey(row.get(1)?),
        op_digest: row.get(2)?,
        outputs: Vec::new(),
        description: row.get(4)?,
        created: row.get(5)?,
        last_used: row.get(6)?,
        content_key: row.get::<_, Option<[u8; 32]>>(7)?.map(CacheKey),
        origin: read_origin(row, 8)?,
    };
    Ok((RecordRow { result: row.get(0)?, record }, row.get(3)?))
}

/// Looks up the snapshots of a row. A record that names one which is gone is of no use: a miss, not an error.
fn complete(db: &Connection, (mut row, outputs): (RecordRow, Vec<u8>)) -> Result<Option<RecordRow>, Failure> {
    let Some(outputs) = snapshots(db, &outputs)? else { return Ok(None) };
    row.record.outputs = outputs;
    Ok(Some(row))
}

/// The snapshots with these ids; `None` if one is gone.
fn snapshots(db: &Connection, packed: &[u8]) -> Result<Option<Vec<Snapshot>>, Failure> {
    let find = |id| if id == 0 { Ok(Some(Snapshot::empty())) } else { find_snapshot(db, SnapshotId(id)) };
    unpack("result", packed)?.into_iter().map(find).collect()
}

fn read_trace(row: &Row<'_>) -> rusqlite::Result<RecordedTrace> {
    Ok(RecordedTrace { description: row.get(0)?, trace: row.get(1)?, origin: read_origin(row, 2)? })
}

fn read_origin(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Origin>> {
    let (build, step): (Option<String>, Option<u32>) = (row.get(column)?, row.get(column + 1)?);
    let build = build.and_then(|build| build.parse().ok());
    Ok(build.zip(step).map(|(build, step)| Origin { build, step }))
}

fn check_outputs(db: &Connection, outputs: &[Snapshot]) -> Result<(), Failure> {
    let mut exists = db.prepare_cached("SELECT EXISTS (SELECT 1 FROM snapshot WHERE id = ?1)")?;
    for id in outputs.iter().filter_map(|output| output.id) {
        if !exists.query_row([id.0], |row| row.get(0))? {
            return Err(Error::SnapshotMissing(id).into());
        }
    }
    Ok(())
}

fn result_of(db: &Connection, key: CacheKey) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached("SELECT result FROM record WHERE key = ?1")?
        .query_row([key.0], |row| row.get(0))
        .optional()
}

fn link(db: &Transaction<'_>, key: CacheKey, result: i64, trace: &[u8]) -> rusqlite::Result<()> {
    let sql = "INSERT INTO record (key, result, trace) VALUES (?1, ?2, ?3)";
    db.prepare_cached(sql)?.execute(params![key.0, result, trace]).map(drop)
}

fn set_content_key(db: &Transaction<'_>, key: CacheKey, result: i64) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO content_record (key, result) VALUES (?1, ?2)";
    db.prepare_cached(sql)?.execute(params![key.0, result]).map(drop)
}

fn forget_key(db: &Transaction<'_>, key: CacheKey) -> Result<bool, Failure> {
    let Some(result) = result_of(db, key)? else { return Ok(false) };
    db.prepare_cached("DELETE FROM record WHERE key = ?1")?.execute([key.0])?;
    let sql = "DELETE FROM result WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM record WHERE result = ?1)";
    db.prepare_cached(sql)?.execute([result])?;
    Ok(true)
}

#[cfg(test)]
mod tests;
