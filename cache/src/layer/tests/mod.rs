//! Tests of layers, and what they share: trees that are described as text, so that a failed comparison can be
//! read.

mod archives;
mod compressed;
pub(crate) mod corpus;
mod hostile;
mod round_trip;

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::tar::{TarEntry, TarKind, TarWriter};
use super::*;
use crate::root_dir::{RootDir, xattr};

/// The attribute form used in tests: settable without privilege.
const XATTRS: OverlayXattrs = OverlayXattrs::User;

fn pool(threads: usize) -> Arc<ThreadPool> {
    Arc::new(ThreadPoolBuilder::new().num_threads(threads).build().unwrap())
}

/// Every path of a tree with all that a layer carries of it; directories' times only where asked for.
fn describe(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut tree = BTreeMap::new();
    describe_below(root, Path::new(""), &mut tree);
    tree
}

fn describe_below(root: &Path, below: &Path, tree: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(root.join(below)).unwrap() {
        let path = below.join(entry.unwrap().file_name());
        let full = root.join(&path);
        let metadata = fs::symlink_metadata(&full).unwrap();
        let kind = metadata.file_type();
        let what = if kind.is_dir() {
            describe_below(root, &path, tree);
            "directory".to_owned()
        } else if kind.is_symlink() {
            format!("link to {}", fs::read_link(&full).unwrap().display())
        } else if kind.is_file() {
            format!("file {:?}", String::from_utf8_lossy(&fs::read(&full).unwrap()))
        } else if kind.is_char_device() || kind.is_block_device() {
            format!("device {:x}", metadata.rdev())
        } else {
            "fifo or socket".to_owned()
        };
        let (mode, owner) = (metadata.mode() & 0o7777, (metadata.uid(), metadata.gid()));
        let attributes = attributes_of(&full);
        tree.insert(path, format!("{what} {mode:o} {owner:?} @{} {attributes:?}", metadata.mtime()));
    }
}

fn attributes_of(path: &Path) -> Vec<(String, Vec<u8>)> {
    let parent = RootDir::open(path.parent().unwrap()).unwrap();
    let kept = |name: &[u8]| name.starts_with(b"user.") || name == b"security.capability";
    xattr::read_all(parent.as_fd(), path.file_name().unwrap(), |name| kept(name.to_bytes()))
        .unwrap()
        .into_iter()
        .map(|(name, value)| (name.into_string().unwrap(), value))
        .collect()
}

/// An entry with plain attributes.
fn entry<'a>(path: &'a str, kind: TarKind<'a>) -> TarEntry<'a> {
    TarEntry { path: path.as_bytes(), kind, mode: 0o644, uid: 0, gid: 0, mtime: 1_000_000_000, xattrs: &[] }
}

/// An archive of small files: path and content, a directory where the content is `None`.
fn archive_of(files: &[(&str, Option<&str>)]) -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    for (path, content) in files {
        match content {
            None => tar.entry(&TarEntry { mode: 0o755, ..entry(path, TarKind::Directory) }).unwrap(),
            Some(content) => {
                let kind = TarKind::File { size_bytes: content.len() as u64 };
                tar.entry_with(&entry(path, kind), content.as_bytes()).unwrap();
            }
        }
    }
    tar.finish().unwrap()
}

fn archive_dir(dir: &Path) -> Vec<u8> {
    let mut tar = Vec::new();
    export(&RootDir::open(dir).unwrap(), &ArchiveOptions::default(), &mut tar).unwrap();
    tar
}

fn set_attribute(path: &Path, name: &str, value: &[u8]) {
    let parent = RootDir::open(path.parent().unwrap()).unwrap();
    let name = std::ffi::CString::new(name).unwrap();
    xattr::write(parent.as_fd(), path.file_name().unwrap(), &name, value).unwrap();
}

fn make_whiteout(path: &Path) {
    let parent = RootDir::open(path.parent().unwrap()).unwrap();
    whiteout::make_whiteout(parent.as_fd(), path.file_name().unwrap(), XATTRS).unwrap();
}
