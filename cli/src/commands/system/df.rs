//! `rbuild system df`: what images, containers, volumes and the cache take on disk; with `-v` each of them.

use rbuild_cache::prune::{Item, ItemKind, Usage};
use rbuild_container::{Container, Containers, Volumes};
use serde_json::{Value, json};

use crate::app::{App, unix_now};
use crate::args::DfArgs;
use crate::commands::filter::type_name;
use crate::commands::{container, print, templated};
use crate::format::{SIZE_DIGITS, ago, size, size_of_digits, table};
use crate::report::Failure;
use crate::template;

/// What is kept of builds.
const CACHE: &str = "Build Cache";

const TABLE: &str = "table {{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}";

/// One line of `df`.
struct Line {
    kind: &'static str,
    total: usize,
    active: usize,
    size_bytes: u64,
    reclaimable_bytes: u64,
}

pub(super) fn df(app: &App, args: &DfArgs) -> Result<u8, Failure> {
    let store = app.store()?;
    let usage = store.usage()?;
    let containers = Containers::new(store.clone());
    let volumes = Volumes::new(store.clone());
    if args.verbose {
        return print(&in_full(&usage, &containers, &volumes)?).map(|()| 0);
    }
    let lines = [
        images_line(&usage, &containers)?,
        containers_line(&containers)?,
        volumes_line(&volumes)?,
        cache_line(&usage),
    ];
    let format = args.format.as_deref().filter(|format| *format != "table").unwrap_or(TABLE);
    let headings = json!({
        "Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE",
    });
    let rows: Vec<Value> = lines.iter().map(Line::as_json).collect();
    print(&template::list(format, &headings, &rows).map_err(templated)?).map(|()| 0)
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
        kind: CACHE,
        total: items.clone().count(),
        active: items.filter(|item| !item.is_reclaimable()).count(),
        size_bytes: usage.cache_bytes,
        reclaimable_bytes: usage.reclaimable_bytes,
    }
}

impl Line {
    /// In Docker's words, all of them text.
    fn as_json(&self) -> Value {
        let percent = (self.reclaimable_bytes * 100).checked_div(self.size_bytes);
        // Docker tells no share of the cache.
        let percent = percent.filter(|_| self.kind != CACHE).map(|percent| format!(" ({percent}%)"));
        let size = |bytes| size_of_digits(bytes, SIZE_DIGITS);
        json!({
            "Type": self.kind,
            "TotalCount": self.total.to_string(),
            "Active": self.active.to_string(),
            "Size": size(self.size_bytes),
            "Reclaimable": size(self.reclaimable_bytes) + &percent.unwrap_or_default(),
        })
    }
}

fn in_full(usage: &Usage, containers: &Containers, volumes: &Volumes) -> Result<String, Failure> {
    let all = containers.list().map_err(container::failure)?;
    let section = |title: &str, header: &[&str], mut rows: Vec<Vec<String>>| {
        rows.insert(0, header.iter().map(|&name| name.to_owned()).collect());
        format!("{title}:\n\n{}\n", table(&rows))
    };
    let cache = format!("Build cache usage: {}\n\n", size_of_digits(usage.cache_bytes, SIZE_DIGITS));
    let cache_header = ["CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "LAST USED", "SHARED"];
    let mut cache_rows = cache_rows(usage);
    cache_rows.insert(0, cache_header.map(str::to_owned).to_vec());
    Ok(section(
        "Images space usage",
        &["IMAGE", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"],
        image_rows(usage, &all),
    ) + &section(
        "Containers space usage",
        &["CONTAINER ID", "IMAGE", "COMMAND", "LOCAL VOLUMES", "SIZE", "CREATED", "STATUS", "NAMES"],
        container_rows(containers, &all)?,
    ) + &section("Local Volumes space usage", &["VOLUME NAME", "LINKS", "SIZE"], volume_rows(volumes)?)
        + &cache
        + &table(&cache_rows))
}

fn image_rows(usage: &Usage, containers: &[Container]) -> Vec<Vec<String>> {
    let images = usage.items.iter().filter(|item| item.kind == ItemKind::Image);
    let precise = |bytes| size_of_digits(bytes, SIZE_DIGITS);
    let row = |image: &Item| {
        let users = containers.iter().filter(|it| it.state.spec.image_id.contains(image.id.as_str()));
        vec![
            image.description.clone(),
            image.id.clone(),
            ago(unix_now(), image.created),
            size(image.size_bytes()),
            precise(image.shared_bytes),
            precise(image.private_bytes),
            users.count().to_string(),
        ]
    };
    images.map(row).collect()
}

fn container_rows(containers: &Containers, all: &[Container]) -> Result<Vec<Vec<String>>, Failure> {
    let row = |it: &Container| {
        let spec = &it.state.spec;
        let size_bytes = containers.disk_size_bytes(it).map_err(container::failure)?;
        Ok(vec![
            it.short_id().to_owned(),
            spec.image.clone(),
            container::command(it, false),
            spec.volumes.len().to_string(),
            size(size_bytes),
            ago(unix_now(), it.created),
            container::status(it, unix_now()),
            it.name.clone(),
        ])
    };
    all.iter().map(row).collect()
}

fn volume_rows(volumes: &Volumes) -> Result<Vec<Vec<String>>, Failure> {
    let in_use = volumes.in_use().map_err(container::failure)?;
    let mut rows = Vec::new();
    for volume in volumes.list().map_err(container::failure)? {
        let size_bytes = volumes.disk_size_bytes(&volume.name).map_err(container::failure)?;
        let links = in_use.get(&volume.name).map_or(0, Vec::len);
        rows.push(vec![volume.name, links.to_string(), size(size_bytes)]);
    }
    Ok(rows)
}

fn cache_rows(usage: &Usage) -> Vec<Vec<String>> {
    let items = usage.items.iter().filter(|item| item.kind != ItemKind::Image);
    let row = |item: &Item| {
        vec![
            item.id.clone(),
            type_name(item.kind).to_owned(),
            size(item.size_bytes()),
            ago(unix_now(), item.created),
            ago(unix_now(), item.last_used),
            (item.shared_bytes > 0).to_string(),
        ]
    };
    items.map(row).collect()
}
