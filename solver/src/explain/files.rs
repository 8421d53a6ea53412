//! Lists of files, kept beside content digests, and what differs between two.

use std::cmp::Ordering;

use rbuild_cache::root_dir::FileType;
use serde::{Deserialize, Serialize};

/// How many paths of each kind of change are named.
const CHANGES_NAMED_MAX: usize = 20;
/// How much of a digest is kept: it tells a change, and proves nothing.
const DIGEST_BYTES: usize = 8;

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

    fn decode(from: &mut &[u8]) -> Option<Self> {
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
        let path_at = |start: usize| next_path(&mut &bytes[start..]);
        if starts.is_sorted_by(|a, b| path_at(*a) < path_at(*b)) {
            return Self(bytes);
        }
        starts.sort_by(|a, b| path_at(*a).cmp(&path_at(*b)));
        starts.dedup_by(|a, b| path_at(*a) == path_at(*b));
        let mut sorted = Vec::with_capacity(bytes.len());
        for start in starts {
            let mut rest = &bytes[start..];
            let _read = next_entry(&mut rest);
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
                (Some((old, _)), Some((new, _))) => old.cmp(new),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return changes,
            };
            let was = old.next_if(|_| order.is_le());
            let is = new.next_if(|_| order.is_ge());
            match (was, is) {
                (Some((_, was)), Some((path, is))) if is != was => {
                    let what = || is.changes_since(&was);
                    changes.changed.push(|| FileChange { path: path.to_owned(), what: what() });
                }
                (Some((path, _)), None) => changes.removed.push(|| path.to_owned()),
                (None, Some((path, _))) => changes.added.push(|| path.to_owned()),
                _ => {}
            }
        }
    }

    fn entries(&self) -> impl Iterator<Item = (&str, FileEntry)> {
        let mut bytes = &self.0[..];
        // Nothing was taken in that does not end in an entry.
        std::iter::from_fn(move || next_entry(&mut bytes))
    }

    /// As bytes, to be kept.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// From bytes that were kept; `None` when they are damaged.
    pub fn decode(bytes: Vec<u8>) -> Option<Self> {
        let (mut rest, mut last) = (&bytes[..], None);
        while !rest.is_empty() {
            let (path, _) = next_entry(&mut rest)?;
            if last.replace(path).is_some_and(|last| last >= path) {
                return None;
            }
        }
        Some(Self(bytes))
    }
}

fn next_entry<'b>(bytes: &mut &'b [u8]) -> Option<(&'b str, FileEntry)> {
    let path = next_path(bytes)?;
    Some((str::from_utf8(path).ok()?, FileEntry::decode(bytes)?))
}

fn next_path<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
    let length = u32::from_le_bytes(take(bytes)?) as usize;
    let (path, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(path)
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
