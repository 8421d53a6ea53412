//! Layers as trees: what a layer holds as data, small files' metadata in one image, contents in packs that layers share.
//!
//! ```text
//! layers/<id>   an EROFS image, compressed: names, attributes, and where in which pack the contents are
//! packs/<id>    contents of files, one after the other, and at the end an index of them by digest
//! ```
//!
//! `stored` has how images lie on the disk.
//!
//! A [`Tree`] is what is known of such a layer while it is made. [`erofs`] writes it as an image, in which the packs are devices;
//! [`pack`] holds contents, each written once; [`grow`] makes a layer of a tree, taking from the packs what is there already;
//! `unpack` makes one of an archive;
//! `digest` and `archive` say of a tree what is otherwise said of a directory, without reading one. `docs/design/trees.md` has the
//! reasons and the measurements.

mod absorb;
pub(crate) mod archive;
pub(crate) mod compare;
pub mod erofs;
pub mod grow;
pub mod pack;
pub(crate) mod stored;
pub(crate) mod unpack;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::path::Path;

pub use self::compare::NamesByDirectory;
use crate::content_digest::Blake3;
use crate::layer::OverlayXattrs;
use crate::layer::reader::Time;
use crate::root_dir::xattr::Xattrs;
use crate::root_dir::{FileType, PathError, RootDir, Stat};

/// Names an inode of one tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeId(u32);

/// The entries of a directory, in the order of their bytes.
pub type Entries = BTreeMap<OsString, InodeId>;

/// A tree of files. Of several names for one inode all are equal; a directory has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    inodes: Vec<Inode>,
}

/// A file of any type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// What all files have.
    pub attributes: Attributes,
    /// What it is.
    pub kind: Kind,
}

/// What all files have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits, with set-id and sticky bits.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// When it was changed last.
    pub mtime: Time,
    /// Extended attributes, overlayfs's marks among them, as root has them: trees are mounted by root only.
    pub xattrs: Xattrs,
}

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory(Entries),
    /// A regular file.
    File(Content),
    /// A symbolic link, with its target.
    Symlink(Vec<u8>),
    /// A device, a named pipe or a socket. A character device of number 0 is a whiteout.
    Special(FileType, u64),
}

/// The content of a regular file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// Its size.
    pub size_bytes: u64,
    /// Its digest, if it is known.
    pub digest: Option<Blake3>,
    /// Where it is, once it is anywhere. An empty one is nowhere.
    pub place: Option<Place>,
}

/// A place in the packs of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which of the layer's packs.
    pub pack: u16,
    /// Where in it: a multiple of [`erofs::BLOCK_BYTES`].
    pub offset_bytes: u64,
}

impl InodeId {
    /// The root of every tree.
    pub const ROOT: Self = Self(0);

    /// Names what is at this place, in a tree or in a list that is to be added to one.
    ///
    /// # Panics
    /// When there are more files than memory holds.
    pub fn at(index: usize) -> Self {
        Self(u32::try_from(index).expect("memory ends before the numbers do"))
    }

    /// At which place it is.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl Tree {
    /// A tree with nothing in it but its root.
    pub fn new(root: Attributes) -> Self {
        Self { inodes: vec![Inode { attributes: root, kind: Kind::Directory(Entries::new()) }] }
    }

    /// The inode of this id, which this tree has given out.
    pub fn inode(&self, id: InodeId) -> &Inode {
        &self.inodes[id.index()]
    }

    /// The same, to be changed.
    pub fn inode_mut(&mut self, id: InodeId) -> &mut Inode {
        &mut self.inodes[id.index()]
    }

    /// All inodes; the root is the first.
    pub fn inodes(&self) -> impl Iterator<Item = (InodeId, &Inode)> {
        (0..).map(InodeId).zip(&self.inodes)
    }

    /// Adds an inode that has no name yet.
    pub fn add(&mut self, inode: Inode) -> InodeId {
        let id = InodeId::at(self.inodes.len());
        self.inodes.push(inode);
        id
    }

    /// Adds inodes that have no names yet, in their order, and returns the place of the first.
    pub fn add_all(&mut self, inodes: Vec<Inode>) -> usize {
        let first = self.inodes.len();
        self.inodes.extend(inodes);
        first
    }

    /// Makes room for so many more inodes.
    pub fn reserve(&mut self, inodes: usize) {
        self.inodes.reserve(inodes);
    }

    /// Gives a directory its entries, in the place of those that it has.
    ///
    /// # Panics
    /// When that is no directory.
    pub fn fill(&mut self, directory: InodeId, entries: Entries) {
        *self.entries_mut(directory) = entries;
    }

    /// Gives an inode a name in a directory, in the place of what has it.
    ///
    /// # Panics
    /// When that is no directory.
    pub fn name(&mut self, directory: InodeId, name: OsString, inode: InodeId) {
        self.entries_mut(directory).insert(name, inode);
    }

