//! Where a build's result goes: the store, archives, files; and what is said of it.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use rbuild_cache::{MtimeClamp, Snapshot, Store};
use rbuild_frontend::Lowered;
use rbuild_image::{History, Platform, Reference};
use rbuild_solver::export::{Trees, export_directory, export_tar};
use rbuild_solver::images::{
    ArchiveFormat, AssembleOptions, CompressionConfig, Dating, DirectorySink, Images, LayoutSink, Predicate,
    Saved, StoredImage, TarSink, Target, Transfer, Watch,
};
use rbuild_solver::progress::{Event, EventSink as _, TaskState};
use rbuild_solver::shared::{Finished, INLINE, Tree};
use serde_json::{Value, json};

use super::settings::Settings;
use crate::app::App;
use crate::commands::save::write_file;
use crate::commands::{io_failure, print};
use crate::format::rfc3339;
use crate::output_spec::{Dest, OutputSpec};
use crate::progress::Progress;
use crate::report::{Failure, Kind};

/// A build that is done, for one platform.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) lowered: Lowered,
    pub(crate) tree: Tree,
    /// Which steps lead to it, where the image is to say so.
    pub(crate) inline_cache: Option<String>,
    /// What is said of it beside it.
    pub(crate) predicates: Vec<Predicate>,
}

impl From<(Lowered, Tree)> for Built {
    fn from((lowered, tree): (Lowered, Tree)) -> Self {
        Self { lowered, tree, inline_cache: None, predicates: Vec::new() }
    }
}

impl Built {
    fn platform(&self) -> &Platform {
        &self.lowered.config.platform
    }

    /// How many layers of the result are the base image's.
    fn layers_inherited(&self, store: &Store) -> Result<usize, Failure> {
        let inherited = self.lowered.config.history.iter().take(self.lowered.history_inherited);
        let tars = inherited.filter(|entry| !entry.empty_layer).count();
        Ok(match &self.tree {
            Tree::Here(snapshot) => store.layers_of_tars(snapshot, tars)?,
            Tree::Elsewhere(_) => tars,
        })
    }

    /// Lets the image say which steps lead to it.
    pub(crate) fn remember_steps(
        &mut self,
        app: &App,
        settings: &Settings,
        build: &Finished<'_>,
    ) -> Result<(), Failure> {
        let (images, Tree::Here(snapshot)) = (app.images()?, &self.tree) else { return Ok(()) };
        let clamp = self.clamp(settings, images.store())?;
        self.inline_cache = Some(app.pool()?.install(|| images.inline_cache(build, snapshot, clamp))?);
        Ok(())
    }

    /// What times the layers that the build added leave with.
    fn clamp(&self, settings: &Settings, store: &Store) -> Result<Option<MtimeClamp>, Failure> {
        let epoch = epoch(settings, &self.lowered).filter(|_| settings.rewrites_timestamps());
        let clamp = |mtime_max| Ok(MtimeClamp { layers_kept: self.layers_inherited(store)?, mtime_max });
        epoch.map(clamp).transpose()
    }

    /// Makes one layer of what the build added. The history keeps its steps, now without layers of their own, and says so.
    pub(crate) fn squash(&mut self, store: &Store, created: &str) -> Result<(), Failure> {
        let kept = self.layers_inherited(store)?;
        let Tree::Here(snapshot) = &self.tree else { return Ok(()) };
        if snapshot.layers.len() <= kept + 1 {
            return Ok(());
        }
        self.tree = Tree::Here(store.squash(snapshot, kept)?);
        let history = &mut self.lowered.config.history;
        history[self.lowered.history_inherited..].iter_mut().for_each(|entry| entry.empty_layer = true);
        history.push(History {
            created: Some(created.to_owned()),
            comment: Some("squashed by rbuild".to_owned()),
            ..History::default()
        });
        Ok(())
    }
}

