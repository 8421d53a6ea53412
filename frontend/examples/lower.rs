//! Shows what a Dockerfile becomes: its LLB as text on standard output, its warnings on standard error.
//!
//! `lower FILE [--target STAGE] [--platform PLATFORM] [--build-arg NAME=VALUE]...`
//!
//! No base image is looked for: each is taken to be there, for the platform that is asked for, with one layer and a
//! `PATH`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command")]

use std::error::Error;
use std::process::ExitCode;

use rbuild_frontend::{ImageResolver, Options, ResolveError, ResolvedImage, lower};
use rbuild_image::{DiffId, Digest, ImageConfig, Platform, Reference};
use rbuild_llb::ResolveMode;

/// The time of every build.
const CREATED: &str = "1970-01-01T00:00:00Z";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let (file, options) = arguments(std::env::args().skip(1))?;
    let lowered = lower(&std::fs::read(&file)?, &options, &Plain)?;
    print!("{}", lowered.definition);
    for warning in &lowered.warnings {
        eprintln!("{file}:{}: {}: {}", warning.range.line_first, warning.rule.name(), warning.message);
    }
    Ok(())
}

fn arguments(mut args: impl Iterator<Item = String>) -> Result<(String, Options), Box<dyn Error>> {
    let mut file = None;
    let mut options = Options::new(Platform::new("linux", "amd64", None), CREATED);
    while let Some(argument) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("`{argument}` needs a value"));
        match argument.as_str() {
            "--target" => options.target = Some(value()?),
            "--platform" => {
                options.platform = value()?.parse()?;
                options.platform_is_default = false;
            }
            "--build-arg" => {
                let pair = value()?;
                let (name, value) = pair.split_once('=').ok_or("`--build-arg` takes NAME=VALUE")?;
                options.build_args.insert(name.to_owned(), value.to_owned());
            }
            _ => file = Some(argument),
        }
    }
    Ok((
        file.ok_or("usage: lower FILE [--target STAGE] [--platform PLATFORM] [--build-arg NAME=VALUE]...")?,
        options,
    ))
}

/// Knows every image.
struct Plain;

impl ImageResolver for Plain {
    fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        _: ResolveMode,
    ) -> Result<ResolvedImage, ResolveError> {
        let mut config = ImageConfig::new(platform.clone());
        config.rootfs.diff_ids.push(DiffId(Digest::of("layer")));
        config.config.env_set("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        Ok(ResolvedImage { reference: reference.with_digest(Digest::of(reference.familiar())), config })
    }
}
