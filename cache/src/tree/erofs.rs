//! Writes a [`Tree`] as an EROFS image: pure bytes, the same for the same tree. `read` makes the tree of them again.
//!
//! The image holds superblock, inodes, extended attributes, directories and link targets. Contents are elsewhere: each pack is a
//! device, mapped behind the image into one range of blocks (`uniaddr` in the kernel's words), so that a file is nothing but
//! the number of its first block. No compression, no inline data, no shared attributes: of the format only what it began with,
//! and the table of devices (Linux 5.16; files as devices: 6.12).
//!
//! Blocks have 512 bytes, the least that the format knows, so that little room is lost behind small files.
//!
//! The public description of the format is the kernel's `Documentation/filesystems/erofs.rst`; names of fields are taken from there.

mod read;

use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{major, minor};
use thiserror::Error;

pub use self::read::read;
use super::{Attributes, Entries, Inode, InodeId, Kind, Tree};
use crate::root_dir::FileType;

/// The unit of places in packs and images.
pub const BLOCK_BYTES: u64 = 1 << BLOCK_BITS;

const BLOCK_BITS: u8 = 9;
/// Where packs begin: an image that has grown a little has its files' contents where they were.
const PACK_BLOCKS_UNIT: u64 = 1 << 16;
const MAGIC: u32 = 0xE0F5_E1E2;
const SUPERBLOCK_OFFSET: usize = 1024;
const SUPERBLOCK_BYTES: usize = 128;
const DEVICE_SLOT_BYTES: usize = 128;
const DEVICES_OFFSET: usize = SUPERBLOCK_OFFSET + SUPERBLOCK_BYTES;
const FEATURE_INCOMPAT_DEVICE_TABLE: u32 = 0x8;
/// Inodes are numbered by this.
const SLOT_BYTES: usize = 32;
/// An inode with 64-bit size and time; its data is in blocks of its own.
const INODE_BYTES: usize = 64;
const INODE_FORMAT_EXTENDED_PLAIN: u16 = 1;
const XATTR_HEADER_BYTES: usize = 12;
const XATTR_UNIT_BYTES: usize = 4;
const DIRENT_BYTES: usize = 12;

/// What the format cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ImageError {
    /// More blocks than it can number: two terabytes.
    #[error("the tree has more than 2^32 blocks of {BLOCK_BYTES} bytes")]
    TooManyBlocks,
    /// More packs than it can number.
    #[error("the tree has more than 65535 packs")]
    TooManyPacks,
    /// A file with more of them than it can count.
    #[error("a file has more than 256 KiB of extended attributes")]
    AttributesTooLarge,
    /// An attribute of a namespace that it does not know.
    #[error("a file has an extended attribute of a namespace that images do not know")]
    UnknownAttribute,
}

/// Writes an image of `tree`, the contents of which are in packs that have so many blocks.
///
/// # Errors
/// When the format cannot hold the tree.
pub fn image(tree: &Tree, pack_blocks: &[u64]) -> Result<Vec<u8>, ImageError> {
    Writer::new(tree, pack_blocks, BLOCK_BITS)?.write()
}

/// Where everything goes.
struct Writer<'a> {
    tree: &'a Tree,
    block_bits: u8,
    /// First block and count of each pack.
    packs: Vec<(u32, u32)>,
    meta_block: u32,
    /// By inode: the number of its slot, its attributes as they are written, how many names it has, the directory it is in.
    slots: Vec<u64>,
    xattrs: HashMap<InodeId, Vec<u8>>,
    names: Vec<u32>,
    parents: Vec<InodeId>,
    /// What is in directories and links, beginning at `data_block`, and by inode where in it, and how much.
    data: Vec<u8>,
    data_block: u32,
    extents: Vec<(u32, u64)>,
}

