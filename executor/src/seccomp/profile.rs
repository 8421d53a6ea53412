//! What a sandboxed process may ask of the kernel, in the JSON format of Docker's profiles; Docker's default is `default.json`.
//!
//! The default is an allow-list: what is not in it gives `EPERM`, so that a call the kernel gains later is not open by accident.
//! Names of calls that a calling convention does not have are without effect there.

use std::collections::HashMap;
use std::sync::LazyLock;

use libc::{
    SECCOMP_RET_ACTION_FULL, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS,
    SECCOMP_RET_KILL_THREAD, SECCOMP_RET_LOG, SECCOMP_RET_TRACE, SECCOMP_RET_TRAP,
};
use serde::Deserialize;

use super::CONDITIONS_MAX;
use crate::Capabilities;

/// The profile that holds where none is asked for.
pub(super) static DEFAULT: LazyLock<Profile> =
    LazyLock::new(|| Profile::parse(include_str!("default.json")).unwrap_or_default());

/// The error that a profile means when it names none.
const EPERM: u16 = 1;
/// Arguments of a system call.
const ARGUMENTS_MAX: u32 = 6;

/// Why a profile cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// It is no profile.
    #[error("not a profile of system calls: {0}")]
    Syntax(String),
    /// It asks for something that only a program beside the container could do.
    #[error("the action `{0}` is not supported")]
    Action(String),
    /// A capability that does not exist.
    #[error("unknown capability `{0}`")]
    Capability(String),
    /// The kernel takes 4096 instructions.
    #[error("it has too many rules")]
    TooLarge,
    /// A system call has six arguments.
    #[error("there is no argument {0}")]
    Argument(u32),
}

/// A profile. Lists that are `null` are empty.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Profile {
    default_action: ActionName,
    default_errno_ret: Option<u16>,
    #[serde(default)]
    arch_map: Option<Vec<ArchMap>>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
    #[serde(default)]
    syscalls: Option<Vec<Rule>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    names: Vec<String>,
    /// The older way to name one call.
    name: Option<String>,
    action: ActionName,
    errno_ret: Option<u16>,
    #[serde(default)]
    args: Option<Vec<Argument>>,
    #[serde(default)]
    includes: Option<Filter>,
    #[serde(default)]
    excludes: Option<Filter>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Filter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: Comparison,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum Comparison {
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct ActionName(String);

impl ActionName {
    /// What the filter returns.
    fn code(&self, errno: Option<u16>) -> Result<u32, ProfileError> {
        let errno = u32::from(errno.unwrap_or(EPERM));
        Ok(match self.0.as_str() {
            "SCMP_ACT_ALLOW" => SECCOMP_RET_ALLOW,
            "SCMP_ACT_ERRNO" => SECCOMP_RET_ERRNO | errno,
            "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => SECCOMP_RET_KILL_THREAD,
            "SCMP_ACT_KILL_PROCESS" => SECCOMP_RET_KILL_PROCESS,
            "SCMP_ACT_TRAP" => SECCOMP_RET_TRAP,
            "SCMP_ACT_TRACE" => SECCOMP_RET_TRACE | errno,
            "SCMP_ACT_LOG" => SECCOMP_RET_LOG,
            other => return Err(ProfileError::Action(other.to_owned())),
        })
    }
}

/// What a filter returns for one call: that of the first rule whose conditions all hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) rules: Vec<(Vec<Condition>, u32)>,
    pub(super) otherwise: u32,
}

impl Verdict {
    pub(super) const fn always(action: u32) -> Self {
        Self { rules: Vec::new(), otherwise: action }
    }

    fn add(&mut self, conditions: Vec<Condition>, action: u32) {
        // A rule without conditions is stronger than those with some, wherever it stands.
        if conditions.is_empty() {
            *self = Self::always(action);
        } else {
            self.rules.push((conditions, action));
        }
    }
}

/// A condition on an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) index: u32,
    /// Which of its bits are looked at.
    pub(super) mask: u64,
    pub(super) comparison: Comparison,
    pub(super) value: u64,
}

impl Argument {
    fn condition(&self) -> Condition {
        let Self { index, value, value_two, op } = *self;
        let (mask, value) = match op {
            Comparison::MaskedEqual => (value, value_two),
            // Where the kernel takes 32 bits it ignores the upper half, and so must the filter: otherwise a process could hide
            // the value behind it.
            Comparison::NotEqual if value <= u64::from(u32::MAX) => (u64::from(u32::MAX), value),
            _ => (u64::MAX, value),
        };
        Condition { index, mask, comparison: op, value }
    }
}

