//! Reading tar archives from strangers.
//!
//! The grammar is tar-core's: v7, ustar, PAX and GNU, sparse files of all four kinds. This module does the
//! reading, and closes the gaps where readers disagree about one archive, which is how archives are made that
//! show one tree to a scanner and another to an engine:
//!
//! * An entry that is no regular file has no content, whatever its size field says (as in Go's reader, the
//!   reference).
//! * A PAX number that cannot be parsed makes the archive malformed; it does not fall back to the header's.
//! * The parts of a sparse file must be in order, within the file, and add up to the data that follows.
//! * A v7 header whose name ends in a slash is a directory.
//! * Times before 1970 are read, from PAX records, which tar-core refuses, and from GNU's binary form, which
//!   it takes for far future; other binary numbers must fit.
//!
//! Global PAX headers are ignored, as Docker does. The end is two zero blocks or the end of the input between
//! entries.

use std::io::{self, BufRead, Read};
use std::path::PathBuf;

use tar_core::parse::{Limits as ParseLimits, ParseError, ParseEvent, ParsedEntry, Parser};
use tar_core::{EntryType, Header, PaxExtensions};

use super::bytes_path;
use super::error::{Error, Refusal};
use super::tar::Attribute;

/// The unit of a tar archive.
const BLOCK_BYTES: usize = 512;

/// The longest path or link target: Linux's `PATH_MAX`.
pub const PATH_BYTES_MAX: u32 = 4096;

/// What PAX records, long names and long link targets of one entry may take together.
pub const METADATA_BYTES_MAX: u32 = 1024 * 1024;

/// How many parts of data a sparse file may have.
pub const SPARSE_PARTS_MAX: usize = 10_000;

/// The most that the headers of one entry can take, its sparse map included; past it the archive is malformed.
const HEADERS_BYTES_MAX: usize = 2 * METADATA_BYTES_MAX as usize;

/// Linux has twelve bits for a device's major number and twenty for the minor one; mknod(2) drops others.
const DEVICE_MAJOR_END: u32 = 1 << 12;
const DEVICE_MINOR_END: u32 = 1 << 20;

/// A point in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Time {
    /// Seconds since 1970, rounded down.
    pub seconds: i64,
    /// Nanoseconds after that, below 10⁹.
    pub nanoseconds: u32,
}

impl Time {
    /// A time in nanoseconds since 1970.
    pub const fn of_nanoseconds(nanoseconds: i64) -> Self {
        const SECOND: i64 = 1_000_000_000;
        Self { seconds: nanoseconds.div_euclid(SECOND), nanoseconds: nanoseconds.rem_euclid(SECOND) as u32 }
    }
}

/// A part of a sparse file that holds data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Where in the file.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
}

/// An entry as the archive describes it; nothing in it has been checked against a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path as written: perhaps absolute, with `..`, with a slash at its end.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, with set-id and sticky bits.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The owning group.
    pub gid: u32,
    /// The time of the last modification.
    pub mtime: Time,
    /// Extended attributes by full name.
    pub xattrs: Vec<Attribute>,
}

