//! `rbuild image prune`: removes images that nothing needs.

use rbuild_cache::{ImageRecord, PrunePolicy};
use rbuild_container::Containers;

use super::filter::Filters;
use super::print;
use super::prune::confirm;
use crate::app::{App, unix_now};
use crate::args::{ImageCommand, ImagePruneArgs};
use crate::format::size;
use crate::report::{Failure, Kind};

pub(crate) fn run(app: &App, command: &ImageCommand) -> Result<u8, Failure> {
    let ImageCommand::Prune(args) = command;
    prune(app, args)
}

fn prune(app: &App, args: &ImagePruneArgs) -> Result<u8, Failure> {
    let created_before = until(&args.filters)?;
    let what = if args.all { "all images without at least one container" } else { "all dangling images" };
    confirm(args.force, &format!("This will remove {what}."))?;
    let free_before = app.store()?.usage()?.total_bytes();
    let lines = remove_unused(app, args.all, created_before)?;
    if !lines.is_empty() {
        print(&format!("Deleted Images:\n{lines}\n"))?;
    }
    sweep(app)?;
    let freed = free_before.saturating_sub(app.store()?.usage()?.total_bytes());
    print(&format!("Total reclaimed space: {}\n", size(freed))).map(|()| 0)
}

/// The only filter that commands with Docker's words take: age.
///
/// # Errors
/// When there is another.
pub(crate) fn until(filters: &[String]) -> Result<Option<i64>, Failure> {
    let filters = Filters::parse(filters, unix_now())?;
    if filters.has_rules() {
        return Err(Failure::new(Kind::Input, "the only filter here is until=AGE"));
    }
    Ok(filters.unused_since)
}

/// Removes images that no container uses: those without a name, or all. Says what went, in Docker's words.
///
/// # Errors
/// When the store fails.
pub(crate) fn remove_unused(app: &App, all: bool, created_before: Option<i64>) -> Result<String, Failure> {
    let store = app.store()?;
    let containers = Containers::new(store.clone()).list().map_err(super::containers::failure)?;
    let mut lines = String::new();
    for image in store.images().list()? {
        let id = image.config.unwrap_or(image.target.digest).to_string();
        let is_used = containers.iter().any(|container| container.state.image_id == id);
        let is_old = created_before.is_none_or(|before| image.created < before);
        if (all || image.names.is_empty()) && is_old && !is_used {
            store.images().remove_target(image.target.digest)?;
            lines += &removed(&image, &id);
        }
    }
    Ok(lines)
}

fn removed(image: &ImageRecord, id: &str) -> String {
    let names = image.names.iter().map(|name| format!("untagged: {}\n", name.familiar()));
    names.chain([format!("deleted: {id}\n")]).collect()
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
