//! Sockets of one namespace that lead to another: what comes to one is sent on from there, and what is answered comes back.
//!
//! One thread listens on all sockets of a purpose. A connection has two more, one for each direction, which end with it.
//!
//! Where there are several to send to, as with name servers, the first is asked until it fails: it refuses, or says nothing until the
//! same is asked once more. No clock is needed for that: who asks has one.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sched::CloneFlags;
use rustix::event::{PollFd, PollFlags, poll};

/// The most senders of datagrams whose answers find back; beyond, the one that was silent longest is forgotten.
const SESSIONS_MAX: usize = 1024;
/// The largest datagram.
const DATAGRAM_SIZE_BYTES_MAX: usize = 64 * 1024;
/// How long the first of several has to take a connection, before the next is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

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
    pub(super) to: Targets,
    /// Answers a datagram itself, if it can.
    pub(super) answer: Option<Answer>,
    /// Whether an answer is none, so that the next target is to be asked.
    pub(super) is_refusal: fn(&[u8]) -> bool,
}

/// Those to whom something may be sent, any of whom will do; at least one.
#[derive(Debug, Clone)]
pub(super) struct Targets {
    all: Vec<SocketAddr>,
    /// Counts on when one has failed.
    current: Arc<AtomicUsize>,
}

impl Targets {
    pub(super) fn new(all: Vec<SocketAddr>) -> Self {
        Self { all, current: Arc::default() }
    }

    /// The one to try now, and its number.
    fn current(&self) -> (usize, SocketAddr) {
        let number = self.current.load(Ordering::Relaxed);
        (number, self.all[number % self.all.len()])
    }

    /// The one with this number has failed; it is the next one's turn, unless it is already.
    fn fail(&self, number: usize) {
        let next = number.wrapping_add(1);
        // That another was faster is as good.
        let _ = self.current.compare_exchange(number, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let mut result = Err(ErrorKind::NotFound.into());
        for _ in &self.all {
            let (number, to) = self.current();
            result = match self.all.len() {
                1 => TcpStream::connect(to),
                _ => TcpStream::connect_timeout(&to, CONNECT_TIMEOUT),
            };
            if result.is_ok() {
                break;
            }
            self.fail(number);
        }
        result
    }
}

/// What makes an answer of a datagram.
pub(super) type Answer = Box<dyn Fn(&[u8]) -> Option<Vec<u8>> + Send>;

pub(super) enum DoorSocket {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Door {
    /// Serves connections. One that has gone before it was accepted must not keep the others waiting.
    pub(super) fn tcp(listener: TcpListener, to: Targets) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self::new(DoorSocket::Tcp(listener), to))
    }

