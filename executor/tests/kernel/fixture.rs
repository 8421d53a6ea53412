//! A root file system with busybox in it, and short ways to run something there.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use rbuild_executor::rootless::Privilege;
use rbuild_executor::{
    Container, Error, Executor, ExecutorOptions, Exit, Note, Process, Root, Running, Stdio, Stream,
};

const BUSYBOX: &str = "/bin/busybox";
const APPLETS: &[&str] = &[
    "cat", "cut", "dd", "echo", "env", "false", "grep", "head", "hostname", "id", "ip", "kill", "ls",
    "mkdir", "mknod", "mount", "mv", "ps", "pwd", "readlink", "rm", "rmdir", "seq", "sh", "sleep", "sort",
    "stat", "stty", "test", "touch", "tr", "true", "tty", "ulimit", "umount", "unshare", "wc",
];
const PASSWD: &str =
    "root:x:0:0:root:/root:/bin/sh\nada:x:1234:2345::/home/ada:/bin/sh\nhighest:x:2147480000:1::/:/bin/sh\n";
const GROUP: &str = "root:x:0:\nada:x:2345:\nstaff:x:50:ada\nwheel:x:10:ada,root\n";

/// What all cases run in.
pub(crate) struct Fixture {
    pub(crate) executor: Executor,
    pub(crate) privilege: Privilege,
    directory: tempfile::TempDir,
}

/// What a process left.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) exit: Exit,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) notes: Vec<Note>,
}

/// What a sink has collected.
pub(crate) type Collected = Arc<Mutex<(Vec<u8>, Vec<u8>)>>;

impl Fixture {
    pub(crate) fn new(privilege: Privilege) -> Result<Self, String> {
        if !Path::new(BUSYBOX).exists() {
            return Err("there is no `/bin/busybox` (package busybox-static)".to_owned());
        }
        let executor = Executor::new(ExecutorOptions::default()).map_err(|error| format!("{error:?}"))?;
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let fixture = Self { executor, privilege, directory };
        fixture.fill(&fixture.root());
        Ok(fixture)
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// A directory beside the root.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn fill(&self, root: &Path) {
        for directory in ["bin", "tmp", "root", "home/ada"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        let rbuild_executor::Stubs { directories, files, .. } = rbuild_executor::Stubs::STEP;
        for directory in directories {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        for file in files {
            fs::write(root.join(file), "").unwrap();
        }
        fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        fs::write(root.join("etc/passwd"), PASSWD).unwrap();
        fs::write(root.join("etc/group"), GROUP).unwrap();
    }

    /// Whether ids other than 0 exist here.
    pub(crate) fn has_ids(&self) -> bool {
        !matches!(self.privilege, Privilege::UserNamespace { single: Some(_), .. })
    }

    pub(crate) fn container(&self, args: &[&str]) -> Container {
        let mut process = Process::new(args.iter().copied());
        process.env = vec!["PATH=/bin".to_owned()];
        Container::new(Root::Directory(self.root()), process)
    }

    pub(crate) fn shell(&self, script: &str) -> Container {
        self.container(&["sh", "-c", script])
    }

    pub(crate) fn spawn(&self, container: Container) -> Result<(Running, Collected), Error> {
        let collected = Collected::default();
        let into = Arc::clone(&collected);
        let sink = move |stream, bytes: &[u8]| {
            let mut collected = into.lock().unwrap();
            match stream {
                Stream::Stdout => collected.0.extend(bytes),
                Stream::Stderr => collected.1.extend(bytes),
            }
        };
        Ok((self.executor.spawn(container, Stdio::captured(sink))?, collected))
    }

    pub(crate) fn try_run(&self, container: Container) -> Result<Output, Error> {
        let (mut running, collected) = self.spawn(container)?;
        let exit = running.wait()?;
        let (stdout, stderr) = std::mem::take(&mut *collected.lock().unwrap());
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ok(Output { exit, stdout: text(stdout), stderr: text(stderr), notes: running.notes().to_vec() })
    }

    pub(crate) fn run(&self, container: Container) -> Output {
        self.try_run(container).unwrap_or_else(|error| panic!("{error:?}"))
    }

    /// The standard output of a script that must succeed.
    pub(crate) fn sh(&self, script: &str) -> String {
        succeeded(self.run(self.shell(script)))
    }
}

/// The standard output of a process that must have succeeded in silence.
#[track_caller]
pub(crate) fn succeeded(output: Output) -> String {
    assert!(output.exit.success() && output.stderr.is_empty(), "{output:?}");
    output.stdout
}

/// What came of the cases.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) skipped: u32,
}

impl Tally {
    pub(crate) fn case(&mut self, name: &str, run: impl FnOnce()) {
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
            Ok(()) => {
                self.passed += 1;
                println!("test {name} ... ok");
            }
            Err(_) => {
                self.failed += 1;
                println!("test {name} ... FAILED");
            }
        }
    }

    pub(crate) fn skip(&mut self, what: &str, reason: &str) {
        println!("SKIPPED {what}: {reason}");
        if required() { self.failed += 1 } else { self.skipped += 1 }
    }

    pub(crate) fn finish(&self) -> ExitCode {
        println!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped);
        if self.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

#[expect(clippy::disallowed_methods, reason = "the switch of CONTRIBUTING.md that turns skips into failures")]
fn required() -> bool {
    std::env::var_os("RBUILD_TEST_REQUIRE_KERNEL").is_some_and(|value| value == "1")
}
