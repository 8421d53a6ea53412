//! What is remembered of files, so that they need not be read again.
//!
//! One row per directory: the names in it with the attributes they had and the digests of what they held. A
//! file whose attributes are the same is taken to hold the same. Any change of content, attributes or
//! permissions sets the change time (`ctime`), which no program can set back; what remains is a change within
//! one tick of the clock after the file was read. Hence [`TICK_NS`]: a file that changed so shortly before it
//! was read is not remembered. (A program that has a file mapped into memory can change it without a new time
//! until the kernel writes the page back. Nobody who looks at times, git included, sees that sooner.)

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Mutex, PoisonError};

use rustix::fs::Stat;

use super::{Blake3, TreeOwner};
use crate::stat_cache::{StatCacheRow, StatCacheTable};

/// More than the granularity of any file system's clock on Linux: a jiffy is 10 ms at most.
const TICK_NS: i64 = 20_000_000;

/// The first byte of a row. Rows of another version are ignored.
const VERSION: u8 = 1;

/// Names a directory on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DirectoryId {
    /// The file system.
    pub device: u64,
    /// The inode.
    pub inode: u64,
}

impl DirectoryId {
    /// The directory with these attributes.
    pub(super) const fn of(stat: &Stat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino }
    }
}

/// Keeps a row of bytes for each directory. It may forget any at any time, and never fails: what cannot be
/// read is not known.
pub trait StatCache: Sync {
    /// What was kept for directories, in their order. Called with all of a level at once.
    fn get(&self, directories: &[DirectoryId]) -> Vec<Option<Vec<u8>>>;

    /// Keeps rows in place of those kept before. Called at most once per walk, with the rows that changed.
    fn put(&self, rows: Vec<(DirectoryId, Vec<u8>)>);
}

/// A stat cache that lives as long as the process.
#[derive(Default)]
pub struct MemoryStatCache(Mutex<HashMap<DirectoryId, Vec<u8>>>);

impl fmt::Debug for MemoryStatCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryStatCache")
    }
}

impl StatCache for MemoryStatCache {
    fn get(&self, directories: &[DirectoryId]) -> Vec<Option<Vec<u8>>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        directories.iter().map(|directory| kept.get(directory).cloned()).collect()
    }

    fn put(&self, rows: Vec<(DirectoryId, Vec<u8>)>) {
        if let Ok(mut kept) = self.0.lock() {
            kept.extend(rows);
        }
    }
}

impl StatCache for StatCacheTable {
    fn get(&self, directories: &[DirectoryId]) -> Vec<Option<Vec<u8>>> {
        let keys = directories.iter().map(|DirectoryId { device, inode }| (*device, *inode));
        Self::get(self, keys).unwrap_or_else(|_| vec![None; directories.len()])
    }

    fn put(&self, rows: Vec<(DirectoryId, Vec<u8>)>) {
        let row = |(directory, entries): (DirectoryId, Vec<u8>)| StatCacheRow {
            device: directory.device,
            inode: directory.inode,
            entries,
        };
        let rows: Vec<StatCacheRow> = rows.into_iter().map(row).collect();
        // A cache that cannot be written, on a full disk perhaps, must not fail a build; the files are read again.
        let _unsaved = Self::put(self, &rows);
    }
}

/// The attributes that tell whether a file is the one it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint {
    inode: u64,
    mode: u32,
    size: u64,
    mtime_ns: i128,
    ctime_ns: i128,
}

/// What a file held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Substance {
    /// Of a regular file or a symlink.
    pub(super) content: Option<Blake3>,
    pub(super) xattrs: Option<Blake3>,
}

/// What is remembered of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Remembered<'a> {
    pub(super) name: &'a OsStr,
    pub(super) fingerprint: Fingerprint,
    pub(super) substance: Substance,
}

