//! The store: everything rbuild keeps on disk, shared by any number of processes, without a daemon.
//!
//! ```text
//! <root>/                     mode 0700: layers hold other people's set-uid programs
//!   version                   the format; written last when a store is made
//!   metadata.db               SQLite: layers, snapshots, cache records, images, containers
//!   stat-cache-v1.db          SQLite, expendable: what files of build contexts held when they were last read
//!   downloads-v1.db           SQLite, expendable: what web servers were last found to have
//!   blob-places-v1.db         SQLite, expendable: which repositories of registries have which blobs
//!   content/sha256/<aa>/<hex> blobs: manifests, configs, compressed layers
//!   ingest/<name>             blobs on their way in; each writer holds its file's lock
//!   layers/<id>               one layer each: a directory, in the form that overlayfs takes as a lower one; what such a one has that
//!                             another has not; or an image (see [`tree`])
//!   packs/<id>                contents of files that such images point to; made with the first
//!   active/<name>/            layers on their way: `upper` (the layer to be), `work` (overlayfs's own); their owner
//!                             holds the directory's lock
//!   empty/                    an empty directory
//!   stubs/                    mount-point stubs that the executor lays under a root
//!   locks/<hex>               one file for each key that a process is working on
//!   leases/<start>-<name>     one file for each process that is using the store; it holds the file's lock
//!   trash/<name>              on its way out, removed in the background (see [`Store::discard`])
//!   cache-mounts/<name>/      cache mounts of steps; whoever uses one holds its lock
//!   git/<name>/               bare mirrors of git repositories, by remote
//!   containers/<id>/          writable layers and logs of containers
//!   volumes/<name>/
//!   builds/<start>-<id>/        the history of builds, with what their steps printed
//!   file-lists/<hex>            which files steps were given, by digest
//!   prune.lock                held by prune alone, or shared by a check of the store
//!   leases.lock               shared for the moment in which a lease is taken, held alone while they are read
//! ```
//!
//! # What a name promises
//!
//! * A name in `content/` is the digest of what is under it, verified and synced before it got the name.
//! * A name in `layers/` or `packs/` that has a row in the metadata is a whole layer or pack, never changed again, but for holes in
//!   packs where no layer has anything ([`prune`]).
//! * A row names only what was there before the row: files first, then the row.
//!
//! # What a crash leaves
//!
//! A process may die at any instant, and the disk may fill. What was not committed has no row, and is
//!
//! * a file in `ingest/`, `locks/` or `leases/`, or a directory in `active/`, whose lock is free: removed by the next
//!   process that makes a layer (an open looks at nothing, unless the disk is full);
//! * a directory in `layers/` without a row: replaced when its id is given out again, or removed by [`Store::prune`] and
//!   [`Store::check`];
//! * an entry of `trash/`: removed by the same clean-up;
//! * a directory in `builds/` whose lock is free, and whose record says that the build goes on: told as a build that died;
//! * no mount: mounts are made detached and vanish with their last descriptor (see [`snapshot`]).
//!
//! A power failure can also take the newest rows, save those that holes in packs rest on, and the contents of files in layers that the system had not written
//! back. [`Store::check`] finds what can be found, and [`Store::repair`] forgets it.
//!
//! # Locks
//!
//! All are `flock(2)`, so a process that is gone holds nothing.
//!
//! * [`Store::lock_key`] lets one process work on a cache key while others wait for its result.
//! * [`Lease`]: nothing that was used since the oldest live lease began is pruned. "Used" is recorded: looking up
//!   a record, a snapshot or a blob stamps it.
//! * [`Store::cache_mount`]: its users share a cache mount or have it for themselves.
//! * A blob is shared while it is stamped, and locked alone while prune looks at the stamp and takes its name away.
//! * A build has its directory in `builds/` for itself; who asks whether it runs shares it for an instant.
//! * Order, outermost first: key lock, cache mount, `prune.lock`, a transaction, then `leases.lock` or a blob, in which nobody waits for anything.
//!   Nothing waits for a key lock inside the others.
//!
//! Where to start reading: [`snapshot`] for how a step becomes a layer, [`records`] for what the cache remembers,
//! [`prune`] for how it forgets.
#![forbid(unsafe_code)]

mod blob_places;
pub mod builds;
mod by_digest;
mod cache_mount;
mod check;
mod clean_up;
pub mod containers;
pub mod content;
pub mod content_digest;
mod db;
pub mod difference;
mod downloads;
mod error;
pub mod events;
pub mod fail_point;
mod file_lists;
pub mod images;
pub mod layer;
mod layout;
mod lease;
mod lock;
mod mutable;
mod pipe;
pub mod prune;
pub mod records;
pub mod root_dir;
pub mod snapshot;
mod stat_cache;
mod store;
#[cfg(test)]
mod testing;
mod trash;
pub mod tree;

pub use blob_places::BlobPlaces;
pub use builds::{BuildName, BuildWriter, Builds, Origin};
pub use cache_mount::{CacheMount, CacheMountSharing, CacheMountSpec};
pub use check::{CheckReport, Problem, set_damaged_metadata_aside};
pub use containers::{ContainerRecord, Containers};
pub use content::{BlobWriter, ContentStore, Expected};
pub use downloads::{Download, Downloads};
pub use error::{Error, Result};
pub use events::{EventReader, StoreEvent, Subject};
pub use images::{ImageRecord, Images};
pub use layout::Area;
pub use lease::Lease;
pub use lock::KeyLock;
pub use mutable::{Mutable, MutableKind};
pub use pipe::piped;
pub use prune::{PrunePolicy, PruneReport};
pub use records::{CacheKey, Likeness, NewRecord, Record, RecordedTrace, Records};
pub use snapshot::{
    ActiveSnapshot, Addition, Delta, Durability, Errand, KnownDirectory, KnownLayers, LayerForm, LayerId,
    LayerInfo, LayerTar, MountedRoot, MtimeClamp, OverlayXattrs, PlainTree, Snapshot, SnapshotId, Trees,
    UnpackedLayer,
};
pub use stat_cache::StatCacheTable;
pub use store::{Store, StoreOptions};
