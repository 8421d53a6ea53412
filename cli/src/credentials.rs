//! Registry credentials from where people already keep them: Docker's and Podman's files and credential helpers.
//!
//! The files are tried in order, and the first that knows the registry wins: `$REGISTRY_AUTH_FILE`,
//! `$XDG_RUNTIME_DIR/containers/auth.json`, `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`. Within a file a
//! helper named for the registry comes before an entry in the file, and that before the file's general helper.
//!
//! A file that cannot be read counts as absent: an anonymous request is tried, and the registry says what is missing.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::commands::io_failure;
use crate::report::{Failure, Kind};

/// How long a credential helper may take.
const HELPER_TIMEOUT: Duration = Duration::from_secs(30);
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
    /// In the order in which they are looked at.
    paths: Vec<PathBuf>,
    /// Where logins are kept.
    writable: Option<PathBuf>,
}

/// Where a login is kept now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) place: String,
    /// Whether all who can read the file can read the password.
    pub(crate) is_plain: bool,
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
        let writable = variable("REGISTRY_AUTH_FILE").or_else(|| docker_config(&variable));
        Self { paths: paths.into_iter().flatten().collect(), writable }
    }

    /// The login for a registry, by host and port, and the repository within it.
    pub(crate) fn login(&self, registry: &str, repository: &str) -> Option<Login> {
        let read = |path: &PathBuf| serde_json::from_slice::<AuthFile>(&fs::read(path).ok()?).ok();
        self.paths.iter().filter_map(read).find_map(|file| file.login(registry, repository))
    }

    /// Keeps a login: with the helper that the file names for the registry, or else in the file itself.
    ///
    /// # Errors
    /// When there is no place for it, or it cannot be written.
    pub(crate) fn store(&self, registry: &str, user: &str, password: &str) -> Result<Kept, Failure> {
        let (path, mut document) = self.document()?;
        let key = file_key(registry);
        if let Some(helper) = helper_of(&document, key) {
            let login = json!({ "ServerURL": key, "Username": user, "Secret": password });
            helper_says(&helper, "store", &login.to_string()).ok_or_else(|| helper_failed(&helper))?;
            return Ok(Kept { place: format!("docker-credential-{helper}"), is_plain: false });
        }
        document["auths"][key] = json!({ "auth": STANDARD.encode(format!("{user}:{password}")) });
        write(path, &document)?;
        Ok(Kept { place: path.display().to_string(), is_plain: true })
    }

    /// Forgets the login for a registry.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn erase(&self, registry: &str) -> Result<(), Failure> {
        let (path, mut document) = self.document()?;
        let key = file_key(registry);
        if let Some(helper) = helper_of(&document, key) {
            helper_says(&helper, "erase", key).ok_or_else(|| helper_failed(&helper))?;
        }
        let removed = document["auths"].as_object_mut().and_then(|auths| auths.remove(key));
        removed.map_or(Ok(()), |_| write(path, &document))
    }

    /// The file that is written: the one that was asked for, or else Docker's. What else is in it stays.
    fn document(&self) -> Result<(&Path, Value), Failure> {
        let none = || Failure::new(Kind::Environment, "there is no place for logins: HOME is not set");
        let path = self.writable.as_deref().ok_or_else(none)?;
        let mut document = match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                Failure::new(Kind::Input, format!("failed to read `{}`: {error}", path.display()))
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => json!({}),
            Err(error) => return Err(io_failure("read", path)(error)),
        };
        if !document.is_object() {
            let message = format!("failed to read `{}`: it is not a JSON object", path.display());
            return Err(Failure::new(Kind::Input, message));
        }
        if !document["auths"].is_object() {
            document["auths"] = json!({});
        }
        Ok((path, document))
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

/// How Docker calls a registry in its file.
fn file_key(registry: &str) -> &str {
    if registry == "docker.io" { DOCKER_HUB_KEYS[0] } else { registry }
}

/// The helper that keeps the logins for a registry.
fn helper_of(document: &Value, key: &str) -> Option<String> {
    let named = document["credHelpers"][key].as_str();
    let helper = named.or_else(|| document["credsStore"].as_str())?;
    Some(helper.to_owned()).filter(|helper| !helper.is_empty())
}

fn helper_failed(name: &str) -> Failure {
    Failure::new(Kind::Environment, format!("`docker-credential-{name}` failed"))
}

/// Replaces the file at once; only its owner may read it.
fn write(path: &Path, document: &Value) -> Result<(), Failure> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(io_failure("create", directory))?;
    let partial = path.with_extension(format!("partial-{}", std::process::id()));
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&partial);
    let text = format!("{document:#}\n");
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(io_failure("write", &partial))?;
    // A link leads to where the user keeps the file.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    fs::rename(&partial, &target).map_err(io_failure("write", path))
}

/// Asks `docker-credential-NAME`, which is how Docker and Podman keep passwords out of files.
fn ask_helper(name: &str, key: &str) -> Option<Login> {
    let answer: HelperAnswer = serde_json::from_slice(&helper_says(name, "get", key)?).ok()?;
    Some(if answer.username == TOKEN_USER {
        Login::IdentityToken(answer.secret)
    } else {
        Login::Password { user: answer.username, password: answer.secret }
    })
}

/// Runs `docker-credential-NAME VERB` on `input`. One that takes too long, as for a prompt that nobody sees, is ended.
fn helper_says(name: &str, verb: &str, input: &str) -> Option<Vec<u8>> {
    if name.is_empty() || name.contains('/') {
        return None;
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "credential helpers are programs by definition; this is their one wrapper"
    )]
    let mut child = Command::new(format!("docker-credential-{name}"))
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    child.stdin.take()?.write_all(input.as_bytes()).ok()?;
    let mut stdout = child.stdout.take()?;
    let (sender, output) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stdout.read_to_end(&mut bytes);
        // Nobody waits any longer when it took too long.
        drop(sender.send(read.map(|_| bytes)));
    });
    let Ok(Ok(bytes)) = output.recv_timeout(HELPER_TIMEOUT) else {
        child.kill().ok();
        child.wait().ok();
        return None;
    };
    child.wait().ok().filter(std::process::ExitStatus::success).map(|_| bytes)
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

    #[test]
    fn a_login_is_kept_and_forgotten_and_the_rest_of_the_file_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("docker/config.json");
        let files = CredentialFiles { paths: vec![path.clone()], writable: Some(path.clone()) };
        files.store("docker.io", "u", "p:w").unwrap();
        let found = |registry: &str| match files.login(registry, "a/b")? {
            Login::Password { user, password } => Some((user, password)),
            Login::IdentityToken(_) => None,
        };
        assert_eq!(found("docker.io"), Some(("u".into(), "p:w".into())));
        let mut document: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        document["proxies"] = json!({ "default": {} });
        fs::write(&path, document.to_string()).unwrap();
        assert_eq!(files.store("r.example:5000", "v", "q").unwrap().place, path.display().to_string());
        files.erase("docker.io").unwrap();
        assert_eq!((found("docker.io"), found("r.example:5000")), (None, Some(("v".into(), "q".into()))));
        let document: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert!(document["proxies"].is_object());
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
}
