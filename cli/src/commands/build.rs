//! `rbuild build`: from a Dockerfile to an image.
//!
//! Reads as the life of a build: settings, Dockerfile, lowering, solving, outputs.

mod annotation;
mod attempt;
mod attestation;
mod base;
mod build_args;
mod cache_size;
mod call;
pub(crate) mod failure;
mod input;
mod limits;
mod output;
mod proxy;
mod secret;
mod settings;
mod shared;
mod ssh;
mod steps;
pub(crate) mod ulimit;
mod volume;

use std::sync::Arc;

use rbuild_cache::Snapshot;
use rbuild_cache::prune::{CacheLimit, Overflow};
use rbuild_executor::{Executor, ExecutorOptions};
use rbuild_frontend::{Lowered, lower};
use rbuild_image::Reference;
use rbuild_llb::{Definition, without_credentials};
use rbuild_solver::images::Images;
use rbuild_solver::local::{History, LocalWorker, LocalWorkerOptions, Pins};
use rbuild_solver::shared::{Finished, Tree};
use rbuild_solver::{SolveOptions, record_content_keys, solve};

pub(crate) use base::NoImages;
pub(crate) use call::Call;
pub(crate) use steps::{confinement, extra_host};

use self::attempt::Need;
use self::attestation::Witness;
use self::failure::Blame;
use self::input::{Input, Remote, Trees};
use self::output::Built;
use self::settings::Settings;
use self::shared::Shared;
use crate::app::{self, App};
use crate::args::BuildArgs;
use crate::commands::debug;
use crate::format::{size, visible};
use crate::history::{Header, Recorder, explanation};
use crate::progress::{Mode, Progress};
use crate::report::{Failure, Kind, eprint};

pub(crate) fn run(app: &App, args: &BuildArgs) -> Result<u8, Failure> {
    let cancel = app.cancel_on_interrupt()?;
    let settings = Settings::new(args)?;
    if !settings.quiet {
        eprint(&settings.steps.warnings);
    }
    if settings.shell_on_error {
        debug::needs_input("`--on-error=shell`")?;
    }
    let progress = Progress::start(settings.progress, app::terminal());
    if settings.explain {
        progress.explain();
    }
    let remote = Remote::new(app, &settings, &progress);
    let input = Input::read(&settings, &remote)?;
    let blame = Blame { input: &input, progress: &progress };
    if let Call::Question(question) = settings.call {
        return call::answer(question, &remote, &blame);
    }
    let store = app.store()?;
    // From before the first lookup until the results have names.
    let lease = store.lease()?;
    let collector = store.collect_garbage(cache_limit(app, &settings)?);
    let recorder = Recorder::begin(store, Arc::clone(&progress), header(&settings, &input));
    let result = build(app, &settings, &input, &remote, &recorder, &cancel, &blame);
    progress.finish();
    recorder.finish(result.as_ref().map(drop));
    // Contexts that were fetched or unpacked have the lease as well.
    drop((input, remote));
    let overflow = overflow(collector.finish(lease));
    if settings.explain && settings.progress != Mode::RawJson {
        eprint(&visible(&explanation(recorder.document().steps_as_shown())));
    }
    eprint(&overflow);
    eprint(&result?);
    Ok(0)
}

/// What the history says of a build.
fn header(settings: &Settings, input: &Input) -> Header {
    let context = without_credentials(&settings.context.to_string_lossy());
    let names: Vec<String> = settings.names.iter().map(ToString::to_string).collect();
    let contexts = input.trees.contexts.iter();
    Header {
        name: match (names.as_slice(), &settings.target) {
            ([], Some(target)) => target.clone(),
            ([], None) => context.clone(),
            (names, _) => names.join(" "),
        },
        dockerfile: without_credentials(&input.dockerfile_name),
        target: settings.target.clone(),
        contexts: contexts.map(|(name, context)| (name.clone(), context.path.clone())).collect(),
        context,
    }
}

