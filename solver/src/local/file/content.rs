//! The bytes of a file: shared where the file system can, copied by the kernel where it can, holes kept.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{SeekFrom, Stat, copy_file_range, ftruncate, ioctl_ficlone, seek};
use rustix::io::{Errno, pread, pwrite, read, write};

use super::run::Run;

/// Files up to this size are read and written in one go: a call that tries anything else costs more.
const SMALL_SIZE_BYTES_MAX: u64 = 128 * 1024;
/// How much is copied between two looks at the cancel flag.
const STEP_BYTES: u64 = 8 << 20;
/// What `st_blocks` counts.
const BLOCK_BYTES: u64 = 512;

/// The space that small files are read into. One per thread of work.
pub(super) struct Buffer(Vec<u8>);

/// What the two file systems can do with each other, found out by trying once.
#[derive(Debug)]
pub(super) struct Ladder {
    clone: AtomicBool,
    copy_range: AtomicBool,
}

/// Why content was not copied.
#[derive(Debug)]
pub(super) enum ContentError {
    Read(Errno),
    Write(Errno),
    Cancelled,
}

impl Buffer {
    pub(super) fn new() -> Self {
        Self(vec![0; SMALL_SIZE_BYTES_MAX as usize + 1])
    }
}

impl Ladder {
    pub(super) const fn new() -> Self {
        Self { clone: AtomicBool::new(true), copy_range: AtomicBool::new(true) }
    }
}

/// Copies the content of `from`, positioned at its start, into the empty file `to`. Returns the size.
pub(super) fn copy(
    run: &Run<'_>,
    ladder: &Ladder,
    files: (BorrowedFd<'_>, BorrowedFd<'_>),
    stat: &Stat,
    buffer: &mut Buffer,
) -> Result<u64, ContentError> {
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if size <= SMALL_SIZE_BYTES_MAX {
        return copy_small(files, buffer);
    }
    let (from, to) = files;
    if ladder.clone.load(Ordering::Relaxed) {
        match ioctl_ficlone(to, from) {
            Ok(()) => return Ok(size),
            Err(_) => ladder.clone.store(false, Ordering::Relaxed),
        }
    }
    let sparse = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(BLOCK_BYTES) < size;
    let mut copier = Copier { run, ladder, from, to, buffer };
    if sparse { copier.data_only(size) } else { copier.range(0, size).map(|()| size) }
}

/// One read and one write for nearly every file. A file that grew meanwhile is read to its end.
fn copy_small(files: (BorrowedFd<'_>, BorrowedFd<'_>), buffer: &mut Buffer) -> Result<u64, ContentError> {
    let mut total = 0;
    loop {
        let count = retry(|| read(files.0, buffer.0.as_mut_slice())).map_err(ContentError::Read)?;
        write_all(files.1, &buffer.0[..count]).map_err(ContentError::Write)?;
        total += count as u64;
        if count < buffer.0.len() {
            return Ok(total);
        }
    }
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let written = retry(|| write(to, bytes))?;
        bytes = &bytes[written..];
    }
    Ok(())
}

struct Copier<'a> {
    run: &'a Run<'a>,
    ladder: &'a Ladder,
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    buffer: &'a mut Buffer,
}

impl Copier<'_> {
    /// Copies what is not a hole, and makes the file as long as the original.
    fn data_only(&mut self, size: u64) -> Result<u64, ContentError> {
        let mut at = 0;
        while at < size {
            let data = match seek(self.from, SeekFrom::Data(at)) {
                Ok(data) => data,
                // A hole up to the end.
                Err(Errno::NXIO) => break,
                Err(errno) => return Err(ContentError::Read(errno)),
            };
            let hole = seek(self.from, SeekFrom::Hole(data)).map_err(ContentError::Read)?;
            self.range(data, hole.min(size))?;
            at = hole;
        }
        ftruncate(self.to, size).map_err(ContentError::Write)?;
        Ok(size)
    }

    fn range(&mut self, start: u64, end: u64) -> Result<(), ContentError> {
        let mut at = start;
        while at < end {
            self.run.check_cancelled().map_err(|_| ContentError::Cancelled)?;
            let step = STEP_BYTES.min(end - at);
            let copied =
                if self.ladder.copy_range.load(Ordering::Relaxed) { self.by_kernel(at, step)? } else { 0 };
            let copied = if copied == 0 { self.by_hand(at, step)? } else { copied };
            if copied == 0 {
                // Shorter than it was: what is there is copied.
                return Ok(());
            }
            at += copied;
        }
        Ok(())
    }

    /// 0 when the kernel cannot copy between these two, or thinks that there is nothing.
    fn by_kernel(&self, at: u64, length: u64) -> Result<u64, ContentError> {
        let (mut from_at, mut to_at) = (at, at);
        match copy_file_range(self.from, Some(&mut from_at), self.to, Some(&mut to_at), length as usize) {
            Ok(copied) => Ok(copied as u64),
            Err(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => Err(ContentError::Write(errno)),
            Err(Errno::INTR) => Ok(0),
            Err(_) => {
                self.ladder.copy_range.store(false, Ordering::Relaxed);
                Ok(0)
            }
        }
    }

    fn by_hand(&mut self, at: u64, length: u64) -> Result<u64, ContentError> {
        let wanted = self.buffer.0.len().min(length as usize);
        let buffer = &mut self.buffer.0[..wanted];
        let count = retry(|| pread(self.from, &mut *buffer, at)).map_err(ContentError::Read)?;
        let mut done = 0;
        while done < count {
            let written = retry(|| pwrite(self.to.as_fd(), &buffer[done..count], at + done as u64));
            done += written.map_err(ContentError::Write)?;
        }
        Ok(count as u64)
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}
