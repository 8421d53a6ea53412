//! A file of a case, as one line and a body describe it: written into a build context, or into a tar.

use std::fs::{self, File, FileTimes};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use rustix::fs::XattrFlags;
use tar::{Builder, EntryType, Header};

use crate::common::gzip;

/// A file.
#[derive(Debug)]
pub(super) struct Node {
    /// Without a leading or trailing slash.
    path: String,
    kind: Kind,
    mode: Option<u32>,
    owner: Option<(u32, u32)>,
    mtime: Option<u64>,
    xattrs: Vec<(String, Vec<u8>)>,
}

#[derive(Debug)]
enum Kind {
    Directory,
    File(Vec<u8>),
    Symlink(String),
    HardLink(String),
    Fifo,
    Socket,
    Char(u32, u32),
    Block(u32, u32),
    /// A file whose content is new each time the case is run.
    Nonce,
}

impl Node {
    /// `PATH [-> TARGET | => TARGET] [WORD...]`.
    pub(super) fn parse(head: &str, body: &str) -> Self {
        let (head, text) = match head.split_once(" text=") {
            Some((head, text)) => (head, unescape(text)),
            None => (head, body.as_bytes().to_vec()),
        };
        let mut words = head.split_whitespace();
        let path = words.next().unwrap();
        let directory = path.ends_with('/');
        let path = String::from_utf8(unescape(path.trim_end_matches('/'))).unwrap();
        let kind = if directory { Kind::Directory } else { Kind::File(text) };
        let mut node = Self { path, kind, mode: None, owner: None, mtime: None, xattrs: Vec::new() };
        while let Some(word) = words.next() {
            match word {
                "->" => node.kind = Kind::Symlink(words.next().unwrap().to_owned()),
                "=>" => node.kind = Kind::HardLink(words.next().unwrap().to_owned()),
                word => node.word(word),
            }
        }
        node
    }

