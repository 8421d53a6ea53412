//! What a container shares with the machine and with others: `--pid`, `--ipc`, `--uts`, `--device`, `--sysctl` and their like. The
//! words are Docker's.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use rbuild_container::{ContainerSpec, Containers, NetworkMode, PidMode};
use rbuild_executor::cgroup::DeviceRule;
use rbuild_executor::{Device, DeviceAccess};

use super::create::invalid;
use super::run_failure;
use crate::args::CreateOptions;
use crate::report::Failure;

/// How deep a directory of devices is looked through: `/dev/bus/usb/001/002`.
const DEVICE_DEPTH_MAX: usize = 4;

/// What a container shares.
///
/// # Errors
/// When that is not to be had, or contradicts something else.
pub(super) fn settle(
    spec: &mut ContainerSpec,
    containers: &Containers,
    options: &CreateOptions,
) -> Result<(), Failure> {
    let given = |mode: &Option<String>| mode.as_deref().unwrap_or_default().to_owned();
    spec.pid = match given(&options.pid).as_str() {
        "" => PidMode::Own,
        "host" => PidMode::Host,
        mode => {
            let name = mode.strip_prefix("container:");
            let name = name.ok_or_else(|| invalid("--pid: invalid PID mode"))?;
            PidMode::Container(containers.find(name).map_err(run_failure)?.id)
        }
    };
    spec.host_ipc = match given(&options.ipc).as_str() {
        "" | "private" | "shareable" => false,
        "host" => true,
        mode if mode == "none" || mode.starts_with("container:") => {
            return Err(invalid(format!("IPC mode `{mode}` is not supported")));
        }
        mode => return Err(invalid(format!("invalid IPC mode: {mode}"))),
    };
    spec.host_uts = host_or_own(&options.uts, "", "--uts: invalid UTS mode")?;
    host_or_own(&options.userns, "", "--userns: invalid USER mode")?;
    spec.host_cgroups = host_or_own(&options.cgroupns, "private", "--cgroupns: invalid CGROUP mode")?;
    check_sysctls(spec)?;
    check_names(spec)
}

/// A parameter of a namespace that is the machine's would be the machine's.
fn check_sysctls(spec: &ContainerSpec) -> Result<(), Failure> {
    let is_machines = |(name, _): &&(String, String)| match spec.network {
        NetworkMode::Host if name.starts_with("net/") => true,
        _ => spec.host_ipc && !name.starts_with("net/"),
    };
    match spec.sysctls.iter().find(is_machines) {
        Some((name, _)) => {
            Err(invalid(format!("sysctl '{}' not allowed in host namespace", name.replace('/', "."))))
        }
        None => Ok(()),
    }
}

fn host_or_own(mode: &Option<String>, own: &str, message: &str) -> Result<bool, Failure> {
    match mode.as_deref() {
        None | Some("") => Ok(false),
        Some("host") => Ok(true),
        Some(mode) if mode == own => Ok(false),
        Some(_) => Err(invalid(message)),
    }
}

fn check_names(spec: &ContainerSpec) -> Result<(), Failure> {
    if spec.hostname.is_empty() {
        return Ok(());
    }
    if spec.host_uts {
        return Err(invalid("conflicting options: hostname and the UTS mode"));
    }
    match spec.network {
        NetworkMode::Container(_) => Err(invalid("conflicting options: hostname and the network mode")),
        _ => Ok(()),
    }
}

/// Devices: `HOST[:CONTAINER][:rwm]`; all in a directory, where that is one.
///
/// # Errors
/// When there is no such device, or the text is malformed.
pub(super) fn devices(texts: &[String]) -> Result<Vec<Device>, Failure> {
    let mut devices = Vec::new();
    for text in texts {
        let parts: Vec<&str> = text.split(':').collect();
        let (path, target, mode) = match parts[..] {
            [path] => (path, path, "rwm"),
            [path, mode] if !mode.starts_with('/') => (path, path, mode),
            [path, target] => (path, target, "rwm"),
            [path, target, mode] => (path, target, mode),
            _ => return Err(invalid(format!("invalid device specification: {text}"))),
        };
        let device = Device { path: path.into(), target: target.into(), access: access(mode)? };
        let before = devices.len();
        add(&device, 0, &mut devices);
        if devices.len() == before {
            let why =
                if Path::new(path).exists() { "not a device node" } else { "no such file or directory" };
            let message = "error gathering device information while adding custom device";
            return Err(invalid(format!("{message} \"{path}\": {why}")));
        }
    }
    Ok(devices)
}

