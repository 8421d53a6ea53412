//! The user's side of a process that a monitor owns: what it prints is shown, what is typed goes there, until it ends or the user
//! leaves.

use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use nix::sys::signal::Signal;
use rbuild_container::{ContainerError, Event, Session};
use rbuild_executor::Stream;
use rustix::io::Errno;

use super::pipes::write_all;
use super::terminal::{self, RawTerminal};
use super::{EXIT_FAILED, unwritten};
use crate::app::color;
use crate::report::{Failure, Kind, eprint};
use crate::signal;

/// How much input is relayed at a time: what a pipe holds.
const INPUT_SIZE_BYTES: usize = 64 * 1024;

/// What is passed on to the process.
const FORWARDED: [Signal; 8] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGCONT,
    Signal::SIGWINCH,
];

/// How a user takes part.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// The process has a terminal.
    pub(super) tty: bool,
    /// The user's input goes there.
    pub(super) stdin: bool,
    /// The keys that leave it running.
    pub(super) detach_keys: Vec<u8>,
}

/// How it came to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The process has ended so.
    Exited(i32),
    /// The user has left it running.
    Left,
}

/// Passes signals on to a session that comes later: to be called before any other thread exists, as they inherit the mask.
pub(super) fn forward_signals(tty: bool, proxy: bool) -> Result<Arc<OnceLock<Session>>, Failure> {
    let target: Arc<OnceLock<Session>> = Arc::default();
    let session = Arc::clone(&target);
    let forward = move |signal| {
        let Some(session) = session.get() else {
            // Nothing runs yet: the signal is for rbuild, and means what it always means.
            if !matches!(signal, Signal::SIGWINCH | Signal::SIGCONT) {
                signal::die_of(signal);
            }
            return;
        };
        // A process that has ended meanwhile is no error.
        drop(match signal {
            Signal::SIGWINCH if tty => session.resize(terminal::size()),
            Signal::SIGWINCH => Ok(()),
            signal => session.signal(signal as i32),
        });
    };
    let signals: &[Signal] = if proxy { &FORWARDED } else { &[Signal::SIGWINCH] };
    signal::watch(signals, forward)
        .map_err(|error| Failure::new(Kind::Environment, format!("failed to watch signals: {error}")))?;
    Ok(target)
}

/// Takes part until the end. `raw` is the user's terminal, which is as it was when this returns.
pub(super) fn attend(
    session: &Session,
    part: &Part,
    raw: Option<RawTerminal>,
) -> Result<Outcome, ContainerError> {
    let left = Arc::new(AtomicBool::new(false));
    if part.stdin {
        let (session, part, left) = (session.clone(), part.clone(), Arc::clone(&left));
        thread::spawn(move || send_input(&session, &part, &left));
    }
    let mut lost = None;
    let outcome = loop {
        match session.next_event() {
            Ok(Event::Output(stream, bytes)) => lost = lost.or(show(session, stream, &bytes).err()),
            Ok(Event::Exited(code)) => break Ok(Outcome::Exited(code)),
            Err(_) if left.load(Ordering::SeqCst) => break Ok(Outcome::Left),
            Err(error) => break Err(error),
        }
    };
    drop(raw);
    if matches!(outcome, Ok(Outcome::Left)) {
        eprint("read escape sequence\n");
    }
    let Some(lost) = lost else { return outcome };
    lost.show(color());
    match outcome {
        Ok(Outcome::Exited(0)) => Ok(Outcome::Exited(EXIT_FAILED.into())),
        outcome => outcome,
    }
}

/// Writes output. A reader that went away is no failure.
fn show(session: &Session, stream: Stream, bytes: &[u8]) -> Result<(), Failure> {
    let written = match stream {
        Stream::Stdout => write_all(io::stdout().as_fd(), bytes),
        Stream::Stderr => write_all(io::stderr().as_fd(), bytes),
    };
    let Err(error) = written else { return Ok(()) };
    // The process finds what a program finds whose reader went away.
    drop(session.close_output(stream));
    if error == Errno::PIPE { Ok(()) } else { Err(unwritten(stream, &error.into())) }
}

