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

    /// What the rule asks for, in BuildKit's words.
    pub const fn description(self) -> &'static str {
        match self {
            Self::StageNameCasing => "Stage names should be lowercase",
            Self::FromAsCasing => "The 'as' keyword should match the case of the 'from' keyword",
            Self::NoEmptyContinuation => "Empty continuation lines will become errors in a future release",
            Self::ConsistentInstructionCasing => {
                "All commands within the Dockerfile should use the same casing (either upper or lower)"
            }
            Self::DuplicateStageName => "Stage names should be unique",
            Self::ReservedStageName => "Reserved words should not be used as stage names",
            Self::JSONArgsRecommended => {
                "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals"
            }
            Self::MaintainerDeprecated => {
                "The MAINTAINER instruction is deprecated, use a label instead to define an image author"
            }
            Self::UndefinedArgInFrom => "FROM command must use declared ARGs",
            Self::UndefinedVar => "Variables should be defined before their use",
            Self::InvalidDefaultArgInFrom => {
                "Default value for global ARG results in an empty or invalid base image name"
            }
            Self::WorkdirRelativePath => {
                "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes"
            }
            Self::MultipleInstructionsDisallowed => {
                "Multiple instructions of the same type should not be used in the same stage"
            }
            Self::LegacyKeyValueFormat => {
                "Legacy key/value format with whitespace separator should not be used"
            }
            Self::InvalidBaseImagePlatform => "Base image platform does not match expected target platform",
            Self::RedundantTargetPlatform => {
                "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior"
            }
            Self::FromPlatformFlagConstDisallowed => "FROM --platform flag should not use a constant value",
            Self::SecretsUsedInArgOrEnv => "Sensitive data should not be used in the ARG or ENV commands",
            Self::CopyIgnoredFile => "Attempting to Copy file that is excluded by .dockerignore",
            Self::ExposeProtoCasing => "Protocol in EXPOSE instruction should be lowercase",
            Self::ExposeInvalidFormat => {
                "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release"
            }
            Self::InvalidDefinitionDescription => {
                "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment."
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
