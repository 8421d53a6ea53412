//! Reading, decompressing and hashing on one thread while another unpacks.
//!
//! The reading thread is the one that reads to the very end, so the digest covers all bytes, those behind the
//! archive's end mark included.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use rbuild_image::{Digest, Hasher};

use super::Error;

const CHUNK_BYTES: usize = 128 * 1024;

/// How many chunks may wait to be unpacked.
const CHUNKS_AHEAD_MAX: usize = 8;

/// The bytes that the reading thread has passed on.
#[derive(Debug)]
pub(super) struct ReadAhead {
    chunks: Receiver<io::Result<Vec<u8>>>,
    empties: Sender<Vec<u8>>,
    chunk: Vec<u8>,
    used: usize,
}

/// Lets `consume` read what `input` yields, and hashes all of it. On success the input has been read to its end.
pub(super) fn read_ahead<T>(
    input: &mut (dyn Read + Send),
    consume: impl FnOnce(&mut ReadAhead) -> Result<T, Error>,
) -> Result<(T, Digest, u64), Error> {
    let (send, chunks) = sync_channel(CHUNKS_AHEAD_MAX);
    let (empties, reuse) = channel();
    thread::scope(|scope| {
        let reading = scope.spawn(move || read_and_hash(input, &send, &reuse));
        let mut ahead = ReadAhead { chunks, empties, chunk: Vec::new(), used: 0 };
        let consumed = consume(&mut ahead).and_then(|value| {
            ahead.drain().map_err(Error::Read)?;
            Ok(value)
        });
        // The reader stops when nobody takes its chunks any more.
        drop(ahead);
        let hasher =
            reading.join().map_err(|_| Error::Read(io::Error::other("the reading thread panicked")))?;
        let (value, size_bytes) = (consumed?, hasher.size_bytes());
        Ok((value, hasher.finish(), size_bytes))
    })
}

fn read_and_hash(
    input: &mut (dyn Read + Send),
    chunks: &SyncSender<io::Result<Vec<u8>>>,
    empties: &Receiver<Vec<u8>>,
) -> Hasher {
    let mut hasher = Hasher::default();
    loop {
        let mut chunk = empties.try_recv().unwrap_or_default();
        chunk.clear();
        let read = Read::take(&mut *input, CHUNK_BYTES as u64).read_to_end(&mut chunk);
        hasher.update(&chunk);
        let at_end = chunk.is_empty() || read.is_err();
        if chunks.send(read.map(|_| chunk)).is_err() || at_end {
            return hasher;
        }
    }
}

impl ReadAhead {
    fn drain(&mut self) -> io::Result<()> {
        loop {
            let count = self.fill_buf()?.len();
            if count == 0 {
                return Ok(());
            }
            self.consume(count);
        }
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        // A closed channel is the end: the reader has sent an empty chunk or an error before.
        let Ok(next) = self.chunks.recv() else { return Ok(()) };
        let used = std::mem::replace(&mut self.chunk, next?);
        self.used = 0;
        // When the reader has ended, nobody wants empty chunks.
        let _unwanted = self.empties.send(used);
        Ok(())
    }
}

impl Read for ReadAhead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for ReadAhead {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.used == self.chunk.len() {
            self.next_chunk()?;
        }
        Ok(&self.chunk[self.used..])
    }

    fn consume(&mut self, count: usize) {
        self.used += count;
    }
}
