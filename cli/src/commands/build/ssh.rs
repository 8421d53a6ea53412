//! `--ssh default|ID[=SOCKET|KEY[,KEY]][,raw=BOOL]`, by BuildKit's rules.
//!
//! Without a path the agent is the one that `SSH_AUTH_SOCK` names.

use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use rbuild_frontend::parse_bool;
use rbuild_solver::ssh::{SshAgent, SshAgents};
use thiserror::Error;

use crate::report::{Failure, Kind};

const ID_DEFAULT: &str = "default";

/// What one `--ssh` says.
#[derive(Debug, PartialEq, Eq)]
struct Spec {
    id: String,
    paths: Vec<PathBuf>,
    raw: bool,
}

#[derive(Debug, Error)]
enum SshError {
    #[error("`raw` cannot be `{0}`")]
    Raw(String),
    #[error("there is no agent: SSH_AUTH_SOCK is not set")]
    NoAgent,
    #[error("failed to find `{path}`")]
    Find { path: String, source: std::io::Error },
    #[error("it names more than one socket")]
    TwoSockets,
    #[error("key files are not supported yet: add `{0}` to an agent")]
    Key(String),
}

/// The agents that `--ssh` names. `environment` looks a variable up.
///
/// # Errors
/// When one is malformed, or there is no agent where it says.
pub(super) fn agents(
    specs: &[String],
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<SshAgents, Failure> {
    let mut agents = SshAgents::default();
    for text in specs.iter().filter(|spec| !spec.is_empty()) {
        let (id, agent) = parse(text)
            .and_then(|spec| Ok((spec.id.clone(), agent(spec, environment)?)))
            .map_err(|error| {
                Failure::caused_by(Kind::Input, &error).while_doing(&format!("invalid --ssh `{text}`"))
            })?;
        agents.add(id, agent);
    }
    Ok(agents)
}

fn parse(text: &str) -> Result<Spec, SshError> {
    let (id, rest) = text.split_once('=').unwrap_or((text, ""));
    let id = if id.is_empty() { ID_DEFAULT } else { id };
    let mut spec = Spec { id: id.to_owned(), paths: Vec::new(), raw: false };
    for word in rest.split(',').filter(|word| !word.is_empty()) {
        match word.strip_prefix("raw=") {
            Some(value) => spec.raw = parse_bool(value).ok_or_else(|| SshError::Raw(value.to_owned()))?,
            None => spec.paths.push(word.into()),
        }
    }
    Ok(spec)
}

fn agent(spec: Spec, environment: &dyn Fn(&str) -> Option<String>) -> Result<SshAgent, SshError> {
    let Spec { paths, raw, .. } = spec;
    let paths = if paths.is_empty() {
        let socket = environment("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty());
        vec![socket.ok_or(SshError::NoAgent)?.into()]
    } else {
        paths
    };
    if let Some(key) = paths.iter().map(|path| Ok((path, is_socket(path)?))).find_map(|found| match found {
        Ok((_, true)) => None,
        Ok((path, false)) => Some(Ok(path)),
        Err(error) => Some(Err(error)),
    }) {
        return Err(SshError::Key(key?.display().to_string()));
    }
    match <[PathBuf; 1]>::try_from(paths) {
        Ok([socket]) => Ok(SshAgent { socket, raw }),
        Err(_) => Err(SshError::TwoSockets),
    }
}

fn is_socket(path: &Path) -> Result<bool, SshError> {
    let metadata =
        path.metadata().map_err(|source| SshError::Find { path: path.display().to_string(), source })?;
    Ok(metadata.file_type().is_socket())
}
