//! Packs: contents of files, one after the other, and an index of them by digest.
//!
//! ```text
//! contents    each at a multiple of 512 bytes (of 4096, if it is large), so that an image can point at it
//! key image   the image of the layer that it was made with, if others are to be told from that (`stored`)
//! index       sorted by digest: digest, offset, size
//! footer      the size of the key image, what this is, how many entries, the digest of the index
//! ```
//!
//! The first packs had no key image, nor its size.
//!
//! A pack is written by one process, by many of its threads at once, and never written to again: `prune::trim` makes holes where nothing is needed any
//! longer. Its contents are the first of its kind: what another pack has is not written again, as long as somebody knows.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::erofs::BLOCK_BYTES;
use crate::content_digest::Blake3;
use crate::root_dir::{At as _, PathError};

/// Contents from this size on begin where a page does, so that file systems can share them.
const LARGE_BYTES_MIN: u64 = 64 * 1024;
const PAGE_BYTES: u64 = 4096;
/// Through which contents are copied.
const COPY_BUFFER_BYTES: usize = 256 * 1024;

const ENTRY_BYTES: usize = 48;
const FOOTER_BYTES: usize = 48;
const MAGIC: &[u8; 8] = b"rbpack2\n";
const MAGIC_WITHOUT_KEY: &[u8; 8] = b"rbpack1\n";
const KEY_SIZE_BYTES: usize = size_of::<u64>();

/// Where a content is in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Packed {
    /// The digest of it.
    pub digest: Blake3,
    /// Where it begins.
    pub offset_bytes: u64,
    /// Its size.
    pub size_bytes: u64,
}

/// A pack that is being written.
#[derive(Debug)]
pub struct PackWriter {
    file: File,
    path: PathBuf,
    end: AtomicU64,
    index: Mutex<Vec<Packed>>,
}

impl PackWriter {
    /// Begins a pack at a path where nothing is.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(path: PathBuf) -> Result<Self, PathError> {
        let file = File::options().read(true).write(true).create_new(true).open(&path).at("create", &path)?;
        Ok(Self { file, path, end: AtomicU64::new(0), index: Mutex::default() })
    }

    /// Writes a content, and returns where it is.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn append(&self, digest: Blake3, bytes: &[u8]) -> Result<u64, PathError> {
        let offset_bytes = self.reserve(bytes.len() as u64);
        self.file.write_all_at(bytes, offset_bytes).at("write", &self.path)?;
        self.note(Packed { digest, offset_bytes, size_bytes: bytes.len() as u64 });
        Ok(offset_bytes)
    }

    /// Writes what a file holds, up to this size, and returns what that was.
    ///
    /// # Errors
    /// When the disk is full, or the file, which errors call `path`, cannot be read.
    pub fn append_file(&self, from: &File, size_bytes: u64, path: &Path) -> Result<Packed, PathError> {
        let (mut content, mut buffer) = (self.begin(size_bytes), vec![0; COPY_BUFFER_BYTES]);
        while content.size_bytes < size_bytes {
            let left = size_bytes - content.size_bytes;
            let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = from.read_at(&mut buffer[..wanted], content.size_bytes).at("read", path)?;
            if count == 0 {
                break;
            }
            content.write(&buffer[..count])?;
        }
        Ok(content.finish())
    }

    /// Begins a content of this size at most, to be written in pieces.
    pub(crate) fn begin(&self, size_bytes: u64) -> Appending<'_> {
        Appending {
            pack: self,
            offset_bytes: self.reserve(size_bytes),
            size_bytes: 0,
            hasher: blake3::Hasher::new(),
        }
    }

    fn note(&self, packed: Packed) {
        self.index.lock().unwrap_or_else(PoisonError::into_inner).push(packed);
    }

    /// How many blocks the contents take that are in it by now.
    pub fn blocks(&self) -> u64 {
        self.end.load(Ordering::Relaxed).div_ceil(BLOCK_BYTES)
    }

    /// The pack itself.
    ///
    /// # Errors
    /// When there are too many files.
    pub fn file(&self) -> Result<File, PathError> {
        self.file.try_clone().at("duplicate the descriptor of", &self.path)
    }

    /// Makes the file as long as its contents are, which may end in a hole: from then on all of them can be read.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn fill_up(&self) -> Result<(), PathError> {
        self.file.set_len(self.blocks() * BLOCK_BYTES).at("extend", &self.path)
    }

    fn reserve(&self, size_bytes: u64) -> u64 {
        let unit = if size_bytes < LARGE_BYTES_MIN { BLOCK_BYTES } else { PAGE_BYTES };
        let mut offset = 0;
        let next = |end: u64| {
            offset = end.next_multiple_of(unit);
            Some(offset + size_bytes)
        };
        let _never_refused = self.end.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        offset
    }

    /// Writes the key image, compressed, and the index. Nothing is appended afterwards.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn finish(&self, key_image: &[u8]) -> Result<(), PathError> {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        index.sort_unstable();
        let mut entries: Vec<u8> = Vec::with_capacity(index.len() * ENTRY_BYTES);
        for entry in &*index {
            entries.extend(entry.digest);
            entries.extend(entry.offset_bytes.to_le_bytes());
            entries.extend(entry.size_bytes.to_le_bytes());
        }
        let count = (index.len() as u64).to_le_bytes();
        let key_size = (key_image.len() as u64).to_le_bytes();
        let footer = [&key_size, &MAGIC[..], &count, blake3::hash(&entries).as_bytes()].concat();
        let bytes = [key_image, &entries, &footer].concat();
        self.file.write_all_at(&bytes, self.blocks() * BLOCK_BYTES).at("write", &self.path)
    }
}

