//! Word expansion: `$NAME`, `${NAME:-word}`, quotes and escapes, as BuildKit's `shell` lexer does it.
//!
//! This is not a shell. There is no command substitution, no arithmetic, no `[a-z]` in patterns; what is not known is
//! an error and never passed through. The escape character is the file's (`# escape=`); inside patterns it is always
//! a backslash.
//!
//! Both the depth of nesting and the size of a result are bounded, so that `ENV A=$A$A` a hundred times over is an
//! error and not the end of the machine.

mod pattern;

use std::collections::BTreeSet;

use thiserror::Error;

/// The largest result of one expansion. Linux takes no argument or variable above 128 KiB.
pub const EXPANDED_SIZE_BYTES_MAX: usize = 1 << 20;
/// The most that all substitutions in a word may give, those within others and those thrown away among them.
pub const SUBSTITUTED_SIZE_BYTES_MAX: usize = 2 * EXPANDED_SIZE_BYTES_MAX;
/// How deep `${a:-${b:-…}}` may nest.
pub const NESTING_DEPTH_MAX: usize = 100;

/// Why a word cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ExpandError {
    /// `${X`.
    #[error("syntax error: missing '}}'")]
    MissingBrace,
    /// `${X/a}`.
    #[error("syntax error: missing '/' in ${{}}")]
    MissingSlash,
    /// `${}`, `${:`, `${{`.
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    /// A modifier that bash has and Dockerfiles do not, or that nothing has.
    #[error("unsupported modifier ({0}) in substitution")]
    UnsupportedModifier(String),
    /// `${X:?message}` of a variable that is not set, or empty.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// The message in the Dockerfile, or the default.
        message: String,
    },
    /// A quote that does not end.
    #[error("unexpected end of statement while looking for matching {0}")]
    UnterminatedQuote(&'static str),
    /// A backslash in a pattern before a character that needs none.
    #[error("invalid pattern ({pattern}) in substitution: invalid escape '\\{escaped}'")]
    InvalidEscape {
        /// The pattern.
        pattern: String,
        /// What stands behind the backslash.
        escaped: String,
    },
    /// A pattern that takes too long to match.
    #[error("pattern ({0}) in substitution is too complex")]
    PatternTooComplex(String),
    /// Nested deeper than [`NESTING_DEPTH_MAX`].
    #[error("substitutions are nested more than {NESTING_DEPTH_MAX} deep")]
    TooDeep,
    /// Longer than [`EXPANDED_SIZE_BYTES_MAX`].
    #[error("the result is longer than {EXPANDED_SIZE_BYTES_MAX} bytes")]
    TooLong,
    /// Substitutions that give more than [`SUBSTITUTED_SIZE_BYTES_MAX`].
    #[error("all substitutions together give more than {SUBSTITUTED_SIZE_BYTES_MAX} bytes")]
    TooMuch,
}

/// Where variables come from.
pub trait Variables {
    /// The value of a variable, if it is set.
    fn get(&self, name: &str) -> Option<&str>;
}

/// No variable is set.
#[derive(Debug, Clone, Copy)]
pub struct NoVariables;

impl Variables for NoVariables {
    fn get(&self, _: &str) -> Option<&str> {
        None
    }
}

/// What happens to quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quotes {
    /// They group, and are removed.
    Remove,
    /// They group, and stay in the result.
    Keep,
    /// They are characters like any other (the bodies of here-documents).
    Ignore,
}

/// How words are expanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expander {
    /// The escape character of the file.
    pub escape: char,
    /// What happens to quotes.
    pub quotes: Quotes,
    /// Whether escape characters stay in the result.
    pub keep_escapes: bool,
    /// Whether the names of variables that are not set stay in the result (progress displays) or vanish.
    pub keep_unset: bool,
}

/// What a word became.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The word as one.
    pub text: String,
    /// The word split at white space that is not quoted, after expansion. Empty words are dropped.
    pub words: Vec<String>,
    /// The variables it used.
    pub matched: BTreeSet<String>,
    /// The variables it used that are not set.
    pub unmatched: BTreeSet<String>,
}

