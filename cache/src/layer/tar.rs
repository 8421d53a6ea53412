//! Writing tar archives that depend on nothing but what they hold.
//!
//! The format is ustar, with PAX records where a value does not fit: a path that cannot be split into 155 and
//! 100 bytes, a link target over 100 bytes, a size from 8 GiB, an owner from 2,097,152, a time outside
//! 0..8¹¹, an extended attribute. Names are bytes and stay so; no character set is declared.
//!
//! What could vary without meaning anything is fixed: user and group names are empty, there are no access and
//! change times, times are whole seconds (as in layers of Docker and BuildKit, whose readers and digests
//! expect no more), sparse files are dense, records are sorted, and the archive ends after two zero blocks
//! without padding.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

/// The unit of a tar archive.
pub(crate) const BLOCK_BYTES: usize = 512;
const NAME_BYTES_MAX: usize = 100;
const PREFIX_BYTES_MAX: usize = 155;
/// The buffer through which contents are copied.
const COPY_BUFFER_BYTES: usize = 128 * 1024;

/// An entry of an archive, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarEntry<'a> {
    /// The path, relative, without a slash at the end.
    pub path: &'a [u8],
    /// What it is.
    pub kind: TarKind<'a>,
    /// Permission bits, with set-id and sticky bits.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The owning group.
    pub gid: u32,
    /// Modification time, in seconds since 1970; may be negative.
    pub mtime: i64,
    /// Extended attributes by full name, such as `security.capability`.
    pub xattrs: &'a [Attribute],
}

/// The full name and the value of an extended attribute.
pub type Attribute = (Vec<u8>, Vec<u8>);

