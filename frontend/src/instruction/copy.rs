//! COPY and ADD.

use super::flags::{FlagKind, Flags};
use crate::error::{Error, ErrorKind};
use crate::parser::{Node, heredoc, words};

/// What COPY and ADD have in common, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) sources: Vec<String>,
    pub(crate) documents: Vec<Document>,
    pub(crate) dest: String,
    pub(crate) chown: Option<String>,
    pub(crate) chmod: Option<String>,
    pub(crate) link: bool,
    pub(crate) exclude: Vec<String>,
}

/// A here-document as a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) name: String,
    pub(crate) data: Vec<u8>,
    pub(crate) expand: bool,
}

/// COPY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copy {
    pub(crate) transfer: Transfer,
    pub(crate) from: Option<String>,
    pub(crate) parents: bool,
}

/// ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Add {
    pub(crate) transfer: Transfer,
    pub(crate) keep_git_dir: Option<bool>,
    pub(crate) checksum: Option<String>,
    pub(crate) unpack: Option<bool>,
}

pub(super) fn parse_copy(node: &Node) -> Result<Copy, Error> {
    let flags = Flags::parse(
        node,
        &[
            ("chown", FlagKind::Text),
            ("chmod", FlagKind::Text),
            ("link", FlagKind::Bool),
            ("exclude", FlagKind::List),
            ("from", FlagKind::Text),
            ("parents", FlagKind::Bool),
        ],
    )?;
    Ok(Copy {
        transfer: parse_transfer(node, &flags, "COPY")?,
        from: flags.text("from").filter(|from| !from.is_empty()),
        parents: flags.bool("parents").unwrap_or(false),
    })
}

pub(super) fn parse_add(node: &Node) -> Result<Add, Error> {
    let flags = Flags::parse(
        node,
        &[
            ("chown", FlagKind::Text),
            ("chmod", FlagKind::Text),
            ("link", FlagKind::Bool),
            ("exclude", FlagKind::List),
            ("keep-git-dir", FlagKind::Bool),
            ("checksum", FlagKind::Text),
            ("unpack", FlagKind::Bool),
        ],
    )?;
    Ok(Add {
        transfer: parse_transfer(node, &flags, "ADD")?,
        keep_git_dir: flags.bool("keep-git-dir"),
        checksum: flags.text("checksum").filter(|checksum| !checksum.is_empty()),
        unpack: flags.bool("unpack"),
    })
}

fn parse_transfer(node: &Node, flags: &Flags, instruction: &'static str) -> Result<Transfer, Error> {
    let mut sources = node.json.clone().unwrap_or_else(|| words::split_plain(&node.arguments));
    let expected = "at least two arguments, but only one was provided. Destination could not be determined";
    let dest = sources.pop().filter(|_| !sources.is_empty());
    let dest = dest.ok_or(ErrorKind::Arguments { instruction, expected })?;
    let is_document = |word: &str| node.json.is_none() && heredoc::token(word).is_some();
    if is_document(&dest) {
        return Err(ErrorKind::HeredocDestination { instruction }.into());
    }
    sources.retain(|word| !is_document(word));
    let documents = node.heredocs.iter().map(|document| Document {
        name: document.name.clone(),
        data: document.data(),
        expand: document.expand,
    });
    Ok(Transfer {
        sources,
        documents: documents.collect(),
        dest,
        chown: flags.text("chown").filter(|chown| !chown.is_empty()),
        chmod: flags.text("chmod").filter(|chmod| !chmod.is_empty()),
        link: flags.bool("link").unwrap_or(false),
        exclude: flags.list("exclude"),
    })
}