impl<'a> Writer<'a> {
    fn new(tree: &'a Tree, pack_blocks: &[u64], block_bits: u8) -> Result<Self, ImageError> {
        u16::try_from(pack_blocks.len()).map_err(|_| ImageError::TooManyPacks)?;
        let block = 1 << block_bits;
        let blocks = |bytes| blocks(bytes, block_bits);
        let meta_offset = round_up(DEVICES_OFFSET + DEVICE_SLOT_BYTES * pack_blocks.len(), block);
        let xattrs = encode_all_attributes(tree)?;
        let (slots, meta_bytes) = place_inodes(tree, &xattrs);
        let (names, parents) = tree.count_names();
        let mut writer = Self {
            tree,
            block_bits,
            packs: Vec::new(),
            meta_block: blocks(meta_offset)?,
            slots,
            xattrs,
            names,
            parents,
            data: Vec::new(),
            extents: Vec::new(),
            data_block: blocks(meta_offset + meta_bytes)?,
        };
        writer.encode_data()?;
        let mut next = u64::from(writer.data_block) + u64::from(blocks(writer.data.len())?);
        for count in pack_blocks {
            next = next.next_multiple_of(PACK_BLOCKS_UNIT);
            let start = u32::try_from(next).map_err(|_| ImageError::TooManyBlocks)?;
            writer.packs.push((start, u32::try_from(*count).map_err(|_| ImageError::TooManyBlocks)?));
            next += count;
        }
        u32::try_from(next).map_err(|_| ImageError::TooManyBlocks)?;
        Ok(writer)
    }

    const fn block(&self) -> usize {
        1 << self.block_bits
    }

    /// The blocks of directories and links, in the order of the inodes.
    fn encode_data(&mut self) -> Result<(), ImageError> {
        for (id, inode) in self.tree.inodes() {
            let start = self.data.len();
            match &inode.kind {
                Kind::Directory(entries) => self.data.extend(self.encode_directory(id, entries)),
                Kind::Symlink(target) => self.data.extend(target),
                Kind::File(_) | Kind::Special(..) => {}
            }
            self.extents.push((blocks(start, self.block_bits)?, (self.data.len() - start) as u64));
            self.data.resize(round_up(self.data.len(), self.block()), 0);
        }
        Ok(())
    }

    /// A directory: in each block the entries, and behind them their names.
    fn encode_directory(&self, id: InodeId, entries: &Entries) -> Vec<u8> {
        let here = [(OsStr::new("."), id), (OsStr::new(".."), self.parents[id.index()])];
        let mut all: Vec<(&OsStr, InodeId)> =
            here.into_iter().chain(entries.iter().map(|(name, id)| (name.as_os_str(), *id))).collect();
        // All but the first two are sorted.
        all.sort_by_key(|(name, _)| name.as_bytes());
        let mut out = Vec::new();
        let mut rest = &all[..];
        while !rest.is_empty() {
            out.resize(round_up(out.len(), self.block()), 0);
            let (block, after) = rest.split_at(entries_in_block(rest, self.block()));
            let mut name_offset = DIRENT_BYTES * block.len();
            for (name, id) in block {
                out.extend(self.slots[id.index()].to_le_bytes());
                out.extend(u16::try_from(name_offset).unwrap_or(u16::MAX).to_le_bytes());
                out.extend([type_number(self.tree.inode(*id).file_type()), 0]);
                name_offset += name.len();
            }
            block.iter().for_each(|(name, _)| out.extend(name.as_bytes()));
            rest = after;
        }
        out
    }

    fn write(self) -> Result<Vec<u8>, ImageError> {
        let mut out = Vec::with_capacity(self.data_block as usize * self.block() + self.data.len());
        out.resize(SUPERBLOCK_OFFSET, 0);
        self.put_superblock(&mut out)?;
        for (start, count) in &self.packs {
            let at = out.len();
            out.resize(at + DEVICE_SLOT_BYTES, 0);
            put(&mut out, at + 64, count.to_le_bytes());
            put(&mut out, at + 68, start.to_le_bytes());
        }
        out.resize(self.meta_block as usize * self.block(), 0);
        let meta_offset = out.len();
        for (id, inode) in self.tree.inodes() {
            out.resize(meta_offset + self.slots[id.index()] as usize * SLOT_BYTES, 0);
            self.put_inode(&mut out, id, inode);
        }
        out.resize(self.data_block as usize * self.block(), 0);
        out.extend(&self.data);
        Ok(out)
    }

