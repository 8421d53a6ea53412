//! The program under test: started, watched, ended.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;

/// A command line of rbuild.
#[derive(Debug)]
pub(crate) struct Rbuild {
    command: Command,
    stdin: Vec<u8>,
}

impl Rbuild {
    #[expect(clippy::disallowed_methods, reason = "the program under test")]
    pub(super) fn new(directory: &Path, store: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rbuild"));
        command.env_clear().current_dir(directory);
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", directory.join("home")).env("TZ", "UTC").env("LC_ALL", "C").env("NO_COLOR", "1");
        // Nobody listens there: no test leaves the machine.
        command.env("HTTPS_PROXY", "http://127.0.0.1:1");
        // All tests with layers of one form: `RBUILD_LAYERS=tree cargo nextest run`.
        command.envs(std::env::var_os("RBUILD_LAYERS").map(|form| ("RBUILD_LAYERS", form)));
        // And with layers that leave in parts of some size.
        command.envs(std::env::var_os("RBUILD_PART_SIZE").map(|size| ("RBUILD_PART_SIZE", size)));
        command.arg("--root").arg(store).args(arguments);
        Self { command, stdin: Vec::new() }
    }

    /// Adds arguments.
    pub(crate) fn args(mut self, arguments: &[&str]) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets a variable of the environment.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it elsewhere.
    pub(crate) fn current_dir(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// What it reads; nothing, if this is not called.
    pub(crate) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Runs it to its end.
    pub(crate) fn outcome(self) -> Outcome {
        self.start().finish()
    }

    /// Starts it on these descriptors, unwatched.
    pub(crate) fn start_on(
        mut self,
        stdin: impl Into<Stdio>,
        stdout: impl Into<Stdio>,
        stderr: impl Into<Stdio>,
    ) -> Child {
        self.command.stdin(stdin).stdout(stdout).stderr(stderr).spawn().unwrap()
    }

    /// Starts it.
    pub(crate) fn start(mut self) -> Running {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let line = format!("{:?}", self.command.get_args().skip(2).collect::<Vec<_>>());
        let mut child = self.command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = self.stdin;
        // One that ends without reading all of it is judged by what it said.
        thread::spawn(move || drop(stdin.write_all(&input)));
        let mut stdout = child.stdout.take().unwrap();
        let stdout = thread::spawn(move || {
            let mut bytes = Vec::new();
            stdout.read_to_end(&mut bytes).unwrap();
            bytes
        });
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Running { line, child, stdout, stderr, seen: String::new() }
    }
}

/// An rbuild that runs.
#[derive(Debug)]
pub(crate) struct Running {
    line: String,
    child: Child,
    stdout: thread::JoinHandle<Vec<u8>>,
    stderr: BufReader<ChildStderr>,
    seen: String,
}

impl Running {
    /// Waits for a line on standard error that contains `text`.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str) {
        loop {
            let start = self.seen.len();
            let count = self.stderr.read_line(&mut self.seen).unwrap();
            assert!(count > 0, "{} ended without {text:?}:\n{}", self.line, self.seen);
            if self.seen[start..].contains(text) {
                return;
            }
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits for its end, but no longer than this. Whether it ended.
    pub(crate) fn ends_within(&mut self, time: Duration) -> bool {
        let start = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            if start.elapsed() >= time {
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Outcome {
        let mut rest = Vec::new();
        self.stderr.read_to_end(&mut rest).unwrap();
        let status = self.child.wait().unwrap();
        let stdout_bytes = self.stdout.join().unwrap();
        Outcome {
            line: self.line,
            code: code(status),
            stdout: String::from_utf8_lossy(&stdout_bytes).into_owned(),
            stdout_bytes,
            stderr: self.seen + &String::from_utf8_lossy(&rest),
        }
    }
}

/// As a shell tells it.
fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
}

/// How a command line of rbuild ended.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    line: String,
    /// The exit code, or 128 and the number of the signal that ended it.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stdout_bytes: Vec<u8>,
    pub(crate) stderr: String,
}

impl Outcome {
    /// Fails unless the exit code is 0.
    #[track_caller]
    pub(crate) fn succeeds(self) -> Self {
        self.exits(0)
    }

    /// Fails unless the exit code is this.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "{}\n--- stdout\n{}\n--- stderr\n{}",
            self.line, self.stdout, self.stderr
        );
        self
    }

    /// Fails unless standard error has all these texts.
    #[track_caller]
    pub(crate) fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "{}: no {text:?} in\n{}", self.line, self.stderr);
        }
        self
    }

    /// Fails if standard error has one of these texts.
    #[track_caller]
    pub(crate) fn says_nothing_of(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(!self.stderr.contains(text), "{}: {text:?} in\n{}", self.line, self.stderr);
        }
        self
    }

    /// Standard output, as JSON.
    #[track_caller]
    pub(crate) fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// The steps of a build that ran, sorted: `RUN make`, without `[2/3]`. Base images, contexts and exports are no steps.
    pub(crate) fn ran(&self) -> Vec<&str> {
        self.steps("DONE")
    }

    /// The steps of a build that did not have to run, sorted.
    pub(crate) fn cached(&self) -> Vec<&str> {
        self.steps("CACHED")
    }

    fn steps(&self, end: &str) -> Vec<&str> {
        steps(&self.stderr, end)
    }
}

/// The steps that ended so, by the plain progress of rbuild or BuildKit: `#4 [stage 2/3] RUN make`, and later `#4 DONE 0.1s`.
pub(crate) fn steps<'a>(progress: &'a str, end: &str) -> Vec<&'a str> {
    let mut names = BTreeMap::new();
    let mut ended = Vec::new();
    for line in progress.lines() {
        let Some((number, text)) = line.strip_prefix('#').and_then(|line| line.split_once(' ')) else {
            continue;
        };
        if let Some((_, name)) = text
            .strip_prefix('[')
            .filter(|text| !text.starts_with("internal]"))
            .and_then(|text| text.split_once("] "))
        {
            names.insert(number, name);
        } else if text.split(' ').next() == Some(end) {
            ended.extend(names.get(number).filter(|name| !name.starts_with("FROM ")));
        }
    }
    ended.sort_unstable();
    ended
}
