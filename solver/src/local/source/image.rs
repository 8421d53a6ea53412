//! An image as a source: pinned by the frontend to a manifest, unpacked when a step has to run on it.

use rbuild_cache::Snapshot;
use rbuild_image::{KeyHasher, Platform};
use rbuild_llb::{ImageSource, ResolveMode, Vertex};

use crate::cache_key::SourceIdentity;
use crate::images::{ImageError, PullPolicy, Transfer, Watch};
use crate::local::{LocalWorker, WorkerError};
use crate::progress::Event;
use crate::worker::Context;

impl LocalWorker<'_> {
    /// A pinned image is its digest, wherever it is; a name is what it stands for now.
    pub(in crate::local) fn identify_image(
        &self,
        image: &ImageSource,
    ) -> Result<SourceIdentity, WorkerError> {
        let digest = match image.reference.digest() {
            Some(digest) => digest,
            None => {
                let cancel = std::sync::atomic::AtomicBool::new(false);
                let policy = policy(image.resolve_mode);
                let found = self.images.resolve(&image.reference, &Platform::host(), policy, &cancel)?;
                found.manifest_descriptor.digest
            }
        };
        Ok(SourceIdentity(KeyHasher::new("rbuild.image.v1").bytes(digest.as_bytes()).finish()))
    }

    pub(in crate::local) fn unpack_image(
        &self,
        vertex: &Vertex,
        image: &ImageSource,
        cx: &Context<'_>,
    ) -> Result<Vec<Snapshot>, WorkerError> {
        let transfers = |transfer| emit_transfer(cx, transfer);
        let watch = Watch { transfers: &transfers, cancel: cx.cancel };
        let platform = vertex.platform.clone().unwrap_or_else(Platform::host);
        let pulled = self.images.pull(&image.reference, &platform, policy(image.resolve_mode), watch);
        let (_, snapshot) = pulled.map_err(image_error)?;
        self.lowest_layers(snapshot, image.layer_limit)
    }

    /// What a source takes of an image.
    pub(super) fn lowest_layers(
        &self,
        snapshot: Snapshot,
        limit: Option<u32>,
    ) -> Result<Vec<Snapshot>, WorkerError> {
        let Some(limit) = limit else { return Ok(vec![snapshot]) };
        let kept = self.store().layers_of_tars(&snapshot, limit as usize)?;
        Ok(vec![self.store().stack(&snapshot.layers[..kept])?])
    }
}

/// Tells of a transfer as one of the vertex.
pub(in crate::local) fn emit_transfer(cx: &Context<'_>, transfer: Transfer) {
    let Transfer { name, current_bytes, total_bytes } = transfer;
    cx.emit(Event::Transfer { vertex: cx.vertex, name, current_bytes, total_bytes });
}

pub(super) fn image_error(error: ImageError) -> WorkerError {
    match error {
        ImageError::Cancelled => WorkerError::Cancelled,
        error => error.into(),
    }
}

const fn policy(mode: ResolveMode) -> PullPolicy {
    match mode {
        ResolveMode::Default => PullPolicy::Missing,
        ResolveMode::ForcePull => PullPolicy::Always,
        ResolveMode::PreferLocal => PullPolicy::Never,
        ResolveMode::Newer => PullPolicy::Newer,
    }
}
