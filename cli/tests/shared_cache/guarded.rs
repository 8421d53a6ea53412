//! Shared caches in registries that ask who comes, or prove who they are by a private authority.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use super::{STEPS, another, machine, names};
use crate::common::{Context, TestEnvironment, skip};
use crate::registry::Registry;

/// `ci:sesame`, as a registry keeps it.
const PASSWORDS: &str = "ci:$2y$05$abcdefghijklmnopqrstuuKcS.CYWVYVaLiiCKrrc0A5s3mGesJ9O\n";

/// One machine builds, pushes and fills the cache; the next one, which has nothing, builds from it, and pushes without a step.
fn build_pass_on_and_push(test: &mut TestEnvironment, context: &Context, registry: &Registry) {
    let (cache, name) = (format!("type=registry,ref={}", registry.name("cache")), registry.name("app:1"));
    let first = test.build(context, &["-t", &name, "--push", "--cache-to", &format!("{cache},mode=max")]);
    assert_eq!(names(&first.succeeds().says_nothing_of(&["warning"]).ran()), names(&STEPS));
    another(test, "second");
    let copy = registry.name("copy:1");
    let second = test.build(context, &["-t", &copy, "--push", "--cache-from", &cache]).succeeds();
    assert_eq!(second.says_nothing_of(&["warning"]).ran(), [""; 0]);
    another(test, "third");
    let third = test.build(context, &["-t", "app", "--cache-from", &cache]).succeeds();
    assert_eq!(third.ran(), [""; 0]);
    assert_eq!(test.run("app", "cat /all"), "one\ntool\nfile\n");
    test.rbuild(&["pull", "-q", &copy]).outcome().succeeds();
    assert_eq!(test.run(&copy, "cat /all"), "one\ntool\nfile\n");
    test.assert_sound();
}

#[test]
fn a_cache_behind_a_password_is_a_cache() {
    let Some((mut test, context, _base)) = machine() else { return };
    let passwords = test.write("passwords", PASSWORDS);
    let settings = [
        ("REGISTRY_AUTH", OsStr::new("htpasswd")),
        ("REGISTRY_AUTH_HTPASSWD_REALM", OsStr::new("caches")),
        ("REGISTRY_AUTH_HTPASSWD_PATH", passwords.as_os_str()),
    ];
    let Some(registry) = Registry::start_with(&test, &settings) else { return };
    // Who does not say who they are builds all the same, and is told once.
    let cache = format!("type=registry,ref={},mode=max", registry.name("cache"));
    let stranger = test.build(&context, &["--cache-from", &registry.name("cache"), "--cache-to", &cache]);
    let stranger = stranger.succeeds().says(&["was not used", "was not written"]);
    assert_eq!((stranger.stderr.matches("warning").count(), stranger.ran().len()), (2, STEPS.len()));
    let login = ["login", "-u", "ci", "--password-stdin", &registry.host];
    test.rbuild(&login).stdin("sesame").outcome().succeeds();
    another(&mut test, "ci");
    build_pass_on_and_push(&mut test, &context, &registry);
}

/// A private authority, and a certificate of it for 127.0.0.1: the files `ca.pem`, `key.pem` and `certificate.pem`; and another authority.
fn certificates(test: &TestEnvironment) -> bool {
    let openssl = |words: &str, more: &[&str]| {
        #[expect(clippy::disallowed_methods, reason = "what makes certificates")]
        let mut command = Command::new("openssl");
        let key = "req -x509 -nodes -days 2 -newkey ec -pkeyopt ec_paramgen_curve:P-256";
        command.args(key.split(' ')).args(words.split(' ')).args(more).current_dir(test.path("")).output()
    };
    if let Err(error) = openssl("-subj /CN=stranger -keyout stranger.key -out stranger.pem", &[]) {
        return skip(&format!("`openssl` cannot be started: {error}"));
    }
    assert!(openssl("-subj /CN=authority -keyout ca.key -out ca.pem", &[]).unwrap().status.success());
    let more = ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"];
    let signed = "-CA ca.pem -CAkey ca.key -subj /CN=registry -keyout key.pem -out certificate.pem";
    assert!(openssl(signed, &more).unwrap().status.success());
    true
}

#[test]
fn a_cache_behind_a_private_authority_is_a_cache() {
    let Some((mut test, context, _base)) = machine() else { return };
    if !certificates(&test) {
        return;
    }
    let (key, certificate) = (test.path("key.pem"), test.path("certificate.pem"));
    let settings = [
        ("REGISTRY_HTTP_TLS_KEY", key.as_os_str()),
        ("REGISTRY_HTTP_TLS_CERTIFICATE", certificate.as_os_str()),
    ];
    let Some(registry) = Registry::start_with(&test, &settings) else { return };
    trust(&test, &registry, &test.path("stranger.pem"));
    let cache = format!("type=registry,ref={}", registry.name("cache"));
    let wary = test.build(&context, &["--cache-from", &cache]).succeeds().says(&["was not used"]);
    assert_eq!(wary.ran().len(), STEPS.len());
    trust(&test, &registry, &test.path("ca.pem"));
    another(&mut test, "careful");
    build_pass_on_and_push(&mut test, &context, &registry);
}

fn trust(test: &TestEnvironment, registry: &Registry, authority: &Path) {
    let settings = format!("[registry.\"{}\"]\nca = \"{}\"\n", registry.host, authority.display());
    test.write("home/.config/rbuild/rbuild.toml", settings);
}
