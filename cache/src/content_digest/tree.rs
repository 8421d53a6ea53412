//! The digest of a layer that is a tree: the same as of its directory, of what is known already.

use rbuild_image::KeyHasher;

use super::file::{counts, digest_attributes};
use super::fold::{DIRECTORY_DOMAIN, Facts, SELECTION_DOMAIN, feed, whiteout_digest};
use super::stat_cache::Substance;
use super::{Blake3, TreeOwner};
use crate::root_dir::Stat;
use crate::root_dir::xattr::Xattrs;
use crate::tree::{Entries, Inode, InodeId, Kind, Tree};

/// What [`digest_layer`](super::digest_layer) gives for the tree; `None` if the digest of a content is not known.
pub(crate) fn digest_of_tree(tree: &Tree) -> Option<Blake3> {
    let content = directory(tree, tree.inode(InodeId::ROOT), tree.entries(InodeId::ROOT)?)?;
    let mut hasher = KeyHasher::new(SELECTION_DOMAIN);
    // One selected path, without a name, of which only what is in it counts.
    hasher.number(1u64).bytes(b"");
    Some(hasher.number(2u64).option(Some(&content), feed).finish())
}

fn directory(tree: &Tree, inode: &Inode, entries: &Entries) -> Option<Blake3> {
    let digest = |(name, child)| Some((name, file(tree, tree.inode(child))?));
    let entries = entries.iter().map(|(name, child)| (name.as_encoded_bytes(), *child));
    let digests = entries.map(digest).collect::<Option<Vec<(&[u8], Blake3)>>>()?;
    let mut hasher = KeyHasher::new(DIRECTORY_DOMAIN);
    hasher.number(inode.is_opaque());
    hasher.list(&digests, |hasher, (name, digest)| {
        hasher.bytes(name).bytes(digest);
    });
    Some(hasher.finish())
}

fn file(tree: &Tree, inode: &Inode) -> Option<Blake3> {
    if inode.is_whiteout() {
        return Some(whiteout_digest());
    }
    let content = match &inode.kind {
        Kind::Directory(entries) => Some(directory(tree, inode, entries)?),
        Kind::File(content) => Some(content.digest?),
        Kind::Symlink(target) => Some(*blake3::hash(target).as_bytes()),
        Kind::Special(..) => None,
    };
    Some(facts(inode).digest(content, attributes_digest(inode)))
}

pub(super) fn attributes_digest(inode: &Inode) -> Option<Blake3> {
    let counted = inode.attributes.xattrs.iter().filter(|(name, _)| counts(name, TreeOwner::Keep));
    let counted: Xattrs = counted.map(|(name, value)| (name.clone(), value.clone())).collect();
    digest_attributes(&counted)
}

/// What a file with these attributes holds, given that it is shown from a tree as this inode; `None` if that is not known.
pub fn content_of(inode: &Inode, stat: &Stat) -> Option<Blake3> {
    let Kind::File(content) = &inode.kind else { return None };
    let mtime = inode.attributes.mtime;
    let is_same_time =
        (mtime.seconds, i64::from(mtime.nanoseconds)) == (stat.st_mtime, stat.st_mtime_nsec as i64);
    content.digest.filter(|_| is_same_time && facts(inode) == Facts::of(stat, TreeOwner::Keep))
}

/// The same of all that is in a digest.
pub(super) fn substance_of(inode: &Inode, stat: &Stat) -> Option<Substance> {
    let content = Some(content_of(inode, stat)?);
    Some(Substance { content, xattrs: attributes_digest(inode) })
}

pub(super) fn facts(inode: &Inode) -> Facts {
    let (size_bytes, device) = match &inode.kind {
        Kind::File(content) => (content.size_bytes, 0),
        Kind::Special(_, device) => (0, *device),
        Kind::Directory(_) | Kind::Symlink(_) => (0, 0),
    };
    let attributes = &inode.attributes;
    let (mode, uid, gid) = (attributes.mode, attributes.uid, attributes.gid);
    Facts { kind: inode.file_type(), mode, uid, gid, size_bytes, device }
}
