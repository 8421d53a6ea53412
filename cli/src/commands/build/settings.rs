//! What the user asked for, validated and merged with the environment: the raw [`BuildArgs`] end here.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use rbuild_frontend::{NoCache, Options, parse_bool};
use rbuild_image::{Platform, Reference};
use rbuild_llb::ResolveMode;
use rbuild_solver::JOBS_DEFAULT;
use rbuild_solver::images::CompressionConfig;

use super::annotation::Annotations;
use super::attestation::Attestations;
use super::build_args;
use super::call::Call;
use super::input::Input;
use super::steps::Steps;
use crate::app::{docker_config, environment, unix_now};
use crate::args::{BuildArgs, OnErrorArg, ProgressArg, PullArg, given};
use crate::cache_spec::{CacheSpec, Direction};
use crate::commands::{platform, reference};
use crate::format::rfc3339;
use crate::output_spec::OutputSpec;
use crate::progress::Mode;
use crate::report::{Failure, Kind};

/// The build argument that asks for an index even of one platform.
const MULTI_PLATFORM: &str = "BUILDKIT_MULTI_PLATFORM";
/// The variable that adds warnings to the metadata, as with buildx.
const METADATA_WARNINGS: &str = "BUILDX_METADATA_WARNINGS";

/// A build, as asked for.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) context: PathBuf,
    pub(crate) file: Option<PathBuf>,
    pub(crate) ignore_file: Option<PathBuf>,
    pub(crate) build_contexts: Vec<String>,
    pub(crate) names: Vec<Reference>,
    pub(crate) outputs: Vec<OutputSpec>,
    pub(crate) iidfile: Option<PathBuf>,
    pub(crate) metadata_file: Option<PathBuf>,
    /// Whether the metadata hold the warnings.
    pub(crate) metadata_warnings: bool,
    pub(crate) progress: Mode,
    pub(crate) quiet: bool,
    pub(crate) explain: bool,
    /// Whether a shell is opened in what a failed step left.
    pub(crate) shell_on_error: bool,
    /// What is done with the Dockerfile.
    pub(crate) call: Call,
    pub(crate) jobs: NonZeroUsize,
    /// How much the cache may take, as it was typed.
    pub(crate) cache_size: Option<String>,
    pub(crate) cache_from: Vec<CacheSpec>,
    pub(crate) cache_to: Vec<CacheSpec>,
    /// When the build began, RFC 3339.
    pub(crate) created: String,
    build_args: BTreeMap<String, String>,
    labels: Vec<(String, String)>,
    unset_labels: Vec<String>,
    unset_env: Vec<String>,
    pub(crate) target: Option<String>,
    /// What the image is to run on; empty for this machine.
    platforms: Vec<Platform>,
    pub(crate) annotations: Annotations,
    pub(crate) attestations: Attestations,
    push: bool,
    pub(crate) squash: bool,
    no_cache: NoCache,
    resolve_mode: ResolveMode,
    pub(crate) steps: Steps,
    /// One time for all that is made, Unix seconds.
    pub(crate) source_date_epoch: Option<i64>,
}

