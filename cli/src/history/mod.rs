//! The history of builds, as commands see it: [`BuildDocument`] is what is known of one, [`Recorder`] writes it while the build
//! runs, and [`find`](find::build) knows what a user means by BUILD and STEP.

mod document;
pub(crate) mod find;
mod recorder;
mod words;

pub(crate) use document::{BuildDocument, BuildOutcome, StepDocument, StepState};
pub(crate) use recorder::{Header, Recorder};
pub(crate) use words::{explanation, why};
