//! RUN.

use rbuild_llb::{
    ExecOp, Meta, MkfileAction, Mount, MountKind, Op, OutputIndex, Process, SecretEnv, SourceRange, Vertex,
};

use super::state::Current;
use super::tree::{FileSteps, Inputs};
use super::{Lowerer, history};
use crate::args::{self, Env};
use crate::error::Error;
use crate::expand::{Expander, Quotes, Variables};
use crate::instruction::mount::MountSpec;
use crate::instruction::{Command, CommandLine, Run};
use crate::parser::{Heredoc, heredoc};
use crate::paths;
use crate::stage::Step;

/// Where the script of a here-document with a `#!` line is seen.
const SCRIPT_DIRECTORY: &str = "/dev/pipes/";
/// Where memory is shared.
const SHM: &str = "/dev/shm";
/// What a progress display shows instead of a secret.
const MASK: &str = "****";

/// What a RUN sees beside its root.
#[derive(Debug)]
pub(super) struct Surroundings {
    /// The lines of the RUN.
    pub(super) range: SourceRange,
    pub(super) inputs: Inputs,
    pub(super) mounts: Vec<Mount>,
    pub(super) secret_env: Vec<SecretEnv>,
    pub(super) ssh_sockets: Vec<String>,
}

impl Lowerer<'_> {
    pub(super) fn run(&mut self, current: &mut Current, step: &Step, run: &Run) -> Result<(), Error> {
        let command = &step.command;
        let mut surroundings = Surroundings {
            range: command.range,
            inputs: Inputs::default(),
            mounts: Vec::new(),
            secret_env: Vec::new(),
            ssh_sockets: Vec::new(),
        };
        surroundings.mounts.push(Mount {
            input: current.state.edge.map(|edge| surroundings.inputs.index(edge)),
            selector: String::new(),
            target: "/".to_owned(),
            output: Some(OutputIndex(0)),
            readonly: false,
            kind: MountKind::Bind,
        });
        let specs = self.mount_specs(current, command, run)?;
        let args = self.command_line(current, run, &mut surroundings);
        for (spec, source) in specs.iter().zip(&step.sources) {
            self.mount(current, spec, *source, &mut surroundings)?;
        }
        if let Some(size_bytes) = self.options.shm_size_bytes {
            surroundings.mounts.push(shm(size_bytes));
        }
        // A mount point must be there before what is mounted in it.
        surroundings.mounts.sort_by(|left, right| left.target.cmp(&right.target));

        let name = title_text(command, run, &specs, &current.state.env, self.escape);
        let name = current.title(&name, command.is_trigger);
        let arguments = current.state.args.iter().map(|(name, _)| name.clone()).collect();
        let limits = self.options.limits.clone();
        let meta = Meta { limits, arguments, ..self.meta(current, command, name) };
        let process = self.process(current, args.clone(), &surroundings);
        let exec = ExecOp {
            process,
            mounts: surroundings.mounts,
            network: run.network.unwrap_or(self.options.network),
            security: run.security,
            secret_env: surroundings.secret_env,
            devices: run.devices.clone(),
        };
        let edge = self.builder.add(Vertex {
            op: Op::Exec(exec),
            inputs: surroundings.inputs.into_edges(),
            platform: Some(current.state.platform.clone()),
            meta,
        });
        current.state.edge = Some(edge.into());
        let created_by = format!("RUN {} # buildkit", history::run_command(&current.state, &args));
        self.record_layer(current, created_by);
        Ok(())
    }

    /// The mounts with their values, which are expanded but for `from`.
    fn mount_specs(
        &mut self,
        current: &Current,
        command: &Command,
        run: &Run,
    ) -> Result<Vec<MountSpec>, Error> {
        run.mounts
            .iter()
            .map(|mount| mount.resolve(&mut |value| self.expand(current, command, value)))
            .collect()
    }

    /// The arguments of the process. Here-documents are no standard input: a lone one *is* the script, and what is
    /// more complicated is put together again for the shell to read.
    fn command_line(&mut self, current: &Current, run: &Run, surroundings: &mut Surroundings) -> Vec<String> {
        let text = match (&run.command, run.documents.as_slice()) {
            (CommandLine::Exec(args), _) => return args.clone(),
            (CommandLine::Shell(text), []) => text.clone(),
            (CommandLine::Shell(text), [only]) if heredoc::token(text).is_some() => {
                let script = only.text();
                if script.starts_with("#!") && current.state.config.platform.os != "windows" {
                    self.script(only, script, surroundings)
                } else {
                    script
                }
            }
            (CommandLine::Shell(text), documents) => documents.iter().fold(text.clone(), |text, document| {
                format!("{text}\n{}{}", document.content, document.name)
            }),
        };
        let mut args = current.state.shell();
        args.push(text);
        args
    }

    /// Puts a script into a directory of its own, read-only, and says how to call it.
    fn script(&mut self, document: &Heredoc, script: String, surroundings: &mut Surroundings) -> String {
        let path = paths::absolute(&document.name);
        let mut steps = FileSteps::on(None);
        let data = script.into_bytes();
        steps.file(MkfileAction { path: path.clone(), mode: 0o755, data, owner: None, timestamp_ns: None });
        let (op, inputs) = steps.finish();
        let name = "[internal] preparing inline document".to_owned();
        let edge = self.add_vertex(op, inputs, Meta { name, internal: true, ..Meta::default() });
        surroundings.mounts.push(Mount {
            input: Some(surroundings.inputs.index(edge)),
            selector: String::new(),
            target: SCRIPT_DIRECTORY.trim_end_matches('/').to_owned(),
            output: None,
            readonly: true,
            kind: MountKind::Bind,
        });
        format!("{}{}", SCRIPT_DIRECTORY, path.trim_start_matches('/'))
    }

    fn process(&self, current: &Current, args: Vec<String>, surroundings: &Surroundings) -> Process {
        let options = self.options;
        let mut env = current.state.env.to_strings();
        if let Some(socket) = surroundings.ssh_sockets.first()
            && current.state.env.get("SSH_AUTH_SOCK").is_none()
        {
            env.push(format!("SSH_AUTH_SOCK={socket}"));
        }
        let hostname = args::control(options, "BUILDKIT_SANDBOX_HOSTNAME").unwrap_or_default();
        let hostname = if options.hostname.is_empty() { hostname } else { &options.hostname };
        Process {
            args,
            env,
            cwd: current.state.directory(),
            user: current.state.config.config.user.clone(),
            hostname: hostname.to_owned(),
            proxy: self.proxy.clone(),
            extra_hosts: options.extra_hosts.clone(),
            ulimits: options.ulimits.clone(),
            cgroup_parent: options.cgroup_parent.clone(),
            valid_exit_codes: Vec::new(),
            remove_mount_stubs_recursive: true,
        }
    }
}

