//! `rbuild system`: looks after the store.

mod df;
pub(crate) mod info;

use rbuild_cache::prune::{Item, ItemKind};
use rbuild_cache::{CheckReport, Problem, PrunePolicy, set_damaged_metadata_aside};

use super::filter::ObjectFilters;
use super::prune::confirm;
use super::{container, image, print, volume};
use crate::app::{App, unix_now};
use crate::args::{SystemCheckArgs, SystemCommand, SystemPruneArgs};
use crate::format::size;
use crate::report::{Failure, Kind};

pub(crate) fn run(app: &App, command: &SystemCommand) -> Result<u8, Failure> {
    match command {
        SystemCommand::Check(args) => check(app, args),
        SystemCommand::Df(args) => df::df(app, args),
        SystemCommand::Events(args) => super::events::run(app, args),
        SystemCommand::Info(args) => info::info(app, args),
        SystemCommand::Prune(args) => prune(app, args),
    }
}

fn check(app: &App, args: &SystemCheckArgs) -> Result<u8, Failure> {
    if !args.repair {
        return finish(&app.store()?.check(app.pool()?)?);
    }
    if app.root().exists()
        && let Some(aside) = set_damaged_metadata_aside(app.root())?
    {
        print(&format!(
            "the metadata was damaged: it is kept as `{}`, and all is forgotten\n",
            aside.display()
        ))?;
    }
    let (found, report) = app.store()?.repair(app.pool()?)?;
    let repaired: Vec<&Problem> = found.iter().filter(|problem| !report.problems.contains(problem)).collect();
    print(&repaired.iter().map(|problem| format!("repaired: {problem}\n")).collect::<String>())?;
    finish(&report)
}

fn finish(report: &CheckReport) -> Result<u8, Failure> {
    print(&summary(report))?;
    if report.problems.is_empty() {
        return print("the store is sound\n").map(|()| 0);
    }
    print(&report.problems.iter().map(|problem| format!("{problem}\n")).collect::<String>())?;
    let count = report.problems.len();
    let plural = if count == 1 { "" } else { "s" };
    Err(Failure::new(Kind::Environment, format!("{count} problem{plural} in the store"))
        .hint("`rbuild system check --repair` forgets what is damaged, so that it is made or fetched again"))
}

/// What was verified.
fn summary(report: &CheckReport) -> String {
    let CheckReport { blobs, layers, layers_unproven, snapshots, results, images, .. } = report;
    let all = layers + layers_unproven;
    format!(
        "verified {blobs} blobs ({}), {all} layers (the content of {layers}), {snapshots} snapshots, \
         {results} results, {images} images\n",
        size(report.blob_bytes)
    )
}

fn prune(app: &App, args: &SystemPruneArgs) -> Result<u8, Failure> {
    let filters = ObjectFilters::parse(&args.images.objects.filters, unix_now())?;
    let images =
        if args.images.all { "all images without at least one container" } else { "all dangling images" };
    let volumes = if args.volumes { "  - all anonymous volumes that no container uses\n" } else { "" };
    confirm(
        args.images.objects.force,
        &format!(
            "This will remove:\n  - all stopped containers\n{volumes}  - {images}\n  - all unused build cache\n\n"
        ),
    )?;
    let store = app.store()?;
    let (containers, mut freed) = container::remove_stopped(app, &filters)?;
    let mut text = container::deleted("Containers", &containers);
    if args.volumes {
        let (volumes, freed_bytes) = volume::remove_unused(app, false, &filters)?;
        text += &container::deleted("Volumes", &volumes);
        freed += freed_bytes;
    }
    let total_before = store.usage()?.total_bytes();
    text +=
        &container::deleted("Images", &image::remove(app, &image::unused(app, args.images.all, &filters)?)?);
    // What is cached has no labels: who asks for some means other things.
    let selects = |item: &Item| !filters.names_labels() || item.kind == ItemKind::Leftover;
    let (selects, unused_since) = (Some(&selects as _), filters.created_before);
    let report = store.prune(&[PrunePolicy { selects, unused_since, ..PrunePolicy::default() }])?;
    let ids: String = report.removals.iter().map(|removal| format!("{}\n", removal.item.id)).collect();
    text += &container::deleted("build cache objects", &ids);
    freed += total_before.saturating_sub(store.usage()?.total_bytes());
    print(&format!("{text}Total reclaimed space: {}\n", size(freed))).map(|()| 0)
}
