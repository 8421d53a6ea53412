//! `rbuild ps` and `rbuild rm`.

use rbuild_container::{Container, ContainerError, Containers, Status};

use super::print;
use crate::app::{App, unix_now};
use crate::args::{PsArgs, RmArgs};
use crate::format::{ago, duration, shorten, table};
use crate::report::{Failure, Kind};

/// How much of a command line a list shows.
const COMMAND_CHARS_MAX: usize = 20;

pub(crate) fn ps(app: &App, args: &PsArgs) -> Result<u8, Failure> {
    let containers = Containers::new(app.store()?.clone()).list().map_err(failure)?;
    let shown = |container: &&Container| args.all || matches!(container.state.status, Status::Running { .. });
    let shown = containers.iter().filter(shown);
    if args.quiet {
        let ids: String = shown.map(|container| format!("{}\n", container.short_id())).collect();
        return print(&ids).map(|()| 0);
    }
    let mut rows =
        vec![["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAMES"].map(str::to_owned).to_vec()];
    rows.extend(shown.map(|container| row(container, unix_now())));
    print(&table(&rows)).map(|()| 0)
}

fn row(container: &Container, now: i64) -> Vec<String> {
    vec![
        container.short_id().to_owned(),
        container.state.image.clone(),
        format!("\"{}\"", shorten(&container.state.args.join(" "), COMMAND_CHARS_MAX)),
        ago(now, container.created),
        match container.state.status {
            Status::Created => "Created".to_owned(),
            Status::Running { started, .. } => format!("Up {}", duration((now - started).max(0))),
            Status::Exited { code, finished } => format!("Exited ({code}) {}", ago(now, finished)),
        },
        container.name.clone(),
    ]
}

pub(crate) fn rm(app: &App, args: &RmArgs) -> Result<u8, Failure> {
    let containers = Containers::new(app.store()?.clone());
    for name in &args.containers {
        let container = containers.find(name).map_err(failure)?;
        containers.remove(&container).map_err(failure)?;
        print(&format!("{name}\n"))?;
    }
    Ok(0)
}

/// Who is to blame for an error with containers.
pub(crate) fn failure(error: ContainerError) -> Failure {
    let kind = match &error {
        ContainerError::NotFound { .. }
        | ContainerError::Ambiguous { .. }
        | ContainerError::IsRunning { .. }
        | ContainerError::NoCommand => Kind::Input,
        ContainerError::State { .. }
        | ContainerError::Io { .. }
        | ContainerError::Store(_)
        | ContainerError::Executor(_) => Kind::Environment,
    };
    Failure::caused_by(kind, &error)
}
