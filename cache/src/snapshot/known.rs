//! What is known of the files of a snapshot: what its layers say that those hold which are in trees, without a file being opened, and what was seen of them a
//! moment ago.
//!
//! Which layer a file is shown from is decided as overlayfs decides it, by names alone. Whoever takes a content for a file's compares the file's
//! attributes as well.

use std::ffi::OsStr;
use std::fmt;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustix::fs::{AtFlags, Mode, OFlags, openat, statat};
use rustix::io::Errno;

use super::image::Kept;
use super::{LayerId, OverlayXattrs, Snapshot};
use crate::content_digest::{KnownFiles, Seen};
use crate::layer::whiteout::is_opaque;
use crate::root_dir::{RootDir, Stat};
use crate::tree::{Entries, Inode, InodeId, Tree};
use crate::{Result, Store};

/// What the layers of a snapshot say. They are looked at when something is asked for first.
pub struct KnownLayers {
    store: Store,
    snapshot: Snapshot,
    /// Top first, down to the lowest that is a tree.
    layers: OnceLock<Vec<KnownLayer>>,
    /// The latest last.
    seen: Vec<Arc<Seen>>,
}

enum KnownLayer {
    Tree(Arc<Tree>),
    Directory(RootDir),
}

/// A directory of a snapshot in the layers that show something of it, top first.
#[derive(Debug)]
pub struct KnownDirectory<'a>(Vec<Here<'a>>);

#[derive(Debug)]
enum Here<'a> {
    Tree(&'a Tree, &'a Entries),
    Directory(OwnedFd),
}

/// What a layer has of a directory, and whether it hides what is below it.
struct Reach<T> {
    directory: Option<T>,
    hides: bool,
}

impl fmt::Debug for KnownLayers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownLayers").field("snapshot", &self.snapshot.id).finish_non_exhaustive()
    }
}

impl Store {
    /// What is known of the files of a snapshot, of which `seen` was seen by this build. A layer that cannot be read says nothing: that is for whoever
    /// mounts it to tell.
    pub fn known_layers(&self, snapshot: &Snapshot, seen: Vec<Arc<Seen>>) -> KnownLayers {
        KnownLayers { store: self.clone(), snapshot: snapshot.clone(), layers: OnceLock::new(), seen }
    }

    fn read_known_layers(&self, snapshot: &Snapshot) -> Result<Vec<KnownLayer>> {
        let kept = snapshot.layers.iter().map(|layer| self.kept(*layer)).collect::<Result<Vec<_>>>()?;
        let is_tree = |kept: &Kept| matches!(kept, Kept::Image { .. });
        let Some(lowest) = kept.iter().position(is_tree) else { return Ok(Vec::new()) };
        let known = |(layer, kept): (&LayerId, &Kept)| {
            Ok(if is_tree(kept) {
                KnownLayer::Tree(self.known_tree(*layer)?)
            } else {
                KnownLayer::Directory(RootDir::open(self.layer_path(*layer)?)?)
            })
        };
        snapshot.layers.iter().zip(&kept).skip(lowest).rev().map(known).collect()
    }
}

impl KnownLayers {
    /// What was seen of the files of the directory with these attributes.
    pub fn seen(&self, directory: &Stat) -> KnownFiles<'_> {
        Seen::latest(&self.seen, directory).unwrap_or_else(KnownFiles::none)
    }

    /// What is known of a directory, by its path from the root without symlinks.
    pub fn directory(&self, path: &Path) -> KnownDirectory<'_> {
        let layers =
            self.layers.get_or_init(|| self.store.read_known_layers(&self.snapshot).unwrap_or_default());
        let mut found = Vec::new();
        for layer in layers {
            let Ok(Reach { directory, hides }) = layer.reach(path, self.store.xattrs()) else {
                // What it may hide is not known.
                break;
            };
            found.extend(directory);
            if hides {
                break;
            }
        }
        KnownDirectory(found)
    }
}

impl KnownLayer {
    fn reach(&self, path: &Path, xattrs: OverlayXattrs) -> Result<Reach<Here<'_>>, Errno> {
        Ok(match self {
            Self::Tree(tree) => {
                let Reach { directory, hides } = reach_in_tree(tree, path);
                Reach { directory: directory.map(|entries| Here::Tree(tree, entries)), hides }
            }
            Self::Directory(root) => {
                let Reach { directory, hides } = reach_in_directory(root, path, xattrs)?;
                Reach { directory: directory.map(Here::Directory), hides }
            }
        })
    }
}

fn reach_in_tree<'a>(tree: &'a Tree, path: &Path) -> Reach<&'a Entries> {
    let (mut entries, mut hides) = (tree.entries(InodeId::ROOT), false);
    for name in path {
        let Some(id) = entries.and_then(|entries| entries.get(name)) else {
            return Reach { directory: None, hides };
        };
        entries = tree.entries(*id);
        hides |= entries.is_none() || tree.inode(*id).is_opaque();
    }
    Reach { directory: entries, hides }
}

fn reach_in_directory(root: &RootDir, path: &Path, xattrs: OverlayXattrs) -> Result<Reach<OwnedFd>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let (mut directory, mut hides) = (openat(root, ".", flags, Mode::empty())?, false);
    for name in path {
        directory = match openat(&directory, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(Reach { directory: None, hides }),
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(Reach { directory: None, hides: true }),
            opened => opened?,
        };
        hides |= is_opaque(directory.as_fd(), OsStr::new("."), xattrs)?;
    }
    Ok(Reach { directory: Some(directory), hides })
}

impl<'a> KnownDirectory<'a> {
    /// The file of a tree that is shown under a name; `None` if it is not one of a tree.
    pub fn file(&self, name: &OsStr) -> Option<&'a Inode> {
        for here in &self.0 {
            match here {
                Here::Tree(tree, entries) => {
                    if let Some(id) = entries.get(name) {
                        return Some(tree.inode(*id));
                    }
                }
                Here::Directory(directory) => match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Err(Errno::NOENT) => {}
                    _ => return None,
                },
            }
        }
        None
    }
}
