//! Why a Dockerfile cannot be built.
//!
//! An [`Error`] is a fact with a place: what is wrong ([`ErrorKind`], with data for those who give advice), the
//! lines it is about, and the word in them where one is to blame. Where BuildKit has a text that people know and
//! search for, the message is that text.

use std::fmt;

use rbuild_image::{ParseDigestError, ParsePlatformError, ParseReferenceError};
use rbuild_llb::{DefinitionError, SourceRange};
use thiserror::Error;

use crate::expand::ExpandError;
use crate::lint::{self, Warning};
use crate::parser;
use crate::resolver::{OutsideError, ResolveError};
use crate::span::Span;

/// What is wrong, and where.
#[derive(Debug)]
pub struct Error {
    kind: Box<ErrorKind>,
    range: Option<SourceRange>,
    span: Option<Span>,
    warnings: Vec<Warning>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind) -> Self {
        Self { kind: Box::new(kind), range: None, span: None, warnings: Vec::new() }
    }

    /// Says which lines the error is about, unless something below has said it more precisely.
    pub(crate) fn at(mut self, range: SourceRange) -> Self {
        self.range = self.range.or(Some(range));
        self
    }

    /// Finds the word to blame in the text of the file.
    pub(crate) fn in_source(mut self, source: &[u8]) -> Self {
        if let Some(range) = self.range {
            let (words, text) = (self.kind.words(), parser::text(source));
            self.span = words.iter().find_map(|word| Span::find(&text, range, word));
        }
        self
    }

    /// Says what lint had found by then.
    pub(crate) fn after(self, warnings: Vec<Warning>) -> Self {
        Self { warnings, ..self }
    }

    /// What is wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// The lines of the Dockerfile it is about. `None` only where no line is to blame: an unknown `--target`, an
    /// empty file.
    pub const fn range(&self) -> Option<SourceRange> {
        self.range
    }

    /// The word it is about, where there is one and the text has it as it is.
    pub const fn span(&self) -> Option<&Span> {
        self.span.as_ref()
    }

    /// What lint had found before [`lower`](crate::lower) met it, in the order of the file; nothing where the lines could not be read.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// What was probably meant, where a name is nearly right.
    pub fn similar(&self) -> Option<&str> {
        self.kind.similar()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&*self.kind)
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self::new(kind)
    }
}

/// Everything that can be wrong with a Dockerfile and its options.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the fields are the words of the message above them")]
pub enum ErrorKind {
    /// Nothing in the file.
    #[error("the Dockerfile cannot be empty")]
    Empty,
    /// Only comments and blank lines.
    #[error("file with no instructions")]
    NoInstructions,
    /// Only global ARGs.
    #[error("dockerfile contains no stages to build")]
    NoStages,
    /// More than [`FILE_SIZE_BYTES_MAX`](crate::parser::FILE_SIZE_BYTES_MAX).
    #[error("dockerfile of {size_bytes} bytes is larger than the {max} that are accepted")]
    FileTooLarge { size_bytes: usize, max: usize },
    /// More than [`LINE_LENGTH_BYTES_MAX`](crate::parser::LINE_LENGTH_BYTES_MAX).
    #[error("dockerfile line greater than max allowed size of {max}")]
    LineTooLong { max: usize },
    /// More than [`INSTRUCTIONS_MAX`](crate::parser::INSTRUCTIONS_MAX).
    #[error("more than {max} instructions")]
    TooManyInstructions { max: usize },
    /// RUN of bytes that are not text: BuildKit has no place for them either.
    #[error("RUN holds bytes that are not UTF-8")]
    NotUtf8,

    /// A parser directive twice.
    #[error("only one {name} parser directive can be used")]
    DuplicateDirective { name: String },
    /// `# escape=` with something else than a backslash or a backtick.
    #[error("invalid escape token `{value}` does not match ` or \\")]
    EscapeDirective { value: String },
    /// `# syntax=` names a frontend that rbuild does not have.
    #[error("unsupported frontend `{image}` (rbuild has its own for docker/dockerfile)")]
    UnsupportedSyntax { image: String },
    /// `# check=` or `BUILDKIT_DOCKERFILE_CHECK` cannot be read.
    #[error("failed to parse check options: invalid check option `{option}`")]
    CheckDirective { option: String },

