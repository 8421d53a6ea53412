//! An image in an OCI layout as a source.

use rbuild_cache::Snapshot;
use rbuild_image::{KeyHasher, Platform};
use rbuild_llb::{OciLayoutSource, Vertex};

use super::image::{emit_transfer, image_error};
use crate::cache_key::SourceIdentity;
use crate::images::{LayoutSelector, Watch};
use crate::local::{LocalWorker, WorkerError};
use crate::worker::Context;

/// An image is its manifest, wherever it lies.
pub(in crate::local) fn identify_layout(layout: &OciLayoutSource) -> SourceIdentity {
    SourceIdentity(KeyHasher::new("rbuild.image.v1").bytes(layout.digest.as_bytes()).finish())
}

impl LocalWorker<'_> {
    pub(in crate::local) fn unpack_layout(
        &self,
        vertex: &Vertex,
        layout: &OciLayoutSource,
        cx: &Context<'_>,
    ) -> Result<Vec<Snapshot>, WorkerError> {
        let unknown = || WorkerError::UnknownLayout { name: layout.store.clone() };
        let directory = self.options.layouts.get(&layout.store).ok_or_else(unknown)?;
        let transfers = |transfer| emit_transfer(cx, transfer);
        let watch = Watch { transfers: &transfers, cancel: cx.cancel };
        let platform = vertex.platform.clone().unwrap_or_else(Platform::host);
        let selector = LayoutSelector::Digest(layout.digest);
        let image = self.images.open_layout(directory, &selector, &platform).map_err(image_error)?;
        let snapshot = self.images.unpack_layout(directory, &image, watch).map_err(image_error)?;
        self.lowest_layers(snapshot, layout.layer_limit)
    }
}
