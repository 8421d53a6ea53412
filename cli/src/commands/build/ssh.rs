//! `--ssh default|ID[=SOCKET|KEY[,KEY]][,raw=BOOL]`, by BuildKit's rules.
//!
//! Without a path the agent is the one that `SSH_AUTH_SOCK` names. Key files are loaded into an agent of the build's own,
//! the host's `ssh-agent`, which ends with it.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rbuild_frontend::parse_bool;
use rbuild_solver::ssh::{SshAgent, SshAgents};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use thiserror::Error;

use crate::report::{Failure, Kind};

const ID_DEFAULT: &str = "default";
/// How long to wait for an agent to remove its socket.
const END_PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// The agents of a build.
#[derive(Debug, Default)]
pub(crate) struct Agents {
    pub(crate) all: SshAgents,
    /// Those that live as long as this does.
    own: Vec<KeyAgent>,
}

/// What one `--ssh` says.
#[derive(Debug, PartialEq, Eq)]
struct Spec {
    id: String,
    paths: Vec<PathBuf>,
    raw: bool,
}

#[derive(Debug, Error)]
enum SshError {
    #[error("`raw` cannot be `{0}`")]
    Raw(String),
    #[error("there is no agent: SSH_AUTH_SOCK is not set")]
    NoAgent,
    #[error("failed to open `{}`", path.display())]
    Open { path: PathBuf, source: std::io::Error },
    #[error("one agent is either one socket or key files")]
    Mixed,
    #[error("raw needs a socket, and `{}` is none", .0.display())]
    RawKey(PathBuf),
    #[error("failed to run `{program}`")]
    Program { program: &'static str, source: std::io::Error },
    #[error("failed to add the key `{}` to an agent: {said}", path.display())]
    Key { path: PathBuf, said: String },
}

impl SshError {
    fn report(&self, text: &str) -> Failure {
        let failure = |kind| Failure::caused_by(kind, self).while_doing(&format!("invalid --ssh `{text}`"));
        match self {
            Self::Program { .. } => failure(Kind::Environment).hint(
                "key files need `ssh-agent` and `ssh-add` (Debian: openssh-client); an agent's socket needs neither",
            ),
            _ => failure(Kind::Input),
        }
    }
}

/// The agents that `--ssh` names. `environment` looks a variable up.
///
/// # Errors
/// When one is malformed, there is no agent where it says, or a key cannot be used.
pub(super) fn agents(
    specs: &[String],
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Agents, Failure> {
    let mut agents = Agents::default();
    for text in specs.iter().filter(|spec| !spec.is_empty()) {
        let added = parse(text).and_then(|spec| agents.add(spec, environment));
        added.map_err(|error| error.report(text))?;
    }
    Ok(agents)
}

fn parse(text: &str) -> Result<Spec, SshError> {
    let (id, rest) = text.split_once('=').unwrap_or((text, ""));
    let id = if id.is_empty() { ID_DEFAULT } else { id };
    let mut spec = Spec { id: id.to_owned(), paths: Vec::new(), raw: false };
    for word in rest.split(',').filter(|word| !word.is_empty()) {
        match word.strip_prefix("raw=") {
            Some(value) => spec.raw = parse_bool(value).ok_or_else(|| SshError::Raw(value.to_owned()))?,
            None => spec.paths.push(word.into()),
        }
    }
    Ok(spec)
}

impl Agents {
    fn add(&mut self, spec: Spec, environment: &dyn Fn(&str) -> Option<String>) -> Result<(), SshError> {
        let Spec { id, mut paths, raw } = spec;
        if paths.is_empty() {
            let socket = environment("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty());
            paths.push(socket.ok_or(SshError::NoAgent)?.into());
        }
        let kinds = paths.iter().map(|path| is_socket(path)).collect::<Result<Vec<_>, _>>()?;
        let socket = match (paths.as_slice(), kinds.contains(&true)) {
            ([socket], true) => socket.clone(),
            (_, true) => return Err(SshError::Mixed),
            (keys, false) if raw => return Err(SshError::RawKey(keys[0].clone())),
            (keys, false) => {
                let agent = KeyAgent::start(keys)?;
                let socket = agent.socket.clone();
                self.own.push(agent);
                socket
            }
        };
        self.all.add(id, SshAgent { socket, raw });
        Ok(())
    }
}

fn is_socket(path: &Path) -> Result<bool, SshError> {
    let metadata = path.metadata().map_err(|source| SshError::Open { path: path.to_owned(), source })?;
    Ok(metadata.file_type().is_socket())
}

/// An agent of the build's own. It ends when this is dropped or, should rbuild be killed, soon after.
#[derive(Debug)]
struct KeyAgent {
    socket: PathBuf,
    agent: Option<OwnedFd>,
    /// The program for which the agent lives: it waits for the end of its input, which nobody but rbuild can bring about.
    guard: Child,
}

impl KeyAgent {
    fn start(keys: &[PathBuf]) -> Result<Self, SshError> {
        let failed = |source| SshError::Program { program: "ssh-agent", source };
        let script = "echo \"$SSH_AUTH_SOCK\"; echo \"$SSH_AGENT_PID\"; exec cat";
        let mut command = program("ssh-agent", &["sh", "-c", script]);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut guard = command.spawn().map_err(failed)?;
        let mut lines = guard.stdout.take().into_iter().flat_map(|output| BufReader::new(output).lines());
        let mut line = || lines.next().transpose().map_err(failed).map(Option::unwrap_or_default);
        let (socket, agent) = (PathBuf::from(line()?), process(&line()?));
        let agent = Self { socket, agent, guard };
        keys.iter().try_for_each(|key| agent.load(key))?;
        Ok(agent)
    }

    fn load(&self, key: &Path) -> Result<(), SshError> {
        let file = File::open(key).map_err(|source| SshError::Open { path: key.to_owned(), source })?;
        // From standard input, so that it does not matter who else may read the file; with nobody to ask for a passphrase.
        let mut command = program("ssh-add", &["-q", "-"]);
        command.env("SSH_AUTH_SOCK", &self.socket);
        command.env("SSH_ASKPASS", "false").env("SSH_ASKPASS_REQUIRE", "force");
        let output = command.stdin(file).output();
        let output = output.map_err(|source| SshError::Program { program: "ssh-add", source })?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        Err(SshError::Key { path: key.to_owned(), said })
    }
}

impl Drop for KeyAgent {
    fn drop(&mut self) {
        if let Some(agent) = &self.agent {
            // Not SIGTERM: it was started with rbuild's signal mask, which keeps that one for the build. All errors mean
            // that it has ended, and if it does not, it does soon after its guard.
            let _ = pidfd_send_signal(agent, Signal::HUP);
            let _ = poll(&mut [PollFd::new(agent, PollFlags::IN)], Some(&END_PATIENCE));
        }
        drop(self.guard.stdin.take());
        drop(self.guard.wait());
    }
}

/// The process of this number, if there is one.
fn process(number: &str) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(number.parse().ok()?)?, PidfdFlags::empty()).ok()
}

#[expect(
    clippy::disallowed_methods,
    reason = "keys are OpenSSH's to read and to sign with; this is their one wrapper"
)]
fn program(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(arguments);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_are_read() {
        let cases: [(&str, &str, &[&str], bool); 8] = [
            ("default", "default", &[], false),
            ("", "default", &[], false),
            ("a=", "a", &[], false),
            ("a=/s", "a", &["/s"], false),
            ("=/s", "default", &["/s"], false),
            ("a=k1,k2", "a", &["k1", "k2"], false),
            ("a=/s,raw=true", "a", &["/s"], true),
            ("a=raw=1", "a", &[], true),
        ];
        for (text, id, paths, raw) in cases {
            let paths = paths.iter().map(PathBuf::from).collect();
            assert_eq!(parse(text).unwrap(), Spec { id: id.to_owned(), paths, raw }, "{text}");
        }
        assert_eq!(parse("a=/s,raw=maybe").unwrap_err().to_string(), "`raw` cannot be `maybe`");
    }
}
