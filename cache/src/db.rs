//! The metadata: SQLite in WAL mode, one connection per handle.
//!
//! Rules. Every write is one short `BEGIN IMMEDIATE` transaction, because a transaction that starts by reading cannot wait
//! for the write lock. `synchronous=NORMAL`: the process may die at any instant without loss; what a power failure takes
//! away is the newest rows, which are then unreferenced files. The exception is a row that has to be on the disk before the file that it is
//! about changes: that a pack is to be cut ([`Database::write_durably`]). Ids are never used twice (`AUTOINCREMENT`), so that a directory
//! named by one cannot be mistaken.
//!
//! # Versions
//!
//! `PRAGMA user_version` says which tables these are. Version 3 is the first that was released; what was before is refused. Version 4
//! has layers that are trees, version 5 layers that are told from others, version 6 packs of which nobody knows whether they are on the disk,
//! version 7 archives in parts, version 8 the names that these begin with, version 9 how much layers need of packs, version 10 packs that are
//! to be cut, version 11 digests of layers that count what their roots are, and those of what
//! was pushed. Who changes
//! [`SCHEMA`] after a release adds the statements that lead there to [`MIGRATIONS`], which makes the next version, and a fixture of it
//! (`testdata/store`). [`Database::open`] migrates an older store in one transaction; a newer one is refused. A test opens every
//! fixture, and compares its tables with those of a new store: so a change of the tables that has no version fails.
//!
//! The log is not folded into the database when a handle closes, as that costs several flushes: only once it has
//! grown past [`LOG_KEPT_BYTES_MAX`].

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use crate::fail_point::FailPoint;
use crate::root_dir::{At, PathError};
use crate::{Error, Result};

