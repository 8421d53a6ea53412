//! A result that is found by its content key, laid on what the step is given now.
//!
//! Inputs with one content key hold the same; times are not in it, nor which names are one file. So what the step added may be used again,
//! but what it was laid on then may not: the image would go on with what an earlier step left before it was edited. The step's own
//! layers are put on the base that it has now ([`cache_map::bases`]), which takes two rows.

use rbuild_cache::{NewRecord, Snapshot};
use rbuild_llb::OutputIndex;

use super::{LocalWorker, WorkerError, recipe, stored};
use crate::cache_key::CacheKey;
use crate::cache_map;
use crate::shared::Tree;
use crate::worker::{Context, Input, Wanted};

impl LocalWorker<'_> {
    /// What a step with this content key gave, here or on another machine, on the inputs that it has. It is recorded under the step's
    /// definition key.
    pub(super) fn laid_on_inputs(
        &self,
        step: &Wanted<'_>,
        inputs: &[Input<'_, Tree>],
        content_key: CacheKey,
        cx: &Context<'_>,
    ) -> Result<Option<Vec<Snapshot>>, WorkerError> {
        let (store, records) = (self.store(), self.store().records());
        let Some(record) = records.lookup_content(stored(content_key))? else {
            return self.shared_laid_on_inputs(step, inputs, content_key, cx);
        };
        let bases = self.bases(step, inputs, record.outputs.len(), cx)?;
        let laid_on = |(base, made): (&Snapshot, &Snapshot)| {
            store.stack(&[&*base.layers, store.own_layers(made)?].concat())
        };
        let outputs = bases.iter().zip(&record.outputs).map(laid_on).collect::<Result<Vec<_>, _>>()?;
        if outputs == record.outputs {
            let recipe = recipe::encode(step.vertex.vertex(), step.trace);
            records.link(stored(step.trace.key()), record.key, &recipe)?;
        } else {
            let step = self.recorded(step, Some(content_key));
            records.insert(&NewRecord { origin: record.origin.as_ref(), ..step.record(&outputs) })?;
        }
        Ok(Some(outputs))
    }

    /// The same of a shared cache. Only the step's own layers are fetched; where they cannot be had, the step runs.
    fn shared_laid_on_inputs(
        &self,
        step: &Wanted<'_>,
        inputs: &[Input<'_, Tree>],
        content_key: CacheKey,
        cx: &Context<'_>,
    ) -> Result<Option<Vec<Snapshot>>, WorkerError> {
        let shared = &self.options.shared;
        if !shared.has_op(step.trace.op) {
            return Ok(None);
        }
        let Some(found) = shared.lookup_content(content_key, cx.cancel) else { return Ok(None) };
        let result = self.elsewhere(step, Some(content_key), found);
        let bases = self.bases(step, inputs, result.record.outputs.len(), cx)?;
        match self.fetched(&result, cx, |watch| self.images.fetch_own_layers(&result, &bases, watch)) {
            Err(WorkerError::SharedCache { .. }) => Ok(None),
            outputs => outputs.map(Some),
        }
    }

    /// What each of so many outputs of a step is laid on.
    fn bases(
        &self,
        step: &Wanted<'_>,
        inputs: &[Input<'_, Tree>],
        outputs: usize,
        cx: &Context<'_>,
    ) -> Result<Vec<Snapshot>, WorkerError> {
        let (bases, inputs) = (cache_map::bases(&step.vertex.vertex().op), self.all_here(inputs, cx)?);
        let base = |output| {
            let input = bases.get(&OutputIndex(output)).copied().flatten();
            input.and_then(|input| inputs.get(input.index())).cloned().unwrap_or_else(Snapshot::empty)
        };
        Ok((0..).take(outputs).map(base).collect())
    }
}
