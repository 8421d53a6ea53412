//! Any bytes as a Dockerfile, on base images that exist whatever their name: no panic, and no result that breaks the
//! rules of a definition.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rbuild_frontend::{ImageResolver, Options, ResolveError, ResolvedImage, lower};
use rbuild_image::{DiffId, Digest, ImageConfig, Platform, Reference};
use rbuild_llb::{Definition, ResolveMode};

/// The longest trigger that a base image may bring along.
const TRIGGER_LENGTH_MAX: usize = 64;

/// Finds every image. Its ONBUILD trigger is the name of its tag, so that the input can reach triggers too.
struct Everything;

impl ImageResolver for Everything {
    fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        _: ResolveMode,
    ) -> Result<ResolvedImage, ResolveError> {
        let mut config = ImageConfig::new(platform.clone());
        config.rootfs.diff_ids.push(DiffId(Digest::of(reference.repository())));
        let tag = reference.tag().filter(|tag| *tag != "latest" && tag.len() <= TRIGGER_LENGTH_MAX);
        config.config.on_build.extend(tag.map(|tag| format!("RUN {tag}")));
        Ok(ResolvedImage { reference: reference.with_digest(Digest::of(b"manifest")), config })
    }
}

fuzz_target!(|source: &[u8]| {
    let options = Options::new(Platform::new("linux", "amd64", None), "2026-01-02T03:04:05Z");
    if let Ok(lowered) = lower(source, &options, &Everything) {
        let vertices = lowered.definition.vertices().to_vec();
        Definition::new(vertices, lowered.definition.target()).expect("what is lowered is well-formed");
    }
});