    fn put_superblock(&self, out: &mut Vec<u8>) -> Result<(), ImageError> {
        let at = out.len();
        out.resize(at + SUPERBLOCK_BYTES, 0);
        put(out, at, MAGIC.to_le_bytes());
        put(out, at + 12, [self.block_bits, 0]);
        // The root is the first inode.
        put(out, at + 14, 0_u16.to_le_bytes());
        put(out, at + 16, (self.slots.len() as u64).to_le_bytes());
        put(out, at + 36, (self.data_block + blocks(self.data.len(), self.block_bits)?).to_le_bytes());
        put(out, at + 40, self.meta_block.to_le_bytes());
        if !self.packs.is_empty() {
            put(out, at + 80, FEATURE_INCOMPAT_DEVICE_TABLE.to_le_bytes());
            put(out, at + 86, (self.packs.len() as u16).to_le_bytes());
            put(out, at + 88, ((DEVICES_OFFSET / DEVICE_SLOT_BYTES) as u16).to_le_bytes());
        }
        Ok(())
    }

    fn put_inode(&self, out: &mut Vec<u8>, id: InodeId, inode: &Inode) {
        let Attributes { mode, uid, gid, mtime, .. } = &inode.attributes;
        let xattrs = encoded(&self.xattrs, id);
        let mut bytes = [0; INODE_BYTES];
        put(&mut bytes, 0, INODE_FORMAT_EXTENDED_PLAIN.to_le_bytes());
        put(&mut bytes, 2, attribute_units(xattrs).to_le_bytes());
        put(&mut bytes, 4, ((inode.file_type().as_raw_mode() | mode) as u16).to_le_bytes());
        put(&mut bytes, 8, self.size_of(id, inode).to_le_bytes());
        put(&mut bytes, 16, self.where_of(id, inode).to_le_bytes());
        put(&mut bytes, 24, uid.to_le_bytes());
        put(&mut bytes, 28, gid.to_le_bytes());
        put(&mut bytes, 32, mtime.seconds.to_le_bytes());
        put(&mut bytes, 40, mtime.nanoseconds.to_le_bytes());
        put(&mut bytes, 44, self.names[id.index()].to_le_bytes());
        out.extend_from_slice(&bytes);
        out.extend_from_slice(xattrs);
    }

    fn size_of(&self, id: InodeId, inode: &Inode) -> u64 {
        match &inode.kind {
            Kind::File(content) => content.size_bytes,
            _ => self.extents[id.index()].1,
        }
    }

    /// The first block, or the number of a device.
    fn where_of(&self, id: InodeId, inode: &Inode) -> u32 {
        match &inode.kind {
            Kind::Directory(_) | Kind::Symlink(_) => self.data_block + self.extents[id.index()].0,
            Kind::File(content) => content.place.map_or(0, |place| {
                let (start, _) = self.packs[usize::from(place.pack)];
                debug_assert!(
                    place.offset_bytes.is_multiple_of(1 << self.block_bits),
                    "contents begin at blocks"
                );
                // In range: `new` has seen the end of all packs.
                start + (place.offset_bytes >> self.block_bits) as u32
            }),
            Kind::Special(kind, device) => match kind {
                FileType::CharacterDevice | FileType::BlockDevice => encode_device(*device),
                _ => 0,
            },
        }
    }
}

/// How many entries, at least one, go into the next block.
fn entries_in_block(entries: &[(&OsStr, InodeId)], block: usize) -> usize {
    let mut used = 0;
    let fits = |(name, _): &&(&OsStr, InodeId)| {
        used += DIRENT_BYTES + name.len();
        used <= block
    };
    entries.iter().take_while(fits).count().max(1)
}

