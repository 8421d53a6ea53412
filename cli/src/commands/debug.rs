//! A shell in a step: `rbuild debug` for any step of a past build, `--on-error=shell` for the one that just failed.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};

use rbuild_executor::{Executor, ExecutorOptions, Exit};
use rbuild_llb::{Definition, VertexId};
use rbuild_solver::local::{
    History, LocalContext, LocalWorker, LocalWorkerOptions, Moment, StepError, WorkerError,
};
use rbuild_solver::{CacheKey, SolveError, VertexRef};
use rustix::fs::{FileType, fstat};

use super::build::failure::worker;
use super::container::attended;
use crate::app::{self, App};
use crate::args::DebugArgs;
use crate::history::find;
use crate::report::{Failure, Kind, eprint};

pub(crate) fn run(app: &App, args: &DebugArgs) -> Result<u8, Failure> {
    needs_input("`rbuild debug`")?;
    let store = app.store()?;
    let (found, word) = find::build_and_step(store, &args.step.words)?;
    let word = word.ok_or_else(|| {
        Failure::new(Kind::Input, "which step?").hint("`rbuild builds inspect` lists the steps of a build")
    })?;
    let step = find::step(&found.document, word)?;
    let definition = found.document.definition.as_ref().ok_or_else(|| {
        Failure::new(Kind::Input, format!("build `{}` ended before it had a graph", found.name.id()))
    })?;
    let lease = store.lease()?;
    let executor = Executor::new(ExecutorOptions::default())
        .map_err(|error| Failure::caused_by(Kind::Environment, &error))?;
    let contexts = found.document.contexts.iter();
    let options = LocalWorkerOptions {
        makes_images: false,
        shared: Default::default(),
        contexts: contexts
            .map(|(name, path)| (name.clone(), LocalContext::directory(path.clone())))
            .collect(),
        layouts: BTreeMap::new(),
        networks: app.networks(),
        may_use_host_network: false,
        confinement: Default::default(),
        trust: super::trust(&[])?,
        limits: Default::default(),
        now_ns: app::unix_now_ns(),
        single_id: app.single_id(),
        secrets: Default::default(),
        volumes: Vec::new(),
        ssh: Default::default(),
        git: app.git_options(),
        keep_failed: false,
        history: History::default(),
        pins: Default::default(),
    };
    let worker = LocalWorker::new(app.images()?, &executor, app.pool()?, options);
    let moment = if args.after { Moment::After } else { Moment::Before };
    let code = shell(&worker, definition, step.vertex, |vertex| found.document.key(vertex), moment)?;
    drop(lease);
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

/// Opens a shell on what a failed step left; says why not where that cannot be.
pub(crate) fn after_failure(
    worker: &LocalWorker<'_>,
    definition: &Definition,
    key_of: impl Fn(VertexId) -> Option<CacheKey>,
    error: &mut SolveError<WorkerError>,
) {
    let SolveError::Vertex { vertex, name, source, .. } = error else { return };
    let WorkerError::Step(StepError::Process { left, .. }) = source else { return };
    let Some(left) = left.take() else { return };
    eprint(&format!("{name} failed: a shell where it ran; the build ends with it\n"));
    if let Err(failure) = shell(worker, definition, *vertex, key_of, Moment::Failed(left)) {
        failure.show(app::color());
    }
}

/// A shell needs someone to type.
///
/// # Errors
/// When standard input is neither a terminal nor something with a script in it.
pub(crate) fn needs_input(what: &str) -> Result<(), Failure> {
    let has_script = || {
        fstat(io::stdin()).is_ok_and(|stat| {
            matches!(
                FileType::from_raw_mode(stat.st_mode),
                FileType::Fifo | FileType::RegularFile | FileType::Socket
            )
        })
    };
    if io::stdin().is_terminal() || has_script() {
        return Ok(());
    }
    Err(Failure::new(Kind::Input, format!("{what} needs a terminal, or a script on standard input")))
}

fn shell(
    local: &LocalWorker<'_>,
    definition: &Definition,
    vertex: VertexId,
    key_of: impl Fn(VertexId) -> Option<CacheKey>,
    moment: Moment,
) -> Result<i32, Failure> {
    let step = VertexRef { definition, id: vertex };
    let exit = local.shell(step, key_of, moment, attended).map_err(|error| worker(&error))?;
    exit.map(Exit::code)
}
