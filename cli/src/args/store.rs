//! The commands that look after what is stored.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// What is shown or removed.
#[derive(Debug, Clone, Args)]
pub(crate) struct FilterArgs {
    /// Only what matches: `until=24h`, `unused-for=1h`, `type=step|source|cache-mount|git|internal|image`, `id=ID`,
    /// `description=TEXT`, `inuse`, `shared`, `private`; `!=` for what does not (repeatable).
    #[arg(long = "filter", value_name = "FILTER")]
    pub(crate) filters: Vec<String>,
}

/// How lists are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListFormatArg {
    /// For people.
    Table,
    /// A line of JSON for each.
    Json,
}

/// `rbuild du`.
#[derive(Debug, Args)]
pub(crate) struct DuArgs {
    /// Shows all that is known of each record.
    #[arg(long)]
    pub(crate) verbose: bool,
    /// The form of the list.
    #[arg(long, value_enum, default_value_t = ListFormatArg::Table)]
    pub(crate) format: ListFormatArg,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
}

/// How much the cache may take after a prune.
#[derive(Debug, Clone, Args)]
pub(crate) struct SpaceArgs {
    /// Keeps this much, whatever else is said.
    #[arg(long, value_name = "SIZE", visible_alias = "keep-storage")]
    pub(crate) reserved_space: Option<String>,
    /// Removes until the cache takes at most this much.
    #[arg(long, value_name = "SIZE", visible_alias = "keep-bytes")]
    pub(crate) max_used_space: Option<String>,
    /// Removes until this much of the disk is free.
    #[arg(long, value_name = "SIZE")]
    pub(crate) min_free_space: Option<String>,
}

/// `rbuild prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Forgets also the steps that images need, though that frees nothing.
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Does not ask.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Only says what would go, and why.
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    #[command(flatten)]
    pub(crate) space: SpaceArgs,
}

/// Which shared cache.
#[derive(Debug, Clone, Args)]
pub(crate) struct SharedCacheArgs {
    /// The cache, as `--cache-from` of a build takes it [default: `shared` under `[cache]` in the config file].
    #[arg(long, value_name = "CACHE")]
    pub(crate) from: Option<String>,
}

/// `rbuild cache`.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum CacheCommand {
    /// Lists the records of a shared cache.
    Ls {
        /// Shows keys only.
        #[arg(short, long)]
        quiet: bool,
        #[command(flatten)]
        cache: SharedCacheArgs,
    },
    /// Shows what is known of records, as JSON.
    Inspect {
        /// Records, by what their keys begin with.
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<String>,
        #[command(flatten)]
        cache: SharedCacheArgs,
    },
    /// Removes records that filters select, and what no record names any more.
    Prune(CachePruneArgs),
}

/// `rbuild cache prune`.
#[derive(Debug, Args)]
pub(crate) struct CachePruneArgs {
    /// Removes all records.
    #[arg(short, long, conflicts_with = "filters")]
    pub(crate) all: bool,
    /// Does not ask.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Only says what would go.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The records that go: `unused-for=30d`, `until=90d`, `unsigned`; all that are given must hold (repeatable).
    #[arg(long = "filter", value_name = "FILTER")]
    pub(crate) filters: Vec<String>,
    /// How long a layer that no record names stays: longer than any build takes to write its records.
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub(crate) grace: String,
    #[command(flatten)]
    pub(crate) cache: SharedCacheArgs,
}

