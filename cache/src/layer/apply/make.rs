//! Making what an entry describes, and making room for it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, fchmod, fchown, linkat, mkdirat, mknodat, openat,
    statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::{Applier, Before, Devices, Form, Owners, Spot, path_in_root};
use crate::layer::bytes_path;
use crate::layer::error::{Error, Refusal};
use crate::layer::parents::{set_time, time_of};
use crate::layer::reader::{Entry, Kind, Part, TarReader};
use crate::layer::whiteout::{OverlayXattrs, is_whiteout, make_opaque, make_whiteout};
use crate::root_dir::{At, PathError, RootDir, list, xattr};

impl Applier<'_> {
    pub(super) fn file(
        &mut self,
        tar: &mut TarReader<impl BufRead>,
        entry: &Entry,
        spot: &Spot,
    ) -> Result<(), Error> {
        let file = File::from(self.make_anew(spot, false, || create_file(spot))?.1);
        write_content(tar, &entry.kind, &file, &spot.path)?;
        self.finish_fd(entry, spot, file.as_fd())?;
        set_time(spot.dir.as_fd(), &spot.name, entry.mtime).at("set the times of", &spot.path)?;
        Ok(())
    }

    pub(super) fn directory(&mut self, entry: &Entry, spot: &Spot) -> Result<(), Error> {
        let make = || match mkdirat(&spot.dir, &spot.name, Mode::RWXU) {
            Err(Errno::EXIST) if is_directory(spot) => Ok(Before::Directory),
            made => made.map(|()| Before::Nothing),
        };
        let (before, made) = self.make_anew(spot, true, make)?;
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

    pub(super) fn symlink(&mut self, entry: &Entry, spot: &Spot, target: &[u8]) -> Result<(), Error> {
        self.make_anew(spot, false, || symlinkat(bytes_path(target), &spot.dir, &spot.name))?;
        self.parents.forget();
        self.finish_name(entry, spot)
    }

    pub(super) fn hard_link(&mut self, spot: &Spot, target: &[u8]) -> Result<(), Error> {
        let target = path_in_root(target)?;
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
        self.make_anew(spot, false, || {
            linkat(&from.dir, &from.name, &spot.dir, &spot.name, AtFlags::empty())
        })?;
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

    pub(super) fn device(
        &mut self,
        entry: &Entry,
        spot: &Spot,
        kind: FileType,
        device: u64,
    ) -> Result<(), Error> {
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

    pub(super) fn node(
        &mut self,
        entry: &Entry,
        spot: &Spot,
        kind: FileType,
        device: u64,
    ) -> Result<(), Error> {
        self.make_anew(spot, false, || {
            mknodat(&spot.dir, &spot.name, kind, Mode::RUSR | Mode::WUSR, device)
        })?;
        self.finish_name(entry, spot)
    }

    pub(super) fn whiteout(&mut self, path: &Path, xattrs: OverlayXattrs) -> Result<(), Error> {
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

    pub(super) fn opaque(&mut self, path: &Path, xattrs: OverlayXattrs) -> Result<(), Error> {
        let above = path.parent().unwrap_or(Path::new(""));
        let place = self.parents.get(above)?;
        make_opaque(place.dir.as_fd(), OsStr::new("."), xattrs).at("mark", above)?;
        Ok(())
    }

    /// Removes a name of the tree, if it is there.
    pub(super) fn remove(&self, path: &Path) -> Result<(), Error> {
        Ok(self.target.remove_all(path)?)
    }

    /// Removes all that is in a directory of the tree.
    pub(super) fn empty(&self, path: &Path) -> Result<(), Error> {
        let fd = self.target.open_dir(path)?;
        for (name, _) in list(fd.as_fd()).at("list", path)? {
            self.remove(&path.join(name))?;
        }
        Ok(())
    }

    /// Makes something, a directory or not; when something else is in the way, removes that and tries again. Says what was there.
    fn make_anew<T>(
        &mut self,
        spot: &Spot,
        is_directory: bool,
        make: impl Fn() -> Result<T, Errno>,
    ) -> Result<(Before, T), Error> {
        match make() {
            Err(Errno::EXIST) => {}
            made => return Ok((Before::Nothing, made.at("create", &spot.path)?)),
        }
        let before = self.clear(spot, is_directory)?;
        Ok((before, make().at("create", &spot.path)?))
    }

    fn clear(&mut self, spot: &Spot, for_directory: bool) -> Result<Before, Error> {
        let look = || -> Result<Before, Errno> {
            let stat = statat(&spot.dir, &spot.name, AtFlags::SYMLINK_NOFOLLOW)?;
            let is_whiteout = match self.options.form {
                Form::Overlay(xattrs) => is_whiteout(spot.dir.as_fd(), &spot.name, &stat, xattrs)?,
                Form::Literal | Form::Removals | Form::Additions => false,
            };
            Ok(match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => Before::Directory,
                _ if is_whiteout => Before::Whiteout,
                _ => Before::Other,
            })
        };
        let before = look().at("read the attributes of", &spot.path)?;
        match (self.options.replaces, before, for_directory) {
            (false, Before::Directory, _) => {
                return Err(Error::refused(&spot.path, Refusal::OtherOverDirectory));
            }
            (false, _, true) => return Err(Error::refused(&spot.path, Refusal::DirectoryOverOther)),
            _ => {}
        }
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
