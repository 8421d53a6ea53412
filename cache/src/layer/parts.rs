//! A layer that leaves as several archives, its *parts*.
//!
//! To change one file of a layer is to make all of its archive anew: hashed here, compressed, sent, fetched and unpacked everywhere else. So the
//! archive of a large layer is cut: each part is a layer of the image, and all of them on top of one another show the same tree, in
//! any engine. A change makes other parts of the few that have to do with it.
//!
//! * A part is a run of entries in the order of the archive. [`Measure`] finds where they begin; the first names of parts ([`Cuts`]) are
//!   all that it takes to make them again.
//! * A directory that is cut has something below it in several parts. It is in each of them with plain attributes: its own come with a last part, which is on
//!   top of the others, and has nothing but such directories. So a directory's new time makes one part anew, not all.

use std::io::{self, Read, Write};

use rbuild_image::KeyHasher;

use self::cuts::NO_CUTS;
pub use self::cuts::PART_SIZE_BYTES;
pub(crate) use self::cuts::{Cuts, Measure};
use super::tar::{Attribute, TarEntry, TarKind, TarWriteError, TarWriter};

mod cuts;

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
    /// Whether entries of what is in this directory have to follow. Its own has been given.
    fn wants(&self, _directory: &[u8]) -> bool {
        true
    }
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
pub(crate) struct Parts<'a, S> {
    tar: TarWriter<Gate<S>>,
    cuts: &'a Cuts,
    part: usize,
    /// What is taken of it.
    taking: Taking,
    /// The directories that are cut, as far as they were met.
    cut: Vec<Directory>,
    /// Of what this part holds, where its digest is wanted.
    digest: KeyHasher,
}

/// A sink as what an archive is written to.
#[derive(Debug)]
struct Gate<S>(S);

#[derive(Debug)]
struct Directory {
    path: Vec<u8>,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: i64,
    xattrs: Vec<Attribute>,
}

impl<'a, S: PartSink> Parts<'a, S> {
    /// Cuts where `cuts` says.
    pub(crate) fn new(mut sink: S, cuts: &'a Cuts) -> Self {
        let taking = sink.begin(0);
        let tar = TarWriter::new(Gate(sink));
        Self { tar, cuts, part: 0, taking, cut: Vec::new(), digest: KeyHasher::new(PART_DOMAIN) }
    }

    /// Ends the last part.
    pub(crate) fn finish(mut self) -> Result<S, TarWriteError> {
        let cut = std::mem::take(&mut self.cut);
        if !cut.is_empty() {
            match self.begin_next() {
                Err(TarWriteError::NoMore) => return Ok(self.tar.into_output().0),
                begun => begun?,
            }
        }
        for directory in &cut {
            self.take(&directory.entry())?;
        }
        self.end_part()?;
        Ok(self.tar.into_output().0)
    }

    fn end_part(&mut self) -> Result<(), TarWriteError> {
        match self.taking {
            Taking::All => self.tar.end(),
            Taking::Digest => self.tar.output().0.put(&self.digest.finish()).map_err(TarWriteError::Write),
            Taking::Nothing | Taking::NoMore => Ok(()),
        }
    }

    fn begin_next(&mut self) -> Result<(), TarWriteError> {
        self.end_part()?;
        self.digest = KeyHasher::new(PART_DOMAIN);
        self.part += 1;
        self.taking = self.tar.output().0.begin(self.part);
        if self.taking == Taking::NoMore { Err(TarWriteError::NoMore) } else { Ok(()) }
    }

    /// What has taken the parts, when it wants no more.
    pub(crate) fn satisfied(self) -> Option<S> {
        (self.taking == Taking::NoMore).then(|| self.tar.into_output().0)
    }

    /// The first name of the next part.
    fn next(&self) -> Option<&[u8]> {
        self.cuts.begin_after(self.part)
    }

    /// Whether a directory that comes next is in more parts than this: then the next one begins below it.
    fn is_cut(&self, directory: &[u8]) -> bool {
        self.next().is_some_and(|next| is_below(next, directory))
    }