/// The oldest version of the tables that is read.
const FIRST_VERSION: u32 = 3;
/// What makes each version of the one before it, from the first on.
const MIGRATIONS: [&str; 8] = [
    "
ALTER TABLE layer ADD COLUMN image BLOB;
CREATE TABLE pack (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    blocks INTEGER NOT NULL,
    disk_size_bytes INTEGER NOT NULL,
    reusable INTEGER NOT NULL DEFAULT 1,
    created INTEGER NOT NULL,
    last_used INTEGER NOT NULL
) STRICT;
CREATE TABLE layer_pack (
    layer INTEGER NOT NULL REFERENCES layer(id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    pack INTEGER NOT NULL REFERENCES pack(id),
    PRIMARY KEY (layer, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX layer_pack_by_pack ON layer_pack(pack);
-- They were whole seconds, and are nanoseconds.
UPDATE container SET created = created * 1000000000;
",
    "
ALTER TABLE layer ADD COLUMN base INTEGER REFERENCES layer(id);
CREATE INDEX layer_by_base ON layer(base) WHERE base IS NOT NULL;
",
    "ALTER TABLE pack ADD COLUMN boot TEXT",
    "
ALTER TABLE layer_archive ADD COLUMN part INTEGER NOT NULL DEFAULT 0;
ALTER TABLE layer_archive ADD COLUMN part_size_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE layer_archive ADD COLUMN continues INTEGER NOT NULL DEFAULT 0;
ALTER TABLE layer_archive ADD COLUMN entries BLOB;
DROP INDEX layer_archive_of_layer;
CREATE UNIQUE INDEX layer_archive_of_layer
    ON layer_archive(layer, coalesce(base, x''), coalesce(mtime_max, 'no'), part);
CREATE INDEX layer_archive_by_entries ON layer_archive(entries) WHERE entries IS NOT NULL;
",
    // Parts of version 7 had directories that are cut as they are in the first part: they are not made again.
    "
ALTER TABLE layer_archive DROP COLUMN part_size_bytes;
ALTER TABLE layer_archive ADD COLUMN begins BLOB;
UPDATE layer_archive AS one SET made = 0 WHERE EXISTS (SELECT 1 FROM layer_archive AS other
    WHERE other.layer = one.layer AND other.base IS one.base AND other.mtime_max IS one.mtime_max AND other.part > 0);
",
    "ALTER TABLE layer_pack ADD COLUMN needed_bytes INTEGER",
    "ALTER TABLE pack ADD COLUMN to_cut INTEGER",
    // Digests of contents are made again when they are asked for.
    "
UPDATE layer SET content_digest = NULL;
ALTER TABLE image_name ADD COLUMN pushed BLOB;
",
];
/// The version of [`SCHEMA`].
const SCHEMA_VERSION: u32 = FIRST_VERSION + MIGRATIONS.len() as u32;

/// How long a write waits for other processes' writes. Each takes well under a millisecond, so this is for a machine that
/// hangs, not for a queue.
const BUSY_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a switch to a log is tried while others hold the file.
const SWITCH_TRIES_MAX: u32 = 1_000;
/// How long to wait between.
const SWITCH_PAUSE: Duration = Duration::from_millis(5);

/// A log up to this size is left for the next handle to read, which costs it about a millisecond. A first build writes some 600 kB.
const LOG_KEPT_BYTES_MAX: u64 = 1024 * 1024;

/// Compiled statements kept for reuse: more than there are in this crate.
const STATEMENTS_KEPT: usize = 64;

const SCHEMA: &str = "
CREATE TABLE layer (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    -- What the directory takes on disk; counted when it is first asked for.
    disk_size_bytes INTEGER,
    -- What is in it, without modification times; computed when it is first asked for.
    content_digest BLOB,
    created INTEGER NOT NULL
    -- The digest of the image that it is; NULL: it is a directory.
    , image BLOB,
    -- The layer on top of whose directory its own is to be seen; NULL: its own is all there is.
    base INTEGER REFERENCES layer(id)) STRICT;
CREATE INDEX layer_unmeasured ON layer(id) WHERE disk_size_bytes IS NULL;
CREATE INDEX layer_by_base ON layer(base) WHERE base IS NOT NULL;

-- Files that hold contents which layers share.
CREATE TABLE pack (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    -- How many blocks of contents there are, of 512 bytes.
    blocks INTEGER NOT NULL,
    disk_size_bytes INTEGER NOT NULL,
    -- Whether new layers may point into it: not when a layer that did was damaged, nor when it has holes or is to get some.
    reusable INTEGER NOT NULL DEFAULT 1,
    created INTEGER NOT NULL,
    last_used INTEGER NOT NULL
    -- In which boot of the machine it was written; NULL: it is known to be on the disk.
    , boot TEXT,
    -- Since when nobody takes from it, as what no layer needs is to be cut out of it; NULL: it is not, or has been.
    to_cut INTEGER) STRICT;

-- The packs of a layer, numbered as its image does it.
CREATE TABLE layer_pack (
    layer INTEGER NOT NULL REFERENCES layer(id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    pack INTEGER NOT NULL REFERENCES pack(id),
    -- How much the layer needs of it at most; NULL: nobody knows.
    needed_bytes INTEGER,
    PRIMARY KEY (layer, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX layer_pack_by_pack ON layer_pack(pack);

-- The tars that a layer is known to stand for: as it came, or as it was asked for.
CREATE TABLE layer_archive (
    layer INTEGER NOT NULL REFERENCES layer(id) ON DELETE CASCADE,
    -- The digest of the tar.
    diff_id BLOB NOT NULL,
    size_bytes INTEGER NOT NULL,
    -- The chain id of the only stack that the layer stands for that tar on (zeros: on nothing); NULL: on any.
    base BLOB,
    -- Modification times in the tar are clamped to this (SOURCE_DATE_EPOCH), Unix seconds.
    mtime_max INTEGER,
    -- Whether it was made of the directory, and so can be made again; one that came may differ in its bytes.
    made INTEGER NOT NULL
    -- Which of the tars that a layer stands for together.
    , part INTEGER NOT NULL DEFAULT 0,
    -- Whether one step has made it and the one below it.
    continues INTEGER NOT NULL DEFAULT 0,
    -- The digest of its entries, with digests of contents in their place.
    entries BLOB,
    -- Its first name; NULL: it is the first of them, or has nothing but directories that the others have, too.
    begins BLOB) STRICT;
CREATE UNIQUE INDEX layer_archive_of_layer
    ON layer_archive(layer, coalesce(base, x''), coalesce(mtime_max, 'no'), part);
CREATE INDEX layer_archive_by_diff_id ON layer_archive(diff_id);
CREATE INDEX layer_archive_by_entries ON layer_archive(entries) WHERE entries IS NOT NULL;

-- Compressed forms of layers, as they came or were made.
CREATE TABLE layer_blob (
    diff_id BLOB NOT NULL,
    digest BLOB NOT NULL,
    descriptor TEXT NOT NULL,
    PRIMARY KEY (diff_id, digest)
) STRICT, WITHOUT ROWID;

-- A stack of layers: their ids, eight bytes each, little endian, bottom first.
CREATE TABLE snapshot (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    layers BLOB NOT NULL UNIQUE,
    last_used INTEGER NOT NULL
) STRICT;

-- One layer that is the same as several, for mounts of deep stacks: ids of layers as above, and a snapshot of one layer.
CREATE TABLE flattened (
    layers BLOB PRIMARY KEY,
    flat INTEGER NOT NULL REFERENCES snapshot(id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX flattened_by_flat ON flattened(flat);

-- What a step gave: snapshot ids, eight bytes each, little endian, 0 for the empty tree.
CREATE TABLE result (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    op_digest BLOB NOT NULL,
    outputs BLOB NOT NULL,
    description TEXT NOT NULL,
    -- Whether the step brought something from elsewhere.
    is_source INTEGER NOT NULL,
    created INTEGER NOT NULL,
    last_used INTEGER NOT NULL,
    -- What was being built: results of one project are compared with each other first.
    project TEXT NOT NULL DEFAULT '',
    -- The build that ran the step, and the step in it, where the build was remembered: where its log is.
    build TEXT,
    step INTEGER
) STRICT;
CREATE INDEX result_by_op ON result(op_digest);
CREATE INDEX result_by_description ON result(description);
CREATE INDEX result_by_project ON result(project, description);
CREATE INDEX result_by_build ON result(build, step);

-- The lists of files that a step was given, by their digests.
CREATE TABLE result_files (
    result INTEGER NOT NULL REFERENCES result(id) ON DELETE CASCADE,
    digest BLOB NOT NULL,
    PRIMARY KEY (result, digest)
) STRICT, WITHOUT ROWID;

-- The keys that a result is found under. With row ids, so that the index on the keys holds nothing else: to search a tree of long
-- rows is to read each that it passes.
CREATE TABLE record (
    key BLOB PRIMARY KEY,
    result INTEGER NOT NULL REFERENCES result(id) ON DELETE CASCADE,
    trace BLOB NOT NULL
) STRICT;
CREATE INDEX record_by_result ON record(result);
CREATE TABLE content_record (
    key BLOB PRIMARY KEY,
    result INTEGER NOT NULL REFERENCES result(id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX content_record_by_result ON content_record(result);

CREATE TABLE image (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    target_digest BLOB NOT NULL UNIQUE,
    target TEXT NOT NULL,
    config_digest BLOB,
    created INTEGER NOT NULL
) STRICT;
-- The trees that an image unpacks to: one, or one for each of its platforms that is here.
CREATE TABLE image_snapshot (
    image INTEGER NOT NULL REFERENCES image(id) ON DELETE CASCADE,
    snapshot INTEGER NOT NULL REFERENCES snapshot(id),
    PRIMARY KEY (image, snapshot)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_snapshot_by_snapshot ON image_snapshot(snapshot);
CREATE TABLE image_name (
    name TEXT PRIMARY KEY,
    image INTEGER NOT NULL REFERENCES image(id) ON DELETE CASCADE
    -- The digest of what was last pushed under the name; NULL: nothing, since it leads to this image.
    , pushed BLOB) STRICT, WITHOUT ROWID;
CREATE INDEX image_name_by_image ON image_name(image);

CREATE TABLE container (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    snapshot INTEGER REFERENCES snapshot(id),
    created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Directories that steps change: cache mounts, and mirrors of git repositories.
CREATE TABLE mutable (
    -- Below the root of the store.
    path TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    -- The digest of what it began as; NULL: empty.
    base BLOB,
    -- What it took on disk when that was last counted.
    disk_size_bytes INTEGER NOT NULL DEFAULT 0,
    -- How often it was changed, and how often it had been when it was counted.
    changes INTEGER NOT NULL DEFAULT 1,
    changes_counted INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL,
    last_used INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX mutable_uncounted ON mutable(path) WHERE changes <> changes_counted;

-- What the cache takes at most; one row (`prune::ledger`).
CREATE TABLE ledger (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    -- All that was ever added, in bytes.
    added_bytes INTEGER NOT NULL DEFAULT 0,
    -- What the cache took at the last count (NULL: it has to be counted), when that was, and what had been added by then.
    counted_bytes INTEGER,
    counted_at INTEGER NOT NULL DEFAULT 0,
    counted_added_bytes INTEGER NOT NULL DEFAULT 0,
    -- How often a count became void. One that began before is none.
    voided INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO ledger (id) VALUES (1);
";

/// Why a closure inside a transaction stopped: SQLite, to which the caller's verb is added, or something else.
#[derive(Debug)]
pub(crate) enum Failure {
    Sql(rusqlite::Error),
    Store(Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<PathError> for Failure {
    fn from(error: PathError) -> Self {
        Self::Store(error.into())
    }
}

/// A database file and the connection to it.
#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl Database {
    /// Opens the metadata of a store, which [`Database::create`] has made.
    pub(crate) fn open(path: PathBuf) -> Result<Self> {
        let this = Self::connect(path, OpenFlags::empty())?;
        let found = this.read("read the version", |db| Ok(version(db)?))?;
        if found == SCHEMA_VERSION {
            return Ok(this);
        }
        if (FIRST_VERSION..SCHEMA_VERSION).contains(&found) {
            this.write("migrate the tables", |db| Ok(migrate(db, &MIGRATIONS)?))?;
            return Ok(this);
        }
        let supported = format!("tables {SCHEMA_VERSION}");
        let root = this.path.parent().unwrap_or(Path::new("/")).to_owned();
        Err(Error::UnknownFormat { root, found: format!("tables {found}"), supported })
    }

    /// Makes the metadata of a new store. The caller holds the store's creation lock.
    pub(crate) fn create(path: PathBuf) -> Result<()> {
        // The log can lose its end; the tables are not to be in it.
        Self::create_with(path, SCHEMA_VERSION, SCHEMA)?.fold()
    }

    /// Opens a database that can be lost: makes it when it is missing or damaged. Its name holds its version.
    pub(crate) fn open_expendable(path: PathBuf, schema: &str) -> Result<Self> {
        match Self::create_with(path.clone(), 1, schema) {
            Err(error) if error.is_damaged_metadata() => {
                std::fs::remove_file(&path).at("remove", &path)?;
                Self::create_with(path, 1, schema)
            }
            result => result,
        }
    }

    fn create_with(path: PathBuf, wanted: u32, schema: &str) -> Result<Self> {
        let this = Self::connect(path, OpenFlags::SQLITE_OPEN_CREATE)?;
        // Where the tables are, so is the log. Nothing is locked to see that.
        if this.on_connection("look at the tables", |db| Ok(version(db)?))? == wanted {
            return Ok(this);
        }
        this.on_connection("switch to a log", |db| Ok(switch_to_log(db)?))?;
        this.write("create the tables", |db| {
            if version(db)? != wanted {
                db.execute_batch(schema)?;
                db.pragma_update(None, "user_version", wanted)?;
            }
            Ok(())
        })?;
        Ok(this)
    }

    fn connect(path: PathBuf, flags: OpenFlags) -> Result<Self> {
        let connect = || {
            // The connection is behind a mutex, so SQLite need not have its own.
            let flags = flags | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(&path, flags)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            connection.execute_batch("PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON")?;
            Ok(connection)
        };
        match connect() {
            Ok(connection) => Ok(Self { path, connection: Mutex::new(connection) }),
            Err(source) => Err(Error::Database { verb: "open the tables", path, source }),
        }
    }

    /// Runs queries that change nothing, all on one state of the tables. `verb` says what they are for.
    pub(crate) fn read<T>(
        &self,
        verb: &'static str,
        queries: impl FnOnce(&Connection) -> Result<T, Failure>,
    ) -> Result<T> {
        self.on_connection(verb, |connection| {
            // Which also spares each query the locks of its own.
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
            let value = queries(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })
    }

    /// Runs what cannot be in a transaction.
    fn on_connection<T>(
        &self,
        verb: &'static str,
        run: impl FnOnce(&mut Connection) -> Result<T, Failure>,
    ) -> Result<T> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        run(&mut connection).map_err(|failure| self.error(verb, failure))
    }

    /// Runs a transaction, undone when the closure fails. `verb` says what it is for.
    pub(crate) fn write<T>(
        &self,
        verb: &'static str,
        queries: impl FnOnce(&Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T> {
        self.on_connection(verb, |connection| transact(connection, queries))
    }

    /// The same, and waits until it is on the disk, with all that was written before it. Provided that it changes something: a
    /// transaction that does not waits for nothing.
    pub(crate) fn write_durably<T>(
        &self,
        verb: &'static str,
        queries: impl FnOnce(&Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T> {
        self.on_connection(verb, |connection| {
            // Inside a transaction it could not be set.
            connection.pragma_update(None, "synchronous", "FULL")?;
            let value = transact(connection, queries);
            let reset = connection.pragma_update(None, "synchronous", "NORMAL");
            let value = value?;
            reset?;
            Ok(value)
        })
    }

    /// Folds the log into the database, so that what is on the disk is what is read from then on.
    pub(crate) fn fold(&self) -> Result<()> {
        self.on_connection("fold the log", |db| Ok(fold_log(db)?))
    }

    fn error(&self, verb: &'static str, failure: Failure) -> Error {
        match failure {
            Failure::Sql(source) => Error::Database { verb, path: self.path.clone(), source },
            Failure::Store(error) => error,
        }
    }

    fn log_size_bytes(&self) -> u64 {
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        std::fs::metadata(log).map_or(0, |metadata| metadata.len())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.log_size_bytes() > LOG_KEPT_BYTES_MAX {
            // When another process is reading, the last one to close folds the log.
            let connection = self.connection.get_mut().unwrap_or_else(PoisonError::into_inner);
            drop(connection.busy_timeout(Duration::ZERO).and_then(|()| fold_log(connection)));
        }
    }
}

fn transact<T>(
    connection: &mut Connection,
    queries: impl FnOnce(&Transaction<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    FailPoint::TransactionBegin.reach_in_database()?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let value = queries(&transaction)?;
    FailPoint::TransactionCommit.reach_in_database()?;
    transaction.commit()?;
    FailPoint::TransactionCommitted.reach_in_database()?;
    Ok(value)
}

fn version(db: &Connection) -> rusqlite::Result<u32> {
    db.query_row("PRAGMA user_version", (), |row| row.get(0))
}

/// Brings tables to the newest version, from whatever version they have by now: another process may have done it.
fn migrate(db: &Transaction<'_>, migrations: &[&str]) -> rusqlite::Result<()> {
    let found = version(db)?;
    for (version, migration) in (FIRST_VERSION + 1..).zip(migrations) {
        if version > found {
            db.execute_batch(migration)?;
            db.pragma_update(None, "user_version", version)?;
        }
    }
    Ok(())
}

/// Gives a database a log. SQLite does not wait for others that do the same at once, lest they wait for each other.
fn switch_to_log(connection: &Connection) -> rusqlite::Result<()> {
    for _ in 0..SWITCH_TRIES_MAX {
        match connection.query_row("PRAGMA journal_mode=WAL", (), |row| row.get::<_, String>(0)) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                std::thread::sleep(SWITCH_PAUSE);
            }
            switched => {
                let mode = switched?;
                debug_assert_eq!(mode, "wal", "a database file can always have a log");
                return Ok(());
            }
        }
    }
    connection.query_row("PRAGMA journal_mode=WAL", (), |_| Ok(()))
}

/// Folds the log into the database, as far as nobody is reading from it.
fn fold_log(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
}

/// Ids as they are stored: eight bytes each, little endian.
pub(crate) fn pack(ids: impl IntoIterator<Item = i64>) -> Vec<u8> {
    ids.into_iter().flat_map(i64::to_le_bytes).collect()
}

/// The inverse of [`pack`]; `table` is named when the bytes are not whole ids.
pub(crate) fn unpack(table: &'static str, bytes: &[u8]) -> Result<Vec<i64>> {
    let (ids, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(Error::Damaged { table, found: format!("a list of ids of {} bytes", bytes.len()) });
    }
    Ok(ids.iter().map(|id| i64::from_le_bytes(*id)).collect())
}

#[cfg(test)]
mod tests;
