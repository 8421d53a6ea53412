//! Where the output of a process goes.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

/// Which output bytes came from. A terminal has only [`Stream::Stdout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Descriptor 1, or the terminal.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

/// Receives output as it comes.
///
/// Called on the thread that waits for the process. Pieces of one stream arrive whole and in order; pieces end anywhere,
/// also within a character. What comes first across two streams is as near as two pipes can tell.
pub trait OutputSink: Send {
    /// Takes the next bytes of `stream`.
    ///
    /// # Errors
    /// When nobody wants more of it. Its pipe is then closed, and the process finds what a program finds whose reader
    /// went away.
    fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()>;
}

impl<F: FnMut(Stream, &[u8]) + Send> OutputSink for F {
    fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        self(stream, bytes);
        Ok(())
    }
}

/// The three standard descriptors of a process.
pub enum Stdio {
    /// Output goes through pipes to the sink.
    Captured {
        /// Standard input; `/dev/null` when not given. A pipe is given to the process's user.
        stdin: Option<OwnedFd>,
        /// Receives both outputs.
        sink: Box<dyn OutputSink>,
    },
    /// The caller's own three.
    Inherit,
    /// Three descriptors of the caller's choice.
    Files {
        /// Standard input.
        stdin: OwnedFd,
        /// Standard output.
        stdout: OwnedFd,
        /// Standard error.
        stderr: OwnedFd,
    },
    /// A terminal made in the container's own `/dev/pts`; input goes through [`crate::Handle::terminal`].
    Terminal {
        /// Its size at the start.
        size: TerminalSize,
        /// Receives what the terminal shows.
        sink: Box<dyn OutputSink>,
    },
}

impl Stdio {
    /// No input; output to `sink`.
    pub fn captured(sink: impl OutputSink + 'static) -> Self {
        Self::Captured { stdin: None, sink: Box::new(sink) }
    }
}

impl fmt::Debug for Stdio {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Captured { .. } => "Captured",
            Self::Inherit => "Inherit",
            Self::Files { .. } => "Files",
            Self::Terminal { .. } => "Terminal",
        })
    }
}

/// The size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}
