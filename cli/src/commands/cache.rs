//! `rbuild cache`: what a shared cache has, and what of it goes.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rbuild_registry::RemoteStore;
use rbuild_solver::images::ImageError;
use rbuild_solver::shared::{Entry, Trust, Upkeep};
use serde_json::json;

use super::filter::age_limit;
use super::print;
use super::prune::confirm;
use crate::app::{self, App, unix_now};
use crate::args::{CacheCommand, CachePruneArgs, SharedCacheArgs};
use crate::cache_spec::{CacheSpec, Direction};
use crate::format::{ago, rfc3339, shorten, size, table};
use crate::report::{Failure, Kind, eprint};
use crate::shared_cache;

/// How much of a step a list shows, and how much of a key.
const DESCRIPTION_CHARS_MAX: usize = 60;
const KEY_CHARS: usize = 12;
/// The days of use are noted to the day.
const DAY_SECONDS: i64 = 24 * 60 * 60;

/// A cache, opened.
struct Cache {
    store: RemoteStore,
    trust: Trust,
    cancel: Arc<AtomicBool>,
}

impl Cache {
    fn open(app: &App, args: &SharedCacheArgs) -> Result<Self, Failure> {
        let spec = match &args.from {
            Some(text) => CacheSpec::parse(text, Direction::From, &app::environment)
                .map_err(|error| Failure::caused_by(Kind::Input, &error))?,
            None => shared_cache::configured(Direction::From)?.ok_or_else(|| {
                Failure::new(Kind::Input, "no shared cache is named")
                    .hint("`--from type=…`, or `shared` under `[cache]` in the config file")
            })?,
        };
        if app.is_offline() && !spec.place.is_here() {
            return Err(Failure::new(Kind::Remote, "the shared cache was not asked: rbuild is offline"));
        }
        let store = shared_cache::open(&Arc::new(app.impatient_client()?), &spec)?;
        Ok(Self { store, trust: shared_cache::trust()?, cancel: app.cancel_on_interrupt()? })
    }

    fn upkeep(&self) -> Upkeep<'_> {
        Upkeep { store: &self.store, trust: &self.trust, cancel: &self.cancel }
    }

    fn entries(&self) -> Result<Vec<Entry>, Failure> {
        let mut entries = self.upkeep().entries().map_err(ImageError::from)?;
        entries.sort_by(|one, other| {
            (other.used, other.made, &one.name).cmp(&(one.used, one.made, &other.name))
        });
        Ok(entries)
    }
}

pub(crate) fn run(app: &App, command: &CacheCommand) -> Result<u8, Failure> {
    match command {
        CacheCommand::Ls { quiet, cache } => ls(&Cache::open(app, cache)?, *quiet),
        CacheCommand::Inspect { keys, cache } => inspect(&Cache::open(app, cache)?, keys),
        CacheCommand::Prune(args) => prune(app, args),
    }?;
    Ok(0)
}

/// The key of a record, as people type it.
fn key(entry: &Entry) -> &str {
    entry.name.split_once('-').map_or(&*entry.name, |(_, key)| key)
}

fn short(entry: &Entry) -> &str {
    key(entry).get(..KEY_CHARS).unwrap_or_default()
}

