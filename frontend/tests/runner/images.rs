//! The base images of the tests: `testdata/dockerfiles/images/<name>.json`, for whatever platform is asked for unless
//! the file names one.

use std::fs;

use rbuild_frontend::{ImageResolver, OutsideError, ResolveError, ResolveErrorKind, ResolvedImage};
use rbuild_image::{Digest, ImageConfig, Platform, Reference};
use rbuild_llb::{ResolveMode, SourceOp};
use serde_json::Value;

/// Finds images in the fixtures and gives each a digest made from its name.
pub(crate) struct Fixtures;

impl ImageResolver for Fixtures {
    fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        _: ResolveMode,
    ) -> Result<ResolvedImage, ResolveError> {
        let name = reference.familiar_name().replace(['/', ':'], "_");
        let path = crate::testdata("dockerfiles/images").join(format!("{name}.json"));
        let text = fs::read_to_string(path).map_err(|error| ResolveError {
            reference: reference.clone(),
            kind: ResolveErrorKind::NotFound,
            source: match error.kind() {
                std::io::ErrorKind::NotFound => "not found".into(),
                _ => error.into(),
            },
        })?;
        let mut document: Value = serde_json::from_str(&text).unwrap();
        if document.get("architecture").is_none() {
            document["os"] = platform.os.clone().into();
            document["architecture"] = platform.architecture.clone().into();
            document["variant"] = platform.variant.clone().into();
        }
        let config = ImageConfig::parse(document.to_string().as_bytes()).unwrap();
        let digest = Digest::of(format!("{reference} {platform}"));
        Ok(ResolvedImage { reference: reference.with_digest(digest), config })
    }

    fn time_of(&self, source: &SourceOp) -> Result<Option<i64>, OutsideError> {
        Ok(match source {
            SourceOp::Git(_) => Some(1_000_000_000),
            SourceOp::Http(file) => Some(1_100_000_000 + i64::try_from(file.url.len())?),
            _ => None,
        })
    }
}
