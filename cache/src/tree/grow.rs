//! A tree becomes a layer: its contents are looked for in the packs that there are, the rest goes into one new pack.
//!
//! What is found is used without the source being opened, if its digest is known. A layer points into `PACKS_MAX` packs at most, those
//! that have the most of it: what the others have is written again, so that a thousand builds that each changed one file do
//! not leave layers with a thousand packs.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rayon::ThreadPool;
use rayon::prelude::*;
use rusqlite::OptionalExtension as _;
use rustix::fs::{Mode, OFlags, openat};

use super::erofs::image;
use super::pack::{PackWriter, Packed, each_in_index, read_key_image};
use super::{Attributes, Content, Inode, InodeId, Kind, Place, Tree, absorb, stored};
use crate::by_digest::{ByDigest, DigestTable};
use crate::content_digest::{Blake3, KnownContents, content_digest, digest_of_tree};
use crate::layer;
use crate::layer::reader::{Part, TarReader};
use crate::prune::file_disk_size_bytes;
use crate::root_dir::{At as _, PathError, RootDir};
use crate::snapshot::Written;
use crate::{Error, Result, Store};

/// The most packs that a layer has its contents in, the one that is made for it aside.
const PACKS_MAX: usize = 30;

/// The most contents that are looked at for one that is already there; those of the newest packs are.
const KNOWN_MAX: usize = 400_000;

/// An image is stored as a difference if that takes this part of the key image at most: a fifth of what it takes by itself.
const DIFFERENCE_PART: usize = 32;

/// Room for what a file takes of an image, which grows by a block for every dozen of names.
const FILE_BYTES: usize = 128;

/// How many files of a directory make a unit of work.
const GROUP_FILES: usize = 64;

/// Contents up to this size are read whole.
const SMALL_BYTES_MAX: u64 = 128 * 1024;

/// Opens the directory that a directory of the tree was made of.
pub type Open<'a> = &'a (dyn Fn(&Path) -> Result<OwnedFd, PathError> + Sync);

/// A tree that is to be put into a layer.
#[derive(Debug)]
pub struct PlannedTree {
    /// The tree. Contents that have a digest are looked for.
    pub tree: Tree,
    /// What is known of its directories for a digest, the root's aside.
    pub known: KnownContents,
}

/// A tree whose contents are all in packs, and its place in the layer that it will be in.
#[derive(Debug)]
pub(crate) struct Graft {
    place: Placement,
    pub(crate) tree: Tree,
    known: KnownContents,
    packs: Packs,
}

/// A tree whose contents are all in packs, without a place.
#[derive(Debug)]
pub struct PackedTree {
    packs: Box<Packs>,
    tree: Tree,
}

/// Where a tree goes.
#[derive(Debug)]
pub(crate) enum Placement {
    /// Into this directory of the layer.
    At(PathBuf),
    /// It is the layer, but for the attributes of its root.
    Whole,
}

/// The tree of a whole layer, all of whose contents are where they will be.
#[derive(Debug)]
pub(crate) struct SettledTree {
    pub(crate) tree: Tree,
    /// The packs that the contents are in.
    pub(crate) packs: Vec<Arc<File>>,
}

/// A whole layer, in files that wait for their names.
#[derive(Debug)]
pub(crate) struct Grown {
    pub(crate) settled: Arc<SettledTree>,
    /// In the order in which the tree names them.
    pub(crate) packs: Vec<Pack>,
    /// The image, compressed, and the digest of it as it was before.
    pub(crate) image: PathBuf,
    pub(crate) image_digest: Blake3,
    pub(crate) image_bytes: Vec<u8>,
    pub(crate) content_digest: Option<Blake3>,
}

/// A pack that a layer uses.
#[derive(Debug)]
pub(crate) struct Pack {
    pub(crate) id: PackId,
    /// How many blocks of contents it has.
    pub(crate) blocks: u64,
    /// How much of these the layer needs at most, once its tree is settled.
    pub(crate) needed_bytes: u64,
    pub(crate) file: Arc<File>,
}

/// What a pack is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PackId {
    /// By its row.
    Known(i64),
    /// It has none yet; where it is.
    New(PathBuf),
}

