//! `rbuild inspect`: what is known of containers, images, networks and volumes, as a JSON list in Docker's words.

mod host;
mod image;

use rbuild_container::{Attachment, Container, ContainerError, Containers, NetworkMode, Status, Volumes};
use rbuild_solver::images::ImageError;
use serde_json::{Map, Value, json};

use super::container::{endpoint, host_addresses, private};
use super::network::text;
use super::{FAILED, print, templated};
use crate::app::App;
use crate::args::InspectArgs;
use crate::format::{rfc3339, rfc3339_ns};
use crate::report::{Failure, Kind};
use crate::template::Template;

/// Docker's exit code for a template that is none.
const EXIT_NO_TEMPLATE: u8 = 64;

/// What `--type` may be here.
const KINDS: &str = "\"container\", \"image\", \"network\", \"volume\"";

/// What is known of a thing.
pub(crate) struct Inspected {
    json: Value,
    /// The zero values of what Docker leaves out of the JSON, or has as `null` there, for templates.
    zeros: Value,
}

impl From<Value> for Inspected {
    fn from(json: Value) -> Self {
        Self { json, zeros: Value::Null }
    }
}

pub(crate) fn run(app: &App, args: &InspectArgs) -> Result<u8, Failure> {
    match args.kind.as_deref() {
        None | Some("") => show(args, |name| any(app, name, args.size)),
        Some("container") => containers(app, args),
        Some("image") => images(app, args),
        Some("network") => show(args, |name| inspected(super::network::find(app, name)?)),
        Some("volume") => show(args, |name| inspected(super::volume::find(app, name)?)),
        Some(kind) => Err(Failure::new(FAILED, format!("unknown type: \"{kind}\": must be one of {KINDS}"))),
    }
}

/// Containers only.
pub(crate) fn containers(app: &App, args: &InspectArgs) -> Result<u8, Failure> {
    let missing = |name: &str| super::container::failure(ContainerError::NotFound { name: name.to_owned() });
    show(args, |name| container(app, name, args.size)?.ok_or_else(|| missing(name)))
}

/// Images only.
pub(crate) fn images(app: &App, args: &InspectArgs) -> Result<u8, Failure> {
    show(args, |name| image::find(app, name)?.ok_or_else(|| ImageError::not_found(name).into()))
}

/// The first thing of this name, in Docker's order.
fn any(app: &App, name: &str, with_size: bool) -> Result<Inspected, Failure> {
    if let Some(found) = container(app, name, with_size)? {
        return Ok(found);
    }
    if let Some(found) = image::find(app, name)? {
        return Ok(found);
    }
    match super::network::find(app, name)? {
        Err(ContainerError::NoSuchNetwork { .. }) => {}
        found => return inspected(found),
    }
    match super::volume::find(app, name)? {
        Err(ContainerError::NoSuchVolume { .. }) => {
            Err(Failure::new(FAILED, format!("No such object: {name}")))
        }
        found => inspected(found),
    }
}

/// A network or a volume, of which all that is known is in its JSON.
pub(crate) fn inspected(found: Result<Value, ContainerError>) -> Result<Inspected, Failure> {
    found.map(Inspected::from).map_err(super::container::failure)
}

/// Shows what there is, and then fails for what there is not.
fn show(args: &InspectArgs, find: impl FnMut(&str) -> Result<Inspected, Failure>) -> Result<u8, Failure> {
    show_each(args.format.as_deref(), &args.names, find)
}

/// The same, in the form that `--format` asks for: a JSON list, or what a template makes of each.
///
/// # Errors
/// When something is not there, or the template asks for what is not there.
pub(crate) fn show_each(
    format: Option<&str>,
    names: &[String],
    mut find: impl FnMut(&str) -> Result<Inspected, Failure>,
) -> Result<u8, Failure> {
    let format = format.filter(|format| !format.is_empty());
    let template = format.filter(|format| *format != "json").map(Template::parse).transpose();
    let template = template.map_err(|error| Failure::caused_by(Kind::Run(EXIT_NO_TEMPLATE), &error))?;
    let mut found = Vec::new();
    let outcome = super::container::each(names, |name| {
        found.push(find(name)?);
        Ok(())
    });
    let text = match template {
        None if format.is_some() => plain(found).to_string() + "\n",
        None => format!("{:#}\n", plain(found)),
        Some(template) => {
            let shown = found.iter().map(|one| Ok(template.render_typed(&one.json, &one.zeros)? + "\n"));
            shown.collect::<Result<String, _>>().map_err(templated)?
        }
    };
    print(&text)?;
    outcome
}

fn plain(found: Vec<Inspected>) -> Value {
    found.into_iter().map(|one| one.json).collect()
}

fn container(app: &App, name: &str, with_size: bool) -> Result<Option<Inspected>, Failure> {
    let store = Containers::new(app.store()?.clone());
    match store.find(name) {
        Ok(found) => {
            let json = container_json(app, &store, &found, with_size)?;
            Ok(Some(Inspected { json, zeros: container_zeros() }))
        }
        Err(ContainerError::NotFound { .. }) => Ok(None),
        Err(error) => Err(super::container::failure(error)),
    }
}

