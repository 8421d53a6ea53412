//! `rbuild prune`: forgets what is cached; and what all commands that remove have in common.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use rbuild_cache::prune::{Item, ItemKind, Removal, SpaceLimits};
use rbuild_cache::{ImageRecord, PrunePolicy, PruneReport};

use super::filter::{Filters, ObjectFilters, space_limits, type_name};
use super::{image, print};
use crate::app::{App, unix_now};
use crate::args::PruneArgs;
use crate::format::{ago, shorten, size, table};
use crate::report::{Failure, Kind};

/// How much of a description a list shows.
const DESCRIPTION_CHARS_MAX: usize = 60;

pub(crate) fn run(app: &App, args: &PruneArgs) -> Result<u8, Failure> {
    let now = unix_now();
    let filters = Filters::parse(&args.filter.filters, now)?;
    let selects = |item: &Item| item.kind != ItemKind::Image && filters.selects(item);
    let policy = PrunePolicy {
        selects: Some(&selects),
        unused_since: filters.unused_since,
        limits: space_limits(&args.space)?,
        // Who names a thing wants it gone.
        all: args.all || filters.has_rules(),
    };
    let store = app.store()?;
    let dangling = if filters.names_images() { dangling(app, &filters)? } else { Dangling::default() };
    let (verb, mut report) = if args.dry_run {
        ("Would free:", store.plan_prune(&[policy])?)
    } else {
        confirm(args.force, "This will remove all that is cached and selected, and not in use.")?;
        image::remove(app, &dangling.images)?;
        let report = store.prune(&[policy])?;
        if !dangling.images.is_empty() {
            image::sweep(app)?;
        }
        ("Total:", report)
    };
    let why = why(&policy, filters.has_rules());
    report.removals.splice(..0, dangling.removals);
    let trimmed = match report.trimmed_bytes {
        0 => String::new(),
        bytes => format!("Cut out of packs that stay:\t{}\n", size(bytes)),
    };
    let total = format!("{verb}\t{}\n", size(report.freed_bytes()));
    print(&[list(&report, &why, now), trimmed, total].concat()).map(|()| 0)
}

/// Images without a name that nobody uses: as they are in the store, and in a list.
#[derive(Default)]
struct Dangling {
    images: Vec<ImageRecord>,
    removals: Vec<Removal>,
}

fn dangling(app: &App, filters: &Filters) -> Result<Dangling, Failure> {
    let mut images = image::unused(app, false, &ObjectFilters::made_before(filters.unused_since))?;
    let items = app.store()?.usage()?.items.into_iter();
    let items = items.filter(|item| item.kind == ItemKind::Image && filters.selects(item));
    let is_image = |item: &Item, image: &ImageRecord| image.id().hex().starts_with(&item.id);
    let meant: Vec<Item> = items.filter(|item| images.iter().any(|image| is_image(item, image))).collect();
    images.retain(|image| meant.iter().any(|item| is_image(item, image)));
    let removal = |item: Item| Removal { freed_bytes: item.private_bytes, item, policy: 0 };
    Ok(Dangling { images, removals: meant.into_iter().map(removal).collect() })
}

/// Why a policy takes what it takes.
fn why(policy: &PrunePolicy<'_>, is_selected: bool) -> String {
    let limit = |limits: SpaceLimits| match (limits.max_used_bytes, limits.min_free_bytes) {
        (Some(bytes), _) => format!("the cache is to take {}", size(bytes)),
        (None, Some(bytes)) => format!("{} are to be free", size(bytes)),
        (None, None) => format!("{} are reserved", size(limits.reserved_bytes)),
    };
    let reason = if is_selected { "selected" } else { "not in use" };
    policy.limits.map_or_else(|| reason.to_owned(), limit)
}

fn list(report: &PruneReport, why: &str, now: i64) -> String {
    if report.removals.is_empty() {
        return String::new();
    }
    let header = ["ID", "TYPE", "FREED", "DESCRIPTION", "WHY"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(report.removals.iter().map(|removal| {
        let item = &removal.item;
        vec![
            item.id.clone(),
            type_name(item.kind).to_owned(),
            size(removal.freed_bytes),
            shorten(&item.description, DESCRIPTION_CHARS_MAX),
            format!("{why}; last used {}", ago(now, item.last_used)),
        ]
    }));
    table(&rows)
}

/// Asks whether to go on, unless that was said. Nothing is removed when nobody can be asked.
///
/// # Errors
/// When the answer is no.
pub(crate) fn confirm(force: bool, warning: &str) -> Result<(), Failure> {
    if force {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        let message = "nobody can be asked: standard input is no terminal";
        return Err(Failure::new(Kind::Input, message).hint("`--force` removes without asking"));
    }
    print(&format!("WARNING! {warning} Are you sure you want to continue? [y/N] "))?;
    // A prompt that is not seen is answered all the same.
    drop(io::stdout().flush());
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    match answer.trim() {
        "y" | "Y" | "yes" if read.is_ok() => Ok(()),
        _ => Err(Failure::new(Kind::Input, "nothing was removed")),
    }
}