/// Where inodes go, in slots, and how many bytes that takes.
fn place_inodes(tree: &Tree, xattrs: &HashMap<InodeId, Vec<u8>>) -> (Vec<u64>, usize) {
    let (mut slots, mut at) = (Vec::new(), 0);
    for (id, _) in tree.inodes() {
        slots.push((at / SLOT_BYTES) as u64);
        at = round_up(at + INODE_BYTES + encoded(xattrs, id).len(), SLOT_BYTES);
    }
    (slots, at)
}

/// The attributes of an inode. Most trees have none.
fn encoded(xattrs: &HashMap<InodeId, Vec<u8>>, id: InodeId) -> &[u8] {
    if xattrs.is_empty() { &[] } else { xattrs.get(&id).map_or(&[], Vec::as_slice) }
}

fn encode_all_attributes(tree: &Tree) -> Result<HashMap<InodeId, Vec<u8>>, ImageError> {
    let with = tree.inodes().filter(|(_, inode)| !inode.attributes.xattrs.is_empty());
    with.map(|(id, inode)| Ok((id, encode_attributes(&inode.attributes)?))).collect()
}

/// A header and the attributes, each a multiple of four bytes.
fn encode_attributes(attributes: &Attributes) -> Result<Vec<u8>, ImageError> {
    let mut out = vec![0; XATTR_HEADER_BYTES];
    for (name, value) in &attributes.xattrs {
        let (namespace, rest) = namespace_of(name)?;
        let name_length = u8::try_from(rest.len()).map_err(|_| ImageError::AttributesTooLarge)?;
        let value_length = u16::try_from(value.len()).map_err(|_| ImageError::AttributesTooLarge)?;
        out.extend([name_length, namespace]);
        out.extend(value_length.to_le_bytes());
        out.extend(rest);
        out.extend(value);
        out.resize(round_up(out.len(), XATTR_UNIT_BYTES), 0);
    }
    let units = (out.len() - XATTR_HEADER_BYTES) / XATTR_UNIT_BYTES + 1;
    if u16::try_from(units).is_err() { Err(ImageError::AttributesTooLarge) } else { Ok(out) }
}

fn attribute_units(encoded: &[u8]) -> u16 {
    match encoded.len() {
        0 => 0,
        length => ((length - XATTR_HEADER_BYTES) / XATTR_UNIT_BYTES + 1) as u16,
    }
}

/// First parts of attributes' names, and the numbers that stand for them.
const NAMESPACES: [(&[u8], u8); 5] = [
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
];

/// The number that stands for the first part of an attribute's name, and what follows it.
fn namespace_of(name: &CStr) -> Result<(u8, &[u8]), ImageError> {
    let found = NAMESPACES
        .iter()
        .find_map(|(prefix, number)| Some((*number, name.to_bytes().strip_prefix(*prefix)?)));
    found.ok_or(ImageError::UnknownAttribute)
}

/// Whether an image can hold an attribute of this name.
pub fn can_hold(name: &CStr) -> bool {
    namespace_of(name).is_ok()
}

const fn type_number(kind: FileType) -> u8 {
    match kind {
        FileType::RegularFile => 1,
        FileType::Directory => 2,
        FileType::CharacterDevice => 3,
        FileType::BlockDevice => 4,
        FileType::Fifo => 5,
        FileType::Socket => 6,
        FileType::Symlink => 7,
        FileType::Unknown => 0,
    }
}

/// A device number as the kernel encodes it on disk (`new_encode_dev`).
fn encode_device(device: u64) -> u32 {
    let (major, minor) = (major(device), minor(device));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

fn blocks(bytes: usize, block_bits: u8) -> Result<u32, ImageError> {
    u32::try_from(bytes.div_ceil(1 << block_bits)).map_err(|_| ImageError::TooManyBlocks)
}

const fn round_up(bytes: usize, unit: usize) -> usize {
    bytes.next_multiple_of(unit)
}

fn put<const N: usize>(out: &mut [u8], at: usize, bytes: [u8; N]) {
    out[at..at + N].copy_from_slice(&bytes);
}

#[cfg(test)]
mod tests;
