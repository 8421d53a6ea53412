//! How long a large Dockerfile takes to be lowered: 1,000 instructions in 200 stages that build on and copy from one another,
//! as a tree and, where the last step has the variables of all, as one chain.
//!
//! `cargo bench -p rbuild-frontend`
#![expect(clippy::print_stdout, reason = "a benchmark says what it measured")]

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use rbuild_frontend::{ImageResolver, Options, ResolveError, ResolvedImage, check, lower};
use rbuild_image::{Digest, ImageConfig, Platform, Reference};
use rbuild_llb::ResolveMode;

const STAGES: usize = 200;
const ROUNDS: usize = 21;

/// Finds every image at once.
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

/// Every stage starts from an earlier one and copies from the one before it, so that the last needs all.
fn dockerfile(base_of: impl Fn(usize) -> usize) -> String {
    let mut text = String::from("ARG BASE=busybox\nFROM $BASE AS s0\n");
    for stage in 1..STAGES {
        let (base, source) = (base_of(stage), stage - 1);
        writeln!(
            text,
            "FROM s{base} AS s{stage}\nARG V{stage}=1\nENV N{stage}=${{V{stage}:-0}} P=/opt/$V{stage}:$PATH"
        )
        .unwrap_or_default();
        writeln!(
            text,
            "COPY --from=s{source} /f /d{stage}/\nRUN --mount=type=cache,target=/c make -C $P {stage}"
        )
        .unwrap_or_default();
    }
    text
}

/// The median of several rounds.
fn median(mut work: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[ROUNDS / 2]
}

fn main() {
    measure("tree", &dockerfile(|stage| stage / 2));
    measure("chain", &dockerfile(|stage| stage - 1));
}

fn measure(name: &str, text: &str) {
    let options = Options::new(Platform::new("linux", "amd64", None), "2026-01-02T03:04:05Z");
    let lowered =
        lower(text.as_bytes(), &options, &Everything).map(|lowered| lowered.definition.vertices().len());
    println!("{name}: {} instructions, {STAGES} stages, {lowered:?} vertices", text.lines().count());
    println!("lower {:?}", median(|| drop(lower(text.as_bytes(), &options, &Everything))));
    println!("check {:?}", median(|| drop(check(text.as_bytes(), &options, &Everything))));
}
