//! RUN, and the command lines of CMD and ENTRYPOINT.

use rbuild_llb::{Network, Security, SourceRange};

use super::flags::{FlagKind, Flags};
use super::mount::MountFlag;
use crate::error::{Error, ErrorKind};
use crate::parser::{Heredoc, Node};

/// A command line in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CommandLine {
    /// A text for a shell.
    Shell(String),
    /// The arguments themselves.
    Exec(Vec<String>),
}

/// RUN.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) command: CommandLine,
    pub(crate) documents: Vec<Heredoc>,
    pub(crate) mounts: Vec<MountFlag>,
    /// `None` is the build's network.
    pub(crate) network: Option<Network>,
    pub(crate) security: Security,
    /// CDI devices, and whether the step must fail without.
    pub(crate) devices: Vec<(String, bool)>,
}

pub(super) fn parse_command_line(node: &Node) -> Result<CommandLine, Error> {
    Flags::none(node)?;
    Ok(command_line(node))
}

fn command_line(node: &Node) -> CommandLine {
    node.json.clone().map_or_else(|| CommandLine::Shell(node.arguments.clone()), CommandLine::Exec)
}

pub(super) fn parse(node: &Node) -> Result<Run, Error> {
    if let Some(line) = node.not_text {
        return Err(Error::new(ErrorKind::NotUtf8).at(SourceRange::line(line)));
    }
    let flags = Flags::parse(
        node,
        &[
            ("mount", FlagKind::List),
            ("network", FlagKind::Text),
            ("security", FlagKind::Text),
            ("device", FlagKind::List),
        ],
    )?;
    let command = command_line(node);
    if command == CommandLine::Exec(Vec::new()) {
        return Err(super::at_least_one("RUN"));
    }
    Ok(Run {
        command,
        documents: node.heredocs.clone(),
        mounts: flags.list("mount").iter().map(|flag| MountFlag::parse(flag)).collect::<Result<_, _>>()?,
        network: flags.text("network").map(network).transpose()?.flatten(),
        security: flags.text("security").map(security).transpose()?.unwrap_or_default(),
        devices: flags.list("device").iter().map(|flag| device(flag)).collect::<Result<_, _>>()?,
    })
}

fn network(value: String) -> Result<Option<Network>, Error> {
    match value.as_str() {
        "default" => Ok(None),
        "none" => Ok(Some(Network::None)),
        "host" => Ok(Some(Network::Host)),
        _ => Err(ErrorKind::FlagValue { flag: "network", value, expected: "default, none or host" }.into()),
    }
}

fn security(value: String) -> Result<Security, Error> {
    match value.as_str() {
        "sandbox" => Ok(Security::Sandbox),
        "insecure" => Ok(Security::Insecure),
        _ => Err(ErrorKind::FlagValue { flag: "security", value, expected: "sandbox or insecure" }.into()),
    }
}

/// `vendor/class=name[,required]`, or with the name as a field, `name=vendor/class=name`.
fn device(value: &str) -> Result<(String, bool), Error> {
    let (mut name, mut required) = (None, false);
    for field in value.split(',') {
        match field.split_once('=') {
            None if field == "required" => required = true,
            Some(("required", flag)) => {
                required = crate::lint::parse_bool(flag).ok_or_else(|| invalid_device(value))?;
            }
            Some(("name", rest)) => name = Some(rest.to_owned()),
            _ if name.is_none() => name = Some(field.to_owned()),
            _ => return Err(invalid_device(value)),
        }
    }
    name.filter(|name| !name.is_empty()).map(|name| (name, required)).ok_or_else(|| invalid_device(value))
}

fn invalid_device(value: &str) -> Error {
    ErrorKind::FlagValue { flag: "device", value: value.to_owned(), expected: "a device name" }.into()
}
