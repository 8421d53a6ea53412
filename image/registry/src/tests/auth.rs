use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rbuild_image::Platform;

use super::{NEVER, client, client_of, registry, unwatched};
use crate::testing::{Door, FakeRegistry, Fault};
use crate::{BlobUpload, Credential, CredentialSource, Error, ErrorCode, PushOutcome, Secret};

struct Fixed(Option<Credential>, Arc<AtomicUsize>);

impl CredentialSource for Fixed {
    fn credential(&self, _: &str, _: &str) -> Result<Option<Credential>, Box<dyn StdError + Send + Sync>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Ok(self.0.clone())
    }
}

fn login(password: &str) -> Credential {
    Credential::Password { username: "me".into(), password: Secret::new(password) }
}

fn knows(credential: Credential) -> Fixed {
    Fixed(Some(credential), Arc::default())
}

fn closed(door: Door) -> FakeRegistry {
    let registry = registry();
    registry.add_image("app", "1", &Platform::new("linux", "amd64", None), &[b"layer"]);
    registry.set_door(door);
    registry
}

fn me() -> (String, String) {
    ("me".into(), "pass".into())
}

#[test]
fn doors_open_to_those_who_may() {
    let basic = || Door::Basic(me().0, me().1);
    let token = |login| Door::Token { login, uses: 100 };
    let cases = [
        ("basic", basic(), Some(login("pass")), true),
        ("basic, wrong", basic(), Some(login("no")), false),
        ("basic, nobody", basic(), None, false),
        ("basic, refresh token", basic(), Some(Credential::IdentityToken(Secret::new("pass"))), false),
        ("token, anybody", token(None), None, true),
        ("token", token(Some(me())), Some(login("pass")), true),
        ("token, wrong", token(Some(me())), Some(login("no")), false),
        ("token, nobody", token(Some(me())), None, false),
        (
            "token, refresh token",
            token(Some(me())),
            Some(Credential::IdentityToken(Secret::new("pass"))),
            true,
        ),
        ("token, given", token(Some(me())), Some(Credential::RegistryToken(Secret::new("t"))), false),
    ];
    for (name, door, credential, opens) in cases {
        let registry = closed(door);
        let client = client_of(Fixed(credential, Arc::default()));
        let result = client.resolve(&registry.reference("app:1"), &NEVER);
        match result {
            Ok(_) => assert!(opens, "{name}"),
            Err(error) => {
                assert!(!opens && error.status() == Some(401), "{name}: {error:?}");
                assert!(registry.requests().len() <= 3, "{name}: a refusal is not tried again");
            }
        }
    }
}

#[test]
fn a_refusal_is_typed() {
    let error =
        client().resolve(&closed(Door::Basic(me().0, me().1)).reference("app:1"), &NEVER).unwrap_err();
    assert_eq!(error.code(), Some(&ErrorCode::Unauthorized));
}

#[test]
fn tokens_are_kept_and_renewed() {
    let registry = closed(Door::Token { login: Some(me()), uses: 2 });
    let asked = Arc::<AtomicUsize>::default();
    let client = client_of(Fixed(Some(login("pass")), Arc::clone(&asked)));
    for _ in 0..4 {
        client.resolve(&registry.reference("app:1"), &NEVER).unwrap();
    }
    // Two for each token; each expiry costs one refused request.
    assert_eq!(registry.count("GET", "/token"), 2);
    assert_eq!(registry.count("GET", "/manifests/"), 4 + 2);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[test]
fn a_token_that_expires_between_two_parts_of_a_blob_is_renewed() {
    let registry = closed(Door::Token { login: None, uses: 1 });
    let bytes = super::content(50_000);
    let blob = registry.add_blob("app", &bytes);
    registry.plan("GET", "/blobs/", 1, Fault::CutAfter(0));
    let mut sink = Vec::new();
    client().fetch_blob(&registry.reference("app"), &blob, &mut sink, unwatched()).unwrap();
    assert!(sink == bytes);
}

#[test]
fn scopes_are_merged_for_a_mount() {
    let registry = closed(Door::Token { login: Some(me()), uses: 100 });
    let blob = registry.add_blob("base", b"shared");
    let client = client_of(knows(login("pass")));
    let open = || -> std::io::Result<Box<dyn std::io::Read + Send>> { Ok(Box::new(&b"shared"[..])) };
    let upload = BlobUpload { descriptor: &blob, open: &open, mount_from: &["base".to_owned()] };
    let outcome = client.push_blob(&registry.reference("app"), &upload, unwatched()).unwrap();
    assert_eq!(outcome, PushOutcome::Mounted { from: "base".into() });
    let requests = registry.requests();
    let scopes = requests.iter().rfind(|request| request.path.starts_with("/token")).unwrap().query("scope");
    assert_eq!(scopes, ["repository:app:pull,push", "repository:base:pull"]);
}

#[test]
fn challenges_that_cannot_be_followed_are_refused() {
    for realm in ["", "realm=\"\"", "realm=\"file:///etc/passwd\"", "realm=\"nonsense\"", "realm"] {
        let registry = registry();
        let challenge = ("WWW-Authenticate", format!("Bearer {realm}"));
        registry.plan("GET", "/v2/", usize::MAX, Fault::Status(401, vec![challenge], String::new()));
        let error = client().resolve(&registry.reference("app"), &NEVER).unwrap_err();
        assert!(matches!(error, Error::Challenge { .. }), "{realm}: {error:?}");
    }
}

#[test]
fn failing_credentials_name_the_registry() {
    struct Broken;
    impl CredentialSource for Broken {
        fn credential(
            &self,
            _: &str,
            _: &str,
        ) -> Result<Option<Credential>, Box<dyn StdError + Send + Sync>> {
            Err("the helper crashed".into())
        }
    }
    let registry = closed(Door::Basic(me().0, me().1));
    let error = client_of(Broken).resolve(&registry.reference("app:1"), &NEVER).unwrap_err();
    assert_eq!(error.to_string(), format!("failed to get credentials for registry `{}`", registry.name()));
    assert_eq!(error.source().unwrap().to_string(), "the helper crashed");
}

#[test]
fn secrets_are_not_shown() {
    let shown = format!("{:?}", (login("hunter2"), Credential::IdentityToken(Secret::new("hunter2"))));
    assert!(!shown.contains("hunter2"), "{shown}");
}
