//! The metadata: whether SQLite can read it, and whether every row has what it names.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::{CheckReport, Problem, column};
use crate::db::{Database, Failure, unpack};
use crate::layout::{Layout, lock_directory};
use crate::lease::read_leases;
use crate::root_dir::At;
use crate::store::unique_name;
use crate::{Error, Result, Store};

impl Store {
    /// What SQLite finds wrong.
    pub(super) fn check_integrity(&self) -> Result<Vec<Problem>> {
        integrity_problems(&self.0.db)
    }

    /// Rows that name rows which are not there.
    pub(super) fn check_rows(&self, report: &mut CheckReport) -> Result<()> {
        self.0.db.read("check the metadata", |db| {
            let layers: HashSet<i64> = column(db, "SELECT id FROM layer")?.into_iter().collect();
            let mut snapshots = HashSet::new();
            for (snapshot, packed) in pairs(db, "SELECT id, layers FROM snapshot")? {
                snapshots.insert(snapshot);
                let missing = unpack("snapshot", &packed)?.into_iter().find(|layer| !layers.contains(layer));
                match missing {
                    None => report.snapshots += 1,
                    Some(layer) => report.problems.push(Problem::Snapshot { snapshot, layer }),
                }
            }
            for (result, packed) in pairs(db, "SELECT id, outputs FROM result")? {
                let is_missing = |output: &i64| *output != 0 && !snapshots.contains(output);
                match unpack("result", &packed)?.into_iter().find(is_missing) {
                    None => report.results += 1,
                    Some(snapshot) => {
                        let description = description(db, result)?;
                        report.problems.push(Problem::Record { result, description, snapshot });
                    }
                }
            }
            Ok(())
        })
    }
}

/// Puts metadata that cannot be read out of the way, under the name that is returned, and begins anew: images, containers and
/// cache records are forgotten. `None` when it is sound.
///
/// # Errors
/// When there is no store, somebody uses it, or it cannot be written.
pub fn set_damaged_metadata_aside(root: &Path) -> Result<Option<PathBuf>> {
    let layout = Layout::new(std::path::absolute(root).at("resolve", root)?);
    let _alone = lock_directory(layout.root())?;
    let problems = match Database::open(layout.database()) {
        Ok(db) => integrity_problems(&db)?,
        Err(error) if error.is_damaged_metadata() => vec![Problem::Metadata(text(&error))],
        Err(error) => return Err(error),
    };
    if problems.is_empty() {
        return Ok(None);
    }
    if read_leases(&layout)?.oldest.is_some() {
        return Err(Error::InUse { root: layout.root().to_owned() });
    }
    let aside = layout.root().join(format!("metadata-damaged-{}", unique_name()));
    fs::create_dir(&aside).at("create", &aside)?;
    for name in ["metadata.db-wal", "metadata.db-shm", "metadata.db"] {
        let from = layout.root().join(name);
        if from.exists() {
            fs::rename(&from, aside.join(name)).at("move", &from)?;
        }
    }
    Database::create(layout.database())?;
    Ok(Some(aside))
}

fn integrity_problems(db: &Database) -> Result<Vec<Problem>> {
    let found = db.fold().and_then(|()| {
        db.read("check the metadata", |db| {
            let mut lines: Vec<String> = column(db, "PRAGMA integrity_check(20)")?;
            lines.retain(|line| line != "ok");
            let tables: Vec<String> = column(db, "PRAGMA foreign_key_check")?;
            lines.extend(
                tables.into_iter().map(|table| format!("a row of {table} names one that is not there")),
            );
            Ok(lines)
        })
    });
    match found {
        Err(error) if error.is_damaged_metadata() => Ok(vec![Problem::Metadata(text(&error))]),
        found => Ok(found?.into_iter().map(Problem::Metadata).collect()),
    }
}

fn description(db: &Connection, result: i64) -> rusqlite::Result<String> {
    db.query_row("SELECT description FROM result WHERE id = ?1", [result], |row| row.get(0))
}

fn pairs(db: &Connection, sql: &str) -> Result<Vec<(i64, Vec<u8>)>, Failure> {
    let mut statement = db.prepare_cached(sql)?;
    Ok(statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?)
}

/// What SQLite said.
fn text(error: &Error) -> String {
    use std::error::Error as _;
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}
