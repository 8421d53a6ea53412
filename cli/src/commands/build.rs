//! `rbuild build`: from a Dockerfile to an image.
//!
//! Reads as the life of a build: settings, Dockerfile, lowering, solving, outputs.

mod annotation;
mod base;
mod build_args;
mod call;
mod failure;
mod input;
mod output;
mod proxy;
mod secret;
mod settings;
mod ssh;
mod steps;
mod ulimit;
mod volume;

use std::sync::Arc;

use rbuild_cache::Snapshot;
use rbuild_executor::{Executor, ExecutorOptions};
use rbuild_frontend::lower;
use rbuild_llb::Definition;
use rbuild_solver::local::{LocalWorker, LocalWorkerOptions, Pins};
use rbuild_solver::{SolveOptions, record_content_keys, solve};

pub(crate) use base::NoImages;
pub(crate) use call::Call;
pub(crate) use steps::extra_host;

use self::failure::Blame;
use self::input::{Input, Remote, Trees};
use self::output::Built;
use self::settings::Settings;
use crate::app::{self, App};
use crate::args::BuildArgs;
use crate::progress::Progress;
use crate::report::{Failure, Kind, eprint};

pub(crate) fn run(app: &App, args: &BuildArgs) -> Result<u8, Failure> {
    let cancel = app.cancel_on_interrupt()?;
    let settings = Settings::new(args)?;
    if !settings.quiet {
        eprint(settings.steps.warnings());
    }
    let progress = Progress::start(settings.progress, app::terminal());
    let remote = Remote::new(app, &settings, &progress);
    let input = Input::read(&settings, &remote)?;
    let blame = Blame { input: &input, progress: &progress };
    if let Call::Question(question) = settings.call {
        return call::answer(question, &remote, &blame);
    }
    let result = build(app, &settings, &input, &remote, &progress, &cancel, &blame);
    progress.finish();
    eprint(&result?);
    Ok(0)
}

#[expect(clippy::too_many_arguments, reason = "the cast of the story, each named once")]
fn build(
    app: &App,
    settings: &Settings,
    input: &Input,
    remote: &Remote<'_>,
    progress: &Progress,
    cancel: &std::sync::atomic::AtomicBool,
    blame: &Blame<'_>,
) -> Result<String, Failure> {
    let images = app.images()?;
    let lease = images.store().lease()?;
    let resolver = remote.resolver(&input.trees)?;
    let lowered = settings
        .frontend(input)
        .iter()
        .map(|options| lower(&input.dockerfile, options, &resolver))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| blame.frontend(&error))?;
    let warnings = blame.warnings(&lowered, settings);
    let definition = Definition::join(lowered.iter().map(|lowered| lowered.definition.clone()))
        .map_err(|error| Failure::caused_by(Kind::Input, &error))?;
    let executor = Executor::new(ExecutorOptions::default())
        .map_err(|error| Failure::caused_by(Kind::Environment, &error))?;
    let pool = app.pool()?;
    let worker = worker_options(app, settings, &input.trees, remote.pins());
    let worker = LocalWorker::new(images, &executor, pool, worker);
    let options = SolveOptions { jobs: settings.jobs, entitlements: settings.steps.entitlements };
    let solved =
        solve(&definition, &worker, &options, progress, cancel).map_err(|error| blame.solve(error))?;
    let snapshots = solved.outputs.into_iter().map(|output| output.unwrap_or_else(Snapshot::empty));
    let mut built: Vec<Built> = lowered.into_iter().zip(snapshots).map(Built::from).collect();
    if settings.squash {
        built.iter_mut().try_for_each(|built| built.squash(images.store(), &settings.created))?;
    }
    output::write(app, settings, &built, progress)?;
    // The result is out; what later builds find it by under other inputs is still to be noted. Without it they run more.
    drop(record_content_keys(&definition, &worker, &solved.unkeyed, cancel));
    drop(lease);
    Ok(warnings)
}

fn worker_options(app: &App, settings: &Settings, trees: &Trees, pins: &Arc<Pins>) -> LocalWorkerOptions {
    LocalWorkerOptions {
        contexts: trees.contexts.clone(),
        layouts: trees.layouts.clone(),
        git: app::git_options(),
        pins: Arc::clone(pins),
        network: settings.steps.network_default(),
        now_ns: app::unix_now_ns(),
        single_id: app.single_id(),
        secrets: settings.steps.secrets.clone(),
        volumes: settings.steps.volumes.clone(),
        ssh: settings.steps.ssh.all.clone(),
    }
}
