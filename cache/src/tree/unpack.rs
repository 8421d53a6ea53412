//! From an archive to a tree: nothing is made but a pack, into which contents go as they come.
//!
//! What becomes of each entry is what becomes of it in a directory (`layer::apply`), which tests compare. Where a kernel that is asked to make
//! something would refuse, so does this; and it refuses what depends on files that are not the archive's: those are there in a directory only.

use std::collections::VecDeque;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::io::BufRead;
use std::path::{Component, Path, PathBuf};

use rustix::fs::makedev;
use rustix::io::Errno;

use super::grow::Packs;
use super::{Attributes, Entries, Inode, InodeId, Kind, Tree, erofs};
use crate::layer::reader::{Entry, Kind as EntryKind, TarReader, Time};
use crate::layer::whiteout::Mark;
use crate::layer::{
    ApplyOptions, Error, Form, NAME_BYTES_MAX, Owners, Refusal, Target, bytes_path, is_welcome, path_in_root,
};
use crate::root_dir::xattr::Xattrs;
use crate::root_dir::{FileType, PathError, SYMLINK_DEPTH_MAX};

/// The longest link target that Linux file systems take.
const LINK_BYTES_MAX: usize = 4095;
/// The mode of directories that an archive does not describe.
const IMPLIED_MODE: u32 = 0o755;
const LINK_MODE: u32 = 0o777;
/// The most that one attribute and all attributes of a file take in an image.
const XATTR_BYTES_MAX: usize = 65_535;
const XATTRS_BYTES_MAX: usize = 200 * 1024;

/// A tree in the making, of the archive of a layer.
#[derive(Debug)]
pub(crate) struct Planter<'a> {
    options: &'a ApplyOptions<'a>,
    packs: &'a Packs,
    /// The time of what the archive does not describe.
    now: Time,
    tree: Tree,
    implied: Vec<PathBuf>,
    directory_times: Vec<(PathBuf, Time)>,
    /// The directory of the last entry: archives list those of one in a row.
    last: Option<(PathBuf, Place)>,
}

/// A directory, and its path without symlinks.
#[derive(Debug, Clone)]
struct Place {
    id: InodeId,
    path: PathBuf,
}

/// A name in a directory.
struct Spot {
    directory: InodeId,
    name: OsString,
    /// The path for messages.
    path: PathBuf,
}

impl<'a> Planter<'a> {
    pub(crate) fn new(options: &'a ApplyOptions<'a>, packs: &'a Packs, now: Time) -> Self {
        let root = Attributes { mode: IMPLIED_MODE, mtime: now, ..Attributes::default() };
        Self {
            options,
            packs,
            now,
            tree: Tree::new(root),
            implied: Vec::new(),
            directory_times: Vec::new(),
            last: None,
        }
    }

    /// What was unpacked, and the directories that the archive put something into without describing them.
    pub(crate) fn finish(self) -> (Tree, Vec<PathBuf>) {
        (self.tree.pruned(), self.implied)
    }

    fn lookup(&self, spot: &Spot) -> Option<InodeId> {
        self.tree.entries(spot.directory)?.get(&spot.name).copied()
    }

