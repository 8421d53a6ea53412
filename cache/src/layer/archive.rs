//! From a directory to a tar: one ordered walk for [`diff`] and [`export`].
//!
//! Entries come sorted by name within their directory and a directory comes before what is in it, so the
//! order is that of path components. Of several names for one inode the first is the file and the others are
//! hard links to it.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, major, minor, openat, readlinkat, statat};

use super::error::Error;
use super::merged::Merged;
use super::parts::Entries;
use super::tar::{Attribute, BLOCK_BYTES, TarEntry, TarKind, TarWriteError, TarWriter};
use super::whiteout::{OPAQUE_NAME, OverlayXattrs, WHITEOUT_PREFIX, is_opaque, is_whiteout};
use crate::root_dir::{At, PathError, RootDir, list, xattr};

/// How many directories may be nested in a tree that is archived; each holds a descriptor meanwhile.
pub const TREE_DEPTH_MAX: usize = 512;

/// The one extended attribute that layers carry: file capabilities. The others say something about the
/// machine (labels, access lists, overlay marks) or are private to a build (`user.`), and Docker's layers
/// lack them, too.
pub(crate) const LAYER_ATTRIBUTE: &[u8] = b"security.capability";

/// What a layer's archive is made with, other than the directories.
#[derive(Debug, Clone, Copy, Default)]
pub struct ArchiveOptions<'a> {
    /// What becomes of modification times.
    pub mtimes: Mtimes,
    /// Ends the work when it becomes true.
    pub cancel: Option<&'a AtomicBool>,
}

/// Modification times in an archive, in seconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mtimes {
    /// As they are.
    #[default]
    Keep,
    /// Later ones become this one: `SOURCE_DATE_EPOCH`.
    AtMost(i64),
    /// All become this one.
    All(i64),
}

impl Mtimes {
    /// What becomes of one.
    pub(crate) fn of(self, mtime: i64) -> i64 {
        match self {
            Self::Keep => mtime,
            Self::AtMost(latest) => mtime.min(latest),
            Self::All(only) => only,
        }
    }
}

/// What was archived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ArchiveStats {
    /// Entries, whiteouts included.
    pub entries: u64,
    /// Bytes of file contents.
    pub content_bytes: u64,
    /// Bytes of the archive.
    pub size_bytes: u64,
    /// Sockets, which no archive can hold and which were left out.
    pub sockets: u64,
}

/// Writes an overlay upper directory as the tar of an OCI layer.
///
/// `lowers` are the layers under it, top first, in the same form. A whiteout of something that none of them
/// shows is left out, and so is an opaque mark where they show no directory: overlayfs marks every directory
/// that it makes anew, and that must not reach an image.
pub fn diff(
    upper: &RootDir,
    lowers: &[RootDir],
    xattrs: OverlayXattrs,
    options: &ArchiveOptions<'_>,
    out: &mut dyn Write,
) -> Result<ArchiveStats, Error> {
    let lowers = Merged { layers: lowers, xattrs };
    in_one(out, |tar| diff_into(upper, lowers, options, tar))
}

/// The same, given to whoever takes entries, who has to end the archive.
pub(crate) fn diff_into(
    upper: &RootDir,
    lowers: Merged<'_>,
    options: &ArchiveOptions<'_>,
    out: &mut dyn Entries,
) -> Result<ArchiveStats, Error> {
    Archiver::new(out, options, Some(lowers)).run(&[(PathBuf::new(), upper)])
}

/// Writes a whole tree as one tar. No name and no kind of file has a special meaning.
pub fn export(
    root: &RootDir,
    options: &ArchiveOptions<'_>,
    out: &mut dyn Write,
) -> Result<ArchiveStats, Error> {
    export_all(&[(PathBuf::new(), root)], options, out)
}

/// Writes several trees as one tar, each below a directory of its own, or as they are where that is empty.
pub fn export_all(
    roots: &[(PathBuf, &RootDir)],
    options: &ArchiveOptions<'_>,
    out: &mut dyn Write,
) -> Result<ArchiveStats, Error> {
    in_one(out, |tar| Archiver::new(tar, options, None).run(roots))
}

