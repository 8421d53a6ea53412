//! What is known of a build context's files without looking at them again: what was seen a moment ago, for a key, and what the stat cache
//! remembers.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::sync::Arc;

use rustix::fs::{FileType, Stat};

use super::file::Looked;
use super::fold::{Facts, Folded};
use super::stat_cache::{DirectoryId, Fingerprint, Remembered, Row, StatCache};
use super::tree::facts;
use super::walk::Listing;
use super::{Blake3, Seen, TreeOwner, digest_of_link};
use crate::tree::{Inode, Kind};

/// What is known of a build context.
pub struct KnownContext<'a> {
    /// What the build has seen of it, the latest last.
    pub seen: Vec<Arc<Seen>>,
    /// What earlier builds have.
    pub cache: &'a dyn StatCache,
}

impl fmt::Debug for KnownContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownContext").field("seen", &self.seen).finish_non_exhaustive()
    }
}

/// What is known of the files of one directory.
#[derive(Debug)]
pub struct KnownFiles<'a>(Files<'a>);

#[derive(Debug)]
enum Files<'a> {
    Seen(SeenDirectory<'a>),
    Remembered(Row),
}

/// What was listed, and what the files that count are.
#[derive(Debug, Clone, Copy)]
pub(super) struct SeenDirectory<'a> {
    pub(super) listing: &'a Listing,
    pub(super) looked: &'a [Looked],
    pub(super) folded: Option<&'a Folded>,
    pub(super) owner: TreeOwner,
}

/// What is known of one file.
#[derive(Debug)]
pub struct KnownFile<'a>(File<'a>);

#[derive(Debug)]
enum File<'a> {
    Seen(&'a Looked, TreeOwner),
    Remembered(Remembered<'a>),
}

impl KnownContext<'_> {
    /// What is known of the files of the directory with these attributes.
    pub fn files(&self, directory: &Stat) -> KnownFiles<'_> {
        Seen::latest(&self.seen, directory).unwrap_or_else(|| {
            let row = self.cache.get(&[DirectoryId::of(directory)]).pop().flatten();
            let remembered = row.and_then(|row| Row::decode(row, TreeOwner::Zero));
            KnownFiles(Files::Remembered(remembered.unwrap_or_default()))
        })
    }
}

impl<'a> KnownFiles<'a> {
    /// Nothing.
    pub fn none() -> Self {
        Self(Files::Remembered(Row::default()))
    }

    /// Whether it is what this build has seen, all of it.
    pub const fn is_seen(&self) -> bool {
        matches!(self.0, Files::Seen(_))
    }

    /// What was seen.
    pub(super) const fn seen(seen: SeenDirectory<'a>) -> Self {
        Self(Files::Seen(seen))
    }

    /// What came of the directory for a digest, if it was seen by this build and counts.
    pub const fn folded(&self) -> Option<&'a Folded> {
        match &self.0 {
            Files::Seen(seen) => seen.folded,
            Files::Remembered(_) => None,
        }
    }

    /// What is in the directory, and what is known of that, if it was seen by this build.
    pub fn all(&self) -> Option<Vec<(OsString, FileType, Option<KnownFile<'_>>)>> {
        let Files::Seen(SeenDirectory { listing, looked, owner, .. }) = &self.0 else { return None };
        let files = listing.files.iter().zip(*looked).map(|(name, file)| {
            let kind = FileType::from_raw_mode(file.stat.st_mode);
            (name.to_owned(), kind, Some(KnownFile(File::Seen(file, *owner))))
        });
        let others = listing.others().map(|(name, kind)| (name.to_owned(), kind, None));
        Some(files.chain(others).collect())
    }

    /// What is known of the file of this name.
    pub fn file(&self, name: &OsStr) -> Option<KnownFile<'_>> {
        let file = match &self.0 {
            Files::Seen(SeenDirectory { listing, looked, owner, .. }) => {
                let at = listing.files.binary_search_by(|known| known.as_os_str().cmp(name)).ok()?;
                File::Seen(&looked[at], *owner)
            }
            Files::Remembered(row) => File::Remembered(row.file(name)?),
        };
        Some(KnownFile(file))
    }
}

impl KnownFile<'_> {
    /// Its attributes, if they were seen by this build.
    pub const fn stat(&self) -> Option<Stat> {
        match &self.0 {
            File::Seen(looked, _) => Some(looked.stat),
            File::Remembered(_) => None,
        }
    }

    /// Whether it was seen by this build, and has no extended attributes that count.
    pub const fn is_plain(&self) -> bool {
        match &self.0 {
            File::Seen(looked, _) => looked.substance.xattrs.is_none(),
            File::Remembered(_) => false,
        }
    }

    /// Whether it was seen by this build, and counts for a digest as a tree's inode does.
    pub fn counts_as(&self, inode: &Inode) -> bool {
        let File::Seen(looked, owner) = &self.0 else { return false };
        let content = match &inode.kind {
            Kind::File(content) => content.digest,
            Kind::Symlink(target) => Some(digest_of_link(target)),
            Kind::Special(..) | Kind::Directory(_) => None,
        };
        let is_plain = self.is_plain() && inode.attributes.xattrs.is_empty();
        is_plain && content == looked.substance.content && facts(inode) == Facts::of(&looked.stat, *owner)
    }

    /// The digest of what it holds, given that it has these attributes.
    pub fn digest(&self, stat: &Stat) -> Option<Blake3> {
        let (fingerprint, substance) = match &self.0 {
            // It held something else than its attributes say.
            File::Seen(looked, _) if !looked.is_steady() => return None,
            File::Seen(looked, _) => (Fingerprint::of(&looked.stat), looked.substance),
            File::Remembered(file) => (file.fingerprint, file.substance),
        };
        if fingerprint == Fingerprint::of(stat) { substance.content } else { None }
    }
}
