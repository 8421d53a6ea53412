//! The patterns of `${X#p}`, `${X%p}` and `${X/p/r}`: `*`, `?` and literal characters.
//!
//! `*` and `?` do not match a line break. A match is found by following all states of the pattern at once, so that
//! its cost is bounded by the length of the value times that of the pattern, for each place it may start at.

use super::{EXPANDED_SIZE_BYTES_MAX, ExpandError, Spent};

/// The most steps the substitutions of a word may take.
const STEPS_MAX: usize = 5_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Literal(char),
    One,
    Many,
}

struct Matcher<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    spent: &'a mut Spent,
}

/// The value without the shortest or longest prefix that matches.
pub(super) fn trim_prefix(
    value: &str,
    pattern: &str,
    longest: bool,
    spent: &mut Spent,
) -> Result<String, ExpandError> {
    let characters: Vec<char> = value.chars().collect();
    let mut matcher = Matcher::new(pattern, spent)?;
    let end = matcher.end(&characters, longest)?.unwrap_or(0);
    Ok(characters[end..].iter().collect())
}

/// The value without the shortest or longest suffix that matches: a prefix, read backwards.
pub(super) fn trim_suffix(
    value: &str,
    pattern: &str,
    longest: bool,
    spent: &mut Spent,
) -> Result<String, ExpandError> {
    let reversed: Vec<char> = value.chars().rev().collect();
    let mut matcher = Matcher::new(pattern, spent)?;
    matcher.tokens.reverse();
    let end = matcher.end(&reversed, longest)?.unwrap_or(0);
    Ok(reversed[end..].iter().rev().collect())
}

/// The value with the leftmost, longest match replaced.
pub(super) fn replace_first(
    value: &str,
    pattern: &str,
    replacement: &str,
    spent: &mut Spent,
) -> Result<String, ExpandError> {
    let characters: Vec<char> = value.chars().collect();
    let Some((start, end)) = Matcher::new(pattern, spent)?.find(&characters, 0)? else {
        return Ok(value.to_owned());
    };
    let mut result: String = characters[..start].iter().collect();
    result.push_str(replacement);
    result.extend(&characters[end..]);
    check(result)
}

/// The value with every match replaced. `$0` in the replacement is the match, any other `$name` is empty and `$$`
/// is a dollar, because BuildKit hands the replacement to Go's regular expressions.
pub(super) fn replace_all(
    value: &str,
    pattern: &str,
    replacement: &str,
    spent: &mut Spent,
) -> Result<String, ExpandError> {
    let characters: Vec<char> = value.chars().collect();
    let mut matcher = Matcher::new(pattern, spent)?;
    let (mut result, mut copied, mut position) = (String::new(), 0, 0);
    while position <= characters.len() {
        let Some((start, end)) = matcher.find(&characters, position)? else { break };
        result.extend(&characters[copied..start]);
        if end > copied || start == 0 {
            push_template(&mut result, replacement, &characters[start..end]);
        }
        result = check(result)?;
        copied = end;
        position = end.max(position + 1);
    }
    result.extend(&characters[copied.min(characters.len())..]);
    check(result)
}

fn check(result: String) -> Result<String, ExpandError> {
    if result.len() > EXPANDED_SIZE_BYTES_MAX { Err(ExpandError::TooLong) } else { Ok(result) }
}

fn push_template(result: &mut String, template: &str, matched: &[char]) {
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
            continue;
        }
        let word = |text: &str| {
            text.find(|character: char| !(character.is_alphanumeric() || character == '_'))
                .unwrap_or(text.len())
        };
        let (name, after) = match rest.strip_prefix('{') {
            Some(inner) if inner[word(inner)..].starts_with('}') => {
                (&inner[..word(inner)], &inner[word(inner) + 1..])
            }
            Some(_) => ("", rest),
            None => rest.split_at(word(rest)),
        };
        match name {
            "" => result.push('$'),
            "0" => result.extend(matched),
            _ => {}
        }
        rest = after;
    }
    result.push_str(rest);
}

impl<'a> Matcher<'a> {
    fn new(pattern: &'a str, spent: &'a mut Spent) -> Result<Self, ExpandError> {
        let mut tokens = Vec::with_capacity(pattern.len());
        let mut characters = pattern.chars().peekable();
        while let Some(character) = characters.next() {
            let token = match character {
                '*' => Token::Many,
                '?' => Token::One,
                '\\' => match characters.next() {
                    // The escape was needed to get these past the braces; it is no part of the pattern.
                    Some(escaped @ ('}' | '/' | '*' | '?' | '\\')) => Token::Literal(escaped),
                    other => {
                        let escaped = other.map(String::from).unwrap_or_default();
                        return Err(ExpandError::InvalidEscape { pattern: pattern.to_owned(), escaped });
                    }
                },
                literal => Token::Literal(literal),
            };
            // Two in a row match what one does.
            if !(token == Token::Many && tokens.last() == Some(&Token::Many)) {
                tokens.push(token);
            }
        }
        Ok(Self { text: pattern, tokens, spent })
    }

    /// The leftmost longest match at or after `from`.
    fn find(&mut self, value: &[char], from: usize) -> Result<Option<(usize, usize)>, ExpandError> {
        for start in from..=value.len() {
            if let Some(length) = self.end(&value[start..], true)? {
                return Ok(Some((start, start + length)));
            }
        }
        Ok(None)
    }

    /// Where the shortest or the longest match that begins at the front ends.
    fn end(&mut self, value: &[char], longest: bool) -> Result<Option<usize>, ExpandError> {
        let mut states = vec![false; self.tokens.len() + 1];
        states[0] = true;
        self.skip_many(&mut states);
        let mut found = None;
        for position in 0..=value.len() {
            if states[self.tokens.len()] {
                found = Some(position);
                if !longest {
                    break;
                }
            }
            let Some(character) = value.get(position) else { break };
            self.spent.match_steps += states.len();
            if self.spent.match_steps > STEPS_MAX {
                return Err(ExpandError::PatternTooComplex(self.text.to_owned()));
            }
            states = self.advance(&states, *character);
            if states.iter().all(|state| !state) {
                break;
            }
        }
        Ok(found)
    }

    fn advance(&self, states: &[bool], character: char) -> Vec<bool> {
        let mut next = vec![false; states.len()];
        for (index, token) in self.tokens.iter().enumerate().filter(|(index, _)| states[*index]) {
            match token {
                Token::Literal(literal) if *literal == character => next[index + 1] = true,
                Token::One if character != '\n' => next[index + 1] = true,
                Token::Many if character != '\n' => next[index] = true,
                _ => {}
            }
        }
        self.skip_many(&mut next);
        next
    }

    /// A `*` may match nothing.
    fn skip_many(&self, states: &mut [bool]) {
        for (index, token) in self.tokens.iter().enumerate() {
            if states[index] && *token == Token::Many {
                states[index + 1] = true;
            }
        }
    }
}