/// The packs of one layer in the making.
#[derive(Debug)]
pub(crate) struct Packs {
    /// Those that there are; behind them comes the new one.
    known: Vec<Pack>,
    new: PackWriter,
    new_path: PathBuf,
    /// The key image of the first of them, from which the layer's is told most likely: it is unpacked while the tree is made.
    key_ahead: Option<KeyAhead>,
    /// What is in all packs, and which of the layer's packs each of these is, if it is one.
    contents: DigestTable<Stored>,
    numbers: Vec<Option<u16>>,
    /// What is in the new one.
    fresh: Mutex<ByDigest<Stored>>,
}

/// A content in a pack. Whoever asks for it by its digest has to know how long it is: behind it lies something else.
#[derive(Debug, Clone, Copy)]
struct Stored {
    place: Place,
    size_bytes: u64,
}

impl Stored {
    /// Its place, as that of a content of this size.
    fn place_of(&self, size_bytes: u64) -> Option<Place> {
        (self.size_bytes == size_bytes).then_some(self.place)
    }
}

/// The packs that a layer has.
struct Settled {
    /// In the order in which the tree names them.
    used: Vec<Pack>,
    /// The last of them, if it is new.
    new: Option<PackWriter>,
    key_ahead: Option<KeyAhead>,
}

/// A key image that is being unpacked.
#[derive(Debug)]
struct KeyAhead {
    pack: PackId,
    key: JoinHandle<Option<Vec<u8>>>,
}

impl KeyAhead {
    /// Begins with one of about this size; `None` where no thread can be started.
    fn start(pack: &Pack, expected_bytes: usize) -> Option<Self> {
        let file = pack.file.try_clone().ok()?;
        let read = move || read_key_image(&file, expected_bytes).ok();
        let key = thread::Builder::new().name("key image".to_owned()).spawn(read).ok()?;
        Some(Self { pack: pack.id.clone(), key })
    }

    /// The key image of this pack, if it is that one's.
    fn take(self, pack: &Pack) -> Option<Vec<u8>> {
        if self.pack == pack.id { self.key.join().ok().flatten() } else { None }
    }
}

/// What is known of the contents of all packs, the newest first.
#[derive(Debug)]
pub(crate) struct Inventory {
    packs: Vec<Pack>,
    contents: DigestTable<Stored>,
}

impl Inventory {
    /// Notes where a content is, if it need not be read.
    fn place(&self, content: &mut Content) {
        match content.size_bytes {
            0 => content.digest = Some(*blake3::hash(b"").as_bytes()),
            size_bytes => {
                let stored = content.digest.and_then(|digest| self.contents.get(&digest));
                content.place = stored.and_then(|stored| stored.place_of(size_bytes));
            }
        }
    }
}

impl Graft {
    /// Puts the contents of a tree that have no place yet into packs that were chosen for it.
    pub(crate) fn new(
        packs: Packs,
        path: &Path,
        planned: PlannedTree,
        pool: &ThreadPool,
        open: Open<'_>,
    ) -> Result<Self> {
        let PlannedTree { mut tree, known } = planned;
        let groups = groups(&tree);
        let place = |group: &Group<'_>| group.place(&tree, &packs, open);
        let found: Vec<Vec<(InodeId, Content)>> =
            pool.install(|| groups.par_iter().map(place).collect::<Result<_>>())?;
        drop(groups);
        for (id, content) in found.into_iter().flatten() {
            tree.inode_mut(id).kind = Kind::File(content);
        }
        Ok(Self { place: Placement::At(path.to_owned()), tree, known, packs })
    }

    /// Gives a tree its place.
    pub(crate) fn at(place: Placement, packed: PackedTree) -> Self {
        let PackedTree { packs, tree } = packed;
        Self { place, tree, known: KnownContents::new(), packs: *packs }
    }

