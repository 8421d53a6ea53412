//! COPY and ADD: where each source goes.
//!
//! | source | destination | becomes |
//! |---|---|---|
//! | directory | missing, or a directory | its contents, in there; the directory itself gives nothing |
//! | directory | a file | an error |
//! | file | ends in `/`, or is a directory | a file of the source's name in there |
//! | file | a file, or a link to one | replaces it; the link stays |
//! | file | missing, or a link to nothing | that file; of several sources the last one wins; the link stays |
//! | archive (ADD) | anything but a file | its contents, in there |
//!
//! Missing directories are made, mode 0755 or what an octal `--chmod` leaves of it, and belong to `--chown`.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rbuild_cache::root_dir::{At, FileType, RootDir, SYMLINK_DEPTH_MAX, Stat};
use rbuild_llb::CopyAction;
use rbuild_llb::pattern::CopySelection;

use super::attributes::{Changes, timespec};
use super::chmod::ModeChange;
use super::content::{Buffer, Ladder};
use super::entry::Item;
use super::filter::Filter;
use super::graft::{self, Plan, When};
use super::run::{NewDir, Run, lock};
use super::source::{self, Found};
use super::tree::{Dest, Dir, Sealing, TreeCopy};
use super::unpack::Archive;
use super::{CopySource, Directories, FileError, Graft, Planned, SourceKind, Trees, Warning, owner};

/// The mode of a directory that is made on the way to a destination.
const NEW_DIR_MODE: u32 = 0o755;

pub(super) fn copy(
    run: &Run<'_>,
    action: &CopyAction,
    dest: &RootDir,
    trees: Trees<'_, '_>,
) -> Result<(), FileError> {
    let selection = CopySelection::new(action)?;
    let source = trees(action.from);
    let changes = Changes {
        kind: source.map_or(SourceKind::Tree, |source| source.kind),
        ids: action.owner.as_ref().map(|owner| owner::resolve(run, owner, trees)).transpose()?,
        mode: action.mode.as_ref().map(ModeChange::new).transpose()?,
        time: action.timestamp_ns.map(timespec),
    };
    let to = Destination { run, action, root: dest, changes: &changes };
    let Some(source) = source else { return to.take_nothing(&selection) };
    let found = source::find(&source, action, &selection)?;
    if found.is_empty() {
        return to.missing(&selection);
    }
    let alone = found.len() == 1;
    let copy = Copy { to, source: &source, selection: &selection, ladder: Ladder::new(), alone };
    found.iter().try_for_each(|found| copy.one(found))
}

/// Where an action puts what it copies, and how.
struct Destination<'a> {
    run: &'a Run<'a>,
    action: &'a CopyAction,
    root: &'a RootDir,
    changes: &'a Changes,
}

impl Destination<'_> {
    /// Copies from the empty tree: there is nothing but its root to be had.
    fn take_nothing(&self, selection: &CopySelection) -> Result<(), FileError> {
        if selection.glob.is_none() && selection.base.trim_matches('/').is_empty() {
            return self.make_dirs(self.wanted()).map(drop);
        }
        self.missing(selection)
    }

    /// What a copy of nothing is: a wildcard may match nothing, a name may not.
    fn missing(&self, selection: &CopySelection) -> Result<(), FileError> {
        let src = &self.action.src;
        if selection.glob.is_some() && self.action.allow_empty_wildcard {
            self.run.warn(Warning::NothingMatched { pattern: src.clone() });
            return Ok(());
        }
        Err(FileError::NotFound { path: src.clone(), ignored: false, similar: Vec::new() })
    }

    /// The destination without what says that it is a directory.
    fn wanted(&self) -> &Path {
        Path::new(self.action.dest.trim_end_matches("/.").trim_end_matches('/'))
    }

    fn make_dirs(&self, path: &Path) -> Result<OwnedFd, FileError> {
        let mode = self.changes.mode.as_ref().and_then(ModeChange::absolute);
        self.make_dirs_of_mode(path, mode.map_or(NEW_DIR_MODE, |mode| mode & NEW_DIR_MODE))
    }

    fn make_dirs_of_mode(&self, path: &Path, mode: u32) -> Result<OwnedFd, FileError> {
        let time = self.run.time(self.action.timestamp_ns);
        self.run.make_dirs(self.root, path, &NewDir { mode, ids: self.changes.ids.unwrap_or_default(), time })
    }
}

struct Copy<'a> {
    to: Destination<'a>,
    source: &'a CopySource<'a>,
    selection: &'a CopySelection,
    ladder: Ladder,
    /// Whether nothing else is copied.
    alone: bool,
}