    fn spot(&mut self, path: &Path) -> Result<Spot, Error> {
        let (above, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
        let place = self.place(above)?;
        let (directory, path) = (place.id, place.path.join(name));
        Ok(Spot { directory, name: name.to_owned(), path })
    }

    /// The directory at a path of plain names; what is missing is made.
    fn place(&mut self, path: &Path) -> Result<&Place, Error> {
        let place = match self.last.take() {
            Some((last, place)) if last == path => place,
            _ => self.resolve(path).map_err(|errno| failed("enter", path, errno))?,
        };
        Ok(&self.last.insert((path.to_owned(), place)).1)
    }

    fn resolve(&mut self, path: &Path) -> Result<Place, Errno> {
        let mut walk = Walk {
            at: vec![InodeId::ROOT],
            path: PathBuf::new(),
            pending: path.iter().map(OsStr::to_owned).collect(),
            links: 0,
        };
        while let Some(name) = walk.pending.pop_front() {
            self.step(&mut walk, name)?;
        }
        Ok(Place { id: walk.here(), path: walk.path })
    }

    fn step(&mut self, walk: &mut Walk, name: OsString) -> Result<(), Errno> {
        if name == ".." {
            walk.leave();
            return Ok(());
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let found = self.tree.entries(walk.here()).and_then(|entries| entries.get(&name)).copied();
        match found.map(|id| (id, &self.tree.inode(id).kind)) {
            Some((id, Kind::Directory(_))) => walk.enter(id, &name),
            Some((_, Kind::Symlink(target))) => walk.follow(bytes_path(target))?,
            Some((id, _)) if self.tree.inode(id).is_whiteout() => {
                let made = self.imply(walk, name)?;
                self.tree.hide_lower(made);
            }
            Some(_) => return Err(Errno::NOTDIR),
            None => drop(self.imply(walk, name)?),
        }
        Ok(())
    }

    /// Makes a directory that the archive has not described. Links lead deeper than any entry's own path may.
    fn imply(&mut self, walk: &mut Walk, name: OsString) -> Result<InodeId, Errno> {
        if walk.at.len() > self.options.limits.depth {
            return Err(Errno::NAMETOOLONG);
        }
        let attributes = Attributes { mode: IMPLIED_MODE, mtime: self.now, ..Attributes::default() };
        let id = self.tree.add(Inode { attributes, kind: Kind::Directory(Entries::new()) });
        self.tree.name(walk.here(), name.clone(), id);
        walk.enter(id, &name);
        self.implied.push(walk.path.clone());
        Ok(id)
    }

    /// Puts something new in the place of what has the name.
    fn put(&mut self, entry: &Entry, spot: &Spot, kind: Kind) -> Result<(), Error> {
        let attributes = self.attributes(entry, spot, &kind)?;
        let id = self.tree.add(Inode { attributes, kind });
        self.name(spot, id);
        Ok(())
    }

    fn name(&mut self, spot: &Spot, id: InodeId) {
        let before = self.lookup(spot);
        // A directory may be gone, or a link have come.
        if before.is_some() || matches!(self.tree.inode(id).kind, Kind::Symlink(_)) {
            self.last = None;
        }
        if let Some(before) = before {
            self.tree.clear(before);
        }
        self.tree.name(spot.directory, spot.name.clone(), id);
    }

    fn attributes(&self, entry: &Entry, spot: &Spot, kind: &Kind) -> Result<Attributes, Error> {
        let (uid, gid) = match self.options.owners {
            Owners::Keep => (entry.uid, entry.gid),
            Owners::All { uid, gid } => (uid, gid),
            Owners::Squash => (0, 0),
        };
        let mode = if matches!(kind, Kind::Symlink(_)) { LINK_MODE } else { entry.mode };
        Ok(Attributes { mode, uid, gid, mtime: entry.mtime, xattrs: xattrs(entry, spot, kind)? })
    }

    fn directory(&mut self, entry: &Entry, spot: &Spot) -> Result<(), Error> {
        let before = self.lookup(spot);
        let kind = Kind::Directory(Entries::new());
        match before.filter(|id| self.tree.entries(*id).is_some()) {
            Some(there) => {
                let mut attributes = self.attributes(entry, spot, &kind)?;
                let kept = &mut self.tree.inode_mut(there).attributes;
                kept.xattrs.append(&mut attributes.xattrs);
                *kept = Attributes { xattrs: std::mem::take(&mut kept.xattrs), ..attributes };
                self.implied.retain(|implied| *implied != spot.path);
            }
            // What is below that may be a directory, of which this would see nothing.
            None if before.is_some() && self.options.form == Form::Literal => {
                return Err(Error::refused(&spot.path, Refusal::DirectoryOverOther));
            }
            None => {
                let hides = before.is_some_and(|id| self.tree.inode(id).is_whiteout());
                self.put(entry, spot, kind)?;
                if let Some(made) = self.lookup(spot).filter(|_| hides) {
                    self.tree.hide_lower(made);
                }
            }
        }
        self.directory_times.push((spot.path.clone(), entry.mtime));
        Ok(())
    }

    fn symlink(&mut self, entry: &Entry, spot: &Spot, target: &[u8]) -> Result<(), Error> {
        let refused = match target.len() {
            0 => Some(Errno::NOENT),
            length if length > LINK_BYTES_MAX => Some(Errno::NAMETOOLONG),
            _ => None,
        };
        match refused {
            Some(errno) => Err(failed("create", &spot.path, errno)),
            None => self.put(entry, spot, Kind::Symlink(target.to_vec())),
        }
    }

    fn hard_link(&mut self, spot: &Spot, target: &[u8]) -> Result<(), Error> {
        let target = path_in_root(target)?;
        let refused = |reason| Error::refused(&spot.path, reason);
        if target.as_os_str().is_empty() {
            return Err(refused(Refusal::TargetIsDirectory));
        }
        let from = self.spot(&target)?;
        let id = self.lookup(&from).ok_or(refused(Refusal::TargetMissing))?;
        match self.tree.inode(id).kind {
            Kind::Directory(_) => return Err(refused(Refusal::TargetIsDirectory)),
            Kind::Special(FileType::CharacterDevice, 0) => return Err(refused(Refusal::TargetMissing)),
            _ => {}
        }
        if self.lookup(spot) != Some(id) {
            self.name(spot, id);
        }
        Ok(())
    }

    fn device(&mut self, entry: &Entry, spot: &Spot, kind: FileType, device: u64) -> Result<(), Error> {
        if kind == FileType::CharacterDevice && device == 0 {
            return Err(Error::refused(&spot.path, Refusal::WhiteoutDevice));
        }
        self.put(entry, spot, Kind::Special(kind, device))
    }

    fn whiteout(&mut self, path: &Path) -> Result<(), Error> {
        let spot = self.spot(path)?;
        match self.lookup(&spot) {
            // The archive holds this name as well: what is below it goes, what is in the archive stays.
            Some(there) if self.tree.entries(there).is_some() => self.tree.hide_lower(there),
            Some(_) => {}
            None => {
                let attributes = Attributes { mtime: self.now, ..Attributes::default() };
                let kind = Kind::Special(FileType::CharacterDevice, 0);
                let id = self.tree.add(Inode { attributes, kind });
                self.tree.name(spot.directory, spot.name, id);
            }
        }
        Ok(())
    }
}

impl Target for Planter<'_> {
    fn make(&mut self, tar: &mut TarReader<impl BufRead>, entry: &Entry, path: &Path) -> Result<(), Error> {
        let spot = self.spot(path)?;
        match &entry.kind {
            EntryKind::File { size_bytes, parts } => {
                let content = self.packs.take_entry(tar, *size_bytes, parts.as_deref())?;
                self.put(entry, &spot, Kind::File(content))
            }
            EntryKind::Directory => self.directory(entry, &spot),
            EntryKind::Symlink { target } => self.symlink(entry, &spot, target),
            EntryKind::HardLink { target } => self.hard_link(&spot, target),
            EntryKind::Device { block, major, minor } => {
                let kind = if *block { FileType::BlockDevice } else { FileType::CharacterDevice };
                self.device(entry, &spot, kind, makedev(*major, *minor))
            }
            EntryKind::Fifo => self.put(entry, &spot, Kind::Special(FileType::Fifo, 0)),
        }
    }

    fn mark(&mut self, mark: Mark<'_>, path: &Path) -> Result<(), Error> {
        match mark {
            Mark::Whiteout(hidden) => self.whiteout(&path.with_file_name(hidden)),
            Mark::Opaque => {
                let directory = self.place(path.parent().unwrap_or(Path::new("")))?.id;
                self.tree.hide_lower(directory);
                Ok(())
            }
            Mark::Plain | Mark::Reserved | Mark::Invalid => Ok(()),
        }
    }

    fn end(&mut self) -> Result<(), Error> {
        for (path, time) in std::mem::take(&mut self.directory_times) {
            // One that was replaced by a later entry has the time of that.
            if let Some(directory) = self.tree.directory_at(&path) {
                self.tree.inode_mut(directory).attributes.mtime = time;
            }
        }
        Ok(())
    }
}

struct Walk {
    /// The directories from the root to here.
    at: Vec<InodeId>,
    path: PathBuf,
    pending: VecDeque<OsString>,
    links: usize,
}

impl Walk {
    fn here(&self) -> InodeId {
        self.at.last().copied().unwrap_or(InodeId::ROOT)
    }

