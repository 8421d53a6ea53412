//! What layers and directories take on disk: counted once for each layer, and once after each use of a directory.

use std::collections::HashSet;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, statat};

use crate::db::Failure;
use crate::root_dir::{At as _, PathError, RootDir, list};
use crate::{LayerId, Result, Store};

/// The unit of `st_blocks`.
pub(super) const BLOCK_BYTES: u64 = 512;

/// A tree whose size is not known: where it is, and the row that is to say it.
struct Unmeasured {
    path: PathBuf,
    sql: &'static str,
    key: rusqlite::types::Value,
}

impl Store {
    /// Counts what is not known yet.
    pub(crate) fn measure(&self) -> Result<()> {
        for Unmeasured { path, sql, key } in self.0.db.read("list sizes", |db| self.unmeasured(db))? {
            let size_bytes = match tree_bytes(&path) {
                // Pruned by somebody else meanwhile.
                Err(error) if error.is_not_found() => continue,
                counted => i64::try_from(counted?).unwrap_or(i64::MAX),
            };
            self.0.db.write("record a size", |db| {
                Ok(db.prepare_cached(sql)?.execute((key, size_bytes)).map(drop)?)
            })?;
        }
        Ok(())
    }

    fn unmeasured(&self, db: &Connection) -> Result<Vec<Unmeasured>, Failure> {
        let mut layers = db.prepare_cached("SELECT id FROM layer WHERE disk_size_bytes IS NULL")?;
        let layers = layers.query_map((), |row| {
            let id: i64 = row.get(0)?;
            let sql = "UPDATE layer SET disk_size_bytes = ?2 WHERE id = ?1";
            Ok(Unmeasured { path: self.0.layout.layer(LayerId(id)), sql, key: id.into() })
        })?;
        let mut mutables = db.prepare_cached("SELECT path FROM mutable WHERE disk_size_bytes IS NULL")?;
        let mutables = mutables.query_map((), |row| {
            let path: String = row.get(0)?;
            let sql = "UPDATE mutable SET disk_size_bytes = ?2 WHERE path = ?1";
            Ok(Unmeasured { path: self.root().join(&path), sql, key: path.into() })
        })?;
        Ok(layers.chain(mutables).collect::<Result<_, _>>()?)
    }
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
    let top = RootDir::open(root)?.open_dir("")?;
    let mut bytes = block_bytes(&fstat(&top).at("read the attributes of", root)?);
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