/// What else may be done with devices: `c 10:200 rwm`.
///
/// # Errors
/// When the text is malformed.
pub(super) fn device_rules(texts: &[String]) -> Result<Vec<DeviceRule>, Failure> {
    let malformed = |text: &str| invalid(format!("invalid device cgroup format '{text}'"));
    let rules = texts.iter().map(|text| DeviceRule::parse(text).ok_or_else(|| malformed(text)));
    Ok(rules.collect::<Result<Vec<_>, _>>()?.concat())
}

fn add(device: &Device, depth: usize, devices: &mut Vec<Device>) {
    let Ok(kind) = fs::metadata(&device.path).map(|metadata| metadata.file_type()) else { return };
    if kind.is_char_device() || kind.is_block_device() {
        devices.push(device.clone());
    } else if kind.is_dir() && depth < DEVICE_DEPTH_MAX {
        let entries = fs::read_dir(&device.path).into_iter().flatten().flatten();
        let mut names: Vec<PathBuf> = entries.map(|entry| entry.file_name().into()).collect();
        names.sort();
        for name in names {
            let (path, target) = (device.path.join(&name), device.target.join(&name));
            add(&Device { path, target, ..*device }, depth + 1, devices);
        }
    }
}

fn access(mode: &str) -> Result<DeviceAccess, Failure> {
    let has = |letter| mode.contains(letter);
    let is_known = !mode.is_empty() && mode.chars().all(|letter| "rwm".contains(letter));
    let access = DeviceAccess { read: has('r'), write: has('w'), make: has('m') };
    is_known.then_some(access).ok_or_else(|| invalid(format!("bad mode specified: {mode}")))
}

/// Kernel parameters that are a namespace's: `NAME=VALUE`, as paths below `/proc/sys`.
///
/// # Errors
/// When one is the machine's.
pub(super) fn sysctls(texts: &[String]) -> Result<Vec<(String, String)>, Failure> {
    const OWN: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let read = |text: &String| {
        let refused = || invalid(format!("sysctl '{text}' is not allowed"));
        let (name, value) = text.split_once('=').ok_or_else(refused)?;
        let is_own = OWN.contains(&name) || name.starts_with("net.") || name.starts_with("fs.mqueue.");
        let path = name.replace('.', "/");
        let is_plain = path.split('/').all(|part| !part.is_empty());
        (is_own && is_plain).then(|| (path, value.to_owned())).ok_or_else(refused)
    };
    texts.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read() {
        let one = |text: &str| devices(&[text.to_owned()]);
        let cases = [
            ("/dev/null", "/dev/null", "rwm"),
            ("/dev/null:r", "/dev/null", "r"),
            ("/dev/null:/dev/x", "/dev/x", "rwm"),
            ("/dev/null:/dev/x:rw", "/dev/x", "rw"),
        ];
        for (text, target, mode) in cases {
            let expected =
                Device { path: "/dev/null".into(), target: target.into(), access: access(mode).unwrap() };
            assert_eq!(one(text).unwrap(), [expected], "{text}");
        }
        for text in ["/dev/none", "/etc/passwd", "/dev/null:/dev/x:rx", "/dev/null:/dev/x:", "a:b:c:d"] {
            assert!(one(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_parameters_of_namespaces_are_set() {
        let read = |text: &str| sysctls(&[text.to_owned()]);
        let expected = ("net/ipv4/ip_forward".to_owned(), "1".to_owned());
        assert_eq!(read("net.ipv4.ip_forward=1").unwrap(), [expected]);
        for text in ["kernel.hostname=x", "net.ipv4.ip_forward", "net...x=1", "vm.swappiness=1"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