/// A profile for one process.
pub(super) struct Verdicts<'a> {
    by_name: HashMap<&'a str, Verdict>,
    /// What happens to a call that no rule names.
    pub(super) default: u32,
}

impl Verdicts<'_> {
    /// Whether what the profile does not know is refused with an error.
    pub(super) const fn refuses(&self) -> bool {
        self.default & SECCOMP_RET_ACTION_FULL == SECCOMP_RET_ERRNO
    }

    /// The verdict on the call of that name, or `None` for one that the profile does not have.
    pub(super) fn get(&self, name: &str) -> Option<&Verdict> {
        self.by_name.get(name)
    }
}

impl Profile {
    pub(super) fn parse(text: &str) -> Result<Self, ProfileError> {
        let profile: Self =
            serde_json::from_str(text).map_err(|error| ProfileError::Syntax(error.to_string()))?;
        // All that can be wrong is found now, and not when a process is to be started.
        profile.verdicts(Capabilities::ALL)?;
        profile.verdicts(Capabilities::NONE)?;
        Ok(profile)
    }

    /// Whether programs of a calling convention may run at all. One that names none means the machine's own.
    pub(super) fn has_architecture(&self, name: &str, native: &str) -> bool {
        let mapped = self.arch_map.iter().flatten().find(|map| map.architecture == native);
        let listed = self.architectures.iter().flatten().any(|one| one == name);
        let sub = mapped.is_some_and(|map| map.sub_architectures.iter().flatten().any(|one| one == name));
        name == native || listed || sub
    }

    pub(super) fn verdicts(&self, capabilities: Capabilities) -> Result<Verdicts<'_>, ProfileError> {
        let default = self.default_action.code(self.default_errno_ret)?;
        let mut by_name: HashMap<&str, Verdict> = HashMap::new();
        for rule in self.syscalls.iter().flatten() {
            let action = rule.action.code(rule.errno_ret)?;
            let conditions = rule.conditions()?;
            if !rule.holds(capabilities)? || action == default {
                continue;
            }
            for name in rule.names.iter().chain(&rule.name) {
                let verdict = by_name.entry(name).or_insert_with(|| Verdict::always(default));
                // One that is decided already, without conditions, stays so.
                if !verdict.rules.is_empty() || verdict.otherwise == default {
                    verdict.add(conditions.clone(), action);
                }
            }
        }
        Ok(Verdicts { by_name, default })
    }
}

impl Rule {
    fn conditions(&self) -> Result<Vec<Condition>, ProfileError> {
        let arguments = self.args.iter().flatten();
        if arguments.clone().count() > CONDITIONS_MAX {
            return Err(ProfileError::TooLarge);
        }
        let condition = |argument: &Argument| match argument.index {
            0..ARGUMENTS_MAX => Ok(argument.condition()),
            index => Err(ProfileError::Argument(index)),
        };
        arguments.map(condition).collect()
    }

    fn holds(&self, capabilities: Capabilities) -> Result<bool, ProfileError> {
        let includes = self.includes.as_ref().map_or(Ok(true), |filter| filter.holds(capabilities, true))?;
        let excludes =
            self.excludes.as_ref().map_or(Ok(false), |filter| filter.holds(capabilities, false))?;
        Ok(includes && !excludes)
    }
}

impl Filter {
    /// Whether all (or any) of what it names is so.
    fn holds(&self, capabilities: Capabilities, all: bool) -> Result<bool, ProfileError> {
        let mut facts = Vec::new();
        for name in self.caps.iter().flatten() {
            let one = Capabilities::from_name(name).ok_or_else(|| ProfileError::Capability(name.clone()))?;
            facts.push(capabilities.contains(one));
        }
        if let Some(arches) = self.arches.as_ref().filter(|arches| !arches.is_empty()) {
            facts.push(arches.iter().any(|arch| arch == go_architecture()));
        }
        if let Some(least) = &self.min_kernel {
            facts.push(kernel_is_at_least(least));
        }
        Ok(if all { facts.iter().all(|fact| *fact) } else { facts.contains(&true) })
    }
}

/// This machine as profiles call it.
const fn go_architecture() -> &'static str {
    if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }
}

fn kernel_is_at_least(least: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        let digits = text.split(|character: char| !character.is_ascii_digit());
        digits.take(2).filter_map(|part| part.parse().ok()).collect()
    };
    numbers(&rustix::system::uname().release().to_string_lossy()) >= numbers(least)
}