fn ls(cache: &Cache, quiet: bool) -> Result<(), Failure> {
    let (entries, now) = (cache.entries()?, unix_now());
    if quiet {
        return print(&entries.iter().map(|entry| format!("{}\n", key(entry))).collect::<String>());
    }
    let header = ["KEY", "LAYERS", "SIZE", "MADE", "LAST USED", "BELIEVED", "STEP"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(entries.iter().map(|entry| {
        vec![
            short(entry).to_owned(),
            entry.blobs.len().to_string(),
            size(entry.size_bytes()),
            ago(now, entry.made),
            day(now, entry),
            entry.is_believed.to_string(),
            shorten(&entry.description, DESCRIPTION_CHARS_MAX),
        ]
    }));
    print(&table(&rows))
}

/// When a record was last used, as far as that is known.
fn day(now: i64, entry: &Entry) -> String {
    match entry.used {
        0 => "unknown".to_owned(),
        used if used + DAY_SECONDS > now => "today".to_owned(),
        used => ago(now, used),
    }
}

fn inspect(cache: &Cache, keys: &[String]) -> Result<(), Failure> {
    let entries = cache.entries()?;
    let mut found = Vec::new();
    for wanted in keys {
        let before = found.len();
        found.extend(entries.iter().filter(|entry| key(entry).starts_with(&**wanted)).map(as_json));
        if found.len() == before {
            return Err(Failure::new(Kind::Input, format!("the shared cache has no record `{wanted}`"))
                .hint("`rbuild cache ls` lists them"));
        }
    }
    print(&format!("{}\n", serde_json::to_string_pretty(&found).expect("a JSON value is JSON")))
}

fn as_json(entry: &Entry) -> serde_json::Value {
    let blob = |(digest, size_bytes): (&rbuild_image::Digest, &u64)| json!({ "Digest": digest.to_string(), "Size": size_bytes });
    json!({
        "Key": key(entry),
        "Name": entry.name,
        "Step": entry.description,
        "MadeAt": rfc3339(entry.made),
        "LastUsedAt": rfc3339(entry.used),
        "Believed": entry.is_believed,
        "Size": entry.size_bytes(),
        "Layers": entry.blobs.iter().map(blob).collect::<Vec<_>>(),
    })
}

/// What a prune is told to take.
#[derive(Debug, Default, PartialEq, Eq)]
struct Rules {
    unused_since: Option<i64>,
    made_before: Option<i64>,
    disbelieved: bool,
}

impl Rules {
    fn parse(texts: &[String], now: i64) -> Result<Self, Failure> {
        let mut rules = Self::default();
        for text in texts.iter().flat_map(|text| text.split(',')) {
            let invalid = || {
                Failure::new(Kind::Input, format!("invalid filter `{text}`"))
                    .hint("filters are unused-for=30d, until=90d, unsigned")
            };
            let age = |text| age_limit(text, now).map(Some).ok_or_else(invalid);
            match text.split_once('=') {
                Some(("unused-for", text)) => rules.unused_since = age(text)?,
                Some(("until", text)) => rules.made_before = age(text)?,
                None if text == "unsigned" => rules.disbelieved = true,
                _ => return Err(invalid()),
            }
        }
        Ok(rules)
    }

    /// Whether a record goes: all rules hold for it. Without a rule none does.
    fn take(&self, entry: &Entry) -> bool {
        *self != Self::default()
            && self.unused_since.is_none_or(|since| entry.used + DAY_SECONDS <= since)
            && self.made_before.is_none_or(|before| entry.made < before)
            && !(self.disbelieved && entry.is_believed)
    }
}

fn prune(app: &App, args: &CachePruneArgs) -> Result<(), Failure> {
    let now = unix_now();
    let rules = Rules::parse(&args.filters, now)?;
    let spare_since = age_limit(&args.grace, now).ok_or_else(|| {
        Failure::new(Kind::Input, format!("invalid --grace `{}` (expected 24h)", args.grace))
    })?;
    let cache = Cache::open(app, &args.cache)?;
    if !args.dry_run {
        confirm(args.force, &format!("This will remove records from the shared cache `{}`.", cache.store))?;
    }
    let goes = |entry: &Entry| args.all || rules.take(entry);
    let pruned = cache.upkeep().prune(&goes, spare_since, args.dry_run).map_err(refused)?;
    let list: String = pruned.entries.iter().map(|entry| format!("{}\n", key(entry))).collect();
    let (verb, counts) = (if args.dry_run { "Would remove" } else { "Removed" }, pruned.entries.len());
    print(&format!(
        "{list}{verb}: {counts} records, {} blobs, {}\n",
        pruned.blobs,
        size(pruned.freed_bytes)
    ))?;
    if cache.store.reference().is_some() && counts > 0 {
        eprint("note: the registry frees the room of layers when it collects its garbage\n");
    }
    Ok(())
}

fn refused(error: rbuild_registry::Error) -> Failure {
    let may_not =
        matches!(&error, rbuild_registry::Error::Status(error) if matches!(error.status, 405 | 501));
    let failure = Failure::from(ImageError::from(error));
    if may_not {
        failure.hint("the registry has to be told to allow that records are deleted")
    } else {
        failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_of_age_use_and_signature() {
        let parse = |text: &str| Rules::parse(&[text.to_owned()], 1_000_000);
        let rules = parse("unused-for=10d,until=1d").unwrap();
        assert_eq!(
            rules,
            Rules { unused_since: Some(136_000), made_before: Some(913_600), disbelieved: false }
        );
        assert!(parse("unsigned").unwrap().disbelieved);
        for text in ["", "until=", "until=x", "signed", "age=3d"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
