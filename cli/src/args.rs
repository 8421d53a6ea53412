//! The command line as it is typed. What it means is decided in `commands`.
//!
//! `rbuild [build] [OPTIONS] PATH`: a command line whose first word is not a command is a build, so that
//! `rbuild -t app .` works.

mod containers;
mod create;
mod images;
mod limits;
mod networks;
mod store;
#[cfg(test)]
mod tidy;
mod volumes;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub(crate) use self::containers::{
    AttachArgs, CommitArgs, ContainerArg, ContainerCommand, ContainersArgs, ContainersCommand, CpArgs,
    CreateArgs, ExecArgs, ExportArgs, KillArgs, LeaveArgs, LogsArgs, PortArgs, PsArgs, RenameArgs, RmArgs,
    RunArgs, StartArgs, StatsArgs, StopArgs, TopArgs, UpdateArgs,
};
pub(crate) use self::create::{CreateOptions, RateArgs, ResourceArgs};
pub(crate) use self::images::{
    ArchiveFormatArg, HistoryArgs, ImageCommand, ImagesArgs, ImagesCommand, ImportArgs, LoadArgs, PullArgs,
    PushArgs, RmiArgs, SaveArgs, TagArgs,
};
pub(crate) use self::limits::LimitArgs;
pub(crate) use self::networks::{
    NetworkCommand, NetworkConnectArgs, NetworkCreateArgs, NetworkDisconnectArgs, NetworkInspectArgs,
    NetworkLsArgs, NetworkMember, NetworkRmArgs,
};
pub(crate) use self::store::{
    AboutArgs, CacheCommand, CacheMountCommand, CachePruneArgs, CompletionArgs, DfArgs, DuArgs, EventsArgs,
    FilterArgs, ImagePruneArgs, ListFormatArg, ManArgs, ObjectPruneArgs, PruneArgs, SharedCacheArgs,
    ShellArg, SpaceArgs, SystemCheckArgs, SystemCommand, SystemPruneArgs,
};
pub(crate) use self::volumes::{
    VolumeCommand, VolumeCreateArgs, VolumeInspectArgs, VolumeLsArgs, VolumePruneArgs, VolumeRmArgs,
};
use crate::commands::build::Call;
use serde::Deserialize;

use clap::builder::{FalseyValueParser, OsStringValueParser, TypedValueParser};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

/// Builds container images from Dockerfiles and runs them. No daemon.
#[derive(Debug, Parser)]
#[command(name = "rbuild", version, disable_help_subcommand = true, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What holds for every command.
#[derive(Debug, Clone, Args)]
pub(crate) struct GlobalArgs {
    /// Where images, containers and the cache are kept [default: /var/lib/rbuild, or $XDG_DATA_HOME/rbuild].
    #[arg(long, global = true, value_name = "DIR", env = "RBUILD_ROOT")]
    pub(crate) root: Option<PathBuf>,
    /// How steps and containers are set apart from the machine [default: auto].
    #[arg(long, global = true, value_enum, value_name = "LEVEL", env = "RBUILD_ISOLATION")]
    pub(crate) isolation: Option<IsolationArg>,
    /// Asks no registry, server or shared cache: what the store has must do. Steps and containers keep their networks.
    #[arg(long, global = true, env = "RBUILD_OFFLINE", value_parser = FalseyValueParser::new())]
    pub(crate) offline: bool,
    /// In which form copies of directories are kept [default: trees of many files, where the kernel mounts them, else directories].
    #[arg(long, global = true, hide = true, value_enum, value_name = "FORM", env = "RBUILD_LAYERS")]
    pub(crate) layers: Option<LayersArg>,
    /// Into parts of what size the archive of a large layer is cut, 0 for not at all [default: 32m].
    #[arg(long, global = true, hide = true, value_name = "SIZE", env = "RBUILD_PART_SIZE")]
    pub(crate) part_size: Option<String>,
}

/// In which form copies of directories are kept: what they are in an image does not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LayersArg {
    /// As trees where these can be mounted, if there are many files; else as deltas.
    Auto,
    /// As directories.
    Directory,
    /// As what differs from what the same copy left before, where that can be mounted.
    Delta,
    /// As trees where these can be mounted.
    Tree,
}

