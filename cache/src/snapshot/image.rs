//! Layers that are images or deltas: mounted when they are first needed, for as long as the handle lives.
//!
//! A layer's image is compressed where it is; it is mounted from a file without a name, which goes with the mount. On the way it is
//! compared with its digest, so no image is mounted that was not made here.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rusqlite::{OptionalExtension as _, Transaction};
use rustix::fs::{Mode, OFlags};

use super::hash::HashedAside;
use super::offer::{ImageName, Offer};
use super::overlay::{MountedRoot, mount_image};
use super::plain::ViewedTree;
use super::settle::{Written, this_boot};
use super::{LayerId, OverlayXattrs, Trees};
use crate::content_digest::Blake3;
use crate::db::Failure;
use crate::prune::ledger;
use crate::root_dir::{At as _, proc_path};
use crate::tree::grow::{Pack, PackId, SettledTree};
use crate::tree::pack::read_key_image;
use crate::tree::{Attributes, Tree, erofs, stored};
use crate::{Error, Result, Store};

/// In which form copies of directories become layers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LayerForm {
    /// As trees, where these can be mounted and are worth it, else as directories.
    #[default]
    Default,
    /// As trees, where these can be mounted, else as what differs from the layer before, where that is worth it.
    Auto,
    /// As directories.
    Directory,
    /// As what differs from the layer that the same copy left before, however much, where that can be mounted.
    Delta,
    /// As trees, however small, where these can be mounted.
    Tree,
}

/// What is under a layer's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kept {
    /// All of it, as a directory.
    Directory,
    /// The image with this digest, and its packs in their order.
    Image {
        /// Of the image as it is mounted.
        digest: Blake3,
        /// By their rows.
        packs: Vec<Written>,
    },
    /// What it has that another layer, a directory, has not.
    Delta {
        /// That one.
        base: LayerId,
    },
}

/// A layer as a directory.
#[derive(Debug)]
pub(super) enum ShownLayer {
    /// It is one.
    Itself(PathBuf),
    /// It is mounted for this handle alone.
    Mount(MountedRoot),
    /// It is mounted, by this process or another one, and offered to more.
    Offered {
        #[expect(dead_code, reason = "held for its drop, before that of the mount")]
        offer: Option<Offer>,
        root: MountedRoot,
    },
    /// Where nothing can be mounted.
    Copy(ViewedTree),
}

/// Whose mounts of images will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mounts {
    /// New ones: what is on the disk now is looked at.
    Own,
    /// Any.
    Shared,
}

impl ShownLayer {
    pub(super) fn path(&self) -> PathBuf {
        match self {
            Self::Itself(path) => path.clone(),
            Self::Mount(root) | Self::Offered { root, .. } => proc_path(root),
            Self::Copy(tree) => tree.root(),
        }
    }
}

/// A tree that this handle made a layer of.
#[derive(Debug)]
pub(super) struct NewTree {
    pub(super) settled: Arc<SettledTree>,
    /// Its archives, where they were hashed while it was committed.
    pub(super) aside: Option<Arc<HashedAside>>,
}

/// What a handle knows of layers.
#[derive(Debug, Default)]
pub(crate) struct Images {
    shown: Mutex<HashMap<LayerId, ShownLayer>>,
    /// Those that this handle made, and whose archives were not asked for yet.
    new_trees: Mutex<HashMap<LayerId, NewTree>>,
    /// Those of which was asked what they hold.
    known: Mutex<HashMap<LayerId, Arc<Tree>>>,
    /// The images of those that were not mounted yet.
    unmounted: Mutex<HashMap<LayerId, Vec<u8>>>,
    support: OnceLock<Result<(), String>>,
    pub(super) delta_support: OnceLock<Result<(), String>>,
}

/// How many trees are remembered until somebody asks for their archives, and how many images until they are mounted.
const GROWN_MAX: usize = 4;

fn remember<T>(all: &Mutex<HashMap<LayerId, T>>, layer: LayerId, made: T) {
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    all.insert(layer, made);
    if all.len() > GROWN_MAX {
        let oldest = all.keys().min().copied();
        oldest.and_then(|oldest| all.remove(&oldest));
    }
}

impl Store {
    /// Whether layers can be trees here, tried once with a small one; else the reason.
    pub fn tree_support(&self) -> Result<(), String> {
        self.0.images.support.get_or_init(|| self.probe()).clone()
    }

    fn probe(&self) -> Result<(), String> {
        if self.0.options.trees == Trees::Plain {
            return Err("nothing is mounted here".to_owned());
        }
        if self.xattrs() == OverlayXattrs::User {
            return Err("the kernel mounts no images in a user namespace".to_owned());
        }
        self.mount_sample().map_err(|error| reason(&error))
    }

