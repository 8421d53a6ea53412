//! What a digest was made of, file by file: for those who want to know what differs, or look at the same files next.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::Stat;

use super::file::{AllLooked, Looked};
use super::fold::{Facts, Folded, counts};
use super::known::{KnownFiles, SeenDirectory};
use super::stat_cache::{DirectoryId, Row, Substance};
use super::walk::{Dir, Top, Walk};
use super::{Selected, TreeEntry, TreeOwner};

/// What was seen of a selection.
pub struct Seen {
    dirs: Vec<Dir>,
    looked: AllLooked,
    /// What came of each directory, for the digest.
    folded: Vec<Option<Folded>>,
    owner: TreeOwner,
    tops: Vec<SeenTop>,
    /// Which of the directories each is.
    places: HashMap<DirectoryId, usize>,
}

/// What counts of a directory: itself, perhaps, and the files in it that are no directories.
#[derive(Debug)]
pub struct SeenGroup<'a> {
    /// [`Selected::name`] and the path below it.
    pub path: PathBuf,
    /// What is at that path, if it counts.
    pub own: Option<TreeEntry>,
    /// By name, sorted.
    pub files: Vec<(&'a OsStr, TreeEntry)>,
}

/// A selected path, with what its entries' paths begin with.
struct SeenTop {
    top: Top,
    name: PathBuf,
    contents_only: bool,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seen").field("directories", &self.dirs.len()).finish_non_exhaustive()
    }
}

impl Seen {
    pub(super) fn new(
        mut walk: Walk<'_>,
        tops: Vec<Top>,
        looked: AllLooked,
        folded: Vec<Option<Folded>>,
        selected: &[Selected<'_>],
    ) -> Self {
        let top = |(top, selected): (Top, &Selected<'_>)| SeenTop {
            top,
            name: selected.name.to_owned(),
            contents_only: selected.contents_only,
        };
        let tops = tops.into_iter().zip(selected).map(top).collect();
        // What was remembered has been compared with what is there.
        walk.dirs.iter_mut().for_each(|dir| dir.listing.remembered = Row::default());
        let places = walk.dirs.iter().enumerate();
        let places = places.map(|(at, dir)| (DirectoryId::of(&dir.listing.stat), at)).collect();
        Self { owner: walk.options.owner, dirs: walk.dirs, looked, folded, tops, places }
    }

    /// How many files there are that are no directories.
    pub fn files(&self) -> usize {
        self.looked.in_dirs.iter().map(Vec::len).sum()
    }

    /// What was seen last of the files of a directory with these attributes; `None` if it was not listed, or changed since.
    pub(crate) fn latest<'a>(seen: &'a [Arc<Self>], directory: &Stat) -> Option<KnownFiles<'a>> {
        seen.iter().rev().find_map(|seen| seen.directory(directory))
    }

    pub(super) fn directory(&self, stat: &Stat) -> Option<KnownFiles<'_>> {
        let at = *self.places.get(&DirectoryId::of(stat))?;
        let Dir { listing, .. } = &self.dirs[at];
        let times = |stat: &Stat| (stat.st_ctime, stat.st_ctime_nsec, stat.st_mtime, stat.st_mtime_nsec);
        let is_same = times(stat) == times(&listing.stat);
        let (looked, folded) = (&self.looked.in_dirs[at][..], self.folded[at].as_ref());
        is_same.then(|| KnownFiles::seen(SeenDirectory { listing, looked, folded, owner: self.owner }))
    }

    /// Every file that counts, by directory.
    pub fn groups(&self) -> impl Iterator<Item = SeenGroup<'_>> {
        let (counted, labels) = (self.counted(), self.labels());
        let dirs = self.dirs.iter().zip(&self.looked.in_dirs).enumerate();
        let inner = dirs.filter(move |(index, _)| counted[*index]).map(move |(index, (dir, looked))| {
            let files = dir.listing.files.iter().zip(looked);
            SeenGroup {
                path: labels[index].join(&dir.below),
                own: dir.parent.map(|_| self.directory_entry(dir)),
                files: files.map(|(name, file)| (name.as_os_str(), self.file_entry(file))).collect(),
            }
        });
        let tops = self.tops.iter().zip(&self.looked.tops).filter_map(|(top, looked)| {
            let own = match (&top.top, looked) {
                (Top::Directory(index), _) if !top.contents_only => self.directory_entry(&self.dirs[*index]),
                (Top::File(_), Some(file)) => self.file_entry(file),
                _ => return None,
            };
            Some(SeenGroup { path: top.name.clone(), own: Some(own), files: Vec::new() })
        });
        inner.chain(tops)
    }

    /// Which directories count.
    fn counted(&self) -> Vec<bool> {
        let mut counted = vec![false; self.dirs.len()];
        for (index, dir) in self.dirs.iter().enumerate().rev() {
            // So far this says whether one below does.
            counted[index] = counts(dir, counted[index], &self.looked.in_dirs[index]);
            if let Some(parent) = dir.parent {
                counted[parent] |= counted[index];
            }
        }
        counted
    }

    /// For each directory, the selected path that it belongs to.
    fn labels(&self) -> Vec<&Path> {
        let mut labels: Vec<&Path> = vec![Path::new(""); self.dirs.len()];
        for SeenTop { top, name, .. } in &self.tops {
            if let Top::Directory(index) = top {
                labels[*index] = name;
            }
        }
        for (index, dir) in self.dirs.iter().enumerate() {
            if let Some(parent) = dir.parent {
                labels[index] = labels[parent];
            }
        }
        labels
    }

    fn directory_entry(&self, dir: &Dir) -> TreeEntry {
        let substance = Substance { content: None, xattrs: dir.listing.xattrs };
        self.entry(&dir.listing.stat, substance)
    }

    fn file_entry(&self, file: &Looked) -> TreeEntry {
        self.entry(&file.stat, file.substance)
    }

    fn entry(&self, stat: &Stat, substance: Substance) -> TreeEntry {
        let Facts { kind, mode, uid, gid, size_bytes, device } = Facts::of(stat, self.owner);
        let Substance { content, xattrs } = substance;
        TreeEntry { kind, mode, uid, gid, size_bytes, device, content, xattrs }
    }
}