/// A content that is being written.
#[derive(Debug)]
pub(crate) struct Appending<'a> {
    pack: &'a PackWriter,
    offset_bytes: u64,
    size_bytes: u64,
    hasher: blake3::Hasher,
}

impl Appending<'_> {
    /// Writes a piece. Where it is nothing but zeros a hole is left, as in the file that it may come from.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), PathError> {
        let mut at = self.offset_bytes + self.size_bytes;
        let is_zero = |page: &&[u8]| page.iter().all(|byte| *byte == 0);
        let pages: Vec<&[u8]> = bytes.chunks(PAGE_BYTES as usize).collect();
        let mut rest = bytes;
        for run in pages.chunk_by(|one, next| is_zero(one) == is_zero(next)) {
            let (run_bytes, behind) = rest.split_at(run.iter().map(|page| page.len()).sum());
            if !run.first().is_some_and(is_zero) {
                self.pack.file.write_all_at(run_bytes, at).at("write", &self.pack.path)?;
            }
            at += run_bytes.len() as u64;
            rest = behind;
        }
        self.hasher.update(bytes);
        self.size_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Leaves a hole up to this offset, as nothing was written there before.
    pub(crate) fn skip_to(&mut self, offset_bytes: u64) {
        static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
        while self.size_bytes < offset_bytes {
            let count = (offset_bytes - self.size_bytes).min(ZEROS.len() as u64);
            self.hasher.update(&ZEROS[..count as usize]);
            self.size_bytes += count;
        }
    }

    pub(crate) fn finish(self) -> Packed {
        let Self { pack, offset_bytes, size_bytes, hasher } = self;
        let packed = Packed { digest: *hasher.finalize().as_bytes(), offset_bytes, size_bytes };
        pack.note(packed);
        packed
    }
}

/// The index of a pack.
///
/// # Errors
/// When it cannot be read, or is damaged.
pub fn read_index(file: &File, path: &Path) -> Result<Vec<Packed>, PathError> {
    index_of(file).map(Iterator::collect).at("read the index of", path)
}

/// The same, one after the other.
pub(crate) fn each_in_index(file: &File) -> io::Result<impl ExactSizeIterator<Item = Packed>> {
    index_of(file)
}

