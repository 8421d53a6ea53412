//! ADD: as COPY, and from the network.

use rbuild_llb::{CopyAction, Edge, Meta, Op, SourceOp, without_credentials};

use super::Lowerer;
use super::state::Current;
use crate::error::{Error, ErrorKind};
use crate::instruction::{Add, Command};
use crate::lint::checks;
use crate::remote;

impl Lowerer<'_> {
    pub(super) fn add(&mut self, current: &mut Current, command: &Command, add: &Add) -> Result<(), Error> {
        let mut transfer = self.transfer(current, command, &add.transfer)?;
        let checksum = add.checksum.as_ref().map(|word| self.expand(current, command, word)).transpose()?;
        let checksum = checksum.filter(|checksum| !checksum.is_empty());
        check_checksum(checksum.as_deref(), &transfer.sources)?;
        let is_local = |source: &&String| !remote::is_remote(source);
        let local: Vec<String> = transfer.sources.iter().filter(is_local).cloned().collect();
        checks::copy_ignored(self.ignored.as_ref(), &local, command, self.linter);
        for source in transfer.sources.clone() {
            let remote = remote::add_source(&source, add.keep_git_dir, checksum.as_deref())?;
            let action = if let Some(remote) = remote {
                let path = match &remote {
                    SourceOp::Http(file) => Some(format!("/{}", file.filename)),
                    _ => None,
                };
                let edge = self.remote(remote, &source, command);
                let from = transfer.steps.input(Some(edge));
                match path {
                    Some(path) => CopyAction {
                        attempt_unpack: add.unpack.unwrap_or(false),
                        ..transfer.action(from, path)
                    },
                    None => CopyAction { dir_copy_contents: true, ..transfer.action(from, "/".to_owned()) },
                }
            } else {
                let tree = self.main_context();
                let action = self.local_source(&mut transfer, tree, &source);
                CopyAction { attempt_unpack: add.unpack.unwrap_or(true), ..action }
            };
            transfer.steps.copy(action);
        }
        self.finish_transfer(current, command, transfer, "ADD");
        Ok(())
    }

    fn remote(&mut self, source: SourceOp, url: &str, command: &Command) -> Edge {
        let name = format!("[internal] load {}", without_credentials(url));
        let meta = Meta { name, source: Some(command.range), internal: true, ..Meta::default() };
        self.add_vertex(Op::Source(source), Vec::new(), meta)
    }
}

fn check_checksum(checksum: Option<&str>, sources: &[String]) -> Result<(), Error> {
    match (checksum, sources) {
        (None, _) => Ok(()),
        (Some(_), [only]) if remote::is_remote(only) => Ok(()),
        (Some(_), [_]) => Err(ErrorKind::ChecksumLocal.into()),
        (Some(_), _) => Err(ErrorKind::ChecksumSources.into()),
    }
}
