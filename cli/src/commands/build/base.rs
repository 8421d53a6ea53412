//! Base images, as the frontend asks for them: the store first, then a registry.

use rbuild_frontend::{ImageResolver, OutsideError, ResolveError, ResolveErrorKind, ResolvedImage};
use rbuild_image::{Platform, Reference};
use rbuild_llb::{ResolveMode, SourceOp};
use rbuild_solver::images::{ImageError, Images, PullPolicy};

use super::input::{Remote, Trees};

/// Looks base images up in the store and in registries.
#[derive(Debug)]
pub(crate) struct StoreResolver<'a> {
    pub(crate) images: &'a Images,
    pub(crate) remote: &'a Remote<'a>,
    pub(crate) trees: &'a Trees,
}

impl ImageResolver for StoreResolver<'_> {
    fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        mode: ResolveMode,
    ) -> Result<ResolvedImage, ResolveError> {
        let policy = match mode {
            ResolveMode::Default => PullPolicy::Missing,
            ResolveMode::ForcePull => PullPolicy::Always,
            ResolveMode::PreferLocal => PullPolicy::Never,
            ResolveMode::Newer => PullPolicy::Newer,
        };
        let image =
            self.images.resolve(reference, platform, policy, self.remote.cancel()).map_err(|error| {
                ResolveError { reference: reference.clone(), kind: kind(&error), source: error.into() }
            })?;
        let reference = reference.with_digest(image.manifest_descriptor.digest);
        self.remote.pins().note_image(&reference, image.target.digest);
        Ok(ResolvedImage { reference, config: image.config })
    }

    fn time_of(&self, source: &SourceOp) -> Result<Option<i64>, OutsideError> {
        Ok(self.remote.time_of(source, self.trees).map_err(|failure| failure.message)??)
    }
}

fn kind(error: &ImageError) -> ResolveErrorKind {
    match error {
        ImageError::NotFound { .. } | ImageError::NoPlatform { .. } => ResolveErrorKind::NotFound,
        ImageError::NotPulled { .. } => ResolveErrorKind::Offline,
        ImageError::Registry(error) if error.is_not_found() => ResolveErrorKind::NotFound,
        ImageError::Registry(error) if matches!(error.status(), Some(401 | 403)) => {
            ResolveErrorKind::Unauthorized
        }
        _ => ResolveErrorKind::Other,
    }
}

/// Knows no image, for Dockerfiles that must not name one.
#[derive(Debug)]
pub(crate) struct NoImages;

impl ImageResolver for NoImages {
    fn resolve(
        &self,
        reference: &Reference,
        _: &Platform,
        _: ResolveMode,
    ) -> Result<ResolvedImage, ResolveError> {
        let source = ImageError::NotPulled { name: reference.familiar() };
        Err(ResolveError {
            reference: reference.clone(),
            kind: ResolveErrorKind::Offline,
            source: source.into(),
        })
    }
}
