//! Packs that nobody knows to be on the disk.
//!
//! A pack is not waited for when it is written: that may take longer than all else that a build does. Its row names the boot of the machine in
//! which it was written, until it is known to be on the disk. In the same boot, what is read of it is what was written. In another one, each of
//! its contents is compared with its digest before anything is taken from it.

use std::fs::{self, File};
use std::sync::LazyLock;

use rusqlite::Row;

use crate::root_dir::At as _;
use crate::tree::pack;
use crate::{Result, Store};

/// By then the kernel has written a pack of its own accord, so that to make sure of it costs nothing.
const WRITTEN_AFTER_NS: i64 = 120_000_000_000;

/// Names this boot of the machine; empty where that is not known, which no boot is.
static BOOT: LazyLock<String> =
    LazyLock::new(|| fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default());

/// A pack's row, as far as it says whether the pack is on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) pack: i64,
    pub(crate) created: i64,
    /// `None` when it is on the disk.
    pub(crate) boot: Option<String>,
}

impl Written {
    /// Of a row that begins with these columns: `id, created, boot`.
    pub(crate) fn of_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { pack: row.get(0)?, created: row.get(1)?, boot: row.get(2)? })
    }
}

/// What is said in the row of a pack that is written now.
pub(super) fn this_boot() -> &'static str {
    &BOOT
}

fn is_this_boot(boot: &str) -> bool {
    !boot.is_empty() && *boot == *BOOT
}

impl Store {
    /// Whether a pack holds what was written to it. Of one that does not, nothing new is taken.
    pub(crate) fn is_settled(&self, written: &Written, file: &File) -> Result<bool> {
        let Some(boot) = &written.boot else { return Ok(true) };
        if is_this_boot(boot) && self.stamp() - written.created < WRITTEN_AFTER_NS {
            return Ok(true);
        }
        self.settle_pack(written, file)
    }

    /// The same, so that it is known from here on.
    pub(crate) fn settle_pack(&self, written: &Written, file: &File) -> Result<bool> {
        let Some(boot) = &written.boot else { return Ok(true) };
        let is_same_boot = is_this_boot(boot);
        let is_whole = is_same_boot || pack::is_whole(file);
        if is_same_boot {
            file.sync_data().at("sync", "a pack")?;
        }
        let sql = if is_whole {
            "UPDATE pack SET boot = NULL WHERE id = ?1"
        } else {
            "UPDATE pack SET reusable = 0 WHERE id = ?1"
        };
        self.0.db.write("note the state of a pack", |db| {
            Ok(db.prepare_cached(sql)?.execute([written.pack]).map(drop)?)
        })?;
        Ok(is_whole)
    }
}
