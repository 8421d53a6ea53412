//! `rbuild cache-mount`: what `RUN --mount=type=cache` keeps from one build to the next.
//!
//! One cache mount of a Dockerfile can have several instances: one for each thing that it began as, and for each step that wanted
//! it for itself at the same time. An id names one of them, a name all.

use std::io::{self, BufReader, BufWriter, IsTerminal as _, Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::{fs, sync::atomic::AtomicBool};

use rbuild_cache::layer::{self, ApplyOptions, ArchiveOptions, Owners, apply, compression, export};
use rbuild_cache::prune::{Item, ItemKind};
use rbuild_cache::root_dir::RootDir;
use rbuild_cache::{CacheMount, CacheMountSharing, CacheMountSpec, Mutable, MutableKind, PrunePolicy, Store};
use rbuild_image::MediaType;
use rbuild_solver::images::{ImageError, Watch};
use rbuild_solver::local::cache_mount_key;
use rbuild_solver::shared::{ExportOptions, MountExported, SharedMount};
use serde_json::json;

use super::filter::Filters;
use super::prune::confirm;
use super::save::write_file;
use super::{import, io_failure, print, reference};
use crate::app::{App, unix_now};
use crate::args::{CacheMountCommand, FilterArgs};
use crate::format::{ago, rfc3339, size, table};
use crate::report::{Failure, Kind};
use crate::transfers::Transfers;

/// What a cache mount is in a registry.
const ARTIFACT_TYPE: &str = "application/vnd.rbuild.cache-mount.v1";
/// The mode of a cache mount that nobody gave another.
const MODE_DEFAULT: u32 = 0o755;

pub(crate) fn run(app: &App, command: &CacheMountCommand) -> Result<u8, Failure> {
    let store = app.store()?;
    match command {
        CacheMountCommand::Ls { quiet } => ls(store, *quiet),
        CacheMountCommand::Inspect { mounts } => inspect(store, mounts),
        CacheMountCommand::Rm { mounts } => rm(store, mounts),
        CacheMountCommand::Prune { force, filter } => prune(store, *force, filter),
        CacheMountCommand::Export { to: Some(to), mount, .. } => push(app, mount, to),
        CacheMountCommand::Export { to: None, output, mount } => write(store, mount, output.as_deref()),
        CacheMountCommand::Import { from: Some(from), mount, .. } => pull(app, mount, from),
        CacheMountCommand::Import { from: None, mount, file } => read(app, mount, file.as_deref()),
    }?;
    Ok(0)
}

fn ls(store: &Store, quiet: bool) -> Result<(), Failure> {
    let mounts = store.mutables(MutableKind::CacheMount)?;
    if quiet {
        return print(&mounts.iter().map(|mount| mount.id() + "\n").collect::<String>());
    }
    let now = unix_now();
    let mut rows = vec![["ID", "NAME", "SIZE", "CREATED", "LAST USED", "IN USE"].map(str::to_owned).to_vec()];
    for mount in &mounts {
        rows.push(vec![
            mount.id(),
            mount.name.clone(),
            size(mount.size_bytes),
            ago(now, mount.created),
            ago(now, mount.last_used),
            store.is_in_use(mount)?.to_string(),
        ]);
    }
    print(&table(&rows))
}

fn inspect(store: &Store, names: &[String]) -> Result<(), Failure> {
    let mut found = Vec::new();
    for mount in find_all(store, names)? {
        let path = mount.path.join("fs");
        let metadata = fs::symlink_metadata(&path).map_err(io_failure("read the attributes of", &path))?;
        found.push(json!({
            "ID": mount.id(),
            "Name": mount.name,
            "Base": mount.base.map(|base| rbuild_cache::CacheKey(base).to_string()),
            "Mode": format!("{:04o}", metadata.permissions().mode() & 0o7777),
            "Path": path,
            "Size": mount.size_bytes,
            "CreatedAt": rfc3339(mount.created),
            "LastUsedAt": rfc3339(mount.last_used),
            "InUse": store.is_in_use(&mount)?,
        }));
    }
    print(&format!("{}\n", serde_json::to_string_pretty(&found).expect("a JSON value is JSON")))
}

fn rm(store: &Store, names: &[String]) -> Result<(), Failure> {
    for mount in find_all(store, names)? {
        if !store.remove_mutable(&mount)? {
            return Err(in_use(&mount));
        }
        print(&format!("{}\n", mount.id()))?;
    }
    Ok(())
}

fn prune(store: &Store, force: bool, filter: &FilterArgs) -> Result<(), Failure> {
    let filters = Filters::parse(&filter.filters, unix_now())?;
    confirm(force, "This will remove all cache mounts that no build is using.")?;
    let selects = |item: &Item| item.kind == ItemKind::CacheMount && filters.selects(item);
    let (selects, unused_since) = (Some(&selects as _), filters.unused_since);
    let report = store.prune(&[PrunePolicy { selects, unused_since, ..PrunePolicy::default() }])?;
    let ids: String = report.removals.iter().map(|removal| removal.item.id.clone() + "\n").collect();
    print(&format!("{ids}Total reclaimed space: {}\n", size(report.freed_bytes())))
}

/// A cache mount, and what it holds, which nobody replaces meanwhile.
fn open(store: &Store, name: &str) -> Result<(CacheMount, RootDir), Failure> {
    let mount = find(store, name)?;
    let taken = store.take_cache_mount(&mount, CacheMountSharing::Shared)?.ok_or_else(|| in_use(&mount))?;
    let root = RootDir::open(taken.path()).map_err(|error| Failure::caused_by(Kind::Environment, &error))?;
    Ok((taken, root))
}

fn write(store: &Store, name: &str, output: Option<&Path>) -> Result<(), Failure> {
    let (_taken, root) = open(store, name)?;
    let write = |out: &mut dyn io::Write| {
        let exported = export(&root, &ArchiveOptions::default(), out);
        exported.map(drop).map_err(|error| Failure::caused_by(Kind::Environment, &error))
    };
    match output {
        Some(path) => write_file(path, |out| write(out)),
        None if io::stdout().is_terminal() => {
            let message = "cowardly refusing to write an archive to a terminal";
            Err(Failure::new(Kind::Input, message).hint("use -o FILE, --to REFERENCE or redirect"))
        }
        None => {
            let mut out = BufWriter::new(io::stdout().lock());
            write(&mut out)?;
            out.flush().map_err(io_failure("write to", Path::new("standard output")))
        }
    }
}

fn push(app: &App, name: &str, to: &str) -> Result<(), Failure> {
    let to = reference(to)?;
    // What passes through the store has no name there.
    let _lease = app.store()?.lease()?;
    let (_taken, root) = open(app.store()?, name)?;
    let write = |out: &mut dyn io::Write| {
        export(&root, &ArchiveOptions::default(), out).map(drop).map_err(io::Error::other)
    };
    let digest = transferring(app, |watch| {
        Ok(app.images()?.push_artifact(&to, &MediaType::from(ARTIFACT_TYPE), write, watch)?)
    })?;
    print(&format!("{}@{digest}\n", to.familiar_name()))
}

fn transferring<T>(app: &App, work: impl FnOnce(Watch<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
    let cancel = app.cancel_on_interrupt()?;
    let transfers = Transfers::start(false);
    let done = work(Watch { transfers: &|transfer| transfers.show(transfer), cancel: &cancel });
    transfers.finish();
    done
}

fn read(app: &App, name: &str, file: Option<&Path>) -> Result<(), Failure> {
    let file = file.unwrap_or(Path::new("-"));
    let failed = |error| failed_import(&file.to_string_lossy(), &error);
    let mut archive = compression::decompress(BufReader::new(import::open(file)?)).map_err(failed)?;
    replace(app, name, |unpack| unpack(&mut archive).map_err(failed))
}

fn pull(app: &App, name: &str, from: &str) -> Result<(), Failure> {
    let from = reference(from)?;
    let _lease = app.store()?.lease()?;
    let kind = MediaType::from(ARTIFACT_TYPE);
    replace(app, name, |unpack| {
        let mut unpack = |tar: &mut (dyn Read + Send)| {
            unpack(tar).map_err(|error| failed_import(&from.familiar(), &error))
        };
        transferring(app, |watch| app.images()?.pull_artifact(&from, &kind, &mut unpack, watch))
    })
}

fn failed_import(what: &str, error: &layer::Error) -> Failure {
    Failure::caused_by(Kind::Input, error).while_doing(&format!("failed to import `{what}`"))
}

/// Unpacks a tar over what was unpacked before it.
type Unpack<'a> = &'a mut dyn FnMut(&mut (dyn Read + Send)) -> Result<(), layer::Error>;

/// Gives a cache mount other content, which `fill` unpacks. A name that no cache mount has makes one, so that a fresh machine can
/// be given what another has collected.
fn replace(
    app: &App,
    name: &str,
    fill: impl FnOnce(Unpack<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let store = app.store()?;
    let taken = match find(store, name) {
        Ok(mount) => {
            store.take_cache_mount(&mount, CacheMountSharing::Locked)?.ok_or_else(|| in_use(&mount))?
        }
        Err(failure) if is_id(name) => return Err(failure),
        Err(_) => make(store, name)?,
    };
    let owners = if app.single_id() { Owners::Squash } else { Owners::Keep };
    taken.replace(store, |path| {
        make_like(path, &taken.path())?;
        let options = ApplyOptions { owners, ..ApplyOptions::literal() };
        let root = RootDir::open(path).map_err(|error| Failure::caused_by(Kind::Environment, &error))?;
        fill(&mut |tar| apply(tar, &root, &options).map(drop))
    })
}

/// The cache mount of a name that begins empty.
fn spec(name: &str) -> CacheMountSpec<'_> {
    let sharing = CacheMountSharing::Locked;
    CacheMountSpec { key: cache_mount_key(name, None), id: name, base: None, sharing }
}

fn make(store: &Store, name: &str) -> Result<CacheMount, Failure> {
    let fill = |path: &Path| make_like(path, Path::new(""));
    store.cache_mount(&spec(name), &AtomicBool::new(false), fill)
}

/// Whether there is a cache mount of a name.
pub(super) fn is_here(store: &Store, name: &str) -> Result<bool, Failure> {
    let mounts = store.mutables(MutableKind::CacheMount)?;
    Ok(mounts.iter().any(|mount| mount.name == name && mount.path.join("fs").exists()))
}

/// Makes a cache mount that is not here of what a shared cache has. It is there whole or not at all.
pub(super) fn take_shared(
    app: &App,
    name: &str,
    shared: &SharedMount,
    watch: Watch<'_>,
) -> Result<(), Failure> {
    let owners = if app.single_id() { Owners::Squash } else { Owners::Keep };
    let options = ApplyOptions { owners, ..ApplyOptions::literal() };
    let fill = |path: &Path| {
        make_like(path, Path::new(""))?;
        let root = RootDir::open(path).map_err(|error| Failure::caused_by(Kind::Environment, &error))?;
        apply(&mut shared.open(watch), &root, &options).map(drop).map_err(|error| failed_import(name, &error))
    };
    app.store()?.cache_mount(&spec(name), watch.cancel, fill).map(drop)
}

/// Writes a cache mount to a shared cache.
pub(super) fn share(
    app: &App,
    name: &str,
    options: &ExportOptions<'_>,
    watch: Watch<'_>,
) -> Result<MountExported, Failure> {
    let (taken, root) = open(app.store()?, name)?;
    let write = move |out: &mut dyn io::Write| {
        // Nobody replaces it meanwhile.
        let _taken = taken;
        export(&root, &ArchiveOptions::default(), out).map(drop).map_err(ImageError::from)
    };
    Ok(app.images()?.export_mount(name, write, options, watch)?)
}

/// Makes a directory with the mode of another, or the usual one.
fn make_like(path: &Path, other: &Path) -> Result<(), Failure> {
    let mode =
        fs::symlink_metadata(other).map_or(MODE_DEFAULT, |metadata| metadata.permissions().mode() & 0o7777);
    fs::create_dir(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .map_err(io_failure("make", path))
}

/// Whether a word has the form of an id, and not of a name.
fn is_id(word: &str) -> bool {
    let key = word.split('-').next().unwrap_or_default();
    key.len() == 12 && key.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The cache mounts that words mean; each word at least one.
fn find_all(store: &Store, words: &[String]) -> Result<Vec<Mutable>, Failure> {
    let mounts = store.mutables(MutableKind::CacheMount)?;
    let mut found: Vec<Mutable> = Vec::new();
    for word in words {
        let meant = |mount: &&Mutable| mount.id() == *word || mount.name == *word;
        let before = found.len();
        found.extend(mounts.iter().filter(meant).cloned());
        if found.len() == before {
            return Err(Failure::new(Kind::Input, format!("no cache mount `{word}`"))
                .hint("`rbuild cache-mount ls` lists them"));
        }
    }
    Ok(found)
}

/// The one cache mount that a word means.
fn find(store: &Store, word: &str) -> Result<Mutable, Failure> {
    let mut found = find_all(store, &[word.to_owned()])?;
    match (found.pop(), found.is_empty()) {
        (Some(mount), true) => Ok(mount),
        _ => Err(Failure::new(Kind::Input, format!("several cache mounts have the name `{word}`"))
            .hint("`rbuild cache-mount ls` shows their ids")),
    }
}

fn in_use(mount: &Mutable) -> Failure {
    Failure::new(Kind::Environment, format!("cache mount `{}` is in use", mount.id()))
}