impl Expander {
    /// The usual way: quotes are removed, what is not set is empty.
    pub const fn new(escape: char) -> Self {
        Self { escape, quotes: Quotes::Remove, keep_escapes: false, keep_unset: false }
    }

    /// Expands a word.
    ///
    /// # Errors
    /// When the word is malformed, demands a variable that is not set, or becomes too large.
    pub fn expand(&self, word: &str, variables: &dyn Variables) -> Result<Expanded, ExpandError> {
        let mut lexer = Lexer {
            how: *self,
            keep_escapes: self.keep_escapes,
            characters: word.chars().collect(),
            position: 0,
            depth: 0,
            spent: Spent::default(),
            variables,
            matched: BTreeSet::new(),
            unmatched: BTreeSet::new(),
        };
        let (text, words) = lexer.until(None)?;
        Ok(Expanded { text, words, matched: lexer.matched, unmatched: lexer.unmatched })
    }
}

/// A result and its words, as they grow.
#[derive(Default)]
struct Output {
    text: String,
    words: Vec<String>,
    word: String,
}

impl Output {
    /// White space ends a word.
    fn push(&mut self, character: char) {
        self.text.push(character);
        if character.is_whitespace() {
            self.end_word();
        } else {
            self.word.push(character);
        }
    }

    /// White space is part of the word.
    fn push_quoted(&mut self, text: &str) {
        self.text.push_str(text);
        self.word.push_str(text);
    }

    fn end_word(&mut self) {
        if !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
        }
    }

    fn check(&self) -> Result<(), ExpandError> {
        if self.text.len() > EXPANDED_SIZE_BYTES_MAX { Err(ExpandError::TooLong) } else { Ok(()) }
    }
}

/// What a word has cost: nested substitutions can make much of few characters, and again for each few characters.
#[derive(Default)]
struct Spent {
    /// How long the results of all substitutions are.
    size_bytes: usize,
    /// How many steps the matching of patterns took.
    match_steps: usize,
}

struct Lexer<'a> {
    how: Expander,
    keep_escapes: bool,
    characters: Vec<char>,
    position: usize,
    depth: usize,
    spent: Spent,
    variables: &'a dyn Variables,
    matched: BTreeSet<String>,
    unmatched: BTreeSet<String>,
}

impl<'a> Lexer<'a> {
    fn peek(&self) -> Option<char> {
        self.characters.get(self.position).copied()
    }

    fn next(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.position += 1;
        Some(character)
    }

    /// Reads up to `stop`, which is consumed, or to the end when there is none.
    fn until(&mut self, stop: Option<char>) -> Result<(String, Vec<String>), ExpandError> {
        let mut output = Output::default();
        while let Some(character) = self.peek() {
            if Some(character) == stop {
                self.position += 1;
                output.end_word();
                return Ok((output.text, output.words));
            }
            self.step(character, &mut output)?;
            output.check()?;
        }
        if stop.is_some() {
            return Err(ExpandError::MissingBrace);
        }
        output.end_word();
        Ok((output.text, output.words))
    }

    fn step(&mut self, character: char, output: &mut Output) -> Result<(), ExpandError> {
        match character {
            '$' => self.dollar()?.chars().for_each(|character| output.push(character)),
            '\'' if self.how.quotes != Quotes::Ignore => output.push_quoted(&self.single_quoted()?),
            '"' if self.how.quotes != Quotes::Ignore => output.push_quoted(&self.double_quoted()?),
            _ if character == self.how.escape => self.escaped(output),
            _ => {
                self.position += 1;
                output.push(character);
            }
        }
        Ok(())
    }

    /// The escape character takes the meaning from the next, and vanishes at the end.
    fn escaped(&mut self, output: &mut Output) {
        self.position += 1;
        let mut buffer = [0; 4];
        if self.keep_escapes {
            output.push_quoted(self.how.escape.encode_utf8(&mut buffer));
        }
        if let Some(character) = self.next() {
            output.push_quoted(character.encode_utf8(&mut buffer));
        }
    }