/// How steps and containers are set apart from the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum IsolationArg {
    /// As root if rbuild is, else in a user namespace.
    Auto,
    /// In a user namespace, even as root; with a store of its own.
    User,
    /// As the machine's root, or not at all.
    Root,
    /// Builds as user 0 without namespaces, on the machine's network and among its processes: the weakest.
    Chroot,
}

/// What to do. The flags of a command are made when that command is asked for (`defer`): all of them take longer than many a command.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Command {
    /// Builds an image from a Dockerfile.
    Build(Box<BuildArgs>),
    /// Lists builds and shows what their steps printed.
    #[command(subcommand)]
    Builds(BuildsCommand),
    /// Says why the steps of a build ran, or where their results were found.
    #[command(override_usage = "rbuild explain [OPTIONS] [BUILD] [STEP]")]
    Explain(ExplainArgs),
    /// Opens a shell in a step of a past build: in its file system, with its environment, user and mounts.
    #[command(override_usage = "rbuild debug [OPTIONS] [BUILD] STEP")]
    Debug(DebugArgs),
    #[command(flatten)]
    Containers(ContainersCommand),
    /// Looks after containers.
    #[command(subcommand)]
    Container(ContainerCommand),
    /// Looks after networks.
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Looks after volumes.
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Lists images.
    Images(ImagesArgs),
    /// Removes images.
    Rmi(RmiArgs),
    #[command(flatten)]
    OnImages(ImagesCommand),
    /// Shows what is known of containers, images, networks and volumes, as JSON.
    Inspect(InspectArgs),
    /// Copies an image from one name to another at registries, without keeping it.
    Copy(CopyArgs),
    /// Shows what a registry has under a name.
    #[command(subcommand)]
    Manifest(ManifestCommand),
    /// Lists repositories whose names have a word: of Docker Hub, or of a registry.
    Search(SearchArgs),
    /// Keeps a user name and a password for a registry.
    Login(LoginArgs),
    /// Forgets what was kept for a registry.
    Logout(LogoutArgs),
    /// Shows what the cache and the images take on disk.
    Du(DuArgs),
    /// Removes what is cached and not in use.
    Prune(PruneArgs),
    /// Looks after a cache that several machines share.
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Looks after cache mounts: what `RUN --mount=type=cache` keeps from build to build.
    #[command(subcommand)]
    CacheMount(CacheMountCommand),
    /// Looks after images.
    #[command(subcommand)]
    Image(ImageCommand),
    /// Shows what this machine offers, what rbuild does with it, and what would improve it.
    Doctor(DoctorArgs),
    /// Looks after the store.
    #[command(subcommand)]
    System(SystemCommand),
    /// Shows what happened to containers, images, networks and volumes, and what happens.
    Events(EventsArgs),
    /// Shows what rbuild has here, and what it runs on.
    Info(AboutArgs),
    /// Shows the version.
    Version(AboutArgs),
    /// Prints a script that completes command lines in a shell.
    Completion(CompletionArgs),
    /// Writes man pages, one for each command, into a directory.
    Man(ManArgs),
}

// The parts of `rbuild build --help`, in which the flags below stand in the same order.
const CONTEXT: &str = "Context";
const DOCKERFILE: &str = "Dockerfile";
const IMAGE: &str = "Image";
const STEPS: &str = "RUN steps";
const CACHE: &str = "Cache";
const OUTPUT: &str = "Output";

