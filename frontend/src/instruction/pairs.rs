//! ENV, LABEL and ARG: names and values.

use super::at_least_one;
use super::flags::Flags;
use crate::error::{Error, ErrorKind};
use crate::parser::{Node, words};

/// A name and its value, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) key: String,
    pub(crate) value: String,
    /// Written `key value`.
    pub(crate) is_legacy: bool,
}

/// A build argument and its default, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ArgDeclaration {
    pub(crate) key: String,
    pub(crate) default: Option<String>,
}

/// `key=value …`, or the legacy `key rest of the line`; which one it is, the first word tells.
pub(super) fn parse(node: &Node, instruction: &'static str, escape: char) -> Result<Vec<Pair>, Error> {
    Flags::none(node)?;
    let words = words::split_quoted(&node.arguments, escape);
    let first = words.first().ok_or_else(|| at_least_one(instruction))?;
    let pairs = if first.contains('=') {
        words.iter().map(|word| parse_pair(word)).collect::<Result<Vec<_>, _>>()?
    } else {
        let (key, value) = words::split_first(&node.arguments);
        if value.is_empty() {
            return Err(ErrorKind::TwoArguments { instruction }.into());
        }
        vec![Pair { key: key.to_owned(), value: value.to_owned(), is_legacy: true }]
    };
    if pairs.iter().any(|pair| pair.key.is_empty()) {
        return Err(ErrorKind::BlankName { instruction }.into());
    }
    Ok(pairs)
}

fn parse_pair(word: &str) -> Result<Pair, Error> {
    let (key, value) = word.split_once('=').ok_or_else(|| ErrorKind::NoEquals { word: word.to_owned() })?;
    Ok(Pair { key: key.to_owned(), value: value.to_owned(), is_legacy: false })
}

pub(super) fn parse_arg(node: &Node, escape: char) -> Result<Vec<ArgDeclaration>, Error> {
    let words = words::split_quoted(&node.arguments, escape);
    if words.is_empty() {
        return Err(at_least_one("ARG"));
    }
    words
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some(("", _)) => Err(ErrorKind::BlankName { instruction: "ARG" }.into()),
            Some((key, default)) => {
                Ok(ArgDeclaration { key: key.to_owned(), default: Some(default.to_owned()) })
            }
            None => Ok(ArgDeclaration { key: word, default: None }),
        })
        .collect()
}