impl Settings {
    /// Reads the arguments.
    ///
    /// # Errors
    /// When one of them is malformed, or two contradict each other.
    pub(crate) fn new(args: &BuildArgs) -> Result<Self, Failure> {
        let outputs = outputs(args)?;
        let call = if args.check { Call::CHECK } else { args.call };
        let build_args = build_args::read(args, docker_config().as_deref(), &environment)?;
        let source_date_epoch = build_args::source_date_epoch(&build_args);
        Ok(Self {
            context: args.context.clone(),
            file: given(args.file.as_ref()).map(Path::to_owned),
            ignore_file: given(args.ignorefile.as_ref()).map(Path::to_owned),
            build_contexts: args.build_contexts.clone(),
            names: args.tags.iter().map(|name| name_of(name)).collect::<Result<_, _>>()?,
            outputs,
            iidfile: given(args.iidfile.as_ref()).map(Path::to_owned),
            metadata_file: given(args.metadata_file.as_ref()).map(Path::to_owned),
            metadata_warnings: environment(METADATA_WARNINGS)
                .and_then(|value| parse_bool(&value))
                .unwrap_or(false),
            progress: if call == Call::Build { mode(args) } else { Mode::Quiet },
            quiet: args.quiet || args.progress == ProgressArg::Quiet,
            explain: args.explain,
            shell_on_error: args.on_error == Some(OnErrorArg::Shell),
            call,
            cache_size: args.cache_size.clone().filter(|size| !size.is_empty()),
            cache_from: caches(&args.cache_from, Direction::From)?,
            cache_to: caches(&args.cache_to, Direction::To)?,
            jobs: args.jobs.map_or(Ok(JOBS_DEFAULT), jobs)?,
            created: rfc3339(source_date_epoch.unwrap_or_else(unix_now)),
            build_args,
            labels: args.labels.iter().map(|label| build_args::label(label)).collect::<Result<_, _>>()?,
            unset_labels: args.unset_labels.clone(),
            unset_env: args.unset_env.clone(),
            target: args.target.clone().filter(|stage| !stage.is_empty()),
            platforms: platforms(&args.platforms)?,
            annotations: Annotations::parse(&args.annotations)?,
            attestations: Attestations::parse(args)?,
            push: args.push,
            squash: args.squash,
            no_cache: no_cache(args),
            resolve_mode: resolve_mode(args.pull),
            steps: Steps::new(args)?,
            source_date_epoch,
        })
    }

    /// What the frontend is told: once for each platform.
    pub(crate) fn frontend(&self, input: &Input) -> Vec<Options> {
        if self.platforms.is_empty() {
            return vec![self.frontend_for(input, Platform::host())];
        }
        self.platforms.iter().map(|platform| self.frontend_for(input, platform.clone())).collect()
    }

    /// Whether the result is an index of images, even if of one only.
    pub(crate) fn is_multi_platform(&self) -> bool {
        self.platforms.len() > 1
            || self.build_args.get(MULTI_PLATFORM).and_then(|value| parse_bool(value)).unwrap_or(false)
    }

    fn frontend_for(&self, input: &Input, platform: Platform) -> Options {
        self.steps.tell(Options {
            build_args: self.build_args.clone(),
            labels: self.labels.clone(),
            unset_labels: self.unset_labels.clone(),
            unset_env: self.unset_env.clone(),
            target: self.target.clone(),
            build_platform: Platform::host(),
            no_cache: self.no_cache.clone(),
            resolve_mode: self.resolve_mode,
            context: input.context.clone(),
            contexts: input.contexts.clone(),
            ignore: input.ignore.clone(),
            source_date_epoch: self.source_date_epoch,
            platform_is_default: self.platforms.is_empty(),
            multi_platform: self.platforms.len() > 1,
            ..Options::new(platform, self.created.clone())
        })
    }

    /// What the image is to run on; never empty.
    pub(crate) fn platforms(&self) -> Vec<Platform> {
        if self.platforms.is_empty() { vec![Platform::host()] } else { self.platforms.clone() }
    }

    /// The build arguments.
    pub(crate) const fn build_args(&self) -> &BTreeMap<String, String> {
        &self.build_args
    }

    /// What is set on the result, in order.
    pub(crate) fn labels(&self) -> &[(String, String)] {
        &self.labels
    }

    /// Whether the result is sent to the registries of its names.
    pub(crate) fn pushes(&self) -> bool {
        self.push || self.outputs.iter().any(|output| matches!(output, OutputSpec::Image { push: true, .. }))
    }

    /// In what form layers are pushed.
    pub(crate) fn push_compression(&self) -> CompressionConfig {
        let of_image = |output: &OutputSpec| match output {
            OutputSpec::Image { compression, .. } => Some(*compression),
            _ => None,
        };
        self.outputs.iter().find_map(of_image).unwrap_or_default()
    }

