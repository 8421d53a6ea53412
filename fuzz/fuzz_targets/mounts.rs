//! Any text as the value of `RUN --mount`: no panic, and a mount that is accepted stands where a mount may stand.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rbuild_frontend::{ImageResolver, Options, ResolveError, ResolvedImage, lower};
use rbuild_image::{Digest, ImageConfig, Platform, Reference};
use rbuild_llb::{ExecOp, MountKind, Op, ResolveMode};

/// Finds every image.
struct Everything;

impl ImageResolver for Everything {
    fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        _: ResolveMode,
    ) -> Result<ResolvedImage, ResolveError> {
        let config = ImageConfig::new(platform.clone());
        Ok(ResolvedImage { reference: reference.with_digest(Digest::of(b"manifest")), config })
    }
}

fuzz_target!(|value: &str| {
    let value = value.split(['\r', '\n']).next().unwrap_or_default();
    let dockerfile = format!("FROM a AS s\nFROM b\nENV E=/e\nWORKDIR /w\nRUN --mount={value} true\n");
    let options = Options::new(Platform::new("linux", "amd64", None), "2026-01-02T03:04:05Z");
    let Ok(lowered) = lower(dockerfile.as_bytes(), &options, &Everything) else { return };
    for vertex in lowered.definition.vertices() {
        if let Op::Exec(exec) = &vertex.op {
            check(exec, vertex.inputs.len());
        }
    }
});

fn check(exec: &ExecOp, input_count: usize) {
    let roots = exec.mounts.iter().filter(|mount| mount.target == "/").count();
    assert_eq!(roots, 1, "{exec:?}");
    for mount in &exec.mounts {
        assert!(
            mount.target.starts_with('/') && !mount.target.split('/').any(|part| part == ".."),
            "{mount:?}"
        );
        assert!(mount.input.is_none_or(|input| input.index() < input_count), "{mount:?}");
        assert!(mount.output.is_none() || mount.target == "/", "{mount:?}");
        if let MountKind::Secret(_) | MountKind::Ssh(_) = mount.kind {
            assert!(mount.input.is_none(), "{mount:?}");
        }
    }
}
