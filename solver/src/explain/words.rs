//! Causes in words.

use std::fmt::{self, Display, Formatter};

use super::files::Paths;
use super::{Cause, Change, FileChange, FileChanges, NamedChange};

/// How much of a value is shown.
const VALUE_CHARS_MAX: usize = 80;

impl Display for Cause {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCache => f.write_str("the cache was not to be used"),
            Self::NeverBuilt => f.write_str("never built before"),
            Self::Forgotten => f.write_str("its result is no longer in the store"),
            Self::Command(change) => write!(f, "command changed: {change}"),
            Self::Environment(change) => write!(f, "environment {change}"),
            Self::Argument(change) => write!(f, "argument {change}"),
            Self::Option(change) => write!(f, "option {change}"),
            Self::Files(changes) => changes.fmt(f),
            Self::BaseImage(change) => write!(f, "base image is another: {change}"),
            Self::Source(change) => write!(f, "source changed: {change}"),
            Self::EarlierStep { step, first } => {
                write!(f, "an earlier step changed: {step}")?;
                match first {
                    Some(first) if first.step == *step => write!(f, " ({})", first.cause),
                    Some(first) => write!(f, " (first {}: {})", first.step, first.cause),
                    None => Ok(()),
                }
            }
        }
    }
}

/// What two references have in common is said once, by leaving it out.
impl Display for Change {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let digests = self.before.split_once('@').zip(self.after.split_once('@'));
        match digests {
            Some(((before, then), (after, now))) if before == after => write!(f, "{then} -> {now}"),
            _ if self.before == self.after => write!(f, "{}", Value(&self.after)),
            _ => write!(f, "{} -> {}", Value(&self.before), Value(&self.after)),
        }
    }
}

impl Display for NamedChange {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { name, before, after } = self;
        match (before, after) {
            (Some(before), Some(after)) => write!(f, "{name}: {} -> {}", Value(before), Value(after)),
            (None, Some(after)) => write!(f, "{name} added: {}", Value(after)),
            (Some(before), None) => write!(f, "{name} removed: {}", Value(before)),
            (None, None) => write!(f, "{name} changed"),
        }
    }
}

impl Display for FileChanges {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let plural = |count| if count == 1 { "file" } else { "files" };
        let mut parts = Vec::new();
        if self.changed.count > 0 {
            parts.push(format!(
                "{} {} changed: {}",
                self.changed.count,
                plural(self.changed.count),
                self.changed
            ));
        }
        for (verb, paths) in [("added", &self.added), ("removed", &self.removed)] {
            if paths.count > 0 {
                parts.push(format!("{} {verb}: {paths}", paths.count));
            }
        }
        if parts.is_empty() { f.write_str("files changed") } else { f.write_str(&parts.join("; ")) }
    }
}

impl<T: Display> Display for Paths<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let named: Vec<String> = self.named.iter().map(ToString::to_string).collect();
        f.write_str(&named.join(", "))?;
        if self.count > self.named.len() { f.write_str(", …") } else { Ok(()) }
    }
}

impl Display for FileChange {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.path, self.what.join(", "))
    }
}

/// A value in one line, cut where it is long.
struct Value<'a>(&'a str);

impl Display for Value<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let line = self.0.split_whitespace().collect::<Vec<_>>().join(" ");
        if line.chars().count() <= VALUE_CHARS_MAX {
            return f.write_str(&line);
        }
        let cut: String = line.chars().take(VALUE_CHARS_MAX - 1).collect();
        write!(f, "{cut}…")
    }
}
