//! From an archive to a directory.
//!
//! What a stranger's archive may do: make files, directories, links and special files beneath one directory.
//! It never reaches anything else, because every path is resolved beneath that directory by descriptor, the
//! last name is never followed, and what is in the way of an entry is removed before, not written through.
//!
//! Order of work on each entry: make it new and private, fill it, then owner, then mode and extended
//! attributes (a change of owner clears set-id bits and file capabilities), then time. The times of
//! directories come last of all.
//!
//! * The entry of the root itself is ignored: its mode is not the image's (as Docker does).
//! * Leading slashes and `.` mean nothing, `..` is resolved in the text; where it would leave the root, the
//!   archive is refused.
//! * A later entry replaces an earlier one; only a directory on a directory keeps what is in it.
//! * Whiteouts speak of lower layers only. One for a name that this archive holds, too, hides just what is
//!   below that.
//! * Attributes other than `security.capability`, `user.*` and access lists are dropped, overlayfs's own
//!   always: they would let an archive redirect paths.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use rbuild_image::DiffId;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, chmod, chownat, fchmod, fchown, linkat, makedev,
    mkdirat, mknodat, openat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::archive::TREE_DEPTH_MAX;
use super::error::{Error, Refusal};
use super::parents::{Parents, set_time, time_of};
use super::read_ahead::read_ahead;
use super::reader::{Entry, Kind, Part, TarReader, Time};
use super::whiteout::{
    Mark, OverlayXattrs, is_overlay_attribute, is_whiteout, make_opaque, make_whiteout, mark_of,
};
use super::{LAYER_SIZE_BYTES_MAX, bytes_path};
use crate::root_dir::{At, PathError, RootDir, proc_path, xattr};

/// The longest name that Linux file systems take.
const NAME_BYTES_MAX: usize = 255;

/// How archives are applied.
#[derive(Debug, Clone, Copy)]
pub struct ApplyOptions<'a> {
    /// What whiteout names mean.
    pub form: Form,
    /// The layers beneath, top first, when they are known. Needed for hard links to their files; attributes
    /// of directories that the archive does not mention come from them.
    pub lowers: &'a [RootDir],
    /// Who owns what is made.
    pub owners: Owners,
    /// What becomes of devices that this process may not make.
    pub devices: Devices,
    /// How much is too much.
    pub limits: Limits,
    /// Ends the work when it becomes true.
    pub cancel: Option<&'a AtomicBool>,
}

/// What whiteout names in an archive mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The archive is a layer and the target an empty directory: whiteouts become overlayfs's.
    Overlay(OverlayXattrs),
    /// The archive is just an archive, as for `ADD`: every name is a file's.
    Literal,
}

/// Who owns what an archive's entries become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Whom the archive names.
    Keep,
    /// One owner for all.
    All {
        /// The owner.
        uid: u32,
        /// The owning group.
        gid: u32,
    },
    /// This process, which may not change owners: a user namespace with a single id.
    Squash,
}

/// What becomes of a device that this process may not make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Devices {
    /// An empty file in its place, as other rootless engines do.
    Placeholder,
    /// Nothing.
    Skip,
    /// The archive fails.
    Refuse,
}

/// What an archive may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries.
    pub entries: u64,
    /// Bytes of file contents, holes of sparse files included.
    pub content_bytes: u64,
    /// Names in a path.
    pub depth: usize,
    /// Bytes of extended attributes per entry.
    pub xattr_bytes: usize,
}

impl Default for Limits {
    /// More than any honest image needs: 20 million entries, [`LAYER_SIZE_BYTES_MAX`].
    fn default() -> Self {
        Self {
            entries: 20_000_000,
            content_bytes: LAYER_SIZE_BYTES_MAX,
            depth: TREE_DEPTH_MAX,
            xattr_bytes: 256 * 1024,
        }
    }
}

