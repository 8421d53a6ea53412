//! A log: what a step printed, in chunks as they came, with their stream and time.
//!
//! ```text
//! chunk = stream: u8, milliseconds since the step began: u32, length: u32, bytes       little endian
//! ```
//!
//! A file that begins with zstd's magic number is a compressed log. What follows the last whole chunk is no part of it.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek as _};
use std::path::Path;

use crate::Result;
use crate::root_dir::At;

/// Logs up to this size are not worth a compression.
const PLAIN_SIZE_BYTES_MAX: u64 = 4096;
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const HEADER_BYTES: usize = 9;
/// The longest chunk that is read; chunks are what a pipe held.
const CHUNK_SIZE_BYTES_MAX: u32 = 16 << 20;

/// Which stream of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Something that a step printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    /// Where to.
    pub stream: LogStream,
    /// When, in milliseconds since the step began.
    pub at_ms: u32,
    /// What, as it came.
    pub bytes: Vec<u8>,
}

impl LogChunk {
    pub(super) fn encode(&self) -> Vec<u8> {
        let stream = match self.stream {
            LogStream::Stdout => 1u8,
            LogStream::Stderr => 2,
        };
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        [&[stream][..], &self.at_ms.to_le_bytes(), &length.to_le_bytes(), &self.bytes].concat()
    }

    /// `None` at the end, and where a process died while it wrote.
    fn decode(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut header = [0; HEADER_BYTES];
        if !filled(from.read_exact(&mut header))? {
            return Ok(None);
        }
        let [stream, t0, t1, t2, t3, l0, l1, l2, l3] = header;
        let stream = match stream {
            1 => LogStream::Stdout,
            2 => LogStream::Stderr,
            _ => return Ok(None),
        };
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        if length > CHUNK_SIZE_BYTES_MAX {
            return Ok(None);
        }
        let mut bytes = vec![0; length as usize];
        let whole = filled(from.read_exact(&mut bytes))?;
        Ok(whole.then(|| Self { stream, at_ms: u32::from_le_bytes([t0, t1, t2, t3]), bytes }))
    }
}

fn filled(read: io::Result<()>) -> io::Result<bool> {
    match read {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// The chunks of a log, in order.
pub struct LogReader(Box<dyn Read + Send>);

impl std::fmt::Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogReader").finish_non_exhaustive()
    }
}

impl LogReader {
    pub(super) fn open(path: &Path) -> Result<Option<Self>> {
        let mut file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.at("open", path)?,
        };
        let mut magic = [0; 4];
        let compressed = filled(file.read_exact(&mut magic)).at("read", path)? && magic == ZSTD_MAGIC;
        file.rewind().at("read", path)?;
        Ok(Some(Self(if compressed {
            Box::new(zstd::Decoder::new(file).at("read", path)?)
        } else {
            Box::new(BufReader::new(file))
        })))
    }
}

impl Iterator for LogReader {
    type Item = io::Result<LogChunk>;

    fn next(&mut self) -> Option<io::Result<LogChunk>> {
        LogChunk::decode(&mut self.0).transpose()
    }
}

/// Replaces a log by its compressed form, where that is worth it.
pub(super) fn compress(path: &Path, level: i32) -> Result<()> {
    let file = File::open(path).at("open", path)?;
    if file.metadata().at("read the attributes of", path)?.len() <= PLAIN_SIZE_BYTES_MAX {
        return Ok(());
    }
    let partial = path.with_extension("partial");
    let target = File::create(&partial).at("create", &partial)?;
    zstd::stream::copy_encode(file, target, level).at("compress", path)?;
    Ok(fs::rename(&partial, path).at("create", path)?)
}
