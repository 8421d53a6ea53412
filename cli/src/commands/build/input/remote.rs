//! What has to be fetched before there is a graph: contexts that hold the Dockerfile, and the ages of sources.
//!
//! A context is solved as a graph of its own, so it is cached as every step is, and found again by the build itself. What a
//! remote source turned out to be here, it is in the whole build.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use rbuild_cache::root_dir::RootDir;
use rbuild_cache::{Lease, Snapshot, Store};
use rbuild_executor::{Executor, ExecutorOptions};
use rbuild_frontend::RemoteContext;
use rbuild_llb::{SourceOp, VertexId};
use rbuild_solver::images::Images;
use rbuild_solver::local::{History, LocalWorker, Pins, WorkerError};
use rbuild_solver::progress::{Event, EventSink as _, NoEvents, TaskState};
use rbuild_solver::{Context, SolveError, SolveOptions, solve};

use super::Trees;
use crate::app::App;
use crate::commands::build::base::StoreResolver;
use crate::commands::build::failure::worker as worker_failure;
use crate::commands::build::settings::Settings;
use crate::commands::build::worker_options;
use crate::progress::Progress;
use crate::report::{Failure, Kind};

/// The way to what is elsewhere, for one build.
#[derive(Debug)]
pub(crate) struct Remote<'a> {
    app: &'a App,
    settings: &'a Settings,
    progress: &'a Progress,
    pins: Arc<Pins>,
    /// Keeps what was fetched until the build is done with it.
    lease: OnceLock<Lease>,
}

impl<'a> Remote<'a> {
    /// Nothing is opened yet.
    pub(crate) fn new(app: &'a App, settings: &'a Settings, progress: &'a Progress) -> Self {
        Self { app, settings, progress, pins: Arc::default(), lease: OnceLock::new() }
    }

    /// What the build was asked for.
    pub(crate) const fn settings(&self) -> &'a Settings {
        self.settings
    }

    /// Who answers the frontend's questions.
    pub(crate) fn resolver<'r>(&'r self, trees: &'r Trees) -> Result<StoreResolver<'r>, Failure> {
        Ok(StoreResolver { images: self.images()?, remote: self, trees })
    }

    /// What sources turned out to be.
    pub(crate) const fn pins(&self) -> &Arc<Pins> {
        &self.pins
    }

    pub(super) fn images(&self) -> Result<&Images, Failure> {
        self.app.images()
    }

    pub(super) fn store(&self) -> Result<&Store, Failure> {
        self.app.store()
    }

    pub(crate) fn cancel(&self) -> &AtomicBool {
        self.app.cancel()
    }

    pub(super) const fn single_id(&self) -> bool {
        self.app.single_id()
    }

    /// The files of a context.
    pub(super) fn open(&self, context: &RemoteContext) -> Result<RootDir, Failure> {
        let name = context.title();
        let definition = context.definition().map_err(|error| Failure::caused_by(Kind::Input, &error))?;
        let task = |state| self.progress.emit(Event::Task { name: name.clone(), state });
        task(TaskState::Started);
        let snapshot = self.with_worker(&Trees::default(), |worker| {
            let solved = solve(&definition, worker, &SolveOptions::default(), &NoEvents, self.cancel());
            solved
                .map(|solved| {
                    let tree = solved.outputs.into_iter().flatten().next();
                    tree.and_then(|tree| tree.snapshot().cloned()).unwrap_or_else(Snapshot::empty)
                })
                .map_err(solve_failure)
        })??;
        task(TaskState::Completed);
        Ok(RootDir::from_fd(self.store()?.view(&snapshot)?.into()))
    }

    /// When a source was last changed.
    pub(crate) fn time_of(
        &self,
        source: &SourceOp,
        trees: &Trees,
    ) -> Result<Result<Option<i64>, WorkerError>, Failure> {
        let cx = Context { cancel: self.cancel(), events: &NoEvents, vertex: VertexId(0) };
        self.with_worker(trees, |worker| worker.time_of(source, &cx))
    }

    fn with_worker<T>(&self, trees: &Trees, work: impl FnOnce(&LocalWorker<'_>) -> T) -> Result<T, Failure> {
        let lease = self.store()?.lease()?;
        self.lease.get_or_init(|| lease);
        let executor = Executor::new(ExecutorOptions::default())
            .map_err(|error| Failure::caused_by(Kind::Environment, &error))?;
        let options = worker_options(self.app, self.settings, trees, &self.pins, History::default());
        Ok(work(&LocalWorker::new(self.images()?, &executor, self.app.pool()?, options)))
    }
}

fn solve_failure(error: SolveError<WorkerError>) -> Failure {
    match error {
        SolveError::Vertex { source, .. } | SolveError::Lookup { source } => worker_failure(&source),
        SolveError::Cancelled => Failure::new(Kind::Cancelled, "cancelled"),
        error @ (SolveError::MissingOutput { .. } | SolveError::NotAllowed { .. }) => {
            Failure::caused_by(Kind::Internal, &error)
        }
    }
}