    /// Mounts an image with nothing in it, with a pack of one block, and an overlay on it.
    fn mount_sample(&self) -> Result<()> {
        let tree = Tree::new(Attributes { mode: 0o755, ..Attributes::default() });
        let image = self.nameless(&erofs::image(&tree, &[1]).map_err(Error::Image)?)?;
        let pack = self.nameless(&[0; erofs::BLOCK_BYTES as usize])?;
        let mounted = mount_image(&image, &[pack])?;
        let lowers = vec![proc_path(&mounted), self.0.layout.directory("empty")];
        self.join(lowers).map(drop)
    }

    /// The directory of a layer: where it is, or where it is mounted. Good as long as this handle.
    pub(crate) fn layer_path(&self, layer: LayerId) -> Result<PathBuf> {
        let mut all = self.0.images.shown.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(match all.entry(layer) {
            Entry::Occupied(known) => known.get().path(),
            Entry::Vacant(new) => {
                let shown = self.show_layer(layer, Mounts::Shared);
                new.insert(shown.inspect_err(|error| self.forget_damaged(error))?).path()
            }
        })
    }

    /// Shows a layer.
    pub(super) fn show_layer(&self, layer: LayerId, mounts: Mounts) -> Result<ShownLayer> {
        Ok(match self.kept(layer)? {
            Kept::Directory => {
                let path = self.0.layout.layer(layer);
                if path.is_dir() { ShownLayer::Itself(path) } else { return Err(Error::LayerMissing(layer)) }
            }
            Kept::Image { digest, packs } => {
                let packs = self.open_packs(layer, packs)?;
                let mount = || mount_image(&self.nameless(&self.image(layer, digest, &packs)?)?, &packs);
                match mounts {
                    Mounts::Own => ShownLayer::Mount(mount()?),
                    Mounts::Shared => {
                        let name = ImageName::new(digest, &packs)?;
                        let root = self.take_mount(&name).map_or_else(mount, Ok)?;
                        ShownLayer::Offered { offer: self.offer_mount(&name, &root), root }
                    }
                }
            }
            Kept::Delta { base } => self.show_delta(layer, base)?,
        })
    }

    fn open_packs(&self, layer: LayerId, packs: Vec<Written>) -> Result<Vec<File>> {
        let open = |written: Written| {
            let path = self.0.layout.pack(written.pack);
            let file = of_layer(layer, File::open(&path), "open", &path)?;
            if self.is_settled(&written, &file)? { Ok(file) } else { Err(Error::ImageDamaged(layer)) }
        };
        packs.into_iter().map(open).collect()
    }

    fn image(&self, layer: LayerId, digest: Blake3, packs: &[File]) -> Result<Vec<u8>> {
        let made = self.0.images.unmounted.lock().unwrap_or_else(PoisonError::into_inner).remove(&layer);
        if let Some(image) = made {
            return Ok(image);
        }
        let image = self.read_image(layer, packs)?;
        if *blake3::hash(&image).as_bytes() == digest { Ok(image) } else { Err(Error::ImageDamaged(layer)) }
    }

    /// A layer's tree, with what its packs say of contents.
    pub(super) fn known_tree(&self, layer: LayerId) -> Result<Arc<Tree>> {
        let known = self.0.images.known.lock().unwrap_or_else(PoisonError::into_inner).get(&layer).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let Kept::Image { digest, packs } = self.kept(layer)? else { return Err(Error::LayerMissing(layer)) };
        let tree = self.read_tree(layer, digest, packs);
        let tree = Arc::new(tree.inspect_err(|error| self.forget_damaged(error))?);
        remember(&self.0.images.known, layer, Arc::clone(&tree));
        Ok(tree)
    }

    fn read_tree(&self, layer: LayerId, digest: Blake3, packs: Vec<Written>) -> Result<Tree> {
        let packs = self.open_packs(layer, packs)?;
        let mut tree = self.read_places(layer, digest, &packs)?;
        tree.note_digests(&packs)?;
        Ok(tree)
    }

    /// A layer's tree, without the digests of contents.
    pub(crate) fn placed_tree(&self, layer: LayerId) -> Result<Tree> {
        let Kept::Image { digest, packs } = self.kept(layer)? else { return Err(Error::LayerMissing(layer)) };
        self.read_places(layer, digest, &self.open_packs(layer, packs)?)
    }

    fn read_places(&self, layer: LayerId, digest: Blake3, packs: &[File]) -> Result<Tree> {
        erofs::read(&self.image(layer, digest, packs)?).ok_or(Error::ImageDamaged(layer))
    }

