//! A layer that leaves as several archives, its *parts*.
//!
//! To change one file of a layer is to make all of its archive anew: hashed here, compressed, sent, fetched and unpacked everywhere else. So the
//! archive of a large layer is cut: each part is a layer of the image, and all of them on top of one another show the same tree, in
//! any engine. A change makes other parts of the few that have to do with it, and where a part ends depends on nothing but the entries near it.
//!
//! * A part is a run of entries in the order of the archive. It ends before a name whose digest says so, once it has
//!   its size; parts grow with their number, so that there are few of however large a layer.
//! * A directory that is cut is in every part that has something of it. There it has plain attributes, but where it begins: its own come with
//!   a last part, which is on top of the others, and has nothing but such directories. So a directory's new time makes
//!   two parts anew, not all.
//! * No part ends between two names of one file, as a link leads to no other layer's file.

use std::io::{self, Read, Write};

use rbuild_image::KeyHasher;

use super::tar::{Attribute, BLOCK_BYTES, TarEntry, TarKind, TarWriteError, TarWriter};
use super::whiteout::WHITEOUT_PREFIX;

/// What the first parts of a layer take at least.
pub const PART_SIZE_BYTES: u64 = 64 << 20;
/// After how many parts they are twice as large.
const PARTS_OF_ONE_SIZE: usize = 16;
/// Of how many names one ends a part that has its size.
const NAMES_TO_AN_END: u8 = 64;
/// How many times its size a part has when any name ends it.
const SIZE_FACTOR_MAX: u64 = 2;
/// What digests of parts are made of.
const PART_DOMAIN: &str = "rbuild.part.v1";

/// Takes the entries of an archive, in its order.
pub(crate) trait Entries {
    /// Takes an entry of a file with so many names. Whether its content, if it is to have one, has to follow.
    fn entry(&mut self, entry: &TarEntry<'_>, names: u64) -> Result<bool, TarWriteError>;
    /// Takes the content of the last entry.
    fn content(&mut self, content: &mut dyn Read, size_bytes: u64) -> Result<(), TarWriteError>;
    /// Takes the digest of a content that does not have to follow.
    fn digest(&mut self, digest: &[u8; 32]) -> Result<(), TarWriteError>;
}

impl<W: Write> Entries for TarWriter<W> {
    fn entry(&mut self, entry: &TarEntry<'_>, _: u64) -> Result<bool, TarWriteError> {
        self.header(entry)?;
        Ok(true)
    }

    fn content(&mut self, content: &mut dyn Read, size_bytes: u64) -> Result<(), TarWriteError> {
        Self::content(self, content, size_bytes)
    }

    fn digest(&mut self, _: &[u8; 32]) -> Result<(), TarWriteError> {
        Ok(())
    }
}

/// What is taken of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taking {
    /// Nothing.
    Nothing,
    /// One digest, of what its archive is made of: of contents, their digests.
    Digest,
    /// Its archive.
    All,
    /// Nothing, nor of any after it.
    NoMore,
}

/// Takes parts, one after the other.
pub(crate) trait PartSink {
    /// What is taken of the next part. What is put from here on is of that.
    fn begin(&mut self, part: usize) -> Taking;
    /// Takes what it wants of a part.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// Cuts an archive.
#[derive(Debug)]
pub(crate) struct Parts<S> {
    tar: TarWriter<Gate<S>>,
    size_bytes_min: u64,
    part: usize,
    part_bytes: u64,
    /// How many names are to come of files that have one in this part.
    names_open: u64,
    /// Those that the last entry is in, the outermost first, and it itself if it is one.
    directories: Vec<Directory>,
    /// Those that were cut.
    cut: Vec<Directory>,
    /// Of what this part holds, where its digest is wanted.
    digest: KeyHasher,
}

/// A sink and what it takes.
#[derive(Debug)]
struct Gate<S> {
    sink: S,
    taking: Taking,
}

#[derive(Debug, Clone)]
struct Directory {
    path: Vec<u8>,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: i64,
    xattrs: Vec<Attribute>,
    is_cut: bool,
}

impl<S: PartSink> Parts<S> {
    /// Cuts into parts of this size, or not at all if it is zero.
    pub(crate) fn new(mut sink: S, size_bytes_min: u64) -> Self {
        let taking = sink.begin(0);
        let tar = TarWriter::new(Gate { sink, taking });
        Self {
            tar,
            size_bytes_min,
            part: 0,
            part_bytes: 0,
            names_open: 0,
            directories: Vec::new(),
            cut: Vec::new(),
            digest: KeyHasher::new(PART_DOMAIN),
        }
    }

    /// Ends the last part.
    pub(crate) fn finish(mut self) -> Result<S, TarWriteError> {
        let cut = std::mem::take(&mut self.cut);
        if !cut.is_empty() {
            match self.begin_next() {
                Err(TarWriteError::NoMore) => return Ok(self.tar.into_output().sink),
                begun => begun?,
            }
        }
        for directory in &cut {
            self.take(&directory.entry())?;
        }
        self.end_part()?;
        Ok(self.tar.into_output().sink)
    }

    fn end_part(&mut self) -> Result<(), TarWriteError> {
        match self.tar.output().taking {
            Taking::All => self.tar.end(),
            Taking::Digest => self.tar.output().sink.put(&self.digest.finish()).map_err(TarWriteError::Write),
            Taking::Nothing | Taking::NoMore => Ok(()),
        }
    }

