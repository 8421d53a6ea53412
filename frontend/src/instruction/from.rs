//! FROM.

use rbuild_llb::SourceRange;

use super::flags::{FlagKind, Flags};
use crate::error::{Error, ErrorKind};
use crate::parser::{Node, words};

/// The beginning of a stage.
#[derive(Debug, Clone)]
pub(crate) struct From {
    /// The image, stage or context to start from, as written.
    pub(crate) base: String,
    /// The stage's name as written.
    pub(crate) name: Option<String>,
    /// The word between the two, in the case it was written in.
    pub(crate) as_keyword: Option<String>,
    /// `--platform`, as written, if anything is.
    pub(crate) platform: Option<String>,
    pub(crate) keyword: String,
    pub(crate) comments: Vec<String>,
    pub(crate) range: SourceRange,
}

pub(super) fn parse(node: &Node) -> Result<From, Error> {
    let flags = Flags::parse(node, &[("platform", FlagKind::Text)])?;
    let arguments = words::split_plain(&node.arguments);
    let (base, as_keyword, name) = match arguments.as_slice() {
        [base] => (base, None, None),
        [base, keyword, name] if keyword.eq_ignore_ascii_case("AS") => (base, Some(keyword), Some(name)),
        _ => return Err(ErrorKind::FromArguments.into()),
    };
    if let Some(name) = name.filter(|name| !is_stage_name(&name.to_lowercase())) {
        return Err(ErrorKind::StageName { name: name.clone() }.into());
    }
    Ok(From {
        base: base.clone(),
        name: name.cloned(),
        as_keyword: as_keyword.cloned(),
        platform: flags.text("platform").filter(|platform| !platform.is_empty()),
        keyword: node.keyword.clone(),
        comments: node.comments.clone(),
        range: node.range,
    })
}

/// A name cannot start with a digit, so that `--from=0` is always a position.
fn is_stage_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.')
        })
}
