//! `rbuild images`: the images of the store, those made last first; with `-a` the layers below them as well.

mod filters;
mod tree;

use std::collections::{BTreeMap, BTreeSet};

use rbuild_cache::ImageRecord;
use rbuild_container::Containers;
use rbuild_image::{ChainId, Digest, History, Platform, Reference};
use rbuild_solver::images::{LayerSizes, StoredImage};
use serde_json::{Value, json};

use self::filters::ImageFilters;
use super::{print, templated};
use crate::app::{App, unix_now};
use crate::args::ImagesArgs;
use crate::format::{SIZE_DIGITS, ago, go_time, parse_rfc3339, size, size_of_digits};
use crate::report::Failure;
use crate::template;

const NONE: &str = "<none>";
/// What is not known, as Docker says it.
const UNKNOWN: &str = "N/A";

const TABLE: &str = "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
const TABLE_WITH_DIGESTS: &str =
    "table {{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";

/// An image that is listed.
struct Listed {
    record: ImageRecord,
    image: StoredImage,
}

/// One line of the list.
struct Line<'a> {
    name: Option<&'a Reference>,
    digest: Option<Digest>,
    id: Digest,
    created: Option<i64>,
    size_bytes: u64,
}

impl Listed {
    fn created(&self) -> Option<i64> {
        self.image.config.created.as_deref().and_then(parse_rfc3339)
    }

    fn lines<'a>(&'a self, size_bytes: u64) -> Vec<Line<'a>> {
        let line = |name: Option<&'a Reference>| Line {
            name,
            digest: Some(name.map_or(self.record.target.digest, |name| self.record.digest_at(name))),
            id: self.image.id(),
            created: self.created(),
            size_bytes,
        };
        if self.record.names.is_empty() {
            return vec![line(None)];
        }
        self.record.names.iter().map(|name| line(Some(name))).collect()
    }

    /// The read-only layers below the top one, by their chain ids, newest first: each as large as all it stands on.
    fn layers(&self, sizes: &LayerSizes) -> Vec<Line<'static>> {
        let config = &self.image.config;
        let mut size_bytes = 0;
        let sizes = sizes.of(&self.image).into_iter().map(|layer| {
            size_bytes += layer;
            size_bytes
        });
        let created = config.history.iter().filter(|entry| !entry.empty_layer).map(created);
        let created = created.chain(std::iter::repeat(None));
        let chain = ChainId::of_stack(&config.rootfs.diff_ids);
        let layers = chain.into_iter().zip(sizes).zip(created);
        let line = |((id, size_bytes), created): ((ChainId, u64), _)| Line {
            name: None,
            digest: None,
            id: id.0,
            created,
            size_bytes,
        };
        let mut lines: Vec<_> = layers.map(line).collect();
        lines.pop();
        lines.reverse();
        lines
    }

    /// The chain id of its top layer.
    fn top(&self) -> Option<Digest> {
        ChainId::of_stack(&self.image.config.rootfs.diff_ids).last().map(|chain| chain.0)
    }
}

fn created(entry: &History) -> Option<i64> {
    entry.created.as_deref().and_then(parse_rfc3339)
}

pub(crate) fn run(app: &App, args: &ImagesArgs) -> Result<u8, Failure> {
    let images = app.images()?;
    let filters = ImageFilters::parse(app, &args.filters, args.name.as_deref())?;
    let mut listed = Vec::new();
    for mut record in images.store().images().list()? {
        if filters.selects_names(&mut record.names) {
            let image = images.open(&record.target, &Platform::host())?;
            let listed_image = Listed { record, image };
            if filters.selects(&listed_image) {
                listed.push(listed_image);
            }
        }
    }
    listed.sort_by_key(|listed| std::cmp::Reverse(listed.created()));
    if args.tree {
        return print(&tree::show(app, &listed, args.no_trunc)?).map(|()| 0);
    }
    let format = match args.format.as_deref().filter(|format| *format != "table") {
        Some(format) => format,
        None if args.quiet => "{{.ID}}",
        None if args.digests => TABLE_WITH_DIGESTS,
        None => TABLE,
    };
    let sizes = images.layer_sizes(listed.iter().map(|listed| &listed.image))?;
    let users = if needs(format, "Containers") { users(app)? } else { BTreeMap::new() };
    let rows: Vec<Value> = lines(&listed, &sizes, args.all && filters.may_be_unnamed())
        .iter()
        .map(|line| row(line, args.no_trunc, &users))
        .collect();
    print(&template::list(format, &headings(), &rows).map_err(templated)?).map(|()| 0)
}

/// Whether a format shows a column, which is computed only then.
fn needs(format: &str, column: &str) -> bool {
    format == "json" || format.contains(column) || format.contains("json .")
}

/// How many containers stand on each image.
fn users(app: &App) -> Result<BTreeMap<String, usize>, Failure> {
    let mut users = BTreeMap::new();
    for container in Containers::new(app.store()?.clone()).list().map_err(super::container::failure)? {
        *users.entry(container.state.spec.image_id.clone()).or_default() += 1;
    }
    Ok(users)
}

fn lines<'a>(listed: &'a [Listed], sizes: &LayerSizes, with_layers: bool) -> Vec<Line<'a>> {
    // A layer is listed once; one that is the top of an image is that image.
    let mut seen: BTreeSet<Digest> = listed.iter().filter_map(Listed::top).collect();
    let mut lines = Vec::new();
    for image in listed {
        lines.extend(image.lines(sizes.total(&image.image)));
        if with_layers {
            lines.extend(image.layers(sizes).into_iter().filter(|layer| seen.insert(layer.id)));
        }
    }
    lines
}

fn headings() -> Value {
    json!({
        "ID": "IMAGE ID", "Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST", "CreatedSince": "CREATED",
        "CreatedAt": "CREATED AT", "Size": "SIZE", "Containers": "CONTAINERS", "VirtualSize": "SIZE",
        "SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE",
    })
}

fn row(line: &Line<'_>, whole: bool, users: &BTreeMap<String, usize>) -> Value {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| NONE.to_owned());
    let id = line.id.to_string();
    let containers = users.get(&id).copied().unwrap_or_default().to_string();
    let created = |show: &dyn Fn(i64) -> String| line.created.map_or_else(|| UNKNOWN.to_owned(), show);
    json!({
        "ID": if whole { id } else { line.id.short() },
        "Repository": or_none(line.name.map(Reference::familiar_name)),
        "Tag": or_none(line.name.and_then(Reference::tag).map(str::to_owned)),
        "Digest": or_none(line.digest.map(|digest| digest.to_string())),
        "CreatedSince": created(&|created| ago(unix_now(), created)),
        "CreatedAt": created(&go_time),
        "Size": size(line.size_bytes),
        "VirtualSize": size_of_digits(line.size_bytes, SIZE_DIGITS),
        "Containers": containers,
        "SharedSize": UNKNOWN,
        "UniqueSize": UNKNOWN,
    })
}