/// The kinds of entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File {
        /// Its size, holes included.
        size_bytes: u64,
        /// Where its data goes, when it has holes: in order, without overlap, within the size.
        parts: Option<Vec<Part>>,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// The target as written.
        target: Vec<u8>,
    },
    /// Another name of an earlier entry.
    HardLink {
        /// The path of that entry, as written.
        target: Vec<u8>,
    },
    /// A device.
    Device {
        /// Block rather than character.
        block: bool,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

impl Entry {
    /// The path for messages and for the file system.
    pub fn path_buf(&self) -> PathBuf {
        bytes_path(&self.path).to_owned()
    }
}

/// Reads an archive entry by entry; as [`Read`], the content of the current one.
///
/// What is not read of a content is skipped. The content of a sparse file is its parts of data, one after the
/// other.
#[derive(Debug)]
pub struct TarReader<R> {
    input: R,
    parser: Parser,
    /// Bytes taken from the input and not used yet: headers in the making, rarely some content behind them.
    ahead: Vec<u8>,
    /// Bytes of the archive that were understood.
    offset: u64,
    content_left: u64,
    padding: u64,
    current: PathBuf,
}

/// What one look at the bytes ahead gave.
enum Step {
    Need(usize),
    Skip(usize),
    Entry(usize, Box<Entry>, u64),
    End(usize),
}

impl<R: BufRead> TarReader<R> {
    /// Starts at the first header.
    pub fn new(input: R) -> Self {
        let mut parser = Parser::new(ParseLimits {
            max_metadata_size: METADATA_BYTES_MAX,
            max_path_len: Some(PATH_BYTES_MAX),
            max_sparse_entries: SPARSE_PARTS_MAX,
            ..ParseLimits::default()
        });
        // Numbers are checked here instead: the parser would refuse times before 1970.
        parser.set_ignore_pax_errors(true);
        let current = PathBuf::new();
        Self { input, parser, ahead: Vec::new(), offset: 0, content_left: 0, padding: 0, current }
    }

    /// The next entry, or `None` at the end of the archive.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        self.skip_content()?;
        let mut need = BLOCK_BYTES;
        loop {
            if !self.fill_ahead(need)? {
                return self.end_of_input();
            }
            match self.step()? {
                Step::Need(bytes) => need = bytes.max(self.ahead.len() + BLOCK_BYTES),
                Step::Skip(consumed) => {
                    self.consume_ahead(consumed);
                    need = BLOCK_BYTES;
                }
                Step::Entry(consumed, entry, content_bytes) => {
                    self.consume_ahead(consumed);
                    self.content_left = content_bytes;
                    self.padding = content_bytes.wrapping_neg() % BLOCK_BYTES as u64;
                    self.current = entry.path_buf();
                    return Ok(Some(*entry));
                }
                Step::End(consumed) => {
                    self.consume_ahead(consumed);
                    return Ok(None);
                }
            }
        }
    }

    /// Bytes of the archive up to the current place.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Passes the next `length` bytes of the content on, as they come.
    pub fn copy_content(
        &mut self,
        length: u64,
        mut sink: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut left = length;
        while left > 0 {
            let bytes = self.fill_content()?;
            let count = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            sink(&bytes[..count])?;
            self.consume_content(count);
            left -= count as u64;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<Step, Error> {
        let offset = self.offset;
        let malformed = |source| Error::Malformed { offset, source };
        match self.parser.parse(&self.ahead) {
            Ok(ParseEvent::NeedData { min_bytes }) => Ok(Step::Need(min_bytes)),
            Ok(ParseEvent::GlobalExtensions { consumed, .. }) => Ok(Step::Skip(consumed)),
            Ok(ParseEvent::End { consumed }) => Ok(Step::End(consumed)),
            Ok(ParseEvent::Entry { consumed, entry }) => {
                let (entry, content_bytes) = convert(&entry, None, malformed)?;
                Ok(Step::Entry(consumed, Box::new(entry), content_bytes))
            }
            Ok(ParseEvent::SparseEntry { consumed, entry, sparse_map, real_size }) => {
                let parts = sparse_map.iter().map(|part| Part { offset: part.offset, length: part.length });
                let sparse = Some((parts.collect(), real_size));
                let (entry, content_bytes) = convert(&entry, sparse, malformed)?;
                Ok(Step::Entry(consumed, Box::new(entry), content_bytes))
            }
            Err(source) => Err(malformed(source)),
        }
    }

    /// Gets at least `need` bytes ahead; `false` when the input ends before.
    fn fill_ahead(&mut self, need: usize) -> Result<bool, Error> {
        if need > HEADERS_BYTES_MAX {
            return Err(Error::limit(&self.current, "bytes of headers per entry", HEADERS_BYTES_MAX as u64));
        }
        while self.ahead.len() < need {
            let available = self.input.fill_buf().map_err(Error::Read)?;
            if available.is_empty() {
                return Ok(false);
            }
            let count = available.len().min(need - self.ahead.len());
            self.ahead.extend_from_slice(&available[..count]);
            self.input.consume(count);
        }
        Ok(true)
    }

    fn consume_ahead(&mut self, count: usize) {
        self.ahead.drain(..count);
        self.offset += count as u64;
    }

    /// The input ended while a header was read: fine between entries, and after a single zero block.
    fn end_of_input(&self) -> Result<Option<Entry>, Error> {
        let is_rest_of_end = self.ahead.len() <= BLOCK_BYTES && self.ahead.iter().all(|byte| *byte == 0);
        if is_rest_of_end {
            return Ok(None);
        }
        let offset = self.offset;
        Err(Error::Malformed {
            offset,
            source: ParseError::UnexpectedEof { pos: offset + self.ahead.len() as u64 },
        })
    }

    fn skip_content(&mut self) -> Result<(), Error> {
        self.copy_content(self.content_left, |_| Ok(()))?;
        self.content_left = std::mem::take(&mut self.padding);
        self.copy_content(self.content_left, |_| Ok(()))
    }

    /// Bytes of the content that are at hand; at least one while there is content left.
    fn fill_content(&mut self) -> Result<&[u8], Error> {
        let bytes =
            if self.ahead.is_empty() { self.input.fill_buf().map_err(Error::Read)? } else { &self.ahead };
        if bytes.is_empty() {
            return Err(Error::Truncated { path: self.current.clone() });
        }
        let count = bytes.len().min(usize::try_from(self.content_left).unwrap_or(usize::MAX));
        Ok(&bytes[..count])
    }

    fn consume_content(&mut self, count: usize) {
        if self.ahead.is_empty() {
            self.input.consume(count);
        } else {
            self.ahead.drain(..count);
        }
        self.offset += count as u64;
        self.content_left -= count as u64;
    }
}

impl<R: BufRead> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.content_left == 0 {
            return Ok(0);
        }
        let bytes = self.fill_content().map_err(|error| match error {
            Error::Read(error) => error,
            other => io::Error::new(io::ErrorKind::UnexpectedEof, other),
        })?;
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        self.consume_content(count);
        Ok(count)
    }
}

