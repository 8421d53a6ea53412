//! Why each step of a build ran or did not, in words.

use std::fmt::Write as _;

use rbuild_solver::Outcome;

use super::document::{BuildDocument, StepDocument};
use crate::app::unix_now;
use crate::format::ago;

/// A line for each reason of each step.
pub(crate) fn explanation<'a>(steps: impl IntoIterator<Item = &'a StepDocument>) -> String {
    let mut text = String::new();
    for step in steps {
        let number = step.number.map_or_else(|| "-".to_owned(), |number| format!("#{number}"));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{number} {}", step.name);
        for reason in why(step) {
            let _ = writeln!(text, "    {reason}");
        }
    }
    text
}

/// The reasons of one step.
pub(crate) fn why(step: &StepDocument) -> Vec<String> {
    let made = || {
        step.origin().map_or_else(String::new, |origin| {
            let (id, when) =
                (origin.build.id().to_owned(), ago(unix_now(), origin.build.started_ms() / 1000));
            format!(", made by build {id} {when}")
        })
    };
    match step.decision {
        None if step.key.is_none() && step.started_ms.is_some() => {
            vec!["files are looked at in every build".to_owned()]
        }
        None => vec!["not reached".to_owned()],
        Some(outcome @ Outcome::Ran(_)) if step.causes.is_empty() => vec![outcome.to_string()],
        Some(Outcome::Ran(_)) => step.causes.iter().map(|cause| format!("ran: {cause}")).collect(),
        Some(outcome) => vec![format!("{outcome}{}", made())],
    }
}

impl BuildDocument {
    /// All steps, in the order in which progress showed them.
    pub(crate) fn steps_as_shown(&self) -> Vec<&StepDocument> {
        let mut steps: Vec<&StepDocument> = self.steps.iter().collect();
        steps.sort_by_key(|step| step.number.unwrap_or(usize::MAX));
        steps
    }

    /// The steps that a person wrote, and what they begin with.
    pub(crate) fn shown_steps(&self) -> impl Iterator<Item = &StepDocument> {
        self.steps.iter().filter(|step| !step.internal)
    }
}
