//! The user's terminal, in front of a container's.

use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::thread;

use rbuild_executor::{Handle, Stdio, Stream, TerminalSize};
use rustix::termios::{self, OptionalActions, Termios};

use super::pipes::relay;

/// What a terminal is taken to be that does not say.
const SIZE_DEFAULT: TerminalSize = TerminalSize { rows: 24, columns: 80 };
/// How much input is relayed at a time.
const INPUT_SIZE_BYTES: usize = 4096;

/// The user's terminal in raw mode: every key goes to the container. As it was when this is dropped.
#[derive(Debug)]
pub(crate) struct RawTerminal(Termios);

impl RawTerminal {
    /// Sets the terminal on standard input to raw; `None` where there is none.
    pub(crate) fn enter() -> Option<Self> {
        let before = termios::tcgetattr(io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(io::stdin(), OptionalActions::Drain, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A terminal that went away needs no mode.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Drain, &self.0);
    }
}

/// The size of the user's terminal.
pub(crate) fn size() -> TerminalSize {
    let size = termios::tcgetwinsize(io::stdout()).or_else(|_| termios::tcgetwinsize(io::stdin()));
    size.ok()
        .filter(|size| size.ws_row > 0 && size.ws_col > 0)
        .map_or(SIZE_DEFAULT, |size| TerminalSize { rows: size.ws_row, columns: size.ws_col })
}

/// A terminal for the container, shown on standard output.
pub(crate) fn stdio() -> Stdio {
    let sink = |_: Stream, bytes: &[u8]| {
        let mut out = io::stdout().lock();
        // Output that nobody takes any more is dropped, as a terminal that was closed drops it.
        drop(out.write_all(bytes).and_then(|()| out.flush()));
    };
    Stdio::Terminal { size: size(), sink: Box::new(sink) }
}

/// Copies standard input to the container's terminal, on a thread that ends with the process.
pub(crate) fn relay_input(handle: Handle) {
    thread::spawn(move || {
        if let Some(terminal) = handle.terminal() {
            relay(io::stdin().as_fd(), terminal, &mut [0; INPUT_SIZE_BYTES]);
        }
    });
}
