//! Where the attempts are made: an image with busybox and `call` (see `call.c`), and on the machine what they are after.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::Command;

use super::attempts::{ATTEMPTS, Attempt};
use crate::common::{Context, TestEnvironment, skip};

/// What stands before the output of each attempt.
const MARK: &str = "--- ";

/// A test environment with the image `sandbox`.
pub(super) struct Sandbox {
    pub(super) test: TestEnvironment,
    /// Of rbuild itself, before the command.
    options: Vec<String>,
    /// Of the listener.
    name: String,
    /// Something to connect to, by a name that has no file.
    _listener: UnixListener,
}

impl Sandbox {
    /// `None`, said aloud, where containers cannot run or `call` cannot be made.
    pub(super) fn new(options: &[&str]) -> Option<Self> {
        let test = TestEnvironment::new();
        let name = test.path("").display().to_string();
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let sandbox = Self { test, options, name, _listener: UnixListener::bind_addr(&address).unwrap() };
        sandbox.test.write("host-file", "of the machine\n");
        if !compile_call(&sandbox.test.path("context/call"))
            || !sandbox.test.import_base_with(&sandbox.options())
        {
            return None;
        }
        let context = sandbox.context("FROM busybox\nCOPY call /bin/\n");
        sandbox
            .test
            .rbuild(&sandbox.options())
            .args(&["build", "-t", "sandbox", &context])
            .outcome()
            .succeeds();
        Some(sandbox)
    }

    fn options(&self) -> Vec<&str> {
        self.options.iter().map(String::as_str).collect()
    }

    fn context(&self, dockerfile: &str) -> String {
        let Context { path } = self.test.dockerfile(dockerfile);
        path.to_str().unwrap().to_owned()
    }

    /// What the attempts said in a build step.
    pub(super) fn step(&self) -> String {
        let context =
            self.context("FROM sandbox\nCOPY attempts /\nRUN --network=none sh /attempts >/said 2>&1\n");
        self.test.write("context/attempts", self.script());
        let build = self.test.rbuild(&self.options()).args(&["build", "-o", "type=local,dest=out", &context]);
        build.outcome().succeeds();
        String::from_utf8_lossy(&std::fs::read(self.test.path("out/said")).unwrap()).into_owned()
    }

    /// What the attempts said in a container.
    pub(super) fn container(&self) -> String {
        let script = format!("exec 2>&1; {}", self.script());
        let run = ["run", "--rm", "--network", "none", "sandbox", "sh", "-c", &script];
        self.test.rbuild(&self.options()).args(&run).outcome().succeeds().stdout
    }

    /// All attempts, one after the other.
    fn script(&self) -> String {
        let one = |(number, attempt): (usize, &Attempt)| {
            format!("echo; echo '{MARK}{number}'; ( {} ) </dev/null\n", self.filled(attempt.script))
        };
        ATTEMPTS.iter().enumerate().map(one).collect::<String>() + "true\n"
    }

    /// With what is known of the machine.
    fn filled(&self, script: &str) -> String {
        let disk = std::fs::metadata("/").unwrap().dev().to_string();
        let hex: String = self.name.bytes().map(|byte| format!("{byte:02x}")).collect();
        let size = 2 + 1 + self.name.len();
        script
            .replace("{file}", self.test.path("host-file").to_str().unwrap())
            .replace("{pid}", &std::process::id().to_string())
            .replace("{disk}", &disk)
            .replace("{address}", &format!("%010000{hex} {size}"))
    }

    /// Fails unless each attempt ended in one of the ways that it must.
    #[track_caller]
    pub(super) fn judge(&self, said: &str) {
        let holes: Vec<String> =
            ATTEMPTS.iter().enumerate().filter_map(|(number, attempt)| hole(number, attempt, said)).collect();
        assert!(holes.is_empty(), "\n{}", holes.join("\n"));
        assert_eq!(self.test.read("host-file"), "of the machine\n");
        assert!(!std::fs::read_to_string("/etc/hosts").unwrap().contains("changed-inside"));
    }
}

/// What is wrong with what an attempt said.
fn hole(number: usize, attempt: &Attempt, said: &str) -> Option<String> {
    let Attempt { name, seen, .. } = attempt;
    let Some((_, after)) = said.split_once(&format!("\n{MARK}{number}\n")) else {
        return Some(format!("{name}: was not made"));
    };
    let output = after.split(&format!("\n{MARK}")).next().unwrap_or_default().trim();
    let refused = seen.iter().any(|end| output == *end || output.ends_with(&format!(": {end}")));
    (!refused).then(|| format!("{name}: expected one of {seen:?}, saw {output:?}"))
}

/// Static, as the image has no libraries.
#[expect(clippy::disallowed_methods, reason = "no crate compiles C while a test runs")]
fn compile_call(to: &Path) -> bool {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/escape/call.c");
    match Command::new("cc").args(["-static", "-O1", source, "-o"]).arg(to).output() {
        Ok(output) if output.status.success() => true,
        Ok(output) => skip(&String::from_utf8_lossy(&output.stderr)),
        Err(error) => skip(&format!("`cc` cannot be run: {error}")),
    }
}