    fn enter(&mut self, id: InodeId, name: &OsStr) {
        self.at.push(id);
        self.path.push(name);
    }

    fn leave(&mut self) {
        if self.path.pop() {
            self.at.pop();
        }
    }

    fn follow(&mut self, target: &Path) -> Result<(), Errno> {
        self.links += 1;
        if self.links > SYMLINK_DEPTH_MAX {
            return Err(Errno::LOOP);
        }
        if target.is_absolute() {
            self.at.truncate(1);
            self.path.clear();
        }
        let names = target.components().filter_map(|component| match component {
            Component::Normal(_) | Component::ParentDir => Some(component.as_os_str().to_owned()),
            _ => None,
        });
        self.pending = names.chain(self.pending.drain(..)).collect();
        Ok(())
    }
}

fn failed(verb: &'static str, path: &Path, errno: Errno) -> Error {
    PathError { verb, path: path.to_owned(), source: errno.into() }.into()
}

/// What a file is given of an entry's attributes.
fn xattrs(entry: &Entry, spot: &Spot, kind: &Kind) -> Result<Xattrs, Error> {
    let (mut xattrs, mut size_bytes) = (Xattrs::new(), 0);
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| is_welcome(name)) {
        let Ok(name) = CString::new(name.as_slice()) else {
            return Err(Error::refused(&spot.path, Refusal::NulByte));
        };
        size_bytes += name.as_bytes().len() + value.len();
        let accepted = accepted(&name, value, kind).filter(|_| size_bytes <= XATTRS_BYTES_MAX);
        xattrs.extend(accepted.map(|value| (name, value)));
    }
    Ok(xattrs)
}

/// The value that a file is given of an attribute; `None` where a file system would take none.
fn accepted(name: &CStr, value: &[u8], kind: &Kind) -> Option<Vec<u8>> {
    let bytes = name.to_bytes();
    if bytes.len() > NAME_BYTES_MAX || value.len() > XATTR_BYTES_MAX || !erofs::can_hold(name) {
        return None;
    }
    let is_plain = matches!(kind, Kind::File(_) | Kind::Directory(_));
    match bytes {
        b"security.capability" => capability(value),
        _ if !is_plain => None,
        _ => Some(value.to_vec()),
    }
}

/// File capabilities as the kernel keeps them: of its second form, or of its third, which names the root of a user namespace.
fn capability(value: &[u8]) -> Option<Vec<u8>> {
    const REVISION: usize = 3;
    match (value.len(), value.get(REVISION)?) {
        (20, 2) => Some(value.to_vec()),
        // Of this namespace's root, it is one of the second form.
        (24, 3) if value[20..] == [0; 4] => {
            let mut second = value[..20].to_vec();
            second[REVISION] = 2;
            Some(second)
        }
        (24, 3) => Some(value.to_vec()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
