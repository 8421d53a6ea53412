//! What a client and a monitor say to each other, over the socket in the container's directory.
//!
//! ```text
//! client → monitor   Opening: the version and one Request
//! monitor → client   Reply …
//! ```
//!
//! [`Request::Attach`], [`Request::Exec`] and a launch that is attended open a session: from then on the client sends [`Input`] and
//! bytes of standard input, the monitor bytes of both outputs, and last [`Reply::Exited`]. All other requests get one reply.
//!
//! Each frame is a byte for its kind, a length of four bytes, little endian, and that many bytes: JSON, or of a stream.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rbuild_executor::cgroup::Stats;
use rbuild_executor::{Stream, TerminalSize};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::spec::{Attachment, RestartPolicy};

/// A monitor lives longer than the program that started it: one of another version may ask.
pub(crate) const VERSION: u32 = 1;
/// The largest frame: a command line and an environment, as JSON.
const FRAME_SIZE_BYTES_MAX: u32 = 32 * 1024 * 1024;

/// What a client says first.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Opening {
    pub version: u32,
    pub request: Request,
}

/// What a client wants.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Only on the socket that the monitor was started with.
    Launch(Box<Launch>),
    Attach(Attach),
    Exec(Box<Exec>),
    Signal(i32),
    Stop(Stop),
    Pause,
    Unpause,
    /// Frozen until the client goes, however it goes. It is told when that is done, and goes by ending its side.
    Hold,
    /// A descriptor of the container's root directory comes with the reply.
    Root,
    Resize(TerminalSize),
    Update(Update),
    /// To a network.
    Connect(Attachment),
    /// From the network of this name.
    Disconnect(String),
    Usage,
    /// Answered with [`Reply::Exited`] when the container runs no more, and will not by itself.
    Wait,
}

/// What a monitor is to look after.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Launch {
    pub root: PathBuf,
    pub user_xattrs: bool,
    pub squash_owners: bool,
    pub id: String,
    /// The directory of mount-point stubs.
    pub stubs: PathBuf,
    /// The directory of the leases of addresses.
    pub networks: PathBuf,
    /// The size of the container's terminal.
    pub size: TerminalSize,
    /// Whether the launching socket becomes a session.
    pub attach: Option<Attach>,
}

/// How a client takes part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// It writes to standard input.
    pub stdin: bool,
    /// It reads standard output, or the terminal.
    pub stdout: bool,
    /// It reads standard error.
    pub stderr: bool,
}

/// A further process.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Exec {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// `NAME=value`, over the container's.
    pub env: Vec<String>,
    /// In place of the container's.
    pub workdir: Option<String>,
    /// In place of the container's.
    pub user: Option<String>,
    /// Whether it may do all that rbuild itself may.
    pub privileged: bool,
    /// The size of its terminal, if it is to have one.
    pub terminal: Option<TerminalSize>,
    /// Whether it has an input.
    pub stdin: bool,
    /// Whether nobody waits for it.
    pub detach: bool,
    /// Its id, for who hears of it; made by [`Containers::exec`](crate::Containers::exec), whatever is here.
    #[serde(default)]
    pub id: String,
}

/// An environment can hold secrets.
impl std::fmt::Debug for Exec {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Exec").field("args", &self.args).finish_non_exhaustive()
    }
}

/// How a container is to be stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// The first signal; the container's own when not given.
    pub signal: Option<i32>,
    /// How long to wait before the last one, in seconds; the container's own when not given, for ever when negative.
    pub timeout_seconds: Option<i64>,
}

/// What may change while a container runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// What its processes may use together; what is not given stays.
    pub limits: rbuild_executor::cgroup::Limits,
    /// What happens when its process ends.
    pub restart: Option<RestartPolicy>,
}

/// What a container uses and has used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// As its control group counts.
    pub group: Stats,
    /// The most memory that it may use: its limit, or what the machine has, in bytes.
    pub memory_limit_bytes: u64,
    /// Came over its network, in bytes.
    pub received_bytes: u64,
    /// Went over its network, in bytes.
    pub sent_bytes: u64,
}

/// What the client of a session says after.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Input {
    StdinEnd,
    /// Nobody reads this output any more. Heard from the client that started the container, for whom it runs.
    OutputClosed {
        stderr: bool,
    },
    Resize(TerminalSize),
    Signal(i32),
}

/// What a monitor says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The process runs. With it, what the machine could not do.
    Started {
        warnings: Vec<String>,
    },
    /// What was asked for is done; a word on how, where that is not as usual.
    Done {
        note: Option<String>,
    },
    Usage(Box<Usage>),
    /// The process has ended.
    Exited {
        code: i32,
    },
    Failed(Failed),
}