/// Whether all contents of a pack are what their digests say.
pub(crate) fn is_whole(file: &File) -> bool {
    let mut buffer = Vec::new();
    let mut is_there = |entry: &Packed| {
        let (mut hasher, mut done) = (blake3::Hasher::new(), 0);
        while done < entry.size_bytes {
            buffer.resize(COPY_BUFFER_BYTES.min((entry.size_bytes - done) as usize), 0);
            if file.read_exact_at(&mut buffer, entry.offset_bytes + done).is_err() {
                return false;
            }
            hasher.update(&buffer);
            done += buffer.len() as u64;
        }
        *hasher.finalize().as_bytes() == entry.digest
    };
    index_of(file).is_ok_and(|index| {
        let mut index: Vec<Packed> = index.collect();
        index.sort_unstable_by_key(|entry| entry.offset_bytes);
        index.iter().all(&mut is_there)
    })
}

/// The key image of a pack, which may be expected to have about so many bytes; an error if it has none.
pub(crate) fn read_key_image(file: &File, expected_bytes: usize) -> io::Result<Vec<u8>> {
    let footer = Footer::read(file)?;
    let compressed = read_range(file, footer.key_at, footer.index_at - footer.key_at)?;
    if compressed.is_empty() {
        return Err(damaged());
    }
    // In one piece it takes half of the time, if there is room.
    let in_one = zstd::bulk::decompress(&compressed, expected_bytes + expected_bytes / 8);
    in_one.or_else(|_| zstd::decode_all(&compressed[..]))
}

fn index_of(file: &File) -> io::Result<impl ExactSizeIterator<Item = Packed>> {
    let footer = Footer::read(file)?;
    let bytes = read_range(file, footer.index_at, footer.index_bytes)?;
    if *blake3::hash(&bytes).as_bytes() != footer.index_digest {
        return Err(damaged());
    }
    let count = bytes.len() / ENTRY_BYTES;
    Ok((0..count).map(move |number| {
        let entry = &bytes[number * ENTRY_BYTES..][..ENTRY_BYTES];
        Packed {
            digest: array(&entry[..32]),
            offset_bytes: u64::from_le_bytes(array(&entry[32..40])),
            size_bytes: u64::from_le_bytes(array(&entry[40..])),
        }
    }))
}

/// Where the parts of a pack are.
struct Footer {
    key_at: u64,
    index_at: u64,
    index_bytes: u64,
    index_digest: Blake3,
}

impl Footer {
    fn read(file: &File) -> io::Result<Self> {
        Self::find(file)?.ok_or_else(damaged)
    }

    /// `None` if it is none.
    fn find(file: &File) -> io::Result<Option<Self>> {
        let Some(at) = file.metadata()?.len().checked_sub(FOOTER_BYTES as u64) else { return Ok(None) };
        let bytes = read_range(file, at, FOOTER_BYTES as u64)?;
        let has_key = bytes.starts_with(MAGIC);
        if !has_key && !bytes.starts_with(MAGIC_WITHOUT_KEY) {
            return Ok(None);
        }
        let before = if has_key { at.checked_sub(KEY_SIZE_BYTES as u64) } else { Some(at) };
        let Some(index_end) = before else { return Ok(None) };
        let key_bytes = read_range(file, index_end, at - index_end)?;
        let key_bytes = u64::from_le_bytes(array(&key_bytes));
        let index_bytes = u64::from_le_bytes(array(&bytes[8..16])).checked_mul(ENTRY_BYTES as u64);
        let index_at = index_bytes.and_then(|bytes| index_end.checked_sub(bytes));
        let key_at = index_at.and_then(|at| at.checked_sub(key_bytes));
        let parts = index_bytes.zip(index_at).zip(key_at);
        Ok(parts.map(|((index_bytes, index_at), key_at)| Self {
            key_at,
            index_at,
            index_bytes,
            index_digest: array(&bytes[16..]),
        }))
    }
}

fn damaged() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

fn read_range(file: &File, at: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).map_err(|_| damaged())?];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

/// The bytes as an array; zeros where they are not as many.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().unwrap_or([0; N])
}
