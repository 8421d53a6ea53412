use proptest::prelude::*;

use super::*;
use crate::{CopyAction, FileInput, InputIndex};

#[test]
fn clean_is_go_s_clean() {
    let cases = [
        ("", "."),
        (".", "."),
        ("/", "/"),
        ("a", "a"),
        ("a/", "a"),
        ("a//b", "a/b"),
        ("./a/./b", "a/b"),
        ("a/../b", "b"),
        ("../a", "../a"),
        ("a/../../b", "../b"),
        ("/../a", "/a"),
        ("/a/../..", "/"),
    ];
    for (path, expected) in cases {
        assert_eq!(clean(path), expected, "{path}");
    }
    assert_eq!(clean_rooted("../../a/"), "/a");
}

#[test]
fn a_dockerignore_excludes_what_docker_excludes() {
    // lines, what is excluded, what is not
    let cases: &[(&[&str], &[&str], &[&str])] = &[
        (&["node_modules"], &["node_modules", "node_modules/x/y"], &["deep/node_modules", "node_modules2"]),
        (
            &["**/node_modules"],
            &["node_modules", "a/b/node_modules", "a/node_modules/x"],
            &["my_node_modules"],
        ),
        (&["a/", "/b", "/c/", "/**", "!/a"], &["a", "a/x"], &["b", "c", "c/x", "x/a"]),
        (&["*.md", "!README.md"], &["x.md"], &["README.md", "a/x.md"]),
        (&["!README.md", "*.md"], &["README.md"], &[]),
        (&["*", "!src"], &["a", "b/c"], &["src", "src/x/y"]),
        (&["a", "!a/keep", "a/keep/not"], &["a", "a/x", "a/keep/not"], &["a/keep", "a/keep/x"]),
        (&["**"], &["a", "a/b"], &[]),
        (&["a/**"], &["a/b", "a/b/c"], &["a", "ab"]),
        (&["a/**/z"], &["a/z", "a/b/z", "a/b/c/z", "a/z/x"], &["az", "a/bz"]),
        (&["**.log"], &["x.log", "a/x.log", "a/.log"], &["x.logs"]),
        (&["**log"], &["log", "xlog", "a/xlog"], &["a/logs"]),
        (&["a**b"], &["ab", "ax/b"], &["axb"]),
        (&["?.c", "[a-c]x", "[^a]y"], &["a.c", "é.c", "bx", "by"], &["ab.c", "dx", "ay", "/.c"]),
        (&[r"\#x", r"\*", r"a\?"], &["#x", "*", "a?"], &["x", "ab"]),
        (&["a+b", "a.c", "(x)", "$y", "^z"], &["a+b", "a.c", "(x)", "$y", "^z"], &["aab", "abc"]),
        (&["a/../b", "./c", "../d"], &["b", "c"], &["a", "d"]),
        (&["", "  ", "/", "  x  "], &["x"], &["a"]),
        (&["dir/*"], &["dir/x", "dir/x/y"], &["dir"]),
        (&["*/*/x"], &["a/b/x", "a/b/x/y"], &["x", "a/x"]),
        // A `!` for what nothing excludes yet is not remembered for what is below; BuildKit does the same.
        (&["**/*.log", "!logs"], &["logs/x.log"], &["logs"]),
    ];
    for (lines, excluded, kept) in cases {
        let patterns = Patterns::new(lines).unwrap();
        for path in *excluded {
            assert!(patterns.matches(path), "{lines:?} excludes {path}");
        }
        for path in *kept {
            assert!(!patterns.matches(path), "{lines:?} keeps {path}");
        }
    }
}

#[test]
fn a_walk_leaves_out_what_nothing_can_take_back() {
    // lines, a directory, whether it is excluded, whether all below is as it is
    let cases: &[(&[&str], &str, bool, bool)] = &[
        (&["a"], "a", true, true),
        (&["a"], "b", false, true),
        (&["a/b"], "a", false, false),
        (&["a", "!a/b/c"], "a", true, false),
        (&["a", "!a/b/c"], "a/x", true, true),
        (&["a", "!a/b/c"], "a/b", true, false),
        (&["a", "!b"], "a", true, true),
        (&["a", "!**/keep"], "a", true, false),
        (&["a", "!x*/keep"], "a", true, true),
        (&["*", "!src"], "src", false, true),
        (&["**/*.o"], "a", false, false),
    ];
    for (lines, dir, matched, settled) in cases {
        let verdict = Patterns::new(lines).unwrap().verdict_from_root(dir, true);
        assert_eq!((verdict.matched, verdict.settled), (*matched, *settled), "{lines:?} {dir}");
    }
}

