//! The last pass: from the digests of files to the digest of the selection.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use rayon::prelude::*;
use rbuild_image::KeyHasher;
use rustix::fs::{FileType, Stat};

use super::file::{AllLooked, Looked};
use super::walk::{Dir, Top, Walk};
use super::{Blake3, Selected, TreeDigest, TreeOwner};

/// The domains. A change of what is fed below, or of what counts, must bump them: it changes every user's keys. What the stat cache remembers of
/// files has to get another version with it.
pub(super) const ENTRY_DOMAIN: &str = "rbuild.tree-entry.v1";
pub(super) const DIRECTORY_DOMAIN: &str = "rbuild.tree-directory.v1";
pub(super) const SELECTION_DOMAIN: &str = "rbuild.tree-selection.v1";

/// What came of a directory that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folded {
    /// The digest of what is in it.
    pub content: Blake3,
    /// The directories in it that count, with the digests that are in that.
    pub subdirs: BTreeMap<OsString, Blake3>,
}

/// Digests what was found. Also returns what came of each directory.
pub(super) fn fold(
    walk: &Walk<'_>,
    tops: &[Top],
    looked: &AllLooked,
    selected: &[Selected<'_>],
) -> (TreeDigest, Vec<Option<Folded>>) {
    let mut fold = Fold {
        walk,
        looked,
        children: walk.dirs.iter().map(|_| Vec::new()).collect(),
        digests: vec![None; walk.dirs.len()],
        files: 0,
        size_bytes: 0,
    };
    for level in walk.levels.iter().rev() {
        let digested: Vec<Option<Digested>> =
            level.clone().into_par_iter().map(|index| fold.directory(index)).collect();
        level.clone().zip(digested).for_each(|(index, digested)| fold.note(index, digested));
    }
    let mut hasher = KeyHasher::new(SELECTION_DOMAIN);
    hasher.number(tops.len() as u64);
    for ((top, selected), top_looked) in tops.iter().zip(selected).zip(&looked.tops) {
        hasher.bytes(path_bytes(selected.name));
        match (top, top_looked) {
            (Top::Directory(index), _) => fold.feed_top_directory(&mut hasher, *index, selected),
            (Top::File(_), Some(file)) => {
                fold.add(&Facts::of(&file.stat, walk.options.owner));
                hasher.number(1u64).bytes(&file.digest);
            }
            (Top::File(_), None) => {}
        }
    }
    fold.finish(hasher.finish())
}

struct Fold<'a> {
    walk: &'a Walk<'a>,
    looked: &'a AllLooked,
    /// For each directory, those in it that count, with their digests.
    children: Vec<Vec<(usize, Blake3)>>,
    /// For each directory that counts, the digest of what is in it.
    digests: Vec<Option<Blake3>>,
    files: u64,
    size_bytes: u64,
}

/// What there is to say of a directory that counts.
struct Digested {
    /// The digest of what is in it.
    content: Blake3,
    /// The digest of itself.
    own: Blake3,
    /// The sizes of the files in it, together.
    size_bytes: u64,
}

