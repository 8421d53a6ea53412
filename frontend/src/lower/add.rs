//! ADD: as COPY, and from the network.

use rbuild_image::Digest;
use rbuild_llb::{CopyAction, Edge, HttpSource, Meta, Op, SourceOp};

use super::state::Current;
use super::{Lowerer, remote};
use crate::error::{Error, ErrorKind};
use crate::instruction::{Add, Command};
use crate::lint::checks;

/// Files from the network are their owner's alone.
const HTTP_FILE_MODE: u32 = 0o600;

impl Lowerer<'_> {
    pub(super) fn add(&mut self, current: &mut Current, command: &Command, add: &Add) -> Result<(), Error> {
        let mut transfer = self.transfer(current, command, &add.transfer)?;
        let checksum = add.checksum.as_ref().map(|word| self.expand(current, command, word)).transpose()?;
        let checksum = checksum.filter(|checksum| !checksum.is_empty());
        check_checksum(checksum.as_deref(), &transfer.sources)?;
        let is_local = |source: &&String| !remote::is_git(source) && !remote::is_http(source);
        let local: Vec<String> = transfer.sources.iter().filter(is_local).cloned().collect();
        checks::copy_ignored(self.ignored.as_ref(), &local, command, self.linter);
        for source in transfer.sources.clone() {
            let action = if remote::is_git(&source) {
                let git = remote::git_source(&source, add.keep_git_dir, checksum.as_deref())?;
                let edge = self.remote(SourceOp::Git(git), &source, command);
                let from = transfer.steps.input(Some(edge));
                CopyAction { dir_copy_contents: true, ..transfer.action(from, "/".to_owned()) }
            } else if remote::is_http(&source) {
                let file = http_source(&source, checksum.as_deref())?;
                let path = format!("/{}", file.filename);
                let edge = self.remote(SourceOp::Http(file), &source, command);
                let from = transfer.steps.input(Some(edge));
                CopyAction { attempt_unpack: add.unpack.unwrap_or(false), ..transfer.action(from, path) }
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
        let name = format!("[internal] load {}", remote::without_credentials(url));
        let meta = Meta { name, source: Some(command.range), internal: true, ..Meta::default() };
        self.add_vertex(Op::Source(source), Vec::new(), meta)
    }
}

fn http_source(url: &str, checksum: Option<&str>) -> Result<HttpSource, Error> {
    Ok(HttpSource {
        url: url.to_owned(),
        checksum: checksum.map(str::parse::<Digest>).transpose().map_err(ErrorKind::Checksum)?,
        filename: remote::file_name(url),
        mode: HTTP_FILE_MODE,
        uid: 0,
        gid: 0,
        auth_header_secret: None,
        headers: Vec::new(),
    })
}

fn check_checksum(checksum: Option<&str>, sources: &[String]) -> Result<(), Error> {
    match (checksum, sources) {
        (None, _) => Ok(()),
        (Some(_), [only]) if remote::is_http(only) || remote::is_git(only) => Ok(()),
        (Some(_), [_]) => Err(ErrorKind::ChecksumLocal.into()),
        (Some(_), _) => Err(ErrorKind::ChecksumSources.into()),
    }
}
