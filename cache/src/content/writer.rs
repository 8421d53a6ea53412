//! A blob on its way in.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use rbuild_image::{Digest, Hasher};

use super::{Expected, open_blob};
use crate::fail_point::FailPoint;
use crate::layout::Layout;
use crate::lock::LockFile;
use crate::prune::Growth;
use crate::root_dir::{At, PathError};
use crate::store::unique_name;
use crate::{Error, Result};

/// Writes one blob. Dropped without [`commit`](BlobWriter::commit), it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    layout: Arc<Layout>,
    growth: Arc<Growth>,
    file: LockFile,
    hasher: Hasher,
    size_bytes_max: u64,
}

impl BlobWriter {
    pub(super) fn new(layout: Arc<Layout>, growth: Arc<Growth>, size_bytes_max: u64) -> Result<Self> {
        let directory = layout.directory("ingest");
        loop {
            if let Some(file) = LockFile::try_lock(directory.join(unique_name()))? {
                return Ok(Self { layout, growth, file, hasher: Hasher::default(), size_bytes_max });
            }
        }
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when there are more than was said, or when the disk is full.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let size_bytes = self.hasher.size_bytes().saturating_add(bytes.len() as u64);
        if size_bytes > self.size_bytes_max {
            return Err(Error::TooLarge { limit: self.size_bytes_max });
        }
        FailPoint::BlobWrite.reach().at("write", self.file.path())?;
        self.file.file().write_all(bytes).at("write", self.file.path())?;
        self.hasher.update(bytes);
        Ok(())
    }

    /// Verifies the blob, makes it durable and gives it its name. Returns its digest and size in bytes.
    ///
    /// # Errors
    /// When it is not what was announced, or the disk is full; nothing is kept then.
    pub fn commit(mut self, expected: Option<Expected>) -> Result<(Digest, u64)> {
        let size_bytes = self.hasher.size_bytes();
        let digest = std::mem::take(&mut self.hasher).finish();
        if let Some(expected) = expected {
            verify(expected, digest, size_bytes)?;
        }
        // What is there may be in use by now, under its own stamp.
        if open_blob(&self.layout, digest)?.is_some() {
            return Ok((digest, size_bytes));
        }
        let (file, from) = (self.file.file(), self.file.path());
        let metadata = file.metadata().at("read the attributes of", from)?;
        let mut permissions = metadata.permissions();
        permissions.set_readonly(true);
        file.set_permissions(permissions).at("set the mode of", from)?;
        FailPoint::BlobSync.reach().at("sync", from)?;
        file.sync_data().at("sync", from)?;
        let to = self.layout.blob(digest);
        FailPoint::BlobRename.reach().at("create", &to)?;
        rename_making_directory(from, &to)?;
        self.file.renamed();
        self.growth.add_blob(size_bytes);
        FailPoint::BlobNamed.reach().at("create", &to)?;
        Ok((digest, size_bytes))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.push(buffer).map_err(io::Error::other)?;
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn verify(expected: Expected, digest: Digest, size_bytes: u64) -> Result<()> {
    if size_bytes < expected.size_bytes {
        return Err(Error::Truncated {
            digest: expected.digest,
            expected: expected.size_bytes,
            found: size_bytes,
        });
    }
    if size_bytes > expected.size_bytes {
        return Err(Error::TooLarge { limit: expected.size_bytes });
    }
    if digest != expected.digest {
        return Err(Error::DigestMismatch { expected: expected.digest, found: digest });
    }
    Ok(())
}

/// Renames into a directory that the first blob of a prefix has to make.
fn rename_making_directory(from: &Path, to: &Path) -> Result<(), PathError> {
    let Err(error) = fs::rename(from, to) else { return Ok(()) };
    if error.kind() != io::ErrorKind::NotFound {
        return Err(error).at("create", to);
    }
    let directory = to.parent().unwrap_or(to);
    fs::create_dir_all(directory).at("create", directory)?;
    fs::rename(from, to).at("create", to)
}
