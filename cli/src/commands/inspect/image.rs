//! An image in the words of Docker's API.

use std::collections::BTreeSet;

use rbuild_cache::ImageRecord;
use rbuild_image::{ContainerConfig, Platform, Reference};
use rbuild_solver::images::ImageError;
use serde_json::{Value, json};

use super::Inspected;
use crate::app::App;
use crate::report::Failure;

/// What is known of the image of this name; `None` when there is none.
///
/// # Errors
/// When the name is that of several, or the store fails.
pub(super) fn find(app: &App, name: &str) -> Result<Option<Inspected>, Failure> {
    match app.images()?.find(name) {
        Ok(record) => Ok(Some(Inspected { json: show(app, &record)?, zeros: zeros() })),
        Err(ImageError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn show(app: &App, record: &ImageRecord) -> Result<Value, Failure> {
    let images = app.images()?;
    let image = images.open(&record.target, &Platform::host())?;
    let is_tag = |name: &&Reference| name.digest().is_none();
    let tags: Vec<String> = record.names.iter().filter(is_tag).map(Reference::familiar).collect();
    let digest = |name: &Reference| format!("{}@{}", name.familiar_name(), record.digest_at(name));
    let digests: BTreeSet<String> = record.names.iter().map(digest).collect();
    let config = &image.config;
    let newest = config.history.last();
    let mut json = json!({
        "Id": image.id(),
        "RepoTags": tags,
        "RepoDigests": digests,
        "Parent": "",
        "Comment": newest.and_then(|entry| entry.comment.clone()).unwrap_or_default(),
        "Created": config.created,
        "DockerVersion": "",
        "Author": config.author.clone().unwrap_or_default(),
        "Config": config_json(&config.config),
        "Architecture": config.platform.architecture,
        "Os": config.platform.os,
        "Size": images.layer_sizes([&image])?.total(&image),
        "GraphDriver": { "Name": "overlayfs", "Data": null },
        "RootFS": { "Type": config.rootfs.kind, "Layers": config.rootfs.diff_ids },
        "Metadata": { "LastTagTime": crate::format::rfc3339(record.created) },
        "Descriptor": record.target,
    });
    for (name, value) in [("Variant", &config.platform.variant), ("OsVersion", &config.platform.os_version)] {
        if let Some(value) = value {
            json[name] = value.as_str().into();
        }
    }
    Ok(json)
}

fn zeros() -> Value {
    json!({ "Config": config_zeros(), "Variant": "", "OsVersion": "" })
}

/// The zero values of all fields of a config.
pub(super) fn config_zeros() -> Value {
    json!({
        "User": "",
        "ExposedPorts": {},
        "Env": [],
        "Entrypoint": [],
        "Cmd": [],
        "Volumes": {},
        "WorkingDir": "",
        "Labels": {},
        "StopSignal": "",
        "ArgsEscaped": false,
        "Healthcheck": null,
        "OnBuild": [],
        "Shell": [],
    })
}

/// A config with the fields that Docker prints whether they are set or not.
pub(super) fn config_json(config: &ContainerConfig) -> Value {
    let mut json = json!({
        "User": "",
        "Env": null,
        "Cmd": null,
        "Volumes": null,
        "WorkingDir": "",
        "Entrypoint": null,
        "OnBuild": null,
        "Labels": null,
    });
    let own = serde_json::to_value(config).expect("a config is JSON");
    if let (Value::Object(json), Value::Object(own)) = (&mut json, own) {
        json.extend(own);
    }
    json
}