/// What is built, for the comparison of one build with the next: a Dockerfile and its context.
fn project(settings: &Settings, input: &Input) -> String {
    let directory = input.trees.contexts.get(input::MAIN_CONTEXT).map(|context| context.path.clone());
    let context = directory.unwrap_or_else(|| settings.context.clone());
    let [context, file] = [context.to_string_lossy().into_owned(), input.dockerfile_name.clone()];
    format!("{}\n{}", without_credentials(&context), without_credentials(&file))
}

#[expect(clippy::too_many_arguments, reason = "the cast of the story, each named once")]
fn build(
    app: &App,
    settings: &Settings,
    input: &Input,
    remote: &Remote<'_>,
    recorder: &Recorder,
    cancel: &std::sync::atomic::AtomicBool,
    blame: &Blame<'_>,
) -> Result<String, Failure> {
    let resolver = remote.resolver(&input.trees)?;
    let lowered = settings
        .frontend(input)
        .iter()
        .map(|options| lower(&input.dockerfile, options, &resolver))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| blame.frontend_in_build(&error, settings))?;
    let findings = blame.findings_shown(&lowered, settings);
    make(app, settings, lowered, remote, recorder, cancel, blame)
        .map_err(|failure| Failure { findings, ..failure })
}

/// Makes of the graphs what is asked for, and returns what is to be said in the end.
#[expect(clippy::too_many_arguments, reason = "the cast of the story, each named once")]
fn make(
    app: &App,
    settings: &Settings,
    lowered: Vec<Lowered>,
    remote: &Remote<'_>,
    recorder: &Recorder,
    cancel: &std::sync::atomic::AtomicBool,
    blame: &Blame<'_>,
) -> Result<String, Failure> {
    let images = app.images()?;
    let input = blame.input;
    let resolver = remote.resolver(&input.trees)?;
    let (warnings, warning_documents) =
        (blame.warnings(&lowered, settings), blame.warning_documents(&lowered));
    let definition = definition(&lowered, settings.attestations.scans(&lowered, &resolver)?)?;
    let executor = Executor::new(ExecutorOptions::default())
        .map_err(|error| Failure::caused_by(Kind::Environment, &error))?;
    recorder.define(&definition);
    let history = History { project: project(settings, input), build: recorder.build().cloned() };
    let shared = Shared::open(app, settings)?;
    let worker = LocalWorkerOptions {
        shared: Arc::clone(&shared.from),
        makes_images: output::makes_images(settings, &lowered),
        ..worker_options(app, settings, &input.trees, remote.pins(), history)
    };
    let worker = LocalWorker::new(images, &executor, app.pool()?, worker);
    let options = SolveOptions { jobs: settings.jobs, entitlements: settings.steps.entitlements };
    let names = output::names(settings);
    let result_need = if shared.is_inline { Need::Files } else { need(settings, &lowered, images, &names) };
    // What scans found is read here.
    let need = |output: usize| if output < lowered.len() { result_need } else { Need::Files };
    let warnings = warnings + &shared.take_mounts(app, blame.progress, cancel);
    let mut solved = attempt::solve(&worker, &need, cancel, || {
        solve(&definition, &worker, &options, recorder, cancel).map_err(Box::new)
    })
    .map_err(|mut error| {
        if settings.shell_on_error {
            blame.progress.finish();
            debug::after_failure(&worker, &definition, |vertex| recorder.key(vertex), &mut error);
        }
        failure::without_network(blame.solve(*error), worker.network_lack(), settings)
    })?;
    worker.finish();
    let found = solved.outputs.split_off(lowered.len());
    let empty = || Tree::Here(Snapshot::empty());
    let trees = solved.outputs.iter().map(|output| output.clone().unwrap_or_else(empty));
    let mut built: Vec<Built> = lowered.into_iter().zip(trees).map(Built::from).collect();
    if settings.squash {
        built.iter_mut().try_for_each(|built| built.squash(images.store(), &settings.created))?;
    }
    let results: Vec<&Tree> = solved.outputs.iter().flatten().collect();
    let finished = Finished { definition: &definition, vertices: &solved.vertices, results: &results };
    if shared.is_inline {
        built.iter_mut().try_for_each(|built| built.remember_steps(app, settings, &finished))?;
    }
    attestation::add_scans(&mut built, &found, images)?;
    let (invocation_id, started_ms) = recorder.invocation();
    Witness { settings, input, pins: remote.pins(), invocation_id: &invocation_id, started_ms }
        .testify(&mut built);
    output::write(app, settings, &built, &warning_documents, blame.progress)?;
    // The result is out; what later builds find it by under other inputs is still to be noted. Without it they run more.
    drop(record_content_keys(&definition, &worker, &solved.unkeyed, cancel));
    let warnings = warnings + &shared.export(app, &finished, blame.progress, cancel);
    Ok(warnings + &failure::network_warning(worker.network_lack(), settings))
}

