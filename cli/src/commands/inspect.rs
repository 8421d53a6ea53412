//! `rbuild inspect`: what is known of images and containers, as a JSON list in Docker's words.

use std::collections::BTreeSet;

use rbuild_container::{Container, ContainerError, Containers, Status};
use rbuild_image::{Platform, Reference};
use serde_json::{Value, json};

use super::print;
use crate::app::App;
use crate::args::InspectArgs;
use crate::format::rfc3339;
use crate::report::Failure;

pub(crate) fn run(app: &App, args: &InspectArgs) -> Result<u8, Failure> {
    let found = args.names.iter().map(|name| inspect(app, name)).collect::<Result<Vec<_>, _>>()?;
    let text = serde_json::to_string_pretty(&found).expect("a JSON value is JSON");
    print(&format!("{text}\n")).map(|()| 0)
}

/// A container of this name comes before an image, as in Docker.
fn inspect(app: &App, name: &str) -> Result<Value, Failure> {
    match Containers::new(app.store()?.clone()).find(name) {
        Ok(container) => Ok(container_json(&container)),
        Err(ContainerError::NotFound { .. }) => image_json(app, name),
        Err(error) => Err(super::containers::failure(error)),
    }
}

fn image_json(app: &App, name: &str) -> Result<Value, Failure> {
    let images = app.images()?;
    let record = images.find(name)?;
    let image = images.open(&record.target, &Platform::host())?;
    let names: Vec<String> = record.names.iter().map(Reference::familiar).collect();
    let digest = |name: &Reference| format!("{}@{}", name.familiar_name(), record.target.digest);
    let digests: BTreeSet<String> = record.names.iter().map(digest).collect();
    Ok(json!({
        "Id": image.id(),
        "RepoTags": names,
        "RepoDigests": digests,
        "Created": image.config.created,
        "Author": image.config.author.clone().unwrap_or_default(),
        "Config": image.config.config,
        "Architecture": image.config.platform.architecture,
        "Os": image.config.platform.os,
        "Variant": image.config.platform.variant.clone().unwrap_or_default(),
        "Size": images.unpacked_size(&image)?,
        "RootFS": { "Type": image.config.rootfs.kind, "Layers": image.config.rootfs.diff_ids },
        "Descriptor": record.target,
    }))
}

fn container_json(container: &Container) -> Value {
    let (status, pid, code, started, finished) = match container.state.status {
        Status::Created => ("created", 0, 0, None, None),
        Status::Running { pid, started } => ("running", pid, 0, Some(started), None),
        Status::Exited { code, finished } => ("exited", 0, code, None, Some(finished)),
    };
    let (path, args) = container.state.args.split_first().map_or(("", &[][..]), |(path, args)| (path, args));
    json!({
        "Id": container.id,
        "Name": format!("/{}", container.name),
        "Created": rfc3339(container.created),
        "Path": path,
        "Args": args,
        "Image": container.state.image_id,
        "State": {
            "Status": status,
            "Running": status == "running",
            "Pid": pid,
            "ExitCode": code,
            "StartedAt": started.map(rfc3339),
            "FinishedAt": finished.map(rfc3339),
        },
        "Config": { "Image": container.state.image },
    })
}
