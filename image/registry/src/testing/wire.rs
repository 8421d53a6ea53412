//! The wire to a server: what goes over it is counted, and it breaks when it is told to.
//!
//! It breaks after a number of bytes and is whole again after a number of tries, so that a test needs no clock.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// What is read at a time, and how long a slow wire rests after it.
const PIECE_BYTES: usize = 16 * 1024;
const PAUSE: Duration = Duration::from_millis(2);

/// What went over a wire, in bytes, with all that HTTP adds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// To the server.
    pub up_bytes: u64,
    /// From it.
    pub down_bytes: u64,
}

impl Moved {
    /// What went since another moment.
    #[must_use]
    pub const fn since(self, before: Self) -> Self {
        Self { up_bytes: self.up_bytes - before.up_bytes, down_bytes: self.down_bytes - before.down_bytes }
    }
}

#[derive(Debug)]
struct State {
    server: Mutex<String>,
    up_bytes: AtomicU64,
    down_bytes: AtomicU64,
    /// How many more bytes pass before it breaks.
    left_bytes: AtomicU64,
    /// How many connections are refused once it is broken.
    refusals: AtomicUsize,
    is_slow: AtomicBool,
    stop: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

/// A wire to a server. Cut when dropped.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    state: Arc<State>,
}

impl Wire {
    /// A wire to the server at `127.0.0.1:<port>`.
    ///
    /// # Errors
    /// When there is no loopback interface to listen on.
    pub fn to(server: &str) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            server: Mutex::new(server.to_owned()),
            up_bytes: AtomicU64::new(0),
            down_bytes: AtomicU64::new(0),
            left_bytes: AtomicU64::new(u64::MAX),
            refusals: AtomicUsize::new(0),
            is_slow: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || accept(&listener, &shared));
        Ok(Self { address, state })
    }

    /// `127.0.0.1:<port>`: the server's name at this end.
    pub fn name(&self) -> String {
        self.address.to_string()
    }

    /// What went over it so far.
    pub fn moved(&self) -> Moved {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Moved { up_bytes: load(&self.state.up_bytes), down_bytes: load(&self.state.down_bytes) }
    }

    /// Breaks all connections after so many more bytes, and refuses so many that follow. Then it is whole.
    pub fn break_after(&self, bytes: u64, refusals: usize) {
        self.state.refusals.store(refusals, Ordering::SeqCst);
        self.state.left_bytes.store(bytes, Ordering::SeqCst);
    }

    /// Whole from now on.
    pub fn mend(&self) {
        self.break_after(u64::MAX, 0);
    }

    /// Whether it passes on slowly: some 8 MB a second for each connection.
    pub fn set_slow(&self, is_slow: bool) {
        self.state.is_slow.store(is_slow, Ordering::Relaxed);
    }

    /// Leads to another server from now on: the same one, started again on another port.
    pub fn lead_to(&self, server: &str) {
        server.clone_into(&mut lock(&self.state.server));
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        self.state.cut();
        // Wakes the thread that accepts.
        TcpStream::connect(self.address).ok();
    }
}

impl State {
    fn cut(&self) {
        for stream in lock(&self.open).drain(..) {
            stream.shutdown(Shutdown::Both).ok();
        }
    }

    /// Takes so many bytes from what may still pass. Whether they may.
    fn take(&self, bytes: u64) -> bool {
        let taken = self.left_bytes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| match left {
            u64::MAX => Some(left),
            left => left.checked_sub(bytes),
        });
        taken.is_ok()
    }

    /// Whether a new connection is let through. The last one that is refused mends the wire.
    fn admits(&self) -> bool {
        if self.left_bytes.load(Ordering::SeqCst) > 0 {
            return true;
        }
        let one_less = |refusals: usize| refusals.checked_sub(1);
        let refused = self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok();
        if !refused {
            self.left_bytes.store(u64::MAX, Ordering::SeqCst);
        }
        !refused
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
    for stream in listener.incoming() {
        if state.stop.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else { continue };
        if state.admits() {
            // A server that is not there is part of the tests.
            connect(&stream, state).ok();
        }
    }
}

fn connect(client: &TcpStream, state: &Arc<State>) -> io::Result<()> {
    let server = TcpStream::connect(lock(&state.server).as_str())?;
    lock(&state.open).extend([client.try_clone()?, server.try_clone()?]);
    for (mut from, mut to, is_up) in
        [(client.try_clone()?, server.try_clone()?, true), (server, client.try_clone()?, false)]
    {
        let state = Arc::clone(state);
        thread::spawn(move || {
            pass(&mut from, &mut to, &state, is_up).ok();
            from.shutdown(Shutdown::Both).ok();
            to.shutdown(Shutdown::Both).ok();
        });
    }
    Ok(())
}

fn pass(from: &mut TcpStream, to: &mut TcpStream, state: &State, is_up: bool) -> io::Result<()> {
    let counter = if is_up { &state.up_bytes } else { &state.down_bytes };
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let length = from.read(&mut piece)?;
        if length == 0 {
            return Ok(());
        }
        if !state.take(length as u64) {
            state.left_bytes.store(0, Ordering::SeqCst);
            state.cut();
            return Ok(());
        }
        counter.fetch_add(length as u64, Ordering::Relaxed);
        to.write_all(&piece[..length])?;
        if state.is_slow.load(Ordering::Relaxed) {
            thread::sleep(PAUSE);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