/// Whether what a stream starts with is a tar archive with so many entries. Reads as far as the header of the last of
/// these goes.
pub fn starts_with_entries(input: impl BufRead, count: usize) -> bool {
    let mut tar = TarReader::new(input);
    (0..count).all(|_| matches!(tar.next_entry(), Ok(Some(_))))
}

type Sparse = Option<(Vec<Part>, u64)>;

/// Checks an entry, and says how many bytes of content follow it.
fn convert(
    parsed: &ParsedEntry<'_>,
    sparse: Sparse,
    malformed: impl Fn(ParseError) -> Error,
) -> Result<(Entry, u64), Error> {
    let path = parsed.path.to_vec();
    let refused = |reason| Error::refused(bytes_path(&parsed.path), reason);
    let pax_mtime = check_records(parsed.pax.unwrap_or_default()).map_err(malformed)?;
    let header_seconds = binary_time(parsed.header);
    let seconds = header_seconds.unwrap_or_else(|| i64::try_from(parsed.mtime).unwrap_or(i64::MAX));
    // The largest number means "unchanged" to chown(2).
    let owner = |id: u64| match u32::try_from(id) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(refused(Refusal::NumberOutOfRange)),
    };
    if path.contains(&0) {
        return Err(refused(Refusal::NulByte));
    }
    let header = parsed.header.as_bytes();
    if [108..116, 116..124, 124..136].into_iter().any(|field| overflows(&header[field])) {
        return Err(refused(Refusal::NumberOutOfRange));
    }
    let kind = kind_of(parsed, sparse).map_err(refused)?;
    let content_bytes = if matches!(kind, Kind::File { .. }) { parsed.size } else { 0 };
    let entry = Entry {
        path,
        kind,
        mode: parsed.mode & 0o7777,
        uid: owner(parsed.uid)?,
        gid: owner(parsed.gid)?,
        mtime: pax_mtime.unwrap_or(Time { seconds, nanoseconds: 0 }),
        xattrs: parsed.xattrs.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
    };
    Ok((entry, content_bytes))
}

fn kind_of(parsed: &ParsedEntry<'_>, sparse: Sparse) -> Result<Kind, Refusal> {
    const V7_FILE: u8 = 0;
    if parsed.header.as_bytes()[156] == V7_FILE && parsed.path.ends_with(b"/") {
        return Ok(Kind::Directory);
    }
    let target = || match parsed.link_target.as_deref() {
        Some(target) if target.contains(&0) => Err(Refusal::NulByte),
        Some(target) => Ok(target.to_vec()),
        None => Err(Refusal::NoTarget),
    };
    let device = |block| {
        let (major, minor) = (parsed.dev_major.unwrap_or_default(), parsed.dev_minor.unwrap_or_default());
        let fits = major < DEVICE_MAJOR_END && minor < DEVICE_MINOR_END;
        if fits { Ok(Kind::Device { block, major, minor }) } else { Err(Refusal::NumberOutOfRange) }
    };
    match parsed.entry_type {
        EntryType::Regular | EntryType::Continuous | EntryType::GnuSparse => file_kind(parsed.size, sparse),
        EntryType::Directory => Ok(Kind::Directory),
        EntryType::Symlink => Ok(Kind::Symlink { target: target()? }),
        EntryType::Link => Ok(Kind::HardLink { target: target()? }),
        EntryType::Char => device(false),
        EntryType::Block => device(true),
        EntryType::Fifo => Ok(Kind::Fifo),
        _ => Err(Refusal::UnknownKind),
    }
}