    fn begin_next(&mut self) -> Result<(), TarWriteError> {
        self.end_part()?;
        self.digest = KeyHasher::new(PART_DOMAIN);
        (self.part, self.part_bytes) = (self.part + 1, 0);
        let part = self.part;
        let gate = self.tar.output();
        gate.taking = gate.sink.begin(part);
        if gate.taking == Taking::NoMore { Err(TarWriteError::NoMore) } else { Ok(()) }
    }

    /// What has taken the parts, when it wants no more.
    pub(crate) fn satisfied(mut self) -> Option<S> {
        let is_satisfied = self.tar.output().taking == Taking::NoMore;
        is_satisfied.then(|| self.tar.into_output().sink)
    }

    fn cut(&mut self) -> Result<(), TarWriteError> {
        self.begin_next()?;
        let mut directories = std::mem::take(&mut self.directories);
        for directory in &mut directories {
            self.take(&directory.plain())?;
            if !std::mem::replace(&mut directory.is_cut, true) {
                self.cut.push(directory.clone());
            }
        }
        self.directories = directories;
        Ok(())
    }

    /// Gives an entry to the sink, as far as it takes it.
    fn take(&mut self, entry: &TarEntry<'_>) -> Result<(), TarWriteError> {
        match self.tar.output().taking {
            Taking::All => self.tar.header(entry),
            Taking::Digest => {
                feed(&mut self.digest, entry);
                Ok(())
            }
            Taking::Nothing | Taking::NoMore => Ok(()),
        }
    }

    fn is_end_before(&self, entry: &TarEntry<'_>) -> bool {
        if self.size_bytes_min == 0 || self.names_open > 0 {
            return false;
        }
        let doublings = (self.part / PARTS_OF_ONE_SIZE).min(32);
        let size_bytes = self.size_bytes_min.saturating_mul(1 << doublings);
        self.part_bytes >= size_bytes
            && !is_mark(entry.path)
            && (self.part_bytes >= size_bytes.saturating_mul(SIZE_FACTOR_MAX) || ends(entry.path))
    }
}

impl<S: PartSink> Entries for Parts<S> {
    fn entry(&mut self, entry: &TarEntry<'_>, names: u64) -> Result<bool, TarWriteError> {
        while self.directories.pop_if(|directory| !directory.holds(entry.path)).is_some() {}
        if self.is_end_before(entry) {
            self.cut()?;
        }
        self.take(entry)?;
        self.part_bytes += BLOCK_BYTES as u64;
        match entry.kind {
            TarKind::Directory => self.directories.push(Directory::of(entry)),
            TarKind::HardLink { .. } => self.names_open = self.names_open.saturating_sub(1),
            _ => self.names_open += names.saturating_sub(1),
        }
        if let TarKind::File { size_bytes } = entry.kind {
            self.part_bytes += size_bytes.next_multiple_of(BLOCK_BYTES as u64);
        }
        Ok(self.tar.output().taking == Taking::All)
    }

    fn content(&mut self, content: &mut dyn Read, size_bytes: u64) -> Result<(), TarWriteError> {
        self.tar.content(content, size_bytes)
    }

    fn digest(&mut self, digest: &[u8; 32]) -> Result<(), TarWriteError> {
        if self.tar.output().taking == Taking::Digest {
            self.digest.bytes(digest);
        }
        Ok(())
    }
}

impl Directory {
    fn of(entry: &TarEntry<'_>) -> Self {
        let TarEntry { path, mode, uid, gid, mtime, xattrs, .. } = *entry;
        Self { path: path.to_owned(), mode, uid, gid, mtime, xattrs: xattrs.to_owned(), is_cut: false }
    }

    fn holds(&self, path: &[u8]) -> bool {
        path.strip_prefix(self.path.as_slice()).is_some_and(|rest| rest.starts_with(b"/"))
    }

    fn entry(&self) -> TarEntry<'_> {
        let Self { path, mode, uid, gid, mtime, xattrs, .. } = self;
        let kind = TarKind::Directory;
        TarEntry { path, kind, mode: *mode, uid: *uid, gid: *gid, mtime: *mtime, xattrs }
    }

    /// It where something else says what it is like.
    fn plain(&self) -> TarEntry<'_> {
        TarEntry { mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: &[], ..self.entry() }
    }
}

impl<S: PartSink> Write for Gate<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sink.put(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Feeds all that says what an entry is in the archive.
fn feed(hasher: &mut KeyHasher, entry: &TarEntry<'_>) {
    let TarEntry { path, kind, mode, uid, gid, mtime, xattrs } = entry;
    match *kind {
        TarKind::File { size_bytes } => hasher.number(0u64).number(size_bytes),
        TarKind::Directory => hasher.number(1u64),
        TarKind::Symlink { target } => hasher.number(2u64).bytes(target),
        TarKind::HardLink { target } => hasher.number(3u64).bytes(target),
        TarKind::CharDevice { major, minor } => hasher.number(4u64).number(major).number(minor),
        TarKind::BlockDevice { major, minor } => hasher.number(5u64).number(major).number(minor),
        TarKind::Fifo => hasher.number(6u64),
    };
    hasher.bytes(path).number(*mode).number(*uid).number(*gid).signed(*mtime);
    hasher.list(xattrs, |hasher, (name, value)| {
        hasher.bytes(name).bytes(value);
    });
}

/// Whether a name ends the part before it.
fn ends(path: &[u8]) -> bool {
    blake3::hash(path).as_bytes()[0].is_multiple_of(NAMES_TO_AN_END)
}

/// Whether it is a mark, which stays with what it is about.
fn is_mark(path: &[u8]) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    name.starts_with(WHITEOUT_PREFIX.as_bytes())
}

#[cfg(test)]
mod tests;
