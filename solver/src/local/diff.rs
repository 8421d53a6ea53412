//! Diff: what one tree has over another. Where the upper is the lower with further layers, those layers are the answer.

use rbuild_cache::Snapshot;
use rbuild_llb::DiffOp;

use super::merge::snapshot;
use super::{LocalWorker, WorkerError};
use crate::worker::Input;

impl LocalWorker<'_> {
    pub(super) fn diff(
        &self,
        diff: &DiffOp,
        inputs: &[Input<'_, Snapshot>],
    ) -> Result<Snapshot, WorkerError> {
        let side = |input: Option<_>| {
            input.map_or_else(|| Ok(Snapshot::empty()), |input| snapshot(inputs, input).cloned())
        };
        let (lower, upper) = (side(diff.lower)?, side(diff.upper)?);
        let own = upper.layers.strip_prefix(&*lower.layers);
        let own = own.ok_or(WorkerError::Unsupported {
            what: "diffs of trees of which neither is built on the other",
        })?;
        Ok(self.store().stack(own)?)
    }
}
