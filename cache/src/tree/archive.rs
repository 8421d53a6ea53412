//! A tree as the tar of an OCI layer: byte for byte the one that [`layer::diff`](crate::layer::diff) makes of it where it is mounted,
//! without mounting it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{major, minor};

use super::{Content, Entries, Inode, InodeId, Kind, Place, Tree};
use crate::layer::archive::{LAYER_ATTRIBUTE, mark_entry, write_error};
use crate::layer::merged::Merged;
use crate::layer::parts::Entries as Taker;
use crate::layer::tar::{Attribute, BLOCK_BYTES, TarEntry, TarKind};
use crate::layer::whiteout::{OPAQUE_NAME, WHITEOUT_PREFIX};
use crate::layer::{Error, Mtimes, bytes_path};
use crate::root_dir::{At as _, FileType};

/// How much is read at once where small files lie one behind the other, and what is small.
const AHEAD_BYTES: u64 = 256 * 1024;
const SMALL_BYTES_MAX: u64 = 64 * 1024;

/// A tree to be archived, which stands on `lowers`.
pub(crate) struct ArchivedTree<'a> {
    tree: &'a Tree,
    /// How many names each inode has.
    names: Vec<u32>,
    packs: Vec<&'a File>,
    lowers: Merged<'a>,
    mtimes: Mtimes,
}

impl<'a> ArchivedTree<'a> {
    /// Of a tree whose contents are in `packs`.
    pub(crate) fn new(tree: &'a Tree, packs: Vec<&'a File>, lowers: Merged<'a>, mtimes: Mtimes) -> Self {
        let (names, _) = tree.count_names();
        Self { tree, names, packs, lowers, mtimes }
    }

    /// Gives its entries to whoever takes them, who has to end the archive.
    pub(crate) fn give(&self, out: &mut dyn Taker) -> Result<(), Error> {
        let contents = Contents { packs: &self.packs, pack: 0, at: 0, bytes: Vec::new() };
        Archiver { of: self, contents, out, firsts: HashMap::new(), path: Vec::new() }
            .directory(InodeId::ROOT, false)
    }

    /// What the entries and contents of its archive take at most, but for extended attributes and long names.
    pub(crate) fn size_bytes_max(&self) -> u64 {
        let block = BLOCK_BYTES as u64;
        let size_bytes = |(id, inode): (InodeId, &Inode)| {
            block * u64::from(self.names[id.index()]) + inode.size_bytes().next_multiple_of(block)
        };
        // An opaque directory has a mark besides.
        let marks = self.tree.inodes().filter(|(_, inode)| inode.is_opaque()).count() as u64 * block;
        self.tree.inodes().map(size_bytes).sum::<u64>() + marks
    }

    /// Whether the digests of all contents are known.
    pub(crate) fn has_digests(&self) -> bool {
        let lacks = |inode: &Inode| matches!(&inode.kind, Kind::File(content) if content.digest.is_none());
        !self.tree.inodes().any(|(_, inode)| lacks(inode))
    }
}

/// A name in a directory of the archive, and what has it; a mark is no file.
type Item<'e> = (Cow<'e, OsStr>, Option<InodeId>);

struct Archiver<'a> {
    of: &'a ArchivedTree<'a>,
    contents: Contents<'a>,
    out: &'a mut dyn Taker,
    /// The first path of every inode that has several.
    firsts: HashMap<InodeId, Vec<u8>>,
    /// Where it is.
    path: Vec<u8>,
}

