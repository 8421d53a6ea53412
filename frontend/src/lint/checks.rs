//! Checks that look at a file, a stage or a word from outside. Those that come up while an instruction is lowered are
//! where it is lowered.

use std::collections::HashSet;

use rbuild_image::{Platform, Reference};
use rbuild_llb::SourceRange;
use rbuild_llb::pattern::Patterns;

use super::{Linter, Rule};
use crate::args::Globals;
use crate::expand::{Expanded, Expander, Variables};
use crate::file::{FileText, StageText};
use crate::instruction::{ArgDeclaration, Command, Instruction};
use crate::options::{MainContext, Options};
use crate::parser::Dockerfile;
use crate::{paths, suggest};

const RESERVED_NAMES: [&str; 2] = ["context", "scratch"];
const SECRET_WORDS: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
const HARMLESS_WORDS: [&str; 3] = ["public", "file", "version"];

/// What can be said of the file as written.
pub(crate) fn file(file: &Dockerfile, text: &FileText, options: &Options, linter: &mut Linter) {
    for range in &file.empty_continuations {
        let message = "Empty continuation line".to_owned();
        linter.report(Rule::NoEmptyContinuation, &[], *range, message);
    }
    stage_names(&text.stages, linter);
    casing(text, linter);
    descriptions(text, linter);
    let commands = text.stages.iter().flat_map(|stage| &stage.commands);
    for command in commands.filter(|command| matches!(command.instruction, Instruction::Maintainer(_))) {
        let message = "Maintainer instruction is deprecated in favor of using label".to_owned();
        linter.report(Rule::MaintainerDeprecated, &command.comments, command.range, message);
    }
    default_bases(text, options, file.directives.escape, linter);
}

fn stage_names(stages: &[StageText], linter: &mut Linter) {
    let mut seen = HashSet::new();
    for StageText { from, name, .. } in stages {
        let Some(written) = &from.name else { continue };
        let mut report = |rule, message: String| linter.report(rule, &from.comments, from.range, message);
        if written != name {
            report(Rule::StageNameCasing, format!("Stage name '{written}' should be lowercase"));
        }
        if RESERVED_NAMES.contains(&name.as_str()) {
            let message = format!("Stage name should not use the same name as reserved stage \"{name}\"");
            report(Rule::ReservedStageName, message);
        }
        if !seen.insert(name) {
            let message = format!("Duplicate stage name \"{name}\", stage names should be unique");
            report(Rule::DuplicateStageName, message);
        }
        let keyword = from.as_keyword.as_deref().unwrap_or_default();
        let is_upper = |word: &str| word.bytes().all(|byte| byte.is_ascii_uppercase());
        let is_lower = |word: &str| word.bytes().all(|byte| byte.is_ascii_lowercase());
        let (from_word, as_word) = (from.keyword.as_str(), keyword);
        if (is_upper(from_word) && !is_upper(as_word)) || (is_lower(from_word) && !is_lower(as_word)) {
            let message = format!("'{as_word}' and '{from_word}' keywords' casing do not match");
            report(Rule::FromAsCasing, message);
        }
    }
}

/// The case that most instructions are in is right, upper case when in doubt.
fn casing(text: &FileText, linter: &mut Linter) {
    let stages = text.stages.iter().flat_map(|stage| {
        let from = (stage.from.keyword.as_str(), stage.from.comments.as_slice(), stage.from.range);
        let commands = stage.commands.iter();
        let commands =
            commands.map(|command| (command.keyword.as_str(), command.comments.as_slice(), command.range));
        std::iter::once(from).chain(commands)
    });
    let words: Vec<(&str, &[String], SourceRange)> = stages.collect();
    let lower = words.iter().filter(|(word, ..)| *word == word.to_lowercase()).count();
    let upper = words.iter().filter(|(word, ..)| *word == word.to_uppercase()).count();
    for (word, comments, range) in words {
        let (right, name) = if lower > upper {
            (word.to_lowercase(), "lowercase")
        } else {
            (word.to_uppercase(), "uppercase")
        };
        if word != right {
            let message = format!("Command '{word}' should match the case of the command majority ({name})");
            linter.report(Rule::ConsistentInstructionCasing, comments, range, message);
        }
    }
}

/// A comment right above FROM or ARG is taken for its description.
fn descriptions(text: &FileText, linter: &mut Linter) {
    let mut check = |comments: &[String], range: SourceRange, instruction: &str, names: &[String]| {
        let Some(comment) = comments.last() else { return };
        let first = comment.split(' ').next().unwrap_or_default();
        if names.is_empty() || names.iter().any(|name| name == first) {
            return;
        }
        let example = if let [only] = names { only } else { "<arg_key>" };
        let message =
            format!("Comment for {instruction} should follow the format: `# {example} <description>`");
        linter.report(Rule::InvalidDefinitionDescription, comments, range, message);
    };
    for stage in &text.stages {
        if !stage.name.is_empty() {
            check(&stage.from.comments, stage.from.range, "FROM", std::slice::from_ref(&stage.name));
        }
    }
    let names = |declarations: &[ArgDeclaration]| -> Vec<String> {
        declarations.iter().map(|declaration| declaration.key.clone()).collect()
    };
    for arg in &text.globals {
        check(&arg.comments, arg.range, "ARG", &names(&arg.declarations));
    }
    for command in text.stages.iter().flat_map(|stage| &stage.commands) {
        if let Instruction::Arg(declarations) = &command.instruction {
            check(&command.comments, command.range, "ARG", &names(declarations));
        }
    }
}

