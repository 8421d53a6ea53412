//! WORKDIR: where later words are relative to, and a directory that must exist.

use rbuild_llb::{ChownId, FileAction, FileInput, MkdirAction, Owner};

use super::Lowerer;
use super::copy::parse_owner;
use super::state::Current;
use super::tree::FileSteps;
use crate::error::Error;
use crate::expand::Expander;
use crate::instruction::Command;
use crate::lint::Rule;
use crate::paths;

const DIRECTORY_MODE: u32 = 0o755;

impl Lowerer<'_> {
    pub(super) fn workdir(
        &mut self,
        current: &mut Current,
        command: &Command,
        path: &str,
    ) -> Result<(), Error> {
        let path = self.expand(current, command, path)?;
        if !current.state.has_workdir && !path.starts_with('/') {
            let message =
                format!("Relative workdir \"{path}\" can have unexpected results if the base image changes");
            self.linter.report(Rule::WorkdirRelativePath, &command.comments, command.range, message);
        }
        current.state.has_workdir = true;
        // An absolute path goes into the config as it was written, a relative one is joined and cleaned.
        let written = match path.as_str() {
            "" => current.state.config.config.working_dir.clone(),
            absolute if absolute.starts_with('/') => absolute.to_owned(),
            relative => paths::resolve(&current.state.config.config.working_dir, relative),
        };
        let written = if written.is_empty() { "/".to_owned() } else { written };
        current.state.config.config.working_dir.clone_from(&written);
        let created_by = format!("WORKDIR {written}");
        if current.state.directory() == "/" {
            current.skip_step();
            self.record(current, created_by);
            return Ok(());
        }
        self.make_directory(current, command)?;
        self.record_layer(current, created_by);
        Ok(())
    }

    fn make_directory(&mut self, current: &mut Current, command: &Command) -> Result<(), Error> {
        let mut steps = FileSteps::on(current.state.edge);
        let owner = owner(&current.state.config.config.user, steps.tree())?;
        steps.apply(FileAction::Mkdir(MkdirAction {
            path: current.state.directory(),
            mode: DIRECTORY_MODE,
            make_parents: true,
            owner,
            timestamp_ns: self.times.file_ns,
        }));
        let (op, inputs) = steps.finish();
        let text = Self::describe(&command.code, Expander::new(self.escape), &current.state.env);
        let name = current.title(&text, command.is_trigger);
        let meta = rbuild_llb::Meta { ignore_cache: false, ..self.meta(current, command, name) };
        current.state.edge = Some(self.add_vertex(op, inputs, meta));
        Ok(())
    }
}

/// The directory belongs to the current user. In an empty tree nobody has a name but root.
fn owner(user: &str, tree: FileInput) -> Result<Option<Owner>, Error> {
    if user.is_empty() {
        return Ok(None);
    }
    let is_named = |part: &str| !part.is_empty() && part.parse::<u32>().is_err();
    if tree == FileInput::Scratch && user.split(':').any(is_named) {
        return Ok(Some(Owner { user: Some(ChownId::Id(0)), group: Some(ChownId::Id(0)) }));
    }
    parse_owner(user, tree).map(Some)
}