    fn single_quoted(&mut self) -> Result<String, ExpandError> {
        self.position += 1;
        let rest = &self.characters[self.position..];
        let length = rest
            .iter()
            .position(|character| *character == '\'')
            .ok_or(ExpandError::UnterminatedQuote("single-quote"))?;
        let inner: String = rest[..length].iter().collect();
        self.position += length + 1;
        Ok(if self.how.quotes == Quotes::Keep { format!("'{inner}'") } else { inner })
    }

    fn double_quoted(&mut self) -> Result<String, ExpandError> {
        self.position += 1;
        let mut inner = String::new();
        loop {
            match self.peek().ok_or(ExpandError::UnterminatedQuote("double-quote"))? {
                '"' => break,
                '$' => inner.push_str(&self.dollar()?),
                character if character == self.how.escape => self.escaped_in_quotes(&mut inner),
                character => {
                    self.position += 1;
                    inner.push(character);
                }
            }
            if inner.len() > EXPANDED_SIZE_BYTES_MAX {
                return Err(ExpandError::TooLong);
            }
        }
        self.position += 1;
        Ok(if self.how.quotes == Quotes::Keep { format!("\"{inner}\"") } else { inner })
    }

    /// Within double quotes only `"`, `$` and the escape character itself can be escaped.
    fn escaped_in_quotes(&mut self, inner: &mut String) {
        let escape = self.how.escape;
        self.position += 1;
        match self.peek() {
            None => {}
            Some(character) if matches!(character, '"' | '$') || character == escape => {
                if self.keep_escapes {
                    inner.push(escape);
                }
                self.position += 1;
                inner.push(character);
            }
            Some(_) => inner.push(escape),
        }
    }

    fn dollar(&mut self) -> Result<String, ExpandError> {
        self.position += 1;
        let value = if self.peek() == Some('{') { self.nested() } else { Ok(self.plain()) }?;
        self.spent.size_bytes += value.len();
        if self.spent.size_bytes > SUBSTITUTED_SIZE_BYTES_MAX {
            return Err(ExpandError::TooMuch);
        }
        Ok(value)
    }

    /// `{name…}`, one level deeper.
    fn nested(&mut self) -> Result<String, ExpandError> {
        self.position += 1;
        self.depth += 1;
        if self.depth > NESTING_DEPTH_MAX {
            return Err(ExpandError::TooDeep);
        }
        let value = self.braced();
        self.depth -= 1;
        value
    }

    /// `name`, which may be missing: a dollar alone.
    fn plain(&mut self) -> String {
        let name = self.name();
        if name.is_empty() {
            return "$".to_owned();
        }
        match self.value(&name) {
            Some(value) => value.to_owned(),
            None if self.how.keep_unset => format!("${name}"),
            None => String::new(),
        }
    }

