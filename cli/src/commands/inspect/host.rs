//! What a container has of the machine: `HostConfig` and `Mounts`, in Docker's words.

use std::collections::BTreeMap;

use rbuild_container::{ContainerSpec, RestartPolicy, Tmpfs, Volumes};
use rbuild_executor::cgroup::Swap;
use rbuild_executor::{Confinement, Device, Seccomp, Ulimit};
use serde_json::{Value, json};

use super::super::container::private;

/// Docker's size of `/dev/shm`, in bytes.
const SHM_SIZE_BYTES_DEFAULT: u64 = 64 << 20;

/// All of Docker's fields that have something to say here.
pub(super) fn config_json(spec: &ContainerSpec) -> Value {
    let retries = if let RestartPolicy::OnFailure { max_retries } = spec.restart { max_retries } else { 0 };
    let hosts: Vec<String> = spec.extra_hosts.iter().map(|(host, ip)| format!("{host}:{ip}")).collect();
    let links: Vec<String> = spec.links.iter().map(|link| format!("{}:{}", link.id, link.alias)).collect();
    let capabilities = |names: &[String]| names.iter().map(|name| capability(name)).collect::<Vec<String>>();
    let mut json = json!({
        "Binds": binds(spec),
        "NetworkMode": spec.network.to_string(),
        "PortBindings": port_bindings(spec),
        "RestartPolicy": { "Name": spec.restart.name(), "MaximumRetryCount": retries },
        "AutoRemove": spec.auto_remove,
        "Annotations": spec.annotations,
        "Links": links,
        "PidMode": spec.pid.to_string(),
        "IpcMode": if spec.host_ipc { "host" } else { "private" },
        "CgroupnsMode": if spec.host_cgroups { "host" } else { "private" },
        "UTSMode": if spec.host_uts { "host" } else { "" },
        "GroupAdd": spec.groups,
        "OomScoreAdj": spec.oom_score_adj.unwrap_or(0),
        "CgroupParent": spec.cgroup_parent.as_deref().unwrap_or_default(),
        "CapAdd": capabilities(&spec.cap_add),
        "CapDrop": capabilities(&spec.cap_drop),
        "Dns": spec.dns,
        "DnsSearch": spec.dns_search,
        "DnsOptions": spec.dns_options,
        "ExtraHosts": hosts,
        "Init": spec.init,
        "Privileged": spec.privileged,
        "ReadonlyRootfs": spec.readonly_root,
        "SecurityOpt": security_options(&spec.confinement),
        "ShmSize": spec.shm_size_bytes.unwrap_or(SHM_SIZE_BYTES_DEFAULT),
        "Devices": spec.devices.iter().map(device).collect::<Vec<Value>>(),
        "Ulimits": spec.ulimits.iter().map(ulimit).collect::<Vec<Value>>(),
        "LogConfig": { "Type": if spec.log.discard { "none" } else { "json-file" }, "Config": {} },
    });
    if !spec.sysctls.is_empty() {
        let dotted = |(name, value): &(String, String)| (name.replace('/', "."), value.clone());
        json["Sysctls"] = spec.sysctls.iter().map(dotted).collect();
    }
    if !spec.tmpfs.is_empty() {
        json["Tmpfs"] = json!(tmpfs(spec));
    }
    if let (Value::Object(json), Value::Object(limits)) = (&mut json, limits(spec)) {
        json.extend(limits);
    }
    json
}

/// What Docker leaves out when it is not set, and what no container has here.
pub(super) fn zeros() -> Value {
    json!({
        "Sysctls": {}, "Tmpfs": {}, "StorageOpt": {}, "DeviceRequests": [], "MemorySwappiness": null,
        "OomKillDisable": false, "CpuRealtimePeriod": 0, "CpuRealtimeRuntime": 0, "VolumeDriver": "", "UsernsMode": "",
        "Isolation": "", "Cgroup": "", "PidsLimit": null,
    })
}

fn limits(spec: &ContainerSpec) -> Value {
    let limits = &spec.limits;
    let nano_cpus =
        limits.cpu_quota.and_then(|quota| Some(quota.quota_us? * 1_000_000_000 / quota.period_us));
    let memory = limits.memory_bytes.unwrap_or(0);
    let memory_swap = match limits.memory_swap {
        Some(Swap::Unlimited) => json!(-1),
        Some(Swap::Total(bytes)) => json!(bytes),
        // As much again as there is memory.
        None => json!(memory.saturating_mul(2)),
    };
    json!({
        "Memory": memory,
        "MemoryReservation": limits.memory_reservation_bytes.unwrap_or(0),
        "MemorySwap": memory_swap,
        "NanoCpus": nano_cpus.unwrap_or(0),
        "CpuShares": limits.cpu_shares.unwrap_or(0),
        "CpuPeriod": limits.cpu_quota.map_or(0, |quota| quota.period_us),
        "CpuQuota": limits.cpu_quota.and_then(|quota| quota.quota_us).unwrap_or(0),
        "CpusetCpus": limits.cpuset_cpus.as_deref().unwrap_or_default(),
        "CpusetMems": limits.cpuset_mems.as_deref().unwrap_or_default(),
        "BlkioWeight": limits.io_weight.unwrap_or(0),
        "PidsLimit": limits.pids,
    })
}

/// What `-v` would say: `/a:/b:ro`. A volume that nobody named is not among them.
fn binds(spec: &ContainerSpec) -> Vec<String> {
    let pair = |source: &str, target: &str, mode: &str| match mode {
        "" => format!("{source}:{target}"),
        mode => format!("{source}:{target}:{mode}"),
    };
    let binds = spec.binds.iter().map(|bind| pair(&bind.source, &bind.target, mode(bind.readonly)));
    let volumes = spec.volumes.iter().filter(|volume| !volume.anonymous);
    let volumes = volumes.map(|volume| pair(&volume.name, &volume.target, mode(volume.readonly)));
    binds.chain(volumes).collect()
}