/// `rbuild build`.
#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// The build context: a directory, a git repository, a tar of a web server, or `-` for a tar or a Dockerfile on standard
    /// input.
    #[arg(value_name = "PATH|URL|-")]
    pub(crate) context: PathBuf,
    /// The Dockerfile [default: PATH/Dockerfile]; `-` for standard input.
    #[arg(help_heading = CONTEXT, short, long, value_name = "FILE|URL|-", value_parser = path())]
    pub(crate) file: Option<PathBuf>,
    /// Reads what of the context is left out from this file, in the place of `.dockerignore`.
    #[arg(help_heading = CONTEXT, long, value_name = "FILE", value_parser = path())]
    pub(crate) ignorefile: Option<PathBuf>,
    /// What a name in the Dockerfile stands for: a directory, `docker-image://IMAGE`, `oci-layout://PATH[:TAG]`, or the URL of a
    /// git repository or of a file (repeatable).
    #[arg(help_heading = CONTEXT, long = "build-context", value_name = "NAME=VALUE")]
    pub(crate) build_contexts: Vec<String>,
    /// The stage to build.
    #[arg(help_heading = DOCKERFILE, long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// What to build for: `linux/amd64,linux/arm64`; several make an index (repeatable).
    #[arg(
        help_heading = DOCKERFILE,
        long = "platform",
        value_name = "PLATFORM",
        env = "DOCKER_DEFAULT_PLATFORM",
        value_delimiter = ','
    )]
    pub(crate) platforms: Vec<String>,
    /// Sets a build argument; without a value it is taken from the environment (repeatable).
    #[arg(help_heading = DOCKERFILE, long = "build-arg", value_name = "NAME[=VALUE]")]
    pub(crate) build_args: Vec<String>,
    /// Sets build arguments from the lines of a file, as `--build-arg` takes them; `#` begins a comment (repeatable).
    #[arg(help_heading = DOCKERFILE, long = "build-arg-file", value_name = "FILE")]
    pub(crate) build_arg_files: Vec<PathBuf>,
    /// What is done with the Dockerfile: `build`, `check`, `outline`, `targets` or `subrequests.describe`; `,format=json` for
    /// programs.
    #[arg(help_heading = DOCKERFILE, long, value_name = "METHOD", default_value = "build")]
    pub(crate) call: Call,
    /// The same as `--call=check`: looks for mistakes, builds nothing, and exits with 1 where there are warnings.
    #[arg(help_heading = DOCKERFILE, long, conflicts_with = "call")]
    pub(crate) check: bool,
    /// A name for the image (repeatable).
    #[arg(help_heading = IMAGE, short, long = "tag", value_name = "NAME")]
    pub(crate) tags: Vec<String>,
    /// Adds a label to the image (repeatable).
    #[arg(help_heading = IMAGE, long = "label", value_name = "NAME=VALUE")]
    pub(crate) labels: Vec<String>,
    /// Removes a label from the image, such as one of its base (repeatable).
    #[arg(help_heading = IMAGE, long = "unsetlabel", value_name = "NAME")]
    pub(crate) unset_labels: Vec<String>,
    /// Removes an environment variable from the image; the steps of the build still see it (repeatable).
    #[arg(help_heading = IMAGE, long = "unsetenv", value_name = "NAME")]
    pub(crate) unset_env: Vec<String>,
    /// Adds an annotation: `[manifest|index|manifest-descriptor|index-descriptor[PLATFORM],…:]NAME=VALUE` (repeatable).
    #[arg(help_heading = IMAGE, long = "annotation", value_name = "ANNOTATION")]
    pub(crate) annotations: Vec<String>,
    /// The time of the image and the latest of its files, in Unix seconds: SOURCE_DATE_EPOCH.
    #[arg(help_heading = IMAGE, long, value_name = "SECONDS")]
    pub(crate) timestamp: Option<i64>,
    /// Makes one layer of all that the build adds to its base image.
    #[arg(help_heading = IMAGE, long)]
    pub(crate) squash: bool,
    /// The network of RUN steps.
    #[arg(help_heading = STEPS, long, value_enum, default_value_t = BuildNetworkArg::Default)]
    pub(crate) network: BuildNetworkArg,
    /// Adds a line to /etc/hosts of RUN steps; `host-gateway` is the address of this machine (repeatable).
    #[arg(help_heading = STEPS, long = "add-host", value_name = "HOST:IP")]
    pub(crate) add_hosts: Vec<String>,
    /// Lets RUN steps ask for `network.host` or `security.insecure` (repeatable).
    #[arg(help_heading = STEPS, long, value_name = "ENTITLEMENT", value_delimiter = ',')]
    pub(crate) allow: Vec<String>,
    /// Holds RUN steps otherwise: `seccomp=FILE|unconfined`, `no-new-privileges`, `apparmor=PROFILE`, `systempaths=unconfined`
    /// (repeatable).
    #[arg(help_heading = STEPS, long = "security-opt", value_name = "OPTION")]
    pub(crate) security_opts: Vec<String>,
    /// Lets RUN steps trust the authorities of a PEM file as well; in no layer and no cache key (repeatable).
    #[arg(help_heading = STEPS, long = "trust-ca", value_name = "FILE")]
    pub(crate) trust_ca: Vec<PathBuf>,
    /// Lets RUN steps mount a secret: `id=ID[,src=FILE|,env=NAME][,type=file|env]` (repeatable).
    #[arg(help_heading = STEPS, long = "secret", value_name = "SPEC")]
    pub(crate) secrets: Vec<String>,
    /// Lets RUN steps use an ssh agent: `default|ID[=SOCKET|KEY[,KEY]][,raw=BOOL]` (repeatable).
    #[arg(help_heading = STEPS, long = "ssh", value_name = "SPEC")]
    pub(crate) ssh: Vec<String>,
    /// Shows a path of this machine to RUN steps; in no layer and no cache key (repeatable).
    #[arg(help_heading = STEPS, short, long = "volume", value_name = "HOST:CONTAINER[:ro]")]
    pub(crate) volumes: Vec<String>,
    /// Limits a resource of RUN steps; -1 is unlimited (repeatable).
    #[arg(help_heading = STEPS, long = "ulimit", value_name = "NAME=SOFT[:HARD]")]
    pub(crate) ulimits: Vec<String>,
    /// The size of /dev/shm of RUN steps [default: 64m].
    #[arg(help_heading = STEPS, long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(crate) shm_size: Option<String>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// The control group that those of RUN steps are made in [default: /rbuild].
    #[arg(help_heading = STEPS, long, value_name = "GROUP")]
    pub(crate) cgroup_parent: Option<String>,
    /// How many steps run at once [default: 64].
    #[arg(help_heading = STEPS, long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
    /// What is done when a RUN step fails: `shell` opens one in what the step left.
    #[arg(help_heading = STEPS, long, value_enum, value_name = "ACTION")]
    pub(crate) on_error: Option<OnErrorArg>,
    /// Looks in a shared cache for what other machines built: `type=registry,ref=REF`, `type=local,src=DIR`, `type=s3,bucket=B`, `gcs`,
    /// `azblob`, `gha` (repeatable).
    #[arg(help_heading = CACHE, long = "cache-from", value_name = "CACHE")]
    pub(crate) cache_from: Vec<String>,
    /// Writes what was built to a shared cache: as `--cache-from`, with `dest=` for `src=`; `,mode=max` for all stages
    /// (repeatable).
    #[arg(help_heading = CACHE, long = "cache-to", value_name = "CACHE")]
    pub(crate) cache_to: Vec<String>,
    /// Runs every step, whatever is cached.
    #[arg(help_heading = CACHE, long)]
    pub(crate) no_cache: bool,
    /// Runs every step of these stages, whatever is cached (repeatable).
    #[arg(help_heading = CACHE, long, value_name = "STAGE", value_delimiter = ',')]
    pub(crate) no_cache_filter: Vec<String>,
    /// When registries are asked for base images; without a value, always.
    #[arg(help_heading = CACHE, long, value_enum, num_args = 0..=1, require_equals = true, value_name = "WHEN")]
    #[arg(default_value_t = PullArg::Missing, default_missing_value = "always")]
    pub(crate) pull: PullArg,
    /// Says of each step why it runs, or where its result was found.
    #[arg(help_heading = CACHE, long)]
    pub(crate) explain: bool,
    /// Where the result goes: a directory, `-` for a tar on standard output, `type=oci|docker|tar|local,dest=PATH`,
    /// `type=image|registry,name=NAME`, or `type=cacheonly` (repeatable).
    #[arg(help_heading = OUTPUT, short, long = "output", value_name = "SPEC")]
    pub(crate) outputs: Vec<String>,
    /// Sends the image to the registry of each of its names.
    #[arg(help_heading = OUTPUT, long)]
    pub(crate) push: bool,
    /// Writes the image id to a file.
    #[arg(help_heading = OUTPUT, long, value_name = "FILE", value_parser = path())]
    pub(crate) iidfile: Option<PathBuf>,
    /// Writes facts about the result to a file, as JSON.
    #[arg(help_heading = OUTPUT, long, value_name = "FILE", value_parser = path())]
    pub(crate) metadata_file: Option<PathBuf>,
    /// Says something of the image beside it: `type=provenance,…` or `type=sbom,…` (repeatable).
    #[arg(help_heading = OUTPUT, long = "attest", value_name = "SPEC")]
    pub(crate) attestations: Vec<String>,
    /// Says of the image how it was made: `true`, `mode=min|max`, `builder-id=URL`, `reproducible=true`.
    #[arg(help_heading = OUTPUT, long, value_name = "BOOL|SPEC")]
    pub(crate) provenance: Option<String>,
    /// Says of the image what it is made of, as a scanner finds it: `true`, `generator=IMAGE[,KEY=VALUE]`.
    #[arg(help_heading = OUTPUT, long, value_name = "BOOL|SPEC")]
    pub(crate) sbom: Option<String>,
    /// How progress is shown.
    #[arg(help_heading = OUTPUT, long, value_enum, default_value_t = ProgressArg::Auto, env = "BUILDKIT_PROGRESS")]
    pub(crate) progress: ProgressArg,
    /// How much the cache may take: `20GB`, `10%` of the disk [default: 10 % of the disk, at least 10 GB].
    #[arg(help_heading = CACHE, long, value_name = "SIZE", env = "RBUILD_CACHE_SIZE")]
    pub(crate) cache_size: Option<String>,
    /// Prints the image id and nothing else.
    #[arg(help_heading = OUTPUT, short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    _foreign: ForeignArgs,
}

