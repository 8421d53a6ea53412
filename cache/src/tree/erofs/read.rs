//! An image as the [`Tree`] that it was made of: what this program has written, and no other image.
//!
//! Whoever reads one has compared it with its digest. What contradicts itself all the same is no tree, and nothing is read outside of the image.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::makedev;

use super::{
    BLOCK_BITS, BLOCK_BYTES, DEVICE_SLOT_BYTES, DEVICES_OFFSET, DIRENT_BYTES, INODE_BYTES,
    INODE_FORMAT_EXTENDED_PLAIN, MAGIC, NAMESPACES, SLOT_BYTES, SUPERBLOCK_OFFSET, XATTR_HEADER_BYTES,
    XATTR_UNIT_BYTES, round_up,
};
use crate::layer::reader::Time;
use crate::root_dir::FileType;
use crate::root_dir::xattr::Xattrs;
use crate::tree::{Attributes, Content, Entries, Inode, InodeId, Kind, Place, Tree};

/// Reads an image; `None` if it is none. The digests of contents are not in it.
pub fn read(image: &[u8]) -> Option<Tree> {
    let reader = Reader::new(image)?;
    let mut inodes = reader.inodes()?;
    inodes.first()?;
    let ids: HashMap<u64, InodeId> =
        inodes.iter().zip(0..).map(|(inode, id)| (inode.slot, InodeId(id))).collect();
    for read in &mut inodes {
        if let Kind::Directory(entries) = &mut read.inode.kind {
            *entries = reader.entries(read.data, &ids)?;
        }
    }
    let tree = Tree { inodes: inodes.into_iter().map(|read| read.inode).collect() };
    tree.entries(InodeId::ROOT)?;
    tree.is_sound().then_some(tree)
}

struct Reader<'a> {
    image: &'a [u8],
    /// Where inodes begin, and how many there are.
    meta_offset: usize,
    count: u64,
    /// The first block of each pack.
    packs: Vec<u32>,
}

/// An inode, the number of its slot, and what it holds in the image.
struct ReadInode<'a> {
    slot: u64,
    inode: Inode,
    data: &'a [u8],
}

impl<'a> Reader<'a> {
    fn new(image: &'a [u8]) -> Option<Self> {
        let block_bits = *image.get(SUPERBLOCK_OFFSET + 12)?;
        if u32_at(image, SUPERBLOCK_OFFSET)? != MAGIC || block_bits != BLOCK_BITS {
            return None;
        }
        let packs = usize::from(u16_at(image, SUPERBLOCK_OFFSET + 86)?);
        let start = |pack| u32_at(image, DEVICES_OFFSET + pack * DEVICE_SLOT_BYTES + 68);
        Some(Self {
            image,
            meta_offset: u32_at(image, SUPERBLOCK_OFFSET + 40)? as usize * BLOCK_BYTES as usize,
            count: u64_at(image, SUPERBLOCK_OFFSET + 16)?,
            packs: (0..packs).map(start).collect::<Option<_>>()?,
        })
    }

