//! The compressed forms of a layer: recognised by their first bytes, read with a limit, written the same
//! every time.
//!
//! Reading knows what `ADD` must know: gzip, bzip2, xz and zstd, each also as several members in a row.
//! Writing knows what registries take: gzip and zstd.
//!
//! Both writers use the processors, and neither lets their number show: gzip is cut into blocks by size
//! alone, each block compressed with the end of the one before as its dictionary, and the parts are joined
//! into a single member; zstd gives the same bytes for any number of workers but zero, so there is always
//! one.

mod gzip;

use std::fmt;
use std::io::{self, BufReader, Cursor, Read, Write};
use std::sync::Arc;

use rayon::ThreadPool;

use self::gzip::GzipWriter;
use super::{Error, LAYER_SIZE_BYTES_MAX};

/// The size of reads from compressed input.
const INPUT_BUFFER_BYTES: usize = 128 * 1024;

/// The memory that an xz archive may ask for; its largest preset takes 65 MiB.
const XZ_MEMORY_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// How many bytes of a stream tell its compression.
pub const MAGIC_BYTES: usize = 6;

/// A form of compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// The bytes themselves.
    None,
    /// RFC 1952.
    Gzip,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
    /// RFC 8878.
    Zstd,
}

/// Recognises a compression by the first [`MAGIC_BYTES`] of a stream, or as many as there are.
pub fn detect(first_bytes: &[u8]) -> Compression {
    const MAGICS: [(&[u8], Compression); 4] = [
        (b"\x1f\x8b\x08", Compression::Gzip),
        (b"BZh", Compression::Bzip2),
        (b"\xfd7zXZ\0", Compression::Xz),
        (b"\x28\xb5\x2f\xfd", Compression::Zstd),
    ];
    MAGICS
        .iter()
        .find(|(magic, _)| first_bytes.starts_with(magic))
        .map_or(Compression::None, |(_, compression)| *compression)
}

/// Reads a layer blob of any compression, up to [`LAYER_SIZE_BYTES_MAX`].
pub fn decompress<R: Read>(input: R) -> Result<Decoder<R>, Error> {
    Decoder::new(input, LAYER_SIZE_BYTES_MAX).map_err(Error::Read)
}

/// Reads what a compressed stream holds, up to a limit.
pub struct Decoder<R: Read> {
    inner: Inner<R>,
    compression: Compression,
    size_bytes: u64,
    size_bytes_max: u64,
}

/// The stream with its first bytes put back.
type Input<R> = BufReader<io::Chain<Cursor<Vec<u8>>, R>>;

enum Inner<R: Read> {
    None(Input<R>),
    Gzip(flate2::bufread::MultiGzDecoder<Input<R>>),
    Bzip2(bzip2::bufread::MultiBzDecoder<Input<R>>),
    Xz(liblzma::bufread::XzDecoder<Input<R>>),
    Zstd(zstd::stream::read::Decoder<'static, Input<R>>),
}

impl<R: Read> fmt::Debug for Decoder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").field("compression", &self.compression).finish_non_exhaustive()
    }
}

impl<R: Read> Decoder<R> {
    /// Starts to read a stream whose compression its first bytes tell. More than `size_bytes_max` bytes are
    /// an error of the kind [`io::ErrorKind::FileTooLarge`].
    pub fn new(mut reader: R, size_bytes_max: u64) -> io::Result<Self> {
        let mut first = vec![0; MAGIC_BYTES];
        let seen = read_up_to(&mut reader, &mut first)?;
        first.truncate(seen);
        let compression = detect(&first);
        let input = BufReader::with_capacity(INPUT_BUFFER_BYTES, Cursor::new(first).chain(reader));
        let inner = match compression {
            Compression::None => Inner::None(input),
            Compression::Gzip => Inner::Gzip(flate2::bufread::MultiGzDecoder::new(input)),
            Compression::Bzip2 => Inner::Bzip2(bzip2::bufread::MultiBzDecoder::new(input)),
            Compression::Xz => {
                let flags = liblzma::stream::CONCATENATED;
                let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_BYTES_MAX, flags)?;
                Inner::Xz(liblzma::bufread::XzDecoder::new_stream(input, stream))
            }
            Compression::Zstd => Inner::Zstd(zstd::stream::read::Decoder::with_buffer(input)?),
        };
        Ok(Self { inner, compression, size_bytes: 0, size_bytes_max })
    }

    /// What the stream was found to be.
    pub const fn compression(&self) -> Compression {
        self.compression
    }
}

/// Reads until `first` is full or the stream ends, which may take several reads from a pipe.
fn read_up_to(reader: &mut impl Read, first: &mut [u8]) -> io::Result<usize> {
    let mut seen = 0;
    while seen < first.len() {
        match reader.read(&mut first[seen..]) {
            Ok(0) => break,
            Ok(count) => seen += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(seen)
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match &mut self.inner {
            Inner::None(inner) => inner.read(buffer),
            Inner::Gzip(inner) => inner.read(buffer),
            Inner::Bzip2(inner) => inner.read(buffer),
            Inner::Xz(inner) => inner.read(buffer),
            Inner::Zstd(inner) => inner.read(buffer),
        }?;
        self.size_bytes += count as u64;
        if self.size_bytes > self.size_bytes_max {
            let limit = self.size_bytes_max;
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("expands beyond the limit of {limit} bytes"),
            ));
        }
        Ok(count)
    }
}

/// How a layer is to be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all.
    None,
    /// gzip, level 0 to 9.
    Gzip {
        /// 6 is the common choice.
        level: u32,
    },
    /// zstd, level 1 to 22.
    Zstd {
        /// 3 is the common choice.
        level: i32,
    },
}

/// Compresses what is written to it. Must be finished; a dropped encoder leaves a truncated stream.
pub struct Encoder<W: Write>(Output<W>);

enum Output<W: Write> {
    None(W),
    Gzip(GzipWriter<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> fmt::Debug for Encoder<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encoder")
    }
}

impl<W: Write> Encoder<W> {
    /// Starts a compressed stream. gzip works on `pool`; zstd starts as many threads of its own as the pool has.
    pub fn new(out: W, encoding: Encoding, pool: &Arc<ThreadPool>) -> io::Result<Self> {
        Ok(Self(match encoding {
            Encoding::None => Output::None(out),
            Encoding::Gzip { level } => Output::Gzip(GzipWriter::new(out, level, Arc::clone(pool))),
            Encoding::Zstd { level } => {
                let mut encoder = zstd::stream::write::Encoder::new(out, level)?;
                let workers = u32::try_from(pool.current_num_threads()).unwrap_or(1).max(1);
                encoder.multithread(workers)?;
                encoder.include_checksum(true)?;
                Output::Zstd(encoder)
            }
        }))
    }

    /// Ends the stream and returns the output, which is not flushed.
    pub fn finish(self) -> io::Result<W> {
        match self.0 {
            Output::None(out) => Ok(out),
            Output::Gzip(encoder) => encoder.finish(),
            Output::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Output::None(out) => out.write(buffer),
            Output::Gzip(encoder) => encoder.write(buffer),
            Output::Zstd(encoder) => encoder.write(buffer),
        }
    }

    /// Does nothing for compressed streams: a flush in the middle would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Output::None(out) => out.flush(),
            _ => Ok(()),
        }
    }
}
