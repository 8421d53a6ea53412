//! The build graph as data.
//!
//! A frontend makes a [`Definition`]: a list of [`Vertex`]es, each with an [`Op`] and the [`Edge`]s it depends
//! on, in an order in which every vertex stands after its inputs, and the edge that is the result. The solver
//! decides what of it has to run.
//!
//! The words and the fields are those of BuildKit's LLB (`pb.Op`), of which this is a superset: a graph that came
//! over its gRPC API can be expressed here without loss. What differs: sources are typed rather than a URL with
//! attributes, indices are typed rather than `-1`-coded, and facts for people (names, source lines) sit apart
//! from facts for machines.
//!
//! [`Op`] is what is hashed; [`Meta`] is not. See `encode` for how and why.
#![forbid(unsafe_code)]

mod builder;
mod definition;
mod dump;
mod encode;
mod file;
mod mount;
mod op;
pub mod pattern;
mod source;
mod vertex;

pub use builder::Builder;
pub use definition::{Definition, DefinitionError, VERTICES_MAX};
pub use encode::OpDigest;
pub use file::{
    Chmod, ChownId, CopyAction, FileAction, FileInput, FileOp, FileStep, MkdirAction, MkfileAction, Owner,
    RmAction, SymlinkAction,
};
pub use mount::{CacheSharing, Mount, MountKind, SecretFile, SshSocket};
pub use op::{
    DiffOp, ExecOp, ExtraHost, MergeOp, Network, Op, Process, ProxyEnv, SecretEnv, Security, Ulimit,
};
pub use source::{
    GitSource, HttpSource, ImageSource, LocalSource, OciLayoutSource, ResolveMode, SourceOp,
    without_credentials,
};
pub use vertex::{Edge, InputIndex, Meta, OutputIndex, SourceRange, Vertex, VertexId};