#[test]
fn what_is_not_a_pattern_is_refused() {
    for text in ["[a", "[", "[]", "[]a]", "[^]", "[a-]", "[-a]", "[z-a]", r"a\", r"[\"] {
        assert!(matches!(Patterns::new(&[text]), Err(PatternError::Syntax { .. })), "{text}");
        assert!(matches!(Glob::new(text), Err(PatternError::Syntax { .. })), "{text}");
    }
    assert_eq!(Patterns::new(&["x", " ! "]).unwrap_err(), PatternError::NothingNegated);
    let long = "a".repeat(PATTERN_LENGTH_MAX);
    assert!(Patterns::new(&[&long]).is_ok());
    assert_eq!(
        Glob::new(&format!("{long}a")).unwrap_err(),
        PatternError::TooLong { found: PATTERN_LENGTH_MAX + 1 }
    );
    assert!(Patterns::new(&vec!["a"; PATTERNS_MAX]).is_ok());
    assert!(matches!(Patterns::new(&vec!["a"; PATTERNS_MAX + 1]), Err(PatternError::TooMany { .. })));
}

#[test]
fn a_glob_matches_component_by_component() {
    // pattern, what matches, what does not
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("/a/*.c", &["a/x.c", "/a/.c"], &["a/b/x.c", "a/x.h", "a"]),
        ("*", &["a", "é"], &["a/b", ""]),
        ("**/x", &["a/x"], &["x", "a/b/x"]),
        ("a?c", &["abc", "aéc"], &["a/c", "ac"]),
        ("[^a]b", &["bb"], &["ab", "/b"]),
        (r"\*\[", &["*["], &["a["]),
        ("/../a/./b/", &["a/b"], &["b"]),
        ("[a-c]]", &["b]"], &["b"]),
    ];
    for (pattern, matching, other) in cases {
        let glob = Glob::new(pattern).unwrap();
        for path in *matching {
            assert!(glob.matches(path), "{pattern} matches {path}");
        }
        for path in *other {
            assert!(!glob.matches(path), "{pattern} does not match {path}");
        }
    }
    assert!(Glob::new("?").unwrap().matches(b"\xff"));
    assert!(!Glob::new("?").unwrap().matches(b"\xff\xff"));
}

#[test]
fn a_glob_knows_where_to_look() {
    let glob = Glob::new(r"/src/\*x/*.c").unwrap();
    assert_eq!((glob.is_literal(), glob.literal_prefix().as_str(), glob.depth()), (false, "src/*x", 3));
    for (dir, walked) in
        [("", true), ("src", true), ("src/*x", true), ("src/y", false), ("src/*x/a.c", false)]
    {
        assert_eq!(glob.may_match_below(dir), walked, "{dir}");
    }
    let below = glob.below_literal_prefix();
    assert_eq!((below.depth(), below.matches_name(0, "a.c"), below.matches_name(1, "a.c")), (1, true, false));
    let literal = Glob::new("/a/b").unwrap();
    assert_eq!((literal.is_literal(), literal.literal_prefix().as_str()), (true, "a/b"));
}

#[test]
fn hostile_patterns_take_no_longer_than_others() {
    let pattern = format!("{}x", "**/*a".repeat(200));
    let path = "a/".repeat(1000);
    assert!(!Patterns::new(&[&pattern]).unwrap().matches(&path));
}

#[test]
fn a_selection_is_read_off_the_action() {
    // source, with parents; base, whether something is matched below it, a path that must exist
    let cases = [
        ("/a/b", false, "/a/b", false, None),
        ("/a/*/b", false, "/a", true, None),
        ("/", false, "/", false, None),
        ("/a/b", true, "/", false, Some("a/b")),
        ("/a/./b/c", true, "/a", false, Some("b/c")),
        ("/a/./**/c", true, "/a", false, None),
        ("/a*/./c", true, "/", true, None),
        ("/a/./", true, "/a", false, None),
    ];
    for (src, parents, base, matched, required) in cases {
        let selection = CopySelection::new(&action(src, parents)).unwrap();
        let found = (selection.base.as_str(), selection.glob.is_some(), selection.required.as_deref());
        assert_eq!(found, (base, matched, required), "{src}");
        assert_eq!(selection.include.is_some(), parents, "{src}");
    }
}

fn action(src: &str, parents: bool) -> CopyAction {
    CopyAction {
        from: FileInput::Input(InputIndex(0)),
        src: src.to_owned(),
        dest: "/".to_owned(),
        owner: None,
        mode: None,
        follow_symlinks: true,
        dir_copy_contents: true,
        attempt_unpack: false,
        create_dest_path: true,
        allow_wildcard: true,
        allow_empty_wildcard: true,
        include: Vec::new(),
        exclude: Vec::new(),
        parents,
        always_replace: false,
        timestamp_ns: None,
    }
}

