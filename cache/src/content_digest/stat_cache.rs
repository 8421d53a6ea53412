//! What is remembered of files, so that they need not be read again.
//!
//! One row per directory: the names in it with the attributes they had and the digests of what they held; and when it
//! got or lost a name last, and what it has besides, so that it need not be listed. And one for each file that is
//! selected by itself, as if it were alone in a directory of its own number. A
//! file whose attributes are the same is taken to hold the same. Any change of content, attributes or
//! permissions sets the change time (`ctime`), which no program can set back; what remains is a change within
//! one tick of the clock after the file was read. Hence [`TICK_NS`]: a file that changed so shortly before it
//! was read is not remembered. Where a change time has whole seconds, its file system may know no parts of them, and then a tick is
//! that long; or it is one that has no such times and shows others in their place, which can be set (an image that was mounted, FAT, a server's files), so that
//! outside of file systems that are known such a file is not remembered at all. (A program that has a file mapped into memory can change it without a new time
//! until the kernel writes the page back. Nobody who looks at times, git included, sees that sooner.)

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FileType, Stat};

use super::{Blake3, TreeOwner};
use crate::stat_cache::{StatCacheRow, StatCacheTable};

/// More than the granularity of the clock by which Linux stamps files: a jiffy is 10 ms at most.
const TICK_NS: i64 = 20_000_000;
/// The same where whole seconds are kept, as ext4 does with inodes of 128 bytes.
const COARSE_TICK_NS: i64 = 2_000_000_000;
const SECOND_NS: i128 = 1_000_000_000;

/// The first byte of a row. Rows of another version are ignored. To be bumped with what the digests of files are made of ([`Facts`](super::fold::Facts)).
const VERSION: u8 = 3;

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
    /// What was kept for directories, in their order. Called with a few at once, on several threads.
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
    pub(super) times: Times,
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
    /// The digest of that and its attributes.
    pub(super) digest: Blake3,
}

/// When something was last changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    mtime_ns: i128,
    ctime_ns: i128,
}

/// All names in a directory.
#[derive(Debug)]
pub(super) struct Names<'a> {
    /// When the directory got or lost one last.
    pub(super) times: Times,
    /// Those that are no remembered files', and what they are.
    pub(super) beside: Vec<(&'a OsStr, FileType)>,
}

