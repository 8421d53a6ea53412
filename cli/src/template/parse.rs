//! From text to a tree of nodes.

use std::iter::Peekable;
use std::vec::IntoIter;

use serde_json::Value;

use super::{DEPTH_MAX, TemplateError};

/// A piece of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Text(String),
    /// Prints a pipeline's value.
    Print(Pipeline),
    If(Block),
    With(Block),
    Range(Block),
}

/// A piece that holds others.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Block {
    pub pipeline: Pipeline,
    pub then: Vec<Node>,
    pub otherwise: Vec<Node>,
}

/// Commands, each of which gets the value of the one before as its last argument.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pipeline {
    /// `$x :=`, or `$i, $x :=` in a range.
    pub variables: Vec<String>,
    pub commands: Vec<Vec<Operand>>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    /// `.A.B`; without names it is the value itself.
    Field(Vec<String>),
    /// `$x.A.B`; `$` is the value that the whole template is given.
    Variable(String, Vec<String>),
    Literal(Value),
    Function(String),
    /// `(…).A.B`.
    Nested(Box<Pipeline>, Vec<String>),
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    /// `.A.B` or `$x.A` or a word, as written.
    Word(String),
    Literal(Value),
    Pipe,
    Open,
    /// With the fields that follow the parenthesis.
    Close(Vec<String>),
    Assign,
    Comma,
}

enum Piece {
    Text(String),
    Action(Vec<Token>),
}

type Pieces = Peekable<IntoIter<Piece>>;

pub(super) fn parse(text: &str) -> Result<Vec<Node>, TemplateError> {
    let mut pieces = split(text)?.into_iter().peekable();
    let (nodes, end) = nodes(&mut pieces, 0)?;
    match end {
        None => Ok(nodes),
        Some(word) => Err(TemplateError::new(format!("unexpected {{{{{word}}}}}"))),
    }
}

/// Text and what is between braces; `{{-` and `-}}` take the blanks beside them away.
fn split(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim = false;
    while let Some((before, after)) = rest.split_once("{{") {
        let before = if trim { before.trim_start() } else { before };
        let (before, after) = match after.strip_prefix("- ") {
            Some(after) => (before.trim_end(), after),
            None => (before, after),
        };
        pieces.push(Piece::Text(before.to_owned()));
        let end = action_end(after).ok_or_else(|| TemplateError::new("unclosed action"))?;
        let inside = &after[..end];
        rest = &after[end + 2..];
        let trimmed = inside.strip_suffix(" -");
        trim = trimmed.is_some();
        let inside = trimmed.unwrap_or(inside).trim();
        if !(inside.starts_with("/*") && inside.ends_with("*/")) {
            pieces.push(Piece::Action(tokens(inside)?));
        }
    }
    pieces.push(Piece::Text(if trim { rest.trim_start() } else { rest }.to_owned()));
    pieces.retain(|piece| !matches!(piece, Piece::Text(text) if text.is_empty()));
    Ok(pieces)
}

/// Where the braces close that are not in a string.
fn action_end(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            (Some('"'), '\\') if !escaped => {
                escaped = true;
                continue;
            }
            (Some(open), close) if open == close && !escaped => quote = None,
            (None, '"' | '`') => quote = Some(letter),
            (None, '}') if text[at..].starts_with("}}") => return Some(at),
            _ => {}
        }
        escaped = false;
    }
    None
}

fn tokens(text: &str) -> Result<Vec<Token>, TemplateError> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            letter if letter.is_whitespace() => {
                rest = &rest[letter.len_utf8()..];
                continue;
            }
            '|' => (Token::Pipe, 1),
            '(' => (Token::Open, 1),
            ')' => {
                let fields = if rest[1..].starts_with('.') { word_length(&rest[1..]) } else { 0 };
                (Token::Close(names(&rest[1..=fields])), 1 + fields)
            }
            ',' => (Token::Comma, 1),
            ':' if rest.starts_with(":=") => (Token::Assign, 2),
            '"' => quoted(rest)?,
            '`' => {
                let end = rest[1..]
                    .find('`')
                    .ok_or_else(|| TemplateError::new("unterminated raw quoted string"))?;
                (Token::Literal(rest[1..=end].into()), end + 2)
            }
            '-' | '0'..='9' => number(rest)?,
            _ => {
                let length = word_length(rest);
                if length == 0 {
                    return Err(TemplateError::new(format!("unexpected {first:?} in command")));
                }
                (Token::Word(rest[..length].to_owned()), length)
            }
        };
        tokens.push(token);
        rest = &rest[length..];
    }
    Ok(tokens)
}

fn word_length(text: &str) -> usize {
    let is_part = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '.' | '$');
    text.find(|letter| !is_part(letter)).unwrap_or(text.len())
}

fn quoted(text: &str) -> Result<(Token, usize), TemplateError> {
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    match stream.next() {
        Some(Ok(value)) => Ok((Token::Literal(value), stream.byte_offset())),
        _ => Err(TemplateError::new("unterminated quoted string")),
    }
}

fn number(text: &str) -> Result<(Token, usize), TemplateError> {
    let length = text[1..].find(|letter: char| !letter.is_ascii_digit() && letter != '.');
    let length = length.map_or(text.len(), |length| length + 1);
    let value = text[..length].parse::<i64>().map(Value::from);
    let value = value.or_else(|_| text[..length].parse::<f64>().map(Value::from));
    let value = value.map_err(|_| TemplateError::new(format!("bad number syntax: {:?}", &text[..length])))?;
    Ok((Token::Literal(value), length))
}

