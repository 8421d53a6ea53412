//! Where a build's result goes: the store, archives, files; and what is said of it.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use rbuild_cache::Snapshot;
use rbuild_frontend::Lowered;
use rbuild_image::Reference;
use rbuild_solver::export::{export_directory, export_tar};
use rbuild_solver::images::{
    ArchiveFormat, Compression, Dating, DirectorySink, Images, LayoutSink, Saved, StoredImage, TarSink,
};
use rbuild_solver::progress::{Event, EventSink as _, TaskState};
use serde_json::json;

use super::settings::Settings;
use crate::app::App;
use crate::commands::save::write_file;
use crate::commands::{io_failure, print};
use crate::format::rfc3339;
use crate::output_spec::{Dest, OutputSpec};
use crate::progress::Progress;
use crate::report::{Failure, Kind};

/// A build that is done.
#[derive(Debug)]
pub(crate) struct Built<'a> {
    pub(crate) lowered: &'a Lowered,
    pub(crate) snapshot: Snapshot,
}

/// Writes every output that was asked for. Without `-t` and `-o` nothing but the cache has the result.
pub(crate) fn write(
    app: &App,
    settings: &Settings,
    built: &Built<'_>,
    progress: &Progress,
) -> Result<(), Failure> {
    let images = app.images()?;
    let names = names(settings);
    let in_store = !names.is_empty() || settings.quiet || settings.iidfile.is_some() || wants_image(settings);
    let needs_image = in_store || settings.metadata_file.is_some() || settings.outputs.iter().any(is_archive);
    let image = if needs_image {
        let snapshot = &built.snapshot;
        Some(task(progress, "exporting to image", || image(app, settings, built.lowered, snapshot))?)
    } else {
        None
    };
    if let Some(image) = image.as_ref().filter(|_| in_store) {
        images.name(image, &built.snapshot, &names)?;
        for name in &names {
            note(progress, &format!("naming to {name}"));
        }
    }
    for output in &settings.outputs {
        write_one(app, output, &built.snapshot, image.as_ref(), &names, progress)?;
    }
    image.map_or(Ok(()), |image| report(settings, &image, &names))
}

fn names(settings: &Settings) -> Vec<Reference> {
    let more = settings.outputs.iter().flat_map(|output| match output {
        OutputSpec::Image { names } => names.as_slice(),
        _ => &[],
    });
    settings.names.iter().chain(more).cloned().collect()
}

fn wants_image(settings: &Settings) -> bool {
    settings.outputs.iter().any(|output| matches!(output, OutputSpec::Image { .. }))
}

const fn is_archive(output: &OutputSpec) -> bool {
    matches!(output, OutputSpec::OciArchive { .. } | OutputSpec::DockerArchive { .. })
}

fn image(
    app: &App,
    settings: &Settings,
    lowered: &Lowered,
    snapshot: &Snapshot,
) -> Result<StoredImage, Failure> {
    let images = app.images()?;
    let mut config = lowered.config.clone();
    if !settings.has_epoch() && lowered.source_date_epoch.is_none() {
        let dating =
            Dating { snapshot, inherited: lowered.history_inherited, now: &settings.created, rfc3339 };
        images.date_history(&mut config, &dating)?;
    }
    Ok(app.pool()?.install(|| images.assemble(config, snapshot))?)
}

#[expect(clippy::too_many_arguments, reason = "a dispatch over outputs, each of which takes some of these")]
fn write_one(
    app: &App,
    output: &OutputSpec,
    snapshot: &Snapshot,
    image: Option<&StoredImage>,
    names: &[Reference],
    progress: &Progress,
) -> Result<(), Failure> {
    let images = app.images()?;
    let archive = |format, sink: &mut dyn LayoutSink| {
        let image = image.expect("an archive was asked for, so the image was made");
        save(images, image, names, format, sink)
    };
    match output {
        OutputSpec::Image { .. } | OutputSpec::CacheOnly => Ok(()),
        OutputSpec::OciArchive { dest: Dest::File(path), as_directory: true } => {
            let mut sink = DirectorySink::new(path).map_err(io_failure("make", path))?;
            task(progress, "exporting to oci image format", || archive(ArchiveFormat::Oci, &mut sink))
        }
        OutputSpec::OciArchive { as_directory: true, .. } => {
            Err(Failure::new(Kind::Input, "an OCI layout directory cannot be written to standard output"))
        }
        OutputSpec::OciArchive { dest, .. } => task(progress, "exporting to oci image format", || {
            to_dest(dest, |out| archive(ArchiveFormat::Oci, &mut TarSink::new(out)))
        }),
        OutputSpec::DockerArchive { dest } => task(progress, "exporting to docker image format", || {
            to_dest(dest, |out| archive(ArchiveFormat::Docker, &mut TarSink::new(out)))
        }),
        OutputSpec::Tar { dest } => task(progress, "exporting to client tarball", || {
            to_dest(dest, |out| export_tar(images.store(), snapshot, out).map_err(export_failure))
        }),
        OutputSpec::Local { dest } => task(progress, "exporting to client directory", || {
            export_directory(images.store(), snapshot, dest, app.owner()).map_err(export_failure)
        }),
    }
}

fn save(
    images: &Images,
    image: &StoredImage,
    names: &[Reference],
    format: ArchiveFormat,
    sink: &mut dyn LayoutSink,
) -> Result<(), Failure> {
    let image = images.compressed(image, Compression::default())?;
    Ok(images.save(&[Saved { image, names: names.to_vec() }], format, sink)?)
}

fn to_dest(dest: &Dest, write: impl FnOnce(&mut dyn Write) -> Result<(), Failure>) -> Result<(), Failure> {
    match dest {
        Dest::File(path) => write_file(path, |out| write(out)),
        Dest::Stdout => {
            let mut out = BufWriter::new(io::stdout());
            write(&mut out)?;
            out.flush().map_err(io_failure("write", Path::new("standard output")))
        }
    }
}

fn export_failure(error: rbuild_solver::export::ExportError) -> Failure {
    Failure::caused_by(Kind::Environment, &error)
}

/// Files and lines that say what the image is.
fn report(settings: &Settings, image: &StoredImage, names: &[Reference]) -> Result<(), Failure> {
    if let Some(path) = &settings.iidfile {
        fs::write(path, image.id().to_string()).map_err(io_failure("write", path))?;
    }
    if let Some(path) = &settings.metadata_file {
        let names: Vec<String> = names.iter().map(Reference::to_string).collect();
        let metadata = json!({
            "containerimage.config.digest": image.id(),
            "containerimage.descriptor": image.target,
            "containerimage.digest": image.target.digest,
            "image.name": names.join(","),
        });
        let text = serde_json::to_string_pretty(&metadata).expect("a JSON value is JSON");
        fs::write(path, text).map_err(io_failure("write", path))?;
    }
    if settings.quiet { print(&format!("{}\n", image.id())) } else { Ok(()) }
}

/// Does something that the progress display shows as a task.
fn task<T>(progress: &Progress, name: &str, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let emit = |state| progress.emit(Event::Task { name: name.to_owned(), state });
    emit(TaskState::Started);
    let done = work()?;
    emit(TaskState::Completed);
    Ok(done)
}

fn note(progress: &Progress, name: &str) {
    progress.emit(Event::Task { name: name.to_owned(), state: TaskState::Started });
    progress.emit(Event::Task { name: name.to_owned(), state: TaskState::Completed });
}