    /// Sees to it that what is damaged or gone is not found again.
    fn forget_damaged(&self, error: &Error) {
        if let Error::ImageDamaged(layer) | Error::LayerMissing(layer) = error {
            // One that stays is refused the next time, too.
            drop(self.forget_layer(*layer));
        }
    }

    fn read_image(&self, layer: LayerId, packs: &[File]) -> Result<Vec<u8>> {
        let path = self.0.layout.layer(layer);
        let stored = of_layer(layer, fs::read(&path), "read", &path)?;
        let key = |number| {
            let pack = packs.get(usize::from(number)).ok_or(io::ErrorKind::InvalidData)?;
            read_key_image(pack, 0)
        };
        match stored::read(&stored, key) {
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => Err(error).at("read", &path)?,
            read => read.map_err(|_| Error::ImageDamaged(layer)),
        }
    }

    /// What is under a layer's name.
    pub(crate) fn kept(&self, layer: LayerId) -> Result<Kept> {
        self.0.db.read("look up a layer", |db| {
            let sql = "SELECT image, base FROM layer WHERE id = ?1";
            let row = db.prepare_cached(sql)?.query_row([layer.0], |row| Ok((row.get(0)?, row.get(1)?)));
            let (image, base): (Option<Blake3>, Option<i64>) =
                row.optional()?.ok_or(Error::LayerMissing(layer))?;
            if let Some(base) = base {
                return Ok(Kept::Delta { base: LayerId(base) });
            }
            let Some(digest) = image else { return Ok(Kept::Directory) };
            let sql = "SELECT id, created, boot FROM pack JOIN layer_pack ON pack = id WHERE layer = ?1
                ORDER BY number";
            let mut packs = db.prepare_cached(sql)?;
            let packs = packs.query_map([layer.0], Written::of_row)?.collect::<Result<_, _>>()?;
            Ok(Kept::Image { digest, packs })
        })
    }

    /// A file that is gone with its last user.
    pub(crate) fn nameless(&self, bytes: &[u8]) -> Result<File> {
        let path = self.0.layout.directory("active");
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::open(&path, flags, Mode::RUSR).at("create a file in", &path)?);
        file.write_all(bytes).at("write a file in", &path)?;
        Ok(file)
    }

    /// Remembers a tree that became a layer, so that it can be mounted and its archive made without reading it.
    pub(super) fn remember_new_tree(&self, layer: LayerId, image_bytes: Vec<u8>, tree: NewTree) {
        remember(&self.0.images.unmounted, layer, image_bytes);
        remember(&self.0.images.new_trees, layer, tree);
    }

    pub(super) fn take_new_tree(&self, layer: LayerId) -> Option<NewTree> {
        self.0.images.new_trees.lock().unwrap_or_else(PoisonError::into_inner).remove(&layer)
    }

    /// Gives a new pack its row and its name, and notes all packs of a layer, in the transaction that adds the layer.
    pub(super) fn insert_packs(
        &self,
        db: &Transaction<'_>,
        layer: LayerId,
        packs: &[Pack],
        stamp: i64,
    ) -> Result<(), Failure> {
        for (number, pack) in (0_i64..).zip(packs) {
            let id = match &pack.id {
                PackId::Known(id) => *id,
                PackId::New(path) => self.insert_pack(db, pack, path, stamp)?,
            };
            let sql = "INSERT INTO layer_pack (layer, number, pack, needed_bytes) VALUES (?1, ?2, ?3, ?4)";
            db.prepare_cached(sql)?.execute((layer.0, number, id, pack.needed_bytes.cast_signed()))?;
        }
        Ok(())
    }

    fn insert_pack(
        &self,
        db: &Transaction<'_>,
        pack: &Pack,
        path: &Path,
        stamp: i64,
    ) -> Result<i64, Failure> {
        let disk_size_bytes = pack.disk_size_bytes()?.cast_signed();
        let sql = "INSERT INTO pack (blocks, disk_size_bytes, created, last_used, boot)
            VALUES (?1, ?2, ?3, ?3, ?4)";
        let row = (pack.blocks.cast_signed(), disk_size_bytes, stamp, this_boot());
        db.prepare_cached(sql)?.execute(row)?;
        let id = db.last_insert_rowid();
        ledger::add(db, disk_size_bytes)?;
        let packs = self.0.layout.packs();
        fs::create_dir_all(&packs).at("create", &packs)?;
        super::active::move_in(self, path, &self.0.layout.pack(id))?;
        Ok(id)
    }
}

/// A file of a layer that has a row: without it the layer is damaged.
fn of_layer<T>(layer: LayerId, found: io::Result<T>, verb: &'static str, path: &Path) -> Result<T> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::ImageDamaged(layer)),
        found => Ok(found.at(verb, path)?),
    }
}

/// An error and what caused it.
pub(super) fn reason(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
