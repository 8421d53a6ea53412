//! Signals to the process, as calls on a thread of its own.
//!
//! Nothing is cleaned up in a handler: children die with their parent, mounts with their last descriptor, and what is
//! half-written has a temporary name.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};

/// What a shell adds to the number of the signal that ended a command.
const EXIT_SIGNAL_BASE: i32 = 128;

/// Calls `handle` for each of `signals` that the process gets, in place of what they would do. To be called before any
/// other thread exists, because threads inherit the mask.
///
/// # Errors
/// When the kernel refuses the mask.
pub(crate) fn watch(signals: &[Signal], mut handle: impl FnMut(Signal) + Send + 'static) -> nix::Result<()> {
    let signals: SigSet = signals.iter().copied().collect();
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&signals), None)?;
    thread::spawn(move || {
        while let Ok(signal) = signals.wait() {
            handle(signal);
        }
    });
    Ok(())
}

/// Lets Ctrl-C and SIGTERM set a flag, for a command to stop in good order. The second time ends the process.
///
/// # Errors
/// As [`watch`].
pub(crate) fn cancel_on_interrupt(flag: Arc<AtomicBool>) -> nix::Result<()> {
    watch(&[Signal::SIGINT, Signal::SIGTERM], move |signal| {
        if flag.swap(true, Ordering::SeqCst) {
            die_of(signal);
        }
    })
}

/// Ends the process as the signal would have, as far as a shell can tell.
pub(crate) fn die_of(signal: Signal) {
    #[expect(clippy::exit, reason = "the user wants the process gone, whatever its threads do")]
    std::process::exit(EXIT_SIGNAL_BASE + signal as i32);
}
