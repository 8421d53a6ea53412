//! The monitor: this program under another name, which a `run` or `start` has left behind.

use rbuild_container::monitor::{Clock, MONITOR_NAME, run};

use crate::app::unix_now_ns;

/// Becomes a monitor when this program was started as one; whether it was.
///
/// To be called at the start of `main`: what was inherited is closed.
pub(crate) fn monitor_hook() -> bool {
    match rbuild_executor::detached::hook(MONITOR_NAME) {
        None => return false,
        Some(Ok(socket)) => run(socket, Clock { now_ns: unix_now_ns }),
        // Whoever started it sees the socket close.
        Some(Err(_)) => {}
    }
    true
}
