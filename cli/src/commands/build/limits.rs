//! `--memory`, `--cpu-quota` and the others: what each step may use.
//!
//! What this machine cannot limit is a warning, as in Docker: the build does the same without.

use std::fs;
use std::time::Duration;

use rbuild_executor::cgroup::{CgroupSupport, CpuQuota, Limits, Refusal, Swap};
use rbuild_frontend::{parse_duration, parse_size_bytes};
use rbuild_solver::local::StepLimits;

use crate::args::LimitArgs;
use crate::report::{Failure, Kind};

/// What the steps are given, and what of that was asked for in vain.
///
/// # Errors
/// When a value is malformed.
pub(crate) fn read(args: &LimitArgs, support: &CgroupSupport) -> Result<(StepLimits, String), Failure> {
    let mut raw = Raw::from(args);
    args.resources.iter().try_for_each(|text| raw.set(text))?;
    let asked = raw.limits()?;
    let (mut limits, discarded) = support.keep(asked);
    let optional = limits.is_empty();
    if limits.pids.is_none() && args.pids_limit.is_none() && !support.is_delegated() {
        limits.pids = support.keep(Limits { pids: pids_default(), ..Limits::default() }).0.pids;
    }
    let mut warnings: String = discarded.iter().map(|one| format!("warning: {one}\n")).collect();
    if !discarded.is_empty() && support.refusal() == Some(Refusal::NotDelegated) {
        warnings += "hint: `systemd-run --user --scope -p Delegate=yes rbuild …` gives rbuild control groups of its own\n";
    }
    let timeout = args.step_timeout.as_deref().map(timeout).transpose()?;
    Ok((StepLimits { limits, optional, timeout }, warnings))
}

/// Half of all processes that the machine can have: enough for every step, and whoever is to end a fork bomb has the rest.
fn pids_default() -> Option<u64> {
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?.trim().parse().ok();
    let most: u64 = ["pid_max", "threads-max"].into_iter().filter_map(read).min()?;
    Some(most / 2)
}

/// The values as typed, whichever way.
#[derive(Default)]
struct Raw {
    memory: Option<String>,
    memory_swap: Option<String>,
    cpu_quota: i64,
    cpu_period: u64,
    cpu_shares: Option<u64>,
    cpuset_cpus: Option<String>,
    cpuset_mems: Option<String>,
    pids: Option<i64>,
}

impl From<&LimitArgs> for Raw {
    fn from(args: &LimitArgs) -> Self {
        Self {
            memory: args.memory.clone(),
            memory_swap: args.memory_swap.clone(),
            cpu_quota: args.cpu_quota.unwrap_or(0),
            cpu_period: args.cpu_period.unwrap_or(0),
            cpu_shares: args.cpu_shares,
            cpuset_cpus: args.cpuset_cpus.clone(),
            cpuset_mems: args.cpuset_mems.clone(),
            pids: args.pids_limit,
        }
    }
}

impl Raw {
    /// `--resource NAME=VALUE`.
    fn set(&mut self, text: &str) -> Result<(), Failure> {
        let malformed = || {
            Failure::new(Kind::Input, format!("invalid --resource `{text}`")).hint(
                "there are memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus and cpuset-mems",
            )
        };
        let (name, value) = text.split_once('=').ok_or_else(malformed)?;
        let owned = || Some(value.to_owned());
        match name {
            "memory" => self.memory = owned(),
            "memory-swap" => self.memory_swap = owned(),
            "cpu-shares" => self.cpu_shares = Some(value.parse().map_err(|_| malformed())?),
            "cpu-period" => self.cpu_period = value.parse().map_err(|_| malformed())?,
            "cpu-quota" => self.cpu_quota = value.parse().map_err(|_| malformed())?,
            "cpuset-cpus" => self.cpuset_cpus = owned(),
            "cpuset-mems" => self.cpuset_mems = owned(),
            _ => return Err(malformed()),
        }
        Ok(())
    }

