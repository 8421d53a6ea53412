//! What a stack of layer directories holds at a path, as overlayfs would show it, without mounting it.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, openat, statat};
use rustix::io::Errno;

use super::whiteout::{OverlayXattrs, is_opaque, is_whiteout};
use crate::root_dir::{At, PathError, RootDir};

/// Layer directories, the top one first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Merged<'a> {
    pub(crate) layers: &'a [RootDir],
    pub(crate) xattrs: OverlayXattrs,
}

/// A file that the stack shows.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) dir: OwnedFd,
    pub(crate) name: OsString,
    pub(crate) stat: Stat,
}

/// What one layer says about a path.
enum Look {
    Found(Box<Found>),
    /// Nothing here; the next layer decides.
    Beneath,
    /// Gone, whatever lower layers hold.
    Hidden,
}

impl Merged<'_> {
    /// The file at a path of plain names; symlinks are not followed, not even on the way.
    pub(crate) fn lookup(&self, path: &Path) -> Result<Option<Box<Found>>, PathError> {
        let names: Vec<&OsStr> = path.components().filter_map(plain_name).collect();
        for layer in self.layers {
            match self.look(layer.as_fd(), &names).at("look up", path)? {
                Look::Found(found) => return Ok(Some(found)),
                Look::Beneath => {}
                Look::Hidden => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Whether the stack shows a directory at the path. The root always is one.
    pub(crate) fn has_dir(&self, path: &Path) -> Result<bool, PathError> {
        let found = self.lookup(path)?;
        Ok(found.is_some_and(|found| FileType::from_raw_mode(found.stat.st_mode) == FileType::Directory))
    }

    fn look(&self, root: BorrowedFd<'_>, names: &[&OsStr]) -> Result<Look, Errno> {
        let mut dir = openat(root, ".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let mut opaque = false;
        for (depth, name) in names.iter().enumerate() {
            let stat = match statat(&dir, *name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => return Ok(if opaque { Look::Hidden } else { Look::Beneath }),
                stat => stat?,
            };
            if is_whiteout(dir.as_fd(), name, &stat, self.xattrs)? {
                return Ok(Look::Hidden);
            }
            if depth + 1 == names.len() {
                return Ok(Look::Found(Box::new(Found { dir, name: (*name).to_owned(), stat })));
            }
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                return Ok(Look::Hidden);
            }
            opaque |= is_opaque(dir.as_fd(), name, self.xattrs)?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            dir = openat(&dir, *name, flags, Mode::empty())?;
        }
        Ok(Look::Beneath)
    }
}

fn plain_name(component: Component<'_>) -> Option<&OsStr> {
    match component {
        Component::Normal(name) => Some(name),
        _ => None,
    }
}
