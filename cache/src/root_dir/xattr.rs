//! Extended attributes of a name in an open directory, never following a symlink.
//!
//! The calls that take a descriptor refuse `O_PATH` ones, and with them symlinks, fifos and devices. The
//! calls that take a path do not; `/proc/self/fd/<directory>/<name>` is such a path, fixed to the directory
//! by the kernel.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{XattrFlags, lgetxattr, lgetxattr_query, llistxattr, llistxattr_query, lsetxattr};
use rustix::io::Errno;

use super::proc_path;

/// Attributes and their values, sorted by name.
pub type Xattrs = BTreeMap<CString, Vec<u8>>;

/// How often a read is repeated because the attribute grew between asking its size and reading it.
const GROWTH_RETRIES_MAX: usize = 8;

/// All attributes of `name` in `dir` whose names `wanted` accepts. `.` is the directory itself.
///
/// A file system without attributes has none.
pub fn read_all(dir: BorrowedFd<'_>, name: &OsStr, wanted: impl Fn(&CStr) -> bool) -> Result<Xattrs, Errno> {
    let path = path_of(dir, name);
    let names = match names_of(&path) {
        Err(Errno::OPNOTSUPP) => return Ok(Xattrs::new()),
        names => names?,
    };
    let mut attributes = Xattrs::new();
    for name in
        names.split_inclusive(|byte| *byte == 0).filter_map(|name| CStr::from_bytes_with_nul(name).ok())
    {
        if !wanted(name) {
            continue;
        }
        match sized(|| lgetxattr_query(&path, name), |buffer| lgetxattr(&path, name, buffer)) {
            // Removed meanwhile.
            Err(Errno::NODATA) => {}
            value => drop(attributes.insert(name.to_owned(), value?)),
        }
    }
    Ok(attributes)
}

/// The value of one attribute; `None` when it is not set or the file system has no attributes.
pub fn read(dir: BorrowedFd<'_>, name: &OsStr, attribute: &CStr) -> Result<Option<Vec<u8>>, Errno> {
    let path = path_of(dir, name);
    match sized(|| lgetxattr_query(&path, attribute), |buffer| lgetxattr(&path, attribute, buffer)) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Sets one attribute of `name` in `dir`.
pub fn write(dir: BorrowedFd<'_>, name: &OsStr, attribute: &CStr, value: &[u8]) -> Result<(), Errno> {
    lsetxattr(path_of(dir, name), attribute, value, XattrFlags::empty())
}

/// The names of all attributes, each with its NUL. Nearly always few, so that one call will do.
fn names_of(path: &Path) -> Result<Vec<u8>, Errno> {
    let mut few = [0; 256];
    match llistxattr(path, &mut few) {
        Ok(count) => Ok(few[..count].to_vec()),
        Err(Errno::RANGE) => sized(|| llistxattr_query(path), |buffer| llistxattr(path, buffer)),
        Err(errno) => Err(errno),
    }
}

fn path_of(dir: BorrowedFd<'_>, name: &OsStr) -> PathBuf {
    proc_path(dir.as_fd()).join(name)
}

fn sized(
    query: impl Fn() -> Result<usize, Errno>,
    read: impl Fn(&mut [u8]) -> Result<usize, Errno>,
) -> Result<Vec<u8>, Errno> {
    for _ in 0..GROWTH_RETRIES_MAX {
        let mut buffer = vec![0; query()?];
        if buffer.is_empty() {
            return Ok(buffer);
        }
        match read(&mut buffer) {
            Ok(count) => {
                buffer.truncate(count);
                return Ok(buffer);
            }
            Err(Errno::RANGE) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::RANGE)
}
