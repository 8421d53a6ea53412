//! `rbuild du`: what the store holds, and what each thing takes on disk. In the spirit of `docker buildx du`.

use rbuild_cache::prune::{Item, Usage};
use serde_json::json;

use super::filter::{Filters, type_name};
use super::print;
use crate::app::{App, unix_now};
use crate::args::{DuArgs, ListFormatArg};
use crate::format::{ago, rfc3339, shorten, size, table};
use crate::report::Failure;

/// How much of a description a list shows.
const DESCRIPTION_CHARS_MAX: usize = 60;

pub(crate) fn run(app: &App, args: &DuArgs) -> Result<u8, Failure> {
    let now = unix_now();
    let filters = Filters::parse(&args.filter.filters, now)?;
    let mut usage = app.store()?.usage()?;
    let is_old = |item: &Item| filters.unused_since.is_none_or(|since| item.last_used < since);
    usage.items.retain(|item| filters.selects(item) && is_old(item));
    let text = match args.format {
        ListFormatArg::Json => usage.items.iter().map(|item| format!("{}\n", as_json(item))).collect(),
        ListFormatArg::Table if args.verbose => {
            usage.items.iter().map(in_full).collect::<String>() + &totals(&usage)
        }
        ListFormatArg::Table => list(&usage, now) + &totals(&usage),
    };
    print(&text).map(|()| 0)
}

fn list(usage: &Usage, now: i64) -> String {
    let header = ["ID", "TYPE", "RECLAIMABLE", "PRIVATE", "SHARED", "LAST ACCESSED", "DESCRIPTION"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(usage.items.iter().map(|item| {
        vec![
            item.id.clone(),
            type_name(item.kind).to_owned(),
            item.is_reclaimable().to_string(),
            size(item.private_bytes),
            size(item.shared_bytes),
            ago(now, item.last_used),
            shorten(&item.description, DESCRIPTION_CHARS_MAX),
        ]
    }));
    table(&rows)
}

/// What is in the store altogether, whatever is shown of it.
fn totals(usage: &Usage) -> String {
    let rows = [
        ("Shared:", usage.shared_bytes),
        ("Private:", usage.private_bytes),
        ("Reclaimable:", usage.reclaimable_bytes),
        ("Total:", usage.total_bytes()),
    ];
    table(&rows.map(|(name, bytes)| vec![name.to_owned(), size(bytes)]))
}

fn in_full(item: &Item) -> String {
    let mut users = item.users.clone();
    users.extend(item.in_use.then(|| "a running process".to_owned()));
    users.dedup();
    let rows = [
        ("ID:", item.id.clone()),
        ("Type:", type_name(item.kind).to_owned()),
        ("Created at:", rfc3339(item.created)),
        ("Last used:", rfc3339(item.last_used)),
        ("Reclaimable:", item.is_reclaimable().to_string()),
        ("Private:", size(item.private_bytes)),
        ("Shared:", size(item.shared_bytes)),
        ("Used by:", users.join(", ")),
        ("Description:", item.description.clone()),
    ];
    table(&rows.map(|(name, value)| vec![name.to_owned(), value])) + "\n"
}

fn as_json(item: &Item) -> serde_json::Value {
    json!({
        "ID": item.id,
        "Type": type_name(item.kind),
        "Description": item.description,
        "CreatedAt": rfc3339(item.created),
        "LastUsedAt": rfc3339(item.last_used),
        "Reclaimable": item.is_reclaimable(),
        "Size": item.size_bytes(),
        "PrivateSize": item.private_bytes,
        "SharedSize": item.shared_bytes,
        "InUse": item.in_use,
        "UsedBy": item.users,
    })
}
