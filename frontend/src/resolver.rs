//! How the frontend learns about base images without touching network or disk.

use rbuild_image::{ImageConfig, Platform, Reference};
use rbuild_llb::{ResolveMode, SourceOp};
use thiserror::Error;

/// Answers what an image reference stands for. Implemented over registry and store by the solver, by a map in tests.
///
/// Asked for images of stages that the result needs, and for no others.
pub trait ImageResolver {
    /// Announces the images that will certainly be asked for, so that they can be looked up at the same time.
    fn prefetch(&self, wanted: &[(Reference, Platform)]) {
        let _ = wanted;
    }

    /// Looks up one image.
    ///
    /// # Errors
    /// When the image cannot be found or its config cannot be read.
    #[expect(clippy::result_large_err, reason = "the failure ends the build, its size costs nothing")]
    fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        mode: ResolveMode,
    ) -> Result<ResolvedImage, ResolveError>;

    /// When a source was last changed, Unix seconds; `None` when that means nothing of it. Asked for where
    /// `SOURCE_DATE_EPOCH` names a source.
    ///
    /// # Errors
    /// When the source cannot be had.
    fn time_of(&self, source: &SourceOp) -> Result<Option<i64>, OutsideError> {
        let _ = source;
        Ok(None)
    }
}

/// Why something outside could not be asked.
pub type OutsideError = Box<dyn std::error::Error + Send + Sync>;

/// An image that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedImage {
    /// The reference, pinned to the digest of what was found.
    pub reference: Reference,
    /// Its config. The platform in it is the image's own, which may not be the one that was asked for.
    pub config: ImageConfig,
}

/// Why an image could not be resolved.
#[derive(Debug, Error)]
#[error("failed to resolve image `{reference}`: {source}")]
pub struct ResolveError {
    /// Which image.
    pub reference: Reference,
    /// What kind of failure it is.
    pub kind: ResolveErrorKind,
    /// What went wrong below.
    pub source: OutsideError,
}

/// Kinds of failure that callers treat differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResolveErrorKind {
    /// There is no such image, or none for the platform.
    NotFound,
    /// The registry wants other credentials.
    Unauthorized,
    /// The image is not in the store and the network may not be used.
    Offline,
    /// Anything else.
    Other,
}