const fn mode(readonly: bool) -> &'static str {
    if readonly { "ro" } else { "" }
}

/// The ports that were asked for; which ones were chosen is in `NetworkSettings`.
fn port_bindings(spec: &ContainerSpec) -> Value {
    let mut bindings: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for port in &spec.ports {
        let ip = port.host_ip.map(|ip| ip.to_string()).unwrap_or_default();
        let number = if port.host_port == 0 { String::new() } else { port.host_port.to_string() };
        bindings.entry(private(port)).or_default().push(json!({ "HostIp": ip, "HostPort": number }));
    }
    json!(bindings)
}

/// With `CAP_`, as the kernel has it.
fn capability(name: &str) -> String {
    let name = name.to_ascii_uppercase();
    if name == "ALL" || name.starts_with("CAP_") { name } else { format!("CAP_{name}") }
}

fn security_options(confinement: &Confinement) -> Vec<String> {
    let seccomp = match &confinement.seccomp {
        Seccomp::Default => None,
        Seccomp::Unconfined => Some("seccomp=unconfined".to_owned()),
        Seccomp::Profile(text) => Some(format!("seccomp={text}")),
    };
    let apparmor = confinement.apparmor.as_ref().map(|profile| format!("apparmor={profile}"));
    let flags = [
        (confinement.no_new_privileges, "no-new-privileges"),
        (confinement.unmasked, "systempaths=unconfined"),
    ];
    let flags = flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name.to_owned());
    flags.chain(apparmor).chain(seccomp).collect()
}

/// By place, what `--tmpfs` would say of it.
fn tmpfs(spec: &ContainerSpec) -> BTreeMap<&str, String> {
    spec.tmpfs.iter().map(|tmpfs| (tmpfs.target.as_str(), tmpfs_options(tmpfs))).collect()
}

fn tmpfs_options(tmpfs: &Tmpfs) -> String {
    let own = &tmpfs.options;
    let flags = [(tmpfs.readonly, "ro"), (tmpfs.exec, "exec"), (tmpfs.suid, "suid"), (tmpfs.dev, "dev")];
    let flags = flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name.to_owned());
    let values = [
        ("size", own.size_bytes.map(|size| size.to_string())),
        ("nr_inodes", own.inodes_max.map(|count| count.to_string())),
        ("mode", own.mode.map(|mode| format!("{mode:o}"))),
        ("uid", own.uid.map(|uid| uid.to_string())),
        ("gid", own.gid.map(|gid| gid.to_string())),
    ];
    let values = values.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?)));
    flags.chain(values).collect::<Vec<_>>().join(",")
}

fn device(device: &Device) -> Value {
    let access = device.access;
    let letters = [(access.read, 'r'), (access.write, 'w'), (access.make, 'm')];
    let letters: String = letters.iter().filter(|(is_set, _)| *is_set).map(|(_, letter)| letter).collect();
    json!({ "PathOnHost": device.path, "PathInContainer": device.target, "CgroupPermissions": letters })
}

fn ulimit(ulimit: &Ulimit) -> Value {
    let number = |limit: u64| i64::try_from(limit).unwrap_or(-1);
    json!({ "Name": ulimit.resource.name(), "Hard": number(ulimit.hard), "Soft": number(ulimit.soft) })
}

/// What is mounted. Fields that Docker leaves out are empty: templates ask for them.
pub(super) fn mounts_json(spec: &ContainerSpec, volumes: &Volumes) -> Vec<Value> {
    let volumes = spec.volumes.iter().map(|volume| {
        json!({
            "Type": "volume", "Name": volume.name, "Source": volumes.data(&volume.name),
            "Destination": volume.target, "Driver": "local", "Mode": mode(volume.readonly), "RW": !volume.readonly,
            "Propagation": "",
        })
    });
    let binds = spec.binds.iter().map(|bind| {
        json!({
            "Type": "bind", "Name": "", "Source": bind.source, "Destination": bind.target, "Driver": "",
            "Mode": mode(bind.readonly), "RW": !bind.readonly, "Propagation": "rprivate",
        })
    });
    let tmpfs = spec.tmpfs.iter().map(|tmpfs| {
        json!({
            "Type": "tmpfs", "Name": "", "Source": "", "Destination": tmpfs.target, "Driver": "", "Mode": "",
            "RW": !tmpfs.readonly, "Propagation": "",
        })
    });
    let mut mounts: Vec<Value> = binds.chain(tmpfs).chain(volumes).collect();
    mounts.sort_by_key(|mount| mount["Destination"].to_string());
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_is_said_in_docker_s_words() {
        assert_eq!(["net_admin", "CAP_MKNOD", "all"].map(capability), ["CAP_NET_ADMIN", "CAP_MKNOD", "ALL"]);
        let options = rbuild_executor::TmpfsOptions {
            size_bytes: Some(1024),
            mode: Some(0o1770),
            uid: Some(5),
            ..Default::default()
        };
        let tmpfs = Tmpfs { options, readonly: true, exec: true, ..Tmpfs::default() };
        assert_eq!(tmpfs_options(&tmpfs), "ro,exec,size=1024,mode=1770,uid=5");
        assert_eq!(tmpfs_options(&Tmpfs::default()), "");
        let confinement =
            Confinement { no_new_privileges: true, seccomp: Seccomp::Unconfined, ..Confinement::default() };
        assert_eq!(security_options(&confinement), ["no-new-privileges", "seccomp=unconfined"]);
    }
}