    /// The first word of a line is not an instruction.
    #[error("unknown instruction: {found}{}", did_you_mean(similar.as_deref()))]
    UnknownInstruction { found: String, similar: Option<String> },
    /// An instruction other than ARG stands before the first FROM.
    #[error("no build stage in current context")]
    BeforeFrom { instruction: String },
    /// A here-document that does not end.
    #[error("unterminated heredoc `{name}`")]
    UnterminatedHeredoc { name: String },
    /// A here-document where a file name must be.
    #[error("{instruction} cannot accept a heredoc as a destination")]
    HeredocDestination { instruction: &'static str },
    /// A JSON array of other things.
    #[error("when using JSON array syntax, arrays must be comprised of strings only")]
    NotStrings,
    /// Too few or too many arguments.
    #[error("{instruction} requires {expected}")]
    Arguments { instruction: &'static str, expected: &'static str },
    /// An instruction that knows the JSON form only.
    #[error("{instruction} requires the arguments to be in JSON form")]
    NotJson { instruction: &'static str },
    /// `ENV X`.
    #[error("{instruction} must have two arguments")]
    TwoArguments { instruction: &'static str },
    /// `ENV a=1 b`.
    #[error("syntax error - can't find = in `{word}`. Must be of the form: name=value")]
    NoEquals { word: String },
    /// `ENV =1`.
    #[error("{instruction} names can not be blank")]
    BlankName { instruction: &'static str },

    /// A flag that the instruction does not have.
    #[error("unknown flag: --{flag}{}", did_you_mean(similar.as_deref()))]
    UnknownFlag { flag: String, similar: Option<String> },
    /// A flag that may be given once, twice.
    #[error("duplicate flag specified: --{flag}")]
    DuplicateFlag { flag: String, written: String },
    /// A flag that needs a value, without one.
    #[error("missing a value on flag: --{flag}")]
    FlagWithoutValue { flag: String },
    /// A flag that takes true or false, with something else.
    #[error("expecting boolean value for flag --{flag}, not: `{value}`")]
    FlagNotBool { flag: String, value: String },
    /// A flag with a value out of a fixed set.
    #[error("unsupported value `{value}` for flag --{flag} (expected {expected})")]
    FlagValue { flag: &'static str, value: String, expected: &'static str },

    /// A word cannot be expanded.
    #[error("failed to process `{word}`: {source}")]
    Expand { word: String, source: ExpandError },

    /// `FROM a b`.
    #[error("FROM requires either one or three arguments")]
    FromArguments,
    /// `FROM x AS 1`.
    #[error("invalid name for build stage: `{name}`, name can't start with a number or contain symbols")]
    StageName { name: String },
    /// `FROM $EMPTY`.
    #[error("base name ({expression}) should not be blank{}", did_you_mean(similar.as_deref()))]
    BlankBase { expression: String, similar: Option<String> },
    /// What FROM names is not an image reference.
    #[error("failed to parse stage name `{name}`: {source}")]
    BaseReference { name: String, source: ParseReferenceError },
    /// `FROM --platform=$EMPTY`.
    #[error("empty platform value from expression {expression}{}", did_you_mean(similar.as_deref()))]
    EmptyPlatform { expression: String, similar: Option<String> },
    /// `FROM --platform=x`.
    #[error("failed to parse platform {expression}: {source}")]
    Platform { expression: String, source: ParsePlatformError },
    /// A base image could not be found.
    #[error("{source}")]
    Resolve { name: String, similar: Option<String>, source: ResolveError },
    /// `--target` names no stage.
    #[error("target stage `{target}` could not be found{}", did_you_mean(similar.as_deref()))]
    UnknownTarget { target: String, similar: Option<String> },
    /// Stages that need each other.
    #[error("circular dependency detected on stage: {stage}")]
    CircularStage { stage: String },
    /// `COPY --from=7`.
    #[error("invalid stage index {index}")]
    StageIndex { index: String },
    /// `COPY --from=later`.
    #[error("cannot copy from stage `{from}`, it needs to be defined before current stage `{stage}`")]
    StageNotBefore { from: String, stage: String },
    /// `COPY --from=$X`.
    #[error(
        "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround"
    )]
    FromExpansion,
    /// Named contexts that lead to one another.
    #[error("named context `{name}` refers to other named contexts more than {max} times")]
    ContextDepth { name: String, max: usize },
    /// A value of `SOURCE_DATE_EPOCH` that is not a time.
    #[error("invalid SOURCE_DATE_EPOCH: `{value}`")]
    Epoch { value: String },
    /// A stage named by `SOURCE_DATE_EPOCH` that is more than a source.
    #[error("SOURCE_DATE_EPOCH stage {reason}")]
    EpochStage { reason: String },
    /// The age of what `SOURCE_DATE_EPOCH` names could not be found out.
    #[error("failed to resolve SOURCE_DATE_EPOCH: {source}")]
    EpochSource { source: OutsideError },

    /// `ONBUILD ONBUILD`.
    #[error("chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")]
    OnbuildChain,
    /// `ONBUILD FROM`.
    #[error("{instruction} isn't allowed as an ONBUILD trigger")]
    OnbuildForbidden { instruction: String },
    /// A trigger of a base image that is several instructions, or none.
    #[error("onbuild trigger should be a single expression")]
    OnbuildNotSingle { trigger: String },
    /// An ONBUILD trigger cannot be built.
    #[error("in ONBUILD trigger `{trigger}`: {source}")]
    Onbuild { trigger: String, source: Error },
    /// A base image with more than [`ONBUILD_TRIGGERS_MAX`](crate::ONBUILD_TRIGGERS_MAX) triggers.
    #[error("more than {max} ONBUILD triggers")]
    TooManyTriggers { max: usize },

    /// `--chmod=x`.
    #[error(
        "invalid chmod parameter: `{value}`. it should be octal string and between 0 and 07777, or symbolic"
    )]
    Chmod { value: String },
    /// `--chown=name` where there is no `/etc/passwd` to look in.
    #[error("invalid owner `{owner}`: there is no root file system to look the name up in")]
    OwnerName { owner: String },
    /// `--checksum` with several sources.
    #[error("checksum can't be specified for multiple sources")]
    ChecksumSources,
    /// `--checksum` with a local source.
    #[error("checksum requires HTTP(S) or Git sources")]
    ChecksumLocal,
    /// `--checksum` that is no digest.
    #[error("invalid checksum: {0}")]
    Checksum(#[source] ParseDigestError),
    /// `COPY https://…`.
    #[error("source can't be a URL for COPY")]
    UrlForCopy { url: String },
    /// `COPY git@…`.
    #[error("source can't be a git ref for COPY")]
    GitForCopy { url: String },
    /// A git URL that cannot be read.
    #[error("invalid git reference `{url}`: {reason}")]
    GitReference { url: String, reason: String },

    /// `--mount` that is not a list of fields.
    #[error("failed to parse csv mounts: {reason}")]
    MountCsv { reason: &'static str },
    /// A field of `--mount` without a value.
    #[error("invalid field `{field}` must be a key=value pair")]
    MountField { field: String },
    /// A field of `--mount` that does not exist.
    #[error("unexpected key `{key}` in `{field}`{}", did_you_mean(similar.as_deref()))]
    MountKey { key: String, field: String, similar: Option<String> },
    /// A field of `--mount` that the type does not have.
    #[error("unexpected key `{key}` for mount type `{kind}`")]
    MountKeyForType { key: String, kind: &'static str },
    /// A value of `--mount` that cannot be read.
    #[error("invalid value for {key}: `{value}`")]
    MountValue { key: String, value: String },
    /// `--mount=type=x`.
    #[error("unsupported mount type `{found}`{}", did_you_mean(similar.as_deref()))]
    MountType { found: String, similar: Option<String> },
    /// `--mount=sharing=x`.
    #[error("unsupported sharing value `{found}`{}", did_you_mean(similar.as_deref()))]
    MountSharing { found: String, similar: Option<String> },
    /// `--mount=from=$X`.
    #[error("`{key}` doesn't support variable expansion, define alias stage instead")]
    MountExpansion { key: String },
    /// A mount over the root.
    #[error("invalid mount target `{target}`")]
    MountTarget { target: String },
    /// A secret without a name.
    #[error("invalid secret mount. one of source, target required")]
    SecretName,
    /// A secret with two names.
    #[error("both source and id can't be set")]
    SecretTwoNames,
    /// A secret from a stage.
    #[error("secret mount should not have a from")]
    SecretFrom,

    /// EXPOSE of something else than a port.
    #[error("invalid port `{port}`: {reason}")]
    Port { port: String, reason: &'static str },
    /// STOPSIGNAL of something else than a signal.
    #[error("invalid signal: `{signal}`")]
    Signal { signal: String },
    /// `VOLUME [""]`.
    #[error("VOLUME specified can not be an empty string")]
    BlankVolume,
    /// `HEALTHCHECK NONE x`.
    #[error("HEALTHCHECK NONE takes no arguments")]
    HealthcheckNone,
    /// `HEALTHCHECK CMD`.
    #[error("missing command after HEALTHCHECK CMD")]
    HealthcheckCommand,
    /// `HEALTHCHECK x`.
    #[error("unknown type `{found}` in HEALTHCHECK (try CMD)")]
    HealthcheckType { found: String },
    /// A duration that cannot be read.
    #[error("invalid duration `{value}` for --{flag}")]
    Duration { flag: &'static str, value: String },
    /// A duration below a millisecond.
    #[error("interval --{flag} cannot be less than 1ms")]
    DurationTooShort { flag: &'static str },
    /// `--retries=x`.
    #[error("invalid --retries: `{value}`")]
    Retries { value: String },

    /// Lint rules were broken and the Dockerfile says that this is an error.
    #[error("lint violation found for rules: {}", lint::rule_names(warnings))]
    Lint { warnings: Vec<Warning> },
    /// The graph is too large.
    #[error("failed to assemble the build graph: {0}")]
    Definition(#[source] DefinitionError),
}

impl ErrorKind {
    /// How the word to blame may be written in the Dockerfile, most telling first; none where it is all of the
    /// instruction.
    fn words(&self) -> Vec<String> {
        let flag_value = |flag: &str, value: &str| vec![format!("--{flag}={value}"), format!("--{flag}")];
        let from = |name: &str| vec![format!("--from={name}"), format!("from={name}"), name.to_owned()];
        let word = |word: &String| vec![word.clone()];
        match self {
            Self::UnknownInstruction { found, .. }
            | Self::MountType { found, .. }
            | Self::MountSharing { found, .. }
            | Self::HealthcheckType { found } => word(found),
            Self::BeforeFrom { instruction } | Self::OnbuildForbidden { instruction } => word(instruction),
            Self::DuplicateDirective { name }
            | Self::UnterminatedHeredoc { name }
            | Self::StageName { name }
            | Self::BaseReference { name, .. }
            | Self::ContextDepth { name, .. } => word(name),
            Self::EscapeDirective { value } | Self::Epoch { value } => word(value),
            Self::UnsupportedSyntax { image } => word(image),
            Self::CheckDirective { option } => word(option),
            Self::NoEquals { word: found } | Self::Expand { word: found, .. } => word(found),
            Self::UnknownFlag { flag, .. } | Self::FlagWithoutValue { flag } => vec![format!("--{flag}")],
            Self::DuplicateFlag { flag, written } => vec![written.clone(), format!("--{flag}")],
            Self::FlagNotBool { flag, value } => flag_value(flag, value),
            Self::FlagValue { flag, value, .. } | Self::Duration { flag, value } => flag_value(flag, value),
            Self::DurationTooShort { flag } => vec![format!("--{flag}")],
            Self::Retries { value } => flag_value("retries", value),
            Self::BlankBase { expression, .. }
            | Self::EmptyPlatform { expression, .. }
            | Self::Platform { expression, .. } => word(expression),
            Self::Resolve { name, .. } => from(name),
            Self::CircularStage { stage } => from(stage),
            Self::StageIndex { index } => from(index),
            Self::StageNotBefore { from: stage, .. } => from(stage),
            Self::FromExpansion => vec!["--from".to_owned()],
            Self::Chmod { value } => flag_value("chmod", value),
            Self::OwnerName { owner } => flag_value("chown", owner),
            Self::ChecksumSources | Self::ChecksumLocal | Self::Checksum(_) => vec!["--checksum".to_owned()],
            Self::UrlForCopy { url } | Self::GitForCopy { url } | Self::GitReference { url, .. } => word(url),
            Self::MountField { field } | Self::MountKey { field, .. } => word(field),
            Self::MountKeyForType { key, .. } | Self::MountExpansion { key } => word(key),
            Self::MountValue { key, value } => vec![format!("{key}={value}"), value.clone()],
            Self::MountTarget { target } => word(target),
            Self::SecretFrom => vec!["from".to_owned()],
            Self::Port { port, .. } => word(port),
            Self::Signal { signal } => word(signal),
            _ => Vec::new(),
        }
    }

    fn similar(&self) -> Option<&str> {
        match self {
            Self::UnknownInstruction { similar, .. }
            | Self::UnknownFlag { similar, .. }
            | Self::BlankBase { similar, .. }
            | Self::EmptyPlatform { similar, .. }
            | Self::Resolve { similar, .. }
            | Self::UnknownTarget { similar, .. }
            | Self::MountKey { similar, .. }
            | Self::MountType { similar, .. }
            | Self::MountSharing { similar, .. } => similar.as_deref(),
            Self::Onbuild { source, .. } => source.similar(),
            _ => None,
        }
    }
}

fn did_you_mean(similar: Option<&str>) -> String {
    similar.map(|name| format!(" (did you mean {name}?)")).unwrap_or_default()
}
