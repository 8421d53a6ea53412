//! `rbuild inspect`: what is known of images and containers, as a JSON list in Docker's words.

use std::collections::BTreeSet;

use rbuild_container::{
    Container, ContainerError, ContainerSpec, Containers, RestartPolicy, Status, Volumes,
};
use rbuild_image::{Platform, Reference};
use serde_json::{Map, Value, json};

use super::container::{endpoint, host_addresses, private};
use super::network::text;
use super::print;
use crate::app::App;
use crate::args::InspectArgs;
use crate::format::{rfc3339, rfc3339_ns};
use crate::report::{Failure, Kind};
use crate::template;

pub(crate) fn run(app: &App, args: &InspectArgs) -> Result<u8, Failure> {
    match args.kind.as_deref() {
        None => show(app, args, inspect),
        Some("container") => containers(app, args),
        Some("image") => show(app, args, |app, _, name| image_json(app, name)),
        Some(kind) => Err(Failure::new(Kind::Input, format!("\"{kind}\" is not a valid value for --type"))),
    }
}

/// Containers only.
pub(crate) fn containers(app: &App, args: &InspectArgs) -> Result<u8, Failure> {
    show(app, args, container)
}

type Inspect = fn(&App, &InspectArgs, &str) -> Result<Value, Failure>;

/// Shows what there is, and fails when something is missing.
fn show(app: &App, args: &InspectArgs, inspect: Inspect) -> Result<u8, Failure> {
    let found = args.names.iter().map(|name| inspect(app, args, name)).collect::<Result<Vec<_>, _>>()?;
    show_all(args.format.as_deref(), &found).map(|()| 0)
}

/// Shows what was found: as a JSON list, or in the form that `--format` asks for.
///
/// # Errors
/// When the template asks for what is not there.
pub(crate) fn show_all(format: Option<&str>, found: &[Value]) -> Result<(), Failure> {
    let text = match format {
        None | Some("json") => serde_json::to_string_pretty(found).expect("a JSON value is JSON") + "\n",
        Some(format) => template::list(format, &Value::Null, found)
            .map_err(|error| Failure::caused_by(Kind::Run(1), &error))?,
    };
    print(&text)
}

/// A container of this name comes before an image, as in Docker.
fn inspect(app: &App, args: &InspectArgs, name: &str) -> Result<Value, Failure> {
    let store = Containers::new(app.store()?.clone());
    match store.find(name) {
        Ok(found) => container_json(app, &store, &found, args.size),
        Err(ContainerError::NotFound { .. }) => image_json(app, name),
        Err(error) => Err(super::container::failure(error)),
    }
}

fn container(app: &App, args: &InspectArgs, name: &str) -> Result<Value, Failure> {
    let store = Containers::new(app.store()?.clone());
    let found = store.find(name).map_err(super::container::failure)?;
    container_json(app, &store, &found, args.size)
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
        "Mounts": mounts_json(spec, &Volumes::new(app.store()?.clone())),
        "Config": config_json(container),
        "HostConfig": host_config_json(spec),
        "NetworkSettings": network_json(container),
    });
    if with_size {
        let size = store.disk_size_bytes(container).map_err(super::container::failure)?;
        json["SizeRw"] = size.into();
    }
    Ok(json)
}

fn state_json(container: &Container) -> Value {
    let status = &container.state.status;
    let ended = status.ended().cloned().unwrap_or_default();
    let pid = match status {
        Status::Running(run) | Status::Paused(run) => run.pid,
        _ => 0,
    };
    let code = if let Status::Restarting { code, .. } = status { *code } else { ended.code };
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
        "ExitCode": code,
        "Error": ended.error,
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
    let own = |name: &String| {
        json!({
            "IPAddress": address(name, true), "GlobalIPv6Address": address(name, false), "Aliases": spec.aliases,
        })
    };
    let mut networks: Map<String, Value> =
        spec.network.networks().iter().map(|name| (name.clone(), own(name))).collect();
    if networks.is_empty() {
        networks.insert(spec.network.to_string(), json!({}));
    }
    let first = spec.network.networks().first().map(|name| address(name, true)).unwrap_or_default();
    json!({ "Ports": ports, "Networks": networks, "IPAddress": first })
}

