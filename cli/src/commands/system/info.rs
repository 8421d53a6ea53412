//! `rbuild info` and `rbuild version`: what rbuild is and has here, in the words of Docker's API as far as they mean something without
//! a daemon.

use std::fs;

use rbuild_cache::{LayerForm, Store};
use rbuild_container::{Container, Containers, Status};
use rbuild_image::Platform;
use serde_json::{Value, json};

use crate::app::{App, environment, unix_now};
use crate::args::AboutArgs;
use crate::commands::{container, print, templated};
use crate::format::{binary_size, rfc3339};
use crate::report::Failure;
use crate::template;

const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(crate) fn info(app: &App, args: &AboutArgs) -> Result<u8, Failure> {
    let about = about(app)?;
    match args.format.as_deref().filter(|format| !format.is_empty()) {
        None => print(&as_text(&about)),
        Some(format) => print(&template::list(format, &Value::Null, &[about]).map_err(templated)?),
    }
    .map(|()| 0)
}

pub(crate) fn version(args: &AboutArgs) -> Result<u8, Failure> {
    let platform = Platform::host();
    let program = json!({
        "Version": VERSION, "Os": platform.os, "Arch": platform.architecture,
        "KernelVersion": line_of("/proc/sys/kernel/osrelease"),
    });
    match args.format.as_deref().filter(|format| !format.is_empty()) {
        None => print(&format!("rbuild {VERSION}\n")),
        Some(format) => {
            // There is no server: what would ask it is answered by the program itself.
            let value = json!({ "Client": program, "Server": program });
            print(&template::list(format, &Value::Null, &[value]).map_err(templated)?)
        }
    }
    .map(|()| 0)
}

fn about(app: &App) -> Result<Value, Failure> {
    let containers = Containers::new(app.store()?.clone()).list().map_err(container::failure)?;
    let count = |is: fn(&Status) -> bool| {
        containers.iter().filter(|container: &&Container| is(&container.state.status)).count()
    };
    let platform = Platform::host();
    let running = count(|status| matches!(status, Status::Running(_) | Status::Restarting { .. }));
    let paused = count(|status| matches!(status, Status::Paused(_)));
    Ok(json!({
        "Containers": containers.len(),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": containers.len() - running - paused,
        "Images": app.store()?.images().list()?.len(),
        "Driver": "overlayfs",
        "DriverStatus": [["Copies", copies(app.store()?)]],
        "LoggingDriver": "json-file",
        "CgroupVersion": if fs::exists("/sys/fs/cgroup/cgroup.controllers").unwrap_or(false) { "2" } else { "1" },
        "SecurityOptions": security_options(app),
        "KernelVersion": line_of("/proc/sys/kernel/osrelease"),
        "OperatingSystem": os_name(),
        "OSType": platform.os,
        "Architecture": machine(&platform.architecture),
        "NCPU": std::thread::available_parallelism().map_or(1, usize::from),
        "MemTotal": memory_bytes(),
        "Name": line_of("/proc/sys/kernel/hostname"),
        "DockerRootDir": app.root(),
        "HttpProxy": proxy("http_proxy"),
        "HttpsProxy": proxy("https_proxy"),
        "NoProxy": proxy("no_proxy"),
        "SystemTime": rfc3339(unix_now()),
        "ServerVersion": VERSION,
        "ClientInfo": { "Version": VERSION, "Os": platform.os, "Arch": platform.architecture },
    }))
}

fn as_text(about: &Value) -> String {
    let text = |name: &str| about[name].as_str().map_or_else(|| about[name].to_string(), str::to_owned);
    let options = about["SecurityOptions"].as_array().into_iter().flatten();
    let options: String = options
        .filter_map(|option| option.as_str()?.strip_prefix("name="))
        .map(|it| format!("\n  {it}"))
        .collect();
    let memory = binary_size(about["MemTotal"].as_u64().unwrap_or_default());
    let rows = [
        ("Containers", text("Containers")),
        (" Running", text("ContainersRunning")),
        (" Paused", text("ContainersPaused")),
        (" Stopped", text("ContainersStopped")),
        ("Images", text("Images")),
        ("Version", text("ServerVersion")),
        ("Storage Driver", text("Driver")),
        (" Copies", about["DriverStatus"][0][1].as_str().unwrap_or_default().to_owned()),
        ("Logging Driver", text("LoggingDriver")),
        ("Cgroup Version", text("CgroupVersion")),
        ("Security Options", options),
        ("Kernel Version", text("KernelVersion")),
        ("Operating System", text("OperatingSystem")),
        ("OSType", text("OSType")),
        ("Architecture", text("Architecture")),
        ("CPUs", text("NCPU")),
        ("Total Memory", memory),
        ("Name", text("Name")),
        ("Root Dir", text("DockerRootDir")),
    ];
    let line = |(name, value): &(&str, String)| match value.starts_with('\n') {
        true => format!("{name}:{value}\n"),
        false => format!("{name}: {value}\n"),
    };
    rows.iter().map(line).collect()
}

/// What copies of many files become, and why nothing that costs less.
fn copies(store: &Store) -> String {
    let form = store.layer_form();
    let trees = match form {
        LayerForm::Default | LayerForm::Auto | LayerForm::Tree => store.tree_support(),
        LayerForm::Directory | LayerForm::Delta => Err("as asked for".to_owned()),
    };
    let Err(reason) = trees else { return "trees".to_owned() };
    match form {
        LayerForm::Auto | LayerForm::Delta if store.delta_support().is_ok() => format!("deltas ({reason})"),
        _ => format!("directories ({reason})"),
    }
}

fn security_options(app: &App) -> Vec<&'static str> {
    let rootless = app.in_user_namespace().then_some("name=rootless");
    ["name=seccomp,profile=builtin", "name=cgroupns"].into_iter().chain(rootless).collect()
}

/// Where the machine's connections go; what may hold a password is not shown.
fn proxy(name: &str) -> String {
    let value = environment(name).or_else(|| environment(&name.to_uppercase())).unwrap_or_default();
    if value.contains('@') { "xxxxx".to_owned() } else { value }
}

/// As the kernel calls it.
fn machine(architecture: &str) -> &str {
    match architecture {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        other => other,
    }
}

fn os_name() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

fn memory_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = total.and_then(|total| total.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}

/// What a one-line file of the kernel says; nothing where it is not.
fn line_of(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}