/// Writes what is at a path as one tar, under another name: a directory with all that is in it, or anything else. A symbolic link at
/// its end is not followed.
pub fn export_as(
    root: &RootDir,
    path: &Path,
    name: &Path,
    options: &ArchiveOptions<'_>,
    out: &mut dyn Write,
) -> Result<ArchiveStats, Error> {
    let parent = root.parent(path)?;
    let stat =
        statat(&parent.dir, &parent.name, AtFlags::SYMLINK_NOFOLLOW).at("read the attributes of", path)?;
    let dir = parent.dir.as_fd();
    in_one(out, |tar| {
        let mut archiver = Archiver::new(tar, options, None);
        let place = Place { fd: dir, path: Path::new(""), depth: 0, hides: false };
        archiver.file(&place, &Subject { dir, name: &parent.name, path: name, stat: &stat })?;
        Ok(archiver.stats)
    })
}

/// Writes one archive.
fn in_one(
    out: &mut dyn Write,
    write: impl FnOnce(&mut dyn Entries) -> Result<ArchiveStats, Error>,
) -> Result<ArchiveStats, Error> {
    let mut tar = TarWriter::new(out);
    let stats = write(&mut tar)?;
    let size_bytes = tar.size_bytes() + 2 * BLOCK_BYTES as u64;
    tar.finish().map_err(|error| write_error(error, Path::new("/")))?;
    Ok(ArchiveStats { size_bytes, ..stats })
}

struct Archiver<'a> {
    out: &'a mut dyn Entries,
    options: &'a ArchiveOptions<'a>,
    /// The layers beneath, when whiteouts are to be understood.
    lowers: Option<Merged<'a>>,
    /// The first path of every inode that has several.
    first_names: HashMap<(u64, u64), Vec<u8>>,
    stats: ArchiveStats,
}

/// Something that becomes an entry, under the name it has in the archive.
struct Item {
    name: OsString,
    what: What,
}

enum What {
    File(Box<Stat>),
    Mark,
}

/// A directory being archived.
struct Place<'a> {
    fd: BorrowedFd<'a>,
    path: &'a Path,
    depth: usize,
    /// Whether an opaque directory above, or this one, hides all that is beneath anyway.
    hides: bool,
}

/// A file that becomes an entry.
struct Subject<'a> {
    dir: BorrowedFd<'a>,
    name: &'a OsStr,
    path: &'a Path,
    stat: &'a Stat,
}

impl Subject<'_> {
    fn open(&self, flags: OFlags) -> Result<OwnedFd, PathError> {
        let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(self.dir, self.name, flags, Mode::empty()).at("open", self.path)
    }
}

impl<'a> Archiver<'a> {
    fn new(out: &'a mut dyn Entries, options: &'a ArchiveOptions<'a>, lowers: Option<Merged<'a>>) -> Self {
        Self { out, options, lowers, first_names: HashMap::new(), stats: ArchiveStats::default() }
    }

    fn run(mut self, roots: &[(PathBuf, &RootDir)]) -> Result<ArchiveStats, Error> {
        for (path, root) in roots {
            let fd = root.open_dir("/")?;
            if !path.as_os_str().is_empty() {
                let stat = fstat(&fd).at("read the attributes of", path)?;
                let file = Subject { dir: fd.as_fd(), name: OsStr::new("."), path, stat: &stat };
                self.simple(&file, TarKind::Directory, &[])?;
            }
            self.directory(&Place { fd: fd.as_fd(), path, depth: 0, hides: false })?;
        }
        Ok(self.stats)
    }

    fn directory(&mut self, place: &Place<'_>) -> Result<(), Error> {
        if place.depth > TREE_DEPTH_MAX {
            return Err(Error::limit(place.path, "nested directories", TREE_DEPTH_MAX as u64));
        }
        let opaque = self.is_opaque(place)?;
        let place = Place { hides: place.hides || opaque, ..*place };
        for item in self.items(&place, opaque)? {
            self.check_cancel()?;
            let path = place.path.join(&item.name);
            match &item.what {
                What::Mark => self.mark(&path)?,
                What::File(stat) => {
                    let file = Subject { dir: place.fd, name: &item.name, path: &path, stat };
                    self.file(&place, &file)?;
                }
            }
        }
        Ok(())
    }

