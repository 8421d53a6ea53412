//! The commands that change how containers fare: `stop`, `kill`, `pause`, `unpause`, `wait`, `rm`, `rename`, `prune`.

use rbuild_container::{Container, ContainerError, Containers, KILL, Stop};

use super::create::stop_signal;
use super::{EXIT_FAILED, containers, each, failure, for_each, for_each_at_once};
use crate::app::{App, color, unix_now};
use crate::args::{ContainersArgs, KillArgs, ObjectPruneArgs, RenameArgs, RmArgs, StopArgs};
use crate::commands::filter::ObjectFilters;
use crate::commands::print;
use crate::format::size;
use crate::report::{Failure, Kind, eprint};

/// How often a container is ended and removed that others start meanwhile. Each try waits for them a little.
const FORCED_TRIES_MAX: u32 = 100;

pub(super) fn stop(app: &App, args: &StopArgs) -> Result<u8, Failure> {
    let stop = Stop { signal: stop_signal(args.signal.as_ref())?, timeout_seconds: args.time };
    for_each_at_once(app, &args.containers, |containers, container| {
        containers.stop(container, stop).map_err(failure)
    })
}

pub(super) fn kill(app: &App, args: &KillArgs) -> Result<u8, Failure> {
    let refused = |name: &str, why: String| {
        Failure::new(Kind::Run(EXIT_FAILED), format!("cannot kill container: {name}: {why}"))
    };
    let containers = containers(app)?;
    each(&args.containers, |name| {
        let container = containers.find(name).map_err(|error| refused(name, error.to_string()))?;
        let signal = stop_signal(Some(&args.signal)).map_err(|failure| refused(name, failure.message))?;
        let signal = signal.unwrap_or(KILL);
        containers.kill(&container, signal).map_err(failure)?;
        if signal == KILL {
            // Who sends this one wants it gone, and finds it gone.
            gone(containers.wait(&container)).map_err(failure)?;
        }
        print(&format!("{name}\n"))
    })
}

/// A container that removes itself is as good as one that has stopped.
fn gone(waited: Result<i32, ContainerError>) -> Result<(), ContainerError> {
    match waited {
        Err(ContainerError::NotFound { .. }) => Ok(()),
        waited => waited.map(drop),
    }
}

pub(super) fn pause(app: &App, args: &ContainersArgs) -> Result<u8, Failure> {
    for_each(app, &args.containers, |containers, container| {
        if let Some(note) = containers.pause(container)? {
            eprint(&format!("WARNING: {note}\n"));
        }
        Ok(())
    })
}

pub(super) fn unpause(app: &App, args: &ContainersArgs) -> Result<u8, Failure> {
    for_each(app, &args.containers, Containers::unpause)
}

pub(super) fn wait(app: &App, args: &ContainersArgs) -> Result<u8, Failure> {
    let containers = containers(app)?;
    each(&args.containers, |name| {
        let container = containers.find(name).map_err(failure)?;
        let code = containers.wait(&container).map_err(failure)?;
        print(&format!("{code}\n"))
    })
}

pub(super) fn rm(app: &App, args: &RmArgs) -> Result<u8, Failure> {
    let containers = containers(app)?;
    each(&args.containers, |name| {
        let removed = containers.find(name).and_then(|container| remove(&containers, &container, args));
        match removed {
            // As Docker: said, and no failure.
            Err(error @ ContainerError::NotFound { .. }) if args.force => {
                failure(error).show(color());
                Ok(())
            }
            removed => removed.map_err(failure).and_then(|()| print(&format!("{name}\n"))),
        }
    })
}

fn remove(containers: &Containers, container: &Container, args: &RmArgs) -> Result<(), ContainerError> {
    let remove = if args.volumes { Containers::remove_with_volumes } else { Containers::remove };
    let kill = Stop { signal: Some(KILL), timeout_seconds: None };
    let mut found = Ok(container.clone());
    let mut tries = 1;
    loop {
        let removed = found.and_then(|now| {
            let runs = args.force && now.state.status.is_active();
            if runs {
                containers.stop(&now, kill)?;
            }
            remove(containers, &now)
        });
        match removed {
            // It has removed itself, or somebody else was faster.
            Err(ContainerError::NotFound { .. }) if args.force => return Ok(()),
            // Somebody starts it at this moment.
            Err(ContainerError::Illegal { .. }) if args.force && tries < FORCED_TRIES_MAX => tries += 1,
            removed => return removed,
        }
        found = containers.get(&container.id);
    }
}

pub(super) fn rename(app: &App, args: &RenameArgs) -> Result<u8, Failure> {
    let containers = containers(app)?;
    let container = containers.find(&args.container).map_err(failure)?;
    let refused = |message: String| Failure::new(Kind::Run(EXIT_FAILED), message);
    if container.name == args.name {
        return Err(refused("Renaming a container with the same name as its current name".to_owned()));
    }
    let renamed = containers.rename(&container, &args.name);
    renamed.map_err(|error| refused(format!("Error when allocating new name: {error}"))).map(|()| 0)
}

pub(super) fn prune(app: &App, args: &ObjectPruneArgs) -> Result<u8, Failure> {
    let filters = ObjectFilters::parse(&args.filters, unix_now())?;
    let (ids, freed) = remove_stopped(app, &filters)?;
    print(&format!("{}Total reclaimed space: {}\n", deleted("Containers", &ids), size(freed))).map(|()| 0)
}

/// Removes containers that do not run. Their ids, a line each, and the room that they took, in bytes.
///
/// # Errors
/// When one cannot be removed.
pub(crate) fn remove_stopped(app: &App, filters: &ObjectFilters) -> Result<(String, u64), Failure> {
    let containers = containers(app)?;
    let (mut ids, mut freed) = (String::new(), 0);
    for container in containers.list().map_err(failure)? {
        let selected = filters.selects(container.created, &container.state.spec.config.labels);
        if container.state.status.is_active() || !selected {
            continue;
        }
        let size_bytes = containers.disk_size_bytes(&container).map_err(failure)?;
        match containers.remove(&container) {
            // Somebody has started it meanwhile, or was faster.
            Err(ContainerError::Illegal { .. } | ContainerError::NotFound { .. }) => {}
            removed => {
                removed.map_err(failure)?;
                ids += &format!("{}\n", container.id);
                freed += size_bytes;
            }
        }
    }
    Ok((ids, freed))
}

/// What was removed, under Docker's heading.
pub(crate) fn deleted(kind: &str, names: &str) -> String {
    if names.is_empty() { String::new() } else { format!("Deleted {kind}:\n{names}\n") }
}

/// Whether a container has a label, with that value where one is given.
pub(super) fn has_label(container: &Container, label: &str) -> bool {
    let labels = &container.state.spec.config.labels;
    match label.split_once('=') {
        Some((name, value)) => labels.get(name).is_some_and(|found| found == value),
        None => labels.contains_key(label),
    }
}