impl ApplyOptions<'_> {
    /// A layer into an empty upper directory, owners kept.
    pub fn layer(xattrs: OverlayXattrs) -> Self {
        Self::new(Form::Overlay(xattrs))
    }

    /// An archive for `ADD`, owners kept.
    pub fn literal() -> Self {
        Self::new(Form::Literal)
    }

    fn new(form: Form) -> Self {
        let (owners, devices) = (Owners::Keep, Devices::Placeholder);
        Self { form, lowers: &[], owners, devices, limits: Limits::default(), cancel: None }
    }
}

/// What was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The digest of the archive, all its bytes.
    pub diff_id: DiffId,
    /// Its size.
    pub size_bytes: u64,
    /// Entries.
    pub entries: u64,
    /// Bytes of file contents.
    pub content_bytes: u64,
    /// Directories that the archive put something into without describing them.
    pub implied: Vec<PathBuf>,
    /// Devices that could not be made.
    pub devices_replaced: Vec<PathBuf>,
    /// Extended attributes that the file system would not take.
    pub xattrs_refused: u64,
}

/// Applies a tar, already decompressed, to a directory.
///
/// On an error the directory is left as it is then; discarding it is up to the caller.
pub fn apply(
    tar: &mut (dyn Read + Send),
    target: &RootDir,
    options: &ApplyOptions<'_>,
) -> Result<Applied, Error> {
    let (applier, digest, size_bytes) = read_ahead(tar, |ahead| {
        let mut applier = Applier::new(target, options);
        applier.run(ahead)?;
        Ok(applier)
    })?;
    Ok(Applied {
        diff_id: DiffId(digest),
        size_bytes,
        entries: applier.entries,
        content_bytes: applier.content_bytes,
        implied: applier.parents.implied.into_iter().map(|implied| implied.path).collect(),
        devices_replaced: applier.devices_replaced,
        xattrs_refused: applier.xattrs_refused,
    })
}

struct Applier<'a> {
    options: &'a ApplyOptions<'a>,
    target: &'a RootDir,
    parents: Parents<'a>,
    /// Directories with the times they are to have, in the order of the archive.
    directory_times: Vec<(PathBuf, Time)>,
    entries: u64,
    content_bytes: u64,
    devices_replaced: Vec<PathBuf>,
    xattrs_refused: u64,
}

/// A directory and the name in it that an entry makes.
struct Spot {
    dir: Rc<OwnedFd>,
    name: OsString,
    /// The path for messages.
    path: PathBuf,
}

/// What was in the way of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Directory,
    Whiteout,
    Other,
}

impl<'a> Applier<'a> {
    fn new(target: &'a RootDir, options: &'a ApplyOptions<'a>) -> Self {
        let xattrs = match options.form {
            Form::Overlay(xattrs) => Some(xattrs),
            Form::Literal => None,
        };
        let parents = Parents::new(target, options.lowers, xattrs, options.owners != Owners::Squash);
        Self {
            options,
            target,
            parents,
            directory_times: Vec::new(),
            entries: 0,
            content_bytes: 0,
            devices_replaced: Vec::new(),
            xattrs_refused: 0,
        }
    }

