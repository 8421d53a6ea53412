//! COPY, and what ADD shares with it.

use rbuild_llb::{
    Chmod, ChownId, CopyAction, Edge, FileInput, MergeOp, Meta, MkfileAction, Op, Owner, without_credentials,
};

use super::Lowerer;
use super::state::Current;
use super::tree::{FileSteps, SourceTree};
use crate::error::{Error, ErrorKind};
use crate::expand::{Expander, Quotes};
use crate::instruction::{Command, Copy, Document, Transfer};
use crate::lint::checks;
use crate::stage::Step;
use crate::{parser, paths, remote};

const DOCUMENT_MODE: u32 = 0o644;
const CHMOD_MAX: u32 = 0o7777;

/// A COPY or ADD with its words expanded, while its file operation grows.
pub(super) struct Transferred {
    pub(super) sources: Vec<String>,
    documents: Vec<Document>,
    /// As written, for the history.
    dest_written: String,
    /// Absolute; a slash at the end for a directory.
    pub(super) dest: String,
    chown: Option<String>,
    chmod_written: Option<String>,
    pub(super) owner: Option<Owner>,
    pub(super) mode: Option<Chmod>,
    exclude: Vec<String>,
    link: bool,
    pub(super) steps: FileSteps,
}

impl Lowerer<'_> {
    pub(super) fn copy(&mut self, current: &mut Current, step: &Step, copy: &Copy) -> Result<(), Error> {
        let command = &step.command;
        let mut transfer = self.transfer(current, command, &copy.transfer)?;
        let tree = match step.sources.first().copied().flatten() {
            Some(stage) => Some(self.source_tree(current, stage)?),
            None if copy.from.is_none() && !transfer.sources.is_empty() => {
                checks::copy_ignored(self.ignored.as_ref(), &transfer.sources, command, self.linter);
                Some(self.main_context())
            }
            None => None,
        };
        for source in transfer.sources.clone() {
            if remote::is_git(&source) {
                return Err(ErrorKind::GitForCopy { url: source }.into());
            }
            if remote::is_http(&source) {
                return Err(ErrorKind::UrlForCopy { url: source }.into());
            }
            let Some(tree) = tree else { continue };
            let mut action = self.local_source(&mut transfer, tree, &source);
            if copy.parents {
                action.src = with_pivot(&source);
                action.parents = true;
            }
            transfer.steps.copy(action);
        }
        let parents = if copy.parents { " --parents" } else { "" };
        self.finish_transfer(current, command, transfer, &format!("COPY{parents}"));
        Ok(())
    }

    /// Expands the words of a COPY or ADD.
    pub(super) fn transfer(
        &mut self,
        current: &Current,
        command: &Command,
        transfer: &Transfer,
    ) -> Result<Transferred, Error> {
        let chown = transfer.chown.as_ref().map(|word| self.expand(current, command, word)).transpose()?;
        let chmod = transfer.chmod.as_ref().map(|word| self.expand(current, command, word)).transpose()?;
        let chown = chown.filter(|chown| !chown.is_empty());
        let chmod = chmod.filter(|chmod| !chmod.is_empty());
        let sources = self.expand_all(current, command, &transfer.sources)?;
        let dest_written = self.expand(current, command, &transfer.dest)?;
        let documents = transfer.documents.iter().map(|document| self.document(current, command, document));
        let documents = documents.collect::<Result<_, _>>()?;
        // With a mode, BuildKit quietly does not link: the mode would go to directories that are there already.
        let link = transfer.link && chmod.is_none();
        let steps = FileSteps::on(current.state.edge.filter(|_| !link));
        let owner = chown.as_deref().map(|chown| parse_owner(chown, steps.tree())).transpose()?;
        Ok(Transferred {
            sources,
            documents,
            dest: paths::resolve_destination(&current.state.directory(), &dest_written),
            dest_written,
            owner,
            mode: chmod.as_deref().map(parse_chmod).transpose()?,
            chown,
            chmod_written: chmod,
            exclude: transfer.exclude.clone(),
            link,
            steps,
        })
    }

    /// The content of a here-document: quotes in it are characters. Unless the name was quoted, variables are expanded, and only then it has
    /// to be text.
    fn document(
        &mut self,
        current: &Current,
        command: &Command,
        document: &Document,
    ) -> Result<Document, Error> {
        if !document.expand {
            return Ok(document.clone());
        }
        let expander = Expander { quotes: Quotes::Ignore, ..Expander::new('\\') };
        let text = self.expand_with(current, command, expander, &parser::text(&document.data))?.text;
        Ok(Document { data: text.into_bytes(), ..document.clone() })
    }

    /// One source in a tree of the build.
    pub(super) fn local_source(
        &mut self,
        transfer: &mut Transferred,
        tree: SourceTree,
        source: &str,
    ) -> CopyAction {
        if let Some(local) = tree.local {
            self.locals.use_path(local, source);
        }
        let from = transfer.steps.input(tree.edge);
        CopyAction {
            follow_symlinks: true,
            dir_copy_contents: true,
            allow_wildcard: true,
            allow_empty_wildcard: true,
            ..transfer.action(from, paths::absolute(source))
        }
    }

    /// Adds here-documents, makes the vertex and records it.
    pub(super) fn finish_transfer(
        &mut self,
        current: &mut Current,
        command: &Command,
        mut transfer: Transferred,
        keyword: &str,
    ) {
        for document in std::mem::take(&mut transfer.documents) {
            let path = paths::absolute(&document.name);
            let from = transfer.steps.file(MkfileAction {
                path: path.clone(),
                mode: DOCUMENT_MODE,
                data: document.data,
                owner: None,
                timestamp_ns: self.times.file_ns,
            });
            let action = transfer.action(from, path);
            transfer.steps.copy(action);
            transfer.sources.push(format!("<<{}", document.name));
        }
        let text = Self::describe(&command.code, Expander::new(self.escape), &current.state.env);
        let text = transfer.hide_credentials(text);
        let created_by = transfer.history(keyword);
        let (op, inputs) = transfer.steps.finish();
        let title = current.title(&text, command.is_trigger);
        let meta = self.meta(current, command, title);
        let parent = current.state.edge;
        let edge = match parent {
            Some(parent) if transfer.link => {
                let link_name = meta.name.replacen(&text, &format!("LINK {text}"), 1);
                let link = Meta { name: link_name, internal: true, ..meta.clone() };
                let copied = self.add_vertex(op, inputs, meta);
                self.merge(parent, copied, link)
            }
            _ => self.add_vertex(op, inputs, meta),
        };
        current.state.edge = Some(edge);
        self.record_layer(current, created_by);
    }

    fn merge(&mut self, parent: Edge, copied: Edge, meta: Meta) -> Edge {
        let mut inputs = super::tree::Inputs::default();
        let trees = vec![Some(inputs.index(parent)), Some(inputs.index(copied))];
        self.add_vertex(Op::Merge(MergeOp { inputs: trees }), inputs.into_edges(), meta)
    }
}

