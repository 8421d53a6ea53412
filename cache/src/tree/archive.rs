//! A tree as the tar of an OCI layer: byte for byte the one that [`layer::diff`](crate::layer::diff) makes of it where it is mounted,
//! without mounting it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{major, minor};

use super::{Entries, Inode, InodeId, Kind, Place, Tree};
use crate::layer::archive::{LAYER_ATTRIBUTE, mark_entry, write_error};
use crate::layer::merged::Merged;
use crate::layer::tar::{Attribute, TarEntry, TarKind, TarWriter};
use crate::layer::whiteout::{OPAQUE_NAME, WHITEOUT_PREFIX};
use crate::layer::{Error, Mtimes};
use crate::root_dir::{At as _, FileType};

/// How much is read at once where small files lie one behind the other, and what is small.
const AHEAD_BYTES: u64 = 256 * 1024;
const SMALL_BYTES_MAX: u64 = 64 * 1024;

/// Writes a tree, whose contents are in `packs` and which stands on `lowers`, as an archive.
pub(crate) fn diff(
    tree: &Tree,
    packs: &[&File],
    lowers: Merged<'_>,
    mtimes: Mtimes,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let (names, _) = tree.count_names();
    let tar = TarWriter::new(out);
    let contents = Contents { packs, pack: 0, at: 0, bytes: Vec::new() };
    let mut archiver = Archiver { tree, contents, lowers, mtimes, tar, names, firsts: HashMap::new() };
    archiver.directory(InodeId::ROOT, &Spot { path: Path::new(""), hides: false })?;
    archiver.tar.finish().map(drop).map_err(|error| write_error(error, Path::new("/")))
}

struct Archiver<'a, 'w> {
    tree: &'a Tree,
    contents: Contents<'a>,
    lowers: Merged<'a>,
    mtimes: Mtimes,
    tar: TarWriter<&'w mut dyn Write>,
    /// How many names each inode has.
    names: Vec<u32>,
    /// The first path of every inode that has several.
    firsts: HashMap<InodeId, Vec<u8>>,
}

/// A directory being archived.
struct Spot<'p> {
    path: &'p Path,
    /// Whether an opaque directory above hides all that is beneath anyway.
    hides: bool,
}

impl Archiver<'_, '_> {
    fn directory(&mut self, id: InodeId, spot: &Spot<'_>) -> Result<(), Error> {
        let Some(entries) = self.tree.entries(id) else { return Ok(()) };
        let opaque = self.is_opaque(id, spot.path)?;
        let spot = Spot { hides: spot.hides || opaque, ..*spot };
        for (name, child) in self.items(entries, &spot, opaque)? {
            let path = spot.path.join(&name);
            match child {
                None => self.put(&mark_entry(path.as_os_str().as_bytes()), &path)?,
                Some(child) => self.file(child, &path, spot.hides)?,
            }
        }
        Ok(())
    }

    /// Whether this directory hides one that the lower layers show. The root of a layer never does.
    fn is_opaque(&self, id: InodeId, path: &Path) -> Result<bool, Error> {
        Ok(id != InodeId::ROOT && self.tree.inode(id).is_opaque() && self.lowers.has_dir(path)?)
    }

    /// The names in the archive, in their order; a mark is no file.
    fn items(
        &self,
        entries: &Entries,
        spot: &Spot<'_>,
        opaque: bool,
    ) -> Result<Vec<(OsString, Option<InodeId>)>, Error> {
        let mut items: Vec<(OsString, Option<InodeId>)> = Vec::with_capacity(entries.len());
        if opaque {
            items.push((OPAQUE_NAME.into(), None));
        }
        for (name, child) in entries {
            if !self.tree.inode(*child).is_whiteout() {
                items.push((name.clone(), Some(*child)));
            } else if !spot.hides && self.lowers.lookup(&spot.path.join(name))?.is_some() {
                let mark = OsString::from_vec([WHITEOUT_PREFIX.as_bytes(), name.as_bytes()].concat());
                items.push((mark, None));
            }
        }
        items.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(items)
    }

    fn file(&mut self, id: InodeId, path: &Path, hides: bool) -> Result<(), Error> {
        let tree = self.tree;
        let (inode, name) = (tree.inode(id), path.as_os_str().as_bytes());
        let is_directory = matches!(inode.kind, Kind::Directory(_));
        if !is_directory && self.names[id.index()] > 1 {
            if let Some(first) = self.firsts.get(&id) {
                let target = first.clone();
                return self.put(&self.entry(inode, name, TarKind::HardLink { target: &target }, &[]), path);
            }
            self.firsts.insert(id, name.to_vec());
        }
        let wanted = |(name, value): (&std::ffi::CString, &Vec<u8>)| {
            (name.to_bytes() == LAYER_ATTRIBUTE).then(|| (name.to_bytes().to_vec(), value.clone()))
        };
        let xattrs: Vec<Attribute> = inode.attributes.xattrs.iter().filter_map(wanted).collect();
        let Some(kind) = kind_of(inode) else { return Ok(()) };
        let entry = self.entry(inode, name, kind, &xattrs);
        if let Kind::File(content) = &inode.kind
            && let Some(place) = content.place
        {
            let content = self.contents.open(place, content.size_bytes).at("read", path)?;
            return self.tar.entry_with(&entry, content).map_err(|error| write_error(error, path));
        }
        self.put(&entry, path)?;
        if is_directory { self.directory(id, &Spot { path, hides }) } else { Ok(()) }
    }

    fn put(&mut self, entry: &TarEntry<'_>, path: &Path) -> Result<(), Error> {
        self.tar.entry(entry).map_err(|error| write_error(error, path))
    }

    fn entry<'e>(
        &self,
        inode: &Inode,
        path: &'e [u8],
        kind: TarKind<'e>,
        xattrs: &'e [Attribute],
    ) -> TarEntry<'e> {
        let attributes = &inode.attributes;
        TarEntry {
            path,
            kind,
            mode: attributes.mode,
            uid: attributes.uid,
            gid: attributes.gid,
            mtime: self.mtimes.of(attributes.mtime.seconds),
            xattrs,
        }
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