    /// What is in a directory; `None` if it is none.
    pub fn entries(&self, directory: InodeId) -> Option<&Entries> {
        match &self.inode(directory).kind {
            Kind::Directory(entries) => Some(entries),
            _ => None,
        }
    }

    fn entries_mut(&mut self, directory: InodeId) -> &mut Entries {
        self.inode_mut(directory).entries_mut().expect("names are given in directories")
    }

    /// The directory at a path of plain names.
    pub fn directory_at(&self, path: &Path) -> Option<InodeId> {
        let mut names = path.iter();
        let found = names.try_fold(InodeId::ROOT, |at, name| self.entries(at)?.get(name).copied())?;
        self.entries(found).map(|_| found)
    }

    /// How many files of all types there are.
    pub const fn len(&self) -> usize {
        self.inodes.len()
    }

    /// Never: there is the root.
    pub const fn is_empty(&self) -> bool {
        self.inodes.is_empty()
    }

    /// The sizes of all contents, together.
    pub fn size_bytes(&self) -> u64 {
        self.inodes.iter().map(Inode::size_bytes).sum()
    }

    /// The contents of all regular files, to be changed.
    fn contents_mut(&mut self) -> impl Iterator<Item = &mut Content> {
        self.inodes.iter_mut().filter_map(Inode::content_mut)
    }

    /// Where contents begin and end in a pack.
    pub(crate) fn extents_in(&self, pack: u16) -> impl Iterator<Item = (u64, u64)> {
        self.inodes.iter().filter_map(move |inode| {
            let Kind::File(Content { size_bytes, place: Some(place), .. }) = &inode.kind else { return None };
            (place.pack == pack).then(|| (place.offset_bytes, place.offset_bytes + size_bytes))
        })
    }

    /// The places of all contents, to be changed.
    fn places(&mut self) -> impl Iterator<Item = &mut Place> {
        self.contents_mut().filter_map(|content| content.place.as_mut())
    }

    /// How many names each inode has, as `st_nlink` counts them, and which directory each directory is in.
    fn count_names(&self) -> (Vec<u32>, Vec<InodeId>) {
        let (mut names, mut parents) = (vec![0; self.len()], vec![InodeId::ROOT; self.len()]);
        names[0] = 1;
        for (id, inode) in self.inodes() {
            let Kind::Directory(entries) = &inode.kind else { continue };
            names[id.index()] += 1;
            for child in entries.values() {
                names[child.index()] += 1;
                if self.entries(*child).is_some() {
                    names[id.index()] += 1;
                    parents[child.index()] = id;
                }
            }
        }
        (names, parents)
    }

    /// Puts what is in the root of another tree into a directory: a directory into one that is there, whose attributes it gives its
    /// own, anything else in the place of what has its name.
    ///
    /// # Panics
    /// When that is no directory.
    pub fn graft(&mut self, directory: InodeId, mut other: Self) {
        // What is grafted keeps its numbers: it is the larger part. Its root goes.
        let after = other.len() - 1;
        let moved = |id: InodeId| if id == InodeId::ROOT { id } else { InodeId::at(id.index() + after) };
        let grafted = std::mem::take(other.entries_mut(InodeId::ROOT));
        let mut own = std::mem::replace(&mut self.inodes, other.inodes);
        for entries in own.iter_mut().filter_map(Inode::entries_mut) {
            entries.values_mut().for_each(|child| *child = moved(*child));
        }
        let mut own = own.into_iter();
        self.inodes.splice(..1, own.next());
        self.inodes.extend(own);
        self.merge(moved(directory), grafted);
    }

    /// Moves entries of a directory to another one. What has no name afterwards is not seen.
    fn merge(&mut self, into: InodeId, entries: Entries) {
        for (name, child) in entries {
            let is_directory = |id: &InodeId| self.entries(*id).is_some();
            let there = self.entries(into).and_then(|entries| entries.get(&name)).copied();
            match there.filter(|there| is_directory(there) && is_directory(&child)) {
                Some(there) => {
                    let marks = std::mem::take(&mut self.inode_mut(there).attributes.xattrs);
                    let attributes = self.inode(child).attributes.clone();
                    self.inode_mut(there).attributes = Attributes { xattrs: marks, ..attributes };
                    let below = std::mem::take(self.entries_mut(child));
                    self.merge(there, below);
                }
                None => {
                    if is_directory(&child) && there.is_some_and(|there| self.inode(there).is_whiteout()) {
                        self.hide_lower(child);
                    }
                    self.name(into, name, child);
                }
            }
        }
    }

    /// Gives a directory the attributes that the same path has in `below`, where it is a directory there.
    pub(crate) fn complete(&mut self, path: &Path, below: &RootDir) -> Result<(), PathError> {
        let Some(directory) = self.directory_at(path) else { return Ok(()) };
        let stat = match below.lstat(path) {
            Err(error) if error.is_not_found() => return Ok(()),
            stat => stat?,
        };
        if FileType::from_raw_mode(stat.st_mode).is_dir() {
            let attributes = &mut self.inode_mut(directory).attributes;
            let xattrs = std::mem::take(&mut attributes.xattrs);
            *attributes = Attributes { xattrs, ..Attributes::of(&stat) };
        }
        Ok(())
    }

