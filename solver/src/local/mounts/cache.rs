//! Cache mounts: which instance a step gets, and what a new one holds.
//!
//! An instance belongs to an id and to the content that it began as, so that another `from`, owner or mode gets another.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use rbuild_cache::root_dir::{FileType, RootDir};
use rbuild_cache::{CacheKey, CacheMount, CacheMountSharing, CacheMountSpec, Snapshot};
use rbuild_image::KeyHasher;
use rbuild_llb::{CacheSharing, CopyAction, ExecOp, FileAction, FileInput, Mount, MountKind};

use crate::cache_map::{SelectedPath, Selection};
use crate::local::file::FileError;
use crate::local::{LocalWorker, StepError, WorkerError};
use crate::worker::{Context, Input};

/// The mode of the directory that a cache begins as where nothing else is said.
const MODE_DEFAULT: u32 = 0o755;
/// Its mode once a step of another user than root has used it.
const MODE_SHARED: u32 = 0o777;

impl LocalWorker<'_> {
    /// Takes the cache mounts of a step, and says what is behind each target. Two of one instance share it.
    ///
    /// They are taken in the order of their keys: steps that wait for one another's caches would wait for ever otherwise.
    pub(super) fn take_caches<'m>(
        &self,
        op: &'m ExecOp,
        inputs: &[Input<'_, Snapshot>],
        cx: &Context<'_>,
        taken: &mut Vec<CacheMount>,
    ) -> Result<BTreeMap<&'m str, PathBuf>, WorkerError> {
        let mut instances: BTreeMap<CacheKey, (CacheMountSpec<'m>, Vec<&Mount>)> = BTreeMap::new();
        for mount in &op.mounts {
            if let MountKind::Cache { id, sharing } = &mount.kind {
                let base = self.base_digest(mount, inputs, cx)?;
                // One that is moved to a step is nowhere else meanwhile.
                let sharing = if self.is_plain() { CacheSharing::Locked } else { *sharing };
                let (key, sharing) = (cache_mount_key(id, base.as_ref()), store_sharing(sharing));
                let spec = CacheMountSpec { key, id, base, sharing };
                instances.entry(spec.key).or_insert_with(|| (spec, Vec::new())).1.push(mount);
            }
        }
        let mut paths = BTreeMap::new();
        for (spec, mounts) in instances.values() {
            let fill = |path: &Path| {
                self.fill_cache(path, mounts[0], inputs, cx)?;
                // It is named by what it begins as, and every later build with that is given it.
                let is_same = self.base_digest(mounts[0], inputs, cx)? == spec.base;
                if is_same { Ok(()) } else { Err(WorkerError::ContextChanged { name: spec.id.to_owned() }) }
            };
            let cache = self.store().cache_mount(spec, cx.cancel, fill)?;
            if spec.base.is_none() && !is_root(&op.process.user) {
                open_to_all(&cache.path())?;
            }
            paths.extend(mounts.iter().map(|mount| (mount.target.as_str(), cache.path())));
            taken.push(cache);
        }
        for mount in instances.values().flat_map(|(_, mounts)| mounts) {
            if let (Some(Input::Local(source)), Some(input)) = (base(mount, inputs), mount.input) {
                self.check_context(source, input, cx)?;
            }
        }
        Ok(paths)
    }

    /// The digest of what a new instance begins as, if not empty.
    fn base_digest(
        &self,
        mount: &Mount,
        inputs: &[Input<'_, Snapshot>],
        cx: &Context<'_>,
    ) -> Result<Option<[u8; 32]>, WorkerError> {
        let Some(base) = base(mount, inputs) else { return Ok(None) };
        let (path, contents_only) = (selector(mount).to_owned(), mount.selector.is_empty());
        let part = SelectedPath { path, contents_only, ..SelectedPath::default() };
        Ok(Some(self.digest_now(base, &Selection::Paths(vec![part]), cx)?.0))
    }

    /// Makes `path` what a new instance begins as: a copy of what the mount names, or an empty directory.
    fn fill_cache(
        &self,
        path: &Path,
        mount: &Mount,
        inputs: &[Input<'_, Snapshot>],
        cx: &Context<'_>,
    ) -> Result<(), WorkerError> {
        let failed = |error| WorkerError::io("make", format!("cache mount `{}`", path.display()))(error);
        let Some(base) = base(mount, inputs) else {
            fs::create_dir(path).map_err(failed)?;
            return fs::set_permissions(path, fs::Permissions::from_mode(MODE_DEFAULT)).map_err(failed);
        };
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(failed(std::io::ErrorKind::InvalidInput.into()));
        };
        let source = self.open_source(base)?;
        let name = name.to_string_lossy();
        let action = FileAction::Copy(CopyAction::new(FileInput::Scratch, selector(mount), &*name));
        let copied = self.apply_action(&action, &RootDir::open(directory)?, &|_| Some(source.tree()), cx);
        copied.map_err(|error| match error {
            WorkerError::File(FileError::NotFound { .. }) => {
                StepError::MountSource { target: mount.target.clone(), selector: mount.selector.clone() }
                    .into()
            }
            error => error,
        })?;
        let top = source.tree().root.stat(selector(mount))?;
        if matches!(base, Input::Output(_)) && FileType::from_raw_mode(top.st_mode).is_dir() {
            // A copy gives what is in a directory, and a cache is the directory itself.
            if !self.options.single_id {
                chown(path, Some(top.st_uid), Some(top.st_gid)).map_err(failed)?;
            }
            fs::set_permissions(path, fs::Permissions::from_mode(top.st_mode)).map_err(failed)?;
        }
        Ok(())
    }
}

/// What tells a cache mount from others: its id, and the digest of what it begins as, if not empty.
pub fn cache_mount_key(id: &str, base: Option<&[u8; 32]>) -> CacheKey {
    let mut hasher = KeyHasher::new("rbuild.cache-mount.v1");
    hasher.str(id);
    if let Some(base) = base {
        hasher.bytes(base);
    }
    CacheKey(hasher.finish())
}

/// Whether a step runs as root, as far as that can be seen without its `/etc/passwd`.
fn is_root(user: &str) -> bool {
    let name = user.split(':').next().unwrap_or_default();
    matches!(name, "" | "root" | "0")
}

/// Lets every user write to a cache whose owner and mode nobody asked for. BuildKit's belongs to root, so that a step of another
/// user cannot use it at all; that steps of several users share it forbids to give it to one of them.
fn open_to_all(cache: &Path) -> Result<(), WorkerError> {
    let failed = WorkerError::io("set the mode of", format!("cache mount `{}`", cache.display()));
    let found = fs::metadata(cache).map(|metadata| metadata.permissions().mode() & 0o7777);
    let set = found.and_then(|mode| match mode {
        MODE_DEFAULT => fs::set_permissions(cache, fs::Permissions::from_mode(MODE_SHARED)),
        _ => Ok(()),
    });
    set.map_err(failed)
}

fn base<'a>(mount: &Mount, inputs: &[Input<'a, Snapshot>]) -> Option<Input<'a, Snapshot>> {
    inputs.get(mount.input?.index()).copied()
}

fn selector(mount: &Mount) -> &str {
    if mount.selector.is_empty() { "/" } else { &mount.selector }
}

const fn store_sharing(sharing: CacheSharing) -> CacheMountSharing {
    match sharing {
        CacheSharing::Shared => CacheMountSharing::Shared,
        CacheSharing::Private => CacheMountSharing::Private,
        CacheSharing::Locked => CacheMountSharing::Locked,
    }
}