    fn limits(self) -> Result<Limits, Failure> {
        let memory_bytes =
            self.memory.map(|text| size("memory", &text)).transpose()?.filter(|size| *size > 0);
        Ok(Limits {
            memory_bytes,
            memory_swap: self.memory_swap.map(|text| swap(&text, memory_bytes)).transpose()?.flatten(),
            cpu_quota: CpuQuota::new(self.cpu_quota, self.cpu_period),
            cpu_shares: self.cpu_shares.filter(|shares| *shares > 0),
            cpuset_cpus: self.cpuset_cpus.filter(|list| !list.is_empty()),
            cpuset_mems: self.cpuset_mems.filter(|list| !list.is_empty()),
            pids: self.pids.and_then(|pids| u64::try_from(pids).ok()).filter(|pids| *pids > 0),
            ..Limits::default()
        })
    }
}

fn size(option: &str, text: &str) -> Result<u64, Failure> {
    parse_size_bytes(text)
        .ok_or_else(|| Failure::new(Kind::Input, format!("invalid --{option} `{text}` (expected 512m, 2g)")))
}

/// As in Docker: zero is the default, and what is below the memory is a mistake.
fn swap(text: &str, memory_bytes: Option<u64>) -> Result<Option<Swap>, Failure> {
    if text == "-1" {
        return Ok(Some(Swap::Unlimited));
    }
    let total = size("memory-swap", text)?;
    match memory_bytes {
        _ if total == 0 => Ok(None),
        Some(memory) if total >= memory => Ok(Some(Swap::Total(total))),
        Some(_) => {
            Err(Failure::new(Kind::Input, "--memory-swap is memory and swap together, so not below --memory"))
        }
        None => Err(Failure::new(Kind::Input, "--memory-swap needs --memory")),
    }
}

fn timeout(text: &str) -> Result<Duration, Failure> {
    let nanoseconds = parse_duration(text).and_then(|nanoseconds| u64::try_from(nanoseconds).ok());
    nanoseconds.filter(|nanoseconds| *nanoseconds > 0).map(Duration::from_nanos).ok_or_else(|| {
        Failure::new(Kind::Input, format!("invalid --step-timeout `{text}` (expected 90s, 1h30m)"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(args: &LimitArgs) -> Result<Limits, Failure> {
        let mut raw = Raw::from(args);
        args.resources.iter().try_for_each(|text| raw.set(text))?;
        raw.limits()
    }

    #[test]
    fn both_spellings_mean_the_same() {
        let text = |text: &str| Some(text.to_owned());
        let own = LimitArgs {
            memory: text("64m"),
            memory_swap: text("-1"),
            cpu_quota: Some(50_000),
            cpu_shares: Some(2),
            cpuset_cpus: text("0"),
            ..LimitArgs::default()
        };
        let resources = ["memory=64m", "memory-swap=-1", "cpu-quota=50000", "cpu-shares=2", "cpuset-cpus=0"];
        let buildkits =
            LimitArgs { resources: resources.map(str::to_owned).to_vec(), ..LimitArgs::default() };
        let expected = Limits {
            memory_bytes: Some(64 << 20),
            memory_swap: Some(Swap::Unlimited),
            cpu_quota: CpuQuota::new(50_000, 100_000),
            cpu_shares: Some(2),
            cpuset_cpus: text("0"),
            ..Limits::default()
        };
        assert_eq!(limits(&own).unwrap(), expected);
        assert_eq!(limits(&buildkits).unwrap(), expected);
        assert!(
            limits(&LimitArgs { memory: text("0"), pids_limit: Some(-1), ..LimitArgs::default() })
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn mistakes_are_refused() {
        for resource in ["memory", "memory=x", "cpu-shares=x", "disk=1", "memory-swap=1g"] {
            let args = LimitArgs { resources: vec![resource.to_owned()], ..LimitArgs::default() };
            assert!(limits(&args).is_err(), "{resource}");
        }
        let below = LimitArgs {
            memory: Some("2m".to_owned()),
            memory_swap: Some("1m".to_owned()),
            ..LimitArgs::default()
        };
        assert!(limits(&below).is_err());
        for text in ["", "0", "0s", "-1s", "5", "x"] {
            assert!(timeout(text).is_err(), "{text}");
        }
        assert_eq!(timeout("1m30s").unwrap(), Duration::from_secs(90));
    }
}
