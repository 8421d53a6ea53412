//! The commands on containers: Docker's names, words and exit codes.

mod attended;
mod cp;
mod create;
mod exec;
mod files;
mod isolation;
mod lifecycle;
mod limits;
mod logs;
mod monitor;
mod networks;
mod pipes;
mod ps;
mod run;
mod session;
mod stats;
mod terminal;
mod top;
mod update;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};
use rbuild_container::{Container, ContainerError, Containers};
use rbuild_executor::Stream;

pub(crate) use self::attended::attended;
pub(crate) use self::create::labels;
pub(crate) use self::lifecycle::{deleted, remove_stopped};
pub(crate) use self::monitor::monitor_hook;
pub(crate) use self::networks::{endpoint, host_addresses, private};
pub(crate) use self::ps::{command, sizes, status};
use super::print;
use crate::app::App;
use crate::args::{ContainerCommand, ContainersCommand};
use crate::report::{Failure, Kind, OUTPUT_LOST};

/// Docker's exit code for a container that could not be created.
pub(crate) const EXIT_CANNOT_RUN: u8 = 125;
/// Docker's exit code for everything else that fails.
const EXIT_FAILED: u8 = 1;
/// How many containers are waited for at once, as with Docker.
const AT_ONCE_MAX: usize = 50;

/// `rbuild container …`.
pub(crate) fn container(app: &App, command: &ContainerCommand) -> Result<u8, Failure> {
    match command {
        ContainerCommand::Same(command) => run(app, command),
        ContainerCommand::Ls(args) => ps::ps(app, args),
        ContainerCommand::Inspect(args) => super::inspect::containers(app, args),
        ContainerCommand::Prune(args) => lifecycle::prune(app, args),
    }
}

pub(crate) fn run(app: &App, command: &ContainersCommand) -> Result<u8, Failure> {
    match command {
        ContainersCommand::Run(args) => run::run(app, args),
        ContainersCommand::Create(args) => create::create(app, args),
        ContainersCommand::Start(args) => run::start(app, args),
        ContainersCommand::Exec(args) => exec::exec(app, args),
        ContainersCommand::Attach(args) => run::attach(app, args),
        ContainersCommand::Ps(args) => ps::ps(app, args),
        ContainersCommand::Port(args) => networks::port(app, args),
        ContainersCommand::Top(args) => top::top(app, args),
        ContainersCommand::Update(args) => update::update(app, args),
        ContainersCommand::Logs(args) => logs::logs(app, args),
        ContainersCommand::Stop(args) => lifecycle::stop(app, args),
        ContainersCommand::Kill(args) => lifecycle::kill(app, args),
        ContainersCommand::Pause(args) => lifecycle::pause(app, args),
        ContainersCommand::Unpause(args) => lifecycle::unpause(app, args),
        ContainersCommand::Restart(args) => run::restart(app, args),
        ContainersCommand::Wait(args) => lifecycle::wait(app, args),
        ContainersCommand::Rm(args) => lifecycle::rm(app, args),
        ContainersCommand::Rename(args) => lifecycle::rename(app, args),
        ContainersCommand::Cp(args) => leased(app, || cp::cp(app, args)),
        ContainersCommand::Stats(args) => stats::stats(app, args),
        ContainersCommand::Diff(args) => leased(app, || files::diff(app, args)),
        ContainersCommand::Commit(args) => leased(app, || files::commit(app, args)),
        ContainersCommand::Export(args) => leased(app, || files::export(app, args)),
    }
}

/// Does what reads layers of a container or makes one: these stay meanwhile, even if somebody removes the container.
fn leased(app: &App, action: impl FnOnce() -> Result<u8, Failure>) -> Result<u8, Failure> {
    let _lease = app.store()?.lease()?;
    action()
}

/// The containers of the store.
fn containers(app: &App) -> Result<Containers, Failure> {
    Ok(Containers::new(app.store()?.clone()))
}

/// Does something with each container that was named, and says which. All are tried; the last failure counts, the others are shown.
fn for_each(
    app: &App,
    names: &[String],
    mut action: impl FnMut(&Containers, &Container) -> Result<(), ContainerError>,
) -> Result<u8, Failure> {
    let containers = containers(app)?;
    each(names, |name| {
        let container = containers.find(name).map_err(failure)?;
        action(&containers, &container).map_err(failure)?;
        print(&format!("{name}\n"))
    })
}

/// The same, for what is not only a container.
pub(crate) fn each(
    names: &[String],
    mut action: impl FnMut(&str) -> Result<(), Failure>,
) -> Result<u8, Failure> {
    let mut failed: Option<Failure> = None;
    for name in names {
        if let Err(failure) = action(name)
            && let Some(before) = failed.replace(failure)
        {
            before.show(crate::app::color());
        }
    }
    failed.map_or(Ok(0), Err)
}

/// The same of many at once, where the time goes by in waiting: with each container once, by whatever names. What was done is said in the
/// order of the names.
fn for_each_at_once(
    app: &App,
    names: &[String],
    action: impl Fn(&Containers, &Container) -> Result<(), Failure> + Sync,
) -> Result<u8, Failure> {
    let containers = containers(app)?;
    let found: Vec<_> = names.iter().map(|name| containers.find(name).map_err(failure)).collect();
    let distinct: BTreeMap<&str, &Container> =
        found.iter().flatten().map(|container| (container.id.as_str(), container)).collect();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(distinct.len().min(AT_ONCE_MAX)).build();
    let pool = pool.map_err(|error| Failure::caused_by(Kind::Environment, &error))?;
    let act = |(id, container): (&&str, &&Container)| ((*id).to_owned(), action(&containers, container));
    let mut done: BTreeMap<String, Result<(), Failure>> =
        pool.install(|| distinct.par_iter().map(act).collect());
    let failed: BTreeSet<String> =
        done.iter().filter(|(_, done)| done.is_err()).map(|(id, _)| id.clone()).collect();
    let mut found = found.into_iter();
    each(names, |name| {
        let Some(container) = found.next().transpose()? else { return Ok(()) };
        match done.remove(&container.id) {
            Some(Err(failure)) => Err(failure),
            // Said already, of another of its names.
            None if failed.contains(&container.id) => Ok(()),
            _ => print(&format!("{name}\n")),
        }
    })
}

/// Output of a container that could not be written, though somebody reads it.
fn unwritten(stream: Stream, error: &io::Error) -> Failure {
    let name = if stream == Stream::Stdout { "output" } else { "error" };
    Failure::new(Kind::Run(EXIT_FAILED), format!("{OUTPUT_LOST}{name}: {error}"))
}

/// As Docker: 1, or the code of a program that is not there or cannot be executed.
pub(crate) fn failure(error: ContainerError) -> Failure {
    coded(error, EXIT_FAILED)
}

/// The same of a container that is to be run.
fn run_failure(error: ContainerError) -> Failure {
    coded(error, EXIT_CANNOT_RUN)
}

fn coded(error: ContainerError, otherwise: u8) -> Failure {
    let code = error.program_exit_code().and_then(|code| u8::try_from(code).ok());
    Failure::caused_by(Kind::Run(code.unwrap_or(otherwise)), &error)
}