    fn run(&mut self, input: impl BufRead) -> Result<(), Error> {
        let mut tar = TarReader::new(input);
        while let Some(entry) = tar.next_entry()? {
            if self.options.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed)) {
                return Err(Error::Cancelled);
            }
            self.entry(&mut tar, &entry)?;
        }
        self.set_directory_times()
    }

    fn entry(&mut self, tar: &mut TarReader<impl BufRead>, entry: &Entry) -> Result<(), Error> {
        let path = self.path_in_root(&entry.path)?;
        self.check_limits(entry, &path)?;
        let Some(name) = path.file_name() else {
            let is_dir = entry.kind == Kind::Directory;
            return if is_dir { Ok(()) } else { Err(Error::refused("/", Refusal::ReplacesRoot)) };
        };
        if let Form::Overlay(xattrs) = self.options.form {
            match mark_of(name) {
                Mark::Plain => {}
                Mark::Whiteout(hidden) => return self.whiteout(&path.with_file_name(hidden), xattrs),
                Mark::Opaque => return self.opaque(&path, xattrs),
                Mark::Reserved => return Ok(()),
                Mark::Invalid => return Err(Error::refused(&path, Refusal::WhiteoutOfNothing)),
            }
        }
        let spot = self.spot(&path)?;
        match &entry.kind {
            Kind::File { .. } => self.file(tar, entry, &spot),
            Kind::Directory => self.directory(entry, &spot),
            Kind::Symlink { target } => self.symlink(entry, &spot, target),
            Kind::HardLink { target } => self.hard_link(&spot, target),
            Kind::Device { block, major, minor } => {
                let kind = if *block { FileType::BlockDevice } else { FileType::CharacterDevice };
                self.device(entry, &spot, kind, makedev(*major, *minor))
            }
            Kind::Fifo => self.node(entry, &spot, FileType::Fifo, 0),
        }
    }

    /// A path as the archive means it: relative, of plain names.
    fn path_in_root(&self, written: &[u8]) -> Result<PathBuf, Error> {
        let written = bytes_path(written);
        let mut path = PathBuf::new();
        for component in written.components() {
            match component {
                Component::Normal(name) if name.len() > NAME_BYTES_MAX => {
                    return Err(Error::limit(written, "bytes in a name", NAME_BYTES_MAX as u64));
                }
                Component::Normal(name) => path.push(name),
                Component::ParentDir if !path.pop() => {
                    return Err(Error::refused(written, Refusal::LeadsOut));
                }
                _ => {}
            }
        }
        Ok(path)
    }

    fn check_limits(&mut self, entry: &Entry, path: &Path) -> Result<(), Error> {
        let limits = &self.options.limits;
        self.entries += 1;
        if self.entries > limits.entries {
            return Err(Error::limit(path, "entries", limits.entries));
        }
        if path.iter().count() > limits.depth {
            return Err(Error::limit(path, "names in a path", limits.depth as u64));
        }
        let xattr_bytes: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        if xattr_bytes > limits.xattr_bytes {
            return Err(Error::limit(path, "bytes of extended attributes", limits.xattr_bytes as u64));
        }
        if let Kind::File { size_bytes, .. } = entry.kind {
            self.content_bytes = self.content_bytes.saturating_add(size_bytes);
            if self.content_bytes > limits.content_bytes {
                return Err(Error::limit(path, "bytes of content", limits.content_bytes));
            }
        }
        Ok(())
    }

    fn spot(&mut self, path: &Path) -> Result<Spot, Error> {
        let (above, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
        let place = self.parents.get(above)?;
        Ok(Spot { dir: Rc::clone(&place.dir), name: name.to_owned(), path: place.path.join(name) })
    }
}