/// What command lines for Docker hold and what is always so here, or has no meaning without a daemon.
#[derive(Debug, Args)]
struct ForeignArgs {
    #[arg(long, hide = true)]
    _load: bool,
    #[arg(short = 'D', long, hide = true)]
    _debug: bool,
    #[arg(long, hide = true, value_name = "NAME")]
    _builder: Option<String>,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressArg {
    /// `tty` on a terminal, `plain` elsewhere.
    Auto,
    /// Live lines.
    Tty,
    /// Numbered lines.
    Plain,
    /// Nothing, and the image id on standard output.
    Quiet,
    /// Nothing.
    None,
    /// BuildKit's `SolveStatus` as lines of JSON.
    Rawjson,
}

/// What is done when a step fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnErrorArg {
    /// A shell is opened where it ran.
    Shell,
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatArg {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// `rbuild builds`.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum BuildsCommand {
    /// Lists builds, newest first.
    Ls(BuildsLsArgs),
    /// Shows what is known of a build.
    Inspect(InspectBuildArgs),
    /// Shows what the steps of a build printed, cached ones too.
    #[command(override_usage = "rbuild builds logs [BUILD] [STEP]")]
    Logs(StepArgs),
    /// Forgets builds.
    Rm(BuildsRmArgs),
}

/// `rbuild builds ls`.
#[derive(Debug, Args)]
pub(crate) struct BuildsLsArgs {
    /// A table, or a line of JSON for each build.
    #[arg(long, value_enum, default_value_t = FormatArg::Text)]
    pub(crate) format: FormatArg,
}

/// `rbuild builds inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectBuildArgs {
    /// For people or for programs.
    #[arg(long, value_enum, default_value_t = FormatArg::Text)]
    pub(crate) format: FormatArg,
    /// The build, by id or unique prefix [default: the newest].
    pub(crate) build: Option<String>,
}

