//! How a container stands to the machine, in the words of Docker's API.

use rbuild_container::{ContainerSpec, RestartPolicy, Tmpfs};
use rbuild_executor::cgroup::{Limits, Swap};
use rbuild_executor::{Device, Seccomp, Ulimit};
use serde_json::{Map, Value, json};

use super::super::container::private;

pub(super) fn json(spec: &ContainerSpec) -> Value {
    let binds: Vec<String> =
        spec.binds.iter().map(|bind| format!("{}:{}", bind.source, bind.target)).collect();
    let retries = if let RestartPolicy::OnFailure { max_retries } = spec.restart { max_retries } else { 0 };
    let hosts: Vec<String> = spec.extra_hosts.iter().map(|(host, ip)| format!("{host}:{ip}")).collect();
    let mut json = json!({
        "Binds": binds,
        "NetworkMode": spec.network.to_string(),
        "RestartPolicy": { "Name": spec.restart.name(), "MaximumRetryCount": retries },
        "AutoRemove": spec.auto_remove,
        "Annotations": spec.annotations,
        "Links": spec.links.iter().map(|link| format!("{}:{}", link.id, link.alias)).collect::<Vec<_>>(),
        "PidMode": spec.pid.to_string(),
        "IpcMode": if spec.host_ipc { "host" } else { "private" },
        "CgroupnsMode": if spec.host_cgroups { "host" } else { "private" },
        "UTSMode": if spec.host_uts { "host" } else { "" },
        "GroupAdd": spec.groups,
        "OomScoreAdj": spec.oom_score_adj.unwrap_or(0),
        "CgroupParent": spec.cgroup_parent.as_deref().unwrap_or_default(),
        "CapAdd": spec.cap_add,
        "CapDrop": spec.cap_drop,
        "Dns": spec.dns,
        "DnsSearch": spec.dns_search,
        "DnsOptions": spec.dns_options,
        "ExtraHosts": hosts,
        "Init": spec.init,
        "PortBindings": port_bindings(spec),
        "Privileged": spec.privileged,
        "ReadonlyRootfs": spec.readonly_root,
        "SecurityOpt": security_options(spec),
        "ShmSize": spec.shm_size_bytes.unwrap_or(64 << 20),
        "LogConfig": { "Type": if spec.log.discard { "none" } else { "json-file" }, "Config": {} },
        "Devices": spec.devices.iter().map(device).collect::<Vec<_>>(),
        "Ulimits": spec.ulimits.iter().map(ulimit).collect::<Vec<_>>(),
    });
    if !spec.sysctls.is_empty() {
        let dotted = |(name, value): &(String, String)| (name.replace('/', "."), value.clone());
        json["Sysctls"] = spec.sysctls.iter().map(dotted).collect();
    }
    if !spec.tmpfs.is_empty() {
        json["Tmpfs"] = spec.tmpfs.iter().map(|tmpfs| (tmpfs.target.clone(), options(tmpfs))).collect();
    }
    if let (Value::Object(json), Value::Object(limits)) = (&mut json, limits(&spec.limits)) {
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

fn limits(limits: &Limits) -> Value {
    let memory = limits.memory_bytes.unwrap_or(0);
    let swap = match limits.memory_swap {
        Some(Swap::Unlimited) => json!(-1),
        Some(Swap::Total(bytes)) => bytes.into(),
        None => memory.saturating_mul(2).into(),
    };
    let quota = limits.cpu_quota;
    let nano_cpus = quota.and_then(|quota| Some(quota.quota_us? * 1_000_000_000 / quota.period_us));
    json!({
        "Memory": memory,
        "MemoryReservation": limits.memory_reservation_bytes.unwrap_or(0),
        "MemorySwap": swap,
        "NanoCpus": nano_cpus.unwrap_or(0),
        "CpuShares": limits.cpu_shares.unwrap_or(0),
        "CpuPeriod": quota.map_or(0, |quota| quota.period_us),
        "CpuQuota": quota.and_then(|quota| quota.quota_us).unwrap_or(0),
        "CpusetCpus": limits.cpuset_cpus.as_deref().unwrap_or_default(),
        "CpusetMems": limits.cpuset_mems.as_deref().unwrap_or_default(),
        "BlkioWeight": limits.io_weight.unwrap_or(0),
        "PidsLimit": limits.pids,
    })
}

/// The ports as they were asked for: one of the machine that is any is empty.
fn port_bindings(spec: &ContainerSpec) -> Value {
    let mut bindings: Map<String, Value> = Map::new();
    for port in &spec.ports {
        let host_ip = port.host_ip.map(|ip| ip.to_string()).unwrap_or_default();
        let host_port = if port.host_port == 0 { String::new() } else { port.host_port.to_string() };
        let of_port = bindings.entry(private(port)).or_insert_with(|| json!([]));
        of_port.as_array_mut().into_iter().for_each(|places| {
            places.push(json!({ "HostIp": host_ip, "HostPort": host_port }));
        });
    }
    bindings.into()
}

fn security_options(spec: &ContainerSpec) -> Vec<String> {
    let confinement = &spec.confinement;
    let seccomp = match &confinement.seccomp {
        Seccomp::Default => None,
        Seccomp::Unconfined => Some("seccomp=unconfined".to_owned()),
        Seccomp::Profile(profile) => Some(format!("seccomp={profile}")),
    };
    let apparmor = confinement.apparmor.as_ref().map(|profile| format!("apparmor={profile}"));
    let others = [
        (confinement.no_new_privileges, "no-new-privileges"),
        (confinement.unmasked, "systempaths=unconfined"),
    ];
    let others = others.into_iter().filter(|(is_set, _)| *is_set).map(|(_, option)| option.to_owned());
    seccomp.into_iter().chain(apparmor).chain(others).collect()
}

fn device(device: &Device) -> Value {
    let access = device.access;
    let letters = [(access.read, 'r'), (access.write, 'w'), (access.make, 'm')];
    let letters: String = letters.into_iter().filter(|(may, _)| *may).map(|(_, letter)| letter).collect();
    json!({ "PathOnHost": device.path, "PathInContainer": device.target, "CgroupPermissions": letters })
}

fn ulimit(ulimit: &Ulimit) -> Value {
    json!({ "Name": ulimit.resource.name(), "Soft": ulimit.soft, "Hard": ulimit.hard })
}

fn options(tmpfs: &Tmpfs) -> Value {
    let size = tmpfs.size_bytes.map(|bytes| format!("size={bytes}"));
    let words = [tmpfs.readonly.then_some("ro"), tmpfs.exec.then_some("exec"), size.as_deref()];
    words.into_iter().flatten().collect::<Vec<_>>().join(",").into()
}