    /// Whether this directory hides one that the lower layers show. The root of a layer never does.
    fn is_opaque(&self, place: &Place<'_>) -> Result<bool, Error> {
        let Some(lowers) = self.lowers.filter(|_| place.depth > 0) else { return Ok(false) };
        let opaque =
            is_opaque(place.fd, OsStr::new("."), lowers.xattrs).at("read the attributes of", place.path)?;
        Ok(opaque && lowers.has_dir(place.path)?)
    }

    fn items(&self, place: &Place<'_>, opaque: bool) -> Result<Vec<Item>, Error> {
        let mut items = Vec::new();
        if opaque {
            items.push(Item { name: OPAQUE_NAME.into(), what: What::Mark });
        }
        for (name, _) in list(place.fd).at("list", place.path)? {
            items.extend(self.item(place, name)?);
        }
        items.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(items)
    }

    fn item(&self, place: &Place<'_>, name: OsString) -> Result<Option<Item>, Error> {
        let verb = "read the attributes of";
        let stat = statat(place.fd, &name, AtFlags::SYMLINK_NOFOLLOW).at_name(verb, place.path, &name)?;
        let Some(lowers) = self.lowers else {
            return Ok(Some(Item { name, what: What::File(Box::new(stat)) }));
        };
        if !is_whiteout(place.fd, &name, &stat, lowers.xattrs).at_name(verb, place.path, &name)? {
            return Ok(Some(Item { name, what: What::File(Box::new(stat)) }));
        }
        if place.hides || lowers.lookup(&place.path.join(&name))?.is_none() {
            return Ok(None);
        }
        let name = OsString::from_vec([WHITEOUT_PREFIX.as_bytes(), name.as_bytes()].concat());
        Ok(Some(Item { name, what: What::Mark }))
    }

    fn mark(&mut self, path: &Path) -> Result<(), Error> {
        self.stats.entries += 1;
        let taken = self.out.entry(&mark_entry(path.as_os_str().as_bytes()), 1);
        taken.map(drop).map_err(|error| write_error(error, path))
    }

    fn file(&mut self, place: &Place<'_>, file: &Subject<'_>) -> Result<(), Error> {
        let inode = (file.stat.st_dev, file.stat.st_ino);
        let kind = FileType::from_raw_mode(file.stat.st_mode);
        if !matches!(kind, FileType::Directory | FileType::Socket) && file.stat.st_nlink > 1 {
            if let Some(first) = self.first_names.get(&inode) {
                let target = first.clone();
                return self.simple(file, TarKind::HardLink { target: &target }, &[]);
            }
            self.first_names.insert(inode, file.path.as_os_str().as_bytes().to_vec());
        }
        let xattrs = self.attributes(file)?;
        match kind {
            FileType::Directory => {
                self.simple(file, TarKind::Directory, &xattrs)?;
                if !self.out.wants(file.path.as_os_str().as_bytes()) {
                    return Ok(());
                }
                let fd = file.open(OFlags::DIRECTORY)?;
                let (path, depth) = (file.path, place.depth + 1);
                self.directory(&Place { fd: fd.as_fd(), path, depth, hides: place.hides })
            }
            FileType::RegularFile => self.regular(file, &xattrs),
            FileType::Symlink => {
                let target = readlinkat(file.dir, file.name, Vec::new()).at("read the link", file.path)?;
                self.simple(file, TarKind::Symlink { target: target.to_bytes() }, &xattrs)
            }
            _ => self.special(file, kind, &xattrs),
        }
    }

    fn special(&mut self, file: &Subject<'_>, kind: FileType, xattrs: &[Attribute]) -> Result<(), Error> {
        let (major, minor) = (major(file.stat.st_rdev), minor(file.stat.st_rdev));
        let kind = match kind {
            FileType::CharacterDevice => TarKind::CharDevice { major, minor },
            FileType::BlockDevice => TarKind::BlockDevice { major, minor },
            FileType::Fifo => TarKind::Fifo,
            _ => {
                self.stats.sockets += 1;
                return Ok(());
            }
        };
        self.simple(file, kind, xattrs)
    }