/// Which build, and which of its steps.
#[derive(Debug, Args)]
pub(crate) struct StepArgs {
    /// The build, by id or unique prefix [default: the newest], and the step, by number (`#4`) or text.
    #[arg(value_names = ["BUILD", "STEP"], num_args = 0..=2)]
    pub(crate) words: Vec<String>,
}

/// `rbuild builds rm`.
#[derive(Debug, Args)]
pub(crate) struct BuildsRmArgs {
    /// All but those that run.
    #[arg(long, conflicts_with = "builds")]
    pub(crate) all: bool,
    /// Builds, by id or unique prefix.
    #[arg(required_unless_present = "all", value_name = "BUILD")]
    pub(crate) builds: Vec<String>,
}

/// `rbuild doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// A table, or JSON.
    #[arg(long, value_enum, default_value_t = FormatArg::Text)]
    pub(crate) format: FormatArg,
    /// The same as `--format=json`.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `rbuild explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// For people or for programs.
    #[arg(long, value_enum, default_value_t = FormatArg::Text)]
    pub(crate) format: FormatArg,
    #[command(flatten)]
    pub(crate) step: StepArgs,
}

/// `rbuild debug`.
#[derive(Debug, Args)]
pub(crate) struct DebugArgs {
    /// After the step, not before it.
    #[arg(long)]
    pub(crate) after: bool,
    #[command(flatten)]
    pub(crate) step: StepArgs,
}