fn file_kind(content_bytes: u64, sparse: Sparse) -> Result<Kind, Refusal> {
    let Some((parts, size_bytes)) = sparse else {
        return Ok(Kind::File { size_bytes: content_bytes, parts: None });
    };
    let (mut end, mut data_bytes) = (0u64, 0u64);
    for part in &parts {
        if part.offset < end {
            return Err(Refusal::SparseMap);
        }
        end = part.offset.checked_add(part.length).ok_or(Refusal::SparseMap)?;
        data_bytes += part.length;
    }
    if end > size_bytes || data_bytes != content_bytes {
        return Err(Refusal::SparseMap);
    }
    Ok(Kind::File { size_bytes, parts: Some(parts) })
}

/// Checks the numbers of PAX records, which the parser was told to be lenient about, and returns the time.
fn check_records(records: &[u8]) -> Result<Option<Time>, ParseError> {
    let mut mtime = None;
    for record in PaxExtensions::new(records) {
        let record = record?;
        let (key, value) = (record.key()?, record.value_bytes());
        let key = match key {
            "mtime" => {
                mtime = Some(parse_time(value).ok_or(bad_value("mtime"))?);
                continue;
            }
            "size" => "size",
            "uid" => "uid",
            "gid" => "gid",
            _ if key.starts_with("GNU.sparse.") && key != "GNU.sparse.name" && key != "GNU.sparse.map" => {
                "GNU.sparse.*"
            }
            "GNU.sparse.map" if !value.is_ascii() => return Err(bad_value("GNU.sparse.map")),
            _ => continue,
        };
        let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
        number.ok_or(bad_value(key))?;
    }
    Ok(mtime)
}

fn bad_value(key: &'static str) -> ParseError {
    ParseError::InvalidPaxValue { key, value: "<not a number>".into() }
}

/// Parses `-12.345`: seconds, with a fraction of any length.
fn parse_time(text: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    Some(if nanoseconds > 0 && whole.starts_with('-') {
        Time { seconds: seconds.checked_sub(1)?, nanoseconds: 1_000_000_000 - nanoseconds }
    } else {
        Time { seconds, nanoseconds }
    })
}

/// A time in GNU's binary form, which may be negative; tar-core takes it for a large number.
fn binary_time(header: &Header) -> Option<i64> {
    let field: &[u8; 12] = header.as_bytes()[136..148].try_into().ok()?;
    let [sign, _, _, _, number @ ..] = field;
    (sign & 0x80 != 0).then(|| i64::from_be_bytes(*number))
}

/// Whether a number in GNU's binary form is negative or has more than 63 bits, of which tar-core would drop
/// the upper.
fn overflows(field: &[u8]) -> bool {
    let (high, low) = field.split_at(field.len().saturating_sub(8));
    match field.first() {
        Some(first) if first & 0x80 == 0 => false,
        _ if high.is_empty() => field.first() != Some(&0x80),
        _ => high.first() != Some(&0x80) || high[1..].iter().any(|byte| *byte != 0) || low[0] & 0x80 != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_parsed() {
        let time = |seconds, nanoseconds| Some(Time { seconds, nanoseconds });
        let table: [(&str, Option<Time>); 9] = [
            ("0", time(0, 0)),
            ("12.5", time(12, 500_000_000)),
            ("12.", time(12, 0)),
            ("12.1234567899", time(12, 123_456_789)),
            ("-1", time(-1, 0)),
            ("-1.25", time(-2, 750_000_000)),
            ("-0.5", time(-1, 500_000_000)),
            ("x", None),
            ("1.-5", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse_time(text.as_bytes()), expected, "{text}");
        }
    }
}
