//! The commands that look after volumes.

use clap::{Args, Subcommand};

use super::ObjectPruneArgs;

/// `rbuild volume`.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum VolumeCommand {
    /// Makes a volume.
    Create(VolumeCreateArgs),
    /// Lists volumes.
    #[command(alias = "list")]
    Ls(VolumeLsArgs),
    /// Shows what is known of volumes, as JSON.
    Inspect(VolumeInspectArgs),
    /// Removes volumes that no container uses.
    #[command(alias = "remove")]
    Rm(VolumeRmArgs),
    /// Removes volumes that nobody named and no container uses.
    Prune(VolumePruneArgs),
}

/// `rbuild volume create`.
#[derive(Debug, Args)]
pub(crate) struct VolumeCreateArgs {
    /// Its kind; there is one.
    #[arg(short, long, value_name = "DRIVER", default_value = "local", value_parser = ["local"])]
    _driver: String,
    /// Adds a label (repeatable).
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub(crate) labels: Vec<String>,
    /// Its name; 64 digits when not given.
    pub(crate) name: Option<String>,
}

/// `rbuild volume ls`.
#[derive(Debug, Args)]
pub(crate) struct VolumeLsArgs {
    /// Only what matches: `dangling=true|false`, `name=`, `label=`, `driver=` (repeatable).
    #[arg(short, long = "filter", value_name = "FILTER")]
    pub(crate) filters: Vec<String>,
    /// Shows names only.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// `table`, `json`, or a Go template.
    #[arg(long)]
    pub(crate) format: Option<String>,
}

/// `rbuild volume inspect`.
#[derive(Debug, Args)]
pub(crate) struct VolumeInspectArgs {
    /// `json`, or a Go template.
    #[arg(short, long)]
    pub(crate) format: Option<String>,
    /// Volumes.
    #[arg(required = true, value_name = "VOLUME")]
    pub(crate) volumes: Vec<String>,
}

/// `rbuild volume rm`.
#[derive(Debug, Args)]
pub(crate) struct VolumeRmArgs {
    /// Says nothing of missing ones.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Volumes.
    #[arg(required = true, value_name = "VOLUME")]
    pub(crate) volumes: Vec<String>,
}

/// `rbuild volume prune`.
#[derive(Debug, Args)]
pub(crate) struct VolumePruneArgs {
    /// Removes named ones as well.
    #[arg(short, long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) objects: ObjectPruneArgs,
}