impl Fold<'_> {
    /// Digests a directory all of whose subdirectories have been; `None` if it does not count.
    fn directory(&self, index: usize) -> Option<Digested> {
        let dir = &self.walk.dirs[index];
        let (subdirs, looked) = (&self.children[index], &self.looked.in_dirs[index]);
        if !counts(dir, !subdirs.is_empty(), looked) {
            return None;
        }
        let subdirs = subdirs
            .iter()
            .map(|(subdir, digest)| (name_of(&self.walk.dirs[*subdir]).as_encoded_bytes(), digest));
        let files = dir.listing.files.iter().zip(looked);
        let files = files.map(|(name, file)| (name.as_encoded_bytes(), &file.digest));
        let mut entries: Vec<(&[u8], &Blake3)> = subdirs.chain(files).collect();
        // Of two parts, each of which is sorted.
        entries.sort_by_key(|(name, _)| *name);
        let mut hasher = KeyHasher::new(DIRECTORY_DOMAIN);
        hasher.number(dir.listing.opaque);
        hasher.list(&entries, |hasher, (name, digest)| {
            hasher.bytes(name).bytes(*digest);
        });
        let (content, owner) = (hasher.finish(), self.walk.options.owner);
        let own = Facts::of(&dir.listing.stat, owner).digest(Some(content), dir.listing.xattrs);
        let size_bytes = looked.iter().map(|file| Facts::of(&file.stat, owner).size_bytes).sum();
        Some(Digested { content, own, size_bytes })
    }

    fn note(&mut self, index: usize, digested: Option<Digested>) {
        let Some(Digested { content, own, size_bytes }) = digested else { return };
        self.digests[index] = Some(content);
        self.files += self.looked.in_dirs[index].len() as u64;
        self.size_bytes += size_bytes;
        if let Some(parent) = self.walk.dirs[index].parent {
            self.children[parent].push((index, own));
            self.files += 1;
        }
    }

    fn feed_top_directory(&mut self, hasher: &mut KeyHasher, index: usize, selected: &Selected<'_>) {
        let content = self.digests[index];
        if selected.contents_only {
            hasher.number(2u64).option(content.as_ref(), feed);
            return;
        }
        let listing = &self.walk.dirs[index].listing;
        let facts = Facts::of(&listing.stat, self.walk.options.owner);
        hasher.number(1u64).bytes(&facts.digest(content, listing.xattrs));
        self.add(&facts);
    }

    fn add(&mut self, facts: &Facts) {
        self.files += 1;
        self.size_bytes += facts.size_bytes;
    }

    fn finish(self, digest: Blake3) -> (TreeDigest, Vec<Option<Folded>>) {
        let read = |looked: &Looked| looked.read_bytes;
        let read_bytes =
            self.looked.in_dirs.iter().flatten().chain(self.looked.tops.iter().flatten()).map(read).sum();
        let digest = TreeDigest { digest, files: self.files, size_bytes: self.size_bytes, read_bytes };
        let named = |(index, own): &(usize, Blake3)| (name_of(&self.walk.dirs[*index]).to_owned(), *own);
        let folded = self.digests.iter().zip(&self.children).map(|(content, children)| {
            Some(Folded { content: (*content)?, subdirs: children.iter().map(named).collect() })
        });
        (digest, folded.collect())
    }
}

/// Whether a directory counts: when it is wanted, or something in it counts.
pub(super) const fn counts(dir: &Dir, has_subdirs: bool, files: &[Looked]) -> bool {
    dir.wanted || has_subdirs || !files.is_empty()
}

/// What counts of a file's attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) kind: FileType,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size_bytes: u64,
    pub(super) device: u64,
}

impl Facts {
    pub(super) fn of(stat: &Stat, owner: TreeOwner) -> Self {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let (uid, gid) = match owner {
            TreeOwner::Keep => (stat.st_uid, stat.st_gid),
            TreeOwner::Zero => (0, 0),
        };
        let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
        let size_bytes = if kind == FileType::RegularFile { stat.st_size.unsigned_abs() } else { 0 };
        let (mode, device) = (stat.st_mode & 0o7777, if is_device { stat.st_rdev } else { 0 });
        Self { kind, mode, uid, gid, size_bytes, device }
    }

    /// The digest of a file, given that of its content: bytes, link target, or what is in a directory.
    pub(super) fn digest(&self, content: Option<Blake3>, xattrs: Option<Blake3>) -> Blake3 {
        let mut hasher = KeyHasher::new(ENTRY_DOMAIN);
        hasher.number(ordinal(Some(self.kind))).number(self.mode).number(self.uid).number(self.gid);
        hasher.number(self.size_bytes).number(self.device);
        hasher.option(content.as_ref(), feed).option(xattrs.as_ref(), feed).finish()
    }
}

/// The digest of a deletion; all are alike, whichever form they have.
pub(super) fn whiteout_digest() -> Blake3 {
    KeyHasher::new(ENTRY_DOMAIN).number(ordinal(None)).finish()
}

pub(super) fn feed(hasher: &mut KeyHasher, digest: &Blake3) {
    hasher.bytes(digest);
}

/// A number for each type of file, and 0 for a deletion.
const fn ordinal(kind: Option<FileType>) -> u64 {
    match kind {
        None => 0,
        Some(FileType::RegularFile) => 1,
        Some(FileType::Directory) => 2,
        Some(FileType::Symlink) => 3,
        Some(FileType::Fifo) => 4,
        Some(FileType::Socket) => 5,
        Some(FileType::CharacterDevice) => 6,
        Some(FileType::BlockDevice) => 7,
        Some(FileType::Unknown) => 8,
    }
}

fn name_of(dir: &Dir) -> &OsStr {
    dir.below.file_name().unwrap_or_default()
}

fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}
