//! A line to a typed instruction.
//!
//! Flags are read and counted, the number and form of arguments is checked; no word is expanded, because the
//! environment is known only when the stage is lowered. What can be said about an instruction without its
//! surroundings is said here.

mod copy;
pub(crate) mod duration;
mod flags;
mod from;
mod healthcheck;
pub(crate) mod mount;
mod pairs;
mod run;

pub(crate) use copy::{Add, Copy, Document, Transfer};
pub(crate) use from::From;
pub(crate) use pairs::{ArgDeclaration, Pair};
pub(crate) use run::{CommandLine, Run};

use rbuild_image::Healthcheck;
use rbuild_llb::SourceRange;

use crate::error::{Error, ErrorKind};
use crate::parser::{Node, words};
use crate::suggest;
use flags::Flags;

/// Every instruction there is.
const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// An instruction of a stage, with where it comes from.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    pub(crate) instruction: Instruction,
    /// The first word as written.
    pub(crate) keyword: String,
    /// The whole instruction as written, on one line.
    pub(crate) code: String,
    pub(crate) comments: Vec<String>,
    pub(crate) range: SourceRange,
    /// It comes from an ONBUILD trigger.
    pub(crate) is_trigger: bool,
}

/// What an instruction says.
#[derive(Debug, Clone)]
pub(crate) enum Instruction {
    Add(Add),
    Arg(Vec<ArgDeclaration>),
    Cmd(CommandLine),
    Copy(Copy),
    Entrypoint(CommandLine),
    Env(Vec<Pair>),
    Expose(Vec<String>),
    Healthcheck(Healthcheck),
    Label(Vec<Pair>),
    Maintainer(String),
    Onbuild(String),
    Run(Box<Run>),
    Shell(Vec<String>),
    StopSignal(String),
    User(String),
    Volume(Vec<String>),
    Workdir(String),
}

impl Instruction {
    /// Whether it may become a layer, and so is counted in `[stage 2/5]`.
    pub(crate) const fn is_step(&self) -> bool {
        matches!(self, Self::Run(_) | Self::Copy(_) | Self::Add(_) | Self::Workdir(_))
    }
}

/// What a line is.
pub(crate) enum Parsed {
    From(From),
    Command(Command),
}

/// Reads one instruction.
pub(crate) fn parse(node: &Node, escape: char) -> Result<Parsed, Error> {
    if node.keyword.eq_ignore_ascii_case("FROM") {
        return from::parse(node).map(Parsed::From).map_err(|error| error.at(node.range));
    }
    let instruction = parse_instruction(node, escape).map_err(|error| error.at(node.range))?;
    Ok(Parsed::Command(Command {
        instruction,
        keyword: node.keyword.clone(),
        code: node.code.clone(),
        comments: node.comments.clone(),
        range: node.range,
        is_trigger: false,
    }))
}

fn parse_instruction(node: &Node, escape: char) -> Result<Instruction, Error> {
    Ok(match node.keyword.to_ascii_uppercase().as_str() {
        "ADD" => Instruction::Add(copy::parse_add(node)?),
        "ARG" => Instruction::Arg(pairs::parse_arg(node, escape)?),
        "CMD" => Instruction::Cmd(run::parse_command_line(node)?),
        "COPY" => Instruction::Copy(copy::parse_copy(node)?),
        "ENTRYPOINT" => Instruction::Entrypoint(run::parse_command_line(node)?),
        "ENV" => Instruction::Env(pairs::parse(node, "ENV", escape)?),
        "EXPOSE" => Instruction::Expose(parse_expose(node)?),
        "HEALTHCHECK" => Instruction::Healthcheck(healthcheck::parse(node)?),
        "LABEL" => Instruction::Label(pairs::parse(node, "LABEL", escape)?),
        "MAINTAINER" => Instruction::Maintainer(parse_one(node, "MAINTAINER")?),
        "ONBUILD" => Instruction::Onbuild(parse_onbuild(node)?),
        "RUN" => Instruction::Run(Box::new(run::parse(node)?)),
        "SHELL" => Instruction::Shell(parse_shell(node)?),
        // Flags of STOPSIGNAL and ARG are ignored rather than refused, as in BuildKit.
        "STOPSIGNAL" => Instruction::StopSignal(one(node, "STOPSIGNAL")?),
        "USER" => Instruction::User(parse_one(node, "USER")?),
        "VOLUME" => Instruction::Volume(parse_volume(node)?),
        "WORKDIR" => Instruction::Workdir(parse_one(node, "WORKDIR")?),
        _ => return Err(unknown(&node.keyword)),
    })
}

fn unknown(keyword: &str) -> Error {
    let similar = suggest::nearest_in_any_case(keyword, KEYWORDS);
    ErrorKind::UnknownInstruction { found: keyword.to_owned(), similar }.into()
}

/// The whole rest of the line is the one argument.
fn one(node: &Node, instruction: &'static str) -> Result<String, Error> {
    if node.arguments.is_empty() {
        return Err(ErrorKind::Arguments { instruction, expected: "exactly one argument" }.into());
    }
    Ok(node.arguments.clone())
}

fn parse_one(node: &Node, instruction: &'static str) -> Result<String, Error> {
    Flags::none(node)?;
    one(node, instruction)
}

fn at_least_one(instruction: &'static str) -> Error {
    ErrorKind::Arguments { instruction, expected: "at least one argument" }.into()
}

/// Ports are sorted as written, so that their order does not matter.
fn parse_expose(node: &Node) -> Result<Vec<String>, Error> {
    Flags::none(node)?;
    let mut ports = words::split_plain(&node.arguments);
    if ports.is_empty() {
        return Err(at_least_one("EXPOSE"));
    }
    ports.sort();
    Ok(ports)
}

fn parse_volume(node: &Node) -> Result<Vec<String>, Error> {
    Flags::none(node)?;
    let volumes = node.json.clone().unwrap_or_else(|| words::split_plain(&node.arguments));
    if volumes.is_empty() {
        return Err(at_least_one("VOLUME"));
    }
    let volumes: Vec<String> = volumes.iter().map(|volume| volume.trim().to_owned()).collect();
    if volumes.iter().any(String::is_empty) { Err(ErrorKind::BlankVolume.into()) } else { Ok(volumes) }
}

fn parse_shell(node: &Node) -> Result<Vec<String>, Error> {
    Flags::none(node)?;
    match &node.json {
        Some(words) if !words.is_empty() => Ok(words.clone()),
        None if !node.arguments.is_empty() => Err(ErrorKind::NotJson { instruction: "SHELL" }.into()),
        _ => Err(at_least_one("SHELL")),
    }
}

/// The trigger is kept as text, here-documents included: it is read where it fires, and only then found to be no instruction.
fn parse_onbuild(node: &Node) -> Result<String, Error> {
    Flags::none(node)?;
    let (keyword, _) = words::split_first(&node.arguments);
    match keyword.to_ascii_uppercase().as_str() {
        "" => return Err(at_least_one("ONBUILD")),
        "ONBUILD" => return Err(ErrorKind::OnbuildChain.into()),
        keyword @ ("MAINTAINER" | "FROM") => {
            return Err(ErrorKind::OnbuildForbidden { instruction: keyword.to_owned() }.into());
        }
        _ => {}
    }
    let mut trigger = words::split_first(&node.code).1.to_owned();
    for document in &node.heredocs {
        trigger.push('\n');
        trigger.push_str(&document.content);
        trigger.push_str(&document.name);
    }
    Ok(trigger)
}