/// Writes every output that was asked for. Without `-t` and `-o` nothing but the cache has the result.
pub(crate) fn write(
    app: &App,
    settings: &Settings,
    built: &[Built],
    warnings: &[Value],
    progress: &Progress,
) -> Result<(), Failure> {
    let images = app.images()?;
    let names = names(settings);
    let in_store = is_kept(settings);
    let target = if needs_image(settings) {
        Some(task(progress, "exporting to image", || target(app, settings, built))?)
    } else {
        None
    };
    if let Some(target) = target.as_ref().filter(|_| in_store) {
        // Layers that are elsewhere come with the name when they are needed.
        let snapshots: Vec<Snapshot> =
            built.iter().filter_map(|built| built.tree.snapshot().cloned()).collect();
        images.name(&target.descriptor, &snapshots, &names)?;
        for name in &names {
            note(progress, &format!("naming to {name}"));
        }
    }
    // What leaves is another manifest, as its layers are compressed: that is the image for whoever gets it.
    let mut left = None;
    for output in &settings.outputs {
        left = write_one(app, settings, output, built, target.as_ref(), &names, progress)?.or(left);
    }
    if let Some(target) = target.as_ref().filter(|_| settings.pushes()) {
        left = push(app, target, &names, &settings.push_compression(), progress)?;
    }
    target.map_or(Ok(()), |target| report(settings, built, &target, left.as_ref(), warnings))
}

/// Whether the store keeps an image.
fn is_kept(settings: &Settings) -> bool {
    let is_asked_for = |output: &OutputSpec| matches!(output, OutputSpec::Image { .. });
    !names(settings).is_empty()
        || settings.quiet
        || settings.iidfile.is_some()
        || settings.outputs.iter().any(is_asked_for)
}

fn needs_image(settings: &Settings) -> bool {
    is_kept(settings) || settings.metadata_file.is_some() || settings.outputs.iter().any(is_archive)
}

/// Whether the layers that steps make are those of images.
pub(super) fn makes_images(settings: &Settings, lowered: &[Lowered]) -> bool {
    let is_dated = lowered.iter().any(|lowered| epoch(settings, lowered).is_some());
    needs_image(settings) && !settings.squash && !(is_dated && settings.rewrites_timestamps())
}

/// All names of the result.
pub(super) fn names(settings: &Settings) -> Vec<Reference> {
    let more = settings.outputs.iter().flat_map(|output| match output {
        OutputSpec::Image { names, .. } => names.as_slice(),
        _ => &[],
    });
    settings.names.iter().chain(more).cloned().collect()
}

const fn is_archive(output: &OutputSpec) -> bool {
    matches!(output, OutputSpec::OciArchive { .. } | OutputSpec::DockerArchive { .. })
}

/// The image, or the index of images.
fn target(app: &App, settings: &Settings, built: &[Built]) -> Result<Target, Failure> {
    let images = app.images()?;
    let mut made = built.iter().map(|built| image(app, settings, built)).collect::<Result<Vec<_>, _>>()?;
    let names = names(settings);
    let said = made.iter().zip(built).filter(|(_, built)| !built.predicates.is_empty());
    let said = said.map(|(image, built)| images.attest(image, &names, built.predicates.clone()));
    let said = said.collect::<Result<Vec<_>, _>>()?;
    if made.len() == 1 && said.is_empty() && !settings.is_multi_platform() {
        if let Some(key) = settings.annotations.of_index() {
            let message = format!("index annotations not supported for single platform export: `{key}`");
            return Err(Failure::new(Kind::Input, message));
        }
        return Ok(Target::of(made.remove(0)));
    }
    let mut target = images.assemble_index(made, said, settings.annotations.index())?;
    target.descriptor.annotations = settings.annotations.index_descriptor();
    Ok(target)
}

fn image(app: &App, settings: &Settings, built: &Built) -> Result<StoredImage, Failure> {
    let images = app.images()?;
    let Built { lowered, tree, inline_cache, .. } = built;
    let mut config = lowered.config.clone();
    let inherited = lowered.history_inherited;
    let epoch = epoch(settings, lowered);
    let clamp = built.clamp(settings, images.store())?;
    let layers = app.pool()?.install(|| images.describe(tree, clamp))?;
    if epoch.is_none() {
        let dating = Dating { layers: &layers, inherited, now: &settings.created, rfc3339 };
        Images::date_history(&mut config, &dating);
    }
    let mut annotations = settings.annotations.manifest(built.platform());
    annotations.extend(inline_cache.clone().map(|said| (INLINE.to_owned(), said)));
    let options = AssembleOptions {
        annotations,
        descriptor_annotations: settings.annotations.manifest_descriptor(built.platform()),
    };
    Ok(images.assemble(config, &layers, &options)?)
}

