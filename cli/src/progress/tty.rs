//! The look on a terminal: a moving picture of what runs, below a log of what is done.
//!
//! ```text
//!  => CACHED [build 1/3] FROM debian                              0.0s   written once, scrolls away
//!  => [build 2/3] COPY . .                                        0.2s
//! [+] Building 3.4s (2/3)                                                redrawn from here on
//!  => [build 3/3] RUN make                                        3.1s
//!  => => # cc -c main.c
//! ```
//!
//! The picture is a pure function of board, time and size ([`picture`]), never higher than the terminal. indicatif puts
//! it on the screen as one bar of several lines, so a frame is one write and the log above it stays whole. Only the ticker
//! draws: an event costs the build no write.

use std::time::Duration;

use console::{Style, truncate_str};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::View;
use super::board::{Board, Change, Step, StepIndex};
use super::palette::Palette;

/// How many lines of output a running step shows at most.
const DETAIL_LINES_MAX: usize = 6;

/// Reads the height and width of the terminal, which change while a build runs.
pub(super) type Size = Box<dyn Fn() -> (u16, u16) + Send>;

/// Draws on a terminal.
pub(super) struct Tty {
    bar: ProgressBar,
    size: Size,
    /// Without one, nothing is coloured.
    palette: Option<Palette>,
    /// Lines about ended steps, not written yet.
    ended: Vec<String>,
}

impl Tty {
    pub(super) fn new(target: ProgressDrawTarget, size: Size, palette: Option<Palette>) -> Self {
        let bar = ProgressBar::with_draw_target(None, target);
        // The default stays if the template were wrong, which a test would show.
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        Self { bar, size, palette, ended: Vec::new() }
    }

    fn frame(&self) -> Frame<'_> {
        let (height, width) = (self.size)();
        // A line that fills the last column wraps on some terminals.
        Frame {
            height: height.into(),
            width: usize::from(width).saturating_sub(1).max(1),
            palette: self.palette.as_ref(),
        }
    }

    fn write_ended(&mut self) {
        if !self.ended.is_empty() {
            self.bar.println(std::mem::take(&mut self.ended).join("\n"));
        }
    }
}

impl View for Tty {
    fn change(&mut self, board: &Board, step: StepIndex, change: &Change, now: Duration) {
        self.ended.extend(self.frame().ended_line(board.step(step), change));
        // A build that is cached to the end may be over before the first tick, but not a long one before its lines are seen.
        if self.ended.len() > ENDED_LINES_HELD_MAX {
            self.tick(board, now);
        }
    }

    fn tick(&mut self, board: &Board, now: Duration) {
        self.bar.set_message(picture(board, now, self.frame()).join("\n"));
        self.write_ended();
    }

    fn finish(&mut self, board: &Board, now: Duration) {
        if !board.is_empty() {
            self.ended.push(header(board, now, self.frame()));
        }
        self.write_ended();
        self.bar.finish_and_clear();
    }
}

/// Lines about ended steps that wait for the ticker; more are written at once.
const ENDED_LINES_HELD_MAX: usize = 1_000;

/// What there is to draw on.
#[derive(Debug, Clone, Copy)]
struct Frame<'a> {
    height: usize,
    width: usize,
    palette: Option<&'a Palette>,
}

/// The moving part: a header, then each running step with as much of its output as there is room for.
fn picture(board: &Board, now: Duration, frame: Frame<'_>) -> Vec<String> {
    let running = board.running();
    // One line stays free for the cursor, one is the header's.
    let room = frame.height.saturating_sub(2);
    let mut lines = vec![header(board, now, frame)];
    if running.len() > room {
        let shown = room.saturating_sub(1);
        lines.extend(running.iter().take(shown).map(|step| frame.running_line(step, now)));
        if room > 0 {
            lines.push(frame.cut(&format!(" => … and {} more", running.len() - shown)));
        }
        return lines;
    }
    let details = (room - running.len()).checked_div(running.len()).unwrap_or(0).min(DETAIL_LINES_MAX);
    for step in running {
        lines.push(frame.running_line(step, now));
        lines.extend(step.details(details).iter().map(|line| frame.detail_line(line)));
    }
    lines
}

fn header(board: &Board, now: Duration, frame: Frame<'_>) -> String {
    let text = match board.counts() {
        // A pull or a push has tasks and no steps.
        (_, 0) => format!("[+] Working {}", Seconds(now)),
        (ended, total) => format!("[+] Building {} ({ended}/{total})", Seconds(now)),
    };
    frame.paint(&Style::new().bold(), &frame.cut(&text))
}

impl Frame<'_> {
    fn running_line(self, step: &Step, now: Duration) -> String {
        let took = now.saturating_sub(step.running_since.unwrap_or(now));
        self.with_time(&format!(" => {}", step.name), took)
    }

    fn detail_line(self, text: &str) -> String {
        // A tab is one column to whoever measures, eight to the terminal.
        let line = self.cut(&format!(" => => # {}", text.replace('\t', "    ")));
        self.paint(&Style::new().dim(), &line)
    }

    /// What stays of a step that has ended.
    fn ended_line(self, step: &Step, change: &Change) -> Option<String> {
        let palette = self.palette.cloned().unwrap_or_default();
        let (mark, took, style) = match change {
            Change::Cached => ("CACHED ", Duration::ZERO, palette.run),
            Change::Completed { took } => ("", *took, palette.run),
            Change::Failed { took, .. } => ("ERROR ", *took, palette.error),
            Change::Cancelled => ("CANCELED ", Duration::ZERO, palette.cancel),
            // The line of the step itself comes when it ends.
            Change::Note(text) => return Some(self.detail_line(&format!("why {}: {text}", step.name))),
            Change::Started | Change::Line { .. } | Change::Transferred(_) => return None,
        };
        Some(self.paint(&style, &self.with_time(&format!(" => {mark}{}", step.name), took)))
    }

    /// `text`, cut or filled so that the time ends at the right edge.
    fn with_time(self, text: &str, took: Duration) -> String {
        let time = format!(" {}", Seconds(took));
        let text_width = self.width.saturating_sub(time.len());
        let text = truncate_str(text, text_width, "…");
        let fill = text_width.saturating_sub(console::measure_text_width(&text));
        self.cut(&format!("{text}{}{time}", " ".repeat(fill)))
    }

    fn cut(self, text: &str) -> String {
        truncate_str(text, self.width, "…").into_owned()
    }

    fn paint(self, style: &Style, text: &str) -> String {
        style.apply_to(text).force_styling(self.palette.is_some()).to_string()
    }
}

/// `3.4s`
struct Seconds(Duration);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1}s", self.0.as_secs_f64())
    }
}

#[cfg(test)]
mod tests;
