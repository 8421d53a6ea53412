//! What layers and directories take on disk: counted once for each layer, and once after each use of a directory.

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, Transaction};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, lstat, openat, statat};

use super::ledger;
use crate::db::Failure;
use crate::root_dir::{At as _, PathError, RootDir, list};
use crate::{LayerId, Result, Store};

/// The unit of `st_blocks`.
pub(super) const BLOCK_BYTES: u64 = 512;

/// What an open file takes on the disk.
pub(crate) fn file_disk_size_bytes(file: &File, path: &Path) -> Result<u64, PathError> {
    Ok(file.metadata().at("read the attributes of", path)?.blocks() * BLOCK_BYTES)
}

/// A tree whose size is not known, and where that is to be recorded.
enum Uncounted {
    Layer(i64),
    /// As it was after so many changes.
    Mutable {
        path: String,
        changes: i64,
    },
}

impl Store {
    /// Counts what is not counted yet, and adds it to the ledger.
    pub(crate) fn measure(&self) -> Result<()> {
        let mut counted = Vec::new();
        for uncounted in self.0.db.read("list sizes", uncounted)? {
            let path = match &uncounted {
                Uncounted::Layer(id) => self.0.layout.layer(LayerId(*id)),
                Uncounted::Mutable { path, .. } => self.root().join(path),
            };
            match tree_bytes(&path) {
                // Pruned by somebody else meanwhile.
                Err(error) if error.is_not_found() => {}
                bytes => counted.push((uncounted, i64::try_from(bytes?).unwrap_or(i64::MAX))),
            }
        }
        if counted.is_empty() {
            return Ok(());
        }
        self.0.db.write("record sizes", |db| {
            counted.iter().try_for_each(|(uncounted, bytes)| uncounted.record(db, *bytes))
        })
    }
}

impl Uncounted {
    /// Records a size, unless somebody else has meanwhile.
    fn record(&self, db: &Transaction<'_>, bytes: i64) -> Result<(), Failure> {
        let before: Option<i64> = match self {
            Self::Layer(id) => {
                let sql = "UPDATE layer SET disk_size_bytes = ?2 WHERE id = ?1 AND disk_size_bytes IS NULL
                    RETURNING 0";
                db.prepare_cached(sql)?.query_row((id, bytes), |row| row.get(0)).optional()?
            }
            Self::Mutable { path, changes } => {
                let sql = "SELECT disk_size_bytes FROM mutable WHERE path = ?1 AND changes_counted < ?2";
                let before =
                    db.prepare_cached(sql)?.query_row((path, changes), |row| row.get(0)).optional()?;
                let sql = "UPDATE mutable SET disk_size_bytes = ?2, changes_counted = ?3
                    WHERE path = ?1 AND changes_counted < ?3";
                db.prepare_cached(sql)?.execute((path, bytes, changes))?;
                before
            }
        };
        before.map_or(Ok(()), |before| ledger::add(db, bytes - before))
    }
}

fn uncounted(db: &Connection) -> Result<Vec<Uncounted>, Failure> {
    let mut layers = db.prepare_cached("SELECT id FROM layer WHERE disk_size_bytes IS NULL")?;
    let layers = layers.query_map((), |row| Ok(Uncounted::Layer(row.get(0)?)))?;
    let sql = "SELECT path, changes FROM mutable WHERE changes <> changes_counted";
    let mut mutables = db.prepare_cached(sql)?;
    let mutables =
        mutables.query_map((), |row| Ok(Uncounted::Mutable { path: row.get(0)?, changes: row.get(1)? }))?;
    Ok(layers.chain(mutables).collect::<Result<_, _>>()?)
}

/// What a tree takes on disk, in bytes; nothing if it is not there.
///
/// # Errors
/// When it cannot be read.
pub fn disk_size_bytes(root: &Path) -> Result<u64> {
    match tree_bytes(root) {
        Err(error) if error.is_not_found() => Ok(0),
        counted => Ok(counted?),
    }
}

fn block_bytes(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK_BYTES
}

/// What a tree takes on disk; a file with several names in it counts once. What vanishes while it is counted does not count.
fn tree_bytes(root: &Path) -> Result<u64, PathError> {
    let stat = lstat(root).at("read the attributes of", root)?;
    let mut bytes = block_bytes(&stat);
    if !FileType::from_raw_mode(stat.st_mode).is_dir() {
        return Ok(bytes);
    }
    let top = RootDir::open(root)?.open_dir("")?;
    let (mut linked, mut open) = (HashSet::new(), vec![top]);
    while let Some(directory) = open.pop() {
        for (name, _) in list(directory.as_fd()).at("list", root)? {
            let Ok(stat) = statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let is_directory = FileType::from_raw_mode(stat.st_mode).is_dir();
            if is_directory {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let Ok(child) = openat(&directory, &name, flags, Mode::empty()) else { continue };
                open.push(child);
            }
            if is_directory || stat.st_nlink < 2 || linked.insert((stat.st_dev, stat.st_ino)) {
                bytes += block_bytes(&stat);
            }
        }
    }
    Ok(bytes)
}
