//! The two builders: rbuild, and BuildKit by way of a Docker command line. Both take the same arguments and write an OCI
//! archive to standard output.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::image::Image;
use super::settings;
use crate::common::{TestEnvironment, steps};

/// The images that cases begin with, besides the test suite's own: a name, and what is built.
const BASES: [(&str, &str); 3] = [
    ("test/busybox", "FROM busybox\n"),
    ("test/configured", include_str!("../../../testdata/conformance/bases/configured.Dockerfile")),
    ("test/onbuild", include_str!("../../../testdata/conformance/bases/onbuild.Dockerfile")),
];

/// How a build ended.
#[derive(Debug)]
pub(super) struct Outcome {
    succeeded: bool,
    archive: Vec<u8>,
    progress: String,
}

impl Outcome {
    /// The image, or the message of the error.
    pub(super) fn image(&self) -> Result<Image, String> {
        if self.succeeded { Ok(Image::read(&self.archive)) } else { Err(self.error()) }
    }

    /// One line, in lower case and without quotes, of which builders have different tastes.
    fn error(&self) -> String {
        let message =
            |line: &str| line.strip_prefix("ERROR: ").or(line.strip_prefix("error: ")).map(normalized);
        self.progress.lines().filter_map(message).next_back().unwrap_or_else(|| self.progress.clone())
    }

    /// The steps that ran and those that did not have to.
    pub(super) fn describe_steps(&self) -> String {
        let lines =
            |end: &str| steps(&self.progress, end).iter().map(|step| format!("{end} {step}\n")).collect();
        [lines("CACHED"), lines("DONE")].map(|lines: Vec<String>| lines.concat()).concat()
    }
}

/// A text as messages are compared.
pub(super) fn normalized(text: &str) -> String {
    text.to_lowercase().replace(['`', '\'', '"'], "")
}

/// The store with the base images, and the engine that has the same ones, if there is an engine.
#[derive(Debug)]
pub(super) struct Builders {
    test: TestEnvironment,
    docker: Option<String>,
    /// Whether the user who runs this has one id, so that all files are of one owner.
    pub(super) single_id: bool,
    /// What steps have of networks: nothing, where that can be.
    network: &'static str,
}

impl Builders {
    /// `None`, said aloud, where containers cannot run.
    pub(super) fn new() -> Option<Self> {
        let test = TestEnvironment::with_base()?;
        for (name, dockerfile) in BASES {
            test.build(&test.dockerfile(dockerfile), &["-t", name]).succeeds();
        }
        let doctor = test.rbuild(&["doctor"]).outcome().stdout;
        let single_id = doctor.contains("a user namespace with one id");
        let network = if doctor.contains("isolation `chroot`: builds") { "host" } else { "none" };
        let builders = Self { test, docker: settings::docker(), single_id, network };
        if builders.docker.is_some() {
            builders.load_bases();
        }
        Some(builders)
    }

    fn load_bases(&self) {
        let names = BASES.map(|(name, _)| name);
        let archive = self.test.path("bases.tar");
        let save = [&["save", "-o", archive.to_str().unwrap()], &names[..]].concat();
        self.test.rbuild(&save).outcome().succeeds();
        let outcome =
            self.run_docker(self.test.path("").as_path(), &["load"], fs::File::open(archive).unwrap());
        assert!(outcome.succeeded, "{}", outcome.progress);
    }

    /// The image that all files are compared with.
    pub(super) fn base(&self) -> Image {
        let saved = self.test.rbuild(&["save", "--format", "oci-archive", "test/busybox"]);
        Image::read(&saved.outcome().succeeds().stdout_bytes)
    }

    /// A new, empty directory for a context.
    pub(super) fn context(&self) -> tempfile::TempDir {
        tempfile::TempDir::with_prefix_in("context-", self.test.path("")).unwrap()
    }

    /// Builds with rbuild.
    pub(super) fn rbuild(&self, context: &Path, arguments: &[String]) -> Outcome {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let outcome = self
            .test
            .rbuild(&line(&["build", "--network", self.network], &arguments))
            .current_dir(context)
            .outcome();
        Outcome { succeeded: outcome.code == 0, archive: outcome.stdout_bytes, progress: outcome.stderr }
    }

    /// Builds with rbuild while in each directory of the context a file is another one: what is built next is told from that. Whether it
    /// succeeds does not matter.
    pub(super) fn rbuild_changed(&self, context: &Path, arguments: &[String]) {
        let changed: Vec<Changed> =
            directories(context).iter().filter_map(|path| Changed::in_directory(path)).collect();
        self.rbuild(context, arguments);
        // The other way round: two names may be one file's.
        changed.into_iter().rev().for_each(Changed::restore);
    }

    /// Builds with BuildKit, where there is one.
    pub(super) fn buildkit(&self, context: &Path, arguments: &[String]) -> Option<Outcome> {
        self.docker.as_ref()?;
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let line = line(&["buildx", "build", "--network", "none", "--provenance=false"], &arguments);
        Some(self.run_docker(context, &line, Stdio::null()))
    }

    /// The setting is a shell's, so it may set variables and name other programs before `docker`.
    fn run_docker(&self, directory: &Path, arguments: &[&str], stdin: impl Into<Stdio>) -> Outcome {
        #[expect(clippy::disallowed_methods, reason = "the other builder")]
        let mut command = Command::new("sh");
        let script = format!("{} \"$@\"", self.docker.as_ref().unwrap());
        command.args(["-c", &script, "docker"]).args(arguments).current_dir(directory);
        command.env("PWD", directory).env_remove("SOURCE_DATE_EPOCH").stdin(stdin);
        let output = command.output().unwrap();
        let progress = String::from_utf8_lossy(&output.stderr).into_owned();
        Outcome { succeeded: output.status.success(), archive: output.stdout, progress }
    }
}

/// A file that holds more than it should, for a while.
struct Changed {
    path: PathBuf,
    content: Vec<u8>,
    metadata: fs::Metadata,
}

impl Changed {
    /// Changes a file of a directory, if that has one that does not say how to build.
    fn in_directory(directory: &Path) -> Option<Self> {
        let says_how = |name: &str| name.contains("ockerfile") || name.ends_with(".dockerignore");
        let mut paths: Vec<PathBuf> =
            fs::read_dir(directory).ok()?.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.symlink_metadata().is_ok_and(|metadata| metadata.is_file()));
        paths.retain(|path| !says_how(&path.to_string_lossy()));
        let path = paths.into_iter().min()?;
        let (content, metadata) = (fs::read(&path).ok()?, path.metadata().ok()?);
        fs::write(&path, [&content[..], b"\n"].concat()).ok()?;
        Some(Self { path, content, metadata })
    }

    fn restore(self) {
        fs::write(&self.path, self.content).unwrap();
        // Who is not root takes the bits that give privileges from what he writes to.
        fs::set_permissions(&self.path, self.metadata.permissions()).unwrap();
        let file = fs::File::options().write(true).open(&self.path).unwrap();
        file.set_modified(self.metadata.modified().unwrap()).unwrap();
    }
}

/// A directory and all that are in it.
fn directories(top: &Path) -> Vec<PathBuf> {
    let below = fs::read_dir(top).into_iter().flatten().map(|entry| entry.unwrap());
    let below = below.filter(|entry| entry.file_type().unwrap().is_dir());
    below.flat_map(|entry| directories(&entry.path())).chain([top.to_owned()]).collect()
}

fn line<'a>(program: &[&'a str], arguments: &[&'a str]) -> Vec<&'a str> {
    let common = ["--progress", "plain", "-o", "type=oci,dest=-"];
    [program, &common, arguments, &["."]].concat()
}
