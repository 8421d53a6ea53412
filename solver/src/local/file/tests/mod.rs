//! One test for each rule, on trees in temporary directories.

mod copy;
mod filters;
mod kernel;
mod others;
mod planned;
mod unpack;
mod wildcards;

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use rbuild_cache::root_dir::RootDir;
use rbuild_llb::pattern::Patterns;
use rbuild_llb::{CopyAction, FileAction, FileInput, InputIndex};
use tempfile::TempDir;

use super::{CopySource, Directories, FileError, FileOptions, SourceKind, Stats, apply};

/// The time of all builds here.
const NOW_NS: i64 = 1_700_000_000_123_456_789;

/// A source, a destination, and what is done between them.
struct Bed {
    from: TempDir,
    to: TempDir,
    kind: SourceKind,
    ignore: Option<Patterns>,
    single_id: bool,
    cancel: AtomicBool,
}

impl Bed {
    /// A source with these entries: `a/b=content`, `dir/`, `link->target`, each with `:mode` if need be.
    fn new(source: &[&str]) -> Self {
        let bed = Self {
            from: tempfile::tempdir().unwrap(),
            to: tempfile::tempdir().unwrap(),
            kind: SourceKind::Context,
            ignore: None,
            single_id: !is_root(),
            cancel: AtomicBool::new(false),
        };
        make(bed.from.path(), source);
        bed
    }

    fn with_dest(self, entries: &[&str]) -> Self {
        make(self.to.path(), entries);
        self
    }

    fn ignoring(self, lines: &[&str]) -> Self {
        Self { ignore: Some(Patterns::new(lines).unwrap()), ..self }
    }

    fn of_kind(self, kind: SourceKind) -> Self {
        Self { kind, ..self }
    }

    fn apply(&self, action: &FileAction) -> Result<Stats, FileError> {
        let (from, to) = (RootDir::open(self.from.path()).unwrap(), RootDir::open(self.to.path()).unwrap());
        let source = CopySource { root: &from, kind: self.kind, exclude: self.ignore.as_ref(), layers: None };
        let dest = CopySource { root: &to, kind: SourceKind::Tree, exclude: None, layers: None };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let options = FileOptions {
            now_ns: NOW_NS,
            cancel: &self.cancel,
            progress: &|_| {},
            pool: &pool,
            directories: Directories::Copied,
            known: None,
            single_id: self.single_id,
        };
        let trees = |input| match input {
            FileInput::Scratch => None,
            FileInput::Input(InputIndex(0)) => Some(dest),
            _ => Some(source),
        };
        apply(action, &to, &trees, &options)
    }

    fn copy(&self, src: &str, dest: &str) -> Result<Stats, FileError> {
        self.copy_with(src, dest, |_| {})
    }

    fn copy_with(&self, src: &str, dest: &str, change: impl Fn(&mut CopyAction)) -> Result<Stats, FileError> {
        let mut action = copy_action(src, dest);
        change(&mut action);
        self.apply(&FileAction::Copy(action))
    }

    fn dump(&self) -> String {
        dump(self.to.path())
    }

    fn dest(&self, path: &str) -> PathBuf {
        self.to.path().join(path)
    }

    fn source(&self, path: &str) -> PathBuf {
        self.from.path().join(path)
    }
}

/// What a frontend makes of `COPY src dest`.
fn copy_action(src: &str, dest: &str) -> CopyAction {
    CopyAction {
        allow_wildcard: true,
        allow_empty_wildcard: true,
        ..CopyAction::new(FileInput::Input(InputIndex(1)), src, dest)
    }
}

fn make(root: &Path, entries: &[&str]) {
    for entry in entries {
        let (entry, mode) = match entry.rsplit_once(':') {
            Some((entry, mode)) => (entry, Some(u32::from_str_radix(mode, 8).unwrap())),
            None => (*entry, None),
        };
        let (name, default) = make_one(root, entry);
        if let Some(default) = default {
            let permissions = fs::Permissions::from_mode(mode.unwrap_or(default));
            fs::set_permissions(root.join(name), permissions).unwrap();
        }
    }
}

fn make_one<'a>(root: &Path, entry: &'a str) -> (&'a str, Option<u32>) {
    let prepare = |name: &str| {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    if let Some((name, target)) = entry.split_once("->") {
        std::os::unix::fs::symlink(target, prepare(name)).unwrap();
        (name, None)
    } else if let Some((name, content)) = entry.split_once('=') {
        fs::write(prepare(name), content).unwrap();
        (name, Some(0o644))
    } else {
        fs::create_dir_all(root.join(entry)).unwrap();
        (entry, Some(0o755))
    }
}

/// A tree as lines, sorted by path: kind, mode, path, content.
fn dump(root: &Path) -> String {
    let mut text = String::new();
    dump_below(root, Path::new(""), &mut text);
    text
}

fn dump_below(root: &Path, below: &Path, text: &mut String) {
    let mut names: Vec<_> =
        fs::read_dir(root.join(below)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    for name in names {
        let path = below.join(name);
        let metadata = fs::symlink_metadata(root.join(&path)).unwrap();
        let (mode, shown) = (metadata.mode() & 0o7777, path.display());
        if metadata.is_dir() {
            writeln!(text, "{mode:04o} {shown}/").unwrap();
            dump_below(root, &path, text);
        } else if metadata.is_symlink() {
            writeln!(text, "{shown} -> {}", fs::read_link(root.join(&path)).unwrap().display()).unwrap();
        } else if metadata.is_file() {
            let content = fs::read(root.join(&path)).unwrap();
            writeln!(text, "{mode:04o} {shown} = {}", String::from_utf8_lossy(&content)).unwrap();
        } else {
            writeln!(text, "{mode:04o} {shown} special {:x}", metadata.rdev()).unwrap();
        }
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[track_caller]
fn lines(bed: &Bed, expected: &[&str]) {
    assert_eq!(bed.dump().lines().collect::<Vec<_>>(), expected);
}
