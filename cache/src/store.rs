//! The handle.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, Once, OnceLock, Weak};

use crate::containers::Containers;
use crate::content::ContentStore;
use crate::db::Database;
use crate::file_lists::LastKey;
use crate::images::Images;
use crate::layer::Owners;
use crate::layout::{Area, Layout};
use crate::lease::LeaseFile;
use crate::prune::Growth;
use crate::records::Records;
use crate::snapshot::{Images as LayerImages, LayerForm, OverlayXattrs, Trees, ViewedTrees};
use crate::trash::Removers;
use crate::{BlobPlaces, Downloads, Result, StatCacheTable};

/// How a store is opened.
#[derive(Debug, Clone, Copy)]
pub struct StoreOptions {
    /// Which extended attributes overlayfs uses here. A store keeps to those that it was made with.
    pub xattrs: OverlayXattrs,
    /// Who owns what layers unpack to: whom the archive names, or this process where it may not change owners.
    pub owners: Owners,
    /// How layers become a tree.
    pub trees: Trees,
    /// In which form copies of directories become layers.
    pub layers: LayerForm,
    /// Into how large parts the archive of a layer is cut, at first and at least ([`layer::PART_SIZE_BYTES`](crate::layer::PART_SIZE_BYTES)
    /// is a good size); zero: it is not.
    pub part_size_bytes: u64,
    /// The clock, Unix nanoseconds: when things were made and last used. Must not differ between processes on one store.
    pub now: fn() -> i64,
}

/// A handle on the store. Cheap to clone, usable from many threads; any number of handles and processes share one store.
#[derive(Debug, Clone)]
pub struct Store(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) layout: Arc<Layout>,
    pub(crate) db: Database,
    pub(crate) content: ContentStore,
    pub(crate) growth: Arc<Growth>,
    pub(crate) options: StoreOptions,
    pub(crate) lease: Mutex<Weak<LeaseFile>>,
    /// Done once per handle, before the first entry is made in `active/`.
    pub(crate) cleaned_up: Once,
    pub(crate) removers: Removers,
    /// Held while a deep stack is flattened, so that it is done once.
    pub(crate) flattening: Mutex<()>,
    /// The plain trees that were looked at.
    pub(crate) viewed: ViewedTrees,
    /// The layers that are images.
    pub(crate) images: LayerImages,
    pub(crate) last_key: LastKey,
    stat_cache: OnceLock<StatCacheTable>,
    downloads: OnceLock<Downloads>,
    blob_places: OnceLock<BlobPlaces>,
}

impl Store {
    /// Opens the store at `root`, making it when there is none. Looks at nothing but its version
    /// and how full the disk is; on a full one, waits until what dead processes left is gone.
    ///
    /// # Errors
    /// When `root` holds something else, or a store of another format or kind.
    pub fn open(root: &Path, options: &StoreOptions) -> Result<Self> {
        let layout = Arc::new(Layout::new(absolute(root)?));
        layout.open(options.xattrs, || Database::create(layout.database()))?;
        let db = Database::open(layout.database())?;
        let growth = Arc::<Growth>::default();
        let store = Self(Arc::new(Inner {
            content: ContentStore::new(Arc::clone(&layout), Arc::clone(&growth)),
            growth,
            layout,
            db,
            options: *options,
            lease: Mutex::default(),
            cleaned_up: Once::new(),
            removers: Removers::default(),
            flattening: Mutex::default(),
            viewed: ViewedTrees::default(),
            images: LayerImages::default(),
            last_key: LastKey::default(),
            stat_cache: OnceLock::new(),
            downloads: OnceLock::new(),
            blob_places: OnceLock::new(),
        }));
        store.make_room();
        Ok(store)
    }

    /// The store's root, absolute.
    pub fn root(&self) -> &Path {
        self.0.layout.root()
    }

    /// Blobs by digest.
    pub fn content(&self) -> &ContentStore {
        &self.0.content
    }

    /// What the cache remembers of steps.
    pub const fn records(&self) -> Records<'_> {
        Records(self)
    }

    /// Images and their names.
    pub const fn images(&self) -> Images<'_> {
        Images(self)
    }

    /// Containers and their names.
    pub const fn containers(&self) -> Containers<'_> {
        Containers(self)
    }

    /// What files of build contexts held when they were last read.
    ///
    /// # Errors
    /// When its database can be neither opened nor made anew.
    pub fn stat_cache(&self) -> Result<&StatCacheTable> {
        if let Some(table) = self.0.stat_cache.get() {
            return Ok(table);
        }
        let opened = StatCacheTable::open(self.0.layout.stat_cache())?;
        Ok(self.0.stat_cache.get_or_init(|| opened))
    }

    /// What web servers were last found to have.
    ///
    /// # Errors
    /// When its database can be neither opened nor made anew.
    pub fn downloads(&self) -> Result<&Downloads> {
        if let Some(downloads) = self.0.downloads.get() {
            return Ok(downloads);
        }
        let opened = Downloads::open(self.0.layout.downloads())?;
        Ok(self.0.downloads.get_or_init(|| opened))
    }

    /// Which repositories of registries have which blobs.
    ///
    /// # Errors
    /// When its database can be neither opened nor made anew.
    pub fn blob_places(&self) -> Result<&BlobPlaces> {
        if let Some(places) = self.0.blob_places.get() {
            return Ok(places);
        }
        let opened = BlobPlaces::open(self.0.layout.blob_places())?;
        Ok(self.0.blob_places.get_or_init(|| opened))
    }

    /// The directory of the store that another part of rbuild fills.
    pub fn area(&self, area: Area) -> PathBuf {
        self.0.layout.area(area)
    }

    /// How layers become a tree.
    pub fn trees(&self) -> Trees {
        self.0.options.trees
    }

    /// In which form copies of directories become layers.
    pub fn layer_form(&self) -> LayerForm {
        self.0.options.layers
    }

    /// Which extended attributes layers of this store use.
    pub fn xattrs(&self) -> OverlayXattrs {
        self.0.options.xattrs
    }

    /// Who owns what is unpacked in this store.
    pub fn owners(&self) -> Owners {
        self.0.options.owners
    }
}

fn absolute(root: &Path) -> Result<PathBuf> {
    use crate::root_dir::At as _;
    Ok(std::path::absolute(root).at("resolve", root)?)
}

/// A file name that nobody else uses: not another thread, nor another process, of whatever process id namespace, alive or dead.
pub(crate) fn unique_name() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish());
    format!("{:016x}-{}", *PROCESS, COUNTER.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests;
