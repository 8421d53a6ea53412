//! A directory in the form of a layer becomes a tree.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use rustix::io::Errno;

use super::{Attributes, Content, Entries, Inode, InodeId, Kind, Tree, erofs};
use crate::content_digest::Error as WalkError;
use crate::layer::TREE_DEPTH_MAX;
use crate::layer::whiteout::{is_layer_mark, is_overlay_attribute};
use crate::root_dir::{At as _, FileType, PathError, RootDir, list, xattr};
use crate::{Error, Result};

/// Takes in the content of a file.
pub(super) type Take<'a> = &'a mut dyn FnMut(&File) -> Result<Content, PathError>;

/// Reads a directory, all that is in it, and its marks.
pub(super) fn absorb(root: &RootDir, take: Take<'_>) -> Result<Tree> {
    let top = root.open_dir("/")?;
    let stat = fstat(&top).at("read the attributes of", "/")?;
    let attributes = attributes_of(top.as_fd(), ".".as_ref(), &stat).at("read the attributes of", "/")?;
    let mut absorber = Absorber { tree: Tree::new(attributes), take, links: HashMap::new() };
    absorber.directory(top.as_fd(), InodeId::ROOT, Path::new(""), 0)?;
    Ok(absorber.tree)
}

struct Absorber<'a> {
    tree: Tree,
    take: Take<'a>,
    /// Files with several names.
    links: HashMap<(u64, u64), InodeId>,
}

impl Absorber<'_> {
    fn directory(&mut self, dir: BorrowedFd<'_>, into: InodeId, path: &Path, depth: usize) -> Result<()> {
        if depth > TREE_DEPTH_MAX {
            return Err(Error::Walk(WalkError::TooDeep { path: path.to_owned() }));
        }
        for (name, kind) in list(dir).at("list", path)? {
            let at = path.join(&name);
            let stat = statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW).at("read the attributes of", &at)?;
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&inode) {
                self.tree.name(into, name, *first);
                continue;
            }
            let attributes = attributes_of(dir, &name, &stat).at("read the attributes of", &at)?;
            let open = |flags| openat(dir, &name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
            let kind = match kind {
                FileType::Directory => Kind::Directory(Entries::new()),
                FileType::RegularFile => {
                    Kind::File((self.take)(&open(OFlags::RDONLY).at("open", &at)?.into())?)
                }
                FileType::Symlink => {
                    Kind::Symlink(readlinkat(dir, &name, Vec::new()).at("read the link", &at)?.into_bytes())
                }
                kind => Kind::Special(kind, stat.st_rdev),
            };
            let is_directory = matches!(kind, Kind::Directory(_));
            let id = self.tree.add(Inode { attributes, kind });
            self.tree.name(into, name.clone(), id);
            if is_directory {
                self.directory(open(OFlags::DIRECTORY).at("open", &at)?.as_fd(), id, &at, depth + 1)?;
            } else if stat.st_nlink > 1 {
                self.links.insert(inode, id);
            }
        }
        Ok(())
    }
}

fn attributes_of(dir: BorrowedFd<'_>, name: &std::ffi::OsStr, stat: &Stat) -> Result<Attributes, Errno> {
    let wanted = |name: &std::ffi::CStr| {
        let bytes = name.to_bytes();
        erofs::can_hold(name) && (!is_overlay_attribute(bytes) || is_layer_mark(bytes))
    };
    Ok(Attributes { xattrs: xattr::read_all(dir, name, wanted)?, ..Attributes::of(stat) })
}
