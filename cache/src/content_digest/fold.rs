//! The last pass: from the digests of files to the digest of the selection.

use std::path::{Path, PathBuf};

use rbuild_image::KeyHasher;
use rustix::fs::{FileType, Stat};

use super::file::{AllLooked, Looked};
use super::walk::{Dir, Top, Walk};
use super::{Blake3, Selected, TreeDigest, TreeEntry, TreeOwner};

/// The domains. A change of what is fed below, or of what counts, must bump them: it changes every user's keys.
const ENTRY_DOMAIN: &str = "rbuild.tree-entry.v1";
const DIRECTORY_DOMAIN: &str = "rbuild.tree-directory.v1";
const SELECTION_DOMAIN: &str = "rbuild.tree-selection.v1";

/// Digests what was found.
pub(super) fn fold(
    walk: &Walk<'_>,
    tops: &[Top],
    looked: &AllLooked,
    selected: &[Selected<'_>],
) -> TreeDigest {
    let mut fold = Fold {
        walk,
        looked,
        children: walk.dirs.iter().map(|_| Vec::new()).collect(),
        digests: vec![None; walk.dirs.len()],
        files: 0,
        size_bytes: 0,
        entries: walk.options.entries.then(Vec::new),
    };
    let labels = labels(walk, tops, selected);
    for index in (0..walk.dirs.len()).rev() {
        fold.directory(index, labels[index]);
    }
    let mut hasher = KeyHasher::new(SELECTION_DOMAIN);
    hasher.number(tops.len() as u64);
    for ((top, selected), top_looked) in tops.iter().zip(selected).zip(&looked.tops) {
        hasher.bytes(path_bytes(selected.name));
        match (top, top_looked) {
            (Top::Directory(index), _) => fold.feed_top_directory(&mut hasher, *index, selected),
            (Top::File(_), Some(file)) => {
                let entry = fold.file(selected.name.to_owned(), file);
                hasher.number(1u64).bytes(&entry);
            }
            (Top::File(_), None) => {}
        }
    }
    fold.finish(hasher.finish())
}

/// For each directory, the selected path that it belongs to.
fn labels<'s>(walk: &Walk<'_>, tops: &[Top], selected: &[Selected<'s>]) -> Vec<&'s Path> {
    let mut labels: Vec<&Path> = vec![Path::new(""); walk.dirs.len()];
    for (top, selected) in tops.iter().zip(selected) {
        if let Top::Directory(index) = top {
            labels[*index] = selected.name;
        }
    }
    for (index, dir) in walk.dirs.iter().enumerate() {
        if let Some(parent) = dir.parent {
            labels[index] = labels[parent];
        }
    }
    labels
}

struct Fold<'a> {
    walk: &'a Walk<'a>,
    looked: &'a AllLooked,
    /// For each directory, those in it that count, with their digests; last first.
    children: Vec<Vec<(usize, Blake3)>>,
    /// For each directory that counts, the digest of what is in it.
    digests: Vec<Option<Blake3>>,
    files: u64,
    size_bytes: u64,
    entries: Option<Vec<TreeEntry>>,
}

impl Fold<'_> {
    /// Digests a directory all of whose subdirectories have been.
    fn directory(&mut self, index: usize, label: &Path) {
        let dir = &self.walk.dirs[index];
        let subdirs = std::mem::take(&mut self.children[index]);
        let looked = &self.looked.in_dirs[index];
        if !dir.wanted && subdirs.is_empty() && looked.is_empty() {
            return;
        }
        let path = label.join(&dir.below);
        let mut entries: Vec<(&[u8], Blake3)> = Vec::with_capacity(subdirs.len() + looked.len());
        for (subdir, digest) in subdirs {
            entries.push((name_of(&self.walk.dirs[subdir]), digest));
        }
        for (name, file) in dir.listing.files.iter().zip(looked) {
            entries.push((name.as_encoded_bytes(), self.file(path.join(name), file)));
        }
        entries.sort_unstable();
        let mut hasher = KeyHasher::new(DIRECTORY_DOMAIN);
        hasher.number(dir.listing.opaque);
        hasher.list(&entries, |hasher, (name, digest)| {
            hasher.bytes(name).bytes(digest);
        });
        let content = hasher.finish();
        self.digests[index] = Some(content);
        if let Some(parent) = dir.parent {
            let entry = self.entry(path, &dir.listing.stat, dir.listing.xattrs, None);
            let digest = entry_digest(&entry, Some(content), false);
            self.children[parent].push((index, digest));
            self.add(entry);
        }
    }

    fn feed_top_directory(&mut self, hasher: &mut KeyHasher, index: usize, selected: &Selected<'_>) {
        let listing = &self.walk.dirs[index].listing;
        let content = self.digests[index];
        if selected.contents_only {
            hasher.number(2u64).option(content.as_ref(), feed);
            return;
        }
        let entry = self.entry(selected.name.to_owned(), &listing.stat, listing.xattrs, None);
        hasher.number(1u64).bytes(&entry_digest(&entry, content, false));
        self.add(entry);
    }

    fn file(&mut self, path: PathBuf, file: &Looked) -> Blake3 {
        let entry = self.entry(path, &file.stat, file.substance.xattrs, file.substance.content);
        let digest = entry_digest(&entry, entry.content, file.whiteout);
        self.add(entry);
        digest
    }

    fn entry(
        &self,
        path: PathBuf,
        stat: &Stat,
        xattrs: Option<Blake3>,
        content: Option<Blake3>,
    ) -> TreeEntry {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let (uid, gid) = match self.walk.options.owner {
            TreeOwner::Keep => (stat.st_uid, stat.st_gid),
            TreeOwner::Zero => (0, 0),
        };
        let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
        let size_bytes = if kind == FileType::RegularFile { stat.st_size.unsigned_abs() } else { 0 };
        let (mode, device) = (stat.st_mode & 0o7777, if is_device { stat.st_rdev } else { 0 });
        TreeEntry { path, kind, mode, uid, gid, size_bytes, device, content, xattrs }
    }

    fn add(&mut self, entry: TreeEntry) {
        self.files += 1;
        self.size_bytes += entry.size_bytes;
        if let Some(entries) = &mut self.entries {
            entries.push(entry);
        }
    }

    fn finish(self, digest: Blake3) -> TreeDigest {
        let read = |looked: &Looked| looked.read_bytes;
        let read_bytes =
            self.looked.in_dirs.iter().flatten().chain(self.looked.tops.iter().flatten()).map(read).sum();
        let mut entries = self.entries;
        if let Some(entries) = &mut entries {
            entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        }
        TreeDigest { digest, files: self.files, size_bytes: self.size_bytes, read_bytes, entries }
    }
}

/// The digest of a file, given that of its content: bytes, link target, or what is in a directory.
///
/// All whiteouts are alike, whichever form they have.
fn entry_digest(entry: &TreeEntry, content: Option<Blake3>, whiteout: bool) -> Blake3 {
    let mut hasher = KeyHasher::new(ENTRY_DOMAIN);
    if whiteout {
        return hasher.number(ordinal(None)).finish();
    }
    hasher.number(ordinal(Some(entry.kind))).number(entry.mode).number(entry.uid).number(entry.gid);
    hasher.number(entry.size_bytes).number(entry.device);
    hasher.option(content.as_ref(), feed).option(entry.xattrs.as_ref(), feed).finish()
}

fn feed(hasher: &mut KeyHasher, digest: &Blake3) {
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

fn name_of(dir: &Dir) -> &[u8] {
    dir.below.file_name().unwrap_or_default().as_encoded_bytes()
}

fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}
