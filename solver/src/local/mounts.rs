//! Mounts as a build declares them → mounts as the executor makes them.
//!
//! | declared | made |
//! |---|---|
//! | bind of a tree, read-only | a read-only view of the snapshot, or the path in it |
//! | bind of a tree, writable | an active snapshot, committed if the mount is an output, discarded otherwise |
//! | bind of the context | its files copied, without what `.dockerignore` hides; discarded |
//! | cache | a directory of the store, under its id and its sharing |
//! | tmpfs | memory |
//! | secret, ssh | nothing where it is optional: there is no way yet to give a build one |

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rbuild_cache::root_dir::RootDir;
use rbuild_cache::{ActiveSnapshot, KeyLock, Snapshot};
use rbuild_executor::{Mount as Resolved, MountFlags, MountSource, stub_paths};
use rbuild_image::KeyHasher;
use rbuild_llb::{CacheSharing, ExecOp, Mount, MountKind, OutputIndex};

use super::exec::{is_extra, shm_size_bytes};
use super::merge::snapshot;
use super::{LocalWorker, StepError, WorkerError};
use crate::worker::{Context, Input};

/// Docker's size of `/dev/shm`.
const SHM_SIZE_BYTES_DEFAULT: u64 = 64 << 20;
/// How many directories one id of a private cache mount may have.
const PRIVATE_CACHES_MAX: u32 = 1024;

/// The mounts of a step, and what must live as long as they do.
#[derive(Debug, Default)]
pub(super) struct ResolvedMounts {
    pub(super) mounts: Vec<Resolved>,
    /// Writable trees that become outputs.
    pub(super) outputs: Vec<(OutputIndex, ActiveSnapshot)>,
    /// Secrets as environment variables.
    pub(super) secret_env: Vec<(String, String)>,
    pub(super) shm_size_bytes: u64,
    /// Writable trees that are thrown away.
    discarded: Vec<ActiveSnapshot>,
    /// Cache mounts in use.
    locks: Vec<KeyLock>,
}

impl LocalWorker<'_> {
    pub(super) fn resolve_mounts(
        &self,
        op: &ExecOp,
        inputs: &[Input<'_, Snapshot>],
        cx: &Context<'_>,
    ) -> Result<ResolvedMounts, WorkerError> {
        let shm_size_bytes = shm_size_bytes(op).unwrap_or(SHM_SIZE_BYTES_DEFAULT);
        let mut resolved = ResolvedMounts { shm_size_bytes, ..ResolvedMounts::default() };
        for mount in op.mounts.iter().filter(|mount| is_extra(mount) && mount.target != "/dev/shm") {
            let source = match &mount.kind {
                MountKind::Bind => Some(self.bind(mount, inputs, cx, &mut resolved)?),
                MountKind::Cache { id, sharing } => {
                    Some(self.cache_mount(id, *sharing, cx, &mut resolved)?)
                }
                MountKind::Tmpfs { size_bytes } => {
                    Some(MountSource::Tmpfs { size_bytes: *size_bytes, mode: 0o755 })
                }
                MountKind::Secret(secret) if secret.optional => None,
                MountKind::Secret(_) => return Err(WorkerError::Unsupported { what: "required secrets" }),
                MountKind::Ssh(ssh) if ssh.optional => None,
                MountKind::Ssh(_) => return Err(WorkerError::Unsupported { what: "required ssh agents" }),
            };
            let flags = MountFlags {
                readonly: mount.readonly,
                nosuid: matches!(mount.kind, MountKind::Tmpfs { .. }),
                ..MountFlags::default()
            };
            let target = PathBuf::from(&mount.target);
            resolved.mounts.extend(source.map(|source| Resolved { target, source, flags }));
        }
        for secret in &op.secret_env {
            if !secret.optional {
                return Err(WorkerError::Unsupported { what: "required secrets" });
            }
            // BuildKit sets the variable of a missing secret, and leaves it empty.
            resolved.secret_env.push((secret.name.clone(), String::new()));
        }
        Ok(resolved)
    }

    fn bind(
        &self,
        mount: &Mount,
        inputs: &[Input<'_, Snapshot>],
        cx: &Context<'_>,
        resolved: &mut ResolvedMounts,
    ) -> Result<MountSource, WorkerError> {
        let local = mount.input.and_then(|input| match inputs.get(input.index()) {
            Some(Input::Local(vertex)) => Some(*vertex),
            _ => None,
        });
        if let Some(vertex) = local {
            let active = self.copy_of_context(vertex, &mount.selector, cx)?;
            let source = selected(mount, active.mount(None)?.into())?;
            resolved.discarded.push(active);
            return Ok(source);
        }
        if mount.readonly && mount.output.is_none() {
            let tree = match mount.input {
                Some(input) => snapshot(inputs, input)?.clone(),
                None => Snapshot::empty(),
            };
            return selected(mount, self.store().view(&tree)?.into());
        }
        let active = self.prepare_mount(mount, inputs)?;
        let source = selected(mount, active.mount(None)?.into())?;
        match mount.output {
            Some(output) => resolved.outputs.push((output, active)),
            None => resolved.discarded.push(active),
        }
        Ok(source)
    }

    fn cache_mount(
        &self,
        id: &str,
        sharing: CacheSharing,
        cx: &Context<'_>,
        resolved: &mut ResolvedMounts,
    ) -> Result<MountSource, WorkerError> {
        let key = |number: u32| {
            let hash = KeyHasher::new("rbuild.cache-mount.v1").str(id).number(number).finish();
            rbuild_cache::CacheKey(hash)
        };
        let mut number = 0;
        match sharing {
            CacheSharing::Shared => {}
            CacheSharing::Locked => resolved.locks.push(self.store().lock_key(&key(0), cx.cancel)?),
            CacheSharing::Private => loop {
                if let Some(lock) = self.store().try_lock_key(&key(number))? {
                    resolved.locks.push(lock);
                    break;
                }
                number += 1;
                if number == PRIVATE_CACHES_MAX {
                    return Err(WorkerError::Unsupported {
                        what: "more than 1024 users of one private cache mount",
                    });
                }
            },
        }
        let directory = self.store().root().join("cache-mounts").join(key(number).to_string());
        fs::create_dir_all(&directory)
            .map_err(WorkerError::io("make", format!("cache mount `{}`", directory.display())))?;
        Ok(MountSource::Bind(directory))
    }
}

/// The part of a mounted tree that a mount shows.
fn selected(mount: &Mount, mounted: OwnedFd) -> Result<MountSource, WorkerError> {
    if mount.selector.is_empty() || mount.selector == "/" {
        return Ok(MountSource::Detached(mounted));
    }
    let root = RootDir::from_fd(mounted);
    root.open_path(&mount.selector).map_err(|error| {
        if error.is_not_found() {
            let (target, selector) = (mount.target.clone(), mount.selector.clone());
            WorkerError::Step(StepError::MountSource { target, selector })
        } else {
            error.into()
        }
    })?;
    Ok(MountSource::Within { mount: root.into_fd(), path: PathBuf::from(&mount.selector) })
}

/// Makes the directory of mount-point stubs, if it is not there, and returns it.
pub fn make_stubs(area: &Path) -> Result<PathBuf, WorkerError> {
    let directory = area.join("container");
    let (directories, files) = stub_paths();
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
