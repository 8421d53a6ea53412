//! How slow a server may be.

use std::time::Duration;

use tokio::time::Instant;

/// What has to arrive within one read timeout; a server below it holds the line without serving.
const TRICKLE_BYTES_MIN: u64 = 1024;

/// Notices a server that sends, but hardly.
pub(crate) struct Pace {
    window: Duration,
    started: Instant,
    received_bytes: u64,
}

impl Pace {
    pub(crate) fn start(window: Duration) -> Self {
        Self { window, started: Instant::now(), received_bytes: 0 }
    }

    /// Counts what came; whether the window that ends with it brought too little.
    pub(crate) fn is_too_slow(&mut self, bytes: u64) -> bool {
        self.received_bytes += bytes;
        if self.received_bytes >= TRICKLE_BYTES_MIN {
            *self = Self::start(self.window);
        }
        self.started.elapsed() > self.window
    }
}
