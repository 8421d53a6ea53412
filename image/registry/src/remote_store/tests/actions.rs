//! GitHub's cache service: its stand-in as GitHub's own client knows it, and what is particular to it as a place.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::*;
use crate::Secret;
use crate::tests::real::started;

/// What a job would make of its environment.
pub(super) fn options(server: &FakeActions) -> ActionsOptions {
    let [(_, url), (_, token)] = server.environment();
    let (url, token) = (Some(url), Some(Secret::new(token)));
    ActionsOptions { url, token, scope: "team".to_owned() }
}

fn place(options: ActionsOptions) -> RemoteStore {
    RemoteStore::actions(Arc::new(client()), options).unwrap()
}

/// What every entry of rbuild's is written and asked for with.
fn version() -> String {
    Digest::of("rbuild cache 1").hex()
}

/// GitHub's client in a directory of its own.
struct TheirClient<'a> {
    server: &'a FakeActions,
    directory: &'a Path,
}

impl TheirClient<'_> {
    /// Whether it succeeds. `None`, said aloud, where there is none.
    fn does(&self, arguments: &[&str]) -> Option<bool> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/actions/client.mjs");
        #[expect(clippy::disallowed_methods, reason = "GitHub's client is a program of node's")]
        let mut command = Command::new("node");
        command.arg(script).args(arguments).current_dir(self.directory).envs(self.server.environment());
        command.env("ACTIONS_CACHE_SERVICE_V2", "true").env("RUNNER_TEMP", self.directory);
        let output = started(command.output())?;
        let said = String::from_utf8_lossy(&output.stderr);
        if said.contains("Cannot find package") || said.contains("ERR_MODULE_NOT_FOUND") {
            started::<()>(Err(io::Error::other(
                "`@actions/cache` is not installed, as scripts/test.sh does",
            )));
            return None;
        }
        Some(output.status.success())
    }
}

#[test]
fn githubs_own_client_speaks_with_the_stand_in() {
    let (server, directory) = (FakeActions::start().unwrap(), tempfile::tempdir().unwrap());
    let theirs = TheirClient { server: &server, directory: directory.path() };
    let path = |name: &str| directory.path().join(name);
    fs::create_dir(path("cached")).unwrap();
    fs::write(path("cached/file"), content(3_000_000)).unwrap();
    let Some(saved) = theirs.does(&["save", "cached", "linux-1"]) else { return };
    assert!(saved);
    assert_eq!(theirs.does(&["save", "cached", "linux-1"]), Some(false), "a name is given away once");
    fs::remove_dir_all(path("cached")).unwrap();
    assert_eq!(theirs.does(&["restore", "cached", "linux-"]), Some(true));
    assert!(fs::read(path("cached/file")).unwrap() == content(3_000_000));
    assert_eq!(theirs.does(&["restore", "cached", "windows-"]), Some(false));
    assert_eq!(server.keys(), ["linux-1"]);

    // What they wrote, and what we did.
    let ours = place(options(&server));
    let bytes = content(5_000_000);
    let blob = Descriptor::of(MediaType::OciLayer, &bytes);
    let key = format!("rbuild-blob-{}#0", blob.digest.hex());
    fs::write(path("sent"), &bytes).unwrap();
    assert_eq!(theirs.does(&["write", &key, &version(), "sent"]), Some(true));
    let mut fetched = Vec::new();
    ours.fetch_blob(&blob, &mut fetched, unwatched()).unwrap();
    assert!(fetched == bytes);
    for size in [1, 9 << 20] {
        let bytes = content(size);
        let blob = Descriptor::of(MediaType::OciLayer, &bytes);
        push(&ours, &blob, &bytes).unwrap();
        let key = format!("rbuild-blob-{}", blob.digest.hex());
        assert_eq!(theirs.does(&["read", &key, &version(), "got"]), Some(true));
        assert!(fs::read(path("got")).unwrap() == bytes);
    }
    server.expire();
    assert_eq!(theirs.does(&["read", &key, &version(), "got"]), Some(false));
}

