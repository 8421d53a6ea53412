//! `rbuild volume`: directories that outlive containers.

use rbuild_container::{ANONYMOUS_LABEL, ContainerError, Volume, Volumes, generate_id};
use serde_json::{Value, json};

use super::container::{deleted, each, failure, labels};
use super::filter::ObjectFilters;
use super::print;
use crate::app::{App, unix_now};
use crate::args::{
    VolumeCommand, VolumeCreateArgs, VolumeInspectArgs, VolumeLsArgs, VolumePruneArgs, VolumeRmArgs,
};
use crate::format::{rfc3339, size};
use crate::report::{Failure, Kind};
use crate::template;

pub(crate) fn run(app: &App, command: &VolumeCommand) -> Result<u8, Failure> {
    match command {
        VolumeCommand::Create(args) => create(app, args),
        VolumeCommand::Ls(args) => ls(app, args),
        VolumeCommand::Inspect(args) => inspect(app, args),
        VolumeCommand::Rm(args) => rm(app, args),
        VolumeCommand::Prune(args) => prune(app, args),
    }
}

fn volumes(app: &App) -> Result<Volumes, Failure> {
    Ok(Volumes::new(app.store()?.clone()))
}

fn create(app: &App, args: &VolumeCreateArgs) -> Result<u8, Failure> {
    let mut labels = labels(&args.labels);
    let name = match &args.name {
        Some(name) => name.clone(),
        None => {
            labels.insert(ANONYMOUS_LABEL.to_owned(), String::new());
            generate_id().map_err(failure)?
        }
    };
    volumes(app)?.create(&name, labels).map_err(failure)?;
    print(&format!("{name}\n")).map(|()| 0)
}

fn ls(app: &App, args: &VolumeLsArgs) -> Result<u8, Failure> {
    let volumes = volumes(app)?;
    let row = |volume: &Volume| {
        let labels: Vec<String> =
            volume.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        json!({
            "Driver": "local", "Name": volume.name, "Scope": "local", "Labels": labels.join(","),
            "Mountpoint": volumes.data(&volume.name),
        })
    };
    let in_use = volumes.in_use().map_err(failure)?;
    let mut rows: Vec<Value> = Vec::new();
    for volume in volumes.list().map_err(failure)? {
        if selects(&args.filters, &volume, in_use.contains_key(&volume.name))? {
            rows.push(row(&volume));
        }
    }
    let format = match (&args.format, args.quiet) {
        (_, true) => "{{.Name}}",
        (Some(format), _) if format != "table" => format,
        _ => "table {{.Driver}}\t{{.Name}}",
    };
    let headings = json!({
        "Driver": "DRIVER", "Name": "VOLUME NAME", "Scope": "SCOPE", "Labels": "LABELS",
        "Mountpoint": "MOUNTPOINT",
    });
    let text =
        template::list(format, &headings, &rows).map_err(|error| Failure::caused_by(Kind::Run(1), &error))?;
    print(&text).map(|()| 0)
}

fn inspect(app: &App, args: &VolumeInspectArgs) -> Result<u8, Failure> {
    super::inspect::show_each(args.format.as_deref(), &args.volumes, |name| {
        super::inspect::inspected(find(app, name)?)
    })
}

/// What is known of the volume of this name.
pub(super) fn find(app: &App, name: &str) -> Result<Result<Value, ContainerError>, Failure> {
    let volumes = volumes(app)?;
    let show = |volume: Volume| {
        json!({
            "CreatedAt": rfc3339(volume.created), "Driver": "local", "Labels": volume.labels,
            "Mountpoint": volumes.data(name), "Name": volume.name, "Options": null, "Scope": "local",
        })
    };
    Ok(volumes.get(name).map(show))
}

fn rm(app: &App, args: &VolumeRmArgs) -> Result<u8, Failure> {
    let volumes = volumes(app)?;
    each(&args.volumes, |name| match volumes.remove(name) {
        Err(ContainerError::NoSuchVolume { .. }) if args.force => Ok(()),
        removed => removed.map_err(failure).and_then(|()| print(&format!("{name}\n"))),
    })
}

fn prune(app: &App, args: &VolumePruneArgs) -> Result<u8, Failure> {
    let filters = ObjectFilters::parse(&args.objects.filters, unix_now())?;
    let (names, freed) = remove_unused(app, args.all, &filters)?;
    print(&format!("{}Total reclaimed space: {}\n", deleted("Volumes", &names), size(freed))).map(|()| 0)
}

/// Removes volumes that no container uses: those that nobody named, or all. Their names, a line each, and the room that they took,
/// in bytes.
///
/// # Errors
/// When one cannot be removed.
pub(crate) fn remove_unused(app: &App, all: bool, filters: &ObjectFilters) -> Result<(String, u64), Failure> {
    let volumes = volumes(app)?;
    let (mut names, mut freed) = (String::new(), 0);
    for volume in volumes.list().map_err(failure)? {
        let is_wanted = all || volume.labels.contains_key(ANONYMOUS_LABEL);
        if !is_wanted || !filters.selects(volume.created, &volume.labels) {
            continue;
        }
        let size_bytes = volumes.disk_size_bytes(&volume.name).map_err(failure)?;
        match volumes.remove(&volume.name) {
            // It is in use, or somebody else was faster.
            Err(ContainerError::VolumeInUse { .. } | ContainerError::NoSuchVolume { .. }) => {}
            removed => {
                removed.map_err(failure)?;
                names += &format!("{}\n", volume.name);
                freed += size_bytes;
            }
        }
    }
    Ok((names, freed))
}

/// Whether a volume is one of those that `--filter` asks for.
fn selects(filters: &[String], volume: &Volume, is_used: bool) -> Result<bool, Failure> {
    for filter in filters {
        let is_met = match filter.split_once('=') {
            Some(("dangling", wanted)) => is_used != matches!(wanted, "true" | "1"),
            Some(("name", part)) => volume.name.contains(part),
            Some(("driver", name)) => name == "local",
            Some(("label", _)) => {
                ObjectFilters::parse(std::slice::from_ref(filter), 0)?.selects(volume.created, &volume.labels)
            }
            _ => return Err(Failure::new(Kind::Run(1), format!("invalid filter '{filter}'"))),
        };
        if !is_met {
            return Ok(false);
        }
    }
    Ok(true)
}
