//! `rbuild top`: what the machine's own `ps` says of the processes of a container.

use std::process::Command;

use super::{EXIT_FAILED, containers, failure};
use crate::app::App;
use crate::args::TopArgs;
use crate::commands::print;
use crate::report::{Failure, Kind};

pub(super) fn top(app: &App, args: &TopArgs) -> Result<u8, Failure> {
    let containers = containers(app)?;
    let container = containers.find(&args.container).map_err(failure)?;
    let processes = containers.processes(&container).map_err(failure)?;
    let refuse = |message: String| Failure::new(Kind::Run(EXIT_FAILED), message);
    let options = if args.options.is_empty() { &["-ef".to_owned()][..] } else { &args.options };
    #[expect(clippy::disallowed_methods, reason = "what its options mean is the program's to know")]
    let shown = Command::new("ps").args(options).output();
    let shown = shown.map_err(|error| refuse(format!("failed to run `ps`: {error}")))?;
    if !shown.status.success() {
        return Err(refuse(format!("ps: {}", String::from_utf8_lossy(&shown.stderr).trim())));
    }
    let text = String::from_utf8_lossy(&shown.stdout);
    let text =
        select(&text, &processes).ok_or_else(|| refuse("Couldn't find PID field in ps output".into()))?;
    print(&text).map(|()| 0)
}

/// The heading and the lines of these processes; `None` without a column of their numbers.
fn select(text: &str, processes: &[i32]) -> Option<String> {
    let heading = text.lines().next()?;
    let column = heading.split_whitespace().position(|word| word == "PID")?;
    let is_ours = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|word| word.parse().ok());
        pid.is_some_and(|pid: i32| processes.contains(&pid))
    };
    let lines = text.lines().skip(1).filter(is_ours);
    Some(std::iter::once(heading).chain(lines).map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_chosen_by_number() {
        let text = "UID  PID CMD\nroot 1 init\nroot 12 sleep 1\nroot 1x 12\n";
        assert_eq!(select(text, &[12, 3]).unwrap(), "UID  PID CMD\nroot 12 sleep 1\n");
        assert_eq!(select("UID CMD\n", &[1]), None);
        assert_eq!(select("", &[1]), None);
    }
}
