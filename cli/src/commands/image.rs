//! `rbuild image …`: the commands on images, and `image prune`, which removes those that nothing needs.

use std::collections::BTreeMap;

use rbuild_cache::{ImageRecord, PrunePolicy};
use rbuild_container::Containers;
use rbuild_image::Platform;

use super::filter::{ObjectFilters, dangling};
use super::print;
use super::prune::confirm;
use crate::app::{App, unix_now};
use crate::args::{ImageCommand, ImagePruneArgs, ImagesCommand};
use crate::format::size;
use crate::report::Failure;

pub(crate) fn run(app: &App, command: &ImageCommand) -> Result<u8, Failure> {
    match command {
        ImageCommand::Same(command) => on_images(app, command),
        ImageCommand::Build(args) => super::build::run(app, args),
        ImageCommand::Ls(args) => super::images::run(app, args),
        ImageCommand::Inspect(args) => super::inspect::images(app, args),
        ImageCommand::Rm(args) => super::rmi::run(app, args),
        ImageCommand::Prune(args) => prune(app, args),
    }
}

/// What needs no `image` before it.
pub(crate) fn on_images(app: &App, command: &ImagesCommand) -> Result<u8, Failure> {
    match command {
        ImagesCommand::History(args) => super::history::run(app, args),
        ImagesCommand::Tag(args) => super::tag::run(app, args),
        ImagesCommand::Import(args) => super::import::run(app, args),
        ImagesCommand::Save(args) => super::save::run(app, args),
        ImagesCommand::Load(args) => super::load::run(app, args),
        ImagesCommand::Pull(args) => super::pull::run(app, args),
        ImagesCommand::Push(args) => super::push::run(app, args),
    }
}

fn prune(app: &App, args: &ImagePruneArgs) -> Result<u8, Failure> {
    let (all, filters) = filters(args)?;
    let what = if all { "all images without at least one container" } else { "all dangling images" };
    confirm(args.objects.force, &format!("This will remove {what}."))?;
    let free_before = app.store()?.usage()?.total_bytes();
    let lines = remove(app, &unused(app, all, &filters)?)?;
    if !lines.is_empty() {
        print(&format!("Deleted Images:\n{lines}\n"))?;
    }
    sweep(app)?;
    let freed = free_before.saturating_sub(app.store()?.usage()?.total_bytes());
    print(&format!("Total reclaimed space: {}\n", size(freed))).map(|()| 0)
}

/// Whether all images are meant, and which of them: `dangling=false` is `--all`.
fn filters(args: &ImagePruneArgs) -> Result<(bool, ObjectFilters), Failure> {
    let mut all = args.all;
    let mut others = Vec::new();
    for text in &args.objects.filters {
        match text.strip_prefix("dangling=") {
            Some(value) => all |= !dangling(value)?,
            None => others.push(text.clone()),
        }
    }
    Ok((all, ObjectFilters::parse(&others, unix_now())?))
}

/// The images that no container uses: those without a name, or all.
///
/// # Errors
/// When the store fails.
pub(crate) fn unused(app: &App, all: bool, filters: &ObjectFilters) -> Result<Vec<ImageRecord>, Failure> {
    let store = app.store()?;
    let containers = Containers::new(store.clone()).list().map_err(super::container::failure)?;
    let mut unused = Vec::new();
    for image in store.images().list()? {
        let is_used =
            containers.iter().any(|container| container.state.spec.image_id == image.id().to_string());
        if (all || image.names.is_empty()) && !is_used && selects(app, filters, &image)? {
            unused.push(image);
        }
    }
    Ok(unused)
}

/// The documents are read only if they matter: those of a broken image are not there.
fn selects(app: &App, filters: &ObjectFilters, image: &ImageRecord) -> Result<bool, Failure> {
    let labels = if filters.names_labels() {
        app.images()?.open(&image.target, &Platform::host())?.config.config.labels
    } else {
        BTreeMap::new()
    };
    Ok(filters.selects(image.created, &labels))
}

/// Removes images. Says what went, in Docker's words.
///
/// # Errors
/// When the store fails.
pub(crate) fn remove(app: &App, images: &[ImageRecord]) -> Result<String, Failure> {
    let mut lines = String::new();
    for image in images {
        app.store()?.images().remove_target(image.target.digest)?;
        lines += &removed(image);
    }
    Ok(lines)
}

fn removed(image: &ImageRecord) -> String {
    let names = image.names.iter().map(|name| format!("untagged: {}\n", name.familiar()));
    names.chain([format!("deleted: {}\n", image.id())]).collect()
}

/// Removes what nothing names any longer; the cache stays.
///
/// # Errors
/// When the store fails.
pub(crate) fn sweep(app: &App) -> Result<(), Failure> {
    use rbuild_cache::prune::ItemKind;
    let leftovers = |item: &rbuild_cache::prune::Item| item.kind == ItemKind::Leftover;
    app.store()?.prune(&[PrunePolicy { selects: Some(&leftovers), ..PrunePolicy::default() }])?;
    Ok(())
}
