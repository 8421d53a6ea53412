//! What a layer holds, name by name: to be compared with a tree.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::file::{self, Looked};
use super::fold::{Facts, whiteout_digest};
use super::tree::{attributes_digest, facts};
use super::walk::{Dir, Walk};
use super::{Blake3, DigestOptions, Error, Selected, TreeOwner};
use crate::layer::OverlayXattrs;
use crate::root_dir::RootDir;
use crate::tree::{Inode, Kind};

/// A name in a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerEntry {
    facts: Facts,
    mtime_ns: i128,
    /// Of a regular file's content or a symlink's target.
    content: Option<Blake3>,
    xattrs: Option<Blake3>,
    /// Which file it is.
    pub(crate) inode: u64,
    /// How many names that has.
    pub(crate) names: u64,
}

/// The directories of a layer, by their paths, with what is in each.
#[derive(Debug, Default)]
pub(crate) struct LayerScan(pub(crate) Vec<(PathBuf, Vec<(OsString, LayerEntry)>)>);

/// Looks at all of a layer that is a directory; `None` if it hides something of what is below it.
pub(crate) fn scan_layer(
    layer: &RootDir,
    xattrs: OverlayXattrs,
    options: &DigestOptions<'_>,
) -> Result<Option<LayerScan>, Error> {
    options.pool.install(|| {
        let mut walk = Walk::new(layer, options, Some(xattrs));
        let selected = [Selected::tree(Path::new(""))];
        let tops = walk.run(&selected)?;
        let looked = file::look(&walk, &tops, &selected)?;
        let is_mark = |file: &Looked| file.digest == whiteout_digest();
        if walk.dirs.iter().any(|dir| dir.listing.opaque) || looked.in_dirs.iter().flatten().any(is_mark) {
            return Ok(None);
        }
        let mut scan = LayerScan(walk.dirs.iter().map(|dir| (dir.below.clone(), Vec::new())).collect());
        for ((dir, looked), (_, entries)) in walk.dirs.iter().zip(&looked.in_dirs).zip(&mut scan.0) {
            let files = dir.listing.files.iter().zip(looked);
            entries.extend(files.map(|(name, file)| (name.clone(), LayerEntry::of_file(file))));
        }
        for dir in &walk.dirs {
            let Some((parent, name)) = dir.parent.zip(dir.below.file_name()) else { continue };
            scan.0[parent].1.push((name.to_owned(), LayerEntry::of_directory(dir)));
        }
        Ok(Some(scan))
    })
}

impl LayerEntry {
    fn of_file(file: &Looked) -> Self {
        let Looked { stat, substance, .. } = file;
        Self {
            facts: Facts::of(stat, TreeOwner::Keep),
            mtime_ns: mtime_ns(stat.st_mtime, stat.st_mtime_nsec as u32),
            content: substance.content,
            xattrs: substance.xattrs,
            inode: stat.st_ino,
            names: stat.st_nlink,
        }
    }

    fn of_directory(dir: &Dir) -> Self {
        let stat = &dir.listing.stat;
        Self {
            facts: Facts::of(stat, TreeOwner::Keep),
            mtime_ns: mtime_ns(stat.st_mtime, stat.st_mtime_nsec as u32),
            content: None,
            xattrs: dir.listing.xattrs,
            inode: stat.st_ino,
            names: 1,
        }
    }

    /// Whether it is the same as in a tree, but perhaps for what is in it.
    pub(crate) fn is_like(&self, inode: &Inode) -> bool {
        let mtime = inode.attributes.mtime;
        facts(inode) == self.facts
            && mtime_ns(mtime.seconds, mtime.nanoseconds) == self.mtime_ns
            && attributes_digest(inode) == self.xattrs
    }

    /// Whether it holds the same as the file or link of a tree, by its digest; `None` if that is not known.
    pub(crate) fn holds_content_of(&self, inode: &Inode) -> Option<bool> {
        match &inode.kind {
            Kind::File(content) if content.size_bytes == 0 => Some(true),
            Kind::File(content) => content.digest.map(|digest| self.holds(digest)),
            Kind::Symlink(target) => Some(self.holds(*blake3::hash(target).as_bytes())),
            Kind::Directory(_) | Kind::Special(..) => Some(true),
        }
    }

    pub(crate) fn holds(&self, content: Blake3) -> bool {
        self.content == Some(content)
    }
}

fn mtime_ns(seconds: i64, nanoseconds: u32) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
}

impl LayerScan {
    /// Directories with what is in them.
    pub(crate) fn directories(
        &self,
    ) -> impl Iterator<Item = (&Path, impl Iterator<Item = (&OsStr, &LayerEntry)>)> {
        self.0.iter().map(|(path, entries)| {
            (path.as_path(), entries.iter().map(|(name, entry)| (name.as_os_str(), entry)))
        })
    }
}
