//! What other machines made: asked for in one batch, fetched when a step is given it.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use rbuild_cache::Snapshot;
use rbuild_registry::RemoteStore;

use super::source::emit_transfer;
use super::{LocalWorker, WorkerError, file_lists, recipe};
use crate::cache_key::CacheKey;
use crate::images::{ImageError, Watch};
use crate::progress::NoEvents;
use crate::shared::{RecordedStep, RemoteResult, RemoteTree, SharedRecord, Tree, depends_on_steps};
use crate::worker::{Context, Found, Input, Wanted};

impl LocalWorker<'_> {
    /// What shared caches have of steps.
    pub(super) fn find_shared(&self, steps: &[Wanted<'_>], cancel: &AtomicBool) -> Vec<Found<Tree>> {
        let keys: Vec<_> = steps.iter().map(|step| step.trace.key()).collect();
        let found = self.options.shared.lookup(&keys, cancel);
        let missing =
            steps.iter().zip(&found).filter(|(step, found)| found.is_none() && depends_on_steps(step.vertex));
        let ops: Vec<_> = missing.map(|(step, _)| step.trace.op).collect();
        self.options.shared.look_for_ops(&ops, cancel);
        let tree = |(step, found): (&Wanted<'_>, Option<_>)| {
            Some(RemoteTree::outputs(self.elsewhere(step, None, found?)))
        };
        steps.iter().zip(found).map(tree).collect()
    }

    /// What a shared cache has of a step, found by its content key if one is given.
    pub(super) fn elsewhere(
        &self,
        step: &Wanted<'_>,
        content_key: Option<CacheKey>,
        (store, record): (RemoteStore, SharedRecord),
    ) -> RemoteResult {
        RemoteResult { store, record, step: self.recorded(step, content_key), here: Mutex::default() }
    }

    pub(super) fn recorded(&self, step: &Wanted<'_>, content_key: Option<CacheKey>) -> RecordedStep {
        let vertex = step.vertex.vertex();
        RecordedStep {
            key: step.trace.key(),
            op_digest: step.trace.op.0,
            description: vertex.meta.name.clone(),
            recipe: recipe::encode(vertex, step.trace),
            file_lists: file_lists(step.trace),
            project: self.options.history.project.clone(),
            content_key,
        }
    }

    /// The inputs of a step as snapshots; of local sources nothing.
    pub(super) fn all_here(
        &self,
        inputs: &[Input<'_, Tree>],
        cx: &Context<'_>,
    ) -> Result<Vec<Snapshot>, WorkerError> {
        let snapshot = |input: &Input<'_, Tree>| match input {
            Input::Output(tree) => self.here(tree, cx),
            Input::Local(_) => Ok(Snapshot::empty()),
        };
        inputs.iter().map(snapshot).collect()
    }

    /// A tree as a snapshot of the store, fetched if it is not here.
    pub(super) fn here(&self, tree: &Tree, cx: &Context<'_>) -> Result<Snapshot, WorkerError> {
        let tree = match tree {
            Tree::Here(snapshot) => return Ok(snapshot.clone()),
            Tree::Elsewhere(tree) => tree,
        };
        self.fetched(&tree.result, cx, |watch| self.images.fetch_tree(tree, watch))
    }

    /// What a fetch of a result brought. One that failed is noted, so that what was found is not found again.
    pub(super) fn fetched<T>(
        &self,
        result: &RemoteResult,
        cx: &Context<'_>,
        fetch: impl FnOnce(Watch<'_>) -> Result<T, ImageError>,
    ) -> Result<T, WorkerError> {
        let transfers = |transfer| emit_transfer(cx, transfer);
        fetch(Watch { transfers: &transfers, cancel: cx.cancel }).map_err(|error| match error {
            _ if cx.is_cancelled() => WorkerError::Cancelled,
            error @ (ImageError::Registry(_) | ImageError::Unpack { .. }) => {
                self.lost(result, &error);
                WorkerError::SharedCache { store: result.store.to_string(), source: Box::new(error) }
            }
            error => error.into(),
        })
    }

    /// Sees to it that what was found and could not be had is not found again.
    fn lost(&self, result: &RemoteResult, error: &ImageError) {
        let shared = &self.options.shared;
        match error {
            ImageError::Registry(remote) if !remote.is_missing_or_wrong() => {
                shared.give_up(&result.store, error);
            }
            error => shared.set_aside(&result.store, result.record.key, error),
        }
    }

    /// A result as a snapshot of the store, fetched if it is not here.
    ///
    /// # Errors
    /// [`WorkerError::SharedCache`] when the shared cache that has it fails; it is not asked again.
    pub fn fetch_result(&self, tree: &Tree, cancel: &AtomicBool) -> Result<Snapshot, WorkerError> {
        self.here(tree, &Context { cancel, events: &NoEvents, vertex: rbuild_llb::VertexId(0) })
    }
}
