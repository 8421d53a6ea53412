//! Mounts as a build declares them → mounts as the executor makes them.
//!
//! | declared | made |
//! |---|---|
//! | bind of a tree, read-only | a read-only view of the snapshot, or the path in it |
//! | bind of a tree, writable | an active snapshot, committed if the mount is an output, discarded otherwise |
//! | bind of the context | its files copied, without what `.dockerignore` hides; discarded |
//! | cache | a directory of the store, under its id, what it begins as, and its sharing |
//! | tmpfs | memory |
//! | secret | a file in memory, a variable, or both; nothing when it is optional and not given |
//! | ssh | a socket in memory that leads to the agent; nothing when it is optional and not given |

mod cache;
mod given;

pub use cache::cache_mount_key;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rbuild_cache::root_dir::{PathError, RootDir};
use rbuild_cache::{ActiveSnapshot, CacheMount, PlainTree, Snapshot, Trees};
use rbuild_executor::{Mount as Resolved, MountFlags, MountSource, Stubs, TmpfsOptions};
use rbuild_llb::{ExecOp, Mount, MountKind, OutputIndex};

use super::exec::{is_extra, shm_size_bytes};
use super::merge::snapshot;
use super::ssh_relay::SshRelay;
use super::{LocalWorker, StepError, WorkerError};
use crate::worker::{Context, Input};

/// Docker's size of `/dev/shm`.
const SHM_SIZE_BYTES_DEFAULT: u64 = 64 << 20;

/// The mounts of a step, and what must live as long as they do.
#[derive(Default)]
pub(super) struct ResolvedMounts {
    pub(super) mounts: Vec<Resolved>,
    /// Writable trees that become outputs.
    pub(super) outputs: Vec<(OutputIndex, ActiveSnapshot)>,
    /// Secrets as environment variables: `NAME=value`.
    pub(super) secret_env: Vec<String>,
    pub(super) shm_size_bytes: u64,
    /// Writable trees that are thrown away.
    discarded: Vec<ActiveSnapshot>,
    /// Cache mounts in use.
    caches: Vec<CacheMount>,
    /// Ways to agents of the host.
    relays: Vec<SshRelay>,
}