#[test]
fn a_name_can_be_written_again_whatever_became_of_it() {
    let server = FakeActions::start().unwrap();
    let ours = place(options(&server));
    let (name, newest) = ("key-1".to_owned(), |place: &RemoteStore| {
        place.documents(&["key-1".to_owned()], &NEVER).unwrap().pop().unwrap()
    });
    for number in 0..3 {
        ours.put_document(&name, &manifest(number), &NEVER).unwrap();
        assert_eq!(newest(&ours), Some(manifest(number)));
    }
    // Whoever got the name died, and nobody waits for them.
    server.plan("POST", "/CreateCacheEntry", 1, Fault::LostAnswer);
    ours.put_document("key-2", &manifest(7), &NEVER).unwrap();
    assert!(!server.keys().contains(&"rbuild-team-key-2#0".to_owned()), "{:?}", server.keys());
    assert_eq!(server.keys().iter().filter(|key| key.starts_with("rbuild-team-key-2#")).count(), 1);
    // What somebody else wrote meanwhile stays.
    place(options(&server)).put_document("key-2", &manifest(8), &NEVER).unwrap();
    assert_eq!(ours.documents(&["key-2".to_owned()], &NEVER).unwrap(), [Some(manifest(7))]);
    // What was not written to its end is not there.
    server.plan("PUT", "/account/", usize::MAX, Fault::Status(403, Vec::new(), String::new()));
    ours.put_document(&name, &manifest(8), &NEVER).unwrap_err();
    assert_eq!(newest(&ours), Some(manifest(2)));
    server.forgive();
    // What the service has removed is sent anew.
    let bytes = content(1000);
    let blob = Descriptor::of(MediaType::OciLayer, &bytes);
    for _ in 0..2 {
        assert_eq!(push(&ours, &blob, &bytes).unwrap(), PushOutcome::Uploaded);
        assert_eq!(push(&ours, &blob, &bytes).unwrap(), PushOutcome::AlreadyThere);
        server.evict("rbuild-blob-");
        assert!(ours.fetch_blob(&blob, &mut io::sink(), unwatched()).unwrap_err().is_missing_or_wrong());
    }
    // Another scope is another cache, but for blobs.
    let other = place(ActionsOptions { scope: "other".to_owned(), ..options(&server) });
    assert_eq!(newest(&other), None);
}

#[test]
fn requests_are_few() {
    let server = FakeActions::start().unwrap();
    let ours = place(options(&server));
    let bytes = content(1000);
    let blob = Descriptor::of(MediaType::OciLayer, &bytes);
    let asked = |what: &dyn Fn()| {
        let before = server.requests().len();
        what();
        server.requests().len() - before
    };
    assert_eq!(asked(&|| assert_eq!(push(&ours, &blob, &bytes).unwrap(), PushOutcome::Uploaded)), 3);
    assert_eq!(asked(&|| assert_eq!(push(&ours, &blob, &bytes).unwrap(), PushOutcome::AlreadyThere)), 2);
    assert_eq!(asked(&|| ours.fetch_blob(&blob, &mut io::sink(), unwatched()).unwrap()), 2);
    assert_eq!(asked(&|| ours.put_document("key-1", &manifest(1), &NEVER).unwrap()), 3);
    assert_eq!(asked(&|| drop(ours.documents(&["key-2".to_owned()], &NEVER).unwrap())), 1);
}

#[test]
fn what_it_says_is_said_and_no_token() {
    let server = FakeActions::start().unwrap();
    let ours = place(options(&server));
    let later = Fault::Status(429, vec![("Retry-After", "0".into())], String::new());
    server.plan("POST", "/CreateCacheEntry", 2, later);
    ours.put_document("key-1", &manifest(1), &NEVER).unwrap();
    let denied = r#"{"ok":false,"message":"cache write denied: this job may only read"}"#;
    server.plan("POST", "/CreateCacheEntry", 1, Fault::Status(200, Vec::new(), denied.to_owned()));
    let error = ours.put_document("key-2", &manifest(1), &NEVER).unwrap_err();
    assert_eq!(error.to_string(), "`gha:team` refuses it: cache write denied: this job may only read");
    server.plan("GET", "/account/", usize::MAX, Fault::Status(403, Vec::new(), String::new()));
    let error = ours.documents(&["key-1".to_owned()], &NEVER).unwrap_err();
    assert!(!format!("{error:?}").contains("secret"), "the signature of an address: {error:?}");
    server.forgive();
    let elsewhere = r#"{"ok":true,"matched_key":"rbuild-team-key-1#0","signed_download_url":"http://169.254.169.254/a/b"}"#;
    server.plan("POST", "/GetCacheEntry", 1, Fault::Status(200, Vec::new(), elsewhere.to_owned()));
    let error = ours.documents(&["key-1".to_owned()], &NEVER).unwrap_err();
    assert_eq!(error.to_string(), "`gha:team` answered without a usable address");
    let hurried = ours.clone().with_timeout(Some(Duration::from_millis(20)));
    server.plan("POST", "/GetCacheEntry", 1, Fault::Silence);
    assert!(matches!(hurried.documents(&["key-1".to_owned()], &NEVER), Err(Error::Late { .. })));
    server.expire();
    let error = ours.documents(&["key-1".to_owned()], &NEVER).unwrap_err();
    assert!(error.to_string().ends_with("status 401: token is expired"), "{error}");
    assert!(!format!("{error:?} {ours:?}").contains("the-token"), "{error:?}");
    assert!(matches!(ours.document_names(&NEVER), Err(Error::Unlisted { .. })));
    for (without, variable) in [
        (ActionsOptions { url: None, ..options(&server) }, "ACTIONS_RESULTS_URL"),
        (ActionsOptions { token: None, ..options(&server) }, "ACTIONS_RUNTIME_TOKEN"),
    ] {
        let error = place(without).documents(&["key-1".to_owned()], &NEVER).unwrap_err();
        assert!(error.to_string().contains(variable), "{error}");
    }
}