/// The graph of the results, and then of their scans.
fn definition(lowered: &[Lowered], scans: Vec<Definition>) -> Result<Definition, Failure> {
    let results = lowered.iter().map(|lowered| lowered.definition.clone());
    Definition::join(results.chain(scans)).map_err(|error| Failure::caused_by(Kind::Input, &error))
}

/// What the result is needed for. To give files other times, they have to be here.
fn need<'a>(
    settings: &Settings,
    lowered: &[Lowered],
    images: &'a Images,
    names: &'a [Reference],
) -> Need<'a> {
    if settings.needs_files() || lowered.iter().any(|lowered| lowered.source_date_epoch.is_some()) {
        Need::Files
    } else if settings.pushes() {
        Need::Push(images, names)
    } else {
        Need::Nothing
    }
}

/// How much the cache may take: what the command line or the environment says, or the config file, or a part of the disk.
fn cache_limit(app: &App, settings: &Settings) -> Result<CacheLimit, Failure> {
    let size_bytes = app.store()?.disk()?.size_bytes;
    let configured = match &settings.cache_size {
        Some(size) => Some(size.clone()),
        None => app::config()?.cache.size,
    };
    configured.map_or_else(
        || Ok(cache_size::default_limit(size_bytes)),
        |text| cache_size::parse(&text, size_bytes),
    )
}

/// What is told of a build that needed more than the cache may take, which is no failure.
fn overflow(collected: rbuild_cache::Result<Option<Overflow>>) -> String {
    match collected {
        Ok(None) => String::new(),
        Ok(Some(Overflow { cache_bytes, limit })) => format!(
            "warning: the cache took {}, all of it in use, and may take {}: what is too much was forgotten, and runs \
             again in the next build\n",
            size(cache_bytes),
            size(limit.0)
        ),
        Err(error) => format!("warning: the size of the cache was not kept to: {error}\n"),
    }
}

fn worker_options(
    app: &App,
    settings: &Settings,
    trees: &Trees,
    pins: &Arc<Pins>,
    history: History,
) -> LocalWorkerOptions {
    LocalWorkerOptions {
        keep_failed: settings.shell_on_error,
        shared: Default::default(),
        makes_images: false,
        history,
        contexts: trees.contexts.clone(),
        layouts: trees.layouts.clone(),
        git: app.git_options(),
        pins: Arc::clone(pins),
        networks: app.networks(),
        may_use_host_network: settings.steps.may_use_host_network(),
        confinement: settings.steps.confinement.clone(),
        trust: settings.steps.trust.clone(),
        limits: settings.steps.limits.clone(),
        now_ns: app::unix_now_ns(),
        single_id: app.single_id(),
        secrets: settings.steps.secrets.clone(),
        volumes: settings.steps.volumes.clone(),
        ssh: settings.steps.ssh.all.clone(),
    }
}