    fn word(&mut self, word: &str) {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let pair = || value.split_once(':').map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap())).unwrap();
        match key {
            "mode" => self.mode = Some(u32::from_str_radix(value, 8).unwrap()),
            "owner" => self.owner = Some(pair()),
            "mtime" => self.mtime = Some(value.parse().unwrap()),
            "fifo" => self.kind = Kind::Fifo,
            "nonce" => self.kind = Kind::Nonce,
            "socket" => self.kind = Kind::Socket,
            "char" => self.kind = Kind::Char(pair().0, pair().1),
            "block" => self.kind = Kind::Block(pair().0, pair().1),
            key if key.contains('.') => self.xattrs.push((key.to_owned(), unescape(value))),
            key => self.change_content(key, value),
        }
    }

    fn change_content(&mut self, key: &str, value: &str) {
        let Kind::File(content) = &mut self.kind else { panic!("`{}` has no content: {key}", self.path) };
        match key {
            "escaped" => *content = unescape(&std::str::from_utf8(content).unwrap().replace('\n', "")),
            "size" => content.resize(value.parse().unwrap(), 0),
            "tar" => *content = tar_of_lines(std::str::from_utf8(content).unwrap()),
            "gzip" => *content = gzip(content),
            "bzip2" => {
                let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
                encoder.write_all(content).unwrap();
                *content = encoder.finish().unwrap();
            }
            "xz" => *content = liblzma::encode_all(&**content, 1).unwrap(),
            "zstd" => *content = zstd::encode_all(&**content, 1).unwrap(),
            key => panic!("`{}`: unknown word `{key}`", self.path),
        }
    }

    /// Writes it beneath a directory, in place of what is there.
    pub(super) fn write(&self, root: &Path, nonce: &str) {
        let path = root.join(&self.path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if path.symlink_metadata().is_ok_and(|found| !found.is_dir()) {
            fs::remove_file(&path).unwrap();
        }
        self.make(root, &path, nonce);
        if let Some((uid, gid)) = self.owner {
            lchown(&path, Some(uid), Some(gid)).unwrap();
        }
        if matches!(self.kind, Kind::Symlink(_) | Kind::HardLink(_)) {
            return;
        }
        for (name, value) in &self.xattrs {
            rustix::fs::setxattr(&path, name.as_str(), value, XattrFlags::empty()).unwrap();
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(self.mode())).unwrap();
        if let Some(mtime) = self.mtime {
            let times = FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(mtime));
            File::open(&path).unwrap().set_times(times).unwrap();
        }
    }

    fn make(&self, root: &Path, path: &Path, nonce: &str) {
        let special = |kind, major, minor| mknod(path, kind, Mode::empty(), makedev(major, minor)).unwrap();
        match &self.kind {
            Kind::Directory => fs::create_dir_all(path).unwrap(),
            Kind::Nonce => fs::write(path, nonce).unwrap(),
            Kind::File(content) => fs::write(path, content).unwrap(),
            Kind::Symlink(target) => symlink(target, path).unwrap(),
            Kind::HardLink(target) => fs::hard_link(root.join(target), path).unwrap(),
            Kind::Fifo => special(SFlag::S_IFIFO, 0, 0),
            Kind::Socket => drop(UnixListener::bind(path).unwrap()),
            Kind::Char(major, minor) => special(SFlag::S_IFCHR, (*major).into(), (*minor).into()),
            Kind::Block(major, minor) => special(SFlag::S_IFBLK, (*major).into(), (*minor).into()),
        }
    }

    fn mode(&self) -> u32 {
        self.mode.unwrap_or(match self.kind {
            Kind::Directory => 0o755,
            Kind::Symlink(_) => 0o777,
            _ => 0o644,
        })
    }

    fn append(&self, tar: &mut Builder<Vec<u8>>) {
        let xattrs = self.xattrs.iter().map(|(name, value)| (format!("SCHILY.xattr.{name}"), value));
        let xattrs: Vec<(String, &Vec<u8>)> = xattrs.collect();
        if !xattrs.is_empty() {
            let records = xattrs.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
            tar.append_pax_extensions(records).unwrap();
        }
        let mut header = Header::new_ustar();
        header.set_mode(self.mode());
        let (uid, gid) = self.owner.unwrap_or_default();
        header.set_uid(uid.into());
        header.set_gid(gid.into());
        header.set_mtime(self.mtime.unwrap_or(1));
        header.set_size(0);
        let kind = match &self.kind {
            Kind::Directory => EntryType::Directory,
            Kind::File(_) => EntryType::Regular,
            Kind::Symlink(_) => EntryType::Symlink,
            Kind::HardLink(_) => EntryType::Link,
            Kind::Fifo => EntryType::Fifo,
            Kind::Char(..) => EntryType::Char,
            Kind::Block(..) => EntryType::Block,
            Kind::Socket | Kind::Nonce => panic!("`{}` cannot be in a tar", self.path),
        };
        header.set_entry_type(kind);
        if let Kind::Char(major, minor) | Kind::Block(major, minor) = self.kind {
            header.set_device_major(major).unwrap();
            header.set_device_minor(minor).unwrap();
        }
        match &self.kind {
            Kind::Symlink(target) | Kind::HardLink(target) => {
                tar.append_link(&mut header, &self.path, target).unwrap();
            }
            Kind::File(content) => {
                header.set_size(content.len() as u64);
                tar.append_data(&mut header, &self.path, &**content).unwrap();
            }
            _ => tar.append_data(&mut header, &self.path, &[][..]).unwrap(),
        }
    }
}

/// A tar of the files that the lines describe.
fn tar_of_lines(lines: &str) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for line in lines.lines() {
        Node::parse(line, "").append(&mut tar);
    }
    tar.into_inner().unwrap()
}

/// `\n`, `\r`, `\t`, `\xHH`, `\{TEXT*COUNT}`; any other character after a backslash is itself.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        let first = escape.chars().next().unwrap();
        rest = &escape[first.len_utf8()..];
        match first {
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            'x' => {
                bytes.push(u8::from_str_radix(&rest[..2], 16).unwrap());
                rest = &rest[2..];
            }
            '{' => {
                let (repeated, after) = rest.split_once('}').unwrap();
                let (repeated, count) = repeated.rsplit_once('*').unwrap();
                bytes.extend(repeated.repeat(count.parse().unwrap()).bytes());
                rest = after;
            }
            other => bytes.extend(other.to_string().bytes()),
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}
