//! What holds of any text.

use proptest::prelude::*;
use rbuild_frontend::expand::{ExpandError, Expander, NoVariables};
use rbuild_frontend::{Options, dockerignore, lower, parser};
use rbuild_image::Platform;

use crate::golden::check_invariants;
use crate::images::Fixtures;

/// Parts of Dockerfiles, so that random text gets past the first line.
const PARTS: [&str; 58] = [
    "FROM scratch\n",
    "FROM alpine AS a\n",
    "FROM a AS b\n",
    "FROM $X\n",
    "FROM onbuild\n",
    "RUN ",
    "COPY ",
    "ADD ",
    "ENV ",
    "ARG ",
    "WORKDIR ",
    "USER ",
    "CMD ",
    "ENTRYPOINT ",
    "LABEL ",
    "EXPOSE ",
    "VOLUME ",
    "ONBUILD ",
    "HEALTHCHECK ",
    "SHELL ",
    "STOPSIGNAL ",
    "--from=a ",
    "--link ",
    "--parents ",
    "--chown=a:b ",
    "--chmod=u+x ",
    "--mount=type=cache,target=/x ",
    "--mount=type=secret,id=a,env=B ",
    "--mount=type=bind,from=b ",
    "--exclude=*.x ",
    "--interval=1s ",
    "a ",
    "a=b ",
    "A=$A ",
    "${X:-y} ",
    "${X%b*} ",
    "\"q\" ",
    "'q' ",
    "\\\n",
    "\n",
    "\n# c\n",
    "<<EOF ",
    "<<-'E' ",
    "\nEOF\n",
    "\nE\n",
    "[\"a\", \"b\"]",
    "[",
    "/x ",
    "80/tcp ",
    "CMD true ",
    "NONE ",
    "https://h/x ",
    "git@h:x.git#m ",
    "$",
    "\\",
    "`",
    "# escape=`\n",
    "é",
];

fn dockerfile() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&PARTS[..]), 0..40)
        .prop_map(|parts| format!("FROM alpine\n{}", parts.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_makes_the_parser_panic(text in any::<Vec<u8>>()) {
        drop(parser::parse(&text));
        drop(dockerignore::parse(&text));
    }

    #[test]
    fn nothing_makes_the_expansion_panic(word in "[a${}:/#%?*+'\"\\\\ -]{0,24}") {
        drop(Expander::new('\\').expand(&word, &NoVariables));
        drop(Expander::new('`').expand(&word, &NoVariables));
    }

    #[test]
    fn what_is_lowered_keeps_its_promises(text in dockerfile()) {
        let options = Options::new(Platform::new("linux", "amd64", None), "");
        if let Ok(lowered) = lower(text.as_bytes(), &options, &Fixtures) {
            check_invariants(&text, &lowered);
        }
    }

    #[test]
    fn ranges_are_lines_of_the_file(text in dockerfile()) {
        let options = Options::new(Platform::new("linux", "amd64", None), "");
        let lines = u32::try_from(text.lines().count()).unwrap();
        if let Err(error) = lower(text.as_bytes(), &options, &Fixtures) && let Some(range) = error.range() {
            prop_assert!(1 <= range.line_first && range.line_first <= range.line_last);
            prop_assert!(range.line_last <= lines, "{range:?} of {lines}");
        }
    }
}

/// A thousand instructions in two hundred stages are lowered, and the graph is no larger than that.
#[test]
fn a_large_file_stays_small() {
    let mut text = String::from("FROM alpine AS s0\n");
    for stage in 1..200 {
        text.push_str(&format!(
            "FROM s{} AS s{stage}\nENV A{stage}=$A{}\nRUN a{stage}\n",
            stage - 1,
            stage - 1
        ));
        text.push_str(&format!("COPY --from=s{} /x /y{stage}\nLABEL a={stage}\n", stage / 2));
    }
    let options = Options::new(Platform::new("linux", "amd64", None), "");
    let lowered = lower(text.as_bytes(), &options, &Fixtures).unwrap();
    assert_eq!(lowered.definition.vertices().len(), 1 + 2 * 199);
    check_invariants("large", &lowered);
}

#[test]
fn variables_cannot_grow_for_ever() {
    let doubled = "ENV A=$A$A\n".repeat(100);
    let text = format!("FROM scratch\nENV A=aaaaaaaa\n{doubled}");
    let options = Options::new(Platform::new("linux", "amd64", None), "");
    let error = lower(text.as_bytes(), &options, &Fixtures).unwrap_err();
    assert!(error.to_string().ends_with("the result is longer than 1048576 bytes"), "{error}");
}

/// What is thrown away costs as much as what is kept.
#[test]
fn words_cannot_cost_without_bound() {
    let part = format!("${{unset+${{unset:-{}}}}}", "a".repeat(10_000));
    let expand = |parts: usize| Expander::new('\\').expand(&part.repeat(parts), &NoVariables);
    assert_eq!(expand(4).map(|expanded| expanded.text), Ok(String::new()));
    assert_eq!(expand(500), Err(ExpandError::TooMuch));
}