/// `SOURCE_DATE_EPOCH`, wherever it was set.
fn epoch(settings: &Settings, lowered: &Lowered) -> Option<i64> {
    settings.source_date_epoch.or(lowered.source_date_epoch)
}

/// Sends the result to the registry of each of its names, and says what it is there.
fn push(
    app: &App,
    target: &Target,
    names: &[Reference],
    compression: &CompressionConfig,
    progress: &Progress,
) -> Result<Option<Target>, Failure> {
    if names.is_empty() {
        return Err(Failure::new(Kind::Input, "tag is needed when pushing to registry").hint("add `-t NAME`"));
    }
    let (images, mut pushed) = (app.images()?, None);
    for name in names {
        let task_name = format!("pushing {name}");
        let moved = |transfer| report_transfer(progress, &task_name, transfer);
        let watch = Watch { transfers: &moved, cancel: app.cancel() };
        let sent =
            task(progress, &task_name, || Ok(images.push_target(name, target, compression, watch)?))?;
        pushed = Some(sent);
    }
    Ok(pushed)
}

/// Writes an output, and says what the image in it is, if there is one.
#[expect(clippy::too_many_arguments, reason = "a dispatch over outputs, each of which takes some of these")]
fn write_one(
    app: &App,
    settings: &Settings,
    output: &OutputSpec,
    built: &[Built],
    target: Option<&Target>,
    names: &[Reference],
    progress: &Progress,
) -> Result<Option<Target>, Failure> {
    let images = app.images()?;
    let archive = |format, compression: &CompressionConfig, sink: &mut dyn LayoutSink| {
        let target = target.expect("an archive was asked for, so the image was made");
        save(images, (target, names), format, compression, sink)
    };
    let with_trees = |write: &dyn Fn(Trees<'_>) -> Result<(), Failure>| {
        let directories = directories(images, built)?;
        write(Trees { trees: &directories, mtime: epoch(settings, &built[0].lowered) })
    };
    match output {
        OutputSpec::Image { .. } | OutputSpec::CacheOnly => Ok(None),
        OutputSpec::OciArchive { dest: Dest::File(path), as_directory: true, compression } => {
            let mut sink = DirectorySink::new(path).map_err(io_failure("make", path))?;
            task(progress, "exporting to oci image format", || {
                archive(ArchiveFormat::Oci, compression, &mut sink)
            })
        }
        OutputSpec::OciArchive { as_directory: true, .. } => {
            Err(Failure::new(Kind::Input, "an OCI layout directory cannot be written to standard output"))
        }
        OutputSpec::OciArchive { dest, compression, .. } => {
            task(progress, "exporting to oci image format", || {
                to_dest(dest, |out| archive(ArchiveFormat::Oci, compression, &mut TarSink::new(out)))
            })
        }
        OutputSpec::DockerArchive { dest, compression } => {
            task(progress, "exporting to docker image format", || {
                to_dest(dest, |out| archive(ArchiveFormat::Docker, compression, &mut TarSink::new(out)))
            })
        }
        OutputSpec::Tar { dest } => task(progress, "exporting to client tarball", || {
            with_trees(&|trees| {
                to_dest(dest, |out| export_tar(images.store(), trees, out).map_err(export_failure))
            })
            .map(|()| None)
        }),
        OutputSpec::Local { dest } => task(progress, "exporting to client directory", || {
            with_trees(&|trees| {
                export_directory(images.store(), trees, dest, app.owner()).map_err(export_failure)
            })
            .map(|()| None)
        }),
    }
}

/// The trees to write out, with what is said of each: one as it is, several each in a directory of its platform's name.
fn directories(images: &Images, built: &[Built]) -> Result<Vec<(PathBuf, Snapshot)>, Failure> {
    let several = built.len() > 1;
    let directory = |built: &Built| {
        let name = if several { built.platform().to_string().replace('/', "_") } else { String::new() };
        PathBuf::from(name)
    };
    let here = built.iter().filter_map(|built| Some((built, built.tree.snapshot()?)));
    here.map(|(built, tree)| Ok((directory(built), images.with_statements(tree, &built.predicates)?)))
        .collect()
}

