//! The digest of a layer that is a tree: the same as of its directory, of what is known already.

use std::thread;

use rbuild_image::KeyHasher;

use super::file::{counts, digest_attributes};
use super::fold::{DIRECTORY_DOMAIN, Facts, SELECTION_DOMAIN, whiteout_digest};
use super::stat_cache::Substance;
use super::{Blake3, TreeOwner, digest_of_link};
use crate::root_dir::Stat;
use crate::root_dir::xattr::Xattrs;
use crate::tree::{Entries, Inode, InodeId, Kind, Tree};

/// So many files are digested in the time in which a thread begins.
const SHARE_MIN: usize = 1000;

/// What [`digest_layer`](super::digest_layer) gives for the tree; `None` if the digest of a content is not known.
pub(crate) fn digest_of_tree(tree: &Tree) -> Option<Blake3> {
    let digested = Digested { tree, files: digest_files(tree)? };
    let mut hasher = KeyHasher::new(SELECTION_DOMAIN);
    // One selected path, without a name.
    hasher.number(1u64).bytes(b"");
    Some(hasher.number(1u64).bytes(&digested.entry(InodeId::ROOT)).finish())
}

/// A tree, and the digests of its files.
struct Digested<'a> {
    tree: &'a Tree,
    /// By inode; those of directories are none yet.
    files: Vec<Blake3>,
}

impl Digested<'_> {
    fn directory(&self, inode: &Inode, entries: &Entries) -> Blake3 {
        let entries = entries.iter().map(|(name, child)| (name.as_encoded_bytes(), self.entry(*child)));
        let digests: Vec<(&[u8], Blake3)> = entries.collect();
        let mut hasher = KeyHasher::new(DIRECTORY_DOMAIN);
        hasher.number(inode.is_opaque());
        hasher.list(&digests, |hasher, (name, digest)| {
            hasher.bytes(name).bytes(digest);
        });
        hasher.finish()
    }

    fn entry(&self, id: InodeId) -> Blake3 {
        let inode = self.tree.inode(id);
        match &inode.kind {
            Kind::Directory(entries) => {
                let content = self.directory(inode, entries);
                facts(inode).digest(Some(content), attributes_digest(inode))
            }
            _ => self.files[id.index()],
        }
    }
}

/// The digests of all inodes, of directories any; half of them are made by another thread.
fn digest_files(tree: &Tree) -> Option<Vec<Blake3>> {
    let digest = |inode: &Inode| match inode.kind {
        Kind::Directory(_) => Some(Blake3::default()),
        _ => file(inode),
    };
    let digest_all = |inodes: &[Inode]| inodes.iter().map(digest).collect::<Option<Vec<_>>>();
    let inodes = tree.as_slice();
    let (first, second) = inodes.split_at(if inodes.len() < 2 * SHARE_MIN { 0 } else { inodes.len() / 2 });
    thread::scope(|scope| {
        let aside = (!first.is_empty()).then(|| scope.spawn(|| digest_all(first)));
        let second = digest_all(second);
        let first = aside.map(|aside| aside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        Some([first.unwrap_or(Some(Vec::new()))?, second?].concat())
    })
}

/// `None` if the digest of its content is not known.
fn file(inode: &Inode) -> Option<Blake3> {
    if inode.is_whiteout() {
        return Some(whiteout_digest());
    }
    let content = match &inode.kind {
        Kind::File(content) => Some(content.digest?),
        Kind::Symlink(target) => Some(digest_of_link(target)),
        Kind::Special(..) | Kind::Directory(_) => None,
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
