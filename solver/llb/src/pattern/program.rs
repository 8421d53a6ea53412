//! A pattern as a small automaton over characters.
//!
//! Running one keeps the set of tokens that could come next, so its time is (length of path × length of pattern)
//! at worst. Most paths do not get that far: the literal text at a pattern's ends is compared first.

use super::{PATTERN_LENGTH_MAX, PatternError};

/// A compiled pattern.
#[derive(Debug, Clone)]
pub(super) struct Program {
    tokens: Vec<Token>,
    /// What every match starts with.
    prefix: String,
    /// What every match ends with; the whole pattern when that is literal.
    suffix: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// This character.
    Char(char),
    /// `?`: one character, no slash.
    AnyChar,
    /// `*`: any characters, no slash.
    AnyChars,
    /// `[a-z]`, `[^a-z]`.
    Class { negated: bool, ranges: Vec<(char, char)> },
    /// `**` before more: nothing, or anything up to and with a slash. Always followed by `InDirs`.
    Dirs,
    /// Within the directories of the `Dirs` before it.
    InDirs,
    /// `**` at the end: anything.
    Rest,
}

/// Which language a text is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grammar {
    /// `**` crosses directories.
    Ignore,
    /// `**` is two stars.
    Component,
}

impl Program {
    pub(super) fn new(pattern: &str, grammar: Grammar) -> Result<Self, PatternError> {
        let tokens = Parser { pattern, rest: pattern.chars(), grammar }.parse()?;
        let prefix = literal(tokens.iter());
        let mut suffix = literal(tokens.iter().rev());
        suffix = suffix.chars().rev().collect();
        Ok(Self { tokens, prefix, suffix })
    }

    /// The text that is the only match, if there is just one.
    pub(super) fn as_literal(&self) -> Option<&str> {
        self.tokens.iter().all(|token| matches!(token, Token::Char(_))).then_some(&self.prefix)
    }

    pub(super) fn matches(&self, path: &[u8]) -> bool {
        if !path.starts_with(self.prefix.as_bytes()) || !path.ends_with(self.suffix.as_bytes()) {
            return false;
        }
        if let Some(literal) = self.as_literal() {
            return path == literal.as_bytes();
        }
        self.run(characters(path)).contains(self.tokens.len())
    }

    /// Whether some path below the directory `dir` could match.
    pub(super) fn may_match_below(&self, dir: &[u8]) -> bool {
        let common = self.prefix.len().min(dir.len());
        if dir[..common] != self.prefix.as_bytes()[..common] {
            return false;
        }
        let mut live = self.run(characters(dir).chain(std::iter::once('/')));
        live.remove(self.tokens.len());
        !live.is_empty()
    }

    /// The tokens that could come next after `text`; the number of tokens stands for the end.
    fn run(&self, text: impl Iterator<Item = char>) -> Set {
        let mut live = Set::new(self.tokens.len() + 1);
        let mut next = live.clone();
        self.reach(0, &mut live);
        for character in text {
            next.clear();
            for at in live.iter() {
                self.step(at, character, &mut next);
            }
            std::mem::swap(&mut live, &mut next);
            if live.is_empty() {
                break;
            }
        }
        live
    }

    fn step(&self, at: usize, character: char, next: &mut Set) {
        match self.tokens.get(at) {
            Some(Token::Char(own)) if *own == character => self.reach(at + 1, next),
            Some(Token::AnyChar) if character != '/' => self.reach(at + 1, next),
            Some(Token::AnyChars) if character != '/' => self.reach(at, next),
            Some(Token::Class { negated, ranges }) => {
                let within = ranges.iter().any(|(low, high)| (*low..=*high).contains(&character));
                if within != *negated {
                    self.reach(at + 1, next);
                }
            }
            Some(Token::InDirs) => {
                next.insert(at);
                if character == '/' {
                    self.reach(at + 1, next);
                }
            }
            Some(Token::Rest) => self.reach(at, next),
            _ => {}
        }
    }

    /// Adds a token and those that can be reached from it without a character.
    fn reach(&self, mut at: usize, set: &mut Set) {
        loop {
            set.insert(at);
            at += match self.tokens.get(at) {
                Some(Token::AnyChars | Token::Rest) => 1,
                Some(Token::Dirs) => {
                    set.insert(at + 1);
                    2
                }
                _ => return,
            };
        }
    }
}