/// The names in `.A.B`.
fn names(text: &str) -> Vec<String> {
    text.split('.').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Nodes up to the end of a block or of all; in the first case the word that ended it.
fn nodes(pieces: &mut Pieces, depth: usize) -> Result<(Vec<Node>, Option<String>), TemplateError> {
    if depth > DEPTH_MAX {
        return Err(TemplateError::new("nested too deep"));
    }
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.next() {
        let tokens = match piece {
            Piece::Text(text) => {
                nodes.push(Node::Text(text));
                continue;
            }
            Piece::Action(tokens) => tokens,
        };
        let keyword = match tokens.first() {
            Some(Token::Word(word)) => word.as_str(),
            _ => "",
        };
        match keyword {
            "end" => return Ok((nodes, Some("end".to_owned()))),
            "else" => {
                // `{{else if …}}` is a block of its own, which ends where this one ends.
                let condition = tokens.get(1..).unwrap_or_default().to_vec();
                return Ok((nodes, Some(else_word(pieces, condition))));
            }
            "if" => nodes.push(Node::If(block(&tokens, pieces, depth)?)),
            "with" => nodes.push(Node::With(block(&tokens, pieces, depth)?)),
            "range" => nodes.push(Node::Range(block(&tokens, pieces, depth)?)),
            _ => nodes.push(Node::Print(whole_pipeline(tokens)?)),
        }
    }
    Ok((nodes, None))
}

/// Puts the condition of an `else if` back as an action of its own.
fn else_word(pieces: &mut Pieces, condition: Vec<Token>) -> String {
    if condition.is_empty() {
        return "else".to_owned();
    }
    let rest: Vec<Piece> = std::iter::once(Piece::Action(condition)).chain(pieces.by_ref()).collect();
    *pieces = rest.into_iter().peekable();
    "else if".to_owned()
}

fn block(tokens: &[Token], pieces: &mut Pieces, depth: usize) -> Result<Block, TemplateError> {
    let pipeline = whole_pipeline(tokens[1..].to_vec())?;
    let unclosed = || TemplateError::new("unexpected EOF");
    let (then, end) = nodes(pieces, depth + 1)?;
    let otherwise = match end.ok_or_else(unclosed)?.as_str() {
        "else" => {
            let (otherwise, end) = nodes(pieces, depth + 1)?;
            if end.as_deref() != Some("end") {
                return Err(unclosed());
            }
            otherwise
        }
        "else if" => match pieces.next() {
            Some(Piece::Action(tokens)) if tokens.first() == Some(&Token::Word("if".to_owned())) => {
                vec![Node::If(block(&tokens, pieces, depth + 1)?)]
            }
            _ => return Err(TemplateError::new("unexpected words after else")),
        },
        _ => Vec::new(),
    };
    Ok(Block { pipeline, then, otherwise })
}

fn whole_pipeline(tokens: Vec<Token>) -> Result<Pipeline, TemplateError> {
    let mut tokens = tokens.into_iter().peekable();
    let (pipeline, fields) = pipeline(&mut tokens, 0)?;
    match fields {
        None => Ok(pipeline),
        Some(_) => Err(TemplateError::new("unexpected right paren")),
    }
}

/// A pipeline, up to the end or a closing parenthesis, whose fields come with it.
fn pipeline(
    tokens: &mut Peekable<IntoIter<Token>>,
    depth: usize,
) -> Result<(Pipeline, Option<Vec<String>>), TemplateError> {
    if depth > DEPTH_MAX {
        return Err(TemplateError::new("nested too deep"));
    }
    let mut found = Pipeline { variables: Vec::new(), commands: vec![Vec::new()] };
    let mut closed = None;
    while let Some(token) = tokens.next() {
        let command = found.commands.last_mut().expect("there is one from the start");
        match token {
            Token::Word(word) => command.push(operand(&word)),
            Token::Literal(value) => command.push(Operand::Literal(value)),
            Token::Pipe => found.commands.push(Vec::new()),
            Token::Open => {
                let (nested, fields) = pipeline(tokens, depth + 1)?;
                let fields = fields.ok_or_else(|| TemplateError::new("unclosed left paren"))?;
                command.push(Operand::Nested(Box::new(nested), fields));
            }
            Token::Close(fields) => {
                closed = Some(fields);
                break;
            }
            Token::Assign => {
                let named = std::mem::take(command).into_iter().map(variable_name);
                found.variables = named.collect::<Result<_, _>>()?;
            }
            Token::Comma => {}
        }
    }
    if found.commands.iter().any(Vec::is_empty) {
        return Err(TemplateError::new("missing value for command"));
    }
    Ok((found, closed))
}

fn variable_name(operand: Operand) -> Result<String, TemplateError> {
    match operand {
        Operand::Variable(name, fields) if fields.is_empty() => Ok(name),
        _ => Err(TemplateError::new("only a variable can be assigned to")),
    }
}

fn operand(word: &str) -> Operand {
    if let Some(rest) = word.strip_prefix('$') {
        let (name, fields) = rest.split_once('.').unwrap_or((rest, ""));
        return Operand::Variable(name.to_owned(), names(fields));
    }
    match word {
        "true" => Operand::Literal(true.into()),
        "false" => Operand::Literal(false.into()),
        "nil" => Operand::Literal(Value::Null),
        word if word.starts_with('.') => Operand::Field(names(word)),
        word => Operand::Function(word.to_owned()),
    }
}