fn send_input(session: &Session, part: &Part, left: &AtomicBool) {
    let mut keys = DetachKeys::new(if part.tty { &part.detach_keys } else { &[] });
    let mut buffer = vec![0; INPUT_SIZE_BYTES];
    loop {
        match io::stdin().read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                let (bytes, leaves) = keys.filter(&buffer[..count]);
                if session.write(&bytes).is_err() {
                    return;
                }
                if leaves {
                    left.store(true, Ordering::SeqCst);
                    return session.leave();
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    drop(session.end_input());
}

/// Looks for the keys that leave.
#[derive(Debug)]
struct DetachKeys<'a> {
    keys: &'a [u8],
    /// How many of them were typed in a row, and are held back.
    matched: usize,
}

impl<'a> DetachKeys<'a> {
    const fn new(keys: &'a [u8]) -> Self {
        Self { keys, matched: 0 }
    }

    /// What of the input goes on, and whether the keys were typed.
    fn filter(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(input.len());
        for byte in input {
            if self.keys.get(self.matched) == Some(byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (passed, true);
                }
                continue;
            }
            passed.extend_from_slice(&self.keys[..self.matched]);
            self.matched = usize::from(self.keys.first() == Some(byte));
            if self.matched == 0 {
                passed.push(*byte);
            }
        }
        (passed, false)
    }
}

/// Reads `ctrl-p,ctrl-q`: single letters, and `ctrl-` with a letter or one of `@[\]^_`.
///
/// # Errors
/// When a key is none.
pub(super) fn parse_detach_keys(text: &str) -> Result<Vec<u8>, Failure> {
    let key = |name: &str| {
        let byte = |text: &str| <[u8; 1]>::try_from(text.as_bytes()).ok().map(|[byte]| byte);
        match name.strip_prefix("ctrl-") {
            Some(letter) => match byte(letter)? {
                letter @ b'a'..=b'z' => Some(letter - b'a' + 1),
                letter @ (b'@' | b'['..=b'_') => Some(letter - b'@'),
                _ => None,
            },
            None => byte(name),
        }
    };
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let invalid = |name: &str| {
        Failure::new(Kind::Run(EXIT_FAILED), format!("invalid detach keys ({text}): unknown key `{name}`"))
    };
    text.split(',').map(|name| key(name).ok_or_else(|| invalid(name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_read() {
        assert_eq!(parse_detach_keys("ctrl-p,ctrl-q").unwrap(), [16, 17]);
        assert_eq!(parse_detach_keys("a,ctrl-],ctrl-@").unwrap(), [b'a', 29, 0]);
        assert_eq!(parse_detach_keys("").unwrap(), [] as [u8; 0]);
        for text in ["ctrl-", "ctrl-P", "ab", "a,,b"] {
            assert!(parse_detach_keys(text).is_err(), "{text}");
        }
    }

    #[test]
    fn detach_keys_are_found_in_what_is_typed() {
        let keys = [16, 17];
        type Typed<'a> = &'a [&'a [u8]];
        let cases: [(Typed<'_>, &[u8], bool); 6] = [
            (&[b"abc"], b"abc", false),
            (&[b"a\x10\x11b"], b"a", true),
            (&[b"a\x10", b"\x11"], b"a", true),
            (&[b"\x10x\x11"], b"\x10x\x11", false),
            (&[b"\x10\x10\x11"], b"\x10", true),
            (&[b"\x11"], b"\x11", false),
        ];
        for (typed, passed, leaves) in cases {
            let mut filter = DetachKeys::new(&keys);
            let (mut all, mut left) = (Vec::new(), false);
            for piece in typed {
                let (bytes, leaves) = filter.filter(piece);
                all.extend(bytes);
                left |= leaves;
            }
            assert_eq!((all.as_slice(), left), (passed, leaves), "{typed:?}");
        }
    }
}
