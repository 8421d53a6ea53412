//! Against the reference implementation, where it is installed (Debian: `docker-registry`).

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rbuild_image::{Descriptor, ImageConfig, Manifest, MediaType, Platform, Reference};
use tempfile::TempDir;

use super::{NEVER, client, content, options, unwatched};
use crate::{Anonymous, BlobUpload, Client, ClientOptions, Error, PushOutcome, Security};

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
    fn start(settings: &[(&str, &Path)]) -> Option<Self> {
        let root = tempfile::tempdir().unwrap();
        let settings_file = root.path().join("settings.yml");
        fs::write(&settings_file, "version: 0.1\n").unwrap();
        let mut command = command("docker-registry");
        command
            .args(["serve", settings_file.to_str().unwrap()])
            .env("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", root.path().join("data"))
            .env("REGISTRY_HTTP_ADDR", "127.0.0.1:0")
            .env("REGISTRY_LOG_FORMATTER", "json")
            .envs(settings.iter().copied());
        let mut child = started(command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn())?;
        let name = listening_on(&mut child);
        Some(Self { child, name, _root: root })
    }

    fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.name).parse().unwrap()
    }
}

#[expect(clippy::disallowed_methods, reason = "these tests start a server and what makes its certificate")]
fn command(program: &str) -> Command {
    Command::new(program)
}

/// What was started, or `None` and a line that says so; a failure where the tests must run.
pub(crate) fn started<T>(result: io::Result<T>) -> Option<T> {
    #[expect(clippy::disallowed_methods, reason = "the way to tell tests that they may not be skipped")]
    let required = std::env::var_os("RBUILD_TEST_REQUIRE_KERNEL").is_some_and(|value| value == "1");
    result
        .inspect_err(|error| {
            assert!(!required, "nothing to test against: {error}");
            eprintln!("SKIPPED: there is nothing to test against: {error}");
        })
        .ok()
}

/// Reads the log up to `listening on 127.0.0.1:<port>`, and goes on reading it, so that the registry does
/// not wait for us.
fn listening_on(child: &mut Child) -> String {
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    let name = loop {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "the registry ended");
        if let Some((_, rest)) = line.split_once("listening on ") {
            break rest.split(['"', ',', ' ']).next().unwrap().to_owned();
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
    let Some(registry) = Registry::start(&[]) else { return };
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

/// A key and a certificate for 127.0.0.1 that nobody signed.
fn certificate(folder: &Path) -> Option<(PathBuf, PathBuf)> {
    let (key, certificate) = (folder.join("key.pem"), folder.join("certificate.pem"));
    let mut openssl = command("openssl");
    openssl
        .args(
            "req -x509 -nodes -days 2 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /CN=test".split(' '),
        )
        .args("-addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE".split(' '));
    let output = openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate).output();
    assert!(started(output)?.status.success());
    Some((key, certificate))
}

#[test]
fn certificates_are_verified_unless_told_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let Some((key, certificate)) = certificate(folder.path()) else { return };
    let settings = [("REGISTRY_HTTP_TLS_KEY", &*key), ("REGISTRY_HTTP_TLS_CERTIFICATE", &*certificate)];
    let (Some(tls), Some(plain)) = (Registry::start(&settings), Registry::start(&[])) else { return };
    let bundle = fs::read(&certificate).unwrap();
    let cases = [
        ("unknown authority", &tls, Security::Verified, vec![], false),
        ("own authority", &tls, Security::Verified, vec![bundle], true),
        ("any certificate", &tls, Security::Unverified, vec![], true),
        ("plain to TLS", &tls, Security::Plain, vec![], false),
        ("TLS to plain", &plain, Security::Verified, vec![], false),
        ("whatever there is", &plain, Security::Unverified, vec![], true),
    ];
    for (name, registry, security, certificates, works) in cases {
        let hosts = BTreeMap::from([(registry.name.clone(), security)]);
        let options = ClientOptions { hosts, certificates, ..options() };
        let result = Client::new(options, Arc::new(Anonymous)).catalog(&registry.name, &NEVER);
        assert_eq!(result.is_ok(), works, "{name}: {result:?}");
        let transient = result.as_ref().is_err_and(Error::is_transient);
        assert!(!transient, "{name}: asking again would not help: {result:?}");
    }
}
