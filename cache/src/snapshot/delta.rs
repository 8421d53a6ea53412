//! Layers that are told from others: a directory that is to be seen on top of another layer's.
//!
//! A copy of many files of which few have changed leaves what has changed, in overlayfs's form: what it has more than the layer that the
//! same copy left before (its *base*), and whiteouts for what it has less. Overlayfs joins the two into one read-only directory, which is
//! then a layer as any other; `docs/design/trees.md` has the reasons. So:
//!
//! * a base is a directory itself, so there are never more than two;
//! * neither hides anything of what is below the layer: whiteouts and opaque directories would be taken for those of the delta;
//! * a base stays as long as a layer is told from it (`layer.base`).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use rayon::ThreadPool;
use rustix::fs::{AtFlags, fstat, statat};

use super::active::copy_root_attributes;
use super::image::{Kept, ShownLayer, reason};
use super::overlay::MountedRoot;
use super::plain::{ViewedTree, restore_times};
use super::{ActiveSnapshot, LayerForm, LayerId, OverlayXattrs, Snapshot, Trees};
use crate::content_digest::{DigestOptions, Memory, TreeOwner, scan_layer};
use crate::layer::whiteout::{is_opaque, is_whiteout, make_whiteout};
use crate::root_dir::{At as _, RootDir, list, proc_path};
use crate::tree::Tree;
use crate::tree::compare::{Differences, NamesByDirectory, NewLayer, compare};
use crate::tree::grow::Open;
use crate::{Error, Result, Store};

/// A delta is worth it if it has this part of the names and bytes at most. What is changed for good is in every delta until there is a new
/// base.
const WORTHY_PART: usize = 4;

/// How many bases are tried.
const BASES_MAX: usize = 2;

/// How a layer differs from another.
#[derive(Debug)]
pub struct Delta {
    base: LayerId,
    changed: NamesByDirectory,
    removed: BTreeMap<PathBuf, Vec<OsString>>,
}

/// A tree that is to be put into a layer.
#[derive(Clone, Copy)]
pub struct Addition<'a> {
    /// The directory of the layer that it goes into.
    pub path: &'a Path,
    /// What goes in there.
    pub tree: &'a Tree,
    /// Opens files of it, to see what they hold.
    pub open: Open<'a>,
}

impl std::fmt::Debug for Addition<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Addition").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Delta {
    /// What of the tree has to be put into the layer, by directories of the tree.
    pub const fn changed(&self) -> &NamesByDirectory {
        &self.changed
    }

    pub(super) const fn base(&self) -> LayerId {
        self.base
    }

    /// Marks what the base has too much. The directories keep their times.
    pub(super) fn mark_removed(&self, upper: &Path, xattrs: OverlayXattrs) -> Result<()> {
        let root = RootDir::open(upper)?;
        for (path, names) in &self.removed {
            let directory = root.open_dir(path)?;
            let stat = fstat(&directory).at("read the attributes of", path)?;
            let mark = |name: &OsString| make_whiteout(directory.as_fd(), name, xattrs);
            names.iter().try_for_each(mark).at("mark what is removed in", path)?;
            restore_times(directory.as_fd(), &stat).at("set the time of", path)?;
        }
        Ok(())
    }
}

impl ActiveSnapshot {
    /// How a layer to which a tree is added can be told from the topmost layer of one of the snapshots `earlier`, which are tried in their
    /// order; `None` if it cannot be, or it is not worth it. All else that belongs to the layer is in it by now.
    ///
    /// # Errors
    /// When something cannot be read, or it was cancelled.
    pub fn compare(
        &self,
        earlier: &[Snapshot],
        addition: &Addition<'_>,
        pool: &ThreadPool,
        cancel: &AtomicBool,
    ) -> Result<Option<Delta>> {
        let store = self.store();
        let Some(present) = names_in(&RootDir::open(self.upper())?, store.xattrs())? else { return Ok(None) };
        let new = NewLayer { tree: addition.tree, at: addition.path, present: &present };
        let memory = Memory { cache: store.stat_cache()?, now_ns: store.stamp() };
        let options = DigestOptions {
            pool,
            owner: TreeOwner::Keep,
            memory: Some(memory),
            layers: None,
            cancel: Some(cancel),
        };
        for base in store.bases_of(earlier)? {
            // One that is missing is for a check to tell of.
            let Ok(directory) = RootDir::open(store.0.layout.layer(base)) else { continue };
            let Some(scan) = scan_layer(&directory, store.xattrs(), &options)? else { continue };
            let differences = compare(new, &scan, pool, addition.open)?;
            if store.layer_form() == LayerForm::Delta || is_worth_it(&differences, addition.tree) {
                let Differences { changed, removed, .. } = differences;
                return Ok(Some(Delta { base, changed, removed }));
            }
        }
        Ok(None)
    }
}

