//! gzip on several processors, as one member.
//!
//! The input is cut every [`BLOCK_BYTES`]. Each block is a raw deflate stream of its own that was given the last
//! [`DICTIONARY_BYTES`] of the block before as dictionary and that ends on a byte boundary (a *sync flush*),
//! so the streams can be put one after the other; only the last one carries the final mark. The checksum of
//! the whole is combined from those of the blocks. Nothing here depends on how many threads there are or on
//! the sizes of the writes.
//!
//! A block whose samples do not shrink (what is compressed already, or random) is stored as it is: to try costs
//! thirty times as much as to copy, and gains nothing.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

use flate2::{Compress, Compression as Level, Crc, FlushCompress, Status};
use rayon::{ThreadPool, Yield};

/// How much input one task compresses.
const BLOCK_BYTES: usize = 256 * 1024;

/// The reach of deflate.
const DICTIONARY_BYTES: usize = 32 * 1024;

/// How much of a block is tried to see whether it shrinks, in pieces spread over it.
const SAMPLES: usize = 8;
const SAMPLE_BYTES: usize = 2 * 1024;

/// Samples that keep more than this part of their size, in percent, are not worth the work.
const SAMPLE_PERCENT_MAX: usize = 98;

/// How many blocks per thread may be on their way; bounds memory to a few megabytes.
const BLOCKS_PER_THREAD_MAX: usize = 3;

/// Deflate, no flags, no time, no extra flags, unknown operating system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// Compresses what is written to it.
pub(super) struct GzipWriter<W> {
    out: W,
    level: Level,
    pool: Arc<ThreadPool>,
    block: Vec<u8>,
    dictionary: Arc<[u8]>,
    pending: VecDeque<Receiver<io::Result<Compressed>>>,
    checksum: Crc,
    header_written: bool,
}

struct Compressed {
    bytes: Vec<u8>,
    checksum: Crc,
}

impl<W: Write> GzipWriter<W> {
    pub(super) fn new(out: W, level: u32, pool: Arc<ThreadPool>) -> Self {
        Self {
            out,
            level: Level::new(level.min(9)),
            pool,
            block: Vec::with_capacity(BLOCK_BYTES),
            dictionary: Arc::from([]),
            pending: VecDeque::new(),
            checksum: Crc::new(),
            header_written: false,
        }
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.start_block(FlushCompress::Finish)?;
        while let Some(first) = self.pending.pop_front() {
            self.write_block(&first)?;
        }
        self.out.write_all(&self.checksum.sum().to_le_bytes())?;
        self.out.write_all(&self.checksum.amount().to_le_bytes())?;
        Ok(self.out)
    }

    fn start_block(&mut self, flush: FlushCompress) -> io::Result<()> {
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK_BYTES));
        let next_dictionary = Arc::from(&block[block.len().saturating_sub(DICTIONARY_BYTES)..]);
        let dictionary = std::mem::replace(&mut self.dictionary, next_dictionary);
        let (level, (send, receive)) = (self.level, sync_channel(1));
        self.pool.spawn(move || {
            // Nobody receives when the writer was dropped half-way: then nobody misses the block.
            let _unwanted = send.send(compress(&block, &dictionary, level, flush));
        });
        self.pending.push_back(receive);
        if self.pending.len() > self.pool.current_num_threads() * BLOCKS_PER_THREAD_MAX
            && let Some(first) = self.pending.pop_front()
        {
            self.write_block(&first)?;
        }
        Ok(())
    }

    fn write_block(&mut self, block: &Receiver<io::Result<Compressed>>) -> io::Result<()> {
        let compressed = self.wait_for(block)?;
        if !self.header_written {
            self.out.write_all(&HEADER)?;
            self.header_written = true;
        }
        self.checksum.combine(&compressed.checksum);
        self.out.write_all(&compressed.bytes)
    }

    /// Waits for a block. On a thread of the pool itself that means working, lest all threads wait for each other.
    fn wait_for(&self, block: &Receiver<io::Result<Compressed>>) -> io::Result<Compressed> {
        let lost = || io::Error::other("a compression task panicked");
        loop {
            match block.try_recv() {
                Ok(compressed) => return compressed,
                Err(TryRecvError::Disconnected) => return Err(lost()),
                Err(TryRecvError::Empty) if self.pool.yield_now() == Some(Yield::Executed) => {}
                Err(TryRecvError::Empty) => return block.recv().map_err(|_| lost())?,
            }
        }
    }
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.block.len() == BLOCK_BYTES {
            self.start_block(FlushCompress::Sync)?;
        }
        let count = buffer.len().min(BLOCK_BYTES - self.block.len());
        self.block.extend_from_slice(&buffer[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether samples of a block become smaller by the quickest compression.
fn shrinks(block: &[u8]) -> io::Result<bool> {
    let stride = block.len() / SAMPLES;
    if stride < SAMPLE_BYTES {
        return Ok(true);
    }
    let mut deflate = Compress::new(Level::fast(), false);
    let mut bytes = Vec::with_capacity(2 * SAMPLES * SAMPLE_BYTES);
    for sample in block.chunks(stride).take(SAMPLES) {
        deflate.compress_vec(&sample[..SAMPLE_BYTES], &mut bytes, FlushCompress::Sync)?;
    }
    Ok(bytes.len() * 100 <= SAMPLES * SAMPLE_BYTES * SAMPLE_PERCENT_MAX)
}

fn compress(block: &[u8], dictionary: &[u8], level: Level, flush: FlushCompress) -> io::Result<Compressed> {
    let level = if shrinks(block)? { level } else { Level::none() };
    let mut deflate = Compress::new(level, false);
    if !dictionary.is_empty() {
        deflate.set_dictionary(dictionary)?;
    }
    let mut bytes = Vec::with_capacity(block.len() / 2 + 64);
    loop {
        let consumed = deflate.total_in() as usize;
        let status = deflate.compress_vec(&block[consumed..], &mut bytes, flush)?;
        let all_consumed = deflate.total_in() as usize == block.len();
        // Room left over means that the flush is complete.
        if status == Status::StreamEnd
            || (all_consumed && bytes.len() < bytes.capacity() && flush == FlushCompress::Sync)
        {
            break;
        }
        bytes.reserve(block.len() / 2 + 64);
    }
    let mut checksum = Crc::new();
    checksum.update(block);
    Ok(Compressed { bytes, checksum })
}
