//! `rbuild import`: makes an image from the tar of a file system.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rbuild_frontend::{ImageResolver, Options, ResolveError, ResolvedImage, lower};
use rbuild_image::{ImageConfig, Platform, Reference};
use rbuild_llb::{FileAction, FileStep, Op, ResolveMode, Vertex};
use rbuild_solver::images::ImportOptions;

use super::{io_failure, note_image, platform, print, reference};
use crate::app::{App, unix_now};
use crate::args::ImportArgs;
use crate::commands::build::NoImages;
use crate::format::rfc3339;
use crate::report::{Failure, Kind};

pub(crate) fn run(app: &App, args: &ImportArgs) -> Result<u8, Failure> {
    let created = rfc3339(unix_now());
    let platform = platform(args.platform.as_deref().filter(|name| !name.is_empty()))?;
    let options = ImportOptions {
        config: changed_config(&args.changes, &created, platform)?,
        created,
        message: args.message.clone(),
        name: args.name.as_deref().map(reference).transpose()?,
    };
    let images = app.images()?;
    // From before the layer is there until the image has its row.
    let _lease = images.store().lease()?;
    let id = match args.file.to_str().filter(|file| is_url(file)) {
        Some(url) => images.import_url(url, options, app.cancel_on_interrupt()?)?,
        None => images.import(open(&args.file)?, options)?,
    };
    note_image(app, "import", &id.to_string(), args.name.as_deref().unwrap_or_default())?;
    print(&format!("{id}\n")).map(|()| 0)
}

fn is_url(file: &str) -> bool {
    file.starts_with("http://") || file.starts_with("https://")
}

/// A file, or standard input for `-`.
pub(crate) fn open(path: &Path) -> Result<Box<dyn Read + Send>, Failure> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin()));
    }
    Ok(Box::new(File::open(path).map_err(io_failure("open", path))?))
}

/// What `--change` makes of an empty config: the instructions are those of a Dockerfile, so they are read as one.
fn changed_config(changes: &[String], created: &str, platform: Platform) -> Result<ImageConfig, Failure> {
    lowered(&format!("FROM scratch\n{}\n", changes.join("\n")), created, platform, &NoImages)
}

/// What `--change` makes of the config of an image; its history stays as it is.
pub(crate) fn changed(
    config: ImageConfig,
    changes: &[String],
    created: &str,
) -> Result<ImageConfig, Failure> {
    if changes.is_empty() {
        return Ok(config);
    }
    let base = OneImage(config);
    let platform = base.0.platform.clone();
    let changed = lowered(&format!("FROM base\n{}\n", changes.join("\n")), created, platform, &base)?;
    Ok(ImageConfig { config: changed.config, ..base.0 })
}

fn lowered(
    dockerfile: &str,
    created: &str,
    platform: Platform,
    images: &dyn ImageResolver,
) -> Result<ImageConfig, Failure> {
    let options = Options::new(platform, created);
    let lowered = lower(dockerfile.as_bytes(), &options, images)
        .map_err(|error| Failure::caused_by(Kind::Input, &error).while_doing("--change"))?;
    if !lowered.definition.vertices().iter().all(only_makes_directories) {
        return Err(Failure::new(
            Kind::Input,
            "--change takes instructions that set configuration, and no others",
        ));
    }
    Ok(lowered.config)
}

/// Knows one image, whatever it is called.
struct OneImage(ImageConfig);

impl ImageResolver for OneImage {
    fn resolve(
        &self,
        reference: &Reference,
        _: &Platform,
        _: ResolveMode,
    ) -> Result<ResolvedImage, ResolveError> {
        Ok(ResolvedImage { reference: reference.clone(), config: self.0.clone() })
    }
}

/// `WORKDIR` in a build makes its directory; here that is left to whoever runs the image, as in Docker.
fn only_makes_directories(vertex: &Vertex) -> bool {
    let is_mkdir = |step: &FileStep| matches!(step.action, FileAction::Mkdir(_));
    match &vertex.op {
        Op::File(op) => op.steps.iter().all(is_mkdir),
        // The image itself.
        Op::Source(_) => true,
        _ => false,
    }
}
