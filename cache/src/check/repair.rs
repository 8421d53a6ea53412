//! Forgets what is damaged, so that it is made or fetched again.

use std::collections::HashSet;

use rayon::ThreadPool;
use rusqlite::Transaction;

use super::{CheckReport, Problem, column};
use crate::db::{Failure, unpack};
use crate::{LayerId, Result, Store};

/// How often what is left is looked at again: an image can miss a layer that was forgotten the time before.
const ROUNDS_MAX: usize = 4;

impl Store {
    /// Forgets what is damaged, with all that needs it: blobs, layers, snapshots, results, images. Returns what was wrong, and
    /// the report of the last check, whose problems could not be helped: the metadata itself, and what containers need.
    ///
    /// # Errors
    /// As [`check`](Self::check), and when the store cannot be written.
    pub fn repair(&self, pool: &ThreadPool) -> Result<(Vec<Problem>, CheckReport)> {
        let mut found = Vec::new();
        let mut report = self.check(pool)?;
        for _ in 0..ROUNDS_MAX {
            let new: Vec<Problem> =
                report.problems.iter().filter(|problem| !found.contains(*problem)).cloned().collect();
            if new.is_empty() {
                break;
            }
            new.iter().try_for_each(|problem| self.forget_problem(problem))?;
            found.extend(new);
            report = self.check(pool)?;
        }
        Ok((found, report))
    }

    fn forget_problem(&self, problem: &Problem) -> Result<()> {
        match problem {
            Problem::Metadata(_) | Problem::Mount(_) => Ok(()),
            Problem::Blob { digest, .. } => self.discard(&self.0.layout.blob(*digest)),
            Problem::ForeignFile(path) => self.discard(path),
            Problem::LayerMissing(layer) | Problem::LayerChanged(layer) => self.forget_layer(*layer),
            Problem::Snapshot { layer, .. } => self.forget_layer(LayerId(*layer)),
            Problem::Record { result, .. } => {
                self.0.db.write("forget a result", |db| delete(db, "result", *result))
            }
            Problem::Image { target, .. } => self.images().remove_target(*target).map(drop),
        }
    }

    /// Forgets a layer, those that are told from it, the snapshots that have one and the results that gave these. What a container
    /// needs stays, for that container alone.
    pub(crate) fn forget_layer(&self, layer: LayerId) -> Result<()> {
        self.0.db.write("forget a layer", |db| {
            let deltas = column::<i64>(db, &format!("SELECT id FROM layer WHERE base = {layer}"))?;
            deltas.into_iter().chain([layer.0]).try_for_each(|layer| forget_one_layer(db, layer))?;
            // Their directories go with their rows.
            self.sweep_files(db)
        })
    }
}

fn forget_one_layer(db: &Transaction<'_>, layer: i64) -> Result<(), Failure> {
    let (gone, kept) = snapshots_with(db, layer)?;
    for result in column::<i64>(db, "SELECT id FROM result")? {
        if outputs(db, result)?.iter().any(|output| gone.contains(output) || kept.contains(output)) {
            delete(db, "result", result)?;
        }
    }
    for snapshot in gone.iter().chain(&kept) {
        db.prepare_cached("DELETE FROM image_snapshot WHERE snapshot = ?1")?.execute([snapshot])?;
    }
    gone.into_iter().try_for_each(|snapshot| delete(db, "snapshot", snapshot))?;
    // What is wrong may be in its packs: nothing is taken from these, and nothing cut out of them.
    let sql = "UPDATE pack SET reusable = 0, to_cut = NULL
        WHERE id IN (SELECT pack FROM layer_pack WHERE layer = ?1)";
    db.prepare_cached(sql)?.execute([layer])?;
    let sql = "SELECT EXISTS (SELECT 1 FROM layer WHERE base = ?1)";
    let is_base: bool = db.prepare_cached(sql)?.query_row([layer], |row| row.get(0))?;
    if kept.is_empty() && !is_base {
        delete(db, "layer", layer)?;
    } else {
        // Nobody else finds it by what it stood for.
        db.prepare_cached("DELETE FROM layer_archive WHERE layer = ?1")?.execute([layer])?;
    }
    Ok(())
}

/// The snapshots that have a layer: those that can be forgotten, and those that containers need.
fn snapshots_with(db: &Transaction<'_>, layer: i64) -> Result<(HashSet<i64>, HashSet<i64>), Failure> {
    let containers = "SELECT snapshot FROM container WHERE snapshot IS NOT NULL";
    let needed: HashSet<i64> = column(db, containers)?.into_iter().collect();
    let mut having = HashSet::new();
    for snapshot in column::<i64>(db, "SELECT id FROM snapshot")? {
        let sql = "SELECT layers FROM snapshot WHERE id = ?1";
        let packed: Vec<u8> = db.prepare_cached(sql)?.query_row([snapshot], |row| row.get(0))?;
        if unpack("snapshot", &packed)?.contains(&layer) {
            having.insert(snapshot);
        }
    }
    Ok(having.into_iter().partition(|snapshot| !needed.contains(snapshot)))
}

fn outputs(db: &Transaction<'_>, result: i64) -> Result<Vec<i64>, Failure> {
    let sql = "SELECT outputs FROM result WHERE id = ?1";
    let packed: Vec<u8> = db.prepare_cached(sql)?.query_row([result], |row| row.get(0))?;
    Ok(unpack("result", &packed)?)
}

/// Deletes the row of a table that has this id.
fn delete(db: &Transaction<'_>, table: &str, id: i64) -> Result<(), Failure> {
    db.execute(&format!("DELETE FROM {table} WHERE id = ?1"), [id])?;
    Ok(())
}
