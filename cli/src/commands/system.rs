//! `rbuild system`: looks after the store.

use super::print;
use crate::app::App;
use crate::args::SystemCommand;
use crate::report::{Failure, Kind};

pub(crate) fn run(app: &App, command: &SystemCommand) -> Result<u8, Failure> {
    match command {
        SystemCommand::Check => check(app),
    }
}

fn check(app: &App) -> Result<u8, Failure> {
    let problems = app.store()?.check()?;
    if problems.is_empty() {
        return print("the store is sound\n").map(|()| 0);
    }
    let list: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
    print(&list)?;
    let count = problems.len();
    Err(Failure::new(
        Kind::Environment,
        format!("{count} problem{} in the store", if count == 1 { "" } else { "s" }),
    ))
}
