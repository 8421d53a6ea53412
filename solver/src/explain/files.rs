//! Lists of files, kept beside content digests, and what differs between two.

use std::cmp::Ordering;

use rbuild_cache::root_dir::FileType;
use serde::{Deserialize, Serialize};

/// How many paths of each kind of change are named.
const CHANGES_NAMED_MAX: usize = 20;
/// How much of a digest is kept: it tells a change, and proves nothing.
const DIGEST_BYTES: usize = 8;
/// How long an entry is behind its path: a letter, two numbers, and two digests, each of which may be none.
const ENTRY_BYTES: usize = 1 + 4 + 8 + 2 * (1 + DIGEST_BYTES);

/// The beginning of a digest.
type Short = [u8; DIGEST_BYTES];

/// A file that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileEntry {
    /// Its type, permission bits and size.
    kind: u8,
    mode: u32,
    size_bytes: u64,
    content: Option<Short>,
    attributes: Option<Short>,
}

/// An entry as it is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
struct KeptEntry<'b> {
    path: &'b [u8],
    entry: &'b [u8; ENTRY_BYTES],
}

/// The files that a step is given, sorted by path: as the bytes that are kept, of which each entry is taken when it is looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileList(Vec<u8>);

/// How the files of a step changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChanges {
    /// Files that are there as before, but otherwise.
    pub changed: Paths<FileChange>,
    /// Files that are new.
    pub added: Paths<String>,
    /// Files that are gone.
    pub removed: Paths<String>,
}

/// Some paths, of which not all may be named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths<T> {
    /// How many there are.
    pub count: usize,
    /// The first of them.
    pub named: Vec<T>,
}

impl<T> Default for Paths<T> {
    fn default() -> Self {
        Self { count: 0, named: Vec::new() }
    }
}

impl<T> Paths<T> {
    fn push(&mut self, item: impl FnOnce() -> T) {
        self.count += 1;
        if self.named.len() < CHANGES_NAMED_MAX {
            self.named.push(item());
        }
    }
}

/// A file that is there as before, but otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChange {
    /// Its path.
    pub path: String,
    /// What of it: `content`, `mode 0644 -> 0755`, `file -> directory`, `attributes`.
    pub what: Vec<String>,
}

impl FileEntry {
    /// What counts of a file.
    pub fn new(entry: &rbuild_cache::content_digest::TreeEntry) -> Self {
        let short = |digest: [u8; 32]| digest.first_chunk().copied().unwrap_or_default();
        Self {
            kind: letter(entry.kind),
            mode: entry.mode,
            size_bytes: entry.size_bytes,
            content: entry.content.map(short),
            attributes: entry.xattrs.map(short),
        }
    }

    fn changes_since(&self, before: &Self) -> Vec<String> {
        if self.kind != before.kind {
            return vec![format!("{} -> {}", word(before.kind), word(self.kind))];
        }
        let mut what = Vec::new();
        if (self.size_bytes, self.content) != (before.size_bytes, before.content) {
            what.push(if self.kind == b'l' { "target" } else { "content" }.to_owned());
        }
        if self.mode != before.mode {
            what.push(format!("mode {:04o} -> {:04o}", before.mode, self.mode));
        }
        if self.attributes != before.attributes {
            what.push("attributes".to_owned());
        }
        what
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.push(self.kind);
        bytes.extend(self.mode.to_le_bytes());
        bytes.extend(self.size_bytes.to_le_bytes());
        for digest in [self.content, self.attributes] {
            bytes.push(digest.is_some().into());
            bytes.extend(digest.unwrap_or_default());
        }
    }

    fn decode(mut from: &[u8]) -> Option<Self> {
        let from = &mut from;
        let [kind] = take(from)?;
        let (mode, size_bytes) = (u32::from_le_bytes(take(from)?), u64::from_le_bytes(take(from)?));
        let mut digest = || {
            let [there] = take(from)?;
            let short: Short = take(from)?;
            Some((there == 1).then_some(short))
        };
        let (content, attributes) = (digest()?, digest()?);
        Some(Self { kind, mode, size_bytes, content, attributes })
    }
}