    /// Joins it with what else is in the layer, in `upper`, and writes the image into `directory`. When all but the image is known, `settled` is told.
    pub(crate) fn grow(
        self,
        upper: &Path,
        directory: &Path,
        settled: impl FnOnce(&Arc<SettledTree>),
    ) -> Result<Grown> {
        let Self { place, mut tree, known, packs } = self;
        let mut whole = absorb::absorb(&RootDir::open(upper)?, &mut |file| packs.take(file, false))?;
        match place {
            Placement::At(path) => {
                let at = whole.directory_at(&path).ok_or_else(|| Error::GraftMissing { path })?;
                whole.graft(at, tree);
            }
            Placement::Whole => {
                let marks = std::mem::take(&mut tree.inode_mut(InodeId::ROOT).attributes.xattrs);
                let root = whole.inode(InodeId::ROOT).attributes.clone();
                tree.inode_mut(InodeId::ROOT).attributes = Attributes { xattrs: marks, ..root };
                whole = tree;
            }
        }
        let packs = packs.settle(&mut whole)?;
        let files = packs.used.iter().map(|pack| Arc::clone(&pack.file)).collect();
        let tree = Arc::new(SettledTree { tree: whole, packs: files });
        settled(&tree);
        packs.grow(tree, &known, directory)
    }
}

impl PackedTree {
    /// `packs` are those that the contents of the tree are in.
    pub(crate) fn new(packs: Packs, tree: Tree) -> Self {
        Self { packs: Box::new(packs), tree }
    }

    /// What it holds.
    pub const fn tree(&self) -> &Tree {
        &self.tree
    }
}

/// Some files of one directory, none of which is in another group.
struct Group<'t> {
    directory: Arc<Path>,
    files: Vec<(&'t OsStr, InodeId)>,
}

/// What there is to do about an inode.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ToDo {
    Nothing,
    /// To look into it.
    Directory,
    /// To find it a place.
    File,
}

/// All regular files whose contents have no place yet. Of several names of one, one counts.
fn groups(tree: &Tree) -> Vec<Group<'_>> {
    let what = |inode: &Inode| match &inode.kind {
        Kind::Directory(_) => ToDo::Directory,
        Kind::File(content) if !content.is_placed() => ToDo::File,
        _ => ToDo::Nothing,
    };
    // As a rule nearly all have one, and inodes are met in their order faster than by their names.
    let mut what: Vec<ToDo> = tree.inodes.iter().map(what).collect();
    let (mut groups, mut todo) = (Vec::new(), vec![(PathBuf::new(), InodeId::ROOT)]);
    if !what.contains(&ToDo::File) {
        return groups;
    }
    while let Some((path, id)) = todo.pop() {
        let mut files = Vec::new();
        // The first is to be the next: archives have the same order.
        for (name, child) in tree.entries(id).into_iter().flatten().rev() {
            match std::mem::replace(&mut what[child.index()], ToDo::Nothing) {
                ToDo::Directory => todo.push((path.join(name), *child)),
                ToDo::File => files.push((name.as_os_str(), *child)),
                ToDo::Nothing => {}
            }
        }
        files.reverse();
        let directory: Arc<Path> = path.into();
        let group = |files: &[_]| Group { directory: Arc::clone(&directory), files: files.to_vec() };
        groups.extend(files.chunks(GROUP_FILES).map(group));
    }
    groups
}

/// Opens a file in a directory, which errors call `path`.
pub(super) fn open_file(directory: &OwnedFd, name: &OsStr, path: &Path) -> Result<File, PathError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(directory, name, flags, Mode::empty()).map(File::from).at_name("open", path, name)
}

impl Group<'_> {
    /// Where the contents are, in packs that there are or, now, in the new one. What has a digest is to hold just that.
    fn place(&self, tree: &Tree, packs: &Packs, open: Open<'_>) -> Result<Vec<(InodeId, Content)>> {
        let (mut placed, mut directory) = (Vec::with_capacity(self.files.len()), None);
        for (name, id) in &self.files {
            let Kind::File(content) = &tree.inode(*id).kind else { continue };
            let known = content.digest.and_then(|digest| packs.find(content.size_bytes, digest));
            if let Some(content) = known {
                placed.push((*id, content));
                continue;
            }
            let from = match directory.take() {
                Some(from) => from,
                None => open(&self.directory)?,
            };
            let file = open_file(&from, name, &self.directory)?;
            let taken = packs.take(&file, content.digest.is_some())?;
            if content.digest.is_some_and(|expected| taken.digest != Some(expected)) {
                return Err(Error::SourceChanged { path: self.directory.join(name) });
            }
            placed.push((*id, taken));
            directory = Some(from);
        }
        Ok(placed)
    }
}

