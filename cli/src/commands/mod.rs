//! The commands, one file each. A command turns its arguments into calls of the libraries and prints what they give.

pub(crate) mod build;
pub(crate) mod builds;
pub(crate) mod cache;
pub(crate) mod cache_mount;
pub(crate) mod completion;
pub(crate) mod container;
pub(crate) mod debug;
pub(crate) mod doctor;
pub(crate) mod du;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod filter;
pub(crate) mod history;
pub(crate) mod image;
pub(crate) mod images;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod load;
pub(crate) mod login;
pub(crate) mod manifest;
pub(crate) mod network;
pub(crate) mod prune;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod rmi;
pub(crate) mod save;
pub(crate) mod search;
pub(crate) mod system;
pub(crate) mod tag;
mod trust;
pub(crate) mod volume;

use std::io::Write as _;
use std::path::Path;

use rbuild_cache::Subject;
use rbuild_image::{Descriptor, Platform, Reference};
use rbuild_solver::images::{Images, StoredImage, Transfer};

use crate::app::App;
use crate::format::visible;
pub(crate) use trust::trust;

use crate::report::{Failure, Kind};
use crate::template::TemplateError;

/// What Docker's commands end with when they fail.
pub(crate) const FAILED: Kind = Kind::Run(1);

/// Writes to standard output, where results go; nothing in it steers a terminal.
///
/// # Errors
/// When it cannot be written. A reader that went away is no error.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().write_all(visible(text).as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Kind::Environment, format!("failed to write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Reads a name that the user typed.
pub(crate) fn reference(name: &str) -> Result<Reference, Failure> {
    name.parse().map_err(|error: rbuild_image::ParseReferenceError| Failure::caused_by(Kind::Input, &error))
}

/// Reads a platform that the user typed; this machine's if none was.
pub(crate) fn platform(name: Option<&str>) -> Result<Platform, Failure> {
    let parse = |name: &str| {
        name.parse()
            .map_err(|error: rbuild_image::ParsePlatformError| Failure::caused_by(Kind::Input, &error))
    };
    name.filter(|name| *name != "local").map_or_else(|| Ok(Platform::host()), parse)
}

/// The image behind a descriptor of the store: for this machine's platform or, where there is none, the first; for exactly the
/// platform that was asked for.
pub(crate) fn image_for(
    images: &Images,
    target: &Descriptor,
    name: Option<&str>,
) -> Result<StoredImage, Failure> {
    let wanted = platform(name)?;
    if name.is_none() {
        return Ok(images.open(target, &wanted)?);
    }
    let image = images.open_exactly(target, &wanted)?;
    image.filter(|image| image.config.platform.runs_on(&wanted)).ok_or_else(|| {
        let message =
            format!("image {} does not provide the specified platform ({wanted})", target.digest.short());
        Failure::new(FAILED, message)
    })
}

/// Notes what was done with an image, for `rbuild events`.
///
/// # Errors
/// When the store cannot be opened.
pub(crate) fn note_image(app: &App, action: &str, id: &str, name: &str) -> Result<(), Failure> {
    app.store()?.note(Subject::Image, action, id, [("name", name.to_owned())]);
    Ok(())
}

/// A template that means nothing, or asks for what is not there.
pub(crate) fn templated(error: TemplateError) -> Failure {
    Failure::caused_by(FAILED, &error)
}

/// Gives an I/O error its verb and path.
pub(crate) fn io_failure(verb: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Failure {
    let path = path.display().to_string();
    move |error| {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound
            | std::io::ErrorKind::IsADirectory
            | std::io::ErrorKind::NotADirectory => Kind::Input,
            _ => Kind::Environment,
        };
        Failure::new(kind, format!("failed to {verb} `{path}`: {error}"))
    }
}

/// Transfers that nobody watches.
pub(crate) fn silent(_: Transfer) {}