    /// Gives an entry to the sink, as far as it takes it.
    fn take(&mut self, entry: &TarEntry<'_>) -> Result<(), TarWriteError> {
        match self.taking {
            Taking::All => self.tar.header(entry),
            Taking::Digest => {
                feed(&mut self.digest, entry);
                Ok(())
            }
            Taking::Nothing | Taking::NoMore => Ok(()),
        }
    }
}

impl<S: PartSink> Entries for Parts<'_, S> {
    fn entry(&mut self, entry: &TarEntry<'_>, _: u64) -> Result<bool, TarWriteError> {
        if self.next() == Some(entry.path) {
            self.begin_next()?;
            for parent in parents(entry.path) {
                self.take(&plain(parent))?;
            }
        }
        if entry.kind == TarKind::Directory && self.is_cut(entry.path) {
            self.cut.push(Directory::of(entry));
            self.take(&plain(entry.path))?;
        } else {
            self.take(entry)?;
        }
        Ok(self.taking == Taking::All)
    }

    fn content(&mut self, content: &mut dyn Read, size_bytes: u64) -> Result<(), TarWriteError> {
        self.tar.content(content, size_bytes)
    }

    fn digest(&mut self, digest: &[u8; 32]) -> Result<(), TarWriteError> {
        if self.taking == Taking::Digest {
            self.digest.bytes(digest);
        }
        Ok(())
    }

    /// Of a part of which nothing is taken no more is looked at than leads to the next one.
    fn wants(&self, directory: &[u8]) -> bool {
        self.taking != Taking::Nothing || self.is_cut(directory)
    }
}

/// Takes a layer as one archive, until it turns out that it is cut; then it finds where.
pub(crate) struct Whole<S> {
    measure: Measure,
    archive: Option<Parts<'static, S>>,
}

impl<S: PartSink> Whole<S> {
    /// Cuts into parts of this size, or not at all if it is zero.
    pub(crate) fn new(sink: S, part_size_bytes: u64) -> Self {
        let measure = Measure::new(part_size_bytes);
        Self { measure, archive: Some(Parts::new(sink, &NO_CUTS)) }
    }

    /// What has taken the archive, or where the layer has to be cut.
    pub(crate) fn finish(self) -> Result<Result<S, Cuts>, TarWriteError> {
        match self.archive {
            Some(archive) => archive.finish().map(Ok),
            None => Ok(Err(self.measure.finish())),
        }
    }
}

impl<S: PartSink> Entries for Whole<S> {
    fn entry(&mut self, entry: &TarEntry<'_>, names: u64) -> Result<bool, TarWriteError> {
        self.measure.entry(entry, names)?;
        self.archive.take_if(|_| self.measure.is_cut());
        self.archive.as_mut().map_or(Ok(false), |archive| archive.entry(entry, names))
    }

    fn content(&mut self, content: &mut dyn Read, size_bytes: u64) -> Result<(), TarWriteError> {
        self.archive.as_mut().map_or(Ok(()), |archive| archive.content(content, size_bytes))
    }

    fn digest(&mut self, _: &[u8; 32]) -> Result<(), TarWriteError> {
        Ok(())
    }
}

impl Directory {
    fn of(entry: &TarEntry<'_>) -> Self {
        let TarEntry { path, mode, uid, gid, mtime, xattrs, .. } = *entry;
        Self { path: path.to_owned(), mode, uid, gid, mtime, xattrs: xattrs.to_owned() }
    }

    fn entry(&self) -> TarEntry<'_> {
        let Self { path, mode, uid, gid, mtime, xattrs, .. } = self;
        let kind = TarKind::Directory;
        TarEntry { path, kind, mode: *mode, uid: *uid, gid: *gid, mtime: *mtime, xattrs }
    }
}

/// A directory where something else says what it is like.
const fn plain(path: &[u8]) -> TarEntry<'_> {
    TarEntry { path, kind: TarKind::Directory, mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: &[] }
}

impl<S: PartSink> Write for Gate<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.put(bytes).map(|()| bytes.len())
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

/// Whether a path is that of something in a directory, however deep.
fn is_below(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/"))
}

/// The directories that a path leads through, the outermost first.
fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    ends.map(|(end, _)| &path[..end])
}

#[cfg(test)]
mod tests;
