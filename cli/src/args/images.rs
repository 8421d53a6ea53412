//! The commands that work on images.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{BuildArgs, ImagePruneArgs, InspectArgs, path};

/// `rbuild image`.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum ImageCommand {
    #[command(flatten)]
    Same(ImagesCommand),
    /// Builds an image from a Dockerfile.
    Build(Box<BuildArgs>),
    /// Lists images.
    #[command(alias = "list")]
    Ls(ImagesArgs),
    /// Shows what is known of images, as JSON.
    Inspect(InspectArgs),
    /// Removes images.
    #[command(alias = "remove")]
    Rm(RmiArgs),
    /// Removes images without a name.
    Prune(ImagePruneArgs),
}

/// What is called the same with `image` before it and without.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum ImagesCommand {
    /// Shows the layers of an image and the instructions that made them.
    History(HistoryArgs),
    /// Gives an image another name.
    Tag(TagArgs),
    /// Makes an image from a tar of a file system.
    Import(ImportArgs),
    /// Writes images, with their layers and metadata, to a tar.
    Save(SaveArgs),
    /// Reads images from a tar or a directory that `save`, Docker, Podman or skopeo wrote.
    Load(LoadArgs),
    /// Fetches an image from a registry.
    Pull(PullArgs),
    /// Sends an image to a registry.
    Push(PushArgs),
}

/// `rbuild images`.
#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// Shows the read-only layers below the images as well.
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Shows ids only.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Shows manifest digests.
    #[arg(long)]
    pub(crate) digests: bool,
    /// Shows the platforms of each image below it.
    #[arg(long, conflicts_with_all = ["quiet", "digests", "format"])]
    pub(crate) tree: bool,
    /// Does not shorten ids.
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Only what matches: `dangling=true|false`, `label=NAME[=VALUE]`, `before=IMAGE`, `since=IMAGE`, `until=24h`,
    /// `reference=PATTERN` (repeatable).
    #[arg(short, long = "filter", value_name = "FILTER")]
    pub(crate) filters: Vec<String>,
    /// `table`, `json`, or a Go template.
    #[arg(long)]
    pub(crate) format: Option<String>,
    /// Only images of this name; a pattern, as a shell has them.
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub(crate) name: Option<String>,
}

/// `rbuild history`.
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Does not shorten ids and instructions.
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Shows ids only.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Sizes and times for people, not for programs.
    #[arg(short = 'H', long, num_args = 0..=1, require_equals = true, value_name = "BOOL")]
    #[arg(default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) human: bool,
    /// The platform, where there are several.
    #[arg(long)]
    pub(crate) platform: Option<String>,
    /// `table`, `json`, or a Go template.
    #[arg(long)]
    pub(crate) format: Option<String>,
    /// The image.
    pub(crate) image: String,
}

/// `rbuild rmi`.
#[derive(Debug, Args)]
pub(crate) struct RmiArgs {
    /// Removes images that stopped containers use, and fails for no missing ones.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Keeps what only this image needed. It is kept in any case, until a prune.
    #[arg(long = "no-prune")]
    _no_prune: bool,
    /// Images, by name, id or unique prefix.
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
}

/// `rbuild tag`.
#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// The image.
    pub(crate) source: String,
    /// Its further name.
    pub(crate) target: String,
}

/// `rbuild import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// A Dockerfile instruction that sets configuration, such as `CMD ["sh"]` (repeatable).
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    pub(crate) changes: Vec<String>,
    /// A comment for the image's history.
    #[arg(short, long)]
    pub(crate) message: Option<String>,
    /// What the image is for [default: this machine].
    #[arg(long)]
    pub(crate) platform: Option<String>,
    /// The tar, plain or compressed: a file, `-` for standard input, or a URL.
    #[arg(value_name = "FILE|URL|-")]
    pub(crate) file: PathBuf,
    /// A name for the image.
    pub(crate) name: Option<String>,
}

/// `rbuild save`.
#[derive(Debug, Args)]
pub(crate) struct SaveArgs {
    /// The file to write [default: standard output].
    #[arg(short, long, value_name = "FILE", value_parser = path())]
    pub(crate) output: Option<PathBuf>,
    /// The platform to save, where there are several.
    #[arg(long)]
    pub(crate) platform: Option<String>,
    /// The form: one that Docker reads as well, or a plain OCI layout.
    #[arg(long, value_enum, default_value_t = ArchiveFormatArg::DockerArchive)]
    pub(crate) format: ArchiveFormatArg,
    /// Images.
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
}

/// The form of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ArchiveFormatArg {
    /// An OCI layout with Docker's `manifest.json` beside it.
    DockerArchive,
    /// An OCI layout.
    OciArchive,
}

/// `rbuild load`.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// The file or directory to read [default: standard input].
    #[arg(short, long, value_name = "PATH", value_parser = path())]
    pub(crate) input: Option<PathBuf>,
    /// Prints nothing but the names.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Takes of each image only what is for this platform.
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
}

/// `rbuild pull`.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// Prints nothing but the name.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// The platform to take.
    #[arg(long)]
    pub(crate) platform: Option<String>,
    /// The image.
    pub(crate) image: String,
}

/// `rbuild push`.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// Prints nothing.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// How layers are compressed that are not yet: `gzip`, `zstd` or `none`; with a level, `zstd,9`.
    #[arg(long, value_name = "FORM[,LEVEL]")]
    pub(crate) compression: Option<String>,
    /// Brings layers into that form that are compressed in another.
    #[arg(long)]
    pub(crate) force_compression: bool,
    /// The image.
    pub(crate) image: String,
}