/// The network of RUN steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BuildNetworkArg {
    /// The builder's default.
    Default,
    /// The host's.
    Host,
    /// Only loopback.
    None,
}

/// When to ask a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullArg {
    /// Always.
    #[value(alias = "true")]
    Always,
    /// When the image is not in the store.
    #[value(alias = "false")]
    Missing,
    /// Never.
    Never,
    /// Always, unless the registry cannot be reached and the image is in the store.
    Newer,
}

/// `rbuild inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// `json`, or a Go template.
    #[arg(short, long)]
    pub(crate) format: Option<String>,
    /// Shows what containers take on disk.
    #[arg(short, long)]
    pub(crate) size: bool,
    /// Only things of this kind: `container`, `image`, `network` or `volume`.
    #[arg(long = "type", value_name = "KIND")]
    pub(crate) kind: Option<String>,
    /// Containers, images, networks or volumes.
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
}

/// `rbuild copy`.
#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    /// Prints nothing.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// What to copy.
    pub(crate) source: String,
    /// Its new name.
    pub(crate) destination: String,
}

/// `rbuild manifest`.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum ManifestCommand {
    /// Shows the manifest or index of a name, as JSON.
    Inspect(ManifestInspectArgs),
}

/// `rbuild manifest inspect`.
#[derive(Debug, Args)]
pub(crate) struct ManifestInspectArgs {
    /// Shows it byte for byte.
    #[arg(long)]
    pub(crate) raw: bool,
    /// Shows nothing but its digest.
    #[arg(long, conflicts_with = "raw")]
    pub(crate) digest: bool,
    /// The image.
    pub(crate) image: String,
}

/// `rbuild search`.
#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    /// How many names are shown at most.
    #[arg(long, default_value_t = 25)]
    pub(crate) limit: usize,
    /// Only what matches: `is-official=true|false`, `stars=N` (repeatable).
    #[arg(short, long = "filter", value_name = "FILTER")]
    pub(crate) filters: Vec<String>,
    /// `table`, `json`, or a Go template.
    #[arg(long)]
    pub(crate) format: Option<String>,
    /// Does not shorten descriptions.
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// A word to look for at Docker Hub, or a registry and a part of names.
    #[arg(value_name = "[REGISTRY/]WORD")]
    pub(crate) term: String,
}

/// `rbuild login`.
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// The user.
    #[arg(short, long)]
    pub(crate) username: Option<String>,
    /// Reads the password from standard input.
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// The registry [default: docker.io].
    pub(crate) server: Option<String>,
}

/// `rbuild logout`.
#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    /// The registry [default: docker.io].
    pub(crate) server: Option<String>,
}

/// All commands and flags, as data.
pub(crate) fn definitions() -> clap::Command {
    let mut commands = Cli::command();
    // What is deferred (see `Command`) is made here.
    commands.build();
    commands
}

/// A path that may be empty, for which scripts mean none; clap's own refuses it.
pub(crate) fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// A path that was given, and is not empty.
pub(crate) fn given(path: Option<&PathBuf>) -> Option<&Path> {
    path.map(PathBuf::as_path).filter(|path| !path.as_os_str().is_empty())
}

/// Why a command line is not run: it is no command, or it asks for help.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) error: clap::Error,
    /// Whether the command is one of Docker's: its mistakes have Docker's exit code, which cannot be a container's.
    pub(crate) is_docker_s: bool,
}

/// Parses the command line.
pub(crate) fn parse(line: Vec<OsString>) -> Result<Cli, Refusal> {
    let mut commands = Cli::command();
    let line = with_default_command(&commands, line);
    let command = line.get(command_at(&commands, &line));
    let is_docker_s = command.is_some_and(|word| is_docker_s(&word.to_string_lossy()));
    commands
        .try_get_matches_from_mut(line)
        .and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches))
        .map_err(|error| Refusal { error: error.format(&mut commands), is_docker_s })
}