/// `rbuild cache-mount`.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum CacheMountCommand {
    /// Lists cache mounts.
    Ls {
        /// Shows ids only.
        #[arg(short, long)]
        quiet: bool,
    },
    /// Shows what is known of cache mounts, as JSON.
    Inspect {
        /// Cache mounts, by id or by the name that a Dockerfile gives them.
        #[arg(required = true, value_name = "ID")]
        mounts: Vec<String>,
    },
    /// Removes cache mounts.
    Rm {
        /// Cache mounts, by id or by the name that a Dockerfile gives them.
        #[arg(required = true, value_name = "ID")]
        mounts: Vec<String>,
    },
    /// Removes the cache mounts that no step is using.
    Prune {
        /// Does not ask.
        #[arg(short, long)]
        force: bool,
        #[command(flatten)]
        filter: FilterArgs,
    },
    /// Writes the content of a cache mount as a tar, or sends it to a registry.
    Export {
        /// The file to write [default: standard output].
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// The name in a registry to send it to, as an OCI artifact.
        #[arg(long, value_name = "REFERENCE", conflicts_with = "output")]
        to: Option<String>,
        /// The cache mount, by id or by the name that a Dockerfile gives it.
        #[arg(value_name = "ID")]
        mount: String,
    },
    /// Replaces the content of a cache mount by that of a tar, or of one in a registry; makes one of that name where there is none.
    Import {
        /// The name in a registry to fetch it from.
        #[arg(long, value_name = "REFERENCE", required_unless_present = "file", conflicts_with = "file")]
        from: Option<String>,
        /// The cache mount, by id or by the name that a Dockerfile gives it.
        #[arg(value_name = "ID")]
        mount: String,
        /// The tar, plain or compressed; `-` for standard input.
        file: Option<PathBuf>,
    },
}

/// What the commands have in common that remove things which are not in use.
#[derive(Debug, Args)]
pub(crate) struct ObjectPruneArgs {
    /// Does not ask.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Only what matches: `until=24h`, `label=NAME[=VALUE]`, `label!=NAME[=VALUE]` (repeatable).
    #[arg(long = "filter", value_name = "FILTER")]
    pub(crate) filters: Vec<String>,
}

/// `rbuild image prune` and `rbuild system prune`.
#[derive(Debug, Args)]
pub(crate) struct ImagePruneArgs {
    /// Removes all images that no container uses.
    #[arg(short, long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) objects: ObjectPruneArgs,
}

/// `rbuild system`.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum SystemCommand {
    /// Verifies everything that is stored.
    Check(SystemCheckArgs),
    /// Shows what images, containers, volumes and the cache take on disk.
    Df(DfArgs),
    /// Shows what happened to containers, images, networks and volumes, and what happens.
    Events(EventsArgs),
    /// Shows what rbuild has here, and what it runs on.
    Info(AboutArgs),
    /// Removes stopped containers, images without a name, and the cache.
    Prune(SystemPruneArgs),
}

/// `rbuild system check`.
#[derive(Debug, Args)]
pub(crate) struct SystemCheckArgs {
    /// Forget what is damaged, so that it is made or fetched again.
    #[arg(long)]
    pub(crate) repair: bool,
}

/// `rbuild system df`.
#[derive(Debug, Args)]
pub(crate) struct DfArgs {
    /// Shows each image, container, volume and cache entry.
    #[arg(short, long, conflicts_with = "format")]
    pub(crate) verbose: bool,
    /// `table`, `json`, or a Go template.
    #[arg(long)]
    pub(crate) format: Option<String>,
}

/// `rbuild events`.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// From then on: a time, Unix seconds, or how long ago, such as `10m` [default: from now on].
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Until then [default: until it is interrupted].
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Only what matches: `type=`, `event=`, `container=`, `image=`, `network=`, `volume=`, `label=` (repeatable).
    #[arg(short, long = "filter", value_name = "FILTER")]
    pub(crate) filters: Vec<String>,
    /// `json`, or a Go template.
    #[arg(long)]
    pub(crate) format: Option<String>,
}

/// `rbuild info` and `rbuild version`.
#[derive(Debug, Args)]
pub(crate) struct AboutArgs {
    /// `json`, or a Go template.
    #[arg(short, long)]
    pub(crate) format: Option<String>,
}

/// `rbuild completion`.
#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: ShellArg,
}

/// A shell that completes command lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ShellArg {
    /// GNU bash.
    Bash,
    /// Z shell.
    Zsh,
    /// fish.
    Fish,
}

/// `rbuild man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The directory, such as `/usr/local/share/man/man1`; it is made where there is none.
    pub(crate) directory: PathBuf,
}

/// `rbuild system prune`.
#[derive(Debug, Args)]
pub(crate) struct SystemPruneArgs {
    /// Removes volumes that nobody named and no container uses.
    #[arg(long)]
    pub(crate) volumes: bool,
    #[command(flatten)]
    pub(crate) images: ImagePruneArgs,
}
