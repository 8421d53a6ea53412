//! What can be limited, and the files of either version that say so. Pure.

use serde::{Deserialize, Serialize};

use super::{Controller, Version};

/// The kernel's bounds of `cpu.shares`, and of what version 2 has in its place.
const CPU_SHARES_MIN: u64 = 2;
const CPU_SHARES_MAX: u64 = 262_144;
/// The kernel's default period of a quota, in microseconds.
const CPU_PERIOD_US_DEFAULT: u64 = 100_000;

/// What the processes of a group may use together. What is not given is not limited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// The most memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// What is taken back first when the machine is short of memory is what is above this, in bytes.
    pub memory_reservation_bytes: Option<u64>,
    /// How much of the memory may be swapped out; Docker's default is as much again as `memory_bytes`.
    pub memory_swap: Option<Swap>,
    /// The most processor time.
    pub cpu_quota: Option<CpuQuota>,
    /// The weight against other groups when processors are short: `cpu.shares` of version 1, where 1024 is the default.
    pub cpu_shares: Option<u64>,
    /// On which processors: `0-3,7`.
    pub cpuset_cpus: Option<String>,
    /// In which memory nodes: `0,1`.
    pub cpuset_mems: Option<String>,
    /// The most processes and threads; `u64::MAX` is unlimited.
    pub pids: Option<u64>,
    /// The weight against other groups when the disks are busy: 10 to 1000, as Docker counts.
    pub io_weight: Option<u16>,
    /// The most input and output, device by device.
    pub devices: Vec<DeviceLimit>,
}

/// Memory and swap together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Swap {
    /// As much swap as there is.
    Unlimited,
    /// Memory and swap together, in bytes. Never below the memory.
    Total(u64),
}

/// So much processor time in each period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuQuota {
    /// In microseconds; none is unlimited.
    pub quota_us: Option<u64>,
    /// In microseconds.
    pub period_us: u64,
}

impl CpuQuota {
    /// What `--cpu-quota` and `--cpu-period` mean together; zero is what is not given, and a negative quota is unlimited.
    pub fn new(quota_us: i64, period_us: u64) -> Option<Self> {
        let period_us = if period_us == 0 { CPU_PERIOD_US_DEFAULT } else { period_us };
        let quota = (quota_us != 0 || period_us != CPU_PERIOD_US_DEFAULT).then_some(quota_us);
        quota.map(|quota| Self { quota_us: u64::try_from(quota).ok().filter(|quota| *quota > 0), period_us })
    }

    /// So many processors, in billionths: what `--cpus` means.
    pub const fn of_nano_cpus(nano_cpus: u64) -> Self {
        let quota = nano_cpus.saturating_mul(CPU_PERIOD_US_DEFAULT) / 1_000_000_000;
        Self { quota_us: Some(quota), period_us: CPU_PERIOD_US_DEFAULT }
    }
}

/// A limit for one block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceLimit {
    /// Which.
    pub device: DeviceNumber,
    /// What is limited.
    pub rate: DeviceRate,
    /// Bytes or operations in a second; zero is unlimited.
    pub per_second: u64,
}

/// The number of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNumber {
    /// The driver.
    pub major: u32,
    /// Which of the driver's.
    pub minor: u32,
}

impl std::fmt::Display for DeviceNumber {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:{}", self.major, self.minor)
    }
}

/// What a [`DeviceLimit`] limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceRate {
    /// `--device-read-bps`
    ReadBytes,
    /// `--device-write-bps`
    WriteBytes,
    /// `--device-read-iops`
    ReadOperations,
    /// `--device-write-iops`
    WriteOperations,
}

/// One limit on its way to the files of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) controller: Controller,
    /// Its `--option`, for people.
    pub(super) option: &'static str,
    value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Memory { bytes: Option<u64>, swap: Option<Swap> },
    MemoryReservation(u64),
    CpuQuota(CpuQuota),
    CpuShares(u64),
    CpuSet { file: &'static str, list: String },
    Pids(u64),
    IoWeight(u64),
    Device(DeviceLimit),
}

impl Limits {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn settings(&self) -> Vec<Setting> {
        use Controller::{Cpu, CpuSet, Io, Memory, Pids};
        let memory = (self.memory_bytes.is_some() || self.memory_swap.is_some())
            .then_some(Value::Memory { bytes: self.memory_bytes, swap: self.memory_swap });
        let set = |file, list: &Option<String>| {
            let list = list.clone().filter(|list| !list.is_empty())?;
            Some(Value::CpuSet { file, list })
        };
        let single = [
            (Memory, "--memory", memory),
            (Memory, "--memory-reservation", self.memory_reservation_bytes.map(Value::MemoryReservation)),
            (Cpu, "--cpu-quota", self.cpu_quota.map(Value::CpuQuota)),
            (Cpu, "--cpu-shares", self.cpu_shares.filter(|shares| *shares > 0).map(Value::CpuShares)),
            (CpuSet, "--cpuset-cpus", set("cpuset.cpus", &self.cpuset_cpus)),
            (CpuSet, "--cpuset-mems", set("cpuset.mems", &self.cpuset_mems)),
            (Pids, "--pids-limit", self.pids.map(Value::Pids)),
            (Io, "--blkio-weight", self.io_weight.map(|weight| Value::IoWeight(weight.into()))),
        ];
        let single = single
            .into_iter()
            .filter_map(|(controller, option, value)| Some(Setting { controller, option, value: value? }));
        let devices = self.devices.iter().map(|limit| Setting {
            controller: Io,
            option: limit.rate.option(),
            value: Value::Device(limit.clone()),
        });
        single.chain(devices).collect()
    }