impl LocalWorker<'_> {
    pub(super) fn resolve_mounts(
        &self,
        op: &ExecOp,
        inputs: &[Input<'_, Snapshot>],
        cx: &Context<'_>,
    ) -> Result<ResolvedMounts, WorkerError> {
        let shm_size_bytes = shm_size_bytes(op).unwrap_or(SHM_SIZE_BYTES_DEFAULT);
        let secret_env = self.secret_env(&op.secret_env)?;
        let mut resolved = ResolvedMounts { secret_env, shm_size_bytes, ..ResolvedMounts::default() };
        let caches = self.take_caches(op, inputs, cx, &mut resolved.caches)?;
        for mount in op.mounts.iter().filter(|mount| is_extra(mount)) {
            let source = match &mount.kind {
                MountKind::Bind => Some(self.bind(mount, inputs, cx, &mut resolved)?),
                MountKind::Cache { .. } => Some(self.directory(caches[mount.target.as_str()].clone())),
                MountKind::Tmpfs { size_bytes } => {
                    let size_bytes = *size_bytes;
                    Some(MountSource::Tmpfs(TmpfsOptions { size_bytes, ..TmpfsOptions::default() }))
                }
                MountKind::Secret(_) | MountKind::Ssh(_) if self.is_plain() => {
                    return Err(needs_namespaces("secret or ssh mount", &mount.target));
                }
                MountKind::Secret(file) => self.secret_file(file)?,
                MountKind::Ssh(socket) => self.ssh_socket(socket, &mut resolved.relays)?,
            };
            let (target, flags) = (PathBuf::from(&mount.target), flags(mount));
            resolved.mounts.extend(source.map(|source| Resolved { target, source, flags }));
        }
        if let Some(volume) = self.options.volumes.first().filter(|_| self.is_plain()) {
            return Err(needs_namespaces("volume", &volume.target.display()));
        }
        resolved.mounts.extend(self.options.volumes.iter().map(|volume| Resolved {
            target: volume.target.clone(),
            source: MountSource::Bind(volume.source.clone()),
            flags: MountFlags { readonly: volume.readonly, ..MountFlags::default() },
        }));
        Ok(resolved)
    }

    /// Whether nothing can be mounted.
    pub(super) fn is_plain(&self) -> bool {
        self.store().trees() == Trees::Plain
    }

    /// A directory of the store, for the step's use alone where nothing can be mounted.
    fn directory(&self, path: PathBuf) -> MountSource {
        if self.is_plain() { MountSource::Moved(path) } else { MountSource::Bind(path) }
    }

    fn bind(
        &self,
        mount: &Mount,
        inputs: &[Input<'_, Snapshot>],
        cx: &Context<'_>,
        resolved: &mut ResolvedMounts,
    ) -> Result<MountSource, WorkerError> {
        let local = mount.input.and_then(|input| match inputs.get(input.index()) {
            Some(Input::Local(vertex)) => Some((input, *vertex)),
            _ => None,
        });
        if let Some((input, vertex)) = local {
            let active = self
                .copy_of_context(vertex, &mount.selector, cx)
                .map_err(|error| self.changed_or(error, vertex, input, cx))?;
            self.check_context(vertex, input, cx)?;
            let source = writable(mount, &active)?;
            resolved.discarded.push(active);
            return Ok(source);
        }
        if mount.readonly && mount.output.is_none() && !self.is_plain() {
            let tree = match mount.input {
                Some(input) => snapshot(inputs, input)?.clone(),
                None => Snapshot::empty(),
            };
            return selected(mount, self.store().view(&tree)?.into());
        }
        let active = self.prepare_mount(mount, inputs)?;
        let source = writable(mount, &active)?;
        match mount.output {
            Some(output) => resolved.outputs.push((output, active)),
            None => resolved.discarded.push(active),
        }
        Ok(source)
    }
}

/// What a mount forbids, as BuildKit has it: what is given to a step for its eyes only can do no more than be read.
fn flags(mount: &Mount) -> MountFlags {
    let (is_given, is_program) = match &mount.kind {
        MountKind::Secret(file) => (true, file.mode & 0o111 != 0),
        MountKind::Ssh(_) => (true, false),
        MountKind::Bind | MountKind::Cache { .. } | MountKind::Tmpfs { .. } => (false, true),
    };
    MountFlags {
        readonly: mount.readonly,
        nosuid: is_given || matches!(mount.kind, MountKind::Tmpfs { .. }),
        nodev: is_given,
        noexec: !is_program,
    }
}

fn needs_namespaces(what: &str, target: &dyn std::fmt::Display) -> WorkerError {
    WorkerError::NeedsNamespaces { what: format!("{what} (on `{target}`)") }
}

/// What a mount shows of a tree of its own.
fn writable(mount: &Mount, active: &ActiveSnapshot) -> Result<MountSource, WorkerError> {
    let Some(PlainTree { root, .. }) = active.plain(None)? else {
        return selected(mount, active.mount(None)?.into());
    };
    let tree = RootDir::open(&root)?;
    tree.open_path(&mount.selector).map_err(|error| missing_or(error, mount))?;
    Ok(MountSource::Moved(root.join(tree.resolve(&mount.selector)?)))
}

/// The part of a mounted tree that a mount shows.
fn selected(mount: &Mount, mounted: OwnedFd) -> Result<MountSource, WorkerError> {
    if mount.selector.is_empty() || mount.selector == "/" {
        return Ok(MountSource::Detached(mounted));
    }
    let root = RootDir::from_fd(mounted);
    root.open_path(&mount.selector).map_err(|error| missing_or(error, mount))?;
    Ok(MountSource::Within { mount: root.into_fd(), path: PathBuf::from(&mount.selector) })
}

fn missing_or(error: PathError, mount: &Mount) -> WorkerError {
    if !error.is_not_found() {
        return error.into();
    }
    let (target, selector) = (mount.target.clone(), mount.selector.clone());
    WorkerError::Step(StepError::MountSource { target, selector })
}

/// Makes the directory of mount-point stubs of a kind, if it is not there, and returns it.
pub fn make_stubs(area: &Path, stubs: Stubs) -> Result<PathBuf, WorkerError> {
    let Stubs { name, directories, files } = stubs;
    let directory = area.join(name);
    if files.iter().all(|file| directory.join(file).exists()) {
        return Ok(directory);
    }
    let make = || -> io::Result<()> {
        for path in directories {
            fs::create_dir_all(directory.join(path))?;
        }
        files.iter().try_for_each(|file| fs::File::create(directory.join(file)).map(drop))
    };
    make().map_err(WorkerError::io("make", format!("mount-point stubs in `{}`", directory.display())))?;
    Ok(directory)
}