impl Transferred {
    /// A copy of one path, no symlinks followed and no pattern.
    pub(super) fn action(&self, from: FileInput, src: String) -> CopyAction {
        CopyAction {
            from,
            src,
            dest: self.dest.clone(),
            owner: self.owner.clone(),
            mode: self.mode.clone(),
            follow_symlinks: false,
            dir_copy_contents: false,
            attempt_unpack: false,
            create_dest_path: true,
            allow_wildcard: false,
            allow_empty_wildcard: false,
            include: Vec::new(),
            exclude: self.exclude.clone(),
            parents: false,
            always_replace: false,
            timestamp_ns: None,
        }
    }

    /// Takes the credentials out of the URLs in a text: it is shown, and stays in the image.
    fn hide_credentials(&self, text: String) -> String {
        let remote = self.sources.iter().filter(|source| remote::is_remote(source));
        remote.fold(text, |text, source| text.replace(source, &without_credentials(source)))
    }

    fn history(&self, keyword: &str) -> String {
        let mut words = vec![keyword.to_owned()];
        words.extend(self.chown.iter().map(|chown| format!("--chown={chown}")));
        words.extend(self.chmod_written.iter().map(|chmod| format!("--chmod={chmod}")));
        words.extend(self.sources.iter().cloned());
        words.push(self.dest_written.clone());
        words.push("# buildkit".to_owned());
        self.hide_credentials(words.join(" "))
    }
}

/// The source of `COPY --parents`, clean but with its pivot: what stands before `/./` is not kept.
fn with_pivot(source: &str) -> String {
    match source.split_once("/./") {
        Some((root, kept)) => {
            let root = paths::absolute(root);
            format!("{}/.{}", root.trim_end_matches('/'), paths::absolute(kept))
        }
        None => paths::absolute(source),
    }
}

/// `user[:group]`. A lone number is the group too, one with nothing behind its colon has the group 0; without a user it is root;
/// names are looked up in the tree that is copied into. `root` is 0, whatever that tree says.
pub(super) fn parse_owner(text: &str, lookup: FileInput) -> Result<Owner, Error> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let id = |text: &str| match text.parse::<u32>() {
        Ok(id) => Ok(ChownId::Id(id)),
        Err(_) if text == "root" => Ok(ChownId::Id(0)),
        Err(_) if lookup == FileInput::Scratch => {
            Err(Error::from(ErrorKind::OwnerName { owner: text.to_owned() }))
        }
        Err(_) => Ok(ChownId::Name { name: text.to_owned(), lookup }),
    };
    let user = if user.is_empty() { ChownId::Id(0) } else { id(user)? };
    let group = match (group, &user) {
        (None, ChownId::Id(number)) => Some(ChownId::Id(*number)),
        (None, ChownId::Name { .. }) => None,
        (Some(""), _) => Some(ChownId::Id(0)),
        (Some(group), _) => Some(id(group)?),
    };
    Ok(Owner { user: Some(user), group })
}

fn parse_chmod(text: &str) -> Result<Chmod, Error> {
    let invalid = || ErrorKind::Chmod { value: text.to_owned() };
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= CHMOD_MAX);
        return Ok(Chmod::Octal(mode.ok_or_else(invalid)?));
    }
    if text.split(',').all(is_clause) { Ok(Chmod::Symbolic(text.to_owned())) } else { Err(invalid().into()) }
}

/// `[ugoa]*` and then, once or more, an operator with permissions or with one class to take them from.
fn is_clause(clause: &str) -> bool {
    let mut rest = clause.trim_start_matches(['u', 'g', 'o', 'a']);
    if rest.is_empty() {
        return false;
    }
    while let Some(after) = rest.strip_prefix(['+', '-', '=']) {
        let permissions = after.trim_start_matches(['r', 'w', 'x', 'X', 's', 't']);
        rest = if permissions.len() == after.len() {
            after.strip_prefix(['u', 'g', 'o']).unwrap_or(after)
        } else {
            permissions
        };
    }
    rest.is_empty()
}