fn shm(size_bytes: u64) -> Mount {
    Mount {
        input: None,
        selector: String::new(),
        target: SHM.to_owned(),
        output: None,
        readonly: false,
        kind: MountKind::Tmpfs { size_bytes: Some(size_bytes) },
    }
}

/// What a progress display shows: the code as written, variables filled in where they are set, and of a lone
/// here-document its first line.
fn title_text(command: &Command, run: &Run, mounts: &[MountSpec], env: &Env, escape: char) -> String {
    let mut code = command.code.clone();
    if let (CommandLine::Shell(text), [only]) = (&run.command, run.documents.as_slice())
        && heredoc::token(text).is_some()
    {
        code.push_str(&format!(" ({})", summary(&only.content)));
    }
    let shown = Masked { env, mounts };
    let expander = Expander { quotes: Quotes::Keep, keep_unset: true, ..Expander::new(escape) };
    Lowerer::describe(&code, expander, &shown)
}

/// Variables as a display may show them.
struct Masked<'a> {
    env: &'a Env,
    mounts: &'a [MountSpec],
}

impl Variables for Masked<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        let is_secret = self.mounts.iter().any(|mount| mount.env.as_deref() == Some(name));
        if is_secret { Some(MASK) } else { self.env.get(name) }
    }
}

fn summary(document: &str) -> String {
    let mut lines = document.trim().lines();
    let first = lines.next().unwrap_or_default();
    let more = if lines.next().is_some() { "..." } else { "" };
    format!("{first}{more}")
}