/// The kinds of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TarKind<'a> {
    /// A regular file of this size; exactly so many bytes follow.
    File {
        /// The size in bytes.
        size_bytes: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link with its target as it is.
    Symlink {
        /// The target.
        target: &'a [u8],
    },
    /// A second name of a file that is earlier in the archive.
    HardLink {
        /// The path of the earlier entry.
        target: &'a [u8],
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// Why an entry could not be written.
#[derive(Debug)]
pub enum TarWriteError {
    /// The output refused bytes.
    Write(io::Error),
    /// The content could not be read.
    Read(io::Error),
    /// The content ended before its announced size.
    ContentTooShort,
    /// Who takes the archive has what it wants of it.
    NoMore,
}

/// Writes entries in the order they are given.
#[derive(Debug)]
pub struct TarWriter<W> {
    out: W,
    size_bytes: u64,
    buffer: Vec<u8>,
}

impl<W: Write> TarWriter<W> {
    /// Starts an archive.
    pub fn new(out: W) -> Self {
        Self { out, size_bytes: 0, buffer: Vec::new() }
    }

    /// How many bytes were written so far.
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Writes an entry that has no content: all kinds but a file that is not empty.
    pub fn entry(&mut self, entry: &TarEntry<'_>) -> Result<(), TarWriteError> {
        self.entry_with(entry, io::empty())
    }

    /// Writes an entry, and of `content` as many bytes as the entry's size says.
    pub fn entry_with(&mut self, entry: &TarEntry<'_>, mut content: impl Read) -> Result<(), TarWriteError> {
        self.header(entry)?;
        match entry.kind {
            TarKind::File { size_bytes } => self.content(&mut content, size_bytes),
            _ => Ok(()),
        }
    }

    /// Writes what comes before an entry's content.
    pub(super) fn header(&mut self, entry: &TarEntry<'_>) -> Result<(), TarWriteError> {
        let fields = Fields::of(entry);
        if !fields.records.is_empty() {
            self.records(entry, &fields.records)?;
        }
        self.put(&fields.block)
    }

    /// Writes the end of the archive and returns the output, which is not flushed.
    pub fn finish(mut self) -> Result<W, TarWriteError> {
        self.end()?;
        Ok(self.out)
    }

    /// Writes the end of an archive. What is written after it is another one.
    pub(super) fn end(&mut self) -> Result<(), TarWriteError> {
        self.put(&[0; 2 * BLOCK_BYTES])
    }

    /// The output.
    pub(super) const fn output(&mut self) -> &mut W {
        &mut self.out
    }

    /// The output of an archive that is not ended.
    pub(super) fn into_output(self) -> W {
        self.out
    }

    fn records(&mut self, entry: &TarEntry<'_>, records: &Records) -> Result<(), TarWriteError> {
        let body = encode_records(records);
        let base = entry.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let mut name = b"PaxHeaders.0/".to_vec();
        name.extend_from_slice(base);
        name.truncate(NAME_BYTES_MAX);
        let mut block = Block::new();
        block.put(NAME, &name);
        block.octal(MODE, 0o644);
        block.octal(UID, 0);
        block.octal(GID, 0);
        block.octal(SIZE, body.len() as u64);
        block.octal(MTIME, 0);
        block.devices(0, 0);
        self.put(&block.finish(b'x'))?;
        self.put(&body)?;
        self.pad(body.len() as u64)
    }

    /// Writes the content of the entry whose header was written last.
    pub(super) fn content(&mut self, content: &mut dyn Read, size_bytes: u64) -> Result<(), TarWriteError> {
        self.buffer.resize(COPY_BUFFER_BYTES, 0);
        let mut left = size_bytes;
        while left > 0 {
            let want = left.min(COPY_BUFFER_BYTES as u64) as usize;
            let count = match content.read(&mut self.buffer[..want]) {
                Ok(0) => return Err(TarWriteError::ContentTooShort),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(TarWriteError::Read(error)),
            };
            self.out.write_all(&self.buffer[..count]).map_err(TarWriteError::Write)?;
            self.size_bytes += count as u64;
            left -= count as u64;
        }
        self.pad(size_bytes)
    }

    fn pad(&mut self, size_bytes: u64) -> Result<(), TarWriteError> {
        let over = (size_bytes % BLOCK_BYTES as u64) as usize;
        if over == 0 { Ok(()) } else { self.put(&[0; BLOCK_BYTES][over..]) }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), TarWriteError> {
        self.size_bytes += bytes.len() as u64;
        self.out.write_all(bytes).map_err(TarWriteError::Write)
    }
}

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// An entry as a header block and the records that say what the block could not.
struct Fields {
    block: [u8; BLOCK_BYTES],
    records: Records,
}

impl Fields {
    fn of(entry: &TarEntry<'_>) -> Self {
        let (mut block, mut records) = (Block::new(), Records::new());
        put_path(entry, &mut block, &mut records);
        put_link(entry, &mut block, &mut records);
        let size_bytes = if let TarKind::File { size_bytes } = entry.kind { size_bytes } else { 0 };
        block.octal(MODE, u64::from(entry.mode & 0o7777));
        for (field, key, value) in [
            (UID, "uid", u64::from(entry.uid)),
            (GID, "gid", u64::from(entry.gid)),
            (SIZE, "size", size_bytes),
        ] {
            block.octal_or_record(field, key, i128::from(value), &mut records);
        }
        block.octal_or_record(MTIME, "mtime", i128::from(entry.mtime), &mut records);
        let (major, minor) = match entry.kind {
            TarKind::CharDevice { major, minor } | TarKind::BlockDevice { major, minor } => (major, minor),
            _ => (0, 0),
        };
        block.devices(major, minor);
        for (name, value) in entry.xattrs {
            let key = [b"SCHILY.xattr.", name.as_slice()].concat();
            records.insert(key, value.clone());
        }
        Self { block: block.finish(type_flag(entry.kind)), records }
    }
}

const fn type_flag(kind: TarKind<'_>) -> u8 {
    match kind {
        TarKind::File { .. } => b'0',
        TarKind::HardLink { .. } => b'1',
        TarKind::Symlink { .. } => b'2',
        TarKind::CharDevice { .. } => b'3',
        TarKind::BlockDevice { .. } => b'4',
        TarKind::Directory => b'5',
        TarKind::Fifo => b'6',
    }
}

fn put_path(entry: &TarEntry<'_>, block: &mut Block, records: &mut Records) {
    let slashed;
    let path = if entry.kind == TarKind::Directory {
        slashed = [entry.path, b"/"].concat();
        &slashed
    } else {
        entry.path
    };
    if path.len() <= NAME_BYTES_MAX {
        block.put(NAME, path);
    } else if let Some((prefix, name)) = split(path) {
        block.put(PREFIX, prefix);
        block.put(NAME, name);
    } else {
        block.put(NAME, &path[..NAME_BYTES_MAX]);
        records.insert(b"path".to_vec(), path.to_vec());
    }
}

fn put_link(entry: &TarEntry<'_>, block: &mut Block, records: &mut Records) {
    let (TarKind::Symlink { target } | TarKind::HardLink { target }) = entry.kind else { return };
    if target.len() > NAME_BYTES_MAX {
        records.insert(b"linkpath".to_vec(), target.to_vec());
    }
    block.put(LINK, &target[..target.len().min(NAME_BYTES_MAX)]);
}

/// Splits a long path at the last slash that makes both parts fit. The slash itself is implied.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    // A slash at the very end belongs to the name: it says that the entry is a directory.
    let searched = &path[..path.len() - 1];
    let last = searched.iter().take(PREFIX_BYTES_MAX + 1).rposition(|byte| *byte == b'/')?;
    let (prefix, name) = (&path[..last], &path[last + 1..]);
    (!prefix.is_empty() && name.len() <= NAME_BYTES_MAX).then_some((prefix, name))
}

fn encode_records(records: &Records) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3; // a space, an equals sign, a newline
        let mut length = rest + decimal_digits(rest);
        if rest + decimal_digits(length) != length {
            length = rest + decimal_digits(length);
        }
        body.extend_from_slice(format!("{length} ").as_bytes());
        body.extend_from_slice(key);
        body.push(b'=');
        body.extend_from_slice(value);
        body.push(b'\n');
    }
    body
}