    /// Takes all names from a directory that loses its own, and from those in it.
    fn clear(&mut self, id: InodeId) {
        let Some(entries) = self.inode_mut(id).entries_mut() else { return };
        std::mem::take(entries).into_values().for_each(|child| self.clear(child));
    }

    /// Notes the digests of all contents, from the indexes of the packs that they are in.
    pub(crate) fn note_digests(&mut self, packs: &[File]) -> Result<(), PathError> {
        let index = |pack: &File| {
            let index = pack::read_index(pack, Path::new("a pack"))?;
            Ok(index
                .into_iter()
                .map(|packed| ((packed.offset_bytes, packed.size_bytes), packed.digest))
                .collect())
        };
        let indexes =
            packs.iter().map(index).collect::<Result<Vec<HashMap<(u64, u64), Blake3>>, PathError>>()?;
        for content in self.contents_mut() {
            content.digest = match content.place {
                None => Some(*blake3::hash(b"").as_bytes()),
                Some(Place { pack, offset_bytes }) => {
                    let index = indexes.get(usize::from(pack));
                    index.and_then(|index| index.get(&(offset_bytes, content.size_bytes))).copied()
                }
            };
        }
        Ok(())
    }

    /// Whether no directory has two names, and the root none, so that a walk ends.
    fn is_sound(&self) -> bool {
        let mut named = vec![false; self.len()];
        named[0] = true;
        let directories = self.inodes.iter().filter_map(|inode| match &inode.kind {
            Kind::Directory(entries) => Some(entries),
            _ => None,
        });
        let below = directories.flat_map(Entries::values).filter(|child| self.entries(**child).is_some());
        below.into_iter().all(|child| !std::mem::replace(&mut named[child.index()], true))
    }

    /// The same tree without what has no name.
    fn pruned(&self) -> Self {
        let root = InodeId::ROOT;
        let (mut kept, mut ids) = (Self::new(self.inode(root).attributes.clone()), HashMap::new());
        let mut todo = vec![(root, root)];
        while let Some((from, to)) = todo.pop() {
            for (name, child) in self.entries(from).into_iter().flatten() {
                let inode = self.inode(*child);
                let id = *ids.entry(*child).or_insert_with(|| match &inode.kind {
                    Kind::Directory(_) => {
                        let kind = Kind::Directory(Entries::new());
                        let id = kept.add(Inode { attributes: inode.attributes.clone(), kind });
                        todo.push((*child, id));
                        id
                    }
                    _ => kept.add(inode.clone()),
                });
                kept.name(to, name.clone(), id);
            }
        }
        kept
    }

    /// Marks a directory that takes the place of a whiteout: what is below that stays hidden.
    fn hide_lower(&mut self, directory: InodeId) {
        let xattrs = &mut self.inode_mut(directory).attributes.xattrs;
        xattrs.insert(OverlayXattrs::Trusted.opaque().to_owned(), b"y".to_vec());
    }
}

impl Attributes {
    /// Those of a file, without the extended ones.
    pub(crate) fn of(stat: &Stat) -> Self {
        Self {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: Time {
                seconds: stat.st_mtime,
                nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            },
            xattrs: Xattrs::new(),
        }
    }
}

impl Content {
    /// Whether it is in a pack, or nothing.
    const fn is_placed(&self) -> bool {
        self.size_bytes == 0 || self.place.is_some()
    }
}

impl Inode {
    /// Whether it says that its name is removed, in either form.
    pub fn is_whiteout(&self) -> bool {
        match &self.kind {
            Kind::Special(FileType::CharacterDevice, 0) => true,
            Kind::File(Content { size_bytes: 0, .. }) => {
                self.attributes.xattrs.contains_key(OverlayXattrs::Trusted.whiteout())
            }
            _ => false,
        }
    }

    /// Whether this directory hides what lower layers hold in it.
    pub fn is_opaque(&self) -> bool {
        self.attributes.xattrs.get(OverlayXattrs::Trusted.opaque()).is_some_and(|value| value == b"y")
    }

    const fn entries_mut(&mut self) -> Option<&mut Entries> {
        match &mut self.kind {
            Kind::Directory(entries) => Some(entries),
            _ => None,
        }
    }

    const fn content_mut(&mut self) -> Option<&mut Content> {
        match &mut self.kind {
            Kind::File(content) => Some(content),
            _ => None,
        }
    }

    const fn size_bytes(&self) -> u64 {
        match &self.kind {
            Kind::File(content) => content.size_bytes,
            _ => 0,
        }
    }

    /// Its type.
    pub const fn file_type(&self) -> FileType {
        match &self.kind {
            Kind::Directory(_) => FileType::Directory,
            Kind::File(_) => FileType::RegularFile,
            Kind::Symlink(_) => FileType::Symlink,
            Kind::Special(kind, _) => *kind,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
