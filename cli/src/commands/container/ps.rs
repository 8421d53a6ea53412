//! `rbuild ps`: the list of containers.

mod filters;

use std::collections::BTreeMap;

use rbuild_container::{Container, Containers, HealthStatus, KnownNetworks, NetworkMode, Status};
use rbuild_image::Platform;
use rbuild_solver::images::ImageError;
use serde_json::{Value, json};

use self::filters::Filters;
use super::{EXIT_FAILED, containers, failure, networks};
use crate::app::{App, unix_now};
use crate::args::PsArgs;
use crate::commands::print;
use crate::format::{ago, duration, go_time, shorten, size};
use crate::report::{Failure, Kind};
use crate::template;

/// How much of a command line a list shows.
const COMMAND_CHARS_MAX: usize = 20;
const NS_PER_SECOND: i64 = 1_000_000_000;

/// Docker's columns.
const TABLE: &str =
    "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";

pub(super) fn ps(app: &App, args: &PsArgs) -> Result<u8, Failure> {
    let containers = containers(app)?;
    let all = containers.list().map_err(failure)?;
    let filters = Filters::parse(&args.filters, &all, &KnownNetworks::of(app.store()?))?;
    let shows_all = args.all || args.last.is_some() || args.latest || filters.names_status();
    let limit = if args.latest { 1 } else { args.last.unwrap_or(usize::MAX) };
    let shown = all.iter().filter(|container| shows_all || container.state.status.is_active());
    let shown: Vec<_> = shown.filter(|container| filters.select(container)).take(limit).collect();
    let format = match (&args.format, args.quiet) {
        (_, true) => "{{.ID}}".to_owned(),
        (Some(format), _) if format != "table" => format.clone(),
        _ if args.size => format!("{TABLE}\t{{{{.Size}}}}"),
        _ => TABLE.to_owned(),
    };
    let with_size = args.size || format.contains(".Size") || format.contains("json");
    let rows = shown.iter().map(|container| {
        let size = with_size.then(|| sizes(app, &containers, container)).transpose()?;
        Ok(row(container, args.no_trunc, size))
    });
    let mut rows = rows.collect::<Result<Vec<_>, Failure>>()?;
    let mut headings = headings();
    // A method of Docker's, so that it is not among the fields that are listed.
    if format.contains(".Label ") {
        headings["Label"] = json!(label_headings(&shown));
        for (row, container) in rows.iter_mut().zip(&shown) {
            row["Label"] = json!(container.state.spec.config.labels);
        }
    }
    let text = template::list(&format, &headings, &rows)
        .map_err(|error| Failure::caused_by(Kind::Run(EXIT_FAILED), &error))?;
    print(&text).map(|()| 0)
}

fn headings() -> Value {
    json!({
        "ID": "CONTAINER ID", "Image": "IMAGE", "Command": "COMMAND", "CreatedAt": "CREATED AT",
        "RunningFor": "CREATED", "Ports": "PORTS", "State": "STATE", "Status": "STATUS", "Size": "SIZE",
        "Names": "NAMES", "Labels": "LABELS", "Mounts": "MOUNTS", "Networks": "NETWORKS",
        "LocalVolumes": "LOCAL VOLUMES",
    })
}

/// The heading of a column of values of each label, as Docker makes it of the label's name.
fn label_headings(containers: &[&Container]) -> BTreeMap<String, String> {
    let names = containers.iter().flat_map(|container| container.state.spec.config.labels.keys());
    let heading = |name: &String| {
        let last = name.rsplit_once('.').map_or(name.as_str(), |(_, last)| last);
        (name.clone(), last.replace(['-', '_'], " "))
    };
    names.map(heading).collect()
}

/// How large a container is.
pub(crate) struct Sizes {
    /// What it has written, in bytes.
    pub(crate) written: u64,
    /// That and its image, in bytes.
    pub(crate) whole: u64,
}

/// How large a container is, as Docker counts. An image that was removed counts nothing.
///
/// # Errors
/// When its files or its image cannot be read.
pub(crate) fn sizes(app: &App, containers: &Containers, container: &Container) -> Result<Sizes, Failure> {
    let written = containers.written_bytes(container).map_err(failure)?;
    let images = app.images()?;
    let below = match images.find(&container.state.spec.image_id) {
        Err(ImageError::NotFound { .. }) => 0,
        record => {
            let image = images.open(&record?.target, &Platform::host())?;
            images.layer_sizes([&image])?.total(&image)
        }
    };
    Ok(Sizes { written, whole: written + below })
}

fn row(container: &Container, whole: bool, size_of: Option<Sizes>) -> Value {
    let now = unix_now();
    let spec = &container.state.spec;
    let labels: Vec<String> =
        spec.config.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let binds = spec.binds.iter().map(|bind| bind.source.as_str());
    let mounts: Vec<&str> = binds.chain(spec.volumes.iter().map(|volume| volume.name.as_str())).collect();
    let size_of = size_of.map_or_else(
        || "0B".to_owned(),
        |Sizes { written, whole }| format!("{} (virtual {})", size(written), size(whole)),
    );
    let attached: Vec<&str> =
        spec.network.attachments().iter().map(|attachment| attachment.network.as_str()).collect();
    let networks_of = match &spec.network {
        NetworkMode::Networks(_) => attached.join(","),
        mode => mode.to_string(),
    };
    json!({
        "ID": if whole { container.id.as_str() } else { container.short_id() },
        "Image": spec.image,
        "Command": command(container, whole),
        "CreatedAt": go_time(container.created),
        "RunningFor": ago(now, container.created),
        "Ports": networks::column(container),
        "State": container.state.status.name(),
        "Status": status(container, now),
        "Size": size_of,
        "Names": container.name,
        "Labels": labels.join(","),
        "Mounts": mounts.join(","),
        "Networks": networks_of,
        "LocalVolumes": spec.volumes.len().to_string(),
    })
}

/// The command line, in quotes.
pub(crate) fn command(container: &Container, whole: bool) -> String {
    let command = container.state.spec.args().join(" ");
    format!("\"{}\"", if whole { command } else { shorten(&command, COMMAND_CHARS_MAX) })
}

/// As Docker words it: `Up 3 minutes (healthy)`, `Exited (0) 2 hours ago`.
pub(crate) fn status(container: &Container, now: i64) -> String {
    let since = |nanoseconds: i64| duration((now - nanoseconds / NS_PER_SECOND).max(0));
    match &container.state.status {
        Status::Created => "Created".to_owned(),
        Status::Running(run) => format!("Up {}{}", since(run.started), health(container)),
        Status::Paused(run) => format!("Up {} (Paused)", since(run.started)),
        Status::Restarting { code, run } => format!("Restarting ({code}) {} ago", since(run.started)),
        Status::Exited(ended) => format!("Exited ({}) {} ago", ended.code, since(ended.finished)),
        Status::Removing => "Removal In Progress".to_owned(),
    }
}

fn health(container: &Container) -> &'static str {
    match container.state.health.as_ref().map(|health| health.status) {
        None => "",
        Some(HealthStatus::Starting) => " (health: starting)",
        Some(HealthStatus::Healthy) => " (healthy)",
        Some(HealthStatus::Unhealthy) => " (unhealthy)",
    }
}
