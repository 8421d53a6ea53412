//! The program `git`, where it can do no harm: without the user's configuration, without prompts, hooks and helpers, and with
//! few protocols. What an attacker may choose (remotes, references, paths) was checked before it gets here.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rbuild_registry::Secret;
use rustix::process::{Pid, Signal, kill_process_group};

use super::GitError;
use super::remote::{PROTOCOLS, Setting};
use crate::local::WorkerError;

/// How long to sleep between two looks at a running git: at first, and at most.
const WAIT_MIN: Duration = Duration::from_micros(500);
const WAIT_MAX: Duration = Duration::from_millis(20);
/// What is kept of what git prints: a long list of references fits many times.
const OUTPUT_BYTES_MAX: u64 = 64 << 20;
/// How many of its last lines an error shows.
const MESSAGE_LINES_MAX: usize = 5;

/// The same for every call.
const ENVIRONMENT: [(&str, &str); 13] = [
    ("GIT_TEMPLATE_DIR", ""),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_SYSTEM", "/dev/null"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_ATTR_NOSYSTEM", "1"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_ASKPASS", "false"),
    ("SSH_ASKPASS", "false"),
    ("GIT_LFS_SKIP_SMUDGE", "1"),
    ("GIT_ADVICE", "0"),
    ("HOME", "/dev/null"),
    ("LC_ALL", "C"),
    ("TZ", "UTC"),
];
const SETTINGS: [(&str, &str); 11] = [
    ("core.hooksPath", "/dev/null"),
    ("core.attributesFile", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.autocrlf", "false"),
    ("core.logAllRefUpdates", "false"),
    ("credential.helper", ""),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("init.defaultBranch", "master"),
    ("protocol.version", "2"),
    // Users who share a store (root in a user namespace, and outside) own its mirrors alike.
    ("safe.directory", "*"),
];

/// How git is called for one source.
#[derive(Debug)]
pub(super) struct Git<'a> {
    /// Of the caller's environment: `PATH`, proxies, certificates.
    pub(super) environment: &'a [(String, String)],
    pub(super) authorization: Vec<Setting>,
    /// The agent and the ssh command, where the remote is reached by ssh.
    pub(super) ssh: Vec<(String, String)>,
    pub(super) cancel: &'a AtomicBool,
}

/// One call of git.
#[derive(Debug)]
pub(super) struct Call<'a> {
    git: &'a Git<'a>,
    directory: &'a Path,
    protocols: String,
    arguments: Vec<OsString>,
}

impl<'a> Git<'a> {
    /// A call in a directory, with the network's protocols.
    pub(super) fn call(&'a self, directory: &'a Path) -> Call<'a> {
        Call { git: self, directory, protocols: PROTOCOLS.join(":"), arguments: Vec::new() }
    }
}

impl<'a> Call<'a> {
    /// Lets it read from a repository of this machine, and from no other.
    pub(super) fn reading_here(mut self) -> Self {
        "file".clone_into(&mut self.protocols);
        self
    }

    /// Adds words.
    pub(super) fn args<S: AsRef<OsStr> + ?Sized>(mut self, words: &[&S]) -> Self {
        self.arguments.extend(words.iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// Runs it to its end, and gives what it printed.
    pub(super) fn run(self) -> Result<String, WorkerError> {
        let name = self.arguments.first().map(|word| word.to_string_lossy().into_owned());
        let command = name.unwrap_or_default();
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => GitError::NotInstalled,
            _ => GitError::Run { command: command.clone(), source },
        };
        let mut child = self.command().spawn().map_err(failed)?;
        let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
        let status = wait(&mut child, self.git.cancel).map_err(failed)?;
        let text = |output: thread::JoinHandle<Vec<u8>>| {
            String::from_utf8_lossy(&output.join().unwrap_or_default()).into_owned()
        };
        match status {
            None => Err(WorkerError::Cancelled),
            Some(status) if status.success() => Ok(text(stdout)),
            Some(status) => {
                let message = last_lines(&text(stderr)).unwrap_or_else(|| status.to_string());
                Err(GitError::Failed { command, message }.into())
            }
        }
    }

    fn command(&self) -> Command {
        #[expect(clippy::disallowed_methods, reason = "the one wrapper of git, whose environment is its own")]
        let mut command = Command::new("git");
        command.env_clear().envs(self.git.environment.iter().cloned()).envs(ENVIRONMENT);
        command.env("GIT_ALLOW_PROTOCOL", &self.protocols).envs(self.git.ssh.iter().cloned());
        // In the environment, where other users cannot read them.
        let settings = SETTINGS.map(|(name, value)| (name.to_owned(), Secret::new(value)));
        let settings: Vec<_> = settings.into_iter().chain(self.git.authorization.iter().cloned()).collect();
        command.env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (number, (name, value)) in settings.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{number}"), name);
            command.env(format!("GIT_CONFIG_VALUE_{number}"), value.expose());
        }
        command.current_dir(self.directory).args(&self.arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        command
    }
}

/// Reads a pipe to its end in the background; keeps the beginning.
fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut kept = Vec::new();
        if let Some(mut pipe) = pipe {
            // A pipe that breaks has nothing more to say.
            drop(pipe.by_ref().take(OUTPUT_BYTES_MAX).read_to_end(&mut kept));
            drop(io::copy(&mut pipe, &mut io::sink()));
        }
        kept
    })
}

/// Waits for the end, or ends it and all that it has started; then there is no status.
fn wait(child: &mut Child, cancel: &AtomicBool) -> io::Result<Option<ExitStatus>> {
    let mut pause = WAIT_MIN;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if cancel.load(Ordering::Relaxed) {
            kill_process_group(Pid::from_child(child), Signal::KILL).ok();
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(WAIT_MAX);
    }
}

fn last_lines(text: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let kept = lines.get(lines.len().saturating_sub(MESSAGE_LINES_MAX)..)?;
    (!kept.is_empty()).then(|| kept.join("; ").replace(char::is_control, " "))
}

/// The ssh that git calls: keys from the agent alone; hosts that the user knows must be who they were, others are remembered
/// in `known_hosts` when they are first seen, as BuildKit trusts what it sees.
pub(super) fn ssh_command(known_hosts: &[PathBuf]) -> String {
    let files = known_hosts.iter().map(|file| format!("\"{}\"", file.display()));
    let option = format!("UserKnownHostsFile={}", files.collect::<Vec<_>>().join(" "));
    let option = option.replace('\'', r"'\''");
    format!("ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o '{option}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_git_said_last() {
        assert_eq!(last_lines("a\n\nfatal: b\n").as_deref(), Some("a; fatal: b"));
        assert_eq!(last_lines("1\n2\n3\n4\n5\n6\x1b\n").as_deref(), Some("2; 3; 4; 5; 6 "));
        assert_eq!(last_lines("\n"), None);
    }

    #[test]
    fn paths_of_known_hosts_are_quoted_for_the_shell_and_for_ssh() {
        let command = ssh_command(&["/a b".into(), "/it's".into()]);
        assert!(command.ends_with(r#"-o 'UserKnownHostsFile="/a b" "/it'\''s"'"#), "{command}");
    }
}
