//! `SOURCE_DATE_EPOCH`: a number, or a word for something whose age it is.
//!
//! | word | whose age |
//! |---|---|
//! | `context` | the main context's |
//! | the name of a context | that one's |
//! | the name of a stage | of the one remote source that the stage adds to nothing |
//!
//! What has no age, such as a directory or an image, sets no time.

use std::borrow::Cow;

use rbuild_llb::{LocalSource, SourceOp};

use super::tree::MAIN_CONTEXT;
use crate::args::{self, EPOCH, Env, Globals};
use crate::context::Contexts;
use crate::error::{Error, ErrorKind};
use crate::expand::Expander;
use crate::file::{FileText, StageText};
use crate::instruction::{Add, Instruction};
use crate::options::{MainContext, NamedContext, Options};
use crate::remote;
use crate::resolver::ImageResolver;

/// One time for all that a build makes, Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Epoch {
    /// As the caller gave it.
    pub(super) given: Option<i64>,
    /// As the caller gave it, or else as the file says.
    pub(super) all: Option<i64>,
}

/// Where words are looked up.
pub(super) struct Places<'a> {
    pub(super) options: &'a Options,
    pub(super) contexts: &'a Contexts<'a>,
    pub(super) text: &'a FileText,
    pub(super) resolver: &'a dyn ImageResolver,
    pub(super) escape: char,
}

impl Places<'_> {
    /// Finds out the time. Where a word stands for it, the number takes its place, in the global arguments as well.
    pub(super) fn epoch(&self, globals: &mut Globals) -> Result<Epoch, Error> {
        let word = args::control(self.options, EPOCH);
        let given = match (self.options.source_date_epoch, word) {
            (Some(seconds), _) => Some(seconds),
            (None, Some(word)) => self.time(word, globals)?,
            (None, None) => None,
        };
        let declared = args::value(globals, EPOCH).map(str::to_owned);
        let all = match declared {
            Some(declared) if given.is_none() && word != Some(&declared) => self.time(&declared, globals)?,
            _ => given,
        };
        if args::value(globals, EPOCH).is_some_and(is_word) {
            globals.env.set(EPOCH, &as_argument(all));
        }
        Ok(Epoch { given, all })
    }

    fn time(&self, word: &str, globals: &Globals) -> Result<Option<i64>, Error> {
        if let Ok(seconds) = word.parse() {
            return Ok(Some(seconds));
        }
        let Some(source) = self.source(word, globals)? else { return Ok(None) };
        self.resolver.time_of(&source).map_err(|source| ErrorKind::EpochSource { source }.into())
    }

    /// What a word stands for; `None` when that has no age.
    fn source(&self, word: &str, globals: &Globals) -> Result<Option<SourceOp>, Error> {
        if word == MAIN_CONTEXT {
            return Ok(Some(match &self.options.context {
                MainContext::Local => local(MAIN_CONTEXT),
                MainContext::Remote(remote) => remote.source(),
            }));
        }
        if let Some(context) = self.contexts.find(word, None) {
            return Ok(match context {
                NamedContext::Local { name, .. } => Some(local(name)),
                NamedContext::Remote(remote) => Some(remote.source()),
                NamedContext::Image(_) | NamedContext::OciLayout { .. } => None,
            });
        }
        let stage = self.text.stages.iter().find(|stage| stage.name == word.to_lowercase());
        let stage = stage.ok_or_else(|| ErrorKind::Epoch { value: word.to_owned() })?;
        self.stage_source(stage, globals.env.clone()).map(Some).map_err(|error| error.at(stage.from.range))
    }

    /// The one thing that a stage adds to nothing.
    fn stage_source(&self, stage: &StageText, mut env: Env) -> Result<SourceOp, Error> {
        let unfit = |reason: &str| ErrorKind::EpochStage { reason: reason.to_owned() };
        if stage.name.is_empty() || self.expand(&stage.from.base, &env)? != "scratch" {
            return Err(unfit("must use FROM scratch").into());
        }
        let mut found = None;
        for command in &stage.commands {
            match &command.instruction {
                Instruction::Arg(declarations) => {
                    for declaration in declarations {
                        let given = self.options.build_args.get(&declaration.key).cloned();
                        let default = || declaration.default.as_ref().map(|word| self.expand(word, &env));
                        let value = given.map(Ok).or_else(default).transpose()?;
                        value.iter().for_each(|value| env.set(&declaration.key, value));
                    }
                }
                Instruction::Add(add) if found.is_none() => found = Some(self.add_source(add, &env)?),
                Instruction::Add(_) => return Err(unfit("must contain exactly one remote ADD").into()),
                _ => {
                    let name = &command.keyword;
                    let reason =
                        format!("does not meet source-only requirements: unsupported {name} instruction");
                    return Err(unfit(&reason).into());
                }
            }
        }
        found.ok_or_else(|| unfit("must contain exactly one remote ADD").into())
    }

    fn add_source(&self, add: &Add, env: &Env) -> Result<SourceOp, Error> {
        let unfit = |reason: &str| Error::from(ErrorKind::EpochStage { reason: reason.to_owned() });
        let [source] = add.transfer.sources.as_slice() else {
            return Err(unfit("must contain exactly one remote ADD source"));
        };
        let source = self.expand(source, env)?;
        let checksum = add.checksum.as_ref().map(|word| self.expand(word, env)).transpose()?;
        let checksum = checksum.as_deref().filter(|checksum| !checksum.is_empty());
        let remote = remote::add_source(&source, add.keep_git_dir, checksum)?;
        remote.ok_or_else(|| unfit("source must be a single HTTP(S) or Git ADD"))
    }

    fn expand(&self, word: &str, env: &Env) -> Result<String, Error> {
        let expanded = Expander::new(self.escape).expand(word, env);
        Ok(expanded.map_err(|source| ErrorKind::Expand { word: word.to_owned(), source })?.text)
    }
}

impl Epoch {
    /// The options with the time in the place of a word for it.
    pub(super) fn replace_in<'a>(&self, options: &'a Options) -> Cow<'a, Options> {
        if !args::control(options, EPOCH).is_some_and(is_word) {
            return Cow::Borrowed(options);
        }
        let mut options = options.clone();
        options.build_args.insert(EPOCH.to_owned(), as_argument(self.given));
        Cow::Owned(options)
    }
}

fn is_word(text: &str) -> bool {
    text.parse::<i64>().is_err()
}

fn as_argument(seconds: Option<i64>) -> String {
    seconds.map(|seconds| seconds.to_string()).unwrap_or_default()
}

fn local(name: &str) -> SourceOp {
    SourceOp::Local(LocalSource { name: name.to_owned(), ..LocalSource::default() })
}
