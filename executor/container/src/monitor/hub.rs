//! Where the output of a container goes: to its log, and to every client that takes part.
//!
//! A client that reads slowly slows the process down, as a pipe does: each has a queue of a bounded size. When the process
//! has ended there is no bound, as what is left is no more than its pipes held; so its end is known at once.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rbuild_executor::{OutputSink, Stream};

use super::Clock;
use crate::log::LogWriter;
use crate::protocol::Attach;

/// How much of the output a client may be behind.
const QUEUE_SIZE_BYTES_MAX: usize = 1024 * 1024;

/// The output of one process.
#[derive(Debug)]
pub(super) struct Hub {
    clock: Clock,
    log: Option<Mutex<LogWriter>>,
    clients: Mutex<Clients>,
}

#[derive(Debug, Default)]
struct Clients {
    queues: Vec<Arc<Queue>>,
    /// Outputs that nobody wants any more: standard output, standard error.
    closed: [bool; 2],
    process_ended: bool,
    exit_code: Option<i32>,
}

/// What one client is still to be told.
#[derive(Debug)]
pub(super) struct Queue {
    wanted: Attach,
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    pieces: VecDeque<(Stream, Arc<[u8]>)>,
    size_bytes: usize,
    process_ended: bool,
    /// How the container ended, once all is told that may be told of it.
    exit_code: Option<i32>,
    client_gone: bool,
}

/// What a client is told next.
#[derive(Debug)]
pub(super) enum Next {
    Output(Stream, Arc<[u8]>),
    Exited(i32),
    /// Nothing: it is there no more.
    Gone,
}

impl Hub {
    pub(super) fn new(log: Option<LogWriter>, clock: Clock) -> Arc<Self> {
        Arc::new(Self { clock, log: log.map(Mutex::new), clients: Mutex::default() })
    }

    pub(super) fn subscribe(&self, wanted: Attach) -> Arc<Queue> {
        let mut clients = locked(&self.clients);
        let inner =
            Inner { process_ended: clients.process_ended, exit_code: clients.exit_code, ..Inner::default() };
        let queue = Arc::new(Queue { wanted, inner: Mutex::new(inner), changed: Condvar::new() });
        clients.queues.push(Arc::clone(&queue));
        queue
    }

    pub(super) fn unsubscribe(&self, queue: &Arc<Queue>) {
        locked(&self.clients).queues.retain(|other| !Arc::ptr_eq(other, queue));
        queue.change(|inner| inner.client_gone = true);
    }

    /// The process has ended: nobody holds up what is left of its output.
    pub(super) fn process_ended(&self) {
        let mut clients = locked(&self.clients);
        clients.process_ended = true;
        clients.queues.iter().for_each(|queue| queue.change(|inner| inner.process_ended = true));
    }

    /// All output is in, and the end is noted: clients may know.
    pub(super) fn finish(&self, exit_code: i32) {
        let mut clients = locked(&self.clients);
        clients.exit_code = Some(exit_code);
        clients.queues.iter().for_each(|queue| queue.change(|inner| inner.exit_code = Some(exit_code)));
    }

    /// Writes what of the log has no newline.
    pub(super) fn finish_log(&self) {
        if let Some(log) = &self.log {
            // A full disk must not end a container: its log has a hole.
            drop(locked(log).finish((self.clock.now_ns)()));
        }
    }

    /// Nobody wants more of an output: the process finds what a program finds whose reader went away.
    pub(super) fn close_output(&self, stderr: bool) {
        locked(&self.clients).closed[usize::from(stderr)] = true;
    }

    fn take(&self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        if locked(&self.clients).closed[usize::from(stream == Stream::Stderr)] {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if let Some(log) = &self.log {
            drop(locked(log).write(stream, bytes, (self.clock.now_ns)()));
        }
        let queues = locked(&self.clients).queues.clone();
        if queues.is_empty() {
            return Ok(());
        }
        let piece: Arc<[u8]> = bytes.into();
        for queue in queues.iter().filter(|queue| queue.wants(stream)) {
            queue.push(stream, &piece);
        }
        Ok(())
    }
}

impl Queue {
    const fn wants(&self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self.wanted.stdout,
            Stream::Stderr => self.wanted.stderr,
        }
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut locked(&self.inner));
        self.changed.notify_all();
    }

    fn push(&self, stream: Stream, piece: &Arc<[u8]>) {
        let is_full = |inner: &mut Inner| {
            inner.size_bytes >= QUEUE_SIZE_BYTES_MAX && !inner.process_ended && !inner.client_gone
        };
        let waited = self.changed.wait_while(locked(&self.inner), is_full);
        let mut inner = waited.unwrap_or_else(PoisonError::into_inner);
        inner.size_bytes += piece.len();
        inner.pieces.push_back((stream, Arc::clone(piece)));
        drop(inner);
        self.changed.notify_all();
    }

    /// Waits for what is next.
    pub(super) fn next(&self) -> Next {
        let is_idle =
            |inner: &mut Inner| inner.pieces.is_empty() && inner.exit_code.is_none() && !inner.client_gone;
        let waited = self.changed.wait_while(locked(&self.inner), is_idle);
        let mut inner = waited.unwrap_or_else(PoisonError::into_inner);
        if inner.client_gone {
            return Next::Gone;
        }
        match (inner.pieces.pop_front(), inner.exit_code) {
            (Some((stream, piece)), _) => {
                inner.size_bytes -= piece.len();
                drop(inner);
                self.changed.notify_all();
                Next::Output(stream, piece)
            }
            (None, Some(code)) => Next::Exited(code),
            (None, None) => Next::Gone,
        }
    }
}

/// The hub as the executor's sink.
pub(super) struct HubSink(pub(super) Arc<Hub>);

impl OutputSink for HubSink {
    fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        self.0.take(stream, bytes)
    }
}

/// A thread that panicked while it held a lock has left whole values: each change is one step.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
