//! Bytes that are written on one thread and read on another, as they come.
//!
//! Not a pipe: a writer that fails must be seen to have failed. What it left would look like a whole, and a blob that has no
//! name yet would be given the name of a part.

use std::io::{self, BufWriter, Read, Write};
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
pub(super) fn produced(
    write: impl FnOnce(&mut dyn Write) -> Result<(), ImageError> + Send + 'static,
) -> impl Read + Send {
    let (sender, pieces) = sync_channel(PIECES_AHEAD_MAX);
    thread::spawn(move || {
        let mut out = BufWriter::with_capacity(PIECE_BYTES, Sending(sender.clone()));
        let last = match write(&mut out) {
            Ok(()) => out.flush().map(|()| Vec::new()),
            Err(error) => Err(io::Error::other(error)),
        };
        // A reader that went away misses nothing.
        drop(sender.send(last));
    });
    Received { pieces, piece: Vec::new(), used: 0, ended: false }
}

struct Sending(SyncSender<Piece>);

impl Write for Sending {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if !buffer.is_empty() {
            let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
            self.0.send(Ok(buffer.to_vec())).map_err(gone)?;
        }
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Received {
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