impl Packs {
    /// Opens the newest packs. `directory` is where a new one is made.
    pub(crate) fn newest(store: &Store, directory: &Path, inventory: Inventory) -> Result<Self> {
        let counts = vec![0; inventory.packs.len()];
        Self::open(store, directory, inventory, &counts)
    }

    /// Opens the packs that have the most of a tree's contents, and gives these their places.
    pub(crate) fn choose(
        store: &Store,
        directory: &Path,
        inventory: Inventory,
        tree: &mut Tree,
        pool: &ThreadPool,
    ) -> Result<Self> {
        let find = |content: &mut Content| inventory.place(content);
        pool.install(|| tree.inodes.par_iter_mut().filter_map(Inode::content_mut).for_each(find));
        let mut counts = vec![0; inventory.packs.len()];
        tree.places().for_each(|place| counts[usize::from(place.pack)] += 1);
        let mut packs = Self::open(store, directory, inventory, &counts)?;
        tree.contents_mut()
            .for_each(|content| content.place = content.place.and_then(|at| packs.open_place(at)));
        if tree.places().next().is_some() {
            let first = packs.known.first();
            packs.key_ahead = first.and_then(|pack| KeyAhead::start(pack, tree.len() * FILE_BYTES));
        }
        Ok(packs)
    }

    /// Opens those packs that have most, by these numbers.
    fn open(store: &Store, directory: &Path, inventory: Inventory, counts: &[usize]) -> Result<Self> {
        let mut order: Vec<usize> = (0..counts.len()).collect();
        order.sort_by_key(|pack| std::cmp::Reverse(counts[*pack]));
        order.truncate(PACKS_MAX);
        let mut packs: Vec<Option<Pack>> = inventory.packs.into_iter().map(Some).collect();
        let (mut known, mut numbers) = (Vec::new(), vec![None; packs.len()]);
        for at in order {
            if let Some(pack) = packs[at].take().filter(|pack| store.use_pack(pack).unwrap_or(false)) {
                numbers[at] = Some(known.len() as u16);
                known.push(pack);
            }
        }
        let (contents, new_path) = (inventory.contents, directory.join("pack"));
        let new = PackWriter::create(new_path.clone())?;
        Ok(Self { known, new, new_path, key_ahead: None, contents, numbers, fresh: Mutex::default() })
    }

    /// Takes in the content of an archive's entry.
    pub(crate) fn take_entry(
        &self,
        tar: &mut TarReader<impl BufRead>,
        size_bytes: u64,
        parts: Option<&[Part]>,
    ) -> Result<Content, layer::Error> {
        if parts.is_none() && size_bytes <= SMALL_BYTES_MAX {
            let mut bytes = Vec::with_capacity(size_bytes as usize);
            tar.copy_content(size_bytes, |piece| {
                bytes.extend_from_slice(piece);
                Ok(())
            })?;
            return Ok(self.take_bytes(&bytes)?);
        }
        let dense = [Part { offset: 0, length: size_bytes }];
        let mut content = self.new.begin(size_bytes);
        for part in parts.unwrap_or(&dense) {
            content.skip_to(part.offset);
            tar.copy_content(part.length, |piece| Ok(content.write(piece)?))?;
        }
        content.skip_to(size_bytes);
        let Packed { digest, offset_bytes, size_bytes } = content.finish();
        Ok(self.enter(digest, size_bytes, offset_bytes))
    }

    fn find(&self, size_bytes: u64, digest: Blake3) -> Option<Content> {
        let place = if size_bytes == 0 { None } else { Some(self.place_of(size_bytes, &digest)?) };
        Some(Content { size_bytes, digest: Some(digest), place })
    }

    fn place_of(&self, size_bytes: u64, digest: &Blake3) -> Option<Place> {
        let known = self.contents.get(digest).and_then(|stored| stored.place_of(size_bytes));
        known.and_then(|place| self.open_place(place)).or_else(|| {
            let fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
            fresh.get(digest)?.place_of(size_bytes)
        })
    }

