//! What tests of the command work with: a store of their own, build contexts written from text, and the program under
//! test in an environment in which nothing is left to chance.
//!
//! ```text
//! let Some(test) = TestEnvironment::with_base() else { return };
//! let context = test.context("app", &[("Dockerfile", "FROM busybox\nRUN echo hi >/x\n")]);
//! test.build(&context, &["-t", "app"]).succeeds();
//! assert_eq!(test.run("app", "cat /x"), "hi\n");
//! ```

mod archives;
mod base;
mod disk;
mod git;
mod rbuild;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) use archives::{Tree, gzip, tar_of, unpack};
pub(crate) use disk::SmallDisk;
pub(crate) use git::{GitServer, Repository};
pub(crate) use rbuild::{Outcome, Rbuild, Running, steps};

/// A directory with a store (`store`), a home (`home`) and whatever the test writes. It goes when the test ends.
#[derive(Debug)]
pub(crate) struct TestEnvironment {
    directory: TempDir,
    store: PathBuf,
}

impl TestEnvironment {
    /// With an empty store.
    pub(crate) fn new() -> Self {
        let directory = TempDir::with_prefix("rbuild-test-").unwrap();
        fs::create_dir(directory.path().join("home")).unwrap();
        let store = directory.path().join("store");
        Self { directory, store }
    }

    /// With the image `busybox` in the store. `None`, said aloud, where that cannot be, or containers cannot run.
    pub(crate) fn with_base() -> Option<Self> {
        let test = Self::new();
        test.import_base().then_some(test)
    }

    /// Makes the image `busybox` in the store; says so where that cannot be.
    pub(crate) fn import_base(&self) -> bool {
        self.import_base_with(&[])
    }

    /// With these options of rbuild's own.
    pub(crate) fn import_base_with(&self, options: &[&str]) -> bool {
        let tar = match base::tar() {
            Ok(tar) => tar,
            Err(reason) => return skip(&reason),
        };
        let path = self.write("busybox.tar", tar);
        let arguments = ["import", "-c", r#"CMD ["sh"]"#, path.to_str().unwrap(), "busybox"];
        let outcome = self.rbuild(options).args(&arguments).outcome();
        if outcome.code == 3 && outcome.stderr.contains("user namespace") {
            return skip(&outcome.stderr);
        }
        outcome.succeeds();
        true
    }

    /// The same directory, with a store elsewhere.
    pub(crate) fn set_store(&mut self, path: impl Into<PathBuf>) {
        self.store = path.into();
    }

    /// The store's directory.
    pub(crate) fn store(&self) -> &Path {
        &self.store
    }

    /// A path in the test's directory, in which every relative path of a command line begins too.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file of the test's directory.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// The text of a file of the test's directory.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// A build context with these files.
    pub(crate) fn context(&self, name: &str, files: &[(&str, &str)]) -> Context {
        let context = Context { path: self.path(name) };
        fs::create_dir_all(&context.path).unwrap();
        for (path, content) in files {
            context.write(path, content);
        }
        context
    }

    /// A context with nothing but a Dockerfile.
    pub(crate) fn dockerfile(&self, text: &str) -> Context {
        self.context("context", &[("Dockerfile", text)])
    }

    /// rbuild with these arguments, on this test's store.
    pub(crate) fn rbuild(&self, arguments: &[&str]) -> Rbuild {
        Rbuild::new(self.directory.path(), &self.store, arguments)
    }

    /// `rbuild build --progress plain ARGUMENTS CONTEXT`, not yet started.
    pub(crate) fn build_command(&self, context: &Context, arguments: &[&str]) -> Rbuild {
        self.rbuild(&["build", "--progress", "plain"]).args(arguments).args(&[context.path.to_str().unwrap()])
    }

    /// `rbuild build --progress plain ARGUMENTS CONTEXT`.
    pub(crate) fn build(&self, context: &Context, arguments: &[&str]) -> Outcome {
        self.build_command(context, arguments).outcome()
    }

    /// Builds, and gives the tree of the result as `-o type=tar` writes it.
    #[track_caller]
    pub(crate) fn build_tree(&self, context: &Context, arguments: &[&str]) -> Tree {
        let outcome = self.build_command(context, arguments).args(&["-o", "-"]).outcome();
        Tree::read(&outcome.succeeds().stdout_bytes)
    }

    /// What a shell script prints in a container of an image.
    #[track_caller]
    pub(crate) fn run(&self, image: &str, script: &str) -> String {
        let arguments = ["run", "--rm", "--network", "none", "--entrypoint", "sh", image, "-c", script];
        self.rbuild(&arguments).outcome().succeeds().stdout
    }

    /// What `rbuild inspect` says of one image or container.
    #[track_caller]
    pub(crate) fn inspect(&self, name: &str) -> Value {
        let mut list: Vec<Value> = self.rbuild(&["inspect", name]).outcome().succeeds().json();
        assert_eq!(list.len(), 1);
        list.remove(0)
    }

    /// The id of an image.
    #[track_caller]
    pub(crate) fn image_id(&self, name: &str) -> String {
        self.inspect(name)["Id"].as_str().unwrap().to_owned()
    }

    /// Whether the store has an image or container of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.rbuild(&["inspect", name]).outcome().code == 0
    }

