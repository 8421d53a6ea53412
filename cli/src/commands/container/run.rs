//! `rbuild run`, `start`, `restart` and `attach`: containers that run, and the user's part in them.

use std::io::{self, IsTerminal as _};

use rbuild_container::{
    Attach, Container, ContainerError, Containers, IdleMonitor, StartOptions, Started, Status, Stop,
};

use rbuild_executor::Stubs;

use super::create::{Created, stop_signal};
use super::session::{Outcome, Part, attend, forward_signals, parse_detach_keys};
use super::terminal::{self, RawTerminal};
use super::{EXIT_FAILED, containers, each, failure, for_each_at_once, run_failure};
use crate::app::App;
use crate::args::{AttachArgs, LeaveArgs, RunArgs, StartArgs, StopArgs};
use crate::commands::print;
use crate::report::{Failure, Kind, eprint};

/// The exit code of a container whose monitor was lost, and with it the container.
const EXIT_LOST: i32 = 137;

pub(super) fn run(app: &App, args: &RunArgs) -> Result<u8, Failure> {
    let options = &args.options;
    need_terminal(options.tty && options.interactive && !args.detach)?;
    let part = part(&args.leave, options.tty, part_of(&args.attach, options.interactive).stdin)?;
    // Before any thread, as they inherit the mask; so the session that signals go to comes later.
    let target = forward_signals(options.tty, args.leave.sig_proxy)?;
    let monitor = IdleMonitor::start().map_err(run_failure)?;
    let created = Created::new(app, options, !args.detach, run_failure)?;
    let Created { containers, container } = &created;
    let attach = (!args.detach).then(|| part_of(&args.attach, options.interactive));
    let raw = (!args.detach && options.tty && options.interactive).then(RawTerminal::enter).flatten();
    let start = |options| start_one(containers, container, options, run_failure);
    let started = created.or_removed(self::options(app, monitor, attach).and_then(start))?;
    if args.detach {
        return print(&format!("{}\n", container.id)).map(|()| 0);
    }
    let session = target.get_or_init(|| started.session);
    match attend(session, &part, raw) {
        Ok(outcome) => Ok(exit_code(outcome)),
        // The kernel has killed the container together with its monitor.
        Err(error) => {
            if options.rm {
                // What is left of it is seen by `ps -a`.
                drop(containers.remove_with_volumes(container));
            }
            Err(Failure::caused_by(Kind::Run(clamped(EXIT_LOST)), &error))
        }
    }
}

/// What of the container is the user's: what was named, or both outputs, and the input where it is open.
fn part_of(named: &[String], open_stdin: bool) -> Attach {
    let has = |stream: &str| named.iter().any(|name| name.eq_ignore_ascii_case(stream));
    let all = named.is_empty();
    Attach {
        stdin: open_stdin && (all || has("stdin")),
        stdout: all || has("stdout"),
        stderr: all || has("stderr"),
    }
}

pub(super) fn start(app: &App, args: &StartArgs) -> Result<u8, Failure> {
    if !args.attach && !args.interactive {
        let containers = containers(app)?;
        return each(&args.containers, |name| {
            let container = containers.find(name).map_err(failure)?;
            start_stopped(app, &containers, &container)?;
            print(&format!("{name}\n"))
        });
    }
    let [name] = args.containers.as_slice() else {
        let message = "you cannot start and attach multiple containers at once";
        return Err(Failure::new(Kind::Run(EXIT_FAILED), message));
    };
    let target = forward_signals(true, args.leave.sig_proxy)?;
    let containers = containers(app)?;
    let container = containers.find(name).map_err(failure)?;
    let spec = &container.state.spec;
    let part = part(&args.leave, spec.tty, args.interactive && spec.open_stdin)?;
    need_terminal(part.tty && part.stdin)?;
    let attach = Attach { stdin: part.stdin, stdout: true, stderr: true };
    let raw = (part.tty && part.stdin).then(RawTerminal::enter).flatten();
    let session = if container.is_running() {
        containers.attach(&container, attach).map_err(failure)?
    } else {
        start_now(app, &containers, &container, Some(attach))?.session
    };
    attend(target.get_or_init(|| session), &part, raw).map(exit_code).map_err(failure)
}

