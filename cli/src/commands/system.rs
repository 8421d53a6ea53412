//! `rbuild system`: looks after the store.

use rbuild_cache::prune::{Item, ItemKind, Usage};
use rbuild_cache::{CheckReport, Problem, PrunePolicy, set_damaged_metadata_aside};
use rbuild_container::{Containers, Volumes};
use serde_json::json;

use super::filter::ObjectFilters;
use super::prune::confirm;
use super::{container, image, print, volume};
use crate::app::{App, unix_now};
use crate::args::{DfArgs, ListFormatArg, SystemCheckArgs, SystemCommand, SystemPruneArgs};
use crate::format::{size, table};
use crate::report::{Failure, Kind};

pub(crate) fn run(app: &App, command: &SystemCommand) -> Result<u8, Failure> {
    match command {
        SystemCommand::Check(args) => check(app, args),
        SystemCommand::Df(args) => df(app, args),
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

/// One line of `df`.
struct Line {
    kind: &'static str,
    total: usize,
    active: usize,
    size_bytes: u64,
    reclaimable_bytes: u64,
}

fn df(app: &App, args: &DfArgs) -> Result<u8, Failure> {
    let store = app.store()?;
    let usage = store.usage()?;
    let containers = Containers::new(store.clone());
    let lines = [
        images_line(&usage, &containers)?,
        containers_line(&containers)?,
        volumes_line(&Volumes::new(store.clone()))?,
        cache_line(&usage),
    ];
    let text = match args.format {
        ListFormatArg::Json => lines.iter().map(|line| format!("{}\n", line.as_json())).collect(),
        ListFormatArg::Table => show(&lines),
    };
    print(&text).map(|()| 0)
}

fn images_line(usage: &Usage, containers: &Containers) -> Result<Line, Failure> {
    let images: Vec<&Item> = usage.items.iter().filter(|item| item.kind == ItemKind::Image).collect();
    let containers = containers.list().map_err(container::failure)?;
    let is_active =
        |item: &&&Item| containers.iter().any(|it| it.state.spec.image_id.contains(item.id.as_str()));
    let idle = images.iter().filter(|item| !is_active(item));
    Ok(Line {
        kind: "Images",
        total: images.len(),
        active: images.iter().filter(is_active).count(),
        size_bytes: usage.total_bytes() - usage.cache_bytes,
        reclaimable_bytes: idle.map(|item| item.private_bytes).sum(),
    })
}

fn containers_line(containers: &Containers) -> Result<Line, Failure> {
    let mut line = Line { kind: "Containers", total: 0, active: 0, size_bytes: 0, reclaimable_bytes: 0 };
    for container in containers.list().map_err(container::failure)? {
        let size_bytes = containers.disk_size_bytes(&container).map_err(container::failure)?;
        let is_active = container.state.status.is_active();
        line.total += 1;
        line.active += usize::from(is_active);
        line.size_bytes += size_bytes;
        line.reclaimable_bytes += if is_active { 0 } else { size_bytes };
    }
    Ok(line)
}

fn volumes_line(volumes: &Volumes) -> Result<Line, Failure> {
    let mut line = Line { kind: "Local Volumes", total: 0, active: 0, size_bytes: 0, reclaimable_bytes: 0 };
    let in_use = volumes.in_use().map_err(container::failure)?;
    for volume in volumes.list().map_err(container::failure)? {
        let size_bytes = volumes.disk_size_bytes(&volume.name).map_err(container::failure)?;
        let is_used = in_use.contains_key(&volume.name);
        line.total += 1;
        line.active += usize::from(is_used);
        line.size_bytes += size_bytes;
        line.reclaimable_bytes += if is_used { 0 } else { size_bytes };
    }
    Ok(line)
}

fn cache_line(usage: &Usage) -> Line {
    let items = usage.items.iter().filter(|item| item.kind != ItemKind::Image);
    Line {
        kind: "Build Cache",
        total: items.clone().count(),
        active: items.filter(|item| !item.is_reclaimable()).count(),
        size_bytes: usage.cache_bytes,
        reclaimable_bytes: usage.reclaimable_bytes,
    }
}

impl Line {
    fn as_json(&self) -> serde_json::Value {
        json!({
            "Type": self.kind,
            "TotalCount": self.total,
            "Active": self.active,
            "Size": self.size_bytes,
            "Reclaimable": self.reclaimable_bytes,
        })
    }

    fn percentage(&self) -> String {
        match (self.reclaimable_bytes * 100).checked_div(self.size_bytes) {
            Some(percent) => format!(" ({percent}%)"),
            None => String::new(),
        }
    }
}

fn show(lines: &[Line]) -> String {
    let mut rows = vec![["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"].map(str::to_owned).to_vec()];
    rows.extend(lines.iter().map(|line| {
        vec![
            line.kind.to_owned(),
            line.total.to_string(),
            line.active.to_string(),
            size(line.size_bytes),
            size(line.reclaimable_bytes) + &line.percentage(),
        ]
    }));
    table(&rows)
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