const fn decimal_digits(number: usize) -> usize {
    if number == 0 { 1 } else { number.ilog10() as usize + 1 }
}

type Field = std::ops::Range<usize>;
const NAME: Field = 0..100;
const MODE: Field = 100..108;
const UID: Field = 108..116;
const GID: Field = 116..124;
const SIZE: Field = 124..136;
const MTIME: Field = 136..148;
const CHECKSUM: Field = 148..156;
const TYPE: usize = 156;
const LINK: Field = 157..257;
const MAGIC: Field = 257..265;
const DEV_MAJOR: Field = 329..337;
const DEV_MINOR: Field = 337..345;
const PREFIX: Field = 345..500;

/// A header block in the making.
struct Block([u8; BLOCK_BYTES]);

impl Block {
    fn new() -> Self {
        let mut block = Self([0; BLOCK_BYTES]);
        block.put(MAGIC, b"ustar\x0000");
        block
    }

    fn put(&mut self, field: Field, bytes: &[u8]) {
        self.0[field][..bytes.len()].copy_from_slice(bytes);
    }

    /// Writes digits up to the field's last byte, which stays NUL. The number must fit.
    fn octal(&mut self, field: Field, number: u64) {
        let mut left = number;
        for byte in self.0[field.start..field.end - 1].iter_mut().rev() {
            *byte = b'0' + (left & 7) as u8;
            left >>= 3;
        }
        debug_assert_eq!(left, 0, "the number fits");
    }

    fn octal_or_record(&mut self, field: Field, key: &str, number: i128, records: &mut Records) {
        let bits = 3 * (field.len() - 1);
        match u64::try_from(number) {
            Ok(small) if small >> bits == 0 => self.octal(field, small),
            _ => {
                self.octal(field, 0);
                records.insert(key.as_bytes().to_vec(), number.to_string().into_bytes());
            }
        }
    }

    /// Device numbers: twelve and twenty bits on Linux, which always fit.
    fn devices(&mut self, major: u32, minor: u32) {
        self.octal(DEV_MAJOR, u64::from(major & 0o7_777_777));
        self.octal(DEV_MINOR, u64::from(minor & 0o7_777_777));
    }

    fn finish(mut self, type_flag: u8) -> [u8; BLOCK_BYTES] {
        self.0[TYPE] = type_flag;
        self.put(CHECKSUM, b"        ");
        let sum: u64 = self.0.iter().map(|byte| u64::from(*byte)).sum();
        self.put(CHECKSUM, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}
