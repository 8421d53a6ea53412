//! `docs/commands.md` says of each command and flag how it stands; the definitions of the command line and it must name the same.
//!
//! `UPDATE_DOCS=1 cargo nextest run -p rbuild args::tidy` writes into the file what is missing, as done, and takes out what is gone.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

/// A command and one of its flags or arguments; of the command itself, none.
type Name = (String, String);

/// A command, and the names of its flags.
fn flags(command: &clap::Command) -> Vec<String> {
    let shown = command.get_arguments().filter(|flag| !flag.is_hide_set() && !flag.is_global_set());
    let named = shown.filter(|flag| !matches!(flag.get_id().as_str(), "help" | "version"));
    named.map(flag_name).collect()
}

fn flag_name(flag: &clap::Arg) -> String {
    let short = flag.get_short().map(|short| format!("`-{short}`"));
    let long = flag.get_long().map(|long| format!("`--{long}`"));
    let names: Vec<String> = short.into_iter().chain(long).collect();
    if names.is_empty() {
        let values = flag.get_value_names().unwrap_or_default().iter();
        return format!("`{}`", values.map(clap::builder::Str::as_str).collect::<Vec<_>>().join(" "))
            .replace('|', "/");
    }
    names.join(", ")
}

/// All that is defined, in the order of `--help`. A command that has the flags of one higher up, as `image ls`
/// has those of `images`, is named alone.
fn defined() -> Vec<Name> {
    let root = super::definitions();
    let above: BTreeSet<Vec<String>> = root.get_subcommands().map(flags).collect();
    let mut names = Vec::new();
    for command in root.get_subcommands() {
        add(&mut names, command.get_name(), &flags(command));
        for below in command.get_subcommands() {
            let own = flags(below);
            let is_same = above.contains(&own);
            let path = format!("{} {}", command.get_name(), below.get_name());
            add(&mut names, &path, if is_same { &[] } else { &own });
        }
    }
    names
}

fn add(names: &mut Vec<Name>, command: &str, flags: &[String]) {
    let command = format!("`{command}`");
    names.push((command.clone(), String::new()));
    names.extend(flags.iter().map(|flag| (command.clone(), flag.clone())));
}

/// One line of the file.
struct Row {
    name: Name,
    state: String,
}

impl Row {
    fn parse(line: &str) -> Option<Self> {
        let mut cells = line.strip_prefix("| `")?.strip_suffix('|')?.split('|').map(str::trim);
        let command = format!("`{}", cells.next()?);
        let (flag, state) = (cells.next()?.to_owned(), cells.next()?.to_owned());
        Some(Self { name: (command, flag), state })
    }

    fn is_refused(&self) -> bool {
        self.state.starts_with("not supported")
    }

    fn is_known_state(&self) -> bool {
        ["done", "differs: ", "not supported: ", "as `"].iter().any(|state| self.state.starts_with(state))
    }
}

fn line((command, flag): &Name) -> String {
    format!("| {command} | {flag} | done |")
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/commands.md")
}

/// The file without what is not defined, and with what is.
fn updated(text: &str, defined: &[Name]) -> String {
    let all: BTreeSet<&Name> = defined.iter().collect();
    let stays = |line: &&str| Row::parse(line).is_none_or(|row| row.is_refused() != all.contains(&row.name));
    let mut lines: Vec<String> = text.lines().filter(stays).map(str::to_owned).collect();
    for name in defined {
        let rows = || lines.iter().map(|line| Row::parse(line).map(|row| row.name));
        if rows().any(|row| row.as_ref() == Some(name)) {
            continue;
        }
        let last = rows().rposition(|row| row.is_some_and(|row| row.0 == name.0));
        let last = last.or_else(|| rows().rposition(|row| row.is_some()));
        lines.insert(last.map_or(lines.len(), |at| at + 1), line(name));
    }
    lines.join("\n") + "\n"
}

#[test]
fn each_command_and_flag_is_in_docs_commands() {
    let defined = defined();
    let text = fs::read_to_string(path()).unwrap();
    #[expect(clippy::disallowed_methods, reason = "the switch of CONTRIBUTING.md that writes the file")]
    if std::env::var_os("UPDATE_DOCS").is_some() {
        return fs::write(path(), updated(&text, &defined)).unwrap();
    }
    let rows: Vec<Row> = text.lines().filter_map(Row::parse).collect();
    let told: BTreeSet<&Name> = rows.iter().filter(|row| !row.is_refused()).map(|row| &row.name).collect();
    let all: BTreeSet<&Name> = defined.iter().collect();
    let missing: String =
        defined.iter().filter(|name| !told.contains(name)).map(|name| line(name) + "\n").collect();
    let stale: Vec<_> =
        rows.iter().filter(|row| row.is_refused() == all.contains(&row.name)).map(|row| &row.name).collect();
    let help = "`UPDATE_DOCS=1 cargo nextest run -p rbuild args::tidy` mends docs/commands.md";
    assert!(missing.is_empty(), "{help}: these lines are missing\n{missing}");
    assert!(stale.is_empty(), "{help}: these lines are not true any longer\n{stale:#?}");
    let odd: Vec<_> = rows.iter().filter(|row| !row.is_known_state()).map(|row| &row.name).collect();
    assert!(odd.is_empty(), "a state is `done`, `differs: …`, `not supported: …` or `as …`: {odd:#?}");
    let twice = rows.len() - rows.iter().map(|row| &row.name).collect::<BTreeSet<_>>().len();
    assert_eq!(twice, 0, "lines that are there twice");
}

#[test]
fn an_update_adds_and_takes_away() {
    let name = |command: &str, flag: &str| (format!("`{command}`"), flag.to_owned());
    let text =
        "# C\n\n| `a` |  | done |\n| `a` | `--gone` | done |\n| `a` | `--no` | not supported: x |\n\nend\n";
    let defined = [name("a", ""), name("a", "`--new`"), name("a", "`--no`")];
    let expected = "# C\n\n| `a` |  | done |\n| `a` | `--new` | done |\n| `a` | `--no` | done |\n\nend\n";
    assert_eq!(updated(text, &defined), expected);
}
