//! `rbuild search`: names of images, of Docker Hub's index or, with a registry before the word, of that registry's catalog.

use rbuild_registry::{HttpRequest, Watch};
use serde::Deserialize;
use serde_json::{Value, json};

use super::filter::invalid;
use super::{print, templated};
use crate::app::App;
use crate::args::SearchArgs;
use crate::format::shorten;
use crate::report::{Failure, Kind};
use crate::template;

/// Docker Hub's index. Other registries have none.
const INDEX: &str = "https://index.docker.io/v1/search";
/// How long its answer may be, in bytes.
const ANSWER_SIZE_BYTES_MAX: u64 = 4 << 20;
/// How much of a description is shown.
const DESCRIPTION_CHARS_MAX: usize = 45;
/// How many the index gives at most.
const LIMIT_MAX: usize = 100;

const TABLE: &str = "table {{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}";

/// The index's answer.
#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    results: Vec<Found>,
}

/// A repository that was found. A catalog knows its name only.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Found {
    name: String,
    description: Option<String>,
    star_count: u64,
    is_official: bool,
}

pub(crate) fn run(app: &App, args: &SearchArgs) -> Result<u8, Failure> {
    if !(1..=LIMIT_MAX).contains(&args.limit) {
        let message = format!("limit {} is outside the range of [1, {LIMIT_MAX}]", args.limit);
        return Err(Failure::new(Kind::Input, message));
    }
    let filters = args.filters.iter().map(|text| Filter::parse(text)).collect::<Result<Vec<_>, _>>()?;
    let found = match args.term.split_once('/') {
        Some((registry, word)) if registry.contains(['.', ':']) || registry == "localhost" => {
            in_catalog(app, registry, word)?
        }
        _ => in_index(app, &args.term, args.limit)?,
    };
    let found = found.iter().filter(|found| filters.iter().all(|filter| filter.is_met(found)));
    let rows: Vec<Value> = found.take(args.limit).map(|found| row(found, args.no_trunc)).collect();
    let headings = json!({
        "Name": "NAME", "Description": "DESCRIPTION", "StarCount": "STARS", "IsOfficial": "OFFICIAL",
    });
    let format = args.format.as_deref().filter(|format| *format != "table").unwrap_or(TABLE);
    print(&template::list(format, &headings, &rows).map_err(templated)?).map(|()| 0)
}

fn in_catalog(app: &App, registry: &str, word: &str) -> Result<Vec<Found>, Failure> {
    let cancel = app.cancel_on_interrupt()?;
    let names = app.images()?.registry_handle().catalog(registry, &cancel).map_err(remote)?;
    let named = |name: String| Found { name: format!("{registry}/{name}"), ..Found::default() };
    Ok(names.into_iter().filter(|name| name.contains(word)).map(named).collect())
}

fn in_index(app: &App, word: &str, limit: usize) -> Result<Vec<Found>, Failure> {
    let cancel = app.cancel_on_interrupt()?;
    let request = HttpRequest {
        url: format!("{INDEX}?q={}&n={limit}", escaped(word)),
        headers: Vec::new(),
        etag: None,
        last_modified: None,
        size_bytes_max: ANSWER_SIZE_BYTES_MAX,
    };
    let mut answer = Vec::new();
    let watch = Watch { progress: &|_| {}, cancel: &cancel };
    app.images()?.registry_handle().http_get(&request, &mut answer, watch).map_err(remote)?;
    Ok(read(&answer)?.results)
}

fn read(answer: &[u8]) -> Result<Answer, Failure> {
    serde_json::from_slice(answer).map_err(|error| {
        Failure::new(Kind::Remote, format!("failed to read the answer of the index: {error}"))
    })
}

/// A word as a part of a URL.
fn escaped(word: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    word.bytes().map(escape).collect()
}

fn row(found: &Found, whole: bool) -> Value {
    // Descriptions have line breaks in them, tables have not.
    let description = found.description.as_deref().unwrap_or_default().replace(['\n', '\r'], " ");
    let description = if whole { description } else { shorten(&description, DESCRIPTION_CHARS_MAX) };
    json!({
        "Name": found.name,
        "Description": description,
        "StarCount": found.star_count.to_string(),
        "IsOfficial": if found.is_official { "[OK]" } else { "" },
    })
}

enum Filter {
    Official(bool),
    Stars(u64),
}

impl Filter {
    fn parse(text: &str) -> Result<Self, Failure> {
        match text.split_once('=') {
            Some(("is-official", "true" | "1")) => Ok(Self::Official(true)),
            Some(("is-official", "false" | "0")) => Ok(Self::Official(false)),
            Some(("stars", count)) => count.parse().map(Self::Stars).map_err(|_| invalid(text)),
            _ => Err(invalid(text)),
        }
    }

    const fn is_met(&self, found: &Found) -> bool {
        match self {
            Self::Official(wanted) => found.is_official == *wanted,
            Self::Stars(least) => found.star_count >= *least,
        }
    }
}

fn remote(error: rbuild_registry::Error) -> Failure {
    rbuild_solver::images::ImageError::from(error).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_s_answer_is_read_filtered_and_shown() {
        let answer = br#"{"num_results": 2, "results": [
            {"name": "busybox", "description": "Busybox base\nimage, which is a description too long to show", "star_count": 3000, "is_official": true, "is_automated": false},
            {"name": "who/busybox", "description": null, "star_count": 1}
        ]}"#;
        let found = read(answer).unwrap().results;
        let names = |filter: &str| {
            let filter = Filter::parse(filter).unwrap();
            found.iter().filter(|found| filter.is_met(found)).map(|found| &*found.name).collect::<Vec<_>>()
        };
        assert_eq!(names("is-official=true"), ["busybox"]);
        assert_eq!(names("is-official=false"), ["who/busybox"]);
        assert_eq!(names("stars=2"), ["busybox"]);
        assert_eq!(row(&found[0], false)["Description"], "Busybox base image, which is a description t…");
        assert_eq!(
            (row(&found[0], true)["IsOfficial"].as_str(), escaped("a b/ä")),
            (Some("[OK]"), "a%20b%2F%C3%A4".into())
        );
        for wrong in ["stars", "stars=x", "is-official=maybe", "x=1"] {
            assert!(Filter::parse(wrong).is_err(), "{wrong}");
        }
    }
}
