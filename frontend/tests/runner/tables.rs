//! Tables: `testdata/expand/*.txt` and `testdata/dockerignore/*.txt`.

use std::collections::BTreeMap;
use std::fs;

use rbuild_frontend::dockerignore;
use rbuild_frontend::expand::{Expander, Quotes, Variables};

struct Map(BTreeMap<String, String>);

impl Variables for Map {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

fn tables(folder: &str) -> Vec<(String, String)> {
    let mut tables: Vec<(String, String)> = fs::read_dir(crate::testdata(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            assert_eq!(path.extension().unwrap(), "txt", "{} is not read", path.display());
            (path.display().to_string(), fs::read_to_string(&path).unwrap())
        })
        .collect();
    tables.sort();
    assert!(!tables.is_empty());
    tables
}

/// `word => result`, `word => [words]` or `word => error: message`. Lines `set A=b`, `unset A` and `mode …` hold for
/// what follows. `␤` stands for a line break, `␠` for a space at an end.
#[test]
fn words_expand_as_the_tables_say() {
    for (name, table) in tables("expand") {
        let mut variables = Map(BTreeMap::new());
        let mut expander = Expander::new('\\');
        for (number, line) in table.lines().enumerate() {
            if line.is_empty() || line.starts_with("# ") {
                continue;
            }
            if let Some((key, value)) = line.strip_prefix("set ").and_then(|pair| pair.split_once('=')) {
                variables.0.insert(key.to_owned(), unescape(value));
            } else if let Some(mode) = line.strip_prefix("mode ") {
                expander = mode_of(mode);
            } else {
                let (word, expected) = line.split_once(" => ").unwrap_or((line.trim_end_matches(" =>"), ""));
                let actual = match expander.expand(&unescape(word), &variables) {
                    Ok(expanded) if expected.starts_with('[') => format!("[{}]", expanded.words.join("|")),
                    Ok(expanded) => expanded.text,
                    Err(error) => format!("error: {error}"),
                };
                assert_eq!(actual, unescape(expected), "{name}:{}: {word}", number + 1);
            }
        }
    }
}

fn unescape(text: &str) -> String {
    text.replace('␤', "\n").replace('␠', " ")
}

fn mode_of(text: &str) -> Expander {
    let plain = Expander::new('\\');
    match text {
        "plain" => plain,
        "backtick" => Expander::new('`'),
        "display" => Expander { quotes: Quotes::Keep, keep_unset: true, ..plain },
        "document" => Expander { quotes: Quotes::Ignore, ..plain },
        "raw" => Expander { quotes: Quotes::Keep, keep_escapes: true, keep_unset: true, ..plain },
        _ => panic!("unknown mode `{text}`"),
    }
}

/// `line => rule`, `line =>` where a line gives none, `line => error`.
#[test]
fn dockerignore_lines_give_the_rules_of_the_table() {
    for (name, table) in tables("dockerignore") {
        for (number, line) in table.lines().enumerate() {
            let Some((text, expected)) = line.split_once("=>") else { continue };
            let text = text.strip_suffix(' ').unwrap_or(text);
            let actual = match dockerignore::parse(unescape(text).as_bytes()) {
                Ok(rules) => rules.join(" "),
                Err(error) => format!("error: {error}"),
            };
            assert_eq!(actual, expected.trim(), "{name}:{}: {text}", number + 1);
        }
    }
}

#[test]
fn dockerignore_keeps_the_order_of_rules() {
    let text = b"\xef\xbb\xbf# comment\r\n*.md\r\n!README.md\r\n\r\n /docs/ \n";
    assert_eq!(dockerignore::parse(text).unwrap(), ["*.md", "!README.md", "docs"]);
}