/// Making things.
impl Applier<'_> {
    fn file(&mut self, tar: &mut TarReader<impl BufRead>, entry: &Entry, spot: &Spot) -> Result<(), Error> {
        let file = File::from(self.make_anew(spot, || create_file(spot))?.1);
        write_content(tar, &entry.kind, &file, &spot.path)?;
        self.finish_fd(entry, spot, file.as_fd())?;
        set_time(spot.dir.as_fd(), &spot.name, entry.mtime).at("set the times of", &spot.path)?;
        Ok(())
    }

    fn directory(&mut self, entry: &Entry, spot: &Spot) -> Result<(), Error> {
        let make = || match mkdirat(&spot.dir, &spot.name, Mode::RWXU) {
            Err(Errno::EXIST) if is_directory(spot) => Ok(Before::Directory),
            made => made.map(|()| Before::Nothing),
        };
        let (before, made) = self.make_anew(spot, make)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = openat(&spot.dir, &spot.name, flags, Mode::empty()).at("open", &spot.path)?;
        if let (Before::Whiteout, Form::Overlay(xattrs)) = (before, self.options.form) {
            make_opaque(spot.dir.as_fd(), &spot.name, xattrs).at("mark", &spot.path)?;
        }
        self.finish_fd(entry, spot, dir.as_fd())?;
        if made == Before::Directory {
            self.parents.implied.retain(|implied| implied.path != spot.path);
        }
        self.directory_times.push((spot.path.clone(), entry.mtime));
        Ok(())
    }

    fn symlink(&mut self, entry: &Entry, spot: &Spot, target: &[u8]) -> Result<(), Error> {
        self.make_anew(spot, || symlinkat(bytes_path(target), &spot.dir, &spot.name))?;
        self.parents.forget();
        self.finish_name(entry, spot)
    }

    fn hard_link(&mut self, spot: &Spot, target: &[u8]) -> Result<(), Error> {
        let target = self.path_in_root(target)?;
        let refused = |reason| Error::refused(&spot.path, reason);
        if target.as_os_str().is_empty() {
            return Err(refused(Refusal::TargetIsDirectory));
        }
        let from = self.spot(&target)?;
        let stat = match statat(&from.dir, &from.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => self.copy_up(&from)?.ok_or(refused(Refusal::TargetMissing))?,
            stat => stat.at("read the attributes of", &from.path)?,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => return Err(refused(Refusal::TargetIsDirectory)),
            FileType::CharacterDevice if stat.st_rdev == 0 => return Err(refused(Refusal::TargetMissing)),
            _ => {}
        }
        if is_same_file(spot, &stat) {
            return Ok(());
        }
        self.make_anew(spot, || linkat(&from.dir, &from.name, &spot.dir, &spot.name, AtFlags::empty()))?;
        Ok(())
    }

    /// Copies a lower layer's file to where it would be in this one.
    fn copy_up(&self, spot: &Spot) -> Result<Option<Stat>, Error> {
        let Some(found) = self.parents.lower_file(&spot.path)? else { return Ok(None) };
        if FileType::from_raw_mode(found.stat.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut from =
            File::from(openat(&found.dir, &found.name, flags, Mode::empty()).at("open", &spot.path)?);
        let mut to = File::from(create_file(spot).at("create", &spot.path)?);
        io::copy(&mut from, &mut to).at("copy", &spot.path)?;
        let capability = c"security.capability";
        let value = xattr::read(found.dir.as_fd(), &found.name, capability)
            .at("read the attributes of", &spot.path)?;
        let copy = || {
            if self.options.owners != Owners::Squash {
                fchown(&to, Some(Uid::from_raw(found.stat.st_uid)), Some(Gid::from_raw(found.stat.st_gid)))?;
            }
            fchmod(&to, Mode::from_raw_mode(found.stat.st_mode & 0o7777))?;
            if let Some(value) = &value {
                xattr::write(spot.dir.as_fd(), &spot.name, capability, value)?;
            }
            set_time(spot.dir.as_fd(), &spot.name, time_of(&found.stat))?;
            statat(&spot.dir, &spot.name, AtFlags::SYMLINK_NOFOLLOW)
        };
        Ok(Some(copy().at("copy the attributes of", &spot.path)?))
    }

    fn device(&mut self, entry: &Entry, spot: &Spot, kind: FileType, device: u64) -> Result<(), Error> {
        let is_overlay = matches!(self.options.form, Form::Overlay(_));
        if is_overlay && kind == FileType::CharacterDevice && device == 0 {
            return Err(Error::refused(&spot.path, Refusal::WhiteoutDevice));
        }
        match self.node(entry, spot, kind, device) {
            Err(Error::Path(error)) if is_forbidden(&error) && self.options.devices != Devices::Refuse => {
                self.devices_replaced.push(spot.path.clone());
                match self.options.devices {
                    Devices::Placeholder => self.node(entry, spot, FileType::RegularFile, 0),
                    _ => Ok(()),
                }
            }
            made => made,
        }
    }

    fn node(&mut self, entry: &Entry, spot: &Spot, kind: FileType, device: u64) -> Result<(), Error> {
        self.make_anew(spot, || mknodat(&spot.dir, &spot.name, kind, Mode::RUSR | Mode::WUSR, device))?;
        self.finish_name(entry, spot)
    }

    fn whiteout(&mut self, path: &Path, xattrs: OverlayXattrs) -> Result<(), Error> {
        let spot = self.spot(path)?;
        let dir = spot.dir.as_fd();
        match make_whiteout(dir, &spot.name, xattrs) {
            // The archive holds this name as well: what is below it goes, what is in the archive stays.
            Err(Errno::EXIST) if is_directory(&spot) => make_opaque(dir, &spot.name, xattrs),
            Err(Errno::EXIST) => Ok(()),
            made => made,
        }
        .at("remove", &spot.path)?;
        Ok(())
    }

    fn opaque(&mut self, path: &Path, xattrs: OverlayXattrs) -> Result<(), Error> {
        let above = path.parent().unwrap_or(Path::new(""));
        let place = self.parents.get(above)?;
        make_opaque(place.dir.as_fd(), OsStr::new("."), xattrs).at("mark", above)?;
        Ok(())
    }

    /// Makes something; when something else is in the way, removes that and tries again. Says what was there.
    fn make_anew<T>(
        &mut self,
        spot: &Spot,
        make: impl Fn() -> Result<T, Errno>,
    ) -> Result<(Before, T), Error> {
        match make() {
            Err(Errno::EXIST) => {}
            made => return Ok((Before::Nothing, made.at("create", &spot.path)?)),
        }
        let before = self.clear(spot)?;
        Ok((before, make().at("create", &spot.path)?))
    }

    fn clear(&mut self, spot: &Spot) -> Result<Before, Error> {
        let look = || -> Result<Before, Errno> {
            let stat = statat(&spot.dir, &spot.name, AtFlags::SYMLINK_NOFOLLOW)?;
            let is_whiteout = match self.options.form {
                Form::Overlay(xattrs) => is_whiteout(spot.dir.as_fd(), &spot.name, &stat, xattrs)?,
                Form::Literal => false,
            };
            Ok(match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => Before::Directory,
                _ if is_whiteout => Before::Whiteout,
                _ => Before::Other,
            })
        };
        let before = look().at("read the attributes of", &spot.path)?;
        self.parents.forget();
        if before == Before::Directory {
            let parent =
                RootDir::from_fd(spot.dir.try_clone().at("duplicate the descriptor of", &spot.path)?);
            parent.remove_all(&spot.name)?;
        } else {
            unlinkat(&spot.dir, &spot.name, AtFlags::empty()).at("remove", &spot.path)?;
        }
        Ok(before)
    }
}