    fn regular(&mut self, file: &Subject<'_>, xattrs: &[Attribute]) -> Result<(), Error> {
        let size_bytes = file.stat.st_size.unsigned_abs();
        let kind = TarKind::File { size_bytes };
        if size_bytes == 0 {
            return self.simple(file, kind, xattrs);
        }
        if self.put(file, kind, xattrs)? {
            let mut content = File::from(file.open(OFlags::NONBLOCK)?);
            self.out.content(&mut content, size_bytes).map_err(|error| write_error(error, file.path))?;
        }
        self.stats.content_bytes += size_bytes;
        Ok(())
    }

    fn simple(&mut self, file: &Subject<'_>, kind: TarKind<'_>, xattrs: &[Attribute]) -> Result<(), Error> {
        self.put(file, kind, xattrs).map(drop)
    }

    /// Gives an entry away; whether its content has to follow.
    fn put(&mut self, file: &Subject<'_>, kind: TarKind<'_>, xattrs: &[Attribute]) -> Result<bool, Error> {
        self.stats.entries += 1;
        let entry = self.entry_of(file, kind, xattrs);
        let names = if kind == TarKind::Directory { 1 } else { file.stat.st_nlink };
        self.out.entry(&entry, names).map_err(|error| write_error(error, file.path))
    }

    fn entry_of<'e>(&self, file: &Subject<'e>, kind: TarKind<'e>, xattrs: &'e [Attribute]) -> TarEntry<'e> {
        TarEntry {
            path: file.path.as_os_str().as_bytes(),
            kind,
            mode: file.stat.st_mode & 0o7777,
            uid: file.stat.st_uid,
            gid: file.stat.st_gid,
            mtime: self.options.mtimes.of(file.stat.st_mtime),
            xattrs,
        }
    }

    fn attributes(&self, file: &Subject<'_>) -> Result<Vec<Attribute>, Error> {
        let understands_marks = self.lowers.is_some();
        let wanted = |name: &[u8]| name == LAYER_ATTRIBUTE || (understands_marks && foreign(name).is_some());
        let found = xattr::read_all(file.dir, file.name, |name| wanted(name.to_bytes()));
        let found = found.at("read the attributes of", file.path)?;
        if let Some(attribute) = found.keys().find_map(|name| foreign(name.to_bytes())) {
            return Err(Error::ForeignOverlay { path: file.path.to_owned(), attribute });
        }
        Ok(found.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect())
    }

    fn check_cancel(&self) -> Result<(), Error> {
        match self.options.cancel {
            Some(cancel) if cancel.load(Ordering::Relaxed) => Err(Error::Cancelled),
            _ => Ok(()),
        }
    }
}

/// Attributes with which overlayfs says that the content or the children are elsewhere (`metacopy`,
/// `redirect_dir`).
fn foreign(name: &[u8]) -> Option<&'static str> {
    match name {
        b"trusted.overlay.redirect" => Some("trusted.overlay.redirect"),
        b"trusted.overlay.metacopy" => Some("trusted.overlay.metacopy"),
        b"user.overlay.redirect" => Some("user.overlay.redirect"),
        b"user.overlay.metacopy" => Some("user.overlay.metacopy"),
        _ => None,
    }
}

/// The empty file that is a whiteout or an opaque mark. When something was removed is nobody's business: the same
/// archive comes of a layer wherever it was unpacked.
pub(crate) const fn mark_entry(path: &[u8]) -> TarEntry<'_> {
    TarEntry { path, kind: TarKind::File { size_bytes: 0 }, mode: 0, uid: 0, gid: 0, mtime: 0, xattrs: &[] }
}

pub(crate) fn write_error(error: TarWriteError, path: &Path) -> Error {
    let read = |source| PathError { verb: "read", path: path.to_owned(), source };
    match error {
        TarWriteError::Write(source) => Error::Write(source),
        TarWriteError::Read(source) => Error::Path(read(source)),
        TarWriteError::ContentTooShort => Error::Shrank { path: PathBuf::from(path) },
        TarWriteError::NoMore => Error::Cancelled,
    }
}
