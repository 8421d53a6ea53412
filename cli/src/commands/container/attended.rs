//! A process in a container for the user to work in, without a container in the store: a step of a build.

use std::io::{self, IsTerminal as _};

use rbuild_executor::{Container, Executor, Exit};

use super::pipes;
use super::terminal::{self, RawTerminal};
use crate::report::{Failure, Kind};

/// Runs a container for the user to work in: with a terminal where there is one, else with what comes in on standard input.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn attended(executor: &Executor, container: Container) -> Result<Exit, Failure> {
    let failed = |error| Failure::caused_by(Kind::Environment, &error);
    let on_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    let stdio = if on_terminal { terminal::stdio() } else { pipes::stdio(true)? };
    let raw = on_terminal.then(RawTerminal::enter).flatten();
    let mut running = executor.spawn(container, stdio).map_err(failed)?;
    if on_terminal {
        terminal::relay_input(running.handle());
    }
    let exit = running.wait().map_err(failed);
    drop(raw);
    exit
}
