//! The commands that work on containers.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{CreateOptions, InspectArgs, ObjectPruneArgs, ResourceArgs};

/// `rbuild container`.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum ContainerCommand {
    #[command(flatten)]
    Same(ContainersCommand),
    /// Lists containers.
    #[command(alias = "list")]
    Ls(PsArgs),
    /// Shows what is known of containers, as JSON.
    Inspect(InspectArgs),
    /// Removes all containers that do not run.
    Prune(ObjectPruneArgs),
}

/// The commands on containers that have one name each, alone and after `container`.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum ContainersCommand {
    /// Creates a container from an image and runs a command in it.
    #[command(override_usage = "rbuild run [OPTIONS] IMAGE [COMMAND [ARG]...]", disable_help_flag = true)]
    Run(Box<RunArgs>),
    /// Creates a container, and starts nothing.
    #[command(override_usage = "rbuild create [OPTIONS] IMAGE [COMMAND [ARG]...]", disable_help_flag = true)]
    Create(Box<CreateArgs>),
    /// Starts containers that do not run.
    Start(StartArgs),
    /// Runs a further command in a container that runs.
    #[command(override_usage = "rbuild exec [OPTIONS] CONTAINER COMMAND [ARG]...")]
    Exec(ExecArgs),
    /// Takes part in the input and output of a container that runs.
    Attach(AttachArgs),
    /// Lists containers.
    Ps(PsArgs),
    /// Lists the ports of this machine that lead to a container.
    Port(PortArgs),
    /// Lists the processes of a container, as the machine sees them.
    Top(TopArgs),
    /// Changes what containers may use.
    Update(UpdateArgs),
    /// Shows what a container has printed.
    Logs(LogsArgs),
    /// Stops containers: in good order, or else by force.
    Stop(StopArgs),
    /// Sends a signal to the process of containers.
    Kill(KillArgs),
    /// Freezes all processes of containers.
    Pause(ContainersArgs),
    /// Lets frozen containers go on.
    Unpause(ContainersArgs),
    /// Stops containers and starts them again.
    Restart(StopArgs),
    /// Waits until containers have stopped, and prints their exit codes.
    Wait(ContainersArgs),
    /// Removes containers.
    Rm(RmArgs),
    /// Gives a container another name.
    Rename(RenameArgs),
    /// Copies files between a container and this machine; `-` is a tar on standard input or output.
    #[command(
        override_usage = "rbuild cp [OPTIONS] CONTAINER:PATH PATH|-\n       rbuild cp [OPTIONS] PATH|- CONTAINER:PATH"
    )]
    Cp(CpArgs),
    /// Shows what containers use: processor, memory, network, disks.
    Stats(StatsArgs),
    /// Lists what differs between a container and its image.
    Diff(ContainerArg),
    /// Makes an image of a container.
    Commit(CommitArgs),
    /// Writes the file system of a container to a tar.
    Export(ExportArgs),
}

/// `rbuild update`.
#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    pub(crate) resources: ResourceArgs,
    /// What happens when the process ends: `no`, `on-failure[:N]`, `always` or `unless-stopped`.
    #[arg(long, value_name = "POLICY")]
    pub(crate) restart: Option<String>,
    /// Containers, by name, id or unique prefix.
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

/// `rbuild top`.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// The container, by name, id or unique prefix.
    pub(crate) container: String,
    /// Options of `ps` [default: -ef]. The column PID is needed.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION")]
    pub(crate) options: Vec<String>,
}

/// `rbuild create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    pub(crate) options: CreateOptions,
}

/// `rbuild run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Leaves the container running in the background, and prints its id.
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// What of the container's input and output is the user's: `stdin`, `stdout`, `stderr` [default: both outputs] (repeatable).
    #[arg(short, long = "attach", value_name = "STREAM", ignore_case = true)]
    #[arg(value_parser = ["stdin", "stdout", "stderr"])]
    pub(crate) attach: Vec<String>,
    #[command(flatten)]
    pub(crate) leave: LeaveArgs,
    #[command(flatten)]
    pub(crate) options: CreateOptions,
}

/// How a client that takes part in a container leaves it.
#[derive(Debug, Args)]
pub(crate) struct LeaveArgs {
    /// The keys that leave a container with a terminal running.
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub(crate) detach_keys: String,
    /// Passes on signals to the process.
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) sig_proxy: bool,
}

/// `rbuild start`.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Takes part in the output of the container, and exits with its code.
    #[arg(short, long)]
    pub(crate) attach: bool,
    /// Takes part in its input as well.
    #[arg(short, long)]
    pub(crate) interactive: bool,
    #[command(flatten)]
    pub(crate) leave: LeaveArgs,
    /// Containers, by name, id or unique prefix.
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

/// `rbuild exec`.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Waits for nothing.
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Keeps standard input open.
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Gives the command a terminal.
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Sets an environment variable; without a value it is taken from the environment (repeatable).
    #[arg(short, long = "env", value_name = "NAME[=VALUE]", allow_hyphen_values = true)]
    pub(crate) env: Vec<String>,
    /// Sets environment variables from the lines of a file (repeatable).
    #[arg(long = "env-file", value_name = "FILE")]
    pub(crate) env_files: Vec<PathBuf>,
    /// The user to run as.
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// The directory to start in.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Lets the command do all that rbuild itself may do.
    #[arg(long)]
    pub(crate) privileged: bool,
    /// The keys that leave a command with a terminal running.
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub(crate) detach_keys: String,
    /// The container, the command and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_names = ["CONTAINER", "COMMAND"], num_args = 2..)]
    words: Vec<String>,
}