/// Owners, modes, attributes, times.
impl Applier<'_> {
    fn owner(&self, entry: &Entry) -> Option<(Uid, Gid)> {
        match self.options.owners {
            Owners::Keep => Some((Uid::from_raw(entry.uid), Gid::from_raw(entry.gid))),
            Owners::All { uid, gid } => Some((Uid::from_raw(uid), Gid::from_raw(gid))),
            Owners::Squash => None,
        }
    }

    /// All but the time, for what can be opened.
    fn finish_fd(&mut self, entry: &Entry, spot: &Spot, fd: BorrowedFd<'_>) -> Result<(), Error> {
        if let Some((uid, gid)) = self.owner(entry) {
            fchown(fd, Some(uid), Some(gid)).at("change the owner of", &spot.path)?;
        }
        fchmod(fd, Mode::from_raw_mode(entry.mode)).at("change the mode of", &spot.path)?;
        self.set_attributes(entry, spot)
    }

    /// The same and the time, for links and special files, which are reached by name and have just been made.
    fn finish_name(&mut self, entry: &Entry, spot: &Spot) -> Result<(), Error> {
        if let Some((uid, gid)) = self.owner(entry) {
            let result = chownat(&spot.dir, &spot.name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
            result.at("change the owner of", &spot.path)?;
        }
        if !matches!(entry.kind, Kind::Symlink { .. }) {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = openat(&spot.dir, &spot.name, flags, Mode::empty()).at("open", &spot.path)?;
            chmod(proc_path(&fd), Mode::from_raw_mode(entry.mode)).at("change the mode of", &spot.path)?;
        }
        self.set_attributes(entry, spot)?;
        set_time(spot.dir.as_fd(), &spot.name, entry.mtime).at("set the times of", &spot.path)?;
        Ok(())
    }

    fn set_attributes(&mut self, entry: &Entry, spot: &Spot) -> Result<(), Error> {
        for (name, value) in entry.xattrs.iter().filter(|(name, _)| is_welcome(name)) {
            let Ok(name) = CString::new(name.as_slice()) else {
                return Err(Error::refused(&spot.path, Refusal::NulByte));
            };
            match xattr::write(spot.dir.as_fd(), &spot.name, &name, value) {
                // The file system has none, or not for this kind of file, or not for this user.
                Err(
                    Errno::OPNOTSUPP
                    | Errno::PERM
                    | Errno::INVAL
                    | Errno::NOSPC
                    | Errno::TOOBIG
                    | Errno::RANGE,
                ) => {
                    self.xattrs_refused += 1;
                }
                result => result.at("set an attribute of", &spot.path)?,
            }
        }
        Ok(())
    }

    fn set_directory_times(&mut self) -> Result<(), Error> {
        let implied =
            self.parents.implied.iter().filter_map(|implied| Some((implied.path.clone(), implied.mtime?)));
        let times: Vec<_> = implied.chain(std::mem::take(&mut self.directory_times)).collect();
        for (path, time) in times {
            let stat = match self.target.lstat(&path) {
                // Replaced by a later entry.
                Err(error) if error.is_not_found() => continue,
                stat => stat?,
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                let dir = self.target.open_dir(&path)?;
                set_time(dir.as_fd(), OsStr::new("."), time).at("set the times of", &path)?;
            }
        }
        Ok(())
    }
}

