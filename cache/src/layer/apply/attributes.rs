//! Giving what was made its owner, mode, attributes and times.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, chmod, chownat, fchmod, fchown, openat};
use rustix::io::Errno;

use super::{Applier, Owners, Spot};
use crate::layer::error::{Error, Refusal};
use crate::layer::parents::set_time;
use crate::layer::reader::{Entry, Kind};
use crate::layer::whiteout::is_overlay_attribute;
use crate::root_dir::{At, proc_path, xattr};

impl Applier<'_> {
    fn owner(&self, entry: &Entry) -> Option<(Uid, Gid)> {
        match self.options.owners {
            Owners::Keep => Some((Uid::from_raw(entry.uid), Gid::from_raw(entry.gid))),
            Owners::All { uid, gid } => Some((Uid::from_raw(uid), Gid::from_raw(gid))),
            Owners::Squash => None,
        }
    }

    /// All but the time, for what can be opened.
    pub(super) fn finish_fd(&mut self, entry: &Entry, spot: &Spot, fd: BorrowedFd<'_>) -> Result<(), Error> {
        if let Some((uid, gid)) = self.owner(entry) {
            fchown(fd, Some(uid), Some(gid)).at("change the owner of", &spot.path)?;
        }
        fchmod(fd, Mode::from_raw_mode(entry.mode)).at("change the mode of", &spot.path)?;
        self.set_attributes(entry, spot)
    }

    /// The same and the time, for links and special files, which are reached by name and have just been made.
    pub(super) fn finish_name(&mut self, entry: &Entry, spot: &Spot) -> Result<(), Error> {
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

    pub(super) fn set_directory_times(&mut self) -> Result<(), Error> {
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

/// Whether an archive may give files this attribute.
pub(crate) fn is_welcome(attribute: &[u8]) -> bool {
    let kept = attribute == b"security.capability"
        || attribute.starts_with(b"user.")
        || attribute.starts_with(b"system.posix_acl_");
    kept && !is_overlay_attribute(attribute)
}