/// FROM should name an image when nobody gives a build argument.
fn default_bases(text: &FileText, options: &Options, escape: char, linter: &mut Linter) {
    let without_args = Options { build_args: std::collections::BTreeMap::new(), ..options.clone() };
    let Ok(globals) = Globals::new(&without_args, "", &text.globals, escape) else { return };
    for StageText { from, .. } in &text.stages {
        let Ok(expanded) = Expander::new(escape).expand(&from.base, &globals.env) else { return };
        // A stage's name in any case is accepted here: it fails where it is used, with a better message.
        if expanded.text.to_lowercase().parse::<Reference>().is_err() {
            let base = &from.base;
            let message = format!("Default value for ARG {base} results in empty or invalid base image name");
            linter.report(Rule::InvalidDefaultArgInFrom, &from.comments, from.range, message);
        }
    }
}

/// What can be said of FROM lines once global arguments are known.
pub(crate) fn bases(text: &FileText, globals: &Globals, escape: char, linter: &mut Linter) {
    let expander = Expander::new(escape);
    for StageText { from, name, .. } in &text.stages {
        let mut words = Vec::new();
        words.extend(expander.expand(&from.base, &globals.env).ok());
        let platform = from.platform.as_ref().map(|word| (word, expander.expand(word, &globals.env)));
        if let Some((written, Ok(expanded))) = platform {
            redundant_platform(written, &expanded, globals, from, linter);
            constant_platform(name, &expanded, from, linter);
            words.push(expanded);
        }
        for unmatched in words.iter().flat_map(|expanded| &expanded.unmatched) {
            if globals.declared.contains(unmatched) {
                continue;
            }
            let known = globals.env.names().chain(globals.declared.iter().map(String::as_str));
            let hint = suggest::nearest(unmatched, known)
                .map(|similar| format!(" (did you mean {similar}?)"))
                .unwrap_or_default();
            let message = format!("FROM argument '{unmatched}' is not declared{hint}");
            linter.report(Rule::UndefinedArgInFrom, &from.comments, from.range, message);
        }
    }
}

fn redundant_platform(
    written: &str,
    expanded: &Expanded,
    globals: &Globals,
    from: &crate::instruction::From,
    linter: &mut Linter,
) {
    const TARGET: &str = "TARGETPLATFORM";
    let is_alone = expanded.matched.iter().eq([TARGET]) && expanded.unmatched.is_empty();
    if is_alone && globals.env.get(TARGET) == Some(&expanded.text) {
        let message = format!(
            "Setting platform to predefined {written} in FROM is redundant as this is the default behavior"
        );
        linter.report(Rule::RedundantTargetPlatform, &from.comments, from.range, message);
    }
}

/// A constant is accepted where the stage's name says that it is meant.
fn constant_platform(name: &str, expanded: &Expanded, from: &crate::instruction::From, linter: &mut Linter) {
    if !expanded.matched.is_empty() || !expanded.unmatched.is_empty() {
        return;
    }
    let Ok(platform) = expanded.text.parse::<Platform>() else { return };
    if name.contains(&platform.os) || name.contains(&platform.architecture) {
        return;
    }
    let message = format!("FROM --platform flag should not use constant value \"{}\"", expanded.text);
    linter.report(Rule::FromPlatformFlagConstDisallowed, &from.comments, from.range, message);
}

/// Whether a variable's name says that it holds a secret.
pub(crate) fn secret_name(instruction: &str, name: &str, command: &Command, linter: &mut Linter) {
    let lower = name.to_lowercase();
    let has = |words: &[&str]| lower.split('_').any(|word| words.contains(&word));
    if has(&SECRET_WORDS) && !has(&HARMLESS_WORDS) {
        let message =
            format!("Do not use ARG or ENV instructions for sensitive data ({instruction} \"{name}\")");
        linter.report(Rule::SecretsUsedInArgOrEnv, &command.comments, command.range, message);
    }
}

/// The rules of `.dockerignore`, if it can be told from them alone what they leave out: not where one takes back what
/// others left out, and not for a context that has none.
pub(crate) fn ignore_rules(options: &Options) -> Option<Patterns> {
    if options.context != MainContext::Local {
        return None;
    }
    // A malformed rule is an error where the context is read.
    Patterns::new(&options.ignore).ok().filter(|rules| !rules.is_empty() && !rules.has_negated())
}

/// Whether `.dockerignore` leaves out what is copied.
pub(crate) fn copy_ignored(
    rules: Option<&Patterns>,
    sources: &[String],
    command: &Command,
    linter: &mut Linter,
) {
    let Some(rules) = rules else { return };
    for source in sources {
        let path = paths::absolute(source);
        let path = path.trim_start_matches('/');
        // The root itself cannot be left out, only everything in it.
        let probe = if path.is_empty() { "\u{1}/\u{1}" } else { path };
        if rules.matches(probe) {
            let verb = if matches!(command.instruction, Instruction::Add(_)) { "Add" } else { "Copy" };
            let message = format!("Attempting to {verb} file \"{source}\" that is excluded by .dockerignore");
            linter.report(Rule::CopyIgnoredFile, &command.comments, command.range, message);
        }
    }
}
