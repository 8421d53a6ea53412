//! Against the reference implementation, where it is installed (Debian: `docker-registry`).

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use rbuild_image::{Descriptor, ImageConfig, Manifest, MediaType, Platform, Reference};
use tempfile::TempDir;

use super::{NEVER, client, content, unwatched};
use crate::{BlobUpload, PushOutcome};

/// A registry in a process of its own, killed when dropped.
struct Registry {
    child: Child,
    name: String,
    _root: TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Registry {
    /// `None`, and a line that says so, where there is none.
    #[expect(clippy::disallowed_methods, reason = "this test starts a server, and may be required to")]
    fn start() -> Option<Self> {
        let root = tempfile::tempdir().unwrap();
        let settings = root.path().join("settings.yml");
        fs::write(&settings, "version: 0.1\n").unwrap();
        let started = Command::new("docker-registry")
            .args(["serve", settings.to_str().unwrap()])
            .env("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", root.path().join("data"))
            .env("REGISTRY_HTTP_ADDR", "127.0.0.1:0")
            .env("REGISTRY_LOG_FORMATTER", "json")
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        let mut child = match started {
            Ok(child) => child,
            Err(error) => {
                assert!(std::env::var_os("RBUILD_TEST_REQUIRE_KERNEL").is_none(), "docker-registry: {error}");
                eprintln!("SKIPPED: no `docker-registry` to test against: {error}");
                return None;
            }
        };
        let name = listening_on(&mut child);
        Some(Self { child, name, _root: root })
    }

    fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.name).parse().unwrap()
    }
}

/// Reads the log up to `"msg":"listening on 127.0.0.1:<port>"`, and goes on reading it, so that the registry does
/// not wait for us.
fn listening_on(child: &mut Child) -> String {
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    let name = loop {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "the registry ended");
        if let Some((_, rest)) = line.split_once("listening on ") {
            break rest.split(['"', ',']).next().unwrap().to_owned();
        }
    };
    std::thread::spawn(move || io::copy(&mut log, &mut io::sink()));
    name
}

fn push(reference: &Reference, bytes: &[u8], mount_from: &[String]) -> (Descriptor, PushOutcome) {
    let descriptor = Descriptor::of(MediaType::OciLayer, bytes);
    let open = || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(io::Cursor::new(bytes.to_vec()))) };
    let upload = BlobUpload { descriptor: &descriptor, open: &open, mount_from };
    let outcome = client().push_blob(reference, &upload, unwatched()).unwrap();
    (descriptor, outcome)
}

#[test]
fn an_image_goes_to_the_real_registry_and_back() {
    let Some(registry) = Registry::start() else { return };
    let reference = registry.reference("team/app:1");
    let platform = Platform::new("linux", "amd64", None);
    let layer = content(5_000_000);
    let (layer_descriptor, outcome) = push(&reference, &layer, &[]);
    assert_eq!(outcome, PushOutcome::Uploaded);
    let (config, _) = push(&reference, &ImageConfig::new(platform.clone()).to_bytes(), &[]);
    let config = Descriptor { media_type: MediaType::OciConfig, ..config };
    let manifest = Manifest::new(config, vec![layer_descriptor.clone()]).to_bytes();
    let digest = client().push_manifest(&reference, &MediaType::OciManifest, &manifest, &NEVER).unwrap();

    let image = client().resolve_platform(&reference, &platform, &NEVER).unwrap();
    assert_eq!((image.manifest.descriptor.digest, &image.manifest.bytes), (digest, &manifest));
    assert_eq!(client().head(&reference, &NEVER).unwrap(), Some(image.manifest.descriptor));
    let mut sink = Vec::new();
    client().fetch_blob(&reference, &layer_descriptor, &mut sink, unwatched()).unwrap();
    assert!(sink == layer);

    let other = registry.reference("other/app:1");
    let (_, outcome) = push(&other, &layer, &["team/app".to_owned()]);
    assert_eq!(outcome, PushOutcome::Mounted { from: "team/app".into() });
    assert_eq!(push(&other, &layer, &[]).1, PushOutcome::AlreadyThere);
    assert_eq!(push(&other, &content(7), &["team/app".to_owned()]).1, PushOutcome::Uploaded);
    assert_eq!(client().list_tags(&reference, &NEVER).unwrap(), ["1"]);
    assert_eq!(client().catalog(&registry.name, &NEVER).unwrap(), ["other/app", "team/app"]);
    assert!(client().resolve(&registry.reference("team/app:2"), &NEVER).unwrap_err().is_not_found());
}
