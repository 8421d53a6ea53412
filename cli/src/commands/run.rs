//! `rbuild run`: creates a container and runs its process in the foreground.
//!
//! Without `-t` the process has pipes, which rbuild relays. With `-t` it has a terminal of its own, and rbuild's is set to
//! raw and relayed. Signals go on to the process; its exit code is rbuild's.

mod pipes;
mod terminal;

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use nix::sys::signal::Signal;
use rbuild_container::{
    Container, ContainerError, ContainerState, Containers, RunOptions, StartIo, Started, Status, generate_id,
    generate_name,
};
use rbuild_executor::{Executor, ExecutorOptions, Exit, Handle};
use rbuild_image::{ImageConfig, Platform};
use rbuild_solver::images::{ImageError, PullPolicy, Watch};

use self::terminal::RawTerminal;
use crate::app::{App, environment, unix_now};
use crate::args::{PullArg, RunArgs, RunNetworkArg};
use crate::commands::build::extra_host;
use crate::commands::{reference, silent};
use crate::report::{Failure, Kind, image_kind};
use crate::signal;

/// Docker's exit code for a container that could not be created.
pub(crate) const EXIT_CANNOT_RUN: u8 = 125;

/// What is passed on to the process.
const FORWARDED: [Signal; 7] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

pub(crate) fn run(app: &App, args: &RunArgs) -> Result<u8, Failure> {
    if args.tty && args.interactive && !io::stdin().is_terminal() {
        return Err(Failure::new(Kind::Run(EXIT_CANNOT_RUN), "standard input is not a terminal")
            .hint("`-i` without `-t` reads from a file or a pipe"));
    }
    // Before any thread, as they inherit the mask; so the process that signals go to comes later.
    let target: Arc<OnceLock<Handle>> = Arc::default();
    forward_signals(Arc::clone(&target), args.tty)?;
    let prepared = Prepared::new(app, args)?;
    let code = prepared.run(args, &target);
    if args.rm {
        prepared.containers.remove_by_id(&prepared.container.id).map_err(failure)?;
    }
    code
}

fn forward_signals(target: Arc<OnceLock<Handle>>, tty: bool) -> Result<(), Failure> {
    let forward = move |signal| {
        let Some(handle) = target.get() else {
            if signal != Signal::SIGWINCH {
                // Nothing runs yet: the signal is for rbuild, and means what it always means.
                signal::die_of(signal);
            }
            return;
        };
        // A process that has ended meanwhile is no error.
        drop(match signal {
            Signal::SIGWINCH if tty => handle.resize(terminal::size()),
            Signal::SIGWINCH => Ok(()),
            signal => handle.signal(signal as i32),
        });
    };
    signal::watch(&FORWARDED, forward)
        .map_err(|error| Failure::new(Kind::Environment, format!("failed to watch signals: {error}")))
}

/// A container that is ready to start.
struct Prepared {
    containers: Containers,
    container: Container,
    config: ImageConfig,
    options: RunOptions,
    stubs: PathBuf,
}

impl Prepared {
    fn new(app: &App, args: &RunArgs) -> Result<Self, Failure> {
        let images = app.images()?;
        let reference = reference(args.image()).ok();
        let policy = match args.pull {
            PullArg::Always => PullPolicy::Always,
            PullArg::Missing => PullPolicy::Missing,
            PullArg::Never => PullPolicy::Never,
        };
        let cancel = Arc::clone(app.cancel());
        let watch = Watch { transfers: &silent, cancel: &cancel };
        let by_id = if policy == PullPolicy::Always { None } else { images.find(args.image()).ok() };
        let (image, snapshot) = match (by_id, reference) {
            (Some(record), reference) => {
                let image = images.open(&record.target, &Platform::host())?;
                let name = record.names.first().cloned().or(reference);
                let snapshot = match (images.snapshot(&image)?, name) {
                    (Some(snapshot), _) => snapshot,
                    (None, Some(name)) => images.unpack(&name, &image, watch).map_err(cannot_pull)?,
                    (None, None) => {
                        return Err(cannot_pull(ImageError::NotFound { name: args.image().to_owned() }));
                    }
                };
                (image, snapshot)
            }
            (None, Some(reference)) => {
                images.pull(&reference, &Platform::host(), policy, watch).map_err(cannot_pull)?
            }
            (None, None) => return Err(cannot_pull(ImageError::NotFound { name: args.image().to_owned() })),
        };
        let options = options(args)?;
        let state = ContainerState {
            image: args.image().to_owned(),
            image_id: image.id().to_string(),
            args: options.args(&image.config.config).map_err(failure)?,
            status: Status::Created,
        };
        let containers = Containers::new(images.store().clone());
        let name = match &args.name {
            Some(name) => name.clone(),
            None => generate_name(&generate_id().map_err(failure)?),
        };
        let container = containers.create(name, &snapshot, state).map_err(failure)?;
        let stubs = rbuild_solver::local::make_stubs(&images.store().area(rbuild_cache::Area::Stubs))
            .map_err(|error| Failure::caused_by(Kind::Environment, &error))?;
        Ok(Self { containers, container, config: image.config, options, stubs })
    }

