//! What a container image is, as data.
//!
//! An image is a *manifest* (which names a *config* and a list of *layer blobs* by [`Descriptor`]), or an
//! *index* of such manifests, one per [`Platform`]. The config holds what a container needs to know to run
//! (`Env`, `Cmd`, `User`, …), the diff-ids of the layers, and their history. A [`Reference`] is the name people
//! type; a [`Digest`] is the name that cannot lie.
//!
//! This crate reads and writes no file and opens no socket. It holds the documents of the OCI image
//! specification 1.1 with the Docker additions (`Healthcheck`, `OnBuild`, `Shell`) that Dockerfiles need.
//!
//! Invariants:
//! * A [`Digest`] comes from hashing or from parsing; there is no other constructor but those.
//! * A blob's [`Digest`] and a layer's [`DiffId`] are different types: one names compressed bytes, the other the
//!   tar inside.
//! * Documents that came from outside are kept as the bytes they came in; what is parsed here is a view. Only
//!   documents that rbuild makes are serialised.
#![forbid(unsafe_code)]

mod attestation;
mod config;
mod descriptor;
mod digest;
mod key_hasher;
mod manifest;
mod media_type;
mod platform;
mod reference;

pub use attestation::{PREDICATE_TYPE, Statement, Subject, package_url};
pub use config::{ContainerConfig, Healthcheck, History, ImageConfig, RootFs};
pub use descriptor::Descriptor;
pub use digest::{ChainId, DiffId, Digest, Hasher, HashingReader, HashingWriter, ParseDigestError};
pub use key_hasher::KeyHasher;
pub use manifest::{Index, MANIFEST_SIZE_BYTES_MAX, Manifest, ManifestError};
pub use media_type::MediaType;
pub use platform::{ParsePlatformError, Platform};
pub use reference::{ParseReferenceError, Reference};
