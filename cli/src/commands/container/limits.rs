//! What the processes of a container may use, as it is typed. The words are Docker's.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use rbuild_executor::cgroup::{CpuQuota, DeviceLimit, DeviceNumber, DeviceRate, Limits, Swap};

use super::create::{invalid, size};
use crate::args::{RateArgs, ResourceArgs};
use crate::report::Failure;

/// With less no container starts.
const MEMORY_BYTES_MIN: u64 = 6 * 1024 * 1024;
/// What a weight of disks may be.
const IO_WEIGHTS: std::ops::RangeInclusive<u16> = 10..=1000;

/// What the processes of a container may use together.
///
/// # Errors
/// When a value is malformed.
pub(super) fn limits(options: &ResourceArgs) -> Result<Limits, Failure> {
    let memory_bytes = options.memory.as_deref().map(memory).transpose()?;
    let reservation = options.memory_reservation.as_deref();
    let weight = options.blkio_weight.filter(|weight| *weight != 0);
    if weight.is_some_and(|weight| !IO_WEIGHTS.contains(&weight)) {
        return Err(invalid("Range of blkio weight is from 10 to 1000"));
    }
    let most = |limit: i64| u64::try_from(limit).ok().filter(|limit| *limit > 0).unwrap_or(u64::MAX);
    Ok(Limits {
        memory_bytes,
        memory_reservation_bytes: reservation.map(|text| size("--memory-reservation", text)).transpose()?,
        memory_swap: options
            .memory_swap
            .as_deref()
            .map(|text| swap(text, memory_bytes))
            .transpose()?
            .flatten(),
        cpu_shares: options.cpu_shares,
        cpuset_cpus: options.cpuset_cpus.clone(),
        cpuset_mems: options.cpuset_mems.clone(),
        cpu_quota: cpu_quota(options)?,
        pids: options.pids_limit.map(most),
        io_weight: weight,
        devices: Vec::new(),
    })
}

fn memory(text: &str) -> Result<u64, Failure> {
    let bytes = size("--memory", text)?;
    if bytes < MEMORY_BYTES_MIN {
        return Err(invalid("Minimum memory limit allowed is 6MB"));
    }
    Ok(bytes)
}

/// Zero is the default.
fn swap(text: &str, memory_bytes: Option<u64>) -> Result<Option<Swap>, Failure> {
    if text == "-1" {
        return Ok(Some(Swap::Unlimited));
    }
    let total = size("--memory-swap", text)?;
    match memory_bytes {
        _ if total == 0 => Ok(None),
        Some(memory) if total >= memory => Ok(Some(Swap::Total(total))),
        Some(_) => Err(invalid("Minimum memoryswap limit should be larger than memory limit, see usage")),
        None => Err(invalid("You should always set the Memory limit when using Memoryswap limit, see usage")),
    }
}

fn cpu_quota(options: &ResourceArgs) -> Result<Option<CpuQuota>, Failure> {
    let quota = CpuQuota::new(options.cpu_quota.unwrap_or(0), options.cpu_period.unwrap_or(0));
    let Some(text) = &options.cpus else { return Ok(quota) };
    if quota.is_some() {
        return Err(invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set"));
    }
    let number: Option<f64> = text.parse().ok().filter(|number| *number > 0.0);
    let number = number.ok_or_else(|| invalid(format!("invalid --cpus `{text}`")))?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "more than zero, and what is too large is without limit"
    )]
    Ok(Some(CpuQuota::of_nano_cpus((number * 1e9) as u64)))
}

/// How fast the processes of a container may read and write.
///
/// # Errors
/// When a value is malformed, or a device is none.
pub(super) fn rates(options: &RateArgs) -> Result<Vec<DeviceLimit>, Failure> {
    let bytes = |text: &str| size("rate", text);
    let count = |text: &str| text.parse().map_err(|_| invalid(format!("invalid rate `{text}`")));
    type Read<'a> = &'a dyn Fn(&str) -> Result<u64, Failure>;
    let all: [(&[String], DeviceRate, Read<'_>); 4] = [
        (&options.read_bytes, DeviceRate::ReadBytes, &bytes),
        (&options.write_bytes, DeviceRate::WriteBytes, &bytes),
        (&options.read_operations, DeviceRate::ReadOperations, &count),
        (&options.write_operations, DeviceRate::WriteOperations, &count),
    ];
    let mut limits = Vec::new();
    for (texts, rate, read) in all {
        for text in texts {
            let (path, value) = text.split_once(':').ok_or_else(|| invalid(format!("bad format: {text}")))?;
            limits.push(DeviceLimit { device: device(path)?, rate, per_second: read(value)? });
        }
    }
    Ok(limits)
}

fn device(path: &str) -> Result<DeviceNumber, Failure> {
    let metadata = fs::metadata(path).map_err(|error| invalid(format!("{path}: {error}")))?;
    let number = metadata.rdev();
    Ok(DeviceNumber { major: rustix::fs::major(number), minor: rustix::fs::minor(number) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::container::create::tests::options;

    #[test]
    fn limits_are_read_as_docker_reads_them() {
        let read = |line: &str| limits(&options(&format!("create {line} x")).resources);
        let swapped = read("-m 64m --memory-swap 128m").unwrap();
        assert_eq!(swapped.memory_swap, Some(Swap::Total(128 << 20)));
        assert_eq!(read("--memory-swap -1").unwrap().memory_swap, Some(Swap::Unlimited));
        assert_eq!(
            read("--cpu-quota 5000 --cpu-period 10000").unwrap().cpu_quota,
            CpuQuota::new(5000, 10_000)
        );
        assert_eq!(read("--blkio-weight 0").unwrap().io_weight, None);
        for line in [
            "-m 1",
            "--memory-swap 1g",
            "-m 1g --memory-swap 64m",
            "--cpus 1 --cpu-quota 5000",
            "--cpus -1",
            "--blkio-weight 5",
        ] {
            assert_eq!(read(line).unwrap_err().kind.exit_code(), 125, "{line}");
        }
    }

    #[test]
    fn rates_are_a_device_s() {
        let read = |line: &str| rates(&options(&format!("create {line} x")).rates);
        let limits = read("--device-read-bps /dev/null:1m --device-write-iops /dev/null:7").unwrap();
        let device = DeviceNumber { major: 1, minor: 3 };
        assert_eq!(
            limits,
            [
                DeviceLimit { device, rate: DeviceRate::ReadBytes, per_second: 1 << 20 },
                DeviceLimit { device, rate: DeviceRate::WriteOperations, per_second: 7 },
            ]
        );
        for line in
            ["--device-read-bps /dev/none:1m", "--device-read-iops /dev/null:1m", "--device-read-bps x"]
        {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
