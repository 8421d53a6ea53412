//! `rbuild explain`: why each step of a build ran, or where its result was found. From the history alone.

use serde_json::Value;

use super::builds::step_json;
use super::print;
use crate::app::App;
use crate::args::{ExplainArgs, FormatArg};
use crate::history::{StepDocument, explanation, find};
use crate::report::Failure;

pub(crate) fn run(app: &App, args: &ExplainArgs) -> Result<u8, Failure> {
    let (found, word) = find::build_and_step(app.store()?, &args.step.words)?;
    let steps: Vec<&StepDocument> = match word {
        Some(word) => vec![find::step(&found.document, word)?],
        None => found.document.steps_as_shown(),
    };
    let text = match args.format {
        FormatArg::Text => explanation(steps),
        FormatArg::Json => format!("{:#}\n", steps.into_iter().map(step_json).collect::<Value>()),
    };
    print(&text).map(|()| 0)
}
