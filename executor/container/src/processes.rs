//! The processes of a container: all descendants of its monitor. A process whose parent ends becomes a child of the container's
//! first process, so none gets out of the tree.

use std::collections::HashMap;
use std::fs;

use crate::state::Run;

/// The descendants of a process, parents before children.
pub(crate) fn descendants(root: i32) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for pid in pids() {
        if let Some(parent) = parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = children.remove(&root).unwrap_or_default();
    let mut at = 0;
    while let Some(pid) = found.get(at) {
        found.extend(children.remove(pid).unwrap_or_default());
        at += 1;
    }
    found
}

/// The processes of a container: of its monitor's descendants those that are where its first process is, and not what the monitor
/// itself has started.
pub(crate) fn of_container(run: &Run) -> Vec<i32> {
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = namespace(run.pid);
    let mut found = descendants(run.monitor);
    found.retain(|pid| namespace(*pid) == own);
    found
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The parent of a process, from `/proc/PID/stat`; the name in parentheses can hold anything.
fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_descends_from_its_parent() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(descendants(parent(own).unwrap()).contains(&own));
        assert!(!descendants(own).contains(&own));
    }
}
