//! `rbuild history`: an image's layers, newest first, with the instruction that made each.

use rbuild_image::Platform;

use super::print;
use crate::app::{App, unix_now};
use crate::args::HistoryArgs;
use crate::format::{ago, parse_rfc3339, shorten, size, table};
use crate::report::Failure;

/// How much of an instruction is shown.
const CREATED_BY_CHARS_MAX: usize = 45;
/// What stands in place of an id: only the newest entry is an image of its own.
const MISSING: &str = "<missing>";

pub(crate) fn run(app: &App, args: &HistoryArgs) -> Result<u8, Failure> {
    let images = app.images()?;
    let record = images.find(&args.image)?;
    let image = images.open(&record.target, &Platform::host())?;
    let mut sizes = images.layer_sizes(&image)?.into_iter();
    let mut rows = Vec::new();
    for entry in &image.config.history {
        let size_bytes = if entry.empty_layer { 0 } else { sizes.next().unwrap_or(0) };
        let created = entry.created.as_deref().and_then(parse_rfc3339);
        let created_by = entry.created_by.clone().unwrap_or_default();
        rows.push(vec![
            MISSING.to_owned(),
            created.map_or_else(|| "N/A".to_owned(), |created| ago(unix_now(), created)),
            if args.no_trunc { created_by } else { shorten(&created_by, CREATED_BY_CHARS_MAX) },
            size(size_bytes),
            entry.comment.clone().unwrap_or_default(),
        ]);
    }
    rows.reverse();
    if let Some(newest) = rows.first_mut() {
        newest[0] = if args.no_trunc { image.id().to_string() } else { image.id().short() };
    }
    if args.quiet {
        let ids: String = rows.iter().map(|row| format!("{}\n", row[0])).collect();
        return print(&ids).map(|()| 0);
    }
    let header = ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"].map(str::to_owned).to_vec();
    rows.insert(0, header);
    print(&table(&rows)).map(|()| 0)
}