fn literal<'a>(tokens: impl Iterator<Item = &'a Token>) -> String {
    tokens.map_while(|token| if let Token::Char(own) = token { Some(*own) } else { None }).collect()
}

/// A path's characters, with one replacement character for each byte that is not UTF-8.
fn characters(path: &[u8]) -> impl Iterator<Item = char> {
    path.utf8_chunks().flat_map(|chunk| {
        let broken = chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER);
        chunk.valid().chars().chain(broken)
    })
}

/// Reads a pattern. What is accepted is what Go's `filepath.Match` accepts, in both grammars.
struct Parser<'a> {
    pattern: &'a str,
    rest: std::str::Chars<'a>,
    grammar: Grammar,
}

impl Parser<'_> {
    fn parse(mut self) -> Result<Vec<Token>, PatternError> {
        let length = self.pattern.chars().count();
        if length > PATTERN_LENGTH_MAX {
            return Err(PatternError::TooLong { found: length });
        }
        let mut tokens = Vec::new();
        if let Some(name) = self.any_with_suffix() {
            tokens.push(Token::Rest);
            tokens.extend(name.chars().map(Token::Char));
            return Ok(tokens);
        }
        while let Some(character) = self.rest.next() {
            match character {
                '*' if self.grammar == Grammar::Ignore && self.eat('*') => self.dirs(&mut tokens),
                '*' => tokens.push(Token::AnyChars),
                '?' => tokens.push(Token::AnyChar),
                '[' => tokens.push(self.class()?),
                '\\' => tokens.push(Token::Char(self.escaped()?)),
                other => tokens.push(Token::Char(other)),
            }
        }
        Ok(tokens)
    }

    /// `**.md`: two stars directly before a name without wildcards, at the start only, are any text at all.
    fn any_with_suffix(&self) -> Option<&str> {
        let name = self.pattern.strip_prefix("**").filter(|_| self.grammar == Grammar::Ignore)?;
        (!name.is_empty() && !name.starts_with('/') && !name.contains(['*', '?', '[', ']', '\\']))
            .then_some(name)
    }

    fn dirs(&mut self, tokens: &mut Vec<Token>) {
        self.eat('/');
        if self.rest.as_str().is_empty() {
            tokens.push(Token::Rest);
        } else {
            tokens.extend([Token::Dirs, Token::InDirs]);
        }
    }

    fn class(&mut self) -> Result<Token, PatternError> {
        let negated = self.eat('^');
        let mut ranges = Vec::new();
        loop {
            if !ranges.is_empty() && self.eat(']') {
                return Ok(Token::Class { negated, ranges });
            }
            let low = self.class_member()?;
            let high = if self.eat('-') { self.class_member()? } else { low };
            if low > high {
                return Err(self.syntax("the range in `[…]` is the wrong way round"));
            }
            ranges.push((low, high));
        }
    }

    fn class_member(&mut self) -> Result<char, PatternError> {
        match self.rest.next() {
            None => Err(self.syntax("the `[` is not closed")),
            Some('-') => Err(self.syntax("a `-` in `[…]` stands between two characters or after a `\\`")),
            Some(']') => Err(self.syntax("the `[…]` is empty or a range in it has no end")),
            Some('\\') => self.escaped(),
            Some(other) => Ok(other),
        }
    }

    fn escaped(&mut self) -> Result<char, PatternError> {
        self.rest.next().ok_or_else(|| self.syntax("nothing follows the `\\`"))
    }

    fn eat(&mut self, expected: char) -> bool {
        let found = self.rest.as_str().starts_with(expected);
        if found {
            self.rest.next();
        }
        found
    }

    fn syntax(&self, problem: &'static str) -> PatternError {
        PatternError::Syntax { pattern: self.pattern.to_owned(), problem }
    }
}

/// A set of small numbers.
#[derive(Debug, Clone)]
struct Set(Vec<u64>);

impl Set {
    fn new(size: usize) -> Self {
        Self(vec![0; size.div_ceil(64)])
    }

    fn insert(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }

    fn remove(&mut self, at: usize) {
        self.0[at / 64] &= !(1 << (at % 64));
    }

    fn contains(&self, at: usize) -> bool {
        self.0[at / 64] & (1 << (at % 64)) != 0
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    fn clear(&mut self) {
        self.0.fill(0);
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(index, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros() as usize)?;
                left &= left - 1;
                Some(index * 64 + bit)
            })
        })
    }
}
