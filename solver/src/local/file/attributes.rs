//! Owner, permission bits, capabilities and times: what a copy has besides its content.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, Gid, Mode, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chownat, fchmod, fchown,
    fgetxattr, fsetxattr, futimens, utimensat,
};
use rustix::io::Errno;

use super::chmod::{MODE_BITS, ModeChange};
use super::run::Run;
use super::{SourceKind, Warning};

const NANOSECONDS_PER_SECOND: i64 = 1_000_000_000;
/// The bits that a file is not made with: a change of owner or content may take some of them away again.
const SPECIAL_BITS: u32 = 0o7000;

/// The one extended attribute that a layer carries, and so the one that is worth copying.
pub(super) const CAPABILITY: &CStr = c"security.capability";
/// The kernel's `struct vfs_ns_cap_data` has 24 bytes.
const CAPABILITY_SIZE_BYTES_MAX: usize = 64;

/// An owner as numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// What the copies of one action get that the originals do not have.
#[derive(Debug)]
pub(super) struct Changes {
    pub(super) kind: SourceKind,
    pub(super) ids: Option<Ids>,
    pub(super) mode: Option<ModeChange>,
    pub(super) time: Option<Timespec>,
}

/// What one copy gets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes {
    pub(super) ids: Ids,
    pub(super) mode: u32,
    pub(super) time: Timespec,
}

/// How much of its attributes a new file or directory has by birth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Birth {
    /// Those of the process and of the call that made it: its directory hands down neither group nor access list.
    Plain,
    /// Nothing is certain.
    Unknown,
}

impl Changes {
    /// The attributes of the copy of something with the attributes `stat`.
    pub(super) fn attributes(&self, stat: &Stat) -> Attributes {
        let is_dir = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir();
        let original = match self.kind {
            SourceKind::Tree => Ids { uid: stat.st_uid, gid: stat.st_gid },
            SourceKind::Context => Ids::default(),
        };
        let mode = stat.st_mode & MODE_BITS;
        Attributes {
            ids: self.ids.unwrap_or(original),
            mode: self.mode.as_ref().map_or(mode, |change| change.apply(mode, is_dir)),
            time: self.time.unwrap_or(Timespec { tv_sec: stat.st_mtime, tv_nsec: nanoseconds(stat) }),
        }
    }
}

impl Attributes {
    /// Gives them to an open file that was made with [`Self::mode`], as far as it does not have them.
    pub(super) fn give_to_file(
        &self,
        run: &Run<'_>,
        file: BorrowedFd<'_>,
        birth: Birth,
    ) -> Result<(), Errno> {
        let given = birth == Birth::Plain;
        if !given || self.ids != run.own {
            changed_owner(file, self.ids, run.options.single_id)?;
        }
        if !given || self.mode & (SPECIAL_BITS | run.umask) != 0 {
            fchmod(file, Mode::from_raw_mode(self.mode))?;
        }
        Ok(())
    }

    /// Gives owner and mode to a directory.
    pub(super) fn give_to_dir(&self, run: &Run<'_>, dir: BorrowedFd<'_>, birth: Birth) -> Result<(), Errno> {
        if birth == Birth::Unknown || self.ids != run.own {
            changed_owner(dir, self.ids, run.options.single_id)?;
        }
        fchmod(dir, Mode::from_raw_mode(self.mode))
    }

    /// Gives owner, mode and time to what cannot be opened: a link, a device.
    pub(super) fn give_to_name(
        &self,
        run: &Run<'_>,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        is_link: bool,
    ) -> Result<(), Errno> {
        let (uid, gid) = (Uid::from_raw(self.ids.uid), Gid::from_raw(self.ids.gid));
        let owned = chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
        forgiven(owned, run.options.single_id)?;
        if !is_link {
            rustix::fs::chmodat(dir, name, Mode::from_raw_mode(self.mode), AtFlags::empty())?;
        }
        utimensat(dir, name, &modified_at(self.time), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Sets the time of an open file or directory. The last thing done to it.
    pub(super) fn give_time(&self, file: BorrowedFd<'_>) -> Result<(), Errno> {
        futimens(file, &modified_at(self.time))
    }
}

/// Copies the file capabilities, if there are any; that they cannot be set is a warning.
pub(super) fn copy_capabilities(
    run: &Run<'_>,
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    path: &Path,
) -> Result<(), Errno> {
    let mut value = [0; CAPABILITY_SIZE_BYTES_MAX];
    let size = match fgetxattr(from, CAPABILITY, &mut value) {
        Ok(size) => size,
        Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    if fsetxattr(to, CAPABILITY, &value[..size], XattrFlags::empty()).is_err() {
        run.warn(Warning::CapabilitiesLost { path: path.to_owned() });
    }
    Ok(())
}

/// Whether what is made in the directory has its attributes from the process alone.
pub(super) fn birth_in(dir: BorrowedFd<'_>) -> Result<Birth, Errno> {
    let hands_down_group = rustix::fs::fstat(dir)?.st_mode & 0o2000 != 0;
    let hands_down_access = || {
        let acl = fgetxattr(dir, c"system.posix_acl_default", &mut [] as &mut [u8]);
        acl.is_ok_and(|size| size > 0)
    };
    Ok(if hands_down_group || hands_down_access() { Birth::Unknown } else { Birth::Plain })
}

/// Sets the owner. With a single id the kernel refuses all others, which is then no error.
pub(super) fn changed_owner(file: impl AsFd, ids: Ids, single_id: bool) -> Result<(), Errno> {
    forgiven(fchown(file, Some(Uid::from_raw(ids.uid)), Some(Gid::from_raw(ids.gid))), single_id)
}

fn forgiven(owned: Result<(), Errno>, single_id: bool) -> Result<(), Errno> {
    match owned {
        Err(Errno::PERM | Errno::INVAL) if single_id => Ok(()),
        result => result,
    }
}

/// A modification time to set, the access time left alone.
pub(super) const fn modified_at(time: Timespec) -> Timestamps {
    Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification: time }
}

/// Unix nanoseconds, before 1970 as well.
pub(super) const fn timespec(nanoseconds: i64) -> Timespec {
    Timespec {
        tv_sec: nanoseconds.div_euclid(NANOSECONDS_PER_SECOND),
        tv_nsec: nanoseconds.rem_euclid(NANOSECONDS_PER_SECOND),
    }
}

fn nanoseconds(stat: &Stat) -> i64 {
    // The field's type differs between architectures; its values are below a billion.
    i64::try_from(stat.st_mtime_nsec).unwrap_or(0)
}
