//! `images --tree`: each image with its names, and below it the platforms that it is for.

use std::collections::BTreeMap;

use rbuild_image::{Platform, Reference};
use rbuild_solver::images::StoredImage;

use super::{Listed, NONE, users};
use crate::app::App;
use crate::format::{size, table};
use crate::report::Failure;

/// What stands in the last column of an image that a container stands on.
const IN_USE: &str = "U";

pub(super) fn show(app: &App, listed: &[Listed], whole: bool) -> Result<String, Failure> {
    let users = users(app)?;
    let header = ["IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "EXTRA"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for entry in listed {
        rows.extend(image_rows(app, entry, whole, &users)?);
    }
    Ok(table(&rows))
}

fn image_rows(
    app: &App,
    listed: &Listed,
    whole: bool,
    users: &BTreeMap<String, usize>,
) -> Result<Vec<Vec<String>>, Failure> {
    let images = app.images()?;
    let target = images.open_target(&listed.record.target, &Platform::host())?;
    let sizes = images.layer_sizes(&target.images)?;
    let unpacked = |image: &StoredImage| sizes.total(image);
    let content = |image: &StoredImage| image.manifest.layers.iter().map(|layer| layer.size_bytes).sum();
    let row = |name: String, image: &StoredImage, disk_bytes: u64, content_bytes: u64| {
        let id = image.id();
        let extra = if users.contains_key(&id.to_string()) { IN_USE } else { "" };
        let id = if whole { id.to_string() } else { id.short() };
        vec![name, id, size(disk_bytes), size(content_bytes), extra.to_owned()]
    };
    let disk_bytes = target.images.iter().map(unpacked).sum();
    let content_bytes = target.images.iter().map(content).sum();
    let names: Vec<String> = listed.record.names.iter().map(Reference::familiar).collect();
    let names = if names.is_empty() { vec![NONE.to_owned()] } else { names };
    let mut rows: Vec<_> =
        names.into_iter().map(|name| row(name, &listed.image, disk_bytes, content_bytes)).collect();
    if target.is_index() {
        let last = target.images.len() - 1;
        rows.extend(target.images.iter().enumerate().map(|(at, image)| {
            let branch = if at == last { "└─" } else { "├─" };
            let name = format!("{branch} {}", image.config.platform);
            row(name, image, unpacked(image), content(image))
        }));
    }
    Ok(rows)
}
