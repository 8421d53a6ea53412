//! What the parser gives.

use rbuild_llb::SourceRange;

use super::heredoc;
use super::json;
use super::line::Lines;
use super::words;
use super::{Directives, Error, ErrorKind, text};

/// A parsed file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// What the first comments say to the parser.
    pub directives: Directives,
    /// The instructions, in order.
    pub nodes: Vec<Node>,
    /// The last lines of instructions with an empty line between their continuation lines.
    pub empty_continuations: Vec<SourceRange>,
}

/// One instruction as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The first word, in the case it was written in.
    pub keyword: String,
    /// The flags between the first word and the arguments, quotes and escapes resolved: `--from=x`.
    pub flags: Vec<String>,
    /// The arguments, white space trimmed.
    pub arguments: String,
    /// The arguments if they are a JSON array of strings.
    pub json: Option<Vec<String>>,
    /// The here-documents that follow, in the order their tokens stand.
    pub heredocs: Vec<Heredoc>,
    /// The whole instruction, continuation lines joined, without here-documents.
    pub code: String,
    /// The comment lines right above, without `#`.
    pub comments: Vec<String>,
    /// The lines it stands on, here-documents included.
    pub range: SourceRange,
    /// The first of these that is not UTF-8, comments aside.
    pub not_text: Option<u32>,
}

/// A here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it, without quotes.
    pub name: String,
    /// The lines between.
    pub content: String,
    /// The same as it is in the file, where that is not UTF-8.
    pub raw: Option<Vec<u8>>,
    /// Whether variables in it are expanded: no part of the name was quoted.
    pub expand: bool,
    /// Whether leading tabs are no part of it (`<<-`).
    pub chomp: bool,
    /// The file descriptor before the `<<`, as written.
    pub descriptor: String,
}

impl Heredoc {
    /// The content, without leading tabs where the document asks for that.
    pub fn text(&self) -> String {
        text(&self.data()).into_owned()
    }

    /// The same to the byte.
    pub fn data(&self) -> Vec<u8> {
        let content = self.raw.as_deref().unwrap_or(self.content.as_bytes());
        if !self.chomp {
            return content.to_vec();
        }
        let lines = content.split_inclusive(|byte| *byte == b'\n');
        lines.flat_map(|line| line.iter().skip_while(|byte| **byte == b'\t')).copied().collect()
    }

    /// Adds a line, as text and as it is in the file.
    pub(super) fn push(&mut self, text: &str, raw: &[u8]) {
        if self.raw.is_none() && text.as_bytes() != raw {
            self.raw = Some(self.content.clone().into_bytes());
        }
        if let Some(all) = &mut self.raw {
            all.extend_from_slice(raw);
        }
        self.content.push_str(text);
    }
}

impl Node {
    /// Splits a joined line. An unknown first word is no error here.
    pub(super) fn new(line: &str) -> Result<Self, Error> {
        let code = line.trim();
        let (keyword, rest) = words::split_first(code);
        let (flags, arguments) = words::split_flags(rest);
        let arguments = arguments.trim();
        let json = match keyword.to_ascii_lowercase().as_str() {
            "run" | "cmd" | "entrypoint" | "shell" | "volume" | "copy" | "add" => json::array(arguments)?,
            "healthcheck" => json::array(words::split_first(arguments).1)?,
            _ => None,
        };
        Ok(Self {
            keyword: keyword.to_owned(),
            flags,
            arguments: arguments.to_owned(),
            json,
            heredocs: Vec::new(),
            code: code.to_owned(),
            comments: Vec::new(),
            range: SourceRange::line(1),
            not_text: None,
        })
    }

    /// Takes the here-documents that the line announces from the lines that follow.
    pub(super) fn read_heredocs(&mut self, lines: &mut Lines<'_>) -> Result<(), Error> {
        if !self.code.contains("<<") || !self.may_have_heredocs()? {
            return Ok(());
        }
        for mut document in heredoc::tokens(&self.code) {
            if !lines.read_heredoc(&mut document)? {
                return Err(ErrorKind::UnterminatedHeredoc { name: document.name }.into());
            }
            self.heredocs.push(document);
        }
        Ok(())
    }

    fn may_have_heredocs(&self) -> Result<bool, Error> {
        match self.keyword.to_ascii_lowercase().as_str() {
            "run" | "copy" | "add" => Ok(self.json.is_none()),
            "onbuild" => {
                let trigger = Self::new(&self.arguments)?;
                let keyword = trigger.keyword.to_ascii_lowercase();
                Ok(matches!(keyword.as_str(), "run" | "copy" | "add") && trigger.json.is_none())
            }
            _ => Ok(false),
        }
    }
}
