//! Bytes that are written on one thread and read on another, as they come.
//!
//! Not a pipe: a writer that fails must be seen to have failed. What it left would look like a whole, and a blob that has no
//! name yet would be given the name of a part.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::ImageError;

/// What one message carries.
const PIECE_BYTES: usize = 128 * 1024;
/// How many pieces may wait to be read.
const PIECES_AHEAD_MAX: usize = 8;

/// A piece; the last one is empty.
type Piece = io::Result<Vec<u8>>;

/// Reads what `write` writes, on a thread of its own. Ends, without an error, only when that has succeeded.
pub(crate) fn produced(
    write: impl FnOnce(&mut dyn Write) -> Result<(), ImageError> + Send + 'static,
) -> impl Read + Send {
    let (mut sending, received) = channel();
    thread::spawn(move || {
        let written = write(&mut sending);
        sending.finish(written.map_err(io::Error::other));
    });
    received
}

/// Two ends: what is written to one is read from the other, on another thread.
pub(super) fn channel() -> (Sending, Received) {
    let (sender, pieces) = sync_channel(PIECES_AHEAD_MAX);
    let sending = Sending { pieces: sender, piece: Vec::with_capacity(PIECE_BYTES), is_abandoned: false };
    (sending, Received { pieces, piece: Vec::new(), used: 0, ended: false })
}

/// The end that is written to. Has to be finished: dropped, it is one that failed.
pub(super) struct Sending {
    pieces: SyncSender<Piece>,
    piece: Vec<u8>,
    is_abandoned: bool,
}

impl Sending {
    /// Says how it ended.
    pub(super) fn finish(mut self, written: io::Result<()>) {
        let last = written.and_then(|()| self.flush()).map(|()| Vec::new());
        // A reader that went away misses nothing.
        drop(self.pieces.send(last));
    }

    /// Whether the reader has gone.
    pub(super) const fn is_abandoned(&self) -> bool {
        self.is_abandoned
    }
}

impl Write for Sending {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.piece.len() == PIECE_BYTES {
            self.flush()?;
        }
        let count = buffer.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(&buffer[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES));
        self.pieces.send(Ok(piece)).map_err(|_| {
            self.is_abandoned = true;
            io::ErrorKind::BrokenPipe.into()
        })
    }
}

/// The end that is read.
pub(super) struct Received {
    pieces: Receiver<Piece>,
    piece: Vec<u8>,
    used: usize,
    ended: bool,
}

impl Read for Received {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.used == self.piece.len() && !self.ended {
            let lost = |_| io::Error::other("the writing thread panicked");
            self.piece = self.pieces.recv().map_err(lost)??;
            self.used = 0;
            self.ended = self.piece.is_empty();
        }
        let count = (self.piece.len() - self.used).min(buffer.len());
        buffer[..count].copy_from_slice(&self.piece[self.used..][..count]);
        self.used += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let bytes: Vec<u8> = (0..3_000_000u32).map(|number| number.to_le_bytes()[0]).collect();
        let written = bytes.clone();
        let mut reader = produced(move |out| {
            let failed = ImageError::io("write", "here");
            written.chunks(10_007).try_for_each(|part| out.write_all(part)).map_err(failed)
        });
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        assert!(read == bytes);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_writer_that_fails_is_no_end() {
        let mut reader = produced(|out| {
            out.write_all(b"part").map_err(ImageError::io("write", "here"))?;
            Err(ImageError::Cancelled)
        });
        let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "cancelled");
        assert!(produced(|_| panic!("as planned")).read(&mut [0]).is_err());
    }
}
