//! The rbuild command: parse, run, report, exit.
//!
//! Before anything else, three things that must happen while the process has one thread: it may be the init of a container (then
//! it becomes that, and never comes back), it may be the monitor of one, and it may not be root (then it enters a user namespace in which it is).
#![forbid(unsafe_code)]

mod app;
mod args;
mod cache_spec;
mod commands;
mod config;
mod credentials;
mod fields;
mod format;
mod history;
mod output_spec;
mod progress;
mod registries_conf;
mod registry_hosts;
mod report;
mod shared_cache;
mod signal;
mod template;
mod transfers;

use std::process::ExitCode;

use app::App;
use args::{Cli, Command, Refusal};
use rbuild_executor::rootless::{self, Isolation, Privilege};
use report::{Failure, Kind};

fn main() -> ExitCode {
    rbuild_executor::init_hook();
    if commands::container::monitor_hook() {
        return ExitCode::SUCCESS;
    }
    let cli = match args::parse(std::env::args_os().collect()) {
        Ok(cli) => cli,
        Err(refusal) => return usage(&refusal),
    };
    match run(cli) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.show(app::color());
            ExitCode::from(failure.kind.exit_code())
        }
    }
}

/// Help goes to standard output and is a success; a mistake goes to standard error.
fn usage(Refusal { error, is_docker_s }: &Refusal) -> ExitCode {
    // That nobody reads it is no reason to fail.
    drop(error.print());
    let mistake = if *is_docker_s { Kind::Run(commands::container::EXIT_CANNOT_RUN) } else { Kind::Input };
    ExitCode::from(if error.use_stderr() { mistake.exit_code() } else { 0 })
}

fn run(cli: Cli) -> Result<u8, Failure> {
    // What needs no store.
    match &cli.command {
        Command::Version(args) => return commands::system::info::version(args),
        Command::Completion(args) => return commands::completion::completion(args),
        Command::Man(args) => return commands::completion::man(args),
        _ => {}
    }
    // It is to say why nothing else can run.
    if let Command::Doctor(args) = &cli.command {
        return commands::doctor::run(&cli.global, args);
    }
    app::arm_fail_point()?;
    let privilege = enter_user_namespace(app::isolation(&cli.global)?)?;
    let app = App::new(&cli.global, &privilege);
    report::eprint(&note(&app, &privilege));
    match cli.command {
        Command::Build(args) => commands::build::run(&app, &args),
        Command::Builds(command) => commands::builds::run(&app, &command),
        Command::Explain(args) => commands::explain::run(&app, &args),
        Command::Debug(args) => commands::debug::run(&app, &args),
        Command::Containers(command) => {
            app.needs_mounts()?;
            commands::container::run(&app, &command)
        }
        Command::Container(command) => {
            app.needs_mounts()?;
            commands::container::container(&app, &command)
        }
        Command::Network(command) => commands::network::run(&app, &command),
        Command::Volume(command) => commands::volume::run(&app, &command),
        Command::Images(args) => commands::images::run(&app, &args),
        Command::Inspect(args) => commands::inspect::run(&app, &args),
        Command::Rmi(args) => commands::rmi::run(&app, &args),
        Command::OnImages(command) => commands::image::on_images(&app, &command),
        Command::Copy(args) => commands::manifest::copy(&app, &args),
        Command::Manifest(command) => commands::manifest::run(&app, &command),
        Command::Search(args) => commands::search::run(&app, &args),
        Command::Login(args) => commands::login::run(&app, &args),
        Command::Logout(args) => commands::login::out(&args),
        Command::Du(args) => commands::du::run(&app, &args),
        Command::Prune(args) => commands::prune::run(&app, &args),
        Command::Cache(command) => commands::cache::run(&app, &command),
        Command::CacheMount(command) => commands::cache_mount::run(&app, &command),
        Command::Image(command) => commands::image::run(&app, &command),
        Command::System(args) => commands::system::run(&app, &args),
        Command::Events(args) => commands::events::run(&app, &args),
        Command::Info(args) => commands::system::info::info(&app, &args),
        Command::Doctor(_) | Command::Version(_) | Command::Completion(_) | Command::Man(_) => Ok(0),
    }
}

const CHROOT_NOTE: &str = "isolation `chroot`: neither namespaces nor mounts; steps use the machine's network, see no `/proc`, \
     and are kept from the machine's files and processes by their root directory, capabilities, seccomp and Landlock alone";

/// Where we are not root, become root of a user namespace; all that follows is then one code path.
fn enter_user_namespace(isolation: Isolation) -> Result<Privilege, Failure> {
    rootless::enter(isolation).map_err(|error| match error {
        rootless::Error::NotRoot(_) => {
            Failure::caused_by(Kind::Environment, &error).hint("`--isolation auto` takes a user namespace")
        }
        rootless::Error::NoChroot(_) => Failure::caused_by(Kind::Environment, &error)
            .hint("containers of Docker and of Kubernetes have it, if it was not dropped"),
        error => Failure::caused_by(Kind::Environment, &error)
            .hint("a user other than root needs user namespaces: `rbuild doctor` says what forbids them"),
    })
}

/// What the user is told of how steps are isolated: once for each store where it changes what they can do, always where it changes
/// what they can reach.
fn note(app: &App, privilege: &Privilege) -> String {
    match privilege {
        Privilege::UserNamespace { single: Some(reason), .. } if !app.root().exists() => format!(
            "note: {reason}: all files belong to one user, and a step that gives files to others fails; `rbuild doctor` says what \
             would help\n"
        ),
        Privilege::Chroot { .. } => format!("note: {CHROOT_NOTE}\n"),
        _ => String::new(),
    }
}
