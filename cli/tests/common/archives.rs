//! Tars, as tests make and read them.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Archive, Builder, EntryType, Header};

/// A file system, by path without a leading slash.
#[derive(Debug)]
pub(crate) struct Tree(pub(crate) BTreeMap<String, Entry>);

/// One entry of a [`Tree`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: EntryType,
    pub(crate) mode: u32,
    pub(crate) owner: (u64, u64),
    pub(crate) mtime: u64,
    /// The target of a link.
    pub(crate) target: Option<String>,
    pub(crate) content: Vec<u8>,
}

impl Tree {
    /// Reads a plain tar.
    #[track_caller]
    pub(crate) fn read(tar: &[u8]) -> Self {
        let mut archive = Archive::new(tar);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            let path = entry.path().unwrap().to_str().unwrap().trim_end_matches('/').to_owned();
            let header = entry.header();
            let target = entry.link_name().unwrap().map(|target| target.to_str().unwrap().to_owned());
            let found = Entry {
                kind: header.entry_type(),
                mode: header.mode().unwrap() & 0o7777,
                owner: (header.uid().unwrap(), header.gid().unwrap()),
                mtime: header.mtime().unwrap(),
                target,
                content,
            };
            (path, found)
        });
        Self(entries.collect())
    }

    /// The entry of a path.
    #[track_caller]
    pub(crate) fn entry(&self, path: &str) -> &Entry {
        self.0.get(path).unwrap_or_else(|| panic!("no `{path}` in {:?}", self.paths("")))
    }

    /// Whether there is such a path.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// The text of a file.
    #[track_caller]
    pub(crate) fn text(&self, path: &str) -> &str {
        std::str::from_utf8(&self.entry(path).content).unwrap()
    }

    /// All paths beneath a directory, in order.
    pub(crate) fn paths(&self, directory: &str) -> Vec<&str> {
        let below = |path: &&str| directory.is_empty() || path.strip_prefix(directory).is_some_and(is_below);
        self.0.keys().map(String::as_str).filter(below).collect()
    }
}

fn is_below(rest: &str) -> bool {
    rest.starts_with('/')
}

/// A tar of files with these contents; a path that ends in `/` is a directory.
pub(crate) fn tar_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = Header::new_ustar();
        let is_directory = path.ends_with('/');
        header.set_entry_type(if is_directory { EntryType::Directory } else { EntryType::Regular });
        header.set_mode(if is_directory { 0o755 } else { 0o644 });
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// The bytes, compressed.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Unpacks a tar, such as an OCI layout.
pub(crate) fn unpack(tar: &[u8], directory: &Path) {
    Archive::new(tar).unpack(directory).unwrap();
}
