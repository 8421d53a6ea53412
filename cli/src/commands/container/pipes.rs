//! The pipes of a container without a terminal.
//!
//! The process never has rbuild's own descriptors: it would hold the user's terminal, and a user of the container's could not
//! open `/dev/stdout`, which belongs to the user of rbuild.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::thread;

use rbuild_executor::{OutputSink, Stdio, Stream};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::report::{Failure, Kind};

/// How much input is relayed at a time: what a pipe holds.
const INPUT_SIZE_BYTES: usize = 64 * 1024;

/// Pipes; with input only where it was asked for.
pub(super) fn stdio(interactive: bool) -> Result<Stdio, Failure> {
    let failed = |error: Errno| {
        Failure::new(Kind::Environment, format!("failed to make a pipe: {}", io::Error::from(error)))
    };
    let stdin = interactive.then(relayed_input).transpose().map_err(failed)?;
    Ok(Stdio::Captured { stdin, sink: Box::new(OwnOutput) })
}

/// rbuild's own output.
struct OwnOutput;

impl OutputSink for OwnOutput {
    fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let written = match stream {
            Stream::Stdout => write_all(io::stdout().as_fd(), bytes),
            Stream::Stderr => write_all(io::stderr().as_fd(), bytes),
        };
        Ok(written?)
    }
}

/// A pipe that holds what comes in on standard input, up to its end; filled by a thread that ends with the process.
fn relayed_input() -> rustix::io::Result<OwnedFd> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    thread::spawn(move || relay(io::stdin().as_fd(), writer.as_fd(), &mut [0; INPUT_SIZE_BYTES]));
    Ok(reader)
}

/// Copies until either side has ended.
pub(super) fn relay(from: BorrowedFd<'_>, to: BorrowedFd<'_>, buffer: &mut [u8]) {
    loop {
        match rustix::io::read(from, &mut *buffer) {
            Ok(0) => return,
            Ok(count) if write_all(to, &buffer[..count]).is_ok() => {}
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if ready(from, PollFlags::IN).is_ok() => {}
            _ => return,
        }
    }
}

/// Writes all, to a descriptor that may not block as well.
pub(super) fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => ready(to, PollFlags::OUT)?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn ready(descriptor: BorrowedFd<'_>, what: PollFlags) -> rustix::io::Result<()> {
    match poll(&mut [PollFd::new(&descriptor, what)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error),
    }
}