/// A matcher that is right because it is simple: it tries everything.
mod naive {
    pub(super) fn matches(pattern: &str, path: &str, ignore: bool) -> bool {
        let plain_after_stars = pattern.strip_prefix("**").filter(|rest| {
            ignore && !rest.is_empty() && !rest.starts_with('/') && !rest.contains(['*', '?', '[', ']', '\\'])
        });
        if let Some(rest) = plain_after_stars {
            return path.ends_with(rest);
        }
        let (pattern, path): (Vec<_>, Vec<_>) = (pattern.chars().collect(), path.chars().collect());
        at(&pattern, &path, ignore)
    }

    fn at(pattern: &[char], path: &[char], ignore: bool) -> bool {
        match pattern {
            [] => path.is_empty(),
            ['*', '*', rest @ ..] if ignore => {
                let rest = rest.strip_prefix(&['/']).unwrap_or(rest);
                let after_slash = |cut: usize| path[cut] == '/' && at(rest, &path[cut + 1..], ignore);
                rest.is_empty() || at(rest, path, ignore) || (0..path.len()).any(after_slash)
            }
            ['*', rest @ ..] => {
                let end = path.iter().position(|&c| c == '/').unwrap_or(path.len());
                (0..=end).any(|cut| at(rest, &path[cut..], ignore))
            }
            ['?', rest @ ..] => path.first().is_some_and(|&c| c != '/') && at(rest, &path[1..], ignore),
            ['[', '^', not, ']', rest @ ..] => {
                path.first().is_some_and(|c| c != not) && at(rest, &path[1..], ignore)
            }
            ['[', a, b, ']', rest @ ..] => {
                path.first().is_some_and(|c| c == a || c == b) && at(rest, &path[1..], ignore)
            }
            ['\\', c, rest @ ..] | [c, rest @ ..] => path.first() == Some(c) && at(rest, &path[1..], ignore),
        }
    }

    /// What a list says: each pattern's standing is handed down from directory to directory.
    pub(super) fn excluded(patterns: &[String], path: &str) -> bool {
        standing(patterns, path).0
    }

    fn standing(patterns: &[String], path: &str) -> (bool, Vec<bool>) {
        let above = path
            .rsplit_once('/')
            .map_or(vec![false; patterns.len()], |(above, _)| standing(patterns, above).1);
        let mut excluded = false;
        let mut standing = above;
        for (pattern, stands) in patterns.iter().zip(&mut standing) {
            let (takes_back, text) =
                pattern.strip_prefix('!').map_or((false, pattern.as_str()), |rest| (true, rest));
            *stands = *stands || (takes_back == excluded && matches(text, path, true));
            if *stands {
                excluded = !takes_back;
            }
        }
        (excluded, standing)
    }
}

fn component() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop::sample::select(vec!["a", "b", "*", "?", "**", "[ab]", "[^a]", r"\*", r"\a", "."]),
        1..4,
    )
    .prop_map(|parts| parts.concat())
    // What cleaning would change is tested by its own table.
    .prop_filter("cleaned away", |text| text.chars().any(|c| c != '.'))
}

fn pattern() -> impl Strategy<Value = String> {
    let path = prop::collection::vec(component(), 1..4).prop_map(|components| components.join("/"));
    (any::<bool>(), path).prop_map(|(negated, path)| if negated { format!("!{path}") } else { path })
}

fn path() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "b", "ab", "ba", "aba", "*", "a.b"]);
    prop::collection::vec(name, 1..5).prop_map(|names| names.join("/"))
}

proptest! {
    #[test]
    fn lists_agree_with_the_naive_matcher(patterns in prop::collection::vec(pattern(), 1..5), path in path()) {
        let compiled = Patterns::new(&patterns).unwrap();
        prop_assert_eq!(compiled.matches(&path), naive::excluded(&patterns, &path));
    }

    #[test]
    fn globs_agree_with_the_naive_matcher(pattern in pattern(), path in path()) {
        let pattern = pattern.trim_start_matches('!');
        // A negated class would match the slash in the naive matcher, which does not split.
        prop_assume!(!pattern.contains("[^"));
        prop_assert_eq!(Glob::new(pattern).unwrap().matches(&path), naive::matches(pattern, &path, false));
    }

    #[test]
    fn a_settled_directory_decides_for_all_below(
        patterns in prop::collection::vec(pattern(), 1..5),
        dir in path(),
        below in path(),
    ) {
        let compiled = Patterns::new(&patterns).unwrap();
        let verdict = compiled.verdict_from_root(&dir, true);
        if verdict.settled {
            prop_assert_eq!(compiled.matches(format!("{dir}/{below}")), verdict.matched);
        }
    }

    #[test]
    fn no_text_makes_compiling_or_matching_panic(text in ".{0,40}", path in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(patterns) = Patterns::new(&[&text]) {
            patterns.verdict_from_root(&path, true);
        }
        if let Ok(glob) = Glob::new(&text) {
            glob.matches(&path);
        }
    }
}