/// A directory of the destination.
struct Place<'a> {
    into: &'a Dest,
    at: &'a Path,
}

impl Copy<'_> {
    fn one(&self, found: &Found) -> Result<(), FileError> {
        self.to.run.check_cancelled()?;
        if self.to.action.attempt_unpack && found.kind().is_file() && self.unpack(found)? {
            return Ok(());
        }
        self.make_way()?;
        match found.is_dir() {
            true if self.to.action.dir_copy_contents || self.to.action.parents => self.contents(found),
            true => self.directory(found),
            false => self.file(found),
        }
    }

    /// Unpacks the source if it is an archive. The destination is a directory then, however it is written, and `--chmod` is not
    /// for it.
    fn unpack(&self, found: &Found) -> Result<bool, FileError> {
        let archive = Archive::open(self.to.run, self.source.root, &found.path, self.to.changes)?;
        let Some(archive) = archive else { return Ok(false) };
        let into = self.to.make_dirs_of_mode(self.to.wanted(), NEW_DIR_MODE)?;
        match self.plan_archive(&archive, &into)? {
            Some(graft) => *lock(&self.to.run.graft) = Some(graft),
            None => archive.unpack(into)?,
        }
        Ok(true)
    }

    /// Unpacks an archive into a tree, if nothing is in its way, and it is worth it.
    fn plan_archive(&self, archive: &Archive<'_>, into: &OwnedFd) -> Result<Option<Graft>, FileError> {
        let Directories::Planned { files_min, layer } = self.to.run.options.directories else {
            return Ok(None);
        };
        if !self.alone || !archive.has_entries(files_min)? || !layer.can_be_tree() {
            return Ok(None);
        }
        let Some((tree, applied)) = archive.read(layer)? else { return Ok(None) };
        let top = RootDir::from_fd(into.try_clone().at("open", self.to.wanted())?);
        let is_implied = |path: &Path| applied.implied.iter().any(|implied| implied == path);
        if tree.tree().len() < 2 || !graft::fits(tree.tree(), &top, is_implied)? {
            return Ok(None);
        }
        archive.note(&applied);
        graft::touch(into.as_fd())?;
        Ok(Some(Graft::Unpacked { path: self.to.root.resolve(self.to.wanted())?, tree }))
    }

    /// Makes the directory that the destination is in or, where it is written as one, is.
    fn make_way(&self) -> Result<(), FileError> {
        let way = if is_written_as_dir(&self.to.action.dest) {
            self.to.wanted()
        } else {
            self.to.wanted().parent().unwrap_or(Path::new("/"))
        };
        if self.to.action.create_dest_path {
            self.to.make_dirs(way).map(drop)
        } else {
            Ok(self.to.root.stat(self.to.wanted().parent().unwrap_or(Path::new("/"))).map(drop)?)
        }
    }

    /// The contents of a directory, into a directory.
    fn contents(&self, found: &Found) -> Result<(), FileError> {
        let into = self.to.make_dirs(self.to.wanted())?;
        let into = Dest::existing(into, Sealing::Nothing).at("read the attributes of", self.to.wanted())?;
        self.tree(found, into, self.to.wanted())
    }

    /// A directory as a whole: below the destination if that exists, in its place otherwise.
    fn directory(&self, found: &Found) -> Result<(), FileError> {
        let target = self.target(found, |_| true)?;
        let (parent, name) = self.open_parent(&target)?;
        let copy = self.tree_copy(found, parent.fd.as_fd())?;
        let into = copy.make_dir(&parent, &name, &target, Sealing::Nothing)?;
        self.tree(found, into, &target)
    }

    /// What is in a directory, into the directory `at`.
    fn tree(&self, found: &Found, into: Dest, at: &Path) -> Result<(), FileError> {
        let copy = self.tree_copy(found, into.fd.as_fd())?;
        let source = || self.source.root.open_dir(&found.path);
        let only = match self.to.run.options.directories {
            _ if !self.alone => None,
            Directories::Copied => None,
            Directories::Planned { files_min, layer } => {
                let when = When { files_min, is_possible: &|| layer.can_be_tree() };
                if let Some(planned) = self.plan(found, &copy, &Place { into: &into, at }, &when)? {
                    self.to.run.count_many(planned.tree.len() as u64 - 1, planned.tree.size_bytes());
                    *lock(&self.to.run.graft) = Some(Graft::Planned(planned));
                    return Ok(());
                }
                None
            }
            Directories::Compared { files_min, compare } => {
                let when = When { files_min, is_possible: &|| true };
                let planned = self.plan(found, &copy, &Place { into: &into, at }, &when)?;
                planned.map_or(Ok(None), |planned| compare(&planned))?
            }
        };
        copy.limited_to(only.as_ref()).contents(source()?, into)
    }

    /// Plans the copy of a directory as a tree, if nothing is in its way, and it is worth it.
    fn plan(
        &self,
        found: &Found,
        copy: &TreeCopy<'_>,
        place: &Place<'_>,
        when: &When<'_>,
    ) -> Result<Option<Planned>, FileError> {
        let Place { into, at } = *place;
        let from = (self.source, found.path.as_path());
        let planned = graft::plan(self.to.run, self.to.changes, &copy.filter, from, when)?;
        let Some(Plan { tree, known, is_as_seen }) = planned else { return Ok(None) };
        let top = into.fd.try_clone().at("open", at)?;
        if !graft::fits(&tree, &RootDir::from_fd(top), |_| copy.filter.includes())? {
            return Ok(None);
        }
        graft::touch(into.fd.as_fd())?;
        let path = self.to.root.resolve(at)?;
        Ok(Some(Planned { path, tree, known, source: found.path.clone(), is_as_seen }))
    }

    /// Anything but a directory.
    fn file(&self, found: &Found) -> Result<(), FileError> {
        let target = self.target(found, FileType::is_dir)?;
        let (parent, dest_name) = self.open_parent(&target)?;
        let above = found.path.parent().unwrap_or(Path::new(""));
        let name = found.path.file_name().unwrap_or(OsStr::new("."));
        let copy = self.tree_copy(found, parent.fd.as_fd())?;
        let dir = Dir::holding(self.source.root.open_dir(above)?)?;
        let item = Item { dir: &dir, name, dest: &parent, dest_name: &dest_name, path: &target };
        copy.item(&item, found.kind(), &mut Buffer::new())
    }

    /// Where a source goes: below the destination if something is there that takes it in, otherwise to the destination.
    fn target(&self, found: &Found, takes_in: impl Fn(FileType) -> bool) -> Result<PathBuf, FileError> {
        let resolved = self.to.root.resolve(self.end_of_links()?)?;
        let below = self.kind_at(&resolved)?.is_some_and(takes_in);
        Ok(if below { resolved.join(&found.name) } else { resolved })
    }

    /// The destination; where that is a link, what it leads to, whose directory is made if it is missing. A link that leads to itself is
    /// left for the kernel to refuse.
    fn end_of_links(&self) -> Result<PathBuf, FileError> {
        let mut path = self.to.wanted().to_owned();
        for _ in 0..SYMLINK_DEPTH_MAX {
            let is_link = self.kind_at(&path)?.is_some_and(FileType::is_symlink);
            if !is_link || !self.to.action.create_dest_path {
                break;
            }
            // A slash at the end of a link's target is no wish for a directory.
            let target = self.to.root.read_link(&path)?;
            path = path.parent().unwrap_or(Path::new("/")).join(target).components().collect();
            self.to.make_dirs(path.parent().unwrap_or(Path::new("/")))?;
        }
        Ok(path)
    }

    fn kind_at(&self, path: &Path) -> Result<Option<FileType>, FileError> {
        match self.to.root.lstat(path) {
            Ok(Stat { st_mode, .. }) => Ok(Some(FileType::from_raw_mode(st_mode))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn open_parent(&self, target: &Path) -> Result<(Dest, OsString), FileError> {
        let above = target.parent().unwrap_or(Path::new(""));
        let name = target.file_name().unwrap_or(OsStr::new(".")).to_owned();
        let fd = self.to.root.open_dir(above)?;
        Ok((Dest::existing(fd, Sealing::Nothing).at("read the attributes of", above)?, name))
    }

    fn tree_copy(&self, found: &Found, top: std::os::fd::BorrowedFd<'_>) -> Result<TreeCopy<'_>, FileError> {
        let top = top.try_clone_to_owned().at("open", &self.to.action.dest)?;
        let filter = Filter::of(self.source, self.selection, &found.path);
        Ok(TreeCopy::new(self.to.run, self.to.changes, filter, &self.ladder, top)
            .replacing_all(self.to.action.always_replace))
    }
}

fn is_written_as_dir(dest: &str) -> bool {
    dest.is_empty() || dest == "." || dest.ends_with('/') || dest.ends_with("/.")
}
