//! Merge: trees laid over one another are their layers in one stack.

use rbuild_cache::Snapshot;
use rbuild_llb::MergeOp;

use super::{LocalWorker, WorkerError};
use crate::worker::Input;

impl LocalWorker<'_> {
    pub(super) fn merge(
        &self,
        merge: &MergeOp,
        inputs: &[Input<'_, Snapshot>],
    ) -> Result<Snapshot, WorkerError> {
        let mut layers = Vec::new();
        for input in merge.inputs.iter().flatten() {
            layers.extend_from_slice(&snapshot(inputs, *input)?.layers);
        }
        Ok(self.store().stack(&layers)?)
    }
}

/// The snapshot that an input is.
pub(super) fn snapshot<'a>(
    inputs: &[Input<'a, Snapshot>],
    input: rbuild_llb::InputIndex,
) -> Result<&'a Snapshot, WorkerError> {
    match inputs.get(input.index()) {
        Some(Input::Output(snapshot)) => Ok(snapshot),
        _ => Err(WorkerError::Unsupported { what: "build contexts as root file systems" }),
    }
}