    /// The same without what these controllers would do.
    pub(super) fn without(mut self, missing: &[Controller]) -> Self {
        for controller in missing {
            match controller {
                Controller::Memory => {
                    (self.memory_bytes, self.memory_reservation_bytes, self.memory_swap) = (None, None, None);
                }
                Controller::Cpu => (self.cpu_quota, self.cpu_shares) = (None, None),
                Controller::CpuSet => (self.cpuset_cpus, self.cpuset_mems) = (None, None),
                Controller::Pids => self.pids = None,
                Controller::Io => {
                    self.io_weight = None;
                    self.devices.clear();
                }
                Controller::CpuAccounting | Controller::Freezer | Controller::Devices => {}
            }
        }
        self
    }
}

impl DeviceRate {
    const fn option(self) -> &'static str {
        match self {
            Self::ReadBytes => "--device-read-bps",
            Self::WriteBytes => "--device-write-bps",
            Self::ReadOperations => "--device-read-iops",
            Self::WriteOperations => "--device-write-iops",
        }
    }

    const fn file_v1(self) -> &'static str {
        match self {
            Self::ReadBytes => "blkio.throttle.read_bps_device",
            Self::WriteBytes => "blkio.throttle.write_bps_device",
            Self::ReadOperations => "blkio.throttle.read_iops_device",
            Self::WriteOperations => "blkio.throttle.write_iops_device",
        }
    }

    const fn key_v2(self) -> &'static str {
        match self {
            Self::ReadBytes => "rbps",
            Self::WriteBytes => "wbps",
            Self::ReadOperations => "riops",
            Self::WriteOperations => "wiops",
        }
    }
}

impl Setting {
    /// The files to write, in the order for values that rise.
    pub(super) fn writes(&self, version: Version) -> Vec<(&'static str, String)> {
        match version {
            Version::V1 => self.writes_v1(),
            Version::V2 => self.writes_v2(),
        }
    }

    fn writes_v1(&self) -> Vec<(&'static str, String)> {
        match &self.value {
            Value::Memory { bytes, swap } => {
                let limit = bytes.map(|bytes| ("memory.limit_in_bytes", bytes.to_string()));
                let total = match swap {
                    Some(Swap::Unlimited) => Some("-1".to_owned()),
                    Some(Swap::Total(bytes)) => Some(bytes.to_string()),
                    None => None,
                };
                limit.into_iter().chain(total.map(|total| ("memory.memsw.limit_in_bytes", total))).collect()
            }
            Value::MemoryReservation(bytes) => vec![("memory.soft_limit_in_bytes", bytes.to_string())],
            Value::CpuQuota(CpuQuota { quota_us, period_us }) => {
                let quota = quota_us.map_or_else(|| "-1".to_owned(), |quota| quota.to_string());
                vec![("cpu.cfs_period_us", period_us.to_string()), ("cpu.cfs_quota_us", quota)]
            }
            Value::CpuShares(shares) => vec![("cpu.shares", shares.to_string())],
            Value::CpuSet { file, list } => vec![(file, list.clone())],
            Value::Pids(most) => vec![("pids.max", or_max(*most))],
            Value::IoWeight(weight) => vec![("blkio.bfq.weight", weight.to_string())],
            Value::Device(limit) => {
                vec![(limit.rate.file_v1(), format!("{} {}", limit.device, limit.per_second))]
            }
        }
    }

    fn writes_v2(&self) -> Vec<(&'static str, String)> {
        match &self.value {
            Value::Memory { bytes, swap } => {
                let max = bytes.map(|bytes| ("memory.max", bytes.to_string()));
                // Version 2 counts swap alone.
                let swap = match (swap, bytes) {
                    (Some(Swap::Unlimited), _) => Some("max".to_owned()),
                    (Some(Swap::Total(total)), bytes) => {
                        Some(total.saturating_sub(bytes.unwrap_or(0)).to_string())
                    }
                    (None, _) => None,
                };
                max.into_iter().chain(swap.map(|swap| ("memory.swap.max", swap))).collect()
            }
            Value::MemoryReservation(bytes) => vec![("memory.low", bytes.to_string())],
            Value::CpuQuota(CpuQuota { quota_us, period_us }) => {
                vec![("cpu.max", format!("{} {period_us}", or_max(quota_us.unwrap_or(u64::MAX))))]
            }
            Value::CpuShares(shares) => vec![("cpu.weight", cpu_weight(*shares).to_string())],
            Value::CpuSet { file, list } => vec![(file, list.clone())],
            Value::Pids(most) => vec![("pids.max", or_max(*most))],
            Value::IoWeight(weight) => vec![("io.bfq.weight", weight.to_string())],
            Value::Device(limit) => {
                let rate = if limit.per_second == 0 { u64::MAX } else { limit.per_second };
                vec![("io.max", format!("{} {}={}", limit.device, limit.rate.key_v2(), or_max(rate)))]
            }
        }
    }
}

fn or_max(value: u64) -> String {
    if value == u64::MAX { "max".to_owned() } else { value.to_string() }
}

/// Version 1's 2 to 262144 as version 2's 1 to 10000, as the OCI runtimes convert it.
fn cpu_weight(shares: u64) -> u64 {
    let shares = shares.clamp(CPU_SHARES_MIN, CPU_SHARES_MAX);
    1 + (shares - CPU_SHARES_MIN) * 9999 / (CPU_SHARES_MAX - CPU_SHARES_MIN)
}
