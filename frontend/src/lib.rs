//! Dockerfile text to LLB: a pure translation.
//!
//! [`lower`] takes the text, [`Options`] and an [`ImageResolver`], and gives back a [`Definition`] (what to do), an
//! [`ImageConfig`] (what the result is to say of itself) and [`Warning`]s. It reads no file, no environment and no
//! clock; the resolver is the only way out, and is asked for the images of reachable stages only.
//!
//! The life of a Dockerfile:
//! 1. [`parser`]: text → lines joined, comments and here-documents taken out, each with its range.
//! 2. `instruction`: a line → a typed instruction with its flags; nothing is expanded yet.
//! 3. `stage`: FROM names and `--from` become edges of a graph; cycles, the target, what is reachable; base images
//!    are resolved and their ONBUILD triggers put in front.
//! 4. `lower`: stage by stage in the order of the file, instruction by instruction, words expanded
//!    ([`expand`]) with the environment as it is at that point, into vertices and image config.
//!
//! What else can be asked of a Dockerfile (lint, its stages, what a build can be given) is answered by `subrequest`.
//!
//! Invariants of the result:
//! * Each RUN, COPY, ADD and each WORKDIR but `/` is one vertex whose output is its parent plus exactly one layer; in
//!   the same order they are the history entries that are not `empty_layer`, beyond those of the base image.
//! * `COPY --link` is a file operation on the empty tree and a merge with the parent: still one layer.
//! * Every error says which lines it is about, wherever a line is to blame, and which word in them.
#![forbid(unsafe_code)]

mod args;
mod context;
pub mod csv;
pub mod dockerignore;
mod error;
pub mod expand;
mod file;
mod instruction;
mod lint;
mod lower;
mod options;
pub mod parser;
mod paths;
mod remote;
mod resolver;
pub mod sbom;
mod span;
mod stage;
mod subrequest;
mod suggest;

use rbuild_image::ImageConfig;
use rbuild_llb::Definition;

pub use args::is_proxy;
pub use error::{Error, ErrorKind};
pub use instruction::duration::{format as format_duration, parse as parse_duration};
pub use instruction::mount::parse_size_bytes;
pub use lint::{Rule, Warning, parse_bool};
pub use lower::{check, lower, outline};
pub use options::{MainContext, NamedContext, NoCache, Options};
pub use remote::{CONTEXT_FILE, RemoteContext};
pub use resolver::{ImageResolver, OutsideError, ResolveError, ResolveErrorKind, ResolvedImage};
pub use span::Span;
pub use stage::ONBUILD_TRIGGERS_MAX;
pub use subrequest::{
    Answer, Checked, Outline, OutlineArg, OutlineMount, Target, Targets, describe, targets, warning_documents,
};

/// What a Dockerfile became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lowered {
    /// What to do.
    pub definition: Definition,
    /// What the image is to say of itself. `rootfs.diff_ids` is left for the exporter to fill.
    pub config: ImageConfig,
    /// How many of the first entries of `config.history` are the base image's own.
    pub history_inherited: usize,
    /// The time of everything that the build makes, if one was set: Unix seconds.
    pub source_date_epoch: Option<i64>,
    /// The name of the stage that was built; empty when it has none.
    pub stage: String,
    /// What lint found.
    pub warnings: Vec<Warning>,
    /// The build arguments that nothing takes, by name.
    pub unused_build_args: Vec<String>,
}