    /// A place in all packs as one in those of the layer.
    fn open_place(&self, place: Place) -> Option<Place> {
        Some(Place { pack: self.numbers[usize::from(place.pack)]?, ..place })
    }

    /// Takes in what a file holds. `is_new` says that nothing has the digest that the file is thought to have.
    fn take(&self, file: &File, is_new: bool) -> Result<Content, PathError> {
        let path = Path::new("a file to copy");
        let metadata = file.metadata().at("read the attributes of", path)?;
        if !metadata.is_file() {
            return Err(io::Error::from(io::ErrorKind::InvalidInput)).at("read", path);
        }
        if metadata.len() <= SMALL_BYTES_MAX {
            return self.take_small(file, path);
        }
        if !is_new {
            let (digest, size_bytes) = content_digest(file).at("read", path)?;
            if let Some(content) = self.find(size_bytes, digest) {
                return Ok(content);
            }
        }
        let Packed { digest, offset_bytes, size_bytes } = self.new.append_file(file, metadata.len(), path)?;
        Ok(self.enter(digest, size_bytes, offset_bytes))
    }

    fn take_small(&self, mut file: &File, path: &Path) -> Result<Content, PathError> {
        thread_local! {
            static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
        }
        BUFFER.with_borrow_mut(|buffer| {
            buffer.clear();
            file.read_to_end(buffer).at("read", path)?;
            self.take_bytes(buffer)
        })
    }

    fn take_bytes(&self, bytes: &[u8]) -> Result<Content, PathError> {
        let (digest, size_bytes) = (*blake3::hash(bytes).as_bytes(), bytes.len() as u64);
        if let Some(content) = self.find(size_bytes, digest) {
            return Ok(content);
        }
        let offset_bytes = self.new.append(digest, bytes)?;
        Ok(self.enter(digest, size_bytes, offset_bytes))
    }

    fn enter(&self, digest: Blake3, size_bytes: u64, offset_bytes: u64) -> Content {
        let place = Place { pack: self.known.len() as u16, offset_bytes };
        let stored = Stored { place, size_bytes };
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).insert(digest, stored);
        Content { size_bytes, digest: Some(digest), place: (size_bytes > 0).then_some(place) }
    }

    /// Leaves only those that the tree uses.
    fn settle(self, tree: &mut Tree) -> Result<Settled> {
        let mut packs = self.known;
        let mut needed = vec![0; packs.len() + 1];
        for content in tree.contents_mut() {
            content.place.iter().for_each(|place| needed[usize::from(place.pack)] += content.size_bytes);
        }
        let new = needed.last().is_some_and(|bytes| *bytes > 0).then_some(self.new);
        if let Some(new) = &new {
            new.fill_up()?;
            let (id, blocks, file) = (PackId::New(self.new_path), new.blocks(), Arc::new(new.file()?));
            packs.push(Pack { id, blocks, needed_bytes: 0, file });
        }
        let mut number = 0;
        let numbers: Vec<u16> = needed
            .iter()
            .map(|bytes| {
                number += u16::from(*bytes > 0);
                number.saturating_sub(1)
            })
            .collect();
        tree.places().for_each(|place| place.pack = numbers[usize::from(place.pack)]);
        packs.iter_mut().zip(needed).for_each(|(pack, bytes)| pack.needed_bytes = bytes);
        packs.retain(|pack| pack.needed_bytes > 0);
        Ok(Settled { used: packs, new, key_ahead: self.key_ahead })
    }
}

impl Settled {
    /// Writes the image of the tree.
    fn grow(mut self, settled: Arc<SettledTree>, known: &KnownContents, directory: &Path) -> Result<Grown> {
        let (tree, path) = (&settled.tree, directory.join("image"));
        let blocks: Vec<u64> = self.used.iter().map(|pack| pack.blocks).collect();
        let (image_bytes, image_digest, content_digest) = thread::scope(|scope| {
            let content_digest = scope.spawn(|| digest_of_tree(tree, known));
            let image_bytes = image(tree, &blocks).map_err(Error::Image)?;
            let stored = self.finish(&image_bytes)?;
            File::create_new(&path).and_then(|mut file| file.write_all(&stored)).at("write", &path)?;
            let image_digest = *blake3::hash(&image_bytes).as_bytes();
            let content_digest =
                content_digest.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok::<_, Error>((image_bytes, image_digest, content_digest))
        })?;
        debug_assert_eq!(content_digest, digest_of_tree(tree, &KnownContents::new()), "known directories");
        Ok(Grown { settled, packs: self.used, image: path, image_digest, image_bytes, content_digest })
    }

