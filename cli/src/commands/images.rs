//! `rbuild images`: the images of the store; with `-a` the layers below them as well.

use rbuild_cache::ImageRecord;
use rbuild_image::{ChainId, Platform};
use rbuild_solver::images::StoredImage;

use super::print;
use crate::app::{App, unix_now};
use crate::args::ImagesArgs;
use crate::format::{ago, parse_rfc3339, size, table};
use crate::report::Failure;

const NONE: &str = "<none>";

/// One line of the list.
struct Line {
    repository: String,
    tag: String,
    digest: String,
    id: String,
    created: Option<i64>,
    size_bytes: u64,
}

pub(crate) fn run(app: &App, args: &ImagesArgs) -> Result<u8, Failure> {
    let images = app.images()?;
    let mut lines = Vec::new();
    for record in images.store().images().list()? {
        let image = images.open(&record.target, &Platform::host())?;
        let size_bytes = images.unpacked_size(&image)?;
        lines.extend(named_lines(&record, &image, size_bytes));
        if args.all {
            lines.extend(layer_lines(&image, &images.layer_sizes(&image)?));
        }
    }
    if let Some(name) = &args.name {
        let wanted = super::reference(name)?;
        let tag = name.rsplit('/').next().is_some_and(|last| last.contains(':'));
        lines.retain(|line| {
            line.repository == wanted.familiar_name() && (!tag || Some(line.tag.as_str()) == wanted.tag())
        });
    }
    print(&if args.quiet { ids(&lines, args) } else { show(&lines, args) }).map(|()| 0)
}

fn named_lines(record: &ImageRecord, image: &StoredImage, size_bytes: u64) -> Vec<Line> {
    let created = image.config.created.as_deref().and_then(parse_rfc3339);
    let line = |repository: String, tag: &str| Line {
        repository,
        tag: tag.to_owned(),
        digest: record.target.digest.to_string(),
        id: image.id().hex(),
        created,
        size_bytes,
    };
    if record.names.is_empty() {
        return vec![line(NONE.to_owned(), NONE)];
    }
    record.names.iter().map(|name| line(name.familiar_name(), name.tag().unwrap_or(NONE))).collect()
}

/// The read-only layers below an image's top one, by their chain ids, newest first.
fn layer_lines(image: &StoredImage, sizes: &[u64]) -> Vec<Line> {
    let chain = ChainId::of_stack(&image.config.rootfs.diff_ids);
    let below = chain.iter().zip(sizes).rev().skip(1);
    below
        .map(|(id, size_bytes)| Line {
            repository: NONE.to_owned(),
            tag: NONE.to_owned(),
            digest: NONE.to_owned(),
            id: id.0.hex(),
            created: None,
            size_bytes: *size_bytes,
        })
        .collect()
}

fn id(line: &Line, args: &ImagesArgs) -> String {
    if args.no_trunc { format!("sha256:{}", line.id) } else { line.id[..12].to_owned() }
}

fn ids(lines: &[Line], args: &ImagesArgs) -> String {
    let mut ids: Vec<String> = lines.iter().map(|line| id(line, args)).collect();
    ids.dedup();
    ids.iter().map(|id| format!("{id}\n")).collect()
}

fn show(lines: &[Line], args: &ImagesArgs) -> String {
    let now = unix_now();
    let cells = |cells: [String; 6]| {
        let [repository, tag, digest, id, created, size] = cells;
        let digest = args.digests.then_some(digest);
        [repository, tag].into_iter().chain(digest).chain([id, created, size]).collect::<Vec<_>>()
    };
    let header = ["REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE"].map(str::to_owned);
    let mut rows = vec![cells(header)];
    rows.extend(lines.iter().map(|line| {
        let created = line.created.map_or_else(|| "N/A".to_owned(), |created| ago(now, created));
        cells([
            line.repository.clone(),
            line.tag.clone(),
            line.digest.clone(),
            id(line, args),
            created,
            size(line.size_bytes),
        ])
    }));
    table(&rows)
}