    /// Serves datagrams.
    pub(super) fn udp(socket: UdpSocket, to: Targets) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self::new(DoorSocket::Udp(socket), to))
    }

    fn new(socket: DoorSocket, to: Targets) -> Self {
        Self { socket, to, answer: None, is_refusal: |_| false }
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        match &self.socket {
            DoorSocket::Tcp(listener) => listener.local_addr(),
            DoorSocket::Udp(socket) => socket.local_addr(),
        }
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

/// The sockets through which senders of datagrams are answered.
#[derive(Default)]
struct Sessions {
    open: BTreeMap<Sender, Session>,
    count: u64,
}

/// One sender's.
struct Session {
    socket: UdpSocket,
    /// When it was last used, counted in datagrams.
    used: u64,
    /// The number of the target that the socket leads to.
    target: usize,
    /// What has not been answered, where there is somebody else to ask. Programs ask for both families at once.
    questions: Vec<Vec<u8>>,
    /// How many targets the last of them was sent to.
    tries: usize,
}

impl Session {
    fn new(to: &Targets) -> io::Result<Self> {
        let (target, socket) = socket_to(to)?;
        Ok(Self { socket, used: 0, target, questions: Vec::new(), tries: 0 })
    }

    fn send(&mut self, datagram: &[u8], to: &Targets) -> io::Result<()> {
        if self.target != to.current().0 {
            (self.target, self.socket) = socket_to(to)?;
        }
        self.tries = 1;
        if to.all.len() > 1 {
            self.questions.retain(|question| number(question) != number(datagram));
            self.questions.truncate(QUESTIONS_MAX - 1);
            self.questions.insert(0, datagram.to_vec());
        }
        match self.socket.send(datagram) {
            Err(_) if self.send_again(to)? => Ok(()),
            sent => sent.map(drop),
        }
    }

    /// Sends what was not answered to the next target, if there is one that it was not sent to.
    fn send_again(&mut self, to: &Targets) -> io::Result<bool> {
        while self.tries < to.all.len() && !self.questions.is_empty() {
            to.fail(self.target);
            (self.target, self.socket) = socket_to(to)?;
            self.tries += 1;
            if self.questions.iter().all(|question| self.socket.send(question).is_ok()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether this was asked and not answered. With some programs the number in front is another each time.
    fn waits_for(&self, question: &[u8]) -> bool {
        let after = |question: &[u8]| question.get(NUMBER_SIZE_BYTES..).map(<[u8]>::to_vec);
        self.questions.iter().any(|asked| after(asked) == after(question))
    }
}

/// The most questions of one sender that are kept until they are answered.
const QUESTIONS_MAX: usize = 8;
/// The size of the number that a question to a name server begins with, and its answer.
const NUMBER_SIZE_BYTES: usize = 2;

fn number(datagram: &[u8]) -> Option<&[u8]> {
    datagram.get(..NUMBER_SIZE_BYTES)
}

fn socket_to(targets: &Targets) -> io::Result<(usize, UdpSocket)> {
    let (target, to) = targets.current();
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    socket.set_nonblocking(true)?;
    Ok((target, socket))
}

impl Sessions {
    fn of(&mut self, sender: Sender, to: &Targets) -> io::Result<&mut Session> {
        self.count += 1;
        if !self.open.contains_key(&sender) {
            if self.open.len() >= SESSIONS_MAX {
                let oldest =
                    self.open.iter().min_by_key(|(_, session)| session.used).map(|(sender, _)| *sender);
                oldest.and_then(|oldest| self.open.remove(&oldest));
            }
            self.open.insert(sender, Session::new(to)?);
        }
        let session = self.open.get_mut(&sender).ok_or(ErrorKind::NotFound)?;
        session.used = self.count;
        Ok(session)
    }

    /// Lets the next target have its turn where the present one has not answered the same question.
    fn give_up_on_silence(&mut self, door: usize, question: &[u8], to: &Targets) {
        let mut silent = self.open.iter_mut().filter(|((index, _), session)| {
            *index == door && session.target == to.current().0 && session.waits_for(question)
        });
        if let Some((_, session)) = silent.next() {
            to.fail(session.target);
        }
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
            let answers = sessions.open.values().map(|session| session.socket.as_fd());
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
        DoorSocket::Tcp(listener) => join(listener.accept()?.0, door.to.clone()),
        DoorSocket::Udp(socket) => {
            let (size, from) = socket.recv_from(buffer)?;
            let datagram = &buffer[..size];
            if let Some(answer) = door.answer.as_ref().and_then(|answer| answer(datagram)) {
                return socket.send_to(&answer, from).map(drop);
            }
            sessions.give_up_on_silence(index, datagram, &door.to);
            sessions.of((index, from), &door.to)?.send(datagram, &door.to)
        }
    }
}

fn answer(doors: &[Door], sender: Sender, sessions: &mut Sessions, buffer: &mut [u8]) -> io::Result<()> {
    let (index, from) = sender;
    let (door, Some(session)) = (&doors[index], sessions.open.get_mut(&sender)) else { return Ok(()) };
    let received = session.socket.recv(buffer);
    let is_refused = match &received {
        Ok(size) => (door.is_refusal)(&buffer[..*size]),
        // Of the socket of the last target.
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
        Err(_) => true,
    };
    if is_refused && session.send_again(&door.to)? {
        return Ok(());
    }
    let size = received?;
    session.questions.retain(|question| number(question) != number(&buffer[..size]));
    match &door.socket {
        DoorSocket::Udp(socket) => socket.send_to(&buffer[..size], from).map(drop),
        DoorSocket::Tcp(_) => Ok(()),
    }
}

/// Joins a connection with a new one to the container, which is made on a thread as it may take long.
fn join(outside: TcpStream, to: Targets) -> io::Result<()> {
    outside.set_nonblocking(false)?;
    let join = move || -> io::Result<()> {
        let inside = to.connect()?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn bound() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    /// What a server is asked, and its answer.
    fn serve_one(server: &UdpSocket, answer: &[u8]) -> Vec<u8> {
        let mut question = [0; 64];
        let (size, from) = server.recv_from(&mut question).unwrap();
        server.send_to(answer, from).unwrap();
        question[..size].to_vec()
    }

    fn received(client: &UdpSocket) -> Vec<u8> {
        let mut answer = [0; 64];
        let size = client.recv(&mut answer).unwrap();
        answer[..size].to_vec()
    }

    /// A door to these, and a client in front of it.
    fn door_to(targets: &[SocketAddr]) -> (Doors, UdpSocket) {
        let (socket, address) = bound();
        let door = Door {
            is_refusal: |bytes| bytes.ends_with(b"no"),
            ..Door::udp(socket, Targets::new(targets.to_vec())).unwrap()
        };
        let doors = Doors::open(vec![door], None).unwrap();
        let client = bound().0;
        client.connect(address).unwrap();
        (doors, client)
    }

    #[test]
    fn the_next_is_asked_where_one_is_not_there_or_refuses() {
        let ((first, one), (second, two), (_, nobody)) = (bound(), bound(), bound());
        let (_doors, client) = door_to(&[nobody, one, two]);
        client.send(b"11name").unwrap();
        assert_eq!(serve_one(&first, b"11no"), b"11name");
        assert_eq!(serve_one(&second, b"11yes"), b"11name");
        assert_eq!(received(&client), b"11yes");
        // It is the one to be asked from now on.
        client.send(b"12other").unwrap();
        assert_eq!(serve_one(&second, b"12yes"), b"12other");
        assert_eq!(received(&client), b"12yes");
    }

    #[test]
    fn all_that_waits_for_an_answer_is_asked_again() {
        let ((first, one), (second, two)) = (bound(), bound());
        let (_doors, client) = door_to(&[one, two]);
        client.send(b"11four").unwrap();
        client.send(b"12six").unwrap();
        assert_eq!(received(&first), b"11four");
        serve_one(&first, b"12no");
        assert_eq!([received(&second), received(&second)], [b"12six".to_vec(), b"11four".to_vec()]);
    }

    #[test]
    fn the_refusal_of_the_last_is_the_answer() {
        let ((first, one), (second, two)) = (bound(), bound());
        let (_doors, client) = door_to(&[one, two]);
        client.send(b"11name").unwrap();
        serve_one(&first, b"11no");
        serve_one(&second, b"11no");
        assert_eq!(received(&client), b"11no");
    }

    #[test]
    fn the_next_is_asked_where_one_says_nothing() {
        let ((silent, one), (second, two)) = (bound(), bound());
        let (_doors, client) = door_to(&[one, two]);
        client.send(b"11name").unwrap();
        assert_eq!(received(&silent), b"11name");
        client.send(b"12name").unwrap();
        assert_eq!(serve_one(&second, b"12yes"), b"12name");
        assert_eq!(received(&client), b"12yes");
    }
}