    /// Ends the new pack, and returns the image as it is to lie on the disk.
    fn finish(&mut self, image: &[u8]) -> Result<Vec<u8>, PathError> {
        let difference = self.difference(image).at("compress", "an image")?;
        let Self { used, new, .. } = self;
        if let Some(stored) = difference {
            new.iter().try_for_each(|new| new.finish(&[]))?;
            return Ok(stored);
        }
        let whole = stored::whole(image).at("compress", "an image")?;
        let Some(new) = new else { return Ok(whole) };
        new.finish(&whole)?;
        stored::different(image, used.len() as u16 - 1, image).at("compress", "an image")
    }

    /// The image as what differs from the key image of the pack with the most contents, if that is little.
    fn difference(&mut self, image: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut ahead = self.key_ahead.take();
        let known = self.used.iter().zip(0..).filter(|(pack, _)| matches!(pack.id, PackId::Known(_)));
        let key_of = |(pack, number): (&Pack, u16)| {
            let key = ahead.take().and_then(|ahead| ahead.take(pack));
            Some((number, key.or_else(|| read_key_image(&pack.file, image.len()).ok())?))
        };
        let Some((number, key)) = known.filter_map(key_of).next() else { return Ok(None) };
        let difference = stored::different(image, number, &key)?;
        Ok(Some(difference).filter(|bytes| bytes.len() <= key.len() / DIFFERENCE_PART))
    }
}

impl Store {
    /// What is in the newest packs. One that is gone meanwhile, or damaged, has nothing.
    pub(crate) fn inventory(&self) -> Result<Inventory> {
        let rows: Vec<(Written, i64)> = self.0.db.read("list packs", |db| {
            let sql = "SELECT id, created, boot, blocks FROM pack WHERE reusable ORDER BY id DESC";
            let mut statement = db.prepare_cached(sql)?;
            let rows = statement.query_map((), |row| Ok((Written::of_row(row)?, row.get(3)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })?;
        let (mut packs, mut contents) = (Vec::new(), Vec::new());
        for (written, blocks) in rows {
            let path = self.0.layout.pack(written.pack);
            let Ok(file) = File::open(&path) else { continue };
            let Ok(index) = each_in_index(&file) else { continue };
            if !self.is_settled(&written, &file)? {
                continue;
            }
            let Ok(pack) = u16::try_from(packs.len()) else { break };
            let stored = |Packed { digest, offset_bytes, size_bytes }| {
                (digest, Stored { place: Place { pack, offset_bytes }, size_bytes })
            };
            contents.extend(index.map(stored));
            let id = PackId::Known(written.pack);
            packs.push(Pack { id, blocks: blocks.cast_unsigned(), needed_bytes: 0, file: Arc::new(file) });
            if contents.len() > KNOWN_MAX {
                break;
            }
        }
        Ok(Inventory { packs, contents: DigestTable::new(contents) })
    }

    /// Stamps a pack as used: from here on it is out of prune's reach. False if it was pruned, or nothing may be taken from it any longer.
    fn use_pack(&self, pack: &Pack) -> Result<bool> {
        let PackId::Known(id) = pack.id else { return Ok(true) };
        let stamp = self.stamp();
        let sql = "UPDATE pack SET last_used = max(last_used + 1, ?2) WHERE id = ?1 AND reusable RETURNING 1";
        let used = self.0.db.write("use a pack", |db| {
            Ok(db.prepare_cached(sql)?.query_row((id, stamp), |_| Ok(())).optional()?)
        })?;
        Ok(used.is_some())
    }
}

impl Pack {
    /// What it takes on disk.
    pub(crate) fn disk_size_bytes(&self) -> Result<u64> {
        Ok(file_disk_size_bytes(&self.file, Path::new("a pack"))?)
    }
}