impl<'b> KeptEntry<'b> {
    /// Takes the next one.
    fn next(bytes: &mut &'b [u8]) -> Option<Self> {
        let length = u32::from_le_bytes(take(bytes)?) as usize;
        let (path, rest) = bytes.split_at_checked(length)?;
        let (entry, rest) = rest.split_first_chunk()?;
        *bytes = rest;
        Some(Self { path, entry })
    }

    fn shown_path(&self) -> String {
        String::from_utf8_lossy(self.path).into_owned()
    }

    fn decode(&self) -> Option<FileEntry> {
        FileEntry::decode(self.entry)
    }
}

impl FromIterator<(String, FileEntry)> for FileList {
    /// Of several entries with one path, one counts.
    fn from_iter<I: IntoIterator<Item = (String, FileEntry)>>(entries: I) -> Self {
        let (mut bytes, mut starts) = (Vec::new(), Vec::new());
        for (path, entry) in entries {
            starts.push(bytes.len());
            bytes.extend(u32::try_from(path.len()).unwrap_or(u32::MAX).to_le_bytes());
            bytes.extend(path.as_bytes());
            entry.encode(&mut bytes);
        }
        let path_at = |start: usize| KeptEntry::next(&mut &bytes[start..]).map(|entry| entry.path);
        if starts.is_sorted_by(|a, b| path_at(*a) < path_at(*b)) {
            return Self(bytes);
        }
        starts.sort_by(|a, b| path_at(*a).cmp(&path_at(*b)));
        starts.dedup_by(|a, b| path_at(*a) == path_at(*b));
        let mut sorted = Vec::with_capacity(bytes.len());
        for start in starts {
            let mut rest = &bytes[start..];
            let _read = KeptEntry::next(&mut rest);
            sorted.extend_from_slice(&bytes[start..bytes.len() - rest.len()]);
        }
        Self(sorted)
    }
}

impl FileList {
    /// What differs from an earlier list.
    pub fn changes_since(&self, before: &Self) -> FileChanges {
        let mut changes = FileChanges::default();
        let (mut old, mut new) = (before.entries().peekable(), self.entries().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                // As a rule they are the same.
                (Some(old), Some(new)) if old == new => Ordering::Equal,
                (Some(old), Some(new)) => old.path.cmp(new.path),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return changes,
            };
            let was = old.next_if(|_| order.is_le());
            let is = new.next_if(|_| order.is_ge());
            match (was, is) {
                (Some(was), Some(is)) if is != was => {
                    let what = || Some(is.decode()?.changes_since(&was.decode()?));
                    let change = || FileChange { path: is.shown_path(), what: what().unwrap_or_default() };
                    changes.changed.push(change);
                }
                (Some(was), None) => changes.removed.push(|| was.shown_path()),
                (None, Some(is)) => changes.added.push(|| is.shown_path()),
                _ => {}
            }
        }
    }

    fn entries(&self) -> impl Iterator<Item = KeptEntry<'_>> {
        let mut bytes = &self.0[..];
        // Nothing was taken in that does not end in an entry.
        std::iter::from_fn(move || KeptEntry::next(&mut bytes))
    }

    /// As bytes, to be kept.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// From bytes that were kept; `None` when they are damaged.
    pub fn decode(bytes: Vec<u8>) -> Option<Self> {
        let (mut rest, mut last) = (&bytes[..], None);
        while !rest.is_empty() {
            let KeptEntry { path, .. } = KeptEntry::next(&mut rest)?;
            if last.replace(path).is_some_and(|last| last >= path) {
                return None;
            }
        }
        Some(Self(bytes))
    }
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(*taken)
}

/// As `find -type` names them.
const fn letter(kind: FileType) -> u8 {
    match kind {
        FileType::Directory => b'd',
        FileType::Symlink => b'l',
        FileType::Fifo => b'p',
        FileType::Socket => b's',
        FileType::CharacterDevice => b'c',
        FileType::BlockDevice => b'b',
        _ => b'f',
    }
}

const fn word(kind: u8) -> &'static str {
    match kind {
        b'd' => "directory",
        b'l' => "link",
        b'p' => "fifo",
        b's' => "socket",
        b'c' | b'b' => "device",
        _ => "file",
    }
}
