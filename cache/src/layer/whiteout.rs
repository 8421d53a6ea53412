//! How a layer says "this is gone": in an archive by name, in an overlay directory by kind of file.
//!
//! | meaning | in a tar (OCI image specification, "Whiteouts") | in an overlayfs upper directory |
//! |---|---|---|
//! | `NAME` is removed | empty file `.wh.NAME` | character device 0/0, or an empty file with `overlay.whiteout` |
//! | all that lower layers hold in here is removed | empty file `.wh..wh..opq` | attribute `overlay.opaque` = `y` |
//!
//! The attributes live in the `trusted.` namespace, or in `user.` when the overlay is mounted with
//! `userxattr`, as it is inside a user namespace.

use std::ffi::{CStr, OsStr};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, Mode, OFlags, Stat, mknodat, openat};
use rustix::io::Errno;

use crate::root_dir::xattr;

/// What every name with a meaning starts with.
pub const WHITEOUT_PREFIX: &str = ".wh.";

/// The file that makes its directory opaque.
pub const OPAQUE_NAME: &str = ".wh..wh..opq";

/// The start of names that other engines use for themselves and that are never files of an image.
const RESERVED_PREFIX: &[u8] = b".wh..wh.";

/// Which attributes overlayfs keeps its marks in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverlayXattrs {
    /// `trusted.overlay.`: mounts made by root.
    Trusted,
    /// `user.overlay.`: mounts made with `userxattr`, in a user namespace.
    User,
}

/// What the last name of an archive's path says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark<'a> {
    /// The name of a file.
    Plain,
    /// This name is removed.
    Whiteout(&'a OsStr),
    /// The directory hides what lower layers hold.
    Opaque,
    /// Another engine's own; not part of the image.
    Reserved,
    /// A whiteout of nothing, of `.` or of `..`: no honest archive holds it.
    Invalid,
}

impl OverlayXattrs {
    /// The attribute that marks a directory as opaque.
    pub const fn opaque(self) -> &'static CStr {
        match self {
            Self::Trusted => c"trusted.overlay.opaque",
            Self::User => c"user.overlay.opaque",
        }
    }

    /// The attribute that makes an empty file a whiteout.
    pub const fn whiteout(self) -> &'static CStr {
        match self {
            Self::Trusted => c"trusted.overlay.whiteout",
            Self::User => c"user.overlay.whiteout",
        }
    }
}

/// Whether an attribute belongs to overlayfs, in either namespace. Such attributes never enter or leave a layer.
pub fn is_overlay_attribute(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// Whether an attribute says what a layer removes, in stores of root's: the marks that belong to a layer.
pub(crate) fn is_layer_mark(name: &[u8]) -> bool {
    [OverlayXattrs::Trusted.opaque(), OverlayXattrs::Trusted.whiteout()]
        .iter()
        .any(|mark| mark.to_bytes() == name)
}

/// Reads the last name of a path in an archive.
pub fn mark_of(name: &OsStr) -> Mark<'_> {
    let bytes = name.as_bytes();
    if bytes == OPAQUE_NAME.as_bytes() {
        return Mark::Opaque;
    }
    if bytes.starts_with(RESERVED_PREFIX) {
        return Mark::Reserved;
    }
    match bytes.strip_prefix(WHITEOUT_PREFIX.as_bytes()) {
        None => Mark::Plain,
        Some(b"" | b"." | b"..") => Mark::Invalid,
        Some(hidden) => Mark::Whiteout(OsStr::from_bytes(hidden)),
    }
}

/// Whether the attributes are those of a whiteout device.
pub fn is_whiteout_device(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Whether `name` in `dir`, whose attributes are given, is a whiteout in either form.
pub fn is_whiteout(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    stat: &Stat,
    xattrs: OverlayXattrs,
) -> Result<bool, Errno> {
    if is_whiteout_device(stat) {
        return Ok(true);
    }
    let may_carry = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_size == 0;
    Ok(may_carry && xattr::read(dir, name, xattrs.whiteout())?.is_some())
}

/// Whether the directory `name` in `dir` hides what lower layers hold in it.
pub fn is_opaque(dir: BorrowedFd<'_>, name: &OsStr, xattrs: OverlayXattrs) -> Result<bool, Errno> {
    Ok(xattr::read(dir, name, xattrs.opaque())?.as_deref() == Some(b"y"))
}

/// Makes the directory `name` in `dir` opaque.
pub fn make_opaque(dir: BorrowedFd<'_>, name: &OsStr, xattrs: OverlayXattrs) -> Result<(), Errno> {
    xattr::write(dir, name, xattrs.opaque(), b"y")
}

/// Makes a whiteout `name` in `dir`, where nothing of that name may exist.
///
/// The device needs no privilege since Linux 5.8. Where a sandbox filters `mknod`, the attribute form serves
/// (Linux 6.7); overlayfs looks for it only in directories marked with `x`.
pub fn make_whiteout(dir: BorrowedFd<'_>, name: &OsStr, xattrs: OverlayXattrs) -> Result<(), Errno> {
    match mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0) {
        Err(Errno::PERM | Errno::ACCESS) => make_whiteout_file(dir, name, xattrs),
        result => result,
    }
}

fn make_whiteout_file(dir: BorrowedFd<'_>, name: &OsStr, xattrs: OverlayXattrs) -> Result<(), Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    drop(openat(dir, name, flags, Mode::empty())?);
    xattr::write(dir, name, xattrs.whiteout(), b"y")?;
    let here = OsStr::new(".");
    match xattr::read(dir, here, xattrs.opaque())?.as_deref() {
        Some(b"y" | b"x") => Ok(()),
        _ => xattr::write(dir, here, xattrs.opaque(), b"x"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        let table = [
            ("a", Mark::Plain),
            (".wha", Mark::Plain),
            (".wh.a", Mark::Whiteout(OsStr::new("a"))),
            (".wh..wh.", Mark::Reserved),
            (".wh..wh.plnk", Mark::Reserved),
            (".wh..wh..opq", Mark::Opaque),
            (".wh..a", Mark::Whiteout(OsStr::new(".a"))),
            (".wh.", Mark::Invalid),
            (".wh..", Mark::Invalid),
            (".wh...", Mark::Invalid),
        ];
        for (name, mark) in table {
            assert_eq!(mark_of(OsStr::new(name)), mark, "{name}");
        }
    }
}
