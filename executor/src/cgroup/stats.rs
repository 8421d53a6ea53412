//! What the processes of a group use, as `stats` shows it.

use serde::{Deserialize, Serialize};

use super::{Cgroup, Controller, Directory, Version};

/// What a group uses now and has used. Zero or none where the machine does not count it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Memory in use without the cache of files that can be dropped, as Docker counts it, in bytes.
    pub memory_bytes: u64,
    /// The most memory it may use, where that is less than the machine has.
    pub memory_limit_bytes: Option<u64>,
    /// How often the kernel has killed one of its processes for want of memory.
    pub oom_kills: u64,
    /// Processor time used, in nanoseconds.
    pub cpu_ns: u64,
    /// Processes and threads.
    pub pids: u64,
    /// The most of them.
    pub pids_limit: Option<u64>,
    /// Read from block devices, in bytes.
    pub read_bytes: u64,
    /// Written to block devices, in bytes.
    pub written_bytes: u64,
}

/// Above it version 1 means "unlimited": the largest whole number of pages.
const MEMORY_UNLIMITED_MIN: u64 = i64::MAX as u64 - (1 << 20);

pub(super) fn read(group: &Cgroup) -> Stats {
    let mut stats = Stats { oom_kills: group.oom_kills(), ..Stats::default() };
    if let Some(memory) = group.directory(Controller::Memory) {
        (stats.memory_bytes, stats.memory_limit_bytes) = memory_use(memory);
    }
    if let Some(cpu) = group.directory(Controller::CpuAccounting) {
        stats.cpu_ns = cpu_ns(cpu);
    }
    if let Some(pids) = group.directory(Controller::Pids) {
        stats.pids = pids.number("pids.current").unwrap_or(0);
        stats.pids_limit = pids.number("pids.max");
    }
    if let Some(io) = group.directory(Controller::Io) {
        (stats.read_bytes, stats.written_bytes) = io_bytes(io);
    }
    stats
}

fn memory_use(memory: &Directory) -> (u64, Option<u64>) {
    let (usage, limit, inactive) = match memory.hierarchy.version {
        Version::V1 => ("memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file"),
        Version::V2 => ("memory.current", "memory.max", "inactive_file"),
    };
    let droppable = field(&memory.read("memory.stat").unwrap_or_default(), inactive);
    let usage = memory.number(usage).unwrap_or(0).saturating_sub(droppable);
    (usage, memory.number(limit).filter(|limit| *limit < MEMORY_UNLIMITED_MIN))
}

fn cpu_ns(cpu: &Directory) -> u64 {
    match cpu.hierarchy.version {
        Version::V1 => cpu.number("cpuacct.usage").unwrap_or(0),
        Version::V2 => field(&cpu.read("cpu.stat").unwrap_or_default(), "usage_usec") * 1000,
    }
}

fn io_bytes(io: &Directory) -> (u64, u64) {
    match io.hierarchy.version {
        Version::V1 => io_bytes_v1(&io.read("blkio.throttle.io_service_bytes_recursive").unwrap_or_default()),
        Version::V2 => io_bytes_v2(&io.read("io.stat").unwrap_or_default()),
    }
}

/// Lines of `8:0 Read 4096`.
fn io_bytes_v1(text: &str) -> (u64, u64) {
    let sum = |operation: &str| {
        let value = |line: &str| {
            let mut words = line.split_whitespace().skip(1);
            (words.next() == Some(operation)).then(|| words.next()?.parse::<u64>().ok()).flatten()
        };
        text.lines().filter_map(value).sum()
    };
    (sum("Read"), sum("Write"))
}

/// Lines of `8:0 rbytes=4096 wbytes=0 rios=1 …`.
fn io_bytes_v2(text: &str) -> (u64, u64) {
    let sum = |key: &str| {
        let values = text.split_whitespace().filter_map(|word| word.strip_prefix(key));
        values.filter_map(|value| value.parse::<u64>().ok()).sum()
    };
    (sum("rbytes="), sum("wbytes="))
}

pub(super) fn oom_kills(memory: &Directory) -> u64 {
    let file = match memory.hierarchy.version {
        Version::V1 => "memory.oom_control",
        Version::V2 => "memory.events",
    };
    field(&memory.read(file).unwrap_or_default(), "oom_kill")
}

/// The number behind a name, on a line of its own.
fn field(text: &str, name: &str) -> u64 {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_whole_names() {
        let text = "oom 3\noom_kill_disable 1\noom_kill 2\nusage_usec 5000\n";
        assert_eq!((field(text, "oom_kill"), field(text, "usage_usec"), field(text, "x")), (2, 5000, 0));
    }

    #[test]
    fn input_and_output_are_summed_over_devices() {
        let v1 = "8:0 Read 10\n8:0 Write 5\n8:0 Sync 9\n8:16 Read 1\nTotal 16\n";
        assert_eq!(io_bytes_v1(v1), (11, 5));
        let v2 = "8:0 rbytes=10 wbytes=5 rios=1 wios=1 dbytes=7 dios=0\n8:16 rbytes=1 wbytes=0\n\n";
        assert_eq!(io_bytes_v2(v2), (11, 5));
    }
}
