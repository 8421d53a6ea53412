//! A plan is carried out, in transactions that are short enough for builds to come in between.
//!
//! The plan was made of what was there a moment ago, so each row is looked at again: what was used since has another stamp and stays,
//! and so does what it needs. What was added since has a higher id than anything that the plan knew. Users go before what they use, so that
//! a process that dies in between leaves what nothing names, and no name without a thing.

use std::collections::HashSet;
use std::fs::File;

use rusqlite::{OptionalExtension as _, Transaction};

use super::plan::{Doomed, Plan};
use super::state::Known;
use crate::db::{Failure, unpack};
use crate::lock::{Flock, try_flock};
use crate::root_dir::At as _;
use crate::{LayerId, Result, Store};

/// How many rows go in one transaction: some milliseconds' worth.
const BATCH: usize = 256;

/// What has to stay after all.
#[derive(Debug, Default)]
struct Stays {
    results: HashSet<i64>,
    /// Snapshots that results name which stay.
    named: HashSet<i64>,
    /// Layers of snapshots which stay.
    layers: HashSet<i64>,
}

impl Store {
    /// Carries out a plan. What was used meanwhile stays, and is taken from it.
    pub(super) fn forget(&self, plan: &mut Plan) -> Result<()> {
        let known = plan.known;
        let mut stays = Stays::default();
        for batch in plan.results.chunks(BATCH) {
            self.0.db.write("forget results", |db| stays.forget_results(db, batch))?;
        }
        for batch in plan.snapshots.chunks(BATCH) {
            self.0.db.write("forget snapshots", |db| stays.forget_snapshots(db, batch, known))?;
        }
        for batch in plan.layers.chunks(BATCH) {
            let gone =
                self.0.db.write("forget layers", |db| stays.forget_layers(db, batch, known.snapshot))?;
            // An id is not given out again, so nobody will want the name.
            gone.iter().try_for_each(|layer| self.discard(&self.0.layout.layer(LayerId(*layer))))?;
        }
        self.forget_packs(&plan.packs)?;
        for blob in &plan.blobs {
            self.discard_unused_blob(blob)?;
        }
        for mutable in &plan.mutables {
            // One that was taken meanwhile stays.
            self.remove_unused_mutable(mutable)?;
        }
        plan.spare(&stays.results);
        Ok(())
    }

    /// Forgets packs that no layer points into any longer, unless somebody has used them since they were looked at.
    fn forget_packs(&self, packs: &[Doomed]) -> Result<()> {
        let sql = "DELETE FROM pack WHERE id = ?1 AND last_used = ?2
            AND NOT EXISTS (SELECT 1 FROM layer_pack WHERE pack = ?1)";
        for pack in packs {
            let gone = self.0.db.write("forget a pack", |db| {
                Ok(db.prepare_cached(sql)?.execute((pack.id, pack.stamp))? > 0)
            })?;
            if gone {
                self.discard(&self.0.layout.pack(pack.id))?;
            }
        }
        Ok(())
    }

    /// Discards a blob, unless somebody has used it since it was looked at.
    pub(super) fn discard_unused_blob(&self, blob: &super::Blob) -> Result<()> {
        let path = self.0.layout.blob(blob.digest);
        let file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            opened => opened.at("open", &path)?,
        };
        // Whoever finds it from here on finds it gone; whoever has found it has stamped it.
        if try_flock(&file, &path)? != Flock::Taken {
            return Ok(());
        }
        let used = file.metadata().and_then(|metadata| metadata.modified());
        if used.at("read the attributes of", &path)? == blob.used { self.discard(&path) } else { Ok(()) }
    }

    /// Moves what should have a row and has none out of the way.
    pub(super) fn sweep_strays(&self) -> Result<()> {
        if self.0.db.read("look for files without rows", |db| self.strays(db))?.is_empty() {
            return Ok(());
        }
        // As a rule there are none, and what looks like one is being committed right now: looked at again in a transaction.
        self.0.db.write("sweep files without rows", |db| self.sweep_files(db))
    }
}

