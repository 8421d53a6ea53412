//! What a container uses, as the kernel counts it.

use std::fs;

use super::{Current, Monitor};
use crate::ContainerError;
use crate::protocol::Usage;
use crate::spec::NetworkMode;

impl Monitor {
    /// What the processes of the container use and have used. Zero is what nobody counts.
    pub(super) fn usage(&self, current: &Current) -> Result<Usage, ContainerError> {
        let group = current.handle.cgroup().ok().flatten().map(|group| group.stats()).unwrap_or_default();
        let memory_limit_bytes = group.memory_limit_bytes.unwrap_or_else(memory_bytes);
        let own_network = self.container()?.state.spec.network != NetworkMode::Host;
        let devices = fs::read_to_string(format!("/proc/{}/net/dev", current.handle.pid()));
        let devices = devices.ok().filter(|_| own_network).unwrap_or_default();
        let (received_bytes, sent_bytes) = network_bytes(&devices);
        Ok(Usage { group, memory_limit_bytes, received_bytes, sent_bytes })
    }
}

/// The memory of the machine.
fn memory_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    total.and_then(|kilobytes| kilobytes.parse::<u64>().ok()).map_or(0, |kilobytes| kilobytes * 1024)
}

/// What came and went over all interfaces but the loopback one, from `/proc/PID/net/dev`.
fn network_bytes(text: &str) -> (u64, u64) {
    let counts = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().map_while(|number| number.parse().ok()).collect();
        (name.trim() != "lo").then_some((*numbers.first()?, *numbers.get(8)?))
    };
    let add = |sum: (u64, u64), count: (u64, u64)| (sum.0 + count.0, sum.1 + count.1);
    text.lines().filter_map(counts).fold((0, 0), add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_added_up() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes packets\n    \
            lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n  eth0: 100 1 0 0 0 0 0 0 20 1 0 0 0 0 0 0\n\
            eth1:5 1 0 0 0 0 0 0 6 1 0 0 0 0 0 0\n";
        assert_eq!(network_bytes(text), (105, 26));
        assert_eq!(network_bytes(""), (0, 0));
        assert!(memory_bytes() > 0);
    }
}
