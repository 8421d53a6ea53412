//! The look of logs: BuildKit's plain format, line by line, which scripts parse.
//!
//! ```text
//! #4 [build 2/3] RUN make          a step begins, or goes on after others had their turn
//! #4 0.211 cc -c main.c            a line, with the seconds since the step began
//! #4 sha256:5a16 1.05MB / 3.62MB 5.0s
//! #4 ...                           to be continued
//! #4 DONE 0.3s                     or CACHED, CANCELED, ERROR: message
//! ```
//!
//! Steps take turns, so that two that print at once stay readable: what the others do is held back until the one whose turn it is
//! ends, falls silent ([`TURN_SILENCE`]), or has had long enough ([`TURN_MAX`]).

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Write;
use std::time::Duration;

use super::View;
use super::board::{Board, Change, StepIndex};

/// A step that prints nothing for so long gives way to one that has something to show.
const TURN_SILENCE: Duration = Duration::from_secs(1);
/// Nobody waits longer than this to be seen.
const TURN_MAX: Duration = Duration::from_secs(5);
/// More held lines than this end a turn: memory is not for logs.
const HELD_LINES_MAX: usize = 1_000;

/// Writes lines to `out`.
pub(super) struct Plain<W> {
    out: W,
    turn: Option<Turn>,
    held: VecDeque<Held>,
    /// Something was written, so what follows is set off by a blank line.
    begun: bool,
}

/// Whose lines are written as they come.
struct Turn {
    step: StepIndex,
    since: Duration,
    last_line: Duration,
}

/// What a step did while another had its turn.
struct Held {
    step: StepIndex,
    lines: Vec<String>,
    ended: bool,
}

impl<W: Write + Send> Plain<W> {
    pub(super) const fn new(out: W) -> Self {
        Self { out, turn: None, held: VecDeque::new(), begun: false }
    }

    fn hold(&mut self, step: StepIndex, line: Option<String>, ended: bool) {
        match self.held.iter_mut().find(|held| held.step == step) {
            Some(held) => {
                held.lines.extend(line);
                held.ended |= ended;
            }
            None => self.held.push_back(Held { step, lines: line.into_iter().collect(), ended }),
        }
    }

    /// Ends the turn when somebody waits and the rules at the top say so.
    fn pass_turn(&mut self, board: &Board, text: &mut String, now: Duration) {
        let Some(turn) = &self.turn else { return };
        let held_lines: usize = self.held.iter().map(|held| held.lines.len()).sum();
        let over = now.saturating_sub(turn.last_line) >= TURN_SILENCE
            || now.saturating_sub(turn.since) >= TURN_MAX
            || held_lines > HELD_LINES_MAX;
        if over && !self.held.is_empty() {
            push_line(text, &format!("#{} ...", board.step(turn.step).number));
            self.turn = None;
            self.next_turns(board, text, now);
        }
    }

    /// Gives turns to those who wait, until one of them has not ended.
    fn next_turns(&mut self, board: &Board, text: &mut String, now: Duration) {
        while self.turn.is_none() {
            let Some(held) = self.held.pop_front() else { return };
            self.take_turn(board, held.step, text, now);
            held.lines.iter().for_each(|line| push_line(text, line));
            if held.ended {
                self.turn = None;
            }
        }
    }

    fn take_turn(&mut self, board: &Board, step: StepIndex, text: &mut String, now: Duration) {
        if std::mem::replace(&mut self.begun, true) {
            text.push('\n');
        }
        push_line(text, &header(board, step));
        self.turn = Some(Turn { step, since: now, last_line: now });
    }

    /// One write for each change, so that lines of several programs on one terminal do not mix.
    fn write(&mut self, text: &str) {
        if !text.is_empty() {
            // Nobody listens any more; the build goes on.
            drop(self.out.write_all(text.as_bytes()));
        }
    }
}

impl<W: Write + Send> View for Plain<W> {
    fn change(&mut self, board: &Board, step: StepIndex, change: &Change, now: Duration) {
        let mut text = String::new();
        if self.turn.is_none() {
            self.take_turn(board, step, &mut text, now);
        }
        let line = line_of(board.step(step).number, change);
        match &mut self.turn {
            Some(turn) if turn.step == step => {
                turn.last_line = now;
                line.iter().for_each(|line| push_line(&mut text, line));
                if change.is_end() {
                    self.turn = None;
                    self.next_turns(board, &mut text, now);
                }
            }
            _ => {
                self.hold(step, line, change.is_end());
                self.pass_turn(board, &mut text, now);
            }
        }
        self.write(&text);
    }

    fn tick(&mut self, board: &Board, now: Duration) {
        let mut text = String::new();
        self.pass_turn(board, &mut text, now);
        self.write(&text);
    }

    fn finish(&mut self, board: &Board, now: Duration) {
        let mut text = String::new();
        while !self.held.is_empty() {
            self.turn = None;
            self.next_turns(board, &mut text, now);
        }
        self.write(&text);
    }
}

fn header(board: &Board, step: StepIndex) -> String {
    let step = board.step(step);
    format!("#{} {}", step.number, step.name)
}

fn push_line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

/// The line that a change makes; its step's header says enough of a start.
fn line_of(number: usize, change: &Change) -> Option<String> {
    let mut line = format!("#{number} ");
    // Writing to a string cannot fail.
    let _ = match change {
        Change::Started => return None,
        Change::Note(text) => write!(line, "why: {text}"),
        Change::Line { at, text, .. } => write!(line, "{} {text}", log_time(*at)),
        Change::Transferred(transfer) => {
            let done = if transfer.done { " done" } else { "" };
            write!(line, "{transfer} {:.1}s{done}", transfer.took.as_secs_f64())
        }
        Change::Cached => write!(line, "CACHED"),
        Change::Completed { took } => write!(line, "DONE {:.1}s", took.as_secs_f64()),
        Change::Failed { message, .. } => write!(line, "ERROR: {message}"),
        Change::Cancelled => write!(line, "CANCELED"),
    };
    Some(line)
}

/// Five characters: `0.211`, `10.71`, `123.4`.
fn log_time(at: Duration) -> String {
    let seconds = at.as_secs_f64();
    let decimals = match at.as_secs() {
        0..10 => 3,
        10..100 => 2,
        _ => 1,
    };
    format!("{seconds:.decimals$}")
}

#[cfg(test)]
mod tests;