    /// What follows `${`.
    fn braced(&mut self) -> Result<String, ExpandError> {
        match self.peek() {
            None => return Err(ExpandError::MissingBrace),
            Some('{' | '}' | ':') => return Err(ExpandError::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        match self.next().ok_or(ExpandError::MissingBrace)? {
            '}' => match self.value(&name) {
                Some(value) => Ok(value.to_owned()),
                None if self.how.keep_unset => Ok(format!("${{{name}}}")),
                None => Ok(String::new()),
            },
            ':' => {
                let modifier = self.next().ok_or(ExpandError::MissingBrace)?;
                if !matches!(modifier, '-' | '+' | '?') {
                    return Err(ExpandError::UnsupportedModifier(format!(":{modifier}")));
                }
                self.conditional(&name, modifier, true)
            }
            modifier @ ('-' | '+' | '?') => self.conditional(&name, modifier, false),
            modifier @ ('#' | '%') => self.trimmed(&name, modifier),
            '/' => self.replaced(&name),
            other => Err(ExpandError::UnsupportedModifier(other.to_string())),
        }
    }

    /// `${name-word}`, `${name+word}`, `${name?message}`; with a colon, an empty value counts as none.
    fn conditional(&mut self, name: &str, modifier: char, colon: bool) -> Result<String, ExpandError> {
        let word = self.raw(false, |lexer| lexer.until(Some('}')))?.0;
        let value = self.value(name);
        if value.is_none() && self.how.keep_unset {
            let colon = if colon { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{modifier}{word}}}"));
        }
        let unset = value.is_none();
        let present = value.filter(|value| !(colon && value.is_empty()));
        match (modifier, present) {
            ('-', present) => Ok(present.map_or(word, str::to_owned)),
            ('+', present) => Ok(present.map(|_| word).unwrap_or_default()),
            (_, Some(value)) => Ok(value.to_owned()),
            (_, None) if !word.is_empty() => {
                Err(ExpandError::Required { name: name.to_owned(), message: word })
            }
            (_, None) => {
                let state = if unset { "unset" } else { "empty" };
                let message = format!("is not allowed to be {state}");
                Err(ExpandError::Required { name: name.to_owned(), message })
            }
        }
    }

    /// `${name#pattern}` and its relatives: without the shortest (or, doubled, the longest) prefix or suffix.
    fn trimmed(&mut self, name: &str, modifier: char) -> Result<String, ExpandError> {
        let word = self.raw(true, |lexer| lexer.until(Some('}')))?.0;
        let Some(value) = self.value(name) else {
            let kept = format!("${{{name}{modifier}{word}}}");
            return Ok(if self.how.keep_unset { kept } else { String::new() });
        };
        let (pattern, longest) = word.strip_prefix(modifier).map_or((&*word, false), |rest| (rest, true));
        if modifier == '#' {
            pattern::trim_prefix(value, pattern, longest, &mut self.spent)
        } else {
            pattern::trim_suffix(value, pattern, longest, &mut self.spent)
        }
    }

    /// `${name/pattern/replacement}`, with `//` for all.
    fn replaced(&mut self, name: &str) -> Result<String, ExpandError> {
        let all = self.peek() == Some('/');
        if all {
            self.position += 1;
        }
        let pattern = self.raw(true, |lexer| {
            lexer.until(Some('/')).map_err(|error| match error {
                ExpandError::MissingBrace if lexer.peek().is_none() => ExpandError::MissingSlash,
                other => other,
            })
        })?;
        let replacement = self.raw(true, |lexer| lexer.until(Some('}')))?.0;
        let pattern = pattern.0;
        match self.value(name) {
            Some(value) if all => pattern::replace_all(value, &pattern, &replacement, &mut self.spent),
            Some(value) => pattern::replace_first(value, &pattern, &replacement, &mut self.spent),
            None if self.how.keep_unset => Ok(format!("${{{name}/{pattern}/{replacement}}}")),
            None => Ok(String::new()),
        }
    }

    /// Keeps escape characters, or not, while a part is read.
    fn raw<T>(&mut self, keep_escapes: bool, read: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::replace(&mut self.keep_escapes, keep_escapes);
        let result = read(self);
        self.keep_escapes = before;
        result
    }

    /// Letters, digits and underscores; or digits alone; or one special character.
    fn name(&mut self) -> String {
        let start = self.position;
        match self.peek() {
            Some(first) if first.is_numeric() => self.skip_while(char::is_numeric),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => self.position += 1,
            _ => self.skip_while(|character| character.is_alphanumeric() || character == '_'),
        }
        self.characters[start..self.position].iter().collect()
    }

    fn skip_while(&mut self, accept: impl Fn(char) -> bool) {
        while self.peek().is_some_and(&accept) {
            self.position += 1;
        }
    }

    fn value(&mut self, name: &str) -> Option<&'a str> {
        let value = self.variables.get(name);
        let seen = if value.is_some() { &mut self.matched } else { &mut self.unmatched };
        seen.insert(name.to_owned());
        value
    }
}
