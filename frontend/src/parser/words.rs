//! How a line is split into words: three ways, none of which expands anything.

const fn is_separator(character: char) -> bool {
    matches!(character, '\t' | '\x0b' | '\x0c' | '\r' | ' ')
}

/// The first word and what follows it.
pub(crate) fn split_first(text: &str) -> (&str, &str) {
    match text.find(is_separator) {
        Some(at) => (&text[..at], text[at..].trim_start_matches(is_separator)),
        None => (text, ""),
    }
}

/// Words between white space; quotes mean nothing.
pub(crate) fn split_plain(text: &str) -> Vec<String> {
    text.split(is_separator).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// The flags at the front, their quotes and backslashes resolved, and what follows them. A bare `--` ends them.
pub(super) fn split_flags(text: &str) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let (word, length) = flag(rest);
        rest = rest[length..].trim_start();
        if word == "--" {
            break;
        }
        flags.push(word);
    }
    (flags, rest)
}

/// One flag, and how many bytes it takes.
fn flag(text: &str) -> (String, usize) {
    let mut word = String::new();
    let mut quote = None;
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match (character, quote) {
            ('\\', _) => word.extend(characters.next().map(|(_, escaped)| escaped)),
            (_, Some(open)) if character == open => quote = None,
            ('"' | '\'', None) => quote = Some(character),
            (_, None) if character.is_whitespace() => return (word, at),
            _ => word.push(character),
        }
    }
    (word, text.len())
}

/// Words between white space that is not quoted. Quotes and escapes stay for the expansion to resolve; an escape at
/// the very end vanishes.
pub(crate) fn split_quoted(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character == escape && quote != Some('\'') {
            if let Some(escaped) = characters.next() {
                word.extend([character, escaped]);
            }
            continue;
        }
        match quote {
            Some(open) if character == open => quote = None,
            None if matches!(character, '"' | '\'') => quote = Some(character),
            None if character.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            _ => {}
        }
        word.push(character);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}
