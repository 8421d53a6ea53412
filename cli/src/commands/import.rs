//! `rbuild import`: makes an image from the tar of a file system.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rbuild_frontend::{Options, lower};
use rbuild_image::{ImageConfig, Platform};
use rbuild_llb::{FileAction, FileStep, Op, Vertex};
use rbuild_solver::images::ImportOptions;

use super::{io_failure, print, reference};
use crate::app::{App, unix_now};
use crate::args::ImportArgs;
use crate::commands::build::NoImages;
use crate::format::rfc3339;
use crate::report::{Failure, Kind};

pub(crate) fn run(app: &App, args: &ImportArgs) -> Result<u8, Failure> {
    let created = rfc3339(unix_now());
    let options = ImportOptions {
        config: changed_config(&args.changes, &created)?,
        created,
        message: args.message.clone(),
        name: args.name.as_deref().map(reference).transpose()?,
    };
    let id = app.images()?.import(open(&args.file)?, options)?;
    print(&format!("{id}\n")).map(|()| 0)
}

/// A file, or standard input for `-`.
pub(crate) fn open(path: &Path) -> Result<Box<dyn Read + Send>, Failure> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin()));
    }
    Ok(Box::new(File::open(path).map_err(io_failure("open", path))?))
}

/// What `--change` makes of an empty config: the instructions are those of a Dockerfile, so they are read as one.
fn changed_config(changes: &[String], created: &str) -> Result<ImageConfig, Failure> {
    let dockerfile = format!("FROM scratch\n{}\n", changes.join("\n"));
    let options = Options::new(Platform::host(), created);
    let lowered = lower(dockerfile.as_bytes(), &options, &NoImages)
        .map_err(|error| Failure::caused_by(Kind::Input, &error).while_doing("--change"))?;
    if !lowered.definition.vertices().iter().all(only_makes_directories) {
        return Err(Failure::new(
            Kind::Input,
            "--change takes instructions that set configuration, and no others",
        ));
    }
    Ok(lowered.config)
}

/// `WORKDIR` in a build makes its directory; here that is left to whoever runs the image, as in Docker.
fn only_makes_directories(vertex: &Vertex) -> bool {
    let is_mkdir = |step: &FileStep| matches!(step.action, FileAction::Mkdir(_));
    matches!(&vertex.op, Op::File(op) if op.steps.iter().all(is_mkdir))
}
