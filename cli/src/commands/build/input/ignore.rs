//! `.dockerignore`, and the files that may take its place.

use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rbuild_frontend::dockerignore;

use super::dockerfile::Dockerfile;
use super::place::Place;
use crate::commands::build::settings::Settings;
use crate::commands::io_failure;
use crate::report::{Failure, Kind};

/// The name, and the one that is looked for where it is not there.
const IGNORE_FILES: [&str; 2] = [".dockerignore", ".containerignore"];

/// The rules of the main context. Only a directory has some: what comes from elsewhere was chosen there.
pub(super) fn rules(
    place: &Place,
    dockerfile: &Dockerfile,
    settings: &Settings,
) -> Result<Vec<String>, Failure> {
    match (place, &settings.ignore_file) {
        (Place::Directory(_), Some(file)) => {
            let text = fs::read(file).map_err(io_failure("read", file))?;
            parse(file, &text)
        }
        (Place::Directory(directory), None) => first_of(candidates(dockerfile.path.as_deref(), directory)),
        (Place::Archive(_) | Place::Remote { .. }, None) => Ok(Vec::new()),
        (Place::Archive(_) | Place::Remote { .. }, Some(_)) => {
            Err(Failure::new(Kind::Input, "--ignorefile is for a context that is a directory"))
        }
    }
}

/// The rules of a directory that is a named context.
pub(super) fn of_directory(directory: &Path) -> Result<Vec<String>, Failure> {
    first_of(candidates(None, directory))
}

/// Those beside the Dockerfile replace those of the context; the two are never merged.
fn candidates(dockerfile: Option<&Path>, directory: &Path) -> impl Iterator<Item = PathBuf> {
    IGNORE_FILES.into_iter().flat_map(move |name| {
        let beside = dockerfile.map(|dockerfile| {
            let mut own = OsString::from(dockerfile.as_os_str());
            own.push(name);
            PathBuf::from(own)
        });
        beside.into_iter().chain([directory.join(name)])
    })
}

fn first_of(paths: impl Iterator<Item = PathBuf>) -> Result<Vec<String>, Failure> {
    for path in paths {
        match read_regular(&path) {
            Ok(text) => return parse(&path, &text),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(io_failure("read", &path)(error)),
        }
    }
    Ok(Vec::new())
}

/// Never waits: nobody writes to a fifo that came with a context.
fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    match fs::metadata(path)?.is_file() {
        true => fs::read(path),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

fn parse(path: &Path, text: &[u8]) -> Result<Vec<String>, Failure> {
    dockerignore::parse(text).map_err(|error| {
        Failure::caused_by(Kind::Input, &error).while_doing(&format!("failed to read `{}`", path.display()))
    })
}