pub(super) fn attach(app: &App, args: &AttachArgs) -> Result<u8, Failure> {
    let target = forward_signals(true, args.leave.sig_proxy)?;
    let containers = containers(app)?;
    let container = containers.find(&args.container).map_err(failure)?;
    let spec = &container.state.spec;
    let part = part(&args.leave, spec.tty, spec.open_stdin && !args.no_stdin)?;
    container.check(rbuild_container::Action::Attach).map_err(failure)?;
    need_terminal(part.tty && part.stdin)?;
    let attach = Attach { stdin: part.stdin, stdout: true, stderr: true };
    let session = containers.attach(&container, attach).map_err(failure)?;
    let session = target.get_or_init(|| session);
    if part.tty {
        // A terminal of another size is drawn anew; one that is gone needs no size.
        drop(session.resize(terminal::size()));
    }
    let raw = (part.tty && part.stdin).then(RawTerminal::enter).flatten();
    attend(session, &part, raw).map(exit_code).map_err(failure)
}

pub(super) fn restart(app: &App, args: &StopArgs) -> Result<u8, Failure> {
    let stop = Stop { signal: stop_signal(args.signal.as_ref())?, timeout_seconds: args.time };
    for_each_at_once(app, &args.containers, |containers, container| {
        containers.stop(container, stop).map_err(failure)?;
        let stopped = containers.get(&container.id).map_err(failure)?;
        start_now(app, containers, &stopped, None).map(drop)
    })
}

/// Starts a container that does not run; one that does is what is wanted.
fn start_stopped(app: &App, containers: &Containers, container: &Container) -> Result<(), Failure> {
    container.check(rbuild_container::Action::Start).map_err(failure)?;
    match container.state.status {
        Status::Created | Status::Exited(_) => start_now(app, containers, container, None).map(drop),
        _ => Ok(()),
    }
}

fn start_now(
    app: &App,
    containers: &Containers,
    container: &Container,
    attach: Option<Attach>,
) -> Result<Started, Failure> {
    let options = options(app, IdleMonitor::start().map_err(failure)?, attach)?;
    start_one(containers, container, options, failure)
}

fn options(app: &App, monitor: IdleMonitor, attach: Option<Attach>) -> Result<StartOptions, Failure> {
    let store = app.store()?;
    let stubs = rbuild_solver::local::make_stubs(&store.area(rbuild_cache::Area::Stubs), Stubs::CONTAINER)
        .map_err(|error| Failure::caused_by(Kind::Environment, &error))?;
    Ok(StartOptions {
        monitor,
        user_xattrs: app.in_user_namespace(),
        squash_owners: app.single_id(),
        stubs,
        networks: app.networks_directory(),
        size: terminal::size(),
        attach,
    })
}

fn start_one(
    containers: &Containers,
    container: &Container,
    options: StartOptions,
    refused: fn(ContainerError) -> Failure,
) -> Result<Started, Failure> {
    let started = containers.start(container, options).map_err(refused)?;
    for warning in &started.warnings {
        eprint(&format!("WARNING: {warning}\n"));
    }
    Ok(started)
}

fn part(leave: &LeaveArgs, tty: bool, stdin: bool) -> Result<Part, Failure> {
    Ok(Part { tty, stdin, detach_keys: parse_detach_keys(&leave.detach_keys)? })
}

/// A terminal inside needs one outside, or its user sees nothing of what is typed.
pub(super) fn need_terminal(needed: bool) -> Result<(), Failure> {
    if !needed || io::stdin().is_terminal() {
        return Ok(());
    }
    Err(Failure::new(Kind::Run(EXIT_FAILED), "the input device is not a TTY")
        .hint("`-i` without `-t` reads from a file or a pipe"))
}

/// The exit code of rbuild. Whoever leaves a process running has not failed.
pub(super) fn exit_code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Exited(code) => clamped(code),
        Outcome::Left => 0,
    }
}

fn clamped(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(u8::MAX)
}
