//! `rbuild login` and `logout`: credentials for a registry, kept where Docker keeps them.
//!
//! A password comes from standard input or a prompt, never from the command line, which is there for all to see. It is tried
//! before it is kept.

use std::io::Read as _;
use std::sync::Arc;

use console::Term;
use rbuild_registry::{Client, Credential, CredentialSource, Secret};

use super::print;
use crate::app::{self, App};
use crate::args::{LoginArgs, LogoutArgs};
use crate::report::{Failure, Kind, eprint};

/// The registry that nothing else was said of.
const DOCKER_HUB: &str = "docker.io";

/// One credential, for whoever asks.
struct Given(Credential);

impl CredentialSource for Given {
    fn credential(
        &self,
        _registry: &str,
        _repository: &str,
    ) -> Result<Option<Credential>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Some(self.0.clone()))
    }
}

pub(crate) fn run(app: &App, args: &LoginArgs) -> Result<u8, Failure> {
    let server = server(args.server.as_deref());
    let username = match &args.username {
        Some(username) => username.clone(),
        None if args.password_stdin => {
            return Err(Failure::new(Kind::Input, "--password-stdin needs --username"));
        }
        None => ask("Username: ", Term::read_line)?,
    };
    let password =
        if args.password_stdin { from_stdin()? } else { ask("Password: ", Term::read_secure_line)? };
    if username.is_empty() || password.is_empty() {
        return Err(Failure::new(Kind::Input, "a login needs a user name and a password"));
    }
    let credential =
        Credential::Password { username: username.clone(), password: Secret::new(password.as_str()) };
    let client = Client::new(app.client_options()?, Arc::new(Given(credential)));
    let cancel = app.cancel_on_interrupt()?;
    client.ping(&server, &cancel).map_err(|error| {
        let refused = matches!(error.status(), Some(401 | 403));
        let failure = Failure::caused_by(Kind::Remote, &error);
        if refused { failure.while_doing(&format!("`{server}` refuses the login")) } else { failure }
    })?;
    let kept = app::credential_files().store(&server, &username, &password)?;
    if kept.is_plain {
        eprint(&format!("warning: the password is kept unencrypted in `{}`\n", kept.place));
    }
    print("Login Succeeded\n").map(|()| 0)
}

pub(crate) fn out(args: &LogoutArgs) -> Result<u8, Failure> {
    let server = server(args.server.as_deref());
    app::credential_files().erase(&server)?;
    print(&format!("Removing login credentials for {server}\n")).map(|()| 0)
}

/// A registry as it was typed: `https://ghcr.io/v2/` is `ghcr.io`.
fn server(typed: Option<&str>) -> String {
    let typed = typed.unwrap_or(DOCKER_HUB);
    let host = typed.trim_start_matches("https://").trim_start_matches("http://");
    match host.split('/').next().unwrap_or_default() {
        "" | "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB.to_owned(),
        host => host.to_owned(),
    }
}

fn ask(prompt: &str, read: impl FnOnce(&Term) -> std::io::Result<String>) -> Result<String, Failure> {
    let term = Term::stderr();
    if !term.is_term() {
        let failure = Failure::new(Kind::Input, "there is no terminal to ask for a login on");
        return Err(
            failure.hint("give `--username`, and the password on standard input with `--password-stdin`")
        );
    }
    let answer = term.write_str(prompt).and_then(|()| read(&term));
    answer.map_err(|error| {
        Failure::new(Kind::Environment, format!("failed to read from the terminal: {error}"))
    })
}

fn from_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| {
        Failure::new(Kind::Input, format!("failed to read the password from standard input: {error}"))
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_known_by_their_host() {
        for (typed, expected) in [
            (None, "docker.io"),
            (Some("https://index.docker.io/v1/"), "docker.io"),
            (Some("ghcr.io"), "ghcr.io"),
            (Some("https://ghcr.io/v2/"), "ghcr.io"),
            (Some("127.0.0.1:5000"), "127.0.0.1:5000"),
        ] {
            assert_eq!(server(typed), expected, "{typed:?}");
        }
    }
}
