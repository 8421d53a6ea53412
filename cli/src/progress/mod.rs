//! Draws a build while it runs: one [`EventSink`] with several looks.
//!
//! ```text
//! Event ──► Board (what is known: numbers, times, lines) ──► View: tty | plain | rawjson | quiet
//!   any thread         under one lock                              a ticker thread redraws
//! ```
//!
//! The [`Board`] turns events into [`Change`]s; a view writes them. A view never sees a raw byte of a
//! step's output: lines are split, decoded and stripped of control sequences before. Time is a parameter
//! everywhere but in [`Progress`], so that a view can be tested against a made-up clock.
//!
//! Everything goes to standard error; standard output belongs to results.

mod board;
mod line;
mod palette;
mod plain;
mod quiet;
mod rawjson;
#[cfg(test)]
mod testing;
mod tty;

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::ProgressDrawTarget;
use rbuild_llb::VertexId;
use rbuild_solver::progress::{Event, EventSink};

use crate::app::unix_now_ns;
use board::{Board, Change, StepIndex};
pub(crate) use line::LineBuffer;
pub(crate) use palette::Palette;

/// How often a view is given the chance to redraw. Ten frames a second look alive and cost nothing.
const TICK: Duration = Duration::from_millis(100);

/// What the user wants to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// [`Mode::Tty`] on a terminal, [`Mode::Plain`] elsewhere.
    Auto,
    /// A moving display. Without a terminal it is [`Mode::Plain`].
    Tty,
    /// BuildKit's log lines, which scripts parse.
    Plain,
    /// BuildKit's `SolveStatus` as lines of JSON.
    RawJson,
    /// Nothing. The last lines of each step are still kept for the error report.
    Quiet,
}

/// What standard error is.
#[derive(Debug, Clone)]
pub(crate) struct Terminal {
    /// It is a terminal, and not a dumb one.
    pub(crate) is_terminal: bool,
    /// Colours are wanted: no `NO_COLOR`.
    pub(crate) color: bool,
    /// Which ones.
    pub(crate) palette: Palette,
}

/// The display of one command. It draws until [`finish`](Self::finish), or until it is dropped.
pub(crate) struct Progress {
    shared: Arc<Shared>,
    ticker: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    display: Mutex<Display>,
    /// Signalled when the display is finished, to end the ticker at once.
    finished: Condvar,
    started: Instant,
}

impl Progress {
    /// A display on standard error; its clock starts now.
    pub(crate) fn start(mode: Mode, terminal: Terminal) -> Arc<Self> {
        let view: Box<dyn View> = match (mode, terminal.is_terminal) {
            (Mode::Quiet, _) => Box::new(quiet::Quiet),
            (Mode::RawJson, _) => Box::new(rawjson::RawJson::new(io::stderr(), unix_now_ns())),
            (Mode::Auto | Mode::Tty, true) => Box::new(tty::Tty::new(
                ProgressDrawTarget::stderr(),
                Box::new(|| console::Term::stderr().size()),
                terminal.color.then_some(terminal.palette),
            )),
            (Mode::Plain, _) | (Mode::Auto | Mode::Tty, false) => Box::new(plain::Plain::new(io::stderr())),
        };
        let shared = Arc::new(Shared {
            display: Mutex::new(Display::new(view)),
            finished: Condvar::new(),
            started: Instant::now(),
        });
        let ticker = match mode {
            Mode::Quiet | Mode::RawJson => None,
            Mode::Auto | Mode::Tty | Mode::Plain => start_ticker(Arc::clone(&shared)),
        };
        Arc::new(Self { shared, ticker: Mutex::new(ticker) })
    }

    /// Shows why steps run, too.
    pub(crate) fn explain(&self) {
        self.shared.lock().board.explains = true;
    }

    /// The number under which a vertex is shown, once it is.
    pub(crate) fn number(&self, vertex: VertexId) -> Option<usize> {
        self.shared.lock().board.number(vertex)
    }

    /// Writes what is still held back and leaves the screen clean. Later events are not drawn. May be called twice.
    pub(crate) fn finish(&self) {
        self.shared.lock().finish(self.shared.now());
        self.shared.finished.notify_all();
        let ticker = self.ticker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ticker) = ticker {
            // A ticker that panicked has drawn less; nothing to do about it here.
            drop(ticker.join());
        }
    }

    /// The last lines that a step printed, oldest first, as they may be shown on a terminal. Kept for steps that have not
    /// completed; at most [`board::TAIL_LINES_MAX`].
    pub(crate) fn tail(&self, vertex: VertexId) -> Vec<String> {
        self.shared.lock().board.tail(vertex)
    }
}

impl EventSink for Progress {
    fn emit(&self, event: Event) {
        // The clock is read under the lock: times never run backwards from one line to the next.
        let mut display = self.shared.lock();
        display.handle(event, self.shared.now());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Progress").finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Display> {
        self.display.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Without a thread for the ticker the display is only less smooth, so a failure to start one is no error.
fn start_ticker(shared: Arc<Shared>) -> Option<JoinHandle<()>> {
    std::thread::Builder::new().name("progress".to_owned()).spawn(move || tick_until_finished(&shared)).ok()
}

fn tick_until_finished(shared: &Shared) {
    let mut display = shared.lock();
    while !display.finished {
        display.tick(shared.now());
        display = shared.finished.wait_timeout(display, TICK).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// What a look has to do. Failures to write are ignored: a build does not fail because nobody watches it.
trait View: Send {
    /// Something happened to a step.
    fn change(&mut self, board: &Board, step: StepIndex, change: &Change, now: Duration);
    /// Time has passed.
    fn tick(&mut self, board: &Board, now: Duration);
    /// Nothing more will come.
    fn finish(&mut self, board: &Board, now: Duration);
}

/// A board and the view of it, without thread and clock.
struct Display {
    board: Board,
    view: Box<dyn View>,
    finished: bool,
}

impl Display {
    fn new(view: Box<dyn View>) -> Self {
        Self { board: Board::default(), view, finished: false }
    }

    fn handle(&mut self, event: Event, now: Duration) {
        for (step, change) in self.board.apply(event, now) {
            if !self.finished {
                self.view.change(&self.board, step, &change, now);
            }
        }
    }

    fn tick(&mut self, now: Duration) {
        self.view.tick(&self.board, now);
    }

    fn finish(&mut self, now: Duration) {
        if self.finished {
            return;
        }
        for (step, change) in self.board.flush(now) {
            self.view.change(&self.board, step, &change, now);
        }
        self.view.finish(&self.board, now);
        self.finished = true;
    }
}
