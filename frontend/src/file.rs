//! A parsed file as stages: global ARGs, then for each FROM its instructions.

use crate::args::GlobalArg;
use crate::error::{Error, ErrorKind};
use crate::instruction::{self, Command, From, Instruction, Parsed};
use crate::parser::Dockerfile;

/// A stage as written.
#[derive(Debug)]
pub(crate) struct StageText {
    pub(crate) from: From,
    /// Its name in lower case; empty when it has none.
    pub(crate) name: String,
    pub(crate) commands: Vec<Command>,
}

/// A file as written.
#[derive(Debug)]
pub(crate) struct FileText {
    pub(crate) globals: Vec<GlobalArg>,
    /// At least one.
    pub(crate) stages: Vec<StageText>,
}

impl FileText {
    /// Reads every instruction and sorts them into stages.
    pub(crate) fn new(file: &Dockerfile) -> Result<Self, Error> {
        let mut text = Self { globals: Vec::new(), stages: Vec::new() };
        for node in &file.nodes {
            match instruction::parse(node, file.directives.escape)? {
                Parsed::From(from) => {
                    let name = from.name.as_deref().unwrap_or_default().to_lowercase();
                    text.stages.push(StageText { from, name, commands: Vec::new() });
                }
                Parsed::Command(command) => text.add(command)?,
            }
        }
        if text.stages.is_empty() { Err(ErrorKind::NoStages.into()) } else { Ok(text) }
    }

    fn add(&mut self, command: Command) -> Result<(), Error> {
        if let Some(stage) = self.stages.last_mut() {
            stage.commands.push(command);
            return Ok(());
        }
        let Command { instruction, keyword, comments, range, .. } = command;
        let Instruction::Arg(declarations) = instruction else {
            return Err(Error::new(ErrorKind::BeforeFrom { instruction: keyword }).at(range));
        };
        self.globals.push(GlobalArg { declarations, comments, range });
        Ok(())
    }
}
