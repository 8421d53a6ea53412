//! Sockets of one namespace that lead to another: what comes to one is sent on from there, and what is answered comes back.
//!
//! One thread listens on all sockets of a purpose. A connection has two more, one for each direction, which end with it.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread::{self, JoinHandle};

use nix::sched::CloneFlags;
use rustix::event::{PollFd, PollFlags, poll};

/// The most senders of datagrams whose answers find back; beyond, the one that was silent longest is forgotten.
const SESSIONS_MAX: usize = 1024;
/// The largest datagram.
const DATAGRAM_SIZE_BYTES_MAX: usize = 64 * 1024;

/// A thread that serves some sockets. They are closed when this has been dropped.
#[derive(Debug)]
pub(super) struct Doors(Option<(OwnedFd, JoinHandle<()>)>);

impl Doors {
    /// Begins to serve. New sockets are made in `namespace`; without one, in this process's own.
    pub(super) fn open(doors: Vec<Door>, namespace: Option<OwnedFd>) -> io::Result<Self> {
        let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let work = move || {
            let there = namespace.map_or(Ok(()), |there| nix::sched::setns(there, CloneFlags::CLONE_NEWNET));
            if there.is_ok() {
                serve(&stopped, &doors);
            }
        };
        let server = thread::Builder::new().name("doors".to_owned()).spawn(work)?;
        Ok(Self(Some((stop, server))))
    }
}

impl Drop for Doors {
    fn drop(&mut self) {
        if let Some((stop, server)) = self.0.take() {
            drop(stop);
            // It does not panic, and nothing could be done about it here.
            drop(server.join());
        }
    }
}

/// A socket, and where what comes to it goes.
pub(super) struct Door {
    pub(super) socket: DoorSocket,
    pub(super) to: SocketAddr,
    /// Answers a datagram itself, if it can.
    pub(super) answer: Option<Answer>,
}

/// What makes an answer of a datagram.
pub(super) type Answer = Box<dyn Fn(&[u8]) -> Option<Vec<u8>> + Send>;

pub(super) enum DoorSocket {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Door {
    /// Serves connections. One that has gone before it was accepted must not keep the others waiting.
    pub(super) fn tcp(listener: TcpListener, to: SocketAddr) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { socket: DoorSocket::Tcp(listener), to, answer: None })
    }

    /// Serves datagrams.
    pub(super) fn udp(socket: UdpSocket, to: SocketAddr) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket: DoorSocket::Udp(socket), to, answer: None })
    }

    pub(super) fn port(&self) -> io::Result<u16> {
        let address = match &self.socket {
            DoorSocket::Tcp(listener) => listener.local_addr(),
            DoorSocket::Udp(socket) => socket.local_addr(),
        };
        Ok(address?.port())
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            DoorSocket::Tcp(listener) => listener.as_fd(),
            DoorSocket::Udp(socket) => socket.as_fd(),
        }
    }
}

/// Somebody who sent datagrams: the index of the door, and from where.
type Sender = (usize, SocketAddr);

/// The sockets through which senders of datagrams are answered, and when each was last used, counted in datagrams.
#[derive(Default)]
struct Sessions {
    open: BTreeMap<Sender, (UdpSocket, u64)>,
    count: u64,
}

impl Sessions {
    fn of(&mut self, sender: Sender, to: SocketAddr) -> io::Result<&UdpSocket> {
        self.count += 1;
        if !self.open.contains_key(&sender) {
            if self.open.len() >= SESSIONS_MAX {
                let oldest = self.open.iter().min_by_key(|(_, (_, used))| *used).map(|(sender, _)| *sender);
                oldest.and_then(|oldest| self.open.remove(&oldest));
            }
            let any: SocketAddr = ([0, 0, 0, 0], 0).into();
            let socket = UdpSocket::bind(any)?;
            socket.connect(to)?;
            socket.set_nonblocking(true)?;
            self.open.insert(sender, (socket, 0));
        }
        let (socket, used) = self.open.get_mut(&sender).ok_or(ErrorKind::NotFound)?;
        *used = self.count;
        Ok(socket)
    }
}

/// Serves all doors until the other end of `stopped` is closed.
fn serve(stopped: &OwnedFd, doors: &[Door]) {
    let mut sessions = Sessions::default();
    let mut buffer = vec![0; DATAGRAM_SIZE_BYTES_MAX];
    loop {
        let senders: Vec<Sender> = sessions.open.keys().copied().collect();
        let ready = {
            let sockets = doors.iter().map(AsFd::as_fd);
            let answers = sessions.open.values().map(|(socket, _)| socket.as_fd());
            let all = std::iter::once(stopped.as_fd()).chain(sockets).chain(answers);
            let mut polled: Vec<PollFd<'_>> =
                all.map(|socket| PollFd::from_borrowed_fd(socket, PollFlags::IN)).collect();
            if rustix::io::retry_on_intr(|| poll(&mut polled, None)).is_err() {
                return;
            }
            polled.iter().map(|polled| !polled.revents().is_empty()).collect::<Vec<bool>>()
        };
        if ready[0] {
            return;
        }
        for (index, door) in doors.iter().enumerate().filter(|(index, _)| ready[1 + index]) {
            // What one sender does wrong, or the kernel refuses for one, is no reason to end the others.
            drop(pass_on(door, index, &mut sessions, &mut buffer));
        }
        for (_, sender) in senders.iter().enumerate().filter(|(index, _)| ready[1 + doors.len() + index]) {
            drop(answer(doors, *sender, &mut sessions, &mut buffer));
        }
    }
}

fn pass_on(door: &Door, index: usize, sessions: &mut Sessions, buffer: &mut [u8]) -> io::Result<()> {
    match &door.socket {
        DoorSocket::Tcp(listener) => join(listener.accept()?.0, door.to),
        DoorSocket::Udp(socket) => {
            let (size, from) = socket.recv_from(buffer)?;
            match door.answer.as_ref().and_then(|answer| answer(&buffer[..size])) {
                Some(answer) => socket.send_to(&answer, from).map(drop),
                None => sessions.of((index, from), door.to)?.send(&buffer[..size]).map(drop),
            }
        }
    }
}

fn answer(doors: &[Door], sender: Sender, sessions: &mut Sessions, buffer: &mut [u8]) -> io::Result<()> {
    let (index, from) = sender;
    let Some((session, _)) = sessions.open.get(&sender) else { return Ok(()) };
    let size = session.recv(buffer)?;
    match &doors[index].socket {
        DoorSocket::Udp(socket) => socket.send_to(&buffer[..size], from).map(drop),
        DoorSocket::Tcp(_) => Ok(()),
    }
}

/// Joins a connection with a new one to the container, which is made on a thread as it may take long.
fn join(outside: TcpStream, to: SocketAddr) -> io::Result<()> {
    outside.set_nonblocking(false)?;
    let join = move || -> io::Result<()> {
        let inside = TcpStream::connect(to)?;
        let (from_inside, to_outside) = (inside.try_clone()?, outside.try_clone()?);
        let back = move || copy(&from_inside, &to_outside);
        thread::Builder::new().name("port-back".to_owned()).spawn(back)?;
        copy(&outside, &inside);
        Ok(())
    };
    // A connection that the container refuses is closed, as the container's own refusal would be.
    thread::Builder::new().name("port".to_owned()).spawn(move || drop(join())).map(drop)
}

/// Copies one direction until it ends, and then tells the receiver so; the other direction may go on.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    drop(io::copy(&mut from, &mut to));
    drop(to.shutdown(Shutdown::Write));
    drop(from.shutdown(Shutdown::Read));
}
