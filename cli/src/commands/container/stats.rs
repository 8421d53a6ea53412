//! `rbuild stats`: what containers use.

use std::thread;
use std::time::{Duration, Instant};

use rbuild_container::{Container, Containers, Usage};
use serde_json::{Value, json};

use super::{EXIT_FAILED, containers, failure};
use crate::app::App;
use crate::args::StatsArgs;
use crate::commands::print;
use crate::format::{binary_size, size};
use crate::report::{Failure, Kind};
use crate::template;

/// The time over which the use of processors is measured.
const INTERVAL: Duration = Duration::from_millis(500);
/// To the upper left corner, with nothing below.
const CLEAR: &str = "\x1b[H\x1b[J";
/// Docker's columns.
const TABLE: &str = "table {{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t\
     {{.BlockIO}}\t{{.PIDs}}";

/// A container and what it has used at a time.
struct Sample {
    container: Container,
    /// As it was named; its id where nobody named it.
    named: String,
    at: Instant,
    usage: Usage,
}

pub(super) fn stats(app: &App, args: &StatsArgs) -> Result<u8, Failure> {
    let containers = containers(app)?;
    let format = args.format.as_deref().filter(|format| *format != "table").unwrap_or(TABLE);
    loop {
        let before = samples(&containers, args)?;
        thread::sleep(INTERVAL);
        let rows: Vec<Value> = before.iter().map(|sample| row(&containers, sample, args.no_trunc)).collect();
        let text = template::list(format, &headings(), &rows)
            .map_err(|error| Failure::caused_by(Kind::Run(EXIT_FAILED), &error))?;
        if args.no_stream {
            return print(&text).map(|()| 0);
        }
        print(&format!("{CLEAR}{text}"))?;
    }
}

fn samples(containers: &Containers, args: &StatsArgs) -> Result<Vec<Sample>, Failure> {
    let chosen: Vec<(String, Container)> = if args.containers.is_empty() {
        let all = containers.list().map_err(failure)?.into_iter();
        let shown = all.filter(|container| args.all || container.state.status.is_active());
        shown.map(|container| (container.id.clone(), container)).collect()
    } else {
        let find = |name: &String| containers.find(name).map(|container| (name.clone(), container));
        args.containers.iter().map(find).collect::<Result<_, _>>().map_err(failure)?
    };
    let sample = |(named, container): (String, Container)| {
        let usage = containers.usage(&container).unwrap_or_default();
        Sample { container, named, at: Instant::now(), usage }
    };
    Ok(chosen.into_iter().map(sample).collect())
}

fn headings() -> Value {
    json!({
        "Container": "CONTAINER", "ID": "CONTAINER ID", "Name": "NAME", "CPUPerc": "CPU %",
        "MemUsage": "MEM USAGE / LIMIT", "MemPerc": "MEM %", "NetIO": "NET I/O", "BlockIO": "BLOCK I/O",
        "PIDs": "PIDS",
    })
}

/// What a container uses now, and of processors since the sample. One that does not run uses nothing.
fn row(containers: &Containers, sample: &Sample, whole: bool) -> Value {
    let usage = containers.usage(&sample.container).unwrap_or_default();
    let cpu_ns = usage.group.cpu_ns.saturating_sub(sample.usage.group.cpu_ns);
    let (memory, limit) = (usage.group.memory_bytes, usage.memory_limit_bytes);
    let pair = |first, second| format!("{} / {}", size(first), size(second));
    json!({
        "Container": sample.named,
        "ID": if whole { sample.container.id.as_str() } else { sample.container.short_id() },
        "Name": sample.container.name,
        "CPUPerc": percent(cpu_ns, u64::try_from(sample.at.elapsed().as_nanos()).unwrap_or(u64::MAX)),
        "MemUsage": format!("{} / {}", binary_size(memory), binary_size(limit)),
        "MemPerc": percent(memory, limit),
        "NetIO": pair(usage.received_bytes, usage.sent_bytes),
        "BlockIO": pair(usage.group.read_bytes, usage.group.written_bytes),
        "PIDs": usage.group.pids.to_string(),
    })
}

#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
fn percent(part: u64, whole: u64) -> String {
    let value = if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 };
    format!("{value:.2}%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_shown_in_percent() {
        assert_eq!(percent(3, 2), "150.00%");
        assert_eq!(percent(1, 3), "33.33%");
        assert_eq!(percent(1, 0), "0.00%");
    }
}
