//! Progress of `pull` and `push`: a bar for each blob that moves.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rbuild_solver::images::Transfer;

/// How a bar looks: name, bar, amounts.
const TEMPLATE: &str = "{prefix:24} {bar:30} {bytes:>10} / {total_bytes:10}";

/// The bars of one command. On something else than a terminal nothing is drawn.
#[derive(Debug)]
pub(crate) struct Transfers {
    all: MultiProgress,
    bars: Mutex<HashMap<String, ProgressBar>>,
}

impl Transfers {
    /// Begins to draw on standard error, unless `quiet`.
    pub(crate) fn start(quiet: bool) -> Self {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        Self { all: MultiProgress::with_draw_target(target), bars: Mutex::default() }
    }

    /// Shows how far a blob is.
    pub(crate) fn show(&self, transfer: Transfer) {
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        let total = transfer.total_bytes.unwrap_or(0);
        let bar = bars.entry(transfer.name).or_insert_with_key(|name| {
            let style = ProgressStyle::with_template(TEMPLATE).expect("a constant that is a template");
            self.all.add(ProgressBar::new(total).with_style(style).with_prefix(name.clone()))
        });
        bar.set_position(transfer.current_bytes);
    }

    /// Clears the screen of bars.
    pub(crate) fn finish(&self) {
        // A terminal that went away has no bars to clear.
        drop(self.all.clear());
    }
}
