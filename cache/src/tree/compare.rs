//! What of a tree an earlier layer has already: the rest has to be made, and what the layer has too much hidden.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};

use rayon::ThreadPool;
use rayon::prelude::*;

use super::grow::{Open, open_file};
use super::{InodeId, Kind, Tree};
use crate::content_digest::{Blake3, LayerEntry, LayerScan, content_digest};
use crate::root_dir::{At as _, PathError};

/// Names by the directory that they are in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamesByDirectory(HashMap<PathBuf, HashSet<OsString>>);

/// How a layer that is to be made differs from one that there is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Differences {
    /// What has to be made of the tree, by directories of it.
    pub(crate) changed: NamesByDirectory,
    /// What is not in the new layer, by directories of that.
    pub(crate) removed: BTreeMap<PathBuf, Vec<OsString>>,
    /// How many names, and how many bytes of files, are changed.
    pub(crate) changed_names: usize,
    pub(crate) changed_bytes: u64,
}

/// A layer in the making: `tree` goes into the directory `at`; all else that will be in it is `present`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewLayer<'a> {
    pub(crate) tree: &'a Tree,
    pub(crate) at: &'a Path,
    pub(crate) present: &'a NamesByDirectory,
}

impl NamesByDirectory {
    /// Whether a directory has a name.
    pub fn contains(&self, directory: &Path, name: &OsStr) -> bool {
        self.0.get(directory).is_some_and(|names| names.contains(name))
    }

    /// Adds a directory that may have no names.
    pub(crate) fn directory(&mut self, path: PathBuf) -> &mut HashSet<OsString> {
        self.0.entry(path).or_default()
    }

    fn has_directory(&self, path: &Path) -> bool {
        self.0.contains_key(path)
    }
}

/// Compares a layer in the making with `base`. Files whose contents are known of one of them only are read, by `open`.
pub(crate) fn compare(
    new: NewLayer<'_>,
    base: &LayerScan,
    pool: &ThreadPool,
    open: Open<'_>,
) -> Result<Differences, PathError> {
    let mut comparer = Comparer {
        new,
        names: new.tree.count_names().0,
        alike: HashMap::new(),
        doubtful: Vec::new(),
        differences: Differences::default(),
    };
    comparer.look_for(base);
    comparer.settle_doubts(pool, open)?;
    comparer.collect(InodeId::ROOT, Path::new(""));
    Ok(comparer.differences)
}

struct Comparer<'a> {
    new: NewLayer<'a>,
    /// How many names each inode of the tree has.
    names: Vec<u32>,
    /// The names of files of the tree that the base has, by the entries that they are there.
    alike: HashMap<InodeId, Vec<&'a LayerEntry>>,
    /// Those that seem to be the same, but nobody knows what the file of the tree holds.
    doubtful: Vec<Doubt<'a>>,
    differences: Differences,
}

/// A file of the tree, and the entry that it may be.
struct Doubt<'a> {
    directory: &'a Path,
    name: &'a OsStr,
    id: InodeId,
    entry: &'a LayerEntry,
}

impl<'a> Comparer<'a> {
    /// Looks for what the base has.
    fn look_for(&mut self, base: &'a LayerScan) {
        let NewLayer { tree, at, present } = self.new;
        for (path, entries) in base.directories() {
            let below = path.strip_prefix(at).ok();
            let here = below.and_then(|below| tree.directory_at(below));
            if here.is_none() && !present.has_directory(path) {
                continue;
            }
            let here = here.and_then(|here| tree.entries(here));
            for (name, entry) in entries {
                match here.and_then(|here| here.get(name)) {
                    // What is there already hides it.
                    _ if present.contains(path, name) => {}
                    Some(id) => {
                        let directory = below.unwrap_or(Path::new(""));
                        self.meet(Doubt { directory, name, id: *id, entry });
                    }
                    None => {
                        self.differences.removed.entry(path.to_owned()).or_default().push(name.to_owned());
                    }
                }
            }
        }
    }

    fn meet(&mut self, doubt: Doubt<'a>) {
        let Doubt { id, entry, .. } = doubt;
        let inode = self.new.tree.inode(id);
        if !entry.is_like(inode) {
            return;
        }
        match entry.holds_content_of(inode) {
            Some(true) => self.alike.entry(id).or_default().push(entry),
            Some(false) => {}
            None => self.doubtful.push(doubt),
        }
    }

    fn settle_doubts(&mut self, pool: &ThreadPool, open: Open<'_>) -> Result<(), PathError> {
        let settle = |doubt: &Doubt<'a>| {
            let Doubt { directory, name, id, entry } = *doubt;
            let held = digest_of(&open_file(&open(directory)?, name, directory)?)?;
            Ok(entry.holds(held).then_some((id, entry)))
        };
        let settled: Vec<Option<(InodeId, &LayerEntry)>> =
            pool.install(|| self.doubtful.par_iter().map(settle).collect::<Result<_, PathError>>())?;
        for (id, entry) in settled.into_iter().flatten() {
            self.alike.entry(id).or_default().push(entry);
        }
        Ok(())
    }

    /// Whether the base has a file with all of its names, and these are all that it has there.
    fn is_there(&self, id: InodeId) -> bool {
        let Some(alike) = self.alike.get(&id) else { return false };
        if self.new.tree.entries(id).is_some() {
            return true;
        }
        let names = u64::from(self.names[id.index()]);
        let same = |entry: &&LayerEntry| entry.inode == alike[0].inode && entry.names == names;
        alike.len() as u64 == names && alike.iter().all(same)
    }

    /// Notes what of a directory has to be made. Returns whether anything has to be in it.
    fn collect(&mut self, directory: InodeId, path: &Path) -> bool {
        let tree = self.new.tree;
        let mut is_changed = self.differences.removed.contains_key(&self.new.at.join(path));
        for (name, id) in tree.entries(directory).into_iter().flatten() {
            let kind = &tree.inode(*id).kind;
            let below = matches!(kind, Kind::Directory(_)) && self.collect(*id, &path.join(name));
            if below || !self.is_there(*id) {
                is_changed = true;
                self.differences.changed.directory(path.to_owned()).insert(name.clone());
                self.differences.changed_names += 1;
                self.differences.changed_bytes += tree.inode(*id).size_bytes();
            }
        }
        is_changed
    }
}

fn digest_of(file: &File) -> Result<Blake3, PathError> {
    content_digest(file).at("read", "a file to copy").map(|(digest, _)| digest)
}