impl Stays {
    fn forget_results(&mut self, db: &Transaction<'_>, batch: &[Doomed]) -> Result<(), Failure> {
        for doomed in batch {
            let sql = "DELETE FROM result WHERE id = ?1 AND last_used = ?2";
            if db.prepare_cached(sql)?.execute((doomed.id, doomed.stamp))? == 0 {
                let sql = "SELECT outputs FROM result WHERE id = ?1";
                let outputs = db.prepare_cached(sql)?.query_row([doomed.id], |row| row.get::<_, Vec<u8>>(0));
                if let Some(outputs) = outputs.optional()? {
                    self.results.insert(doomed.id);
                    self.named.extend(unpack("result", &outputs)?);
                }
            }
        }
        Ok(())
    }

    fn forget_snapshots(
        &mut self,
        db: &Transaction<'_>,
        batch: &[Doomed],
        known: Known,
    ) -> Result<(), Failure> {
        let sql = "SELECT outputs FROM result WHERE id > ?1";
        let mut added = db.prepare_cached(sql)?;
        for outputs in added.query_map([known.result], |row| row.get::<_, Vec<u8>>(0))? {
            self.named.extend(unpack("result", &outputs?)?);
        }
        for doomed in batch {
            let sql = "DELETE FROM snapshot WHERE id = ?1 AND last_used = ?2
                AND NOT EXISTS (SELECT 1 FROM image_snapshot WHERE snapshot = ?1)
                AND NOT EXISTS (SELECT 1 FROM container WHERE snapshot = ?1)";
            if self.named.contains(&doomed.id)
                || db.prepare_cached(sql)?.execute((doomed.id, doomed.stamp))? == 0
            {
                let sql = "SELECT layers FROM snapshot WHERE id = ?1";
                let layers = db.prepare_cached(sql)?.query_row([doomed.id], |row| row.get::<_, Vec<u8>>(0));
                self.layers.extend(unpack("snapshot", &layers.optional()?.unwrap_or_default())?);
            }
        }
        Ok(())
    }

    /// Returns the layers that went; one that another is told from has to stay as long as that.
    fn forget_layers(
        &mut self,
        db: &Transaction<'_>,
        batch: &[i64],
        newest_snapshot: i64,
    ) -> Result<Vec<i64>, Failure> {
        let mut added = db.prepare_cached("SELECT layers FROM snapshot WHERE id > ?1")?;
        for layers in added.query_map([newest_snapshot], |row| row.get::<_, Vec<u8>>(0))? {
            self.layers.extend(unpack("snapshot", &layers?)?);
        }
        let mut gone = Vec::new();
        let mut is_base = db.prepare_cached("SELECT EXISTS (SELECT 1 FROM layer WHERE base = ?1)")?;
        for layer in batch.iter().filter(|layer| !self.layers.contains(layer)) {
            if is_base.query_row([layer], |row| row.get(0))? {
                continue;
            }
            forget_archives(db, *layer)?;
            db.prepare_cached("DELETE FROM layer WHERE id = ?1")?.execute([layer])?;
            gone.push(*layer);
        }
        Ok(gone)
    }
}

/// Forgets which tars a layer stands for, and the compressed forms that no other layer has.
fn forget_archives(db: &Transaction<'_>, layer: i64) -> Result<(), Failure> {
    let mut archives = db.prepare_cached("DELETE FROM layer_archive WHERE layer = ?1 RETURNING diff_id")?;
    let diff_ids = archives.query_map([layer], |row| row.get(0))?.collect::<Result<Vec<Vec<u8>>, _>>()?;
    for diff_id in diff_ids {
        let sql = "DELETE FROM layer_blob WHERE diff_id = ?1
            AND NOT EXISTS (SELECT 1 FROM layer_archive WHERE diff_id = ?1)";
        db.prepare_cached(sql)?.execute([diff_id])?;
    }
    Ok(())
}
