//! Containers: who is there, what they are called, and which snapshot they stand on.
//!
//! What a container *is* (its command, its state, its ports) is the container crate's business: here it is a document. The
//! container's directory is `containers/<id>/` ([`Area::Containers`](crate::Area)). Containers are roots: the snapshot that
//! they stand on is kept.

use std::path::Path;
use std::{fs, io};

use rusqlite::{OptionalExtension as _, Row, params};

use crate::lease::seconds;
use crate::prune::ledger;
use crate::root_dir::At as _;
use crate::{Area, Error, Result, Snapshot, SnapshotId, Store};

/// A container of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRecord {
    /// Its id, unique for ever.
    pub id: String,
    /// Its name, unique at any time.
    pub name: String,
    /// Its document, JSON.
    pub state: String,
    /// The read-only layers that it stands on.
    pub snapshot: Snapshot,
    /// When it was created, Unix seconds.
    pub created: i64,
}

/// The containers of a store.
#[derive(Debug, Clone, Copy)]
pub struct Containers<'a>(pub(crate) &'a Store);

struct ContainerRow {
    record: ContainerRecord,
    snapshot: Option<i64>,
}

const COLUMNS: &str = "id, name, state, snapshot, created";

impl Containers<'_> {
    /// Adds a container, and makes its directory, in which `prepare` makes what is to be there from the first. Its creation time is
    /// now, whatever the record says.
    ///
    /// The directory is made inside the transaction that adds the row, as a sweep looks for directories without one inside another.
    ///
    /// # Errors
    /// [`Error::NameInUse`] when another has that id or name; else when the directory cannot be made.
    pub fn create(
        &self,
        container: &ContainerRecord,
        prepare: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<()> {
        let directory = self.0.area(Area::Containers).join(&container.id);
        // Nanoseconds, so that the order of those made in one second is known.
        let created = (self.0.0.options.now)();
        self.0.0.db.write("create a container", |db| {
            let sql = "INSERT OR IGNORE INTO container (id, name, state, snapshot, created) VALUES (?1, ?2, ?3, ?4, ?5)";
            let snapshot = container.snapshot.id.map(|id| id.0);
            if db.execute(sql, params![container.id, container.name, container.state, snapshot, created])? == 0 {
                return Err(Error::NameInUse(container.name.clone()).into());
            }
            let made = fs::create_dir(&directory).and_then(|()| prepare(&directory));
            Ok(made.at("make", &directory)?)
        })
    }

    /// The container with this id.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn get(&self, id: &str) -> Result<Option<ContainerRecord>> {
        self.find("id", id)
    }

    /// The container with this name.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn by_name(&self, name: &str) -> Result<Option<ContainerRecord>> {
        self.find("name", name)
    }

    /// Every container, newest first.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn list(&self) -> Result<Vec<ContainerRecord>> {
        let sql = format!("SELECT {COLUMNS} FROM container ORDER BY created DESC, id");
        let rows = self.0.0.db.read("list the containers", |db| {
            let mut statement = db.prepare_cached(&sql)?;
            Ok(statement.query_map((), read_row)?.collect::<Result<Vec<_>, _>>()?)
        })?;
        rows.into_iter().map(|row| self.complete(row)).collect()
    }

    /// Changes the document of a container, in one step with reading it: `change` gets the present one and returns the new one,
    /// or `None` to leave it. Returns whether the container is there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn update(&self, id: &str, change: impl FnOnce(&str) -> Option<String>) -> Result<bool> {
        self.0.0.db.write("update a container", |db| {
            let sql = "SELECT state FROM container WHERE id = ?1";
            let Some(state) = db.query_row(sql, [id], |row| row.get::<_, String>(0)).optional()? else {
                return Ok(false);
            };
            if let Some(state) = change(&state) {
                db.execute("UPDATE container SET state = ?2 WHERE id = ?1", [id, &state])?;
            }
            Ok(true)
        })
    }

    /// Gives a container another name. Returns whether the container is there.
    ///
    /// # Errors
    /// [`Error::NameInUse`] when another has that name.
    pub fn rename(&self, id: &str, name: &str) -> Result<bool> {
        self.0.0.db.write("rename a container", |db| {
            let sql = "SELECT EXISTS (SELECT 1 FROM container WHERE name = ?2 AND id <> ?1)";
            if db.query_row(sql, [id, name], |row| row.get(0))? {
                return Err(Error::NameInUse(name.to_owned()).into());
            }
            Ok(db.execute("UPDATE container SET name = ?2 WHERE id = ?1", [id, name])? > 0)
        })
    }

    /// Removes the row of a container, after its directory. Returns whether it was there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn remove(&self, id: &str) -> Result<bool> {
        self.0.0.db.write("remove a container", |db| {
            // As a rule an image holds what it stood on, so that nothing becomes cache.
            let sql = "SELECT EXISTS (SELECT 1 FROM container WHERE id = ?1 AND snapshot NOT IN
                (SELECT snapshot FROM image_snapshot))";
            if db.query_row(sql, [id], |row| row.get(0))? {
                ledger::void(db)?;
            }
            Ok(db.execute("DELETE FROM container WHERE id = ?1", [id])? > 0)
        })
    }

    fn find(&self, column: &str, value: &str) -> Result<Option<ContainerRecord>> {
        let sql = format!("SELECT {COLUMNS} FROM container WHERE {column} = ?1");
        let row = self.0.0.db.read("look up a container", |db| {
            Ok(db.prepare_cached(&sql)?.query_row([value], read_row).optional()?)
        })?;
        row.map(|row| self.complete(row)).transpose()
    }

    fn complete(&self, row: ContainerRow) -> Result<ContainerRecord> {
        let snapshot = match row.snapshot.map(SnapshotId) {
            Some(id) => self.0.snapshot(id)?.ok_or(Error::SnapshotMissing(id))?,
            None => Snapshot::empty(),
        };
        Ok(ContainerRecord { snapshot, ..row.record })
    }
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<ContainerRow> {
    let record = ContainerRecord {
        id: row.get(0)?,
        name: row.get(1)?,
        state: row.get(2)?,
        snapshot: Snapshot::empty(),
        created: seconds(row.get(4)?),
    };
    Ok(ContainerRow { record, snapshot: row.get(3)? })
}