impl ExecArgs {
    /// The container.
    pub(crate) fn container(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// The command and its arguments.
    pub(crate) fn command(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }
}

/// `rbuild attach`.
#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// Takes no part in the input.
    #[arg(long)]
    pub(crate) no_stdin: bool,
    #[command(flatten)]
    pub(crate) leave: LeaveArgs,
    /// The container, by name, id or unique prefix.
    pub(crate) container: String,
}

/// `rbuild ps`.
#[derive(Debug, Default, Args)]
pub(crate) struct PsArgs {
    /// Shows stopped containers as well.
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Shows ids only.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Shows the last so many that were created, whatever their state.
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) last: Option<usize>,
    /// Shows the one that was created last, whatever its state.
    #[arg(short, long)]
    pub(crate) latest: bool,
    /// Shows what they take on disk.
    #[arg(short, long)]
    pub(crate) size: bool,
    /// Does not shorten ids and commands.
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Only what matches: `id=`, `name=`, `label=`, `exited=`, `status=`, `ancestor=`, `before=`, `since=`, `health=`, `network=`,
    /// `volume=`, `publish=`, `expose=`, `is-task=` (repeatable).
    #[arg(short, long = "filter", value_name = "FILTER")]
    pub(crate) filters: Vec<String>,
    /// `table`, `json`, or a Go template.
    #[arg(long)]
    pub(crate) format: Option<String>,
}

/// `rbuild port`.
#[derive(Debug, Args)]
pub(crate) struct PortArgs {
    /// The container, by name, id or unique prefix.
    pub(crate) container: String,
    /// One port of the container only.
    #[arg(value_name = "PORT[/PROTOCOL]")]
    pub(crate) port: Option<String>,
}

/// `rbuild logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Goes on as the container prints.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Shows times.
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// Shows the last so many lines.
    #[arg(short = 'n', long, value_name = "N", default_value = "all")]
    pub(crate) tail: String,
    /// Only lines since a time, or so long ago: `2026-01-02T13:23:37Z`, `42m`.
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only lines before a time, or so long ago.
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// The container, by name, id or unique prefix.
    pub(crate) container: String,
}

/// `rbuild stop` and `restart`.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// How long to wait before killing, in seconds; -1 is for ever [default: the container's, or 10].
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", allow_hyphen_values = true)]
    pub(crate) time: Option<i64>,
    /// The signal to send first [default: the container's, or SIGTERM].
    #[arg(short, long, value_name = "SIGNAL")]
    pub(crate) signal: Option<String>,
    /// Containers, by name, id or unique prefix.
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

/// `rbuild kill`.
#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// The signal to send.
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    pub(crate) signal: String,
    /// Containers, by name, id or unique prefix.
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

/// Containers and nothing else.
#[derive(Debug, Args)]
pub(crate) struct ContainersArgs {
    /// Containers, by name, id or unique prefix.
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

/// A container and nothing else.
#[derive(Debug, Args)]
pub(crate) struct ContainerArg {
    /// The container, by name, id or unique prefix.
    pub(crate) container: String,
}

/// `rbuild rm`.
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Kills those that run, and says nothing of missing ones.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Removes their anonymous volumes.
    #[arg(short, long)]
    pub(crate) volumes: bool,
    /// Containers, by name, id or unique prefix.
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

/// `rbuild rename`.
#[derive(Debug, Args)]
pub(crate) struct RenameArgs {
    /// The container, by name, id or unique prefix.
    pub(crate) container: String,
    /// Its new name.
    pub(crate) name: String,
}

/// `rbuild commit`.
#[derive(Debug, Args)]
pub(crate) struct CommitArgs {
    /// Who made it.
    #[arg(short, long)]
    pub(crate) author: Option<String>,
    /// A Dockerfile instruction that sets configuration, such as `CMD ["sh"]` (repeatable).
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    pub(crate) changes: Vec<String>,
    /// A comment for the image's history.
    #[arg(short, long)]
    pub(crate) message: Option<String>,
    /// Freezes the container meanwhile.
    #[arg(short, long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) pause: bool,
    /// The container, by name, id or unique prefix.
    pub(crate) container: String,
    /// A name for the image.
    pub(crate) name: Option<String>,
}

/// `rbuild export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The file to write [default: standard output].
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// The container, by name, id or unique prefix.
    pub(crate) container: String,
}

/// `rbuild cp`.
#[derive(Debug, Args)]
pub(crate) struct CpArgs {
    /// Keeps owners, where files come to this machine; gives files to the container's user, where they go there.
    #[arg(short, long)]
    pub(crate) archive: bool,
    /// Copies what a symbolic link leads to.
    #[arg(short = 'L', long)]
    pub(crate) follow_link: bool,
    /// Says nothing of what was copied.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// From where.
    pub(crate) source: String,
    /// To where.
    pub(crate) target: String,
}

/// `rbuild stats`.
#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Shows stopped containers as well.
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Shows what is used now, and no more after that.
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// Does not shorten ids.
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// `table`, `json`, or a Go template.
    #[arg(long)]
    pub(crate) format: Option<String>,
    /// Containers, by name, id or unique prefix [default: all that run].
    #[arg(value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}
