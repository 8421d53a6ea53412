//! The shared caches of a build: read before, written after. Nothing that goes wrong with one fails the build.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rbuild_registry::RemoteStore;
use rbuild_solver::images::Watch;
use rbuild_solver::shared::{ExportMode, ExportOptions, Finished, Remark, RemarkKind, SharedCaches};

use super::output::{report_transfer, task};
use super::settings::Settings;
use crate::app::{self, App};
use crate::cache_spec::{CachePlace, CacheSpec, Direction};
use crate::commands::cache_mount;
use crate::progress::Progress;
use crate::report::Failure;
use crate::shared_cache;

/// The shared caches of a build.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) from: Arc<SharedCaches>,
    to: Vec<(CacheSpec, RemoteStore)>,
    /// The cache mounts that are taken from them where they are not here.
    mounts: Vec<String>,
    /// Whether the image says itself which steps lead to it.
    pub(super) is_inline: bool,
}

impl Shared {
    /// Those of the command line; those of the config file where it names none. Offline, only what is in a directory.
    ///
    /// # Errors
    /// When one cannot be what it is said to be.
    pub(super) fn open(app: &App, settings: &Settings) -> Result<Self, Failure> {
        let mut from = settings.cache_from.clone();
        let mut to = settings.cache_to.clone();
        if from.is_empty() && to.is_empty() {
            from.extend(shared_cache::configured(Direction::From)?);
            let configured = shared_cache::configured(Direction::To)?;
            to.extend(configured.map(|spec| CacheSpec { mode: ExportMode::Max, ..spec }));
        }
        if app.is_offline() {
            from.retain(|spec| spec.place.is_here());
            to.retain(|spec| spec.place.is_here());
        }
        let client = Arc::new(app.impatient_client()?);
        let store = |spec: &CacheSpec| shared_cache::open(&client, spec);
        let opened = from.iter().map(store).collect::<Result<Vec<_>, _>>()?;
        let (inline, to): (Vec<_>, Vec<_>) =
            to.into_iter().partition(|spec| spec.place == CachePlace::Inline);
        let to = to.into_iter().map(|spec| store(&spec).map(|store| (spec, store)));
        let mounts = from.into_iter().flat_map(|spec| spec.mounts).collect();
        Ok(Self {
            mounts,
            is_inline: !inline.is_empty(),
            from: Arc::new(SharedCaches::new(opened, shared_cache::trust()?)),
            to: to.collect::<Result<_, _>>()?,
        })
    }

    /// Takes the cache mounts that are not here from the shared caches, and says what went wrong with any.
    pub(super) fn take_mounts(&self, app: &App, progress: &Progress, cancel: &AtomicBool) -> String {
        let watch = Watch { transfers: &|_| {}, cancel };
        let take = |id: &String| {
            if cache_mount::is_here(app.store()?, id)? {
                return Ok(());
            }
            let Some(shared) = self.from.mount(id, watch) else { return Ok(()) };
            task(progress, &format!("importing cache mount {id}"), || {
                cache_mount::take_shared(app, id, &shared, watch)
            })
        };
        let said = |id: &String| {
            let failure: Failure = take(id).err()?;
            Some(format!(
                "warning: the cache mount `{id}` was not taken from a shared cache: {}\n",
                failure.message
            ))
        };
        self.mounts.iter().filter_map(said).collect()
    }

    /// Writes a build to the shared caches, and says what went wrong with any.
    pub(super) fn export(
        &self,
        app: &App,
        build: &Finished<'_>,
        progress: &Progress,
        cancel: &AtomicBool,
    ) -> String {
        let mut said: String = self.from.remarks().iter().map(warning).collect();
        for (spec, store) in &self.to {
            let name = format!("exporting cache to {store}");
            let moved = |transfer| report_transfer(progress, &name, transfer);
            let watch = Watch { transfers: &moved, cancel };
            let options = ExportOptions {
                to: store,
                mode: spec.mode,
                config: &spec.compression,
                caches: &self.from,
                now: app::unix_now(),
            };
            let exported =
                task(progress, &name, || Ok(app.images()?.export_cache(build, &options, watch)?));
            let mut failed: Vec<(String, Failure)> = Vec::new();
            failed.extend(exported.err().map(|failure| (format!("the shared cache `{store}`"), failure)));
            for id in &spec.mounts {
                let shared = task(progress, &format!("exporting cache mount {id} to {store}"), || {
                    cache_mount::share(app, id, &options, watch)
                });
                failed.extend(
                    shared.err().map(|failure| (format!("the cache mount `{id}` in `{store}`"), failure)),
                );
            }
            let failed = failed.iter().filter(|_| !spec.ignore_error);
            said.extend(
                failed
                    .map(|(what, failure)| format!("warning: {what} was not written: {}\n", failure.message)),
            );
        }
        said
    }
}

fn warning(remark: &Remark) -> String {
    let store = &remark.store;
    match &remark.what {
        RemarkKind::Failed(reason) => format!("warning: the shared cache `{store}` was not used: {reason}\n"),
        RemarkKind::Unsigned(count) => format!(
            "warning: {count} records of the shared cache `{store}` were not used: none of `require-signed-by` signed them\n"
        ),
        RemarkKind::Damaged(count) => format!(
            "warning: {count} records of the shared cache `{store}` were not used: they or their layers are not what they \
             should be\n"
        ),
    }
}