fn save(
    images: &Images,
    (target, names): (&Target, &[Reference]),
    format: ArchiveFormat,
    compression: &CompressionConfig,
    sink: &mut dyn LayoutSink,
) -> Result<Option<Target>, Failure> {
    if format == ArchiveFormat::Docker && target.is_index() {
        let message = "docker exporter does not currently support exporting manifest lists";
        return Err(Failure::new(Kind::Input, message).hint("`type=oci` holds several platforms"));
    }
    let saved = Saved { target: target.clone(), names: names.to_vec() };
    Ok(images.save(&[saved], format, compression, sink)?.pop())
}

fn to_dest<T>(dest: &Dest, write: impl FnOnce(&mut dyn Write) -> Result<T, Failure>) -> Result<T, Failure> {
    match dest {
        Dest::File(path) => write_file(path, |out| write(out)),
        Dest::Stdout => {
            let mut out = BufWriter::new(io::stdout());
            let written = write(&mut out)?;
            out.flush().map_err(io_failure("write", Path::new("standard output")))?;
            Ok(written)
        }
    }
}

fn export_failure(error: rbuild_solver::export::ExportError) -> Failure {
    Failure::caused_by(Kind::Environment, &error)
}

/// Files and lines that say what the image is: its id, which finds it in the store, and what has left.
///
/// Several images have no id; the digest of their index stands for it.
fn report(
    settings: &Settings,
    built: &[Built],
    target: &Target,
    left: Option<&Target>,
    warnings: &[Value],
) -> Result<(), Failure> {
    let id = match target.images.as_slice() {
        [image] if !settings.is_multi_platform() => image.id(),
        _ => target.descriptor.digest,
    };
    if let Some(path) = &settings.iidfile {
        fs::write(path, id.to_string()).map_err(io_failure("write", path))?;
    }
    if let Some(path) = &settings.metadata_file {
        let mut metadata = metadata(left.unwrap_or(target), &names(settings));
        if settings.metadata_warnings {
            metadata["buildx.build.warnings"] = json!(warnings);
        }
        for built in built {
            let place =
                if settings.is_multi_platform() { format!("/{}", built.platform()) } else { String::new() };
            let provenance = built.predicates.iter().filter(|said| said.is_provenance());
            provenance
                .for_each(|said| metadata[format!("buildx.build.provenance{place}")] = said.content.clone());
        }
        let text = serde_json::to_string_pretty(&metadata);
        fs::write(path, text.expect("a JSON value is JSON")).map_err(io_failure("write", path))?;
    }
    if settings.quiet { print(&format!("{id}\n")) } else { Ok(()) }
}

fn metadata(target: &Target, names: &[Reference]) -> Value {
    let names: Vec<String> = names.iter().map(Reference::to_string).collect();
    let mut metadata = json!({
        "containerimage.descriptor": target.descriptor,
        "containerimage.digest": target.descriptor.digest,
        "image.name": names.join(","),
    });
    if let [image] = target.images.as_slice()
        && !target.is_index()
    {
        metadata["containerimage.config.digest"] = json!(image.id());
    }
    metadata
}

/// Does something that the progress display shows as a task.
pub(super) fn task<T>(
    progress: &Progress,
    name: &str,
    work: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let emit = |state| progress.emit(Event::Task { name: name.to_owned(), state });
    emit(TaskState::Started);
    let done = work()?;
    emit(TaskState::Completed);
    Ok(done)
}

/// Shows how far a blob of a task is.
pub(super) fn report_transfer(progress: &Progress, task: &str, transfer: Transfer) {
    progress.emit(Event::Task { name: task.to_owned(), state: TaskState::Moved(transfer) });
}

fn note(progress: &Progress, name: &str) {
    progress.emit(Event::Task { name: name.to_owned(), state: TaskState::Started });
    progress.emit(Event::Task { name: name.to_owned(), state: TaskState::Completed });
}
