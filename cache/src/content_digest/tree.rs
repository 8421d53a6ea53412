//! The digest of a layer that is a tree: the same as of its directory, of what is known already.

use std::collections::HashMap;
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

/// The digests of what is in some directories of a tree: known from when it was seen, as all of it counts as it did then.
pub type KnownContents = HashMap<InodeId, Blake3>;

/// What [`digest_layer`](super::digest_layer) gives for the tree; `None` if the digest of a content is not known.
pub(crate) fn digest_of_tree(tree: &Tree, known: &KnownContents) -> Option<Blake3> {
    let digested = Digested { tree, known, files: digest_files(tree, known)? };
    let mut hasher = KeyHasher::new(SELECTION_DOMAIN);
    // One selected path, without a name.
    hasher.number(1u64).bytes(b"");
    Some(hasher.number(1u64).bytes(&digested.entry(InodeId::ROOT)).finish())
}

/// A tree, and the digests of its files.
struct Digested<'a> {
    tree: &'a Tree,
    known: &'a KnownContents,
    /// By inode; those of directories are none yet, nor are those of what is below one that is known.
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
                let known = known_content(self.known, id, inode);
                let content = known.unwrap_or_else(|| self.directory(inode, entries));
                digest_of_directory(inode, content)
            }
            _ => self.files[id.index()],
        }
    }
}

/// The digest of a directory, given that of what is in it.
pub fn digest_of_directory(directory: &Inode, content: Blake3) -> Blake3 {
    facts(directory).digest(Some(content), attributes_digest(directory))
}

/// The digest of what is in a directory, if it is known. It is of one that hides nothing.
fn known_content(known: &KnownContents, id: InodeId, inode: &Inode) -> Option<Blake3> {
    known.get(&id).copied().filter(|_| !inode.is_opaque())
}

/// The digests of the files that are in no directory that is known, by inode; those of others are any. Half of them are made by another thread.
fn digest_files(tree: &Tree, known: &KnownContents) -> Option<Vec<Blake3>> {
    let ids = files(tree, known);
    let digest = |id: &InodeId| Some((*id, file(tree.inode(*id))?));
    let digest_all = |ids: &[InodeId]| ids.iter().map(digest).collect::<Option<Vec<_>>>();
    let (first, second) = ids.split_at(if ids.len() < 2 * SHARE_MIN { 0 } else { ids.len() / 2 });
    let (first, second) = thread::scope(|scope| {
        let aside = (!first.is_empty()).then(|| scope.spawn(|| digest_all(first)));
        let second = digest_all(second);
        let first = aside.map(|aside| aside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        Some((first.unwrap_or(Some(Vec::new()))?, second?))
    })?;
    let mut digests = vec![Blake3::default(); tree.len()];
    first.into_iter().chain(second).for_each(|(id, digest)| digests[id.index()] = digest);
    Some(digests)
}

/// What is no directory, and in none that is known.
fn files(tree: &Tree, known: &KnownContents) -> Vec<InodeId> {
    let is_directory = |inode: &Inode| matches!(inode.kind, Kind::Directory(_));
    if known.is_empty() {
        return tree.inodes().filter(|(_, inode)| !is_directory(inode)).map(|(id, _)| id).collect();
    }
    let (mut files, mut todo) = (Vec::new(), vec![InodeId::ROOT]);
    while let Some(id) = todo.pop() {
        let inode = tree.inode(id);
        match &inode.kind {
            Kind::Directory(_) if known_content(known, id, inode).is_some() => {}
            Kind::Directory(entries) => todo.extend(entries.values()),
            _ => files.push(id),
        }
    }
    files
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