fn container_json(
    app: &App,
    store: &Containers,
    container: &Container,
    with_size: bool,
) -> Result<Value, Failure> {
    let spec = &container.state.spec;
    let args = spec.args();
    let (path, args) = args.split_first().map_or(("", &[][..]), |(path, args)| (path, args));
    let directory = store.directory(&container.id);
    let mut json = json!({
        "Id": container.id,
        "Name": format!("/{}", container.name),
        "Created": rfc3339(container.created),
        "Path": path,
        "Args": args,
        "Image": spec.image_id,
        "State": state_json(container),
        "RestartCount": container.state.restart_count,
        "LogPath": directory.join("json.log"),
        "Driver": "overlayfs",
        "Platform": "linux",
        "ExecIDs": null,
        "GraphDriver": { "Name": "overlayfs", "Data": null },
        "Mounts": host::mounts_json(spec, &Volumes::new(app.store()?.clone())),
        "Config": config_json(container),
        "HostConfig": host::config_json(spec),
        "NetworkSettings": network_json(container),
    });
    if with_size {
        let sizes = super::container::sizes(app, store, container)?;
        (json["SizeRw"], json["SizeRootFs"]) = (sizes.written.into(), sizes.whole.into());
    }
    Ok(json)
}

fn container_zeros() -> Value {
    let mut config = image::config_zeros();
    config["StopTimeout"] = Value::Null;
    config["NetworkDisabled"] = false.into();
    json!({
        "State": { "Health": null },
        "Config": config,
        "HostConfig": host::zeros(),
        "SizeRw": null,
        "SizeRootFs": null,
        "MountLabel": "",
        "ProcessLabel": "",
    })
}

fn state_json(container: &Container) -> Value {
    let status = &container.state.status;
    let ended = status.ended().cloned().unwrap_or_default();
    let pid = match status {
        Status::Running(run) | Status::Paused(run) => run.pid,
        _ => 0,
    };
    let code = if let Status::Restarting { code, .. } = status { *code } else { ended.code };
    let failure = container.state.start_failure.as_ref();
    let started = status.run().map_or(ended.started, |run| run.started);
    // Go's zero time, for what has not happened.
    let time = |ns: i64| if ns == 0 { "0001-01-01T00:00:00Z".to_owned() } else { rfc3339_ns(ns) };
    let mut json = json!({
        "Status": status.name(),
        "Running": status.is_active(),
        "Paused": matches!(status, Status::Paused(_)),
        "Restarting": matches!(status, Status::Restarting { .. }),
        "OOMKilled": ended.oom_killed,
        "Dead": false,
        "Pid": pid,
        "ExitCode": failure.map_or(code, |failure| failure.code),
        "Error": failure.map_or(ended.error, |failure| failure.message.clone()),
        "StartedAt": time(started),
        "FinishedAt": time(ended.finished),
    });
    if let Some(health) = &container.state.health {
        json["Health"] = json!({
            "Status": health.status.name(),
            "FailingStreak": health.failing_streak,
            "Log": health.log,
        });
    }
    json
}

/// Where it is reached. What is not published of what it exposes is `null`, as with Docker.
fn network_json(container: &Container) -> Value {
    let spec = &container.state.spec;
    let endpoint = endpoint(container).cloned().unwrap_or_default();
    let mut ports: Map<String, Value> =
        spec.config.exposed_ports.iter().map(|name| (name.clone(), Value::Null)).collect();
    for port in &endpoint.ports {
        let host = |ip: String| json!({ "HostIp": ip, "HostPort": port.host_port.to_string() });
        let place: Vec<Value> = host_addresses(port).into_iter().map(host).collect();
        ports.insert(private(port), place.into());
    }
    let address = |name: &str, v4| {
        let found = endpoint.networks.iter().find(|(network, _)| network == name);
        found.map(|(_, addresses)| text(addresses, v4)).unwrap_or_default()
    };
    let own = |attachment: &Attachment| {
        let name = &attachment.network;
        let json = json!({
            "IPAMConfig": { "IPv4Address": attachment.address },
            "IPAddress": address(name, true), "GlobalIPv6Address": address(name, false),
            "MacAddress": attachment.mac.map(|mac| mac.to_string()).unwrap_or_default(),
            "Aliases": attachment.aliases,
        });
        (name.clone(), json)
    };
    let attachments = spec.network.attachments();
    let mut networks: Map<String, Value> = attachments.iter().map(own).collect();
    if !matches!(spec.network, NetworkMode::Networks(_)) {
        networks.insert(spec.network.to_string(), json!({}));
    }
    let first = attachments.first().map(|first| address(&first.network, true)).unwrap_or_default();
    json!({ "Ports": ports, "Networks": networks, "IPAddress": first })
}

/// All of Docker's fields, whether they are set or not: templates ask for them.
fn config_json(container: &Container) -> Value {
    let spec = &container.state.spec;
    let hostname = if spec.hostname.is_empty() { container.short_id() } else { &spec.hostname };
    let mut json = image::config_json(&spec.config);
    let own = json!({
        "Hostname": hostname,
        "Domainname": spec.domainname,
        "Env": spec.config.env,
        "Labels": spec.config.labels,
        "AttachStdin": spec.stdin_once,
        "AttachStdout": spec.attended,
        "AttachStderr": spec.attended,
        "Tty": spec.tty,
        "OpenStdin": spec.open_stdin,
        "StdinOnce": spec.stdin_once,
        "Image": spec.image,
        "StopTimeout": spec.stop_timeout,
    });
    if let (Value::Object(json), Value::Object(own)) = (&mut json, own) {
        json.extend(own);
    }
    json
}