/// Why something was not done.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Failed {
    pub message: String,
    /// 127 and 126 for a program that is not there or cannot be executed.
    pub exit_code: Option<i32>,
    /// Whether the state of the container was in the way.
    pub illegal: bool,
}

const JSON: u8 = 0;
const STDIN: u8 = 1;
const STDOUT: u8 = 2;
const STDERR: u8 = 3;

/// What came over a socket.
#[derive(Debug)]
pub(crate) enum Frame<T> {
    Message(T),
    Stdin(Vec<u8>),
    Output(Stream, Vec<u8>),
}

pub(crate) fn send<T: Serialize>(socket: &UnixStream, message: &T) -> io::Result<()> {
    write_frame(socket, JSON, &serde_json::to_vec(message)?)
}

pub(crate) fn send_stdin(socket: &UnixStream, bytes: &[u8]) -> io::Result<()> {
    write_frame(socket, STDIN, bytes)
}

pub(crate) fn send_output(socket: &UnixStream, stream: Stream, bytes: &[u8]) -> io::Result<()> {
    write_frame(socket, if stream == Stream::Stdout { STDOUT } else { STDERR }, bytes)
}

fn write_frame(mut socket: &UnixStream, kind: u8, bytes: &[u8]) -> io::Result<()> {
    let size = u32::try_from(bytes.len()).ok().filter(|size| *size <= FRAME_SIZE_BYTES_MAX);
    let size = size.ok_or(io::ErrorKind::InvalidInput)?.to_le_bytes();
    let mut frame = Vec::with_capacity(bytes.len() + 5);
    frame.extend_from_slice(&[kind, size[0], size[1], size[2], size[3]]);
    frame.extend_from_slice(bytes);
    socket.write_all(&frame)
}

/// The next frame, or `None` where the stream ends.
pub(crate) fn receive<T: DeserializeOwned>(mut socket: &UnixStream) -> io::Result<Option<Frame<T>>> {
    let mut header = [0; 5];
    match socket.read(&mut header[..1]) {
        Ok(0) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
        read => read?,
    };
    socket.read_exact(&mut header[1..])?;
    let size = u32::from_le_bytes([header[1], header[2], header[3], header[4]]);
    if size > FRAME_SIZE_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; size as usize];
    socket.read_exact(&mut bytes)?;
    match header[0] {
        JSON => Ok(Some(Frame::Message(serde_json::from_slice(&bytes)?))),
        STDIN => Ok(Some(Frame::Stdin(bytes))),
        STDOUT => Ok(Some(Frame::Output(Stream::Stdout, bytes))),
        STDERR => Ok(Some(Frame::Output(Stream::Stderr, bytes))),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The next message; the end of the stream is an error, bytes of a stream are none.
pub(crate) fn expect<T: DeserializeOwned>(socket: &UnixStream) -> io::Result<T> {
    match receive(socket)? {
        Some(Frame::Message(message)) => Ok(message),
        Some(_) => Err(io::ErrorKind::InvalidData.into()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// A descriptor travels with one byte, which is what a stream needs to carry it.
pub(crate) fn send_descriptor(socket: &UnixStream, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(socket, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

pub(crate) fn receive_descriptor(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(socket.as_fd(), &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let rights = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
        _ => None,
    });
    rights.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_as_they_went() {
        let (client, monitor) = UnixStream::pair().unwrap();
        send(&client, &Request::Signal(9)).unwrap();
        send_stdin(&client, b"in").unwrap();
        send_output(&client, Stream::Stderr, b"err").unwrap();
        send_descriptor(&client, client.as_fd()).unwrap();
        drop(client);
        assert!(matches!(expect(&monitor).unwrap(), Request::Signal(9)));
        assert!(matches!(receive::<()>(&monitor).unwrap(), Some(Frame::Stdin(bytes)) if bytes == b"in"));
        let output = receive::<()>(&monitor).unwrap();
        assert!(matches!(output, Some(Frame::Output(Stream::Stderr, bytes)) if bytes == b"err"));
        receive_descriptor(&monitor).unwrap();
        assert!(receive::<()>(&monitor).unwrap().is_none());
    }

    #[test]
    fn a_broken_stream_is_an_error_never_a_panic() {
        for bytes in [&b"\0\x05"[..], b"\0\x02\0\0\0{]", b"\0\xff\xff\xff\xff", b"\x09\0\0\0\0"] {
            let (mut client, monitor) = UnixStream::pair().unwrap();
            client.write_all(bytes).unwrap();
            drop(client);
            assert!(receive::<()>(&monitor).is_err(), "{bytes:?}");
        }
    }
}