    fn inodes(&self) -> Option<Vec<ReadInode<'a>>> {
        let (mut inodes, mut at) = (Vec::new(), 0);
        for _ in 0..self.count {
            let (inode, bytes) = self.inode(self.image.get(self.meta_offset + at..)?, at)?;
            inodes.push(inode);
            at += round_up(bytes, SLOT_BYTES);
        }
        Some(inodes)
    }

    /// The inode at an offset from the first one, and how many bytes it takes.
    fn inode(&self, bytes: &[u8], at: usize) -> Option<(ReadInode<'a>, usize)> {
        if u16_at(bytes, 0)? != INODE_FORMAT_EXTENDED_PLAIN {
            return None;
        }
        let mode = u32::from(u16_at(bytes, 4)?);
        let kind = FileType::from_raw_mode(mode);
        let (size_bytes, place) = (u64_at(bytes, 8)?, u32_at(bytes, 16)?);
        let data = match kind {
            FileType::Directory | FileType::Symlink => self.data(place, size_bytes)?,
            _ => &[],
        };
        let xattrs_bytes = match usize::from(u16_at(bytes, 2)?) {
            0 => 0,
            units => XATTR_HEADER_BYTES + (units - 1) * XATTR_UNIT_BYTES,
        };
        let attributes = Attributes {
            mode: mode & 0o7777,
            uid: u32_at(bytes, 24)?,
            gid: u32_at(bytes, 28)?,
            mtime: Time { seconds: u64_at(bytes, 32)?.cast_signed(), nanoseconds: u32_at(bytes, 40)? },
            xattrs: read_xattrs(bytes.get(INODE_BYTES..INODE_BYTES + xattrs_bytes)?)?,
        };
        let kind = match kind {
            FileType::Directory => Kind::Directory(Entries::new()),
            FileType::RegularFile => Kind::File(self.content(size_bytes, place)?),
            FileType::Symlink => Kind::Symlink(data.to_vec()),
            FileType::CharacterDevice | FileType::BlockDevice => Kind::Special(kind, decode_device(place)),
            FileType::Fifo | FileType::Socket => Kind::Special(kind, 0),
            FileType::Unknown => return None,
        };
        let inode = Inode { attributes, kind };
        Some((ReadInode { slot: (at / SLOT_BYTES) as u64, inode, data }, INODE_BYTES + xattrs_bytes))
    }

    fn data(&self, block: u32, size_bytes: u64) -> Option<&'a [u8]> {
        let start = block as usize * BLOCK_BYTES as usize;
        self.image.get(start..start.checked_add(usize::try_from(size_bytes).ok()?)?)
    }

    fn content(&self, size_bytes: u64, block: u32) -> Option<Content> {
        let place = match size_bytes {
            0 => None,
            _ => {
                let pack = self.packs.partition_point(|start| *start <= block).checked_sub(1)?;
                let offset_bytes = u64::from(block.checked_sub(self.packs[pack])?) * BLOCK_BYTES;
                Some(Place { pack: u16::try_from(pack).ok()?, offset_bytes })
            }
        };
        Some(Content { size_bytes, digest: None, place })
    }

    fn entries(&self, data: &[u8], ids: &HashMap<u64, InodeId>) -> Option<Entries> {
        let mut entries = Entries::new();
        for block in data.chunks(BLOCK_BYTES as usize) {
            let count = usize::from(u16_at(block, 8)?) / DIRENT_BYTES;
            for at in 0..count {
                let entry = block.get(at * DIRENT_BYTES..)?;
                let start = usize::from(u16_at(entry, 8)?);
                let end = match at + 1 < count {
                    true => usize::from(u16_at(entry, DIRENT_BYTES + 8)?),
                    false => block.len(),
                };
                let name = block.get(start..end)?.split(|byte| *byte == 0).next()?;
                if name.is_empty() || name.contains(&b'/') {
                    return None;
                }
                if name != b"." && name != b".." {
                    entries.insert(OsStr::from_bytes(name).to_owned(), *ids.get(&u64_at(entry, 0)?)?);
                }
            }
        }
        Some(entries)
    }
}

fn read_xattrs(bytes: &[u8]) -> Option<Xattrs> {
    let (mut xattrs, mut at) = (Xattrs::new(), XATTR_HEADER_BYTES);
    while at < bytes.len() {
        let [name_bytes, namespace] = *bytes.get(at..)?.first_chunk()?;
        let (name_bytes, value_bytes) = (usize::from(name_bytes), usize::from(u16_at(bytes, at + 2)?));
        let name_at = at + 4;
        let (prefix, _) = NAMESPACES.iter().find(|(_, number)| *number == namespace)?;
        let name = [*prefix, bytes.get(name_at..name_at + name_bytes)?].concat();
        let value = bytes.get(name_at + name_bytes..name_at + name_bytes + value_bytes)?;
        xattrs.insert(CString::new(name).ok()?, value.to_vec());
        at = round_up(name_at + name_bytes + value_bytes, XATTR_UNIT_BYTES);
    }
    Some(xattrs)
}

/// The inverse of `encode_device`.
fn decode_device(encoded: u32) -> u64 {
    makedev((encoded & 0x000f_ff00) >> 8, (encoded & 0xff) | ((encoded >> 12) & 0x000f_ff00))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}