/// All of Docker's fields, whether they are set or not: templates ask for them.
fn config_json(container: &Container) -> Value {
    let spec = &container.state.spec;
    let hostname = if spec.hostname.is_empty() { container.short_id() } else { &spec.hostname };
    let mut json = json!({
        "Hostname": hostname,
        "User": "",
        "Tty": spec.tty,
        "OpenStdin": spec.open_stdin,
        "StdinOnce": spec.stdin_once,
        "Env": [],
        "Cmd": null,
        "Image": spec.image,
        "Volumes": null,
        "WorkingDir": "",
        "Entrypoint": null,
        "Labels": {},
        "StopTimeout": spec.stop_timeout,
    });
    let own = serde_json::to_value(&spec.config).expect("a config is JSON");
    if let (Value::Object(json), Value::Object(own)) = (&mut json, own) {
        json.extend(own);
    }
    json
}

fn host_config_json(spec: &ContainerSpec) -> Value {
    let binds: Vec<String> =
        spec.binds.iter().map(|bind| format!("{}:{}", bind.source, bind.target)).collect();
    let retries = if let RestartPolicy::OnFailure { max_retries } = spec.restart { max_retries } else { 0 };
    let hosts: Vec<String> = spec.extra_hosts.iter().map(|(host, ip)| format!("{host}:{ip}")).collect();
    let nano_cpus =
        spec.limits.cpu_quota.and_then(|quota| Some(quota.quota_us? * 1_000_000_000 / quota.period_us));
    json!({
        "Binds": binds,
        "NetworkMode": spec.network.to_string(),
        "RestartPolicy": { "Name": spec.restart.name(), "MaximumRetryCount": retries },
        "AutoRemove": spec.auto_remove,
        "CapAdd": spec.cap_add,
        "CapDrop": spec.cap_drop,
        "Dns": spec.dns,
        "DnsSearch": spec.dns_search,
        "DnsOptions": spec.dns_options,
        "ExtraHosts": hosts,
        "Init": spec.init,
        "Memory": spec.limits.memory_bytes.unwrap_or(0),
        "NanoCpus": nano_cpus.unwrap_or(0),
        "PidsLimit": spec.limits.pids,
        "Privileged": spec.privileged,
        "ReadonlyRootfs": spec.readonly_root,
        "ShmSize": spec.shm_size_bytes.unwrap_or(64 << 20),
        "LogConfig": { "Type": if spec.log.discard { "none" } else { "json-file" }, "Config": {} },
    })
}

fn mounts_json(spec: &ContainerSpec, volumes: &Volumes) -> Vec<Value> {
    let volumes = spec.volumes.iter().map(|volume| {
        json!({
            "Type": "volume", "Name": volume.name, "Source": volumes.data(&volume.name),
            "Destination": volume.target, "Driver": "local", "Mode": "", "RW": !volume.readonly,
            "Propagation": "",
        })
    });
    let binds = spec.binds.iter().map(|bind| {
        json!({
            "Type": "bind", "Source": bind.source, "Destination": bind.target, "Mode": "", "RW": !bind.readonly,
            "Propagation": "rprivate",
        })
    });
    let tmpfs = spec.tmpfs.iter().map(|tmpfs| {
        json!({
            "Type": "tmpfs", "Source": "", "Destination": tmpfs.target, "Mode": "", "RW": !tmpfs.readonly,
            "Propagation": "",
        })
    });
    let mut mounts: Vec<Value> = binds.chain(tmpfs).chain(volumes).collect();
    mounts.sort_by_key(|mount| mount["Destination"].to_string());
    mounts
}