    /// Whether files of the result are needed here, and not just the word that it is somewhere.
    pub(crate) fn needs_files(&self) -> bool {
        let leaves = |output: &OutputSpec| matches!(output, OutputSpec::Image { .. } | OutputSpec::CacheOnly);
        let is_kept = !self.names.is_empty() || self.quiet || self.iidfile.is_some();
        self.squash
            || self.source_date_epoch.is_some()
            || !self.outputs.iter().all(leaves)
            || (is_kept && !self.pushes())
    }

    /// Whether one time for all that is made holds for the files in layers as well, as it does unless an output says otherwise:
    /// the same inputs give the same digests.
    pub(crate) fn rewrites_timestamps(&self) -> bool {
        !self
            .outputs
            .iter()
            .any(|output| matches!(output, OutputSpec::Image { rewrite_timestamp: false, .. }))
    }
}

fn outputs(args: &BuildArgs) -> Result<Vec<OutputSpec>, Failure> {
    let parse = |text: &String| {
        text.parse()
            .map_err(|error: crate::output_spec::ParseOutputError| Failure::caused_by(Kind::Input, &error))
    };
    let words = args.outputs.iter().filter(|text| !text.is_empty());
    let outputs: Vec<OutputSpec> = words.map(parse).collect::<Result<_, _>>()?;
    if outputs.iter().filter(|output| output.uses_stdout()).count() > 1 {
        return Err(Failure::new(Kind::Input, "only one output can be written to standard output"));
    }
    Ok(outputs)
}

fn caches(words: &[String], direction: Direction) -> Result<Vec<CacheSpec>, Failure> {
    let parse = |text: &String| {
        let text = text.trim();
        CacheSpec::parse(text, direction, &environment)
            .map_err(|error| Failure::caused_by(Kind::Input, &error))
    };
    words.iter().filter(|text| !text.trim().is_empty()).map(parse).collect()
}

fn name_of(name: &str) -> Result<Reference, Failure> {
    let reference =
        reference(name).map_err(|failure| failure.while_doing(&format!("invalid tag `{name}`")))?;
    if reference.digest().is_some() {
        return Err(Failure::new(Kind::Input, format!("invalid tag `{name}`: a tag cannot have a digest")));
    }
    Ok(reference)
}

/// Platforms, each once, in their order; `local` is this machine's.
fn platforms(words: &[String]) -> Result<Vec<Platform>, Failure> {
    let mut platforms = Vec::new();
    for word in words.iter().map(|word| word.trim()).filter(|word| !word.is_empty()) {
        let platform = if word == "local" { Platform::host() } else { platform(Some(word))? };
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    Ok(platforms)
}

fn jobs(count: usize) -> Result<NonZeroUsize, Failure> {
    NonZeroUsize::new(count).ok_or_else(|| Failure::new(Kind::Input, "--jobs must be at least 1"))
}

fn no_cache(args: &BuildArgs) -> NoCache {
    if args.no_cache {
        NoCache::All
    } else if args.no_cache_filter.is_empty() {
        NoCache::Never
    } else {
        NoCache::Stages(args.no_cache_filter.clone())
    }
}

const fn resolve_mode(pull: PullArg) -> ResolveMode {
    match pull {
        PullArg::Always => ResolveMode::ForcePull,
        PullArg::Missing => ResolveMode::Default,
        PullArg::Never => ResolveMode::PreferLocal,
        PullArg::Newer => ResolveMode::Newer,
    }
}

const fn mode(args: &BuildArgs) -> Mode {
    match args.progress {
        _ if args.quiet => Mode::Quiet,
        ProgressArg::Auto => Mode::Auto,
        ProgressArg::Tty => Mode::Tty,
        ProgressArg::Plain => Mode::Plain,
        ProgressArg::Quiet | ProgressArg::None => Mode::Quiet,
        ProgressArg::Rawjson => Mode::RawJson,
    }
}
