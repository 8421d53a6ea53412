//! `rbuild history`: an image's layers, newest first, with the instruction that made each.

use rbuild_image::History;
use serde_json::{Value, json};

use super::{image_for, print, templated};
use crate::app::{App, unix_now};
use crate::args::HistoryArgs;
use crate::format::{ago, parse_rfc3339, rfc3339, shorten, size};
use crate::report::Failure;
use crate::template;

/// How much of an instruction is shown.
const CREATED_BY_CHARS_MAX: usize = 45;
/// What stands in place of an id: only the newest entry is an image of its own.
const MISSING: &str = "<missing>";

const TABLE: &str = "table {{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
const TABLE_FOR_PROGRAMS: &str = "table {{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";

pub(crate) fn run(app: &App, args: &HistoryArgs) -> Result<u8, Failure> {
    let images = app.images()?;
    let record = images.find(&args.image)?;
    let image = image_for(images, &record.target, args.platform.as_deref())?;
    let mut sizes = images.layer_sizes([&image])?.of(&image).into_iter();
    let mut rows = Vec::new();
    for entry in &image.config.history {
        let size_bytes = if entry.empty_layer { 0 } else { sizes.next().unwrap_or(0) };
        rows.push(row(entry, size_bytes, args));
    }
    rows.reverse();
    if let Some(newest) = rows.first_mut() {
        newest["ID"] = if args.no_trunc { image.id().to_string() } else { image.id().short() }.into();
    }
    let format = match &args.format {
        _ if args.quiet => "{{.ID}}",
        Some(format) if format != "table" => format,
        _ if args.human => TABLE,
        _ => TABLE_FOR_PROGRAMS,
    };
    print(&template::list(format, &headings(), &rows).map_err(templated)?).map(|()| 0)
}

fn headings() -> Value {
    json!({
        "ID": "IMAGE", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY",
        "Size": "SIZE", "Comment": "COMMENT",
    })
}

fn row(entry: &History, size_bytes: u64, args: &HistoryArgs) -> Value {
    let created = entry.created.as_deref().and_then(parse_rfc3339);
    let created_at = created.map_or_else(|| "N/A".to_owned(), rfc3339);
    let created_since = match created {
        Some(created) if args.human => ago(unix_now(), created),
        _ => created_at.clone(),
    };
    let created_by = entry.created_by.clone().unwrap_or_default();
    json!({
        "ID": MISSING,
        "CreatedAt": created_at,
        "CreatedSince": created_since,
        "CreatedBy": if args.no_trunc { created_by } else { shorten(&created_by, CREATED_BY_CHARS_MAX) },
        "Size": if args.human { size(size_bytes) } else { size_bytes.to_string() },
        "Comment": entry.comment.clone().unwrap_or_default(),
    })
}
