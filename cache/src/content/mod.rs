//! Blobs by digest: manifests, configs, compressed layers, anything that has a [`Digest`].
//!
//! A blob comes in through a [`BlobWriter`]: written to a name of its own in `ingest/`, hashed on the way, compared with
//! what was announced, synced, renamed. A blob that is there is never written again, so two writers of one blob do not
//! disturb each other. Every use stamps the file's modification time, for [prune](crate::prune), under a shared lock on the file: prune takes
//! the name away from one that it has locked alone, and whose stamp has not changed. So what was found is there.

mod writer;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::sync::Arc;

use rbuild_image::{Descriptor, Digest};
use rustix::fs::{FlockOperation, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, flock, futimens};
use rustix::io::retry_on_intr;

pub use self::writer::BlobWriter;
use crate::layout::Layout;
use crate::lock::is_at;
use crate::prune::Growth;
use crate::root_dir::At;
use crate::{Error, Result, Store};

/// How much is moved at a time when a stream is taken in.
const COPY_BUFFER_BYTES: usize = 256 * 1024;

/// What content was announced as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// Its digest.
    pub digest: Digest,
    /// Its exact size in bytes.
    pub size_bytes: u64,
}

impl From<&Descriptor> for Expected {
    fn from(descriptor: &Descriptor) -> Self {
        Self { digest: descriptor.digest, size_bytes: descriptor.size_bytes }
    }
}

/// The blobs of a store.
#[derive(Debug, Clone)]
pub struct ContentStore {
    layout: Arc<Layout>,
    growth: Arc<Growth>,
}

impl ContentStore {
    pub(crate) const fn new(layout: Arc<Layout>, growth: Arc<Growth>) -> Self {
        Self { layout, growth }
    }

    /// Begins a blob of at most `size_bytes_max` bytes.
    ///
    /// # Errors
    /// When no file can be made in the store.
    pub fn writer(&self, size_bytes_max: u64) -> Result<BlobWriter> {
        BlobWriter::new(Arc::clone(&self.layout), Arc::clone(&self.growth), size_bytes_max)
    }

    /// Takes in a stream that was announced. Reads nothing when the blob is there.
    ///
    /// # Errors
    /// When the stream fails, or is not what was announced: nothing is kept then. Reading stops one byte past the announced
    /// size.
    pub fn ingest(&self, reader: &mut dyn Read, expected: Expected) -> Result<()> {
        if self.contains(expected.digest)? {
            return Ok(());
        }
        let mut writer = self.writer(expected.size_bytes)?;
        let mut buffer = vec![0; COPY_BUFFER_BYTES];
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(Error::Receive { source }),
            };
            writer.push(&buffer[..count])?;
        }
        writer.commit(Some(expected)).map(drop)
    }

    /// Stores bytes that are at hand and returns their digest.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let expected = Expected { digest: Digest::of(bytes), size_bytes: bytes.len() as u64 };
        self.ingest(&mut &bytes[..], expected)?;
        Ok(expected.digest)
    }

    /// Opens a blob for reading; `None` when it is not there.
    ///
    /// # Errors
    /// When it is there but cannot be opened.
    pub fn open(&self, digest: Digest) -> Result<Option<File>> {
        open_blob(&self.layout, digest)
    }

    /// The contents of a blob of at most `size_bytes_max` bytes; `None` when it is not there.
    ///
    /// # Errors
    /// When it is larger, or cannot be read.
    pub fn read(&self, digest: Digest, size_bytes_max: u64) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.open(digest)? else { return Ok(None) };
        let path = || self.layout.blob(digest);
        let size_bytes = file.metadata().at("read the attributes of", path())?.len();
        // Room for all of it at once: most are small, and there are many.
        let room = size_bytes.min(size_bytes_max).saturating_add(1);
        let mut bytes = Vec::with_capacity(usize::try_from(room).unwrap_or(0));
        file.take(size_bytes_max.saturating_add(1)).read_to_end(&mut bytes).at("read", path())?;
        if bytes.len() as u64 > size_bytes_max {
            return Err(Error::TooLarge { limit: size_bytes_max });
        }
        Ok(Some(bytes))
    }

    /// The size of a blob in bytes; `None` when it is not there.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn size_bytes(&self, digest: Digest) -> Result<Option<u64>> {
        let Some(file) = self.open(digest)? else { return Ok(None) };
        Ok(Some(file.metadata().at("read the attributes of", self.layout.blob(digest))?.len()))
    }

    /// Whether a blob is there.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn contains(&self, digest: Digest) -> Result<bool> {
        Ok(self.open(digest)?.is_some())
    }

    /// The digests of all blobs, in no order.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self) -> Result<Vec<Digest>> {
        let root = self.layout.directory("content/sha256");
        let mut digests = Vec::new();
        for fan in fs::read_dir(&root).at("list", &root)? {
            let fan = fan.at("list", &root)?.path();
            for blob in fs::read_dir(&fan).at("list", &fan)? {
                let name = blob.at("list", &fan)?.file_name();
                digests.extend(name.to_str().and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok()));
            }
        }
        Ok(digests)
    }

    /// Copies a blob into `writer`.
    ///
    /// # Errors
    /// When it is not there, or reading or writing fails.
    pub fn copy_to(&self, digest: Digest, writer: &mut dyn Write) -> Result<u64> {
        let mut file = self.open(digest)?.ok_or(Error::BlobMissing(digest))?;
        Ok(io::copy(&mut file, writer).at("copy", self.layout.blob(digest))?)
    }
}

impl Store {
    /// Removes a blob that only passed through.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn discard_blob(&self, digest: Digest) -> Result<()> {
        self.discard(&self.0.layout.blob(digest))
    }
}

/// Opens a blob and marks it as used, so that it stays as long as the caller's lease; `None` when it is not there.
fn open_blob(layout: &Layout, digest: Digest) -> Result<Option<File>> {
    let path = layout.blob(digest);
    loop {
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.at("open", &path)?,
        };
        retry_on_intr(|| flock(&file, FlockOperation::LockShared)).at("lock", &path)?;
        let is_there = is_at(&file, &path)?;
        if is_there {
            stamp(&file).at("stamp", &path)?;
        }
        flock(&file, FlockOperation::Unlock).at("unlock", &path)?;
        if is_there {
            return Ok(Some(file));
        }
    }
}

/// Marks a blob as used now.
fn stamp(file: &File) -> io::Result<()> {
    let at = |nanoseconds| Timespec { tv_sec: 0, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: at(UTIME_OMIT), last_modification: at(UTIME_NOW) };
    Ok(futimens(file, &times)?)
}

#[cfg(test)]
mod tests;