impl Times {
    pub(super) fn of(stat: &Stat) -> Self {
        let ns = |seconds: i64, nanoseconds| i128::from(seconds) * SECOND_NS + i128::from(nanoseconds);
        Self {
            mtime_ns: ns(stat.st_mtime, stat.st_mtime_nsec),
            ctime_ns: ns(stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    /// Whether a later change is sure to show, if what has them was read after `now_ns`. `is_local` says that they are of a file system whose
    /// change times are the kernel's.
    pub(super) fn is_settled(&self, now_ns: i64, is_local: bool) -> bool {
        let tick_ns = if self.ctime_ns % SECOND_NS == 0 { COARSE_TICK_NS } else { TICK_NS };
        self.is_believed(is_local) && self.ctime_ns < i128::from(now_ns) - i128::from(tick_ns)
    }

    /// Whether they say what the kernel says, as far as can be told.
    pub(super) const fn is_believed(&self, is_local: bool) -> bool {
        is_local || self.ctime_ns % SECOND_NS != 0
    }

    fn encode(&self, row: &mut Vec<u8>) {
        row.extend_from_slice(&self.mtime_ns.to_le_bytes());
        row.extend_from_slice(&self.ctime_ns.to_le_bytes());
    }
}

impl Fingerprint {
    pub(super) fn of(stat: &Stat) -> Self {
        let (inode, mode, size) = (stat.st_ino, stat.st_mode, stat.st_size.unsigned_abs());
        Self { inode, mode, size, times: Times::of(stat) }
    }
}

/// What is remembered of a directory: a row, of which each file is taken when it is asked for.
#[derive(Debug, Default)]
pub(super) struct Row {
    bytes: Vec<u8>,
    /// When the names in it were all that there were, and where the others begin, and how many they are.
    names: Option<(Times, u32, u32)>,
    /// Where in it each file begins, sorted by name.
    starts: Vec<u32>,
}

impl Row {
    /// Takes a row; `None` if it is none of this version and for this owner, or damaged.
    pub(super) fn decode(bytes: Vec<u8>, owner: TreeOwner) -> Option<Self> {
        let mut rest = Bytes(&bytes);
        let at = |rest: &Bytes<'_>| u32::try_from(bytes.len() - rest.0.len()).ok();
        let [version, of] = rest.array()?;
        if (version, of) != (VERSION, owner as u8) {
            return None;
        }
        let names = rest.names(at)?;
        let (mut starts, mut last) = (Vec::new(), None);
        while !rest.0.is_empty() {
            starts.push(at(&rest)?);
            let name = rest.remembered()?.name;
            if last.replace(name).is_some_and(|last| last >= name) {
                return None;
            }
        }
        Some(Self { bytes, names, starts })
    }

    /// All names, in no order, if the directory had these times when they were.
    pub(super) fn names(&self, stat: &Stat) -> Option<Vec<(OsString, FileType)>> {
        let (times, start, count) = self.names?;
        if times != Times::of(stat) {
            return None;
        }
        let mut rest = Bytes(self.bytes.get(start as usize..)?);
        let kind = |file: &Remembered<'_>| FileType::from_raw_mode(file.fingerprint.mode);
        let mut names: Vec<(OsString, FileType)> =
            self.files().map(|file| (file.name.to_owned(), kind(&file))).collect();
        for _ in 0..count {
            let (name, kind) = rest.name_and_type()?;
            names.push((name.to_owned(), kind));
        }
        Some(names)
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
pub(super) fn encode(files: &[Remembered<'_>], names: Option<&Names<'_>>, owner: TreeOwner) -> Vec<u8> {
    let mut row = vec![VERSION, owner as u8];
    encode_names(names, &mut row);
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
        print.times.encode(&mut row);
        for digest in [file.substance.content, file.substance.xattrs] {
            row.push(u8::from(digest.is_some()));
            row.extend_from_slice(digest.as_ref().map_or(&[], |digest| digest));
        }
        row.extend_from_slice(&file.digest);
    }
    row
}

fn encode_names(names: Option<&Names<'_>>, row: &mut Vec<u8>) {
    row.push(u8::from(names.is_some()));
    let Some(Names { times, beside }) = names else { return };
    times.encode(row);
    row.extend_from_slice(&(beside.len() as u32).to_le_bytes());
    for (name, kind) in beside {
        // As above: this is none of Linux's if it does not fit, and then no row either.
        row.push(u8::try_from(name.len()).unwrap_or(0));
        row.extend_from_slice(name.as_bytes());
        row.extend_from_slice(&kind.as_raw_mode().to_le_bytes());
    }
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

    /// When all names were what they are, where the others begin, and how many.
    fn names(&mut self, at: impl Fn(&Self) -> Option<u32>) -> Option<Option<(Times, u32, u32)>> {
        if self.array()? == [0] {
            return Some(None);
        }
        let times = self.times()?;
        let count = u32::from_le_bytes(self.array()?);
        let start = at(self)?;
        for _ in 0..count {
            self.name_and_type()?;
        }
        Some(Some((times, start, count)))
    }

    fn times(&mut self) -> Option<Times> {
        let [mtime_ns, ctime_ns] = [self.array()?, self.array()?].map(i128::from_le_bytes);
        Some(Times { mtime_ns, ctime_ns })
    }

    fn name_and_type(&mut self) -> Option<(&'a OsStr, FileType)> {
        let name = self.name().filter(|name| !name.is_empty())?;
        Some((name, FileType::from_raw_mode(u32::from_le_bytes(self.array()?))))
    }

    fn remembered(&mut self) -> Option<Remembered<'a>> {
        let name = self.name()?;
        let fingerprint = Fingerprint {
            inode: u64::from_le_bytes(self.array()?),
            mode: u32::from_le_bytes(self.array()?),
            size: u64::from_le_bytes(self.array()?),
            times: self.times()?,
        };
        let substance = Substance { content: self.digest()?, xattrs: self.digest()? };
        Some(Remembered { name, fingerprint, substance, digest: self.array()? })
    }

    fn digest(&mut self) -> Option<Option<Blake3>> {
        match self.array()? {
            [0] => Some(None),
            [1] => Some(Some(self.array()?)),
            _ => None,
        }
    }
}
