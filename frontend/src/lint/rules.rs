//! The rules, by the names under which BuildKit has them.

/// A lint rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A stage name has upper-case letters.
    StageNameCasing,
    /// `FROM x as y`.
    FromAsCasing,
    /// A blank line between continuation lines.
    NoEmptyContinuation,
    /// Some instructions are in upper case, some in lower.
    ConsistentInstructionCasing,
    /// Two stages of one name.
    DuplicateStageName,
    /// A stage called `scratch` or `context`.
    ReservedStageName,
    /// CMD or ENTRYPOINT in shell form.
    JSONArgsRecommended,
    /// MAINTAINER.
    MaintainerDeprecated,
    /// FROM uses a variable that no global ARG declares.
    UndefinedArgInFrom,
    /// A variable that is not defined.
    UndefinedVar,
    /// The base name is no reference when only defaults are used.
    InvalidDefaultArgInFrom,
    /// The first WORKDIR is relative, so it depends on the base image.
    WorkdirRelativePath,
    /// CMD, ENTRYPOINT or HEALTHCHECK twice in a stage.
    MultipleInstructionsDisallowed,
    /// `ENV k v`.
    LegacyKeyValueFormat,
    /// The base image is for another platform.
    InvalidBaseImagePlatform,
    /// `FROM --platform=$TARGETPLATFORM`, which is the default.
    RedundantTargetPlatform,
    /// `FROM --platform=linux/amd64`.
    FromPlatformFlagConstDisallowed,
    /// A secret in ARG or ENV.
    SecretsUsedInArgOrEnv,
    /// COPY of what `.dockerignore` leaves out.
    CopyIgnoredFile,
    /// `EXPOSE 80/TCP`.
    ExposeProtoCasing,
    /// EXPOSE of an address or a host port.
    ExposeInvalidFormat,
    /// The comment above FROM or ARG does not describe it. Experimental.
    InvalidDefinitionDescription,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 22] = [
        Self::StageNameCasing,
        Self::FromAsCasing,
        Self::NoEmptyContinuation,
        Self::ConsistentInstructionCasing,
        Self::DuplicateStageName,
        Self::ReservedStageName,
        Self::JSONArgsRecommended,
        Self::MaintainerDeprecated,
        Self::UndefinedArgInFrom,
        Self::UndefinedVar,
        Self::InvalidDefaultArgInFrom,
        Self::WorkdirRelativePath,
        Self::MultipleInstructionsDisallowed,
        Self::LegacyKeyValueFormat,
        Self::InvalidBaseImagePlatform,
        Self::RedundantTargetPlatform,
        Self::FromPlatformFlagConstDisallowed,
        Self::SecretsUsedInArgOrEnv,
        Self::CopyIgnoredFile,
        Self::ExposeProtoCasing,
        Self::ExposeInvalidFormat,
        Self::InvalidDefinitionDescription,
    ];

    /// The name, as `# check=skip=` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::StageNameCasing => "StageNameCasing",
            Self::FromAsCasing => "FromAsCasing",
            Self::NoEmptyContinuation => "NoEmptyContinuation",
            Self::ConsistentInstructionCasing => "ConsistentInstructionCasing",
            Self::DuplicateStageName => "DuplicateStageName",
            Self::ReservedStageName => "ReservedStageName",
            Self::JSONArgsRecommended => "JSONArgsRecommended",
            Self::MaintainerDeprecated => "MaintainerDeprecated",
            Self::UndefinedArgInFrom => "UndefinedArgInFrom",
            Self::UndefinedVar => "UndefinedVar",
            Self::InvalidDefaultArgInFrom => "InvalidDefaultArgInFrom",
            Self::WorkdirRelativePath => "WorkdirRelativePath",
            Self::MultipleInstructionsDisallowed => "MultipleInstructionsDisallowed",
            Self::LegacyKeyValueFormat => "LegacyKeyValueFormat",
            Self::InvalidBaseImagePlatform => "InvalidBaseImagePlatform",
            Self::RedundantTargetPlatform => "RedundantTargetPlatform",
            Self::FromPlatformFlagConstDisallowed => "FromPlatformFlagConstDisallowed",
            Self::SecretsUsedInArgOrEnv => "SecretsUsedInArgOrEnv",
            Self::CopyIgnoredFile => "CopyIgnoredFile",
            Self::ExposeProtoCasing => "ExposeProtoCasing",
            Self::ExposeInvalidFormat => "ExposeInvalidFormat",
            Self::InvalidDefinitionDescription => "InvalidDefinitionDescription",
        }
    }

    /// What the rule asks for, in a sentence.
    pub const fn description(self) -> &'static str {
        match self {
            Self::StageNameCasing => "stage names are lower case",
            Self::FromAsCasing => "`as` is in the same case as `from`",
            Self::NoEmptyContinuation => "no blank lines between continuation lines",
            Self::ConsistentInstructionCasing => "all instructions of a file are in the same case",
            Self::DuplicateStageName => "each stage has a name of its own",
            Self::ReservedStageName => "`scratch` and `context` are no stage names",
            Self::JSONArgsRecommended => "CMD and ENTRYPOINT in JSON form, so that signals reach the process",
            Self::MaintainerDeprecated => "MAINTAINER is deprecated; a label says who made the image",
            Self::UndefinedArgInFrom => "FROM uses declared global ARGs only",
            Self::UndefinedVar => "variables are defined before they are used",
            Self::InvalidDefaultArgInFrom => "FROM names an image even when no build argument is given",
            Self::WorkdirRelativePath => {
                "the first WORKDIR is absolute, so that a new base image cannot move it"
            }
            Self::MultipleInstructionsDisallowed => "one CMD, ENTRYPOINT and HEALTHCHECK in a stage",
            Self::LegacyKeyValueFormat => "`key=value` rather than `key value`",
            Self::InvalidBaseImagePlatform => "the base image is for the platform that is built for",
            Self::RedundantTargetPlatform => "`--platform=$TARGETPLATFORM` is the default",
            Self::FromPlatformFlagConstDisallowed => "`--platform` is not a constant",
            Self::SecretsUsedInArgOrEnv => "secrets are not in ARG or ENV, which end in the image's history",
            Self::CopyIgnoredFile => "what is copied is not left out by `.dockerignore`",
            Self::ExposeProtoCasing => "the protocol of an exposed port is lower case",
            Self::ExposeInvalidFormat => "EXPOSE takes a port, not an address or a host port",
            Self::InvalidDefinitionDescription => {
                "a comment above FROM or ARG begins with the name it describes"
            }
        }
    }

    /// Where the rule is explained.
    pub fn url(self) -> Option<String> {
        if self == Self::InvalidBaseImagePlatform {
            return None;
        }
        let mut path = String::new();
        let letters: Vec<char> = self.name().chars().collect();
        for (index, letter) in letters.iter().enumerate() {
            let next_is_lower = letters.get(index + 1).is_some_and(char::is_ascii_lowercase);
            let after_lower = index > 0 && letters[index - 1].is_ascii_lowercase();
            if index > 0 && letter.is_ascii_uppercase() && (after_lower || next_is_lower) {
                path.push('-');
            }
            path.push(letter.to_ascii_lowercase());
        }
        Some(format!("https://docs.docker.com/go/dockerfile/rule/{path}/"))
    }

    /// Whether the rule speaks only when asked to.
    pub const fn is_experimental(self) -> bool {
        matches!(self, Self::InvalidDefinitionDescription)
    }
}