impl Archiver<'_> {
    fn directory(&mut self, id: InodeId, hides: bool) -> Result<(), Error> {
        let Some(entries) = self.of.tree.entries(id) else { return Ok(()) };
        let opaque = self.is_opaque(id)?;
        let hides = hides || opaque;
        for (name, child) in self.items(entries, hides, opaque)? {
            let directory_length = self.path.len();
            if directory_length > 0 {
                self.path.push(b'/');
            }
            self.path.extend(name.as_bytes());
            match child {
                None => self.mark()?,
                Some(child) => self.file(child, hides)?,
            }
            self.path.truncate(directory_length);
        }
        Ok(())
    }

    /// Whether this directory hides one that the lower layers show. The root of a layer never does.
    fn is_opaque(&self, id: InodeId) -> Result<bool, Error> {
        let opaque = id != InodeId::ROOT && self.of.tree.inode(id).is_opaque();
        Ok(opaque && self.of.lowers.has_dir(bytes_path(&self.path))?)
    }

    /// The names in the archive, in their order.
    fn items<'e>(&self, entries: &'e Entries, hides: bool, opaque: bool) -> Result<Vec<Item<'e>>, Error> {
        let mut items: Vec<Item<'e>> = Vec::with_capacity(entries.len());
        if opaque {
            items.push((OsStr::new(OPAQUE_NAME).into(), None));
        }
        for (name, child) in entries {
            if !self.of.tree.inode(*child).is_whiteout() {
                items.push((name.as_os_str().into(), Some(*child)));
            } else if !hides && self.of.lowers.lookup(&bytes_path(&self.path).join(name))?.is_some() {
                let mark = OsString::from_vec([WHITEOUT_PREFIX.as_bytes(), name.as_bytes()].concat());
                items.push((mark.into(), None));
            }
        }
        items.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(items)
    }

    fn mark(&mut self) -> Result<(), Error> {
        let taken = self.out.entry(&mark_entry(&self.path), 1);
        taken.map(drop).map_err(|error| write_error(error, bytes_path(&self.path)))
    }

    fn file(&mut self, id: InodeId, hides: bool) -> Result<(), Error> {
        let inode = self.of.tree.inode(id);
        let Some(kind) = kind_of(inode) else { return Ok(()) };
        let names = if kind == TarKind::Directory { 1 } else { u64::from(self.of.names[id.index()]) };
        if names > 1 {
            if let Some(first) = self.firsts.get(&id).cloned() {
                return self.put(inode, TarKind::HardLink { target: &first }, &[], names).map(drop);
            }
            self.firsts.insert(id, self.path.clone());
        }
        let wanted = |(name, value): (&CString, &Vec<u8>)| {
            (name.to_bytes() == LAYER_ATTRIBUTE).then(|| (name.to_bytes().to_vec(), value.clone()))
        };
        let xattrs: Vec<Attribute> = inode.attributes.xattrs.iter().filter_map(wanted).collect();
        let follows = self.put(inode, kind, &xattrs, names)?;
        match &inode.kind {
            Kind::Directory(_) if self.out.wants(&self.path) => self.directory(id, hides),
            Kind::File(content) => self.content(content, follows),
            _ => Ok(()),
        }
    }

    fn content(&mut self, content: &Content, follows: bool) -> Result<(), Error> {
        let Content { size_bytes, digest, place } = content;
        let taken = match (place, digest) {
            (Some(place), _) if follows => {
                let content = self.contents.open(*place, *size_bytes);
                self.out.content(&mut content.at("read", bytes_path(&self.path))?, *size_bytes)
            }
            (Some(_), Some(digest)) if !follows => self.out.digest(digest),
            _ => Ok(()),
        };
        taken.map_err(|error| write_error(error, bytes_path(&self.path)))
    }

    /// Gives the entry of the current path away; whether its content has to follow.
    fn put(
        &mut self,
        inode: &Inode,
        kind: TarKind<'_>,
        xattrs: &[Attribute],
        names: u64,
    ) -> Result<bool, Error> {
        let attributes = &inode.attributes;
        let entry = TarEntry {
            path: &self.path,
            kind,
            mode: attributes.mode,
            uid: attributes.uid,
            gid: attributes.gid,
            mtime: self.of.mtimes.of(attributes.mtime.seconds),
            xattrs,
        };
        self.out.entry(&entry, names).map_err(|error| write_error(error, bytes_path(&self.path)))
    }
}

/// What it is in an archive; sockets are nothing.
fn kind_of(inode: &Inode) -> Option<TarKind<'_>> {
    Some(match &inode.kind {
        Kind::Directory(_) => TarKind::Directory,
        Kind::File(content) => TarKind::File { size_bytes: content.size_bytes },
        Kind::Symlink(target) => TarKind::Symlink { target },
        Kind::Special(kind, device) => {
            let (major, minor) = (major(*device), minor(*device));
            match kind {
                FileType::CharacterDevice => TarKind::CharDevice { major, minor },
                FileType::BlockDevice => TarKind::BlockDevice { major, minor },
                FileType::Fifo => TarKind::Fifo,
                _ => return None,
            }
        }
    })
}

/// The contents in the packs of a layer. Those of small files that lie one behind the other are read at once.
struct Contents<'a> {
    packs: &'a [&'a File],
    /// What was read last: from which pack, and where from.
    pack: u16,
    at: u64,
    bytes: Vec<u8>,
}

impl Contents<'_> {
    fn open(&mut self, place: Place, size_bytes: u64) -> io::Result<PackedContent<'_>> {
        let Place { pack, offset_bytes: at } = place;
        let file = self.packs[usize::from(pack)];
        if size_bytes > SMALL_BYTES_MAX {
            return Ok(PackedContent::InPack { pack: file, at });
        }
        let end = self.at + self.bytes.len() as u64;
        let (is_same, is_ahead) = (pack == self.pack, (end..end + AHEAD_BYTES).contains(&(at + size_bytes)));
        if !is_same || at < self.at || at + size_bytes > end {
            let wanted = if is_same && is_ahead { AHEAD_BYTES } else { size_bytes };
            self.bytes.resize(wanted as usize, 0);
            let count = read_all_at(file, &mut self.bytes, at)?;
            self.bytes.truncate(count);
            (self.pack, self.at) = (pack, at);
        }
        let from = (at - self.at) as usize;
        let until = self.bytes.len().min(from + size_bytes as usize);
        Ok(PackedContent::Read(&self.bytes[from..until]))
    }
}

/// Reads as much as there is.
fn read_all_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], at + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// A content.
enum PackedContent<'a> {
    Read(&'a [u8]),
    /// To be read to wherever the reader stops.
    InPack {
        pack: &'a File,
        at: u64,
    },
}

impl Read for PackedContent<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Read(bytes) => bytes.read(buffer),
            Self::InPack { pack, at } => {
                let count = pack.read_at(buffer, *at)?;
                *at += count as u64;
                Ok(count)
            }
        }
    }
}
