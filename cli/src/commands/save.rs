//! `rbuild save`: writes images, with layers and metadata, to a tar.

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use rbuild_image::Platform;
use rbuild_solver::images::{ArchiveFormat, CompressionConfig, Images, Saved, TarSink, Target};

use super::{image_for, io_failure, note_image};
use crate::app::App;
use crate::args::{ArchiveFormatArg, SaveArgs, given};
use crate::report::{Failure, Kind};

pub(crate) fn run(app: &App, args: &SaveArgs) -> Result<u8, Failure> {
    let images = app.images()?;
    // Somebody may remove an image while it is read.
    let _lease = images.store().lease()?;
    let platform = args.platform.as_deref();
    let saved =
        args.images.iter().map(|name| saved(images, name, platform)).collect::<Result<Vec<_>, _>>()?;
    let format = match args.format {
        ArchiveFormatArg::DockerArchive => ArchiveFormat::Docker,
        ArchiveFormatArg::OciArchive => ArchiveFormat::Oci,
    };
    let save = |out: &mut dyn Write| {
        images
            .save(&saved, format, &CompressionConfig::KEEPING, &mut TarSink::new(out))
            .map_err(Failure::from)
    };
    match given(args.output.as_ref()) {
        Some(path) => write_file(path, |out| save(out)),
        None if io::stdout().is_terminal() => {
            Err(Failure::new(Kind::Input, "cowardly refusing to save to a terminal")
                .hint("use -o FILE or redirect"))
        }
        None => save(&mut BufWriter::new(io::stdout())),
    }?;
    for image in saved.iter().flat_map(|saved| &saved.target.images) {
        let id = image.id().to_string();
        note_image(app, "save", &id, &id)?;
    }
    Ok(0)
}

/// An image by any name, with the name to save it under: the one that was typed or, for an id, none, as with Docker.
fn saved(images: &Images, name: &str, platform: Option<&str>) -> Result<Saved, Failure> {
    let record = images.find(name)?;
    let typed = name.parse().ok().filter(|reference| record.names.contains(reference));
    let target = match platform {
        None => images.open_target(&record.target, &Platform::host())?,
        platform => Target::of(image_for(images, &record.target, platform)?),
    };
    Ok(Saved { target, names: Vec::from_iter(typed) })
}

/// Writes a file under a temporary name beside it, and gives it its name when it is whole. What is there and no file, such as a pipe
/// or a device, is written to as it is.
///
/// # Errors
/// When it cannot be written, or `write` fails.
pub(crate) fn write_file<T>(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        let mut out = BufWriter::new(File::create(path).map_err(io_failure("open", path))?);
        let written = write(&mut out)?;
        return out.flush().map_err(io_failure("write", path)).map(|()| written);
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    let temporary = PathBuf::from(name);
    let mut out = BufWriter::new(File::create(&temporary).map_err(io_failure("make", &temporary))?);
    let written = write(&mut out).and_then(|written| {
        out.flush().map_err(io_failure("write", &temporary))?;
        fs::rename(&temporary, path).map_err(io_failure("make", path))?;
        Ok(written)
    });
    if written.is_err() {
        // What made the writing fail is what the user must hear.
        drop(fs::remove_file(&temporary));
    }
    written
}
