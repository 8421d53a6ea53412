//! What a build reads besides its context: the Dockerfile and the ignore rules.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rbuild_frontend::dockerignore;

use super::settings::Settings;
use crate::commands::io_failure;
use crate::report::{Failure, Kind};

/// Where a Dockerfile is looked for in a context, when none is named.
const DOCKERFILE_NAMES: [&str; 3] = ["Dockerfile", "dockerfile", "Containerfile"];
const IGNORE_FILE: &str = ".dockerignore";

/// A Dockerfile with its surroundings.
#[derive(Debug)]
pub(crate) struct Input {
    /// The build context, absolute.
    pub(crate) context: PathBuf,
    /// What the Dockerfile is called in messages: as the user would type it.
    pub(crate) dockerfile_name: String,
    /// The Dockerfile.
    pub(crate) dockerfile: Vec<u8>,
    /// The rules of what of the context is not seen.
    pub(crate) ignore: Vec<String>,
}

impl Input {
    /// The Dockerfile as text, for excerpts.
    pub(crate) fn dockerfile_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.dockerfile)
    }

    /// Reads them.
    ///
    /// # Errors
    /// When there is no context or no Dockerfile, or the ignore file is malformed.
    pub(crate) fn read(settings: &Settings) -> Result<Self, Failure> {
        let context = context(&settings.context)?;
        let path = match &settings.file {
            Some(file) => file.clone(),
            None => find_dockerfile(&context)?,
        };
        let dockerfile = fs::read(&path).map_err(|error| no_dockerfile(&path, &context, error))?;
        let ignore = ignore_rules(&path, &context)?;
        let dockerfile_name = path.strip_prefix(&context).unwrap_or(&path).display().to_string();
        Ok(Self { context, dockerfile_name, dockerfile, ignore })
    }
}

fn context(path: &Path) -> Result<PathBuf, Failure> {
    let absolute = fs::canonicalize(path).map_err(io_failure("open build context", path))?;
    if !absolute.is_dir() {
        let message = format!("build context `{}` is not a directory", path.display());
        return Err(Failure::new(Kind::Input, message));
    }
    Ok(absolute)
}

fn find_dockerfile(context: &Path) -> Result<PathBuf, Failure> {
    let found = DOCKERFILE_NAMES.iter().map(|name| context.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        Failure::new(Kind::Input, format!("there is no Dockerfile in `{}`", context.display()))
            .hint("-f FILE names a Dockerfile that is called otherwise or is elsewhere")
    })
}

fn no_dockerfile(path: &Path, context: &Path, error: std::io::Error) -> Failure {
    let inside = context.join(path);
    let failure = io_failure("read Dockerfile", path)(error);
    if path.is_relative() && inside.is_file() {
        return failure
            .hint(format!("-f is relative to the current directory: did you mean `{}`?", inside.display()));
    }
    failure
}

/// The rules beside the Dockerfile replace those of the context; the two are never merged.
fn ignore_rules(dockerfile: &Path, context: &Path) -> Result<Vec<String>, Failure> {
    let mut own = OsString::from(dockerfile.as_os_str());
    own.push(IGNORE_FILE);
    for path in [PathBuf::from(own), context.join(IGNORE_FILE)] {
        match fs::read(&path) {
            Ok(text) => return parse_rules(&path, &text),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(io_failure("read", &path)(error)),
        }
    }
    Ok(Vec::new())
}

fn parse_rules(path: &Path, text: &[u8]) -> Result<Vec<String>, Failure> {
    dockerignore::parse(text).map_err(|error| {
        Failure::caused_by(Kind::Input, &error).while_doing(&format!("failed to read `{}`", path.display()))
    })
}
