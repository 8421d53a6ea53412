//! Which file is the Dockerfile.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rbuild_cache::root_dir::RootDir;
use rbuild_frontend::{CONTEXT_FILE, RemoteContext};

use super::Remote;
use super::place::{Archive, Place, STDIN};
use crate::commands::build::settings::Settings;
use crate::commands::io_failure;
use crate::report::{Failure, Kind};

/// Where a Dockerfile is looked for in a context, when none is named.
const DOCKERFILE_NAMES: [&str; 3] = ["Dockerfile", "dockerfile", "Containerfile"];
/// Far more than the frontend reads.
const DOCKERFILE_SIZE_BYTES_MAX: u64 = 64 << 20;
const HINT: &str = "-f FILE names a Dockerfile that is called otherwise or is elsewhere";

/// A Dockerfile.
#[derive(Debug)]
pub(super) struct Dockerfile {
    /// What it is called in messages: as the user would type it.
    pub(super) name: String,
    pub(super) text: Vec<u8>,
    /// Where it is, if it is a file of this machine.
    pub(super) path: Option<PathBuf>,
}

impl Dockerfile {
    /// Finds it and reads it.
    pub(super) fn read(place: &Place, settings: &Settings, remote: &Remote<'_>) -> Result<Self, Failure> {
        let file = settings.file.as_deref();
        if file == Some(Path::new(STDIN)) {
            return Self::from_stdin();
        }
        if let Some(url) = file.and_then(Path::to_str).filter(|file| is_http(file)) {
            return Self::from_web(url, remote);
        }
        match place {
            Place::Directory(directory) => Self::in_directory(directory, file),
            Place::Archive(Archive { dockerfile: Some(text), .. }) => {
                Ok(Self { name: STDIN.to_owned(), text: text.clone(), path: None })
            }
            Place::Archive(Archive { tree, .. }) => {
                let root = RootDir::open(&tree.path).map_err(|error| unreadable(&error))?;
                Self::in_tree(&root, file)
            }
            // A context of one file that is no archive is its own Dockerfile.
            Place::Remote { context: RemoteContext::File(_), tree } => {
                Self::in_tree(tree, Some(Path::new(CONTEXT_FILE)))
            }
            Place::Remote { tree, .. } => Self::in_tree(tree, file),
        }
    }

    fn from_stdin() -> Result<Self, Failure> {
        let mut text = Vec::new();
        let read = io::stdin().take(DOCKERFILE_SIZE_BYTES_MAX).read_to_end(&mut text);
        read.map_err(io_failure("read Dockerfile", Path::new("standard input")))?;
        Ok(Self { name: STDIN.to_owned(), text, path: None })
    }

    fn from_web(url: &str, remote: &Remote<'_>) -> Result<Self, Failure> {
        let parsed = RemoteContext::main(url, &BTreeMap::new());
        match parsed.map_err(|error| Failure::caused_by(Kind::Input, &error))? {
            Some(file @ RemoteContext::File(_)) => {
                let name = rbuild_llb::without_credentials(url);
                let found = Self::in_tree(&remote.open(&file)?, Some(Path::new(CONTEXT_FILE)))?;
                Ok(Self { name, ..found })
            }
            _ => Err(Failure::new(Kind::Input, "-f takes a file, and no git repository")
                .hint("a repository can be the context, and -f a file in it")),
        }
    }

    /// A file of this machine; what -f says is relative to the current directory.
    fn in_directory(directory: &Path, file: Option<&Path>) -> Result<Self, Failure> {
        let path = match file {
            Some(file) => file.to_owned(),
            None => find(directory)?,
        };
        let text = fs::read(&path).map_err(|error| no_dockerfile(&path, directory, error))?;
        let name = path.strip_prefix(directory).unwrap_or(&path).display().to_string();
        Ok(Self { name, text, path: Some(path) })
    }

    /// A file of a context that is not the user's: what -f says is relative to that, and leads nowhere else.
    fn in_tree(root: &RootDir, file: Option<&Path>) -> Result<Self, Failure> {
        let names = file.map_or_else(|| DOCKERFILE_NAMES.map(Path::new).to_vec(), |file| vec![file]);
        for name in &names {
            match root.read(name, DOCKERFILE_SIZE_BYTES_MAX) {
                Ok(text) => return Ok(Self { name: name.display().to_string(), text, path: None }),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(unreadable(&error)),
            }
        }
        let message = format!("there is no {} in the build context", names[0].display());
        Err(Failure::new(Kind::Input, message).hint(HINT))
    }
}

fn is_http(file: &str) -> bool {
    file.starts_with("http://") || file.starts_with("https://")
}

fn find(context: &Path) -> Result<PathBuf, Failure> {
    let found = DOCKERFILE_NAMES.iter().map(|name| context.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        Failure::new(Kind::Input, format!("there is no Dockerfile in `{}`", context.display())).hint(HINT)
    })
}

fn unreadable(error: &rbuild_cache::root_dir::PathError) -> Failure {
    Failure::caused_by(Kind::Input, error).while_doing("failed to read Dockerfile")
}

fn no_dockerfile(path: &Path, context: &Path, error: io::Error) -> Failure {
    let inside = context.join(path);
    let failure = io_failure("read Dockerfile", path)(error);
    if path.is_relative() && inside.is_file() {
        return failure
            .hint(format!("-f is relative to the current directory: did you mean `{}`?", inside.display()));
    }
    failure
}