/// The commands whose mistakes end with rbuild's own exit code: they are not Docker's, or build, or are asked for by no script.
const OWN_COMMANDS: [&str; 13] = [
    "build",
    "builds",
    "explain",
    "debug",
    "copy",
    "manifest",
    "du",
    "prune",
    "cache-mount",
    "doctor",
    "completion",
    "man",
    "help",
];

fn is_docker_s(command: &str) -> bool {
    !command.starts_with('-') && !OWN_COMMANDS.contains(&command)
}

/// Where the command is, if the line has one: behind the flags that hold for every command.
fn command_at(commands: &clap::Command, line: &[OsString]) -> usize {
    let mut at = 1;
    while let Some(word) = line.get(at).and_then(|word| word.to_str()) {
        let (flag, value) = word.split_once('=').map_or((word, None), |(flag, value)| (flag, Some(value)));
        let is_it = |arg: &&clap::Arg| {
            arg.is_global_set() && arg.get_long().is_some_and(|long| flag.strip_prefix("--") == Some(long))
        };
        let Some(global) = commands.get_arguments().find(is_it) else { break };
        at += if value.is_none() && global.get_action().takes_values() { 2 } else { 1 };
    }
    at
}

/// Inserts `build` where the first word is no command.
fn with_default_command(commands: &clap::Command, mut line: Vec<OsString>) -> Vec<OsString> {
    let at = command_at(commands, &line);
    let is_command = |word: &str| {
        matches!(word, "-h" | "--help" | "-V" | "--version") || commands.find_subcommand(word).is_some()
    };
    if line.get(at).is_some_and(|word| !is_command(&word.to_string_lossy())) {
        line.insert(at, "build".into());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(Into::into).collect()
    }

    #[test]
    fn a_line_without_a_command_is_a_build() {
        let cases = [
            ("rbuild -t app .", "rbuild build -t app ."),
            ("rbuild .", "rbuild build ."),
            ("rbuild --root /x -t app .", "rbuild --root /x build -t app ."),
            ("rbuild --root=/x .", "rbuild --root=/x build ."),
            ("rbuild --offline images", "rbuild --offline images"),
            ("rbuild --offline .", "rbuild --offline build ."),
            ("rbuild --layers tree --offline --root=/x ps", "rbuild --layers tree --offline --root=/x ps"),
            ("rbuild images -q", "rbuild images -q"),
            ("rbuild --help", "rbuild --help"),
            ("rbuild build .", "rbuild build ."),
        ];
        for (line, expected) in cases {
            assert_eq!(with_default_command(&Cli::command(), words(line)), words(expected));
        }
    }

    #[test]
    fn every_global_flag_may_stand_before_the_command() {
        let commands = Cli::command();
        let globals: Vec<&clap::Arg> = commands.get_arguments().filter(|arg| arg.is_global_set()).collect();
        assert!(globals.len() >= 5, "{globals:?}");
        for global in globals {
            let flag = format!("--{}", global.get_long().expect("a global flag has a long name"));
            let value = global.get_action().takes_values().then_some("x");
            let line: Vec<OsString> =
                ["rbuild", &flag].into_iter().chain(value).chain(["ps"]).map(Into::into).collect();
            assert_eq!(with_default_command(&commands, line.clone()), line);
        }
    }

    #[test]
    fn definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_follows_the_image_is_the_command() {
        let cases: [(&str, &[&str]); 3] = [
            ("rbuild run -it app", &[]),
            ("rbuild run -it app ls -la --rm", &["ls", "-la", "--rm"]),
            ("rbuild run -it app --rm -e --root x -- y", &["--rm", "-e", "--root", "x", "--", "y"]),
        ];
        for (line, command) in cases {
            let Command::Containers(ContainersCommand::Run(run)) = parse(words(line)).unwrap().command else {
                panic!("not a run")
            };
            let run = run.options;
            assert!(run.interactive && run.tty && !run.rm, "{line}");
            assert_eq!(
                (run.image(), run.command()),
                ("app", &*command.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
            );
        }
        assert!(parse(words("rbuild run --nosuch app")).is_err());
        assert!(parse(words("rbuild run --rm")).is_err());
    }
}