    /// Fails unless the store is sound.
    #[track_caller]
    pub(crate) fn assert_sound(&self) {
        let checked = self.rbuild(&["system", "check"]).outcome().succeeds().stdout;
        assert!(checked.ends_with("\nthe store is sound\n"), "{checked}");
    }

    /// What cannot be removed is not to hide why the test failed.
    fn remove_containers(&self) {
        if self.store_entries("containers") == 0 {
            return;
        }
        let all = self.rbuild(&["ps", "-aq"]).outcome().stdout;
        let line: Vec<&str> = ["rm", "-f"].into_iter().chain(all.lines()).collect();
        drop(self.rbuild(&line).outcome());
    }

    /// How many entries a directory of the store has.
    pub(crate) fn store_entries(&self, directory: &str) -> usize {
        fs::read_dir(self.store.join(directory)).map_or(0, Iterator::count)
    }
}

impl Drop for TestEnvironment {
    /// A test that failed leaves containers that run; overlayfs leaves directories that not even their owner may enter.
    fn drop(&mut self) {
        self.remove_containers();
        open_directories(self.directory.path());
    }
}

fn open_directories(directory: &Path) {
    // What is not ours stays closed; the directory is then left behind.
    drop(fs::set_permissions(directory, fs::Permissions::from_mode(0o700)));
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_directories(&entry.path());
        }
    }
}

/// A build context on disk.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) path: PathBuf,
}

impl Context {
    /// Writes a file, and the directories above it.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.path.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    /// Replaces the Dockerfile.
    pub(crate) fn dockerfile(&self, text: &str) -> &Self {
        self.write("Dockerfile", text)
    }

    /// Sets a mode.
    pub(crate) fn chmod(&self, name: &str, mode: u32) -> &Self {
        fs::set_permissions(self.path.join(name), fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    /// Makes a symbolic link.
    pub(crate) fn symlink(&self, target: &str, name: &str) -> &Self {
        symlink(target, self.path.join(name)).unwrap();
        self
    }
}

/// Copies a program and the libraries that it needs into a root directory, to the same paths.
pub(crate) fn copy_program(program: &str, root: &Path) {
    #[expect(clippy::disallowed_methods, reason = "the loader alone knows which libraries")]
    let output = std::process::Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let libraries = text.split_whitespace().filter(|word| word.starts_with('/'));
    for file in std::iter::once(program).chain(libraries) {
        let to = root.join(file.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(fs::canonicalize(file).unwrap(), to).unwrap();
    }
}

/// Says that a test is skipped; fails where the machine is said to be able to run all. False, as an answer.
pub(crate) fn skip(reason: &str) -> bool {
    #[expect(
        clippy::disallowed_methods,
        reason = "the switch of CONTRIBUTING.md that turns skips into failures"
    )]
    let required = std::env::var_os("RBUILD_TEST_REQUIRE_KERNEL").is_some_and(|value| value == "1");
    assert!(!required, "cannot run here: {reason}");
    say(&format!("SKIPPED: {reason}"));
    false
}

/// Whether copies are to be told from what the same copy left before: what rbuild is told as well.
#[expect(clippy::disallowed_methods, reason = "the switch of scripts/test.sh")]
pub(crate) fn layers_are_deltas() -> bool {
    std::env::var("RBUILD_LAYERS").is_ok_and(|form| form == "delta")
}

/// Whether the test runs as root. If not, says what is left out, which is no failure: it has been or will be run as root.
pub(crate) fn is_root(what: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        say(&format!("SKIPPED: {what} needs root"));
    }
    root
}

/// Whether limits can be kept here; the same question that rbuild asks, answered by the machine.
pub(crate) fn has_cgroups(what: &str) -> bool {
    let can = Path::new("/sys/fs/cgroup/pids").is_dir() && is_root(what);
    if !can {
        say(&format!("SKIPPED: {what} is tested where there are control groups of version 1"));
    }
    can
}

/// Says something even of a test that passes.
#[expect(clippy::print_stderr, reason = "a skip is to be seen")]
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}
