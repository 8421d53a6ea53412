//! `rbuild exec`: a further process in a container that runs.

use rbuild_container::{Action, Exec};

use super::create::environment_of;
use super::run::{exit_code, need_terminal};
use super::session::{Part, attend, forward_signals, parse_detach_keys};
use super::terminal::{self, RawTerminal};
use super::{containers, failure};
use crate::app::App;
use crate::args::ExecArgs;
use crate::report::Failure;

pub(super) fn exec(app: &App, args: &ExecArgs) -> Result<u8, Failure> {
    let target = forward_signals(args.tty, true)?;
    let containers = containers(app)?;
    let container = containers.find(args.container()).map_err(failure)?;
    container.check(Action::Exec).map_err(failure)?;
    need_terminal(args.tty && args.interactive && !args.detach)?;
    let part =
        Part { tty: args.tty, stdin: args.interactive, detach_keys: parse_detach_keys(&args.detach_keys)? };
    let exec = Exec {
        args: args.command().to_vec(),
        env: environment_of(&args.env, &args.env_files)?,
        workdir: args.workdir.clone().filter(|workdir| !workdir.is_empty()),
        user: args.user.clone(),
        privileged: args.privileged,
        terminal: args.tty.then(terminal::size),
        stdin: args.interactive,
        detach: args.detach,
        ..Exec::default()
    };
    let session = containers.exec(&container, exec).map_err(failure)?;
    if args.detach {
        return Ok(0);
    }
    let session = target.get_or_init(|| session);
    let raw = (args.tty && args.interactive).then(RawTerminal::enter).flatten();
    attend(session, &part, raw).map(exit_code).map_err(failure)
}
