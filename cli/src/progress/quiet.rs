//! The look of `--progress=quiet`: none.

use std::time::Duration;

use super::View;
use super::board::{Board, Change, StepIndex};

/// Draws nothing.
pub(super) struct Quiet;

impl View for Quiet {
    fn change(&mut self, _: &Board, _: StepIndex, _: &Change, _: Duration) {}

    fn tick(&mut self, _: &Board, _: Duration) {}

    fn finish(&mut self, _: &Board, _: Duration) {}
}