    fn run(&self, args: &RunArgs, target: &OnceLock<Handle>) -> Result<u8, Failure> {
        let executor = Executor::new(ExecutorOptions::default())
            .map_err(|error| Failure::caused_by(Kind::Run(EXIT_CANNOT_RUN), &error))?;
        let start = |stdio| {
            let io = StartIo { executor: &executor, stdio, stubs: self.stubs.clone(), now: unix_now };
            self.containers.start(&self.container, &self.config.config, &self.options, io).map_err(failure)
        };
        let exit = if args.tty {
            let raw = args.interactive.then(RawTerminal::enter).flatten();
            let started = start(terminal::stdio())?;
            serve(started, target, args.interactive, raw)?
        } else {
            let started = start(pipes::stdio(args.interactive)?)?;
            serve(started, target, false, None)?
        };
        Ok(u8::try_from(exit).unwrap_or(u8::MAX))
    }
}

/// Runs a container for the user to work in: with a terminal where there is one, else with what comes in on standard input.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn attended(executor: &Executor, container: rbuild_executor::Container) -> Result<Exit, Failure> {
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

/// Waits for a process, and relays the terminal's input if it is to have it.
fn serve(
    started: Started,
    target: &OnceLock<Handle>,
    interactive: bool,
    raw: Option<RawTerminal>,
) -> Result<i32, Failure> {
    let handle = target.get_or_init(|| started.handle());
    if interactive {
        terminal::relay_input(handle.clone());
    }
    let exit = started.wait(unix_now).map_err(failure)?;
    drop(raw);
    Ok(exit.code())
}

fn options(args: &RunArgs) -> Result<RunOptions, Failure> {
    let pair = |arg: &String| {
        if arg.contains('=') { Some(arg.clone()) } else { Some(format!("{arg}={}", environment(arg)?)) }
    };
    let host = |text: &String| extra_host(text).map(|extra| (extra.host, extra.ip));
    if let Some(relative) = args.workdir.as_ref().filter(|workdir| !workdir.starts_with('/')) {
        let message = format!("the working directory `{relative}` is not absolute");
        return Err(Failure::new(Kind::Run(EXIT_CANNOT_RUN), message));
    }
    Ok(RunOptions {
        command: args.command().to_vec(),
        entrypoint: args
            .entrypoint
            .as_ref()
            .map(|word| if word.is_empty() { Vec::new() } else { vec![word.clone()] }),
        env: args.env.iter().filter_map(pair).collect(),
        workdir: args.workdir.clone(),
        user: args.user.clone(),
        hostname: args.hostname.clone(),
        no_network: args.network == RunNetworkArg::None,
        extra_hosts: args.add_hosts.iter().map(host).collect::<Result<_, _>>()?,
        readonly_root: args.read_only,
    })
}

fn cannot_pull(error: ImageError) -> Failure {
    let kind = match image_kind(&error) {
        Kind::Cancelled => Kind::Cancelled,
        _ => Kind::Run(EXIT_CANNOT_RUN),
    };
    Failure { kind, ..Failure::from(error) }
}

/// Docker's codes: 127 and 126 for a program that is not there or cannot be executed, 125 for the rest.
fn failure(error: ContainerError) -> Failure {
    let code = match &error {
        ContainerError::Executor(error) => error.exit_code().and_then(|code| u8::try_from(code).ok()),
        _ => None,
    };
    Failure::caused_by(Kind::Run(code.unwrap_or(EXIT_CANNOT_RUN)), &error)
}