fn create_file(spot: &Spot) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(&spot.dir, &spot.name, flags, Mode::RUSR | Mode::WUSR)
}

fn write_content(
    tar: &mut TarReader<impl BufRead>,
    kind: &Kind,
    file: &File,
    path: &Path,
) -> Result<(), Error> {
    let Kind::File { size_bytes, parts } = kind else { return Ok(()) };
    let dense = [Part { offset: 0, length: *size_bytes }];
    if parts.is_some() {
        file.set_len(*size_bytes).at("set the size of", path)?;
    }
    for part in parts.as_deref().unwrap_or(&dense) {
        let mut at = part.offset;
        tar.copy_content(part.length, |bytes| {
            file.write_all_at(bytes, at).at("write", path)?;
            at += bytes.len() as u64;
            Ok(())
        })?;
    }
    Ok(())
}

fn is_directory(spot: &Spot) -> bool {
    let stat = statat(&spot.dir, &spot.name, AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

fn is_same_file(spot: &Spot, other: &Stat) -> bool {
    let stat = statat(&spot.dir, &spot.name, AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| (stat.st_dev, stat.st_ino) == (other.st_dev, other.st_ino))
}

fn is_forbidden(error: &PathError) -> bool {
    error.verb == "create" && matches!(error.errno(), Some(Errno::PERM | Errno::ACCESS))
}

fn is_welcome(attribute: &[u8]) -> bool {
    let kept = attribute == b"security.capability"
        || attribute.starts_with(b"user.")
        || attribute.starts_with(b"system.posix_acl_");
    kept && !is_overlay_attribute(attribute)
}
