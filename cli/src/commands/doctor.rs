//! `rbuild doctor`: what this machine offers, what rbuild does with it, and what would improve it.
//!
//! It makes a store where there is none, as every command does. It also runs where no other can, so it enters the user namespace
//! itself.

mod rows;

use std::path::PathBuf;

use rbuild_executor::probe::Probe;
use rbuild_executor::rootless::{self, Privilege};
use serde::Serialize;

use super::print;
use crate::app::{self, App};
use crate::args::{DoctorArgs, FormatArg, GlobalArgs};
use crate::format::table;
use crate::report::Failure;

/// How well rbuild does with something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// All that is wanted.
    Ok,
    /// Something is done otherwise, or not at all.
    Less,
    /// Without it nothing runs.
    Missing,
}

/// One thing that a machine has or has not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Row {
    name: &'static str,
    state: State,
    /// What is there.
    found: String,
    /// What rbuild does with it.
    effect: String,
    /// What would improve it: a command where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Row {
    fn new(name: &'static str, state: State, found: impl Into<String>, effect: impl Into<String>) -> Self {
        Self { name, state, found: found.into(), effect: effect.into(), remedy: None }
    }

    fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}

/// Exits with 3 where nothing can be built, else with 0.
pub(crate) fn run(global: &GlobalArgs, args: &DoctorArgs) -> Result<u8, Failure> {
    let uid = rustix::process::getuid().as_raw();
    let privilege = rootless::enter(app::isolation(global)?);
    let mut rows = vec![rows::kernel(Probe::get()), rows::user(uid, &privilege)];
    if let Ok(privilege) = &privilege {
        let app = App::new(global, privilege);
        rows.extend(rows::store(&app));
        rows.push(rows::network(&app));
    }
    rows.extend(rows::machine(Probe::get(), uid == 0));
    rows.extend(rows::programs(&directories()));
    let json = args.json || args.format == FormatArg::Json;
    print(&if json { format!("{}\n", serde_json::json!(rows)) } else { show(&rows) })?;
    Ok(if rows.iter().any(|row| row.state == State::Missing) { 3 } else { 0 })
}

/// Where programs are.
fn directories() -> Vec<PathBuf> {
    let path = app::environment_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).collect()
}

fn show(rows: &[Row]) -> String {
    let header = ["", "WHAT", "FOUND", "WHAT RBUILD DOES"].map(str::to_owned).to_vec();
    let line = |row: &Row| {
        let mark = match row.state {
            State::Ok => "ok",
            State::Less => "less",
            State::Missing => "NO",
        };
        vec![mark.to_owned(), row.name.to_owned(), row.found.clone(), row.effect.clone()]
    };
    let lines: Vec<Vec<String>> = std::iter::once(header).chain(rows.iter().map(line)).collect();
    let remedies = rows.iter().filter_map(|row| Some(format!("{}: {}\n", row.name, row.remedy.as_ref()?)));
    let remedies: String = remedies.collect();
    let separator = if remedies.is_empty() { "" } else { "\nwhat would improve it:\n" };
    format!("{}{separator}{remedies}", table(&lines))
}

/// Whether this is somebody who is confined to one id.
fn single(privilege: &Privilege) -> Option<rootless::SingleId> {
    match privilege {
        Privilege::UserNamespace { single, .. } => *single,
        Privilege::Root { .. } | Privilege::Chroot { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_remedies_are_shown() {
        let rows = [
            Row::new("kernel", State::Ok, "6.18", "runs"),
            Row::new("seccomp", State::Less, "no", "calls are not filtered").remedy("a kernel with seccomp"),
        ];
        let expected = "       WHAT      FOUND   WHAT RBUILD DOES\n\
                        ok     kernel    6.18    runs\n\
                        less   seccomp   no      calls are not filtered\n\
                        \nwhat would improve it:\nseccomp: a kernel with seccomp\n";
        assert_eq!(show(&rows), expected);
    }
}
