//! What PATH names.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rbuild_cache::layer::compression::{self, Compression};
use rbuild_cache::layer::{ApplyOptions, Owners, apply, reader};
use rbuild_cache::root_dir::{FileType, RootDir};
use rbuild_cache::{ActiveSnapshot, Snapshot};
use rbuild_frontend::{CONTEXT_FILE, RemoteContext};
use rbuild_solver::local::LocalContext;
use rbuild_solver::local::file::SourceKind;

use super::Remote;
use crate::commands::build::settings::Settings;
use crate::commands::io_failure;
use crate::report::{Failure, Kind};

/// Standard input, in the place of a file.
pub(super) const STDIN: &str = "-";
/// What tells an archive: the first header of a tar, or the beginning of a compressed one.
const HEAD_BYTES: u64 = 1024;
/// The largest Dockerfile that is taken from standard input; the frontend has its own limit.
const DOCKERFILE_SIZE_BYTES_MAX: u64 = 64 << 20;

/// Where the main context is.
#[derive(Debug)]
pub(super) enum Place {
    /// A directory, absolute.
    Directory(PathBuf),
    /// What standard input held, unpacked; nothing where it was a Dockerfile.
    Archive(Archive),
    /// Somewhere on the network.
    Remote { context: RemoteContext, tree: RootDir },
}

/// Standard input, read.
#[derive(Debug)]
pub(super) struct Archive {
    /// The Dockerfile, if that is what it was.
    pub(super) dockerfile: Option<Vec<u8>>,
    pub(super) tree: LocalContext,
    pub(super) active: ActiveSnapshot,
}

impl Place {
    /// Finds it. A directory counts before an address that is written like it.
    pub(super) fn find(settings: &Settings, remote: &Remote<'_>) -> Result<Self, Failure> {
        let path = &settings.context;
        if path == Path::new(STDIN) {
            return Archive::read(settings, remote).map(Self::Archive);
        }
        let address = path.to_str().filter(|_| !path.is_dir());
        let context = address.map(|text| RemoteContext::main(text, settings.build_args())).transpose();
        let context = context.map_err(|error| Failure::caused_by(Kind::Input, &error))?;
        match context.flatten() {
            Some(context) => Self::fetch(context, remote),
            None => directory(path).map(Self::Directory),
        }
    }

    /// Fetches a context; a file that is an archive stands for what is in it.
    fn fetch(context: RemoteContext, remote: &Remote<'_>) -> Result<Self, Failure> {
        let tree = remote.open(&context)?;
        let RemoteContext::File(file) = context else { return Ok(Self::Remote { context, tree }) };
        let mut head = Vec::new();
        let read = |head: &mut Vec<u8>| -> io::Result<()> {
            let open = tree.open_file(CONTEXT_FILE, rbuild_cache::root_dir::OFlags::RDONLY);
            open.map_err(io::Error::other)?.take(HEAD_BYTES).read_to_end(head).map(drop)
        };
        read(&mut head).map_err(io_failure("read", Path::new(CONTEXT_FILE)))?;
        if !is_archive(&head) {
            return Ok(Self::Remote { context: RemoteContext::File(file), tree });
        }
        let context = RemoteContext::Archive(file);
        let tree = remote.open(&context)?;
        Ok(Self::Remote { context, tree })
    }
}

/// A directory that exists, as its absolute path.
pub(super) fn directory(path: &Path) -> Result<PathBuf, Failure> {
    let absolute = fs::canonicalize(path).map_err(io_failure("open build context", path))?;
    if !absolute.is_dir() {
        let message = format!("build context `{}` is not a directory", path.display());
        return Err(Failure::new(Kind::Input, message));
    }
    Ok(absolute)
}

/// As BuildKit tells it: by what a compressed stream begins with, or by a tar's first header.
fn is_archive(head: &[u8]) -> bool {
    compression::detect(head) != Compression::None || reader::starts_with_entries(head, 1)
}

impl Archive {
    fn read(settings: &Settings, remote: &Remote<'_>) -> Result<Self, Failure> {
        if settings.file.as_deref() == Some(Path::new(STDIN)) {
            let message = "standard input cannot be both the build context and the Dockerfile";
            return Err(Failure::new(Kind::Input, message));
        }
        let failed = || io_failure("read", Path::new("standard input"));
        let mut stdin = io::stdin();
        let mut head = Vec::new();
        stdin.by_ref().take(HEAD_BYTES).read_to_end(&mut head).map_err(failed())?;
        let active = remote.store()?.prepare(&Snapshot::empty())?;
        if is_archive(&head) {
            let tree = unpack(head.as_slice().chain(stdin), &active, remote)?;
            return Ok(Self { dockerfile: None, tree, active });
        }
        if settings.file.is_some() {
            let message = "standard input is a Dockerfile, and -f names another";
            return Err(Failure::new(Kind::Input, message));
        }
        stdin.take(DOCKERFILE_SIZE_BYTES_MAX).read_to_end(&mut head).map_err(failed())?;
        Ok(Self { dockerfile: Some(head), tree: LocalContext::directory(active.upper().to_owned()), active })
    }
}

fn unpack(
    archive: impl io::Read + Send,
    active: &ActiveSnapshot,
    remote: &Remote<'_>,
) -> Result<LocalContext, Failure> {
    let failed = |error| {
        Failure::caused_by(Kind::Input, &error)
            .while_doing("failed to unpack the context from standard input")
    };
    let root = RootDir::open(active.upper()).map_err(|error| failed(error.into()))?;
    let owners = if remote.single_id() { Owners::Squash } else { Owners::Keep };
    let options = ApplyOptions { owners, cancel: Some(remote.cancel()), ..ApplyOptions::literal() };
    let mut tar = compression::decompress(archive).map_err(failed)?;
    apply(&mut tar, &root, &options).map_err(failed)?;
    let time = newest_file(&root, Path::new("")).map_err(|error| failed(error.into()))?;
    Ok(LocalContext { path: active.upper().to_owned(), kind: SourceKind::Tree, time })
}

/// The time of the newest regular file below a directory.
fn newest_file(root: &RootDir, directory: &Path) -> Result<Option<i64>, rbuild_cache::root_dir::PathError> {
    let mut newest = None;
    for entry in root.read_dir(directory)? {
        let path = directory.join(&entry.name);
        newest = newest.max(match entry.kind {
            FileType::Directory => newest_file(root, &path)?,
            FileType::RegularFile => Some(root.lstat(&path)?.st_mtime),
            _ => None,
        });
    }
    Ok(newest)
}
