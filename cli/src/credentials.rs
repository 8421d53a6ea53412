//! Registry credentials from where people already keep them: Docker's and Podman's files and credential helpers.
//!
//! The files are tried in order, and the first that knows the registry wins: `$REGISTRY_AUTH_FILE`,
//! `$XDG_RUNTIME_DIR/containers/auth.json`, `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`. Within a file a
//! helper named for the registry comes before an entry in the file, and that before the file's general helper.
//!
//! A file that cannot be read counts as absent: an anonymous request is tried, and the registry says what is missing.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// The user name that says the password is an identity token (docker-credential-helpers).
const TOKEN_USER: &str = "<token>";
/// How Docker Hub is called in credential files.
const DOCKER_HUB_KEYS: [&str; 3] = ["https://index.docker.io/v1/", "index.docker.io", "docker.io"];

/// A user's name and password, or an identity token.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Login {
    Password { user: String, password: String },
    IdentityToken(String),
}

/// The credential files of a user.
#[derive(Debug, Clone, Default)]
pub(crate) struct CredentialFiles {
    paths: Vec<PathBuf>,
}

/// Docker's `config.json` and containers' `auth.json`, as far as they matter here.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct AuthFile {
    auths: BTreeMap<String, AuthEntry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AuthEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

impl CredentialFiles {
    /// The files that `variable`, a look at the environment, leads to.
    pub(crate) fn from_environment(variable: impl Fn(&str) -> Option<PathBuf>) -> Self {
        let paths = [
            variable("REGISTRY_AUTH_FILE"),
            variable("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")),
            docker_config(&variable),
        ];
        Self { paths: paths.into_iter().flatten().collect() }
    }

    /// The login for a registry, by host and port, and the repository within it.
    pub(crate) fn login(&self, registry: &str, repository: &str) -> Option<Login> {
        let read = |path: &PathBuf| serde_json::from_slice::<AuthFile>(&fs::read(path).ok()?).ok();
        self.paths.iter().filter_map(read).find_map(|file| file.login(registry, repository))
    }
}

/// Docker's `config.json`, where `variable`, a look at the environment, says it is.
pub(crate) fn docker_config(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let directory = variable("DOCKER_CONFIG").or_else(|| Some(variable("HOME")?.join(".docker")))?;
    Some(directory.join("config.json"))
}

impl AuthFile {
    fn login(&self, registry: &str, repository: &str) -> Option<Login> {
        let keys = keys(registry, repository);
        let named = keys.iter().find_map(|key| ask_helper(self.cred_helpers.get(key)?, key));
        let entry = || keys.iter().find_map(|key| self.auths.get(key)?.login());
        let general = || keys.iter().find_map(|key| ask_helper(self.creds_store.as_ref()?, key));
        named.or_else(entry).or_else(general)
    }
}

impl AuthEntry {
    fn login(&self) -> Option<Login> {
        if let Some(token) = self.identitytoken.as_ref().filter(|token| !token.is_empty()) {
            return Some(Login::IdentityToken(token.clone()));
        }
        if let (Some(user), Some(password)) = (&self.username, &self.password) {
            return Some(Login::Password { user: user.clone(), password: password.clone() });
        }
        let decoded = String::from_utf8(STANDARD.decode(self.auth.as_ref()?.trim()).ok()?).ok()?;
        let (user, password) = decoded.trim_end_matches('\0').split_once(':')?;
        Some(Login::Password { user: user.to_owned(), password: password.to_owned() })
    }
}

/// The keys under which a file may hold a registry, the most specific first: Podman scopes entries to repositories.
fn keys(registry: &str, repository: &str) -> Vec<String> {
    let full = format!("{registry}/{repository}");
    let scopes = full.match_indices('/').map(|(at, _)| full[..at].to_owned()).collect::<Vec<_>>();
    let mut keys = vec![full.clone()];
    keys.extend(scopes.into_iter().rev());
    keys.extend([
        format!("https://{registry}"),
        format!("https://{registry}/v1/"),
        format!("https://{registry}/v2/"),
    ]);
    if registry == "docker.io" {
        keys.extend(DOCKER_HUB_KEYS.map(str::to_owned));
    }
    keys
}

/// Runs `docker-credential-NAME get`, which is how Docker and Podman keep passwords out of files.
fn ask_helper(name: &str, key: &str) -> Option<Login> {
    if name.is_empty() || name.contains('/') {
        return None;
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "credential helpers are programs by definition; this is their one wrapper"
    )]
    let mut child = Command::new(format!("docker-credential-{name}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    child.stdin.take()?.write_all(key.as_bytes()).ok()?;
    let output = child.wait_with_output().ok().filter(|output| output.status.success())?;
    let answer: HelperAnswer = serde_json::from_slice(&output.stdout).ok()?;
    Some(if answer.username == TOKEN_USER {
        Login::IdentityToken(answer.secret)
    } else {
        Login::Password { user: answer.username, password: answer.secret }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(json: &str, registry: &str, repository: &str) -> Option<(String, String)> {
        match serde_json::from_str::<AuthFile>(json).unwrap().login(registry, repository)? {
            Login::Password { user, password } => Some((user, password)),
            Login::IdentityToken(token) => Some((TOKEN_USER.to_owned(), token)),
        }
    }

    #[test]
    fn entries_are_found_under_the_names_people_use() {
        let json = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "aHViOnNlY3JldA=="},
            "ghcr.io": {"auth": "ZzpoOmk="},
            "quay.io/team": {"username": "t", "password": "p"},
            "r.example:5000": {"identitytoken": "tok"}
        }}"#;
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(login(json, "docker.io", "library/alpine"), pair("hub", "secret"));
        assert_eq!(login(json, "ghcr.io", "a/b"), pair("g", "h:i"));
        assert_eq!(login(json, "quay.io", "team/app"), pair("t", "p"));
        assert_eq!(login(json, "quay.io", "other/app"), None);
        assert_eq!(login(json, "r.example:5000", "x"), pair(TOKEN_USER, "tok"));
    }

    #[test]
    fn a_missing_helper_falls_back_to_the_file() {
        let json =
            r#"{"credHelpers": {"h.example": "does-not-exist"}, "auths": {"h.example": {"auth": "YTpi"}}}"#;
        assert_eq!(login(json, "h.example", "x"), Some(("a".into(), "b".into())));
    }
}