impl Fingerprint {
    pub(super) fn of(stat: &Stat) -> Self {
        let ns = |seconds: i64, nanoseconds| i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        Self {
            inode: stat.st_ino,
            mode: stat.st_mode,
            size: stat.st_size.unsigned_abs(),
            mtime_ns: ns(stat.st_mtime, stat.st_mtime_nsec),
            ctime_ns: ns(stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    /// Whether a later change is sure to show, if the file was read after `now_ns`.
    pub(super) fn is_settled(&self, now_ns: i64) -> bool {
        self.ctime_ns < i128::from(now_ns) - i128::from(TICK_NS)
    }
}

/// What is remembered of the files of a directory: a row, of which each file is taken when it is asked for.
#[derive(Debug, Default)]
pub(super) struct Row {
    bytes: Vec<u8>,
    /// Where in it each file begins, sorted by name.
    starts: Vec<u32>,
}

impl Row {
    /// Takes a row; `None` if it is none of this version and for this owner, or damaged.
    pub(super) fn decode(bytes: Vec<u8>, owner: TreeOwner) -> Option<Self> {
        let mut rest = Bytes(&bytes);
        if rest.array()? != [VERSION, owner as u8] {
            return None;
        }
        let (mut starts, mut last) = (Vec::new(), None);
        while !rest.0.is_empty() {
            starts.push(u32::try_from(bytes.len() - rest.0.len()).ok()?);
            let name = rest.remembered()?.name;
            if last.replace(name).is_some_and(|last| last >= name) {
                return None;
            }
        }
        Some(Self { bytes, starts })
    }

    /// How many files there are.
    pub(super) const fn len(&self) -> usize {
        self.starts.len()
    }

    /// All files, sorted by name.
    pub(super) fn files(&self) -> impl Iterator<Item = Remembered<'_>> + Clone {
        self.starts.iter().filter_map(|start| self.file_at(*start))
    }

    /// The file of this name.
    pub(super) fn file(&self, name: &OsStr) -> Option<Remembered<'_>> {
        self.file_at(self.starts[self.find(name)?])
    }

    /// The same, for who asks for one name after the other: `next` is where the one after the last is.
    pub(super) fn file_from(&self, name: &OsStr, next: &Cell<usize>) -> Option<Remembered<'_>> {
        let is_next = self.starts.get(next.get()).is_some_and(|start| self.name_at(*start) == Some(name));
        let at = if is_next { next.get() } else { self.find(name)? };
        next.set(at + 1);
        self.file_at(self.starts[at])
    }

    fn find(&self, name: &OsStr) -> Option<usize> {
        self.starts.binary_search_by(|start| self.name_at(*start).cmp(&Some(name))).ok()
    }

    fn name_at(&self, start: u32) -> Option<&OsStr> {
        Bytes(self.bytes.get(start as usize..)?).name()
    }

    fn file_at(&self, start: u32) -> Option<Remembered<'_>> {
        Bytes(self.bytes.get(start as usize..)?).remembered()
    }
}

/// Puts what is remembered of a directory, sorted by name, into a row. What attributes count depends on the owner.
pub(super) fn encode(files: &[Remembered<'_>], owner: TreeOwner) -> Vec<u8> {
    let mut row = vec![VERSION, owner as u8];
    for file in files {
        let name = file.name.as_bytes();
        // Linux has no longer names than 255 bytes.
        let Ok(length) = u8::try_from(name.len()) else { continue };
        row.push(length);
        row.extend_from_slice(name);
        let print = &file.fingerprint;
        row.extend_from_slice(&print.inode.to_le_bytes());
        row.extend_from_slice(&print.mode.to_le_bytes());
        row.extend_from_slice(&print.size.to_le_bytes());
        row.extend_from_slice(&print.mtime_ns.to_le_bytes());
        row.extend_from_slice(&print.ctime_ns.to_le_bytes());
        for digest in [file.substance.content, file.substance.xattrs] {
            row.push(u8::from(digest.is_some()));
            row.extend_from_slice(digest.as_ref().map_or(&[], |digest| digest));
        }
    }
    row
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn name(&mut self) -> Option<&'a OsStr> {
        let [length] = self.array()?;
        self.take(usize::from(length)).map(OsStr::from_bytes)
    }

    fn remembered(&mut self) -> Option<Remembered<'a>> {
        let name = self.name()?;
        let fingerprint = Fingerprint {
            inode: u64::from_le_bytes(self.array()?),
            mode: u32::from_le_bytes(self.array()?),
            size: u64::from_le_bytes(self.array()?),
            mtime_ns: i128::from_le_bytes(self.array()?),
            ctime_ns: i128::from_le_bytes(self.array()?),
        };
        let substance = Substance { content: self.digest()?, xattrs: self.digest()? };
        Some(Remembered { name, fingerprint, substance })
    }

    fn digest(&mut self) -> Option<Option<Blake3>> {
        match self.array()? {
            [0] => Some(None),
            [1] => Some(Some(self.array()?)),
            _ => None,
        }
    }
}