fn is_worth_it(differences: &Differences, tree: &Tree) -> bool {
    differences.changed_names <= tree.len() / WORTHY_PART
        && differences.changed_bytes <= tree.size_bytes() / WORTHY_PART as u64
}

impl Store {
    /// Whether layers can be told from others here, tried once; else the reason.
    pub fn delta_support(&self) -> Result<(), String> {
        let probe = || {
            if self.0.options.trees == Trees::Plain {
                return Err("nothing is mounted here".to_owned());
            }
            self.mount_overlays().map(drop).map_err(|error| reason(&error))
        };
        self.0.images.delta_support.get_or_init(probe).clone()
    }

    /// Mounts an overlay on an overlay, as a layer that is told from another is mounted below others.
    fn mount_overlays(&self) -> Result<MountedRoot> {
        let [empty, one, other] = ["empty", "layers", "active"].map(|name| self.0.layout.directory(name));
        let joined = self.join(vec![one, other])?;
        self.join(vec![proc_path(&joined), empty])
    }

    /// Joins a layer that is told from another with that.
    pub(super) fn show_delta(&self, layer: LayerId, base: LayerId) -> Result<ShownLayer> {
        let lowers = vec![self.0.layout.layer(layer), self.0.layout.layer(base)];
        if let Some(missing) = lowers.iter().zip([layer, base]).find(|(path, _)| !path.is_dir()) {
            return Err(Error::LayerMissing(missing.1));
        }
        if self.0.options.trees == Trees::Plain {
            let stack = lowers.iter().map(RootDir::open).collect::<Result<Vec<_>, _>>()?;
            let copied = ViewedTree::make(self, |tree| self.carry_out_stack(&stack, &[base, layer], tree))?;
            copy_root_attributes(&lowers[0], &copied.root())?;
            return Ok(ShownLayer::Copy(copied));
        }
        self.join(lowers).map(ShownLayer::Mount)
    }

    /// The layers that others can be told from in the place of snapshots' topmost ones, each once, in use from here on.
    fn bases_of(&self, snapshots: &[Snapshot]) -> Result<Vec<LayerId>> {
        let mut bases = Vec::new();
        for snapshot in snapshots {
            let Some(top) = snapshot.layers.last() else { continue };
            match self.touch(snapshot) {
                Err(Error::SnapshotMissing(_)) => continue,
                touched => touched?,
            }
            let base = match self.kept(*top)? {
                Kept::Directory => *top,
                Kept::Delta { base } => base,
                Kept::Image { .. } => continue,
            };
            if !bases.contains(&base) {
                bases.push(base);
            }
        }
        bases.truncate(BASES_MAX);
        Ok(bases)
    }
}

/// All names in a layer that is a directory; `None` if it hides something of what is below it.
fn names_in(layer: &RootDir, xattrs: OverlayXattrs) -> Result<Option<NamesByDirectory>> {
    let mut names = NamesByDirectory::default();
    let mut paths = vec![PathBuf::new()];
    while let Some(path) = paths.pop() {
        let directory = layer.open_dir(&path)?;
        if is_opaque(directory.as_fd(), ".".as_ref(), xattrs).at("read the attributes of", &path)? {
            return Ok(None);
        }
        let here = names.directory(path.clone());
        for (name, kind) in list(directory.as_fd()).at("list", &path)? {
            let stat = statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW);
            let stat = stat.at_name("read the attributes of", &path, &name)?;
            if is_whiteout(directory.as_fd(), &name, &stat, xattrs).at("read the attributes of", &path)? {
                return Ok(None);
            }
            if kind.is_dir() {
                paths.push(path.join(&name));
            }
            here.insert(name);
        }
    }
    Ok(Some(names))
}

#[cfg(test)]
mod tests;
