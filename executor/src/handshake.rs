//! What parent and init say to each other before the user's program runs.
//!
//! One stream socket, descriptor 3 of init:
//!
//! ```text
//! parent → init   count of descriptors, then the descriptors in batches, then the Spec
//! init → parent   any number of Note, Stub and Terminal (with a descriptor)
//! init → parent   Executing, and then the end of the stream: execve closed the socket
//!           or    Failed, and then the end
//! ```
//!
//! A stream that ends without either means that init was killed. An init whose parent goes away before it executes
//! finds out at its next read or write, and ends.
//! Each message is a length of four bytes, little endian, and that many bytes of JSON.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Note;
use crate::mount::{MountFlags, TmpfsOptions};
use crate::output::TerminalSize;
use crate::process::Process;
use crate::user;

/// The largest message: `execve` itself takes at most 6 MiB of arguments and environment, and JSON can double them.
const MESSAGE_SIZE_BYTES_MAX: u32 = 32 * 1024 * 1024;
/// Descriptors in one batch; the kernel takes 253.
const BATCH_MAX: usize = 128;
/// Descriptors in all.
const DESCRIPTORS_MAX: u32 = 4096;

/// An index into the descriptors that came before the spec.
pub(crate) type DescriptorIndex = usize;

/// All that init has to know.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub place: Place,
    pub process: Process,
    pub insecure: bool,
    pub terminal: Option<TerminalSize>,
    /// Whether descriptors 0 to 2 were made for this process, so that its user should own them.
    pub own_stdio: bool,
    /// A file with the compiled filter.
    pub seccomp: Option<DescriptorIndex>,
}

/// Where the process is to run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Place {
    /// In namespaces that this init is the first in.
    New(Box<NewPlace>),
    /// In those of a process that runs: a descriptor of it, and which namespaces of it are not the parent's, as `CLONE_NEW*` bits.
    Join { container: DescriptorIndex, namespaces: i32 },
    /// In the machine's own namespaces, with this root directory.
    Chroot { root: DescriptorIndex },
}

/// What a new container consists of.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NewPlace {
    pub root: DescriptorIndex,
    pub readonly_root: bool,
    /// Whether device files of the root cannot be opened.
    pub nodev: bool,
    /// Whether what in `/proc` and `/sys` is the machine's is hidden.
    pub masked: bool,
    pub mounts: Vec<MountSpec>,
    pub hostname: String,
    pub domainname: String,
    /// Whether the names are the machine's.
    pub machine_uts: bool,
    /// Whether `/dev/shm` and message queues are the machine's.
    pub machine_ipc: bool,
    /// Whether it sees control groups as the machine does.
    pub machine_cgroups: bool,
    /// Whether, without protection, all devices of the machine are there.
    pub machine_devices: bool,
    /// Kernel parameters, by path below `/proc/sys`.
    pub sysctls: Vec<(String, String)>,
    /// Names and texts of files in `/etc`; the container keeps its own of others.
    pub etc: Vec<(String, String)>,
    /// Whether those can be written to.
    pub etc_writable: bool,
    pub network: NetworkSpec,
    pub shm_size_bytes: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MountSpec {
    pub target: PathBuf,
    pub source: SourceSpec,
    pub flags: MountFlags,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum SourceSpec {
    Detached(DescriptorIndex),
    Within { mount: DescriptorIndex, path: PathBuf },
    Tmpfs(TmpfsOptions),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NetworkSpec {
    Host,
    None,
    Join(DescriptorIndex),
}

/// What init says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Message {
    /// Something the machine lacks, and what was done instead.
    Note(Note),
    /// A mount target that init had to make.
    Stub(Stub),
    /// The descriptor that comes with this is the controlling side of the process's terminal.
    Terminal,
    /// All is set up; what follows is `execve`.
    Executing,
    /// Init ends without having run the program.
    Failed(Failure),
}

/// A mount target that did not exist, to be removed afterwards when it is still empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stub {
    /// Resolved, relative to the root.
    pub path: PathBuf,
    pub directory: bool,
    /// The modification time of the directory it was made in, before: seconds and nanoseconds.
    pub parent_modified: (i64, i64),
}

/// Why init gave up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Failure {
    Step { step: String, path: Option<PathBuf>, errno: i32 },
    WorkingDirectory { path: PathBuf, errno: i32 },
    User(user::Error),
    ExecutableNotFound { program: String },
    Execute { program: String, errno: i32 },
    Handshake { reason: String },
}

/// What a step of init returns.
pub(crate) type Step<T> = Result<T, Failure>;

/// Names the step that a kernel error belongs to.
pub(crate) trait StepExt<T> {
    /// The verb and its object, as they follow "failed to".
    fn step(self, step: &str) -> Step<T>;
    /// The same, with the path it was about.
    fn step_at(self, step: &str, path: impl Into<PathBuf>) -> Step<T>;
}

impl<T, E: IntoErrno> StepExt<T> for Result<T, E> {
    fn step(self, step: &str) -> Step<T> {
        self.map_err(|error| Failure::Step { step: step.to_owned(), path: None, errno: error.into_errno() })
    }

    fn step_at(self, step: &str, path: impl Into<PathBuf>) -> Step<T> {
        self.map_err(|error| Failure::Step {
            step: step.to_owned(),
            path: Some(path.into()),
            errno: error.into_errno(),
        })
    }
}

/// The three error types that system calls come back with.
pub(crate) trait IntoErrno {
    fn into_errno(self) -> i32;
}

impl IntoErrno for rustix::io::Errno {
    fn into_errno(self) -> i32 {
        self.raw_os_error()
    }
}

impl IntoErrno for nix::errno::Errno {
    fn into_errno(self) -> i32 {
        self as i32
    }
}

impl IntoErrno for io::Error {
    fn into_errno(self) -> i32 {
        self.raw_os_error().unwrap_or(libc::EIO)
    }
}

/// One end of the socket.
#[derive(Debug)]
pub(crate) struct Channel(UnixStream);

impl Channel {
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Self(ours), theirs.into()))
    }

    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self(socket.into())
    }

    /// Parent: tells init everything.
    pub(crate) fn send_spec(&mut self, spec: &Spec, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let count = u32::try_from(descriptors.len()).ok().filter(|count| *count <= DESCRIPTORS_MAX);
        let count = count.ok_or_else(|| io::Error::other("too many mounts"))?;
        self.0.write_all(&count.to_le_bytes())?;
        for batch in descriptors.chunks(BATCH_MAX) {
            send_descriptors(self.0.as_fd(), batch)?;
        }
        self.send(spec)
    }

    /// Init: hears everything.
    pub(crate) fn receive_spec(&mut self) -> io::Result<(Spec, Vec<OwnedFd>)> {
        let mut count = [0; 4];
        self.0.read_exact(&mut count)?;
        let count = u32::from_le_bytes(count).min(DESCRIPTORS_MAX) as usize;
        let mut descriptors = Vec::new();
        while descriptors.len() < count {
            receive_descriptors(self.0.as_fd(), &mut descriptors)?;
        }
        let spec = self.receive()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok((spec, descriptors))
    }

    pub(crate) fn send<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        let mut bytes = vec![0; 4];
        serde_json::to_writer(&mut bytes, message)?;
        let size = u32::try_from(bytes.len() - 4).ok().filter(|size| *size <= MESSAGE_SIZE_BYTES_MAX);
        let size = size.ok_or_else(|| io::Error::from_raw_os_error(libc::E2BIG))?;
        bytes[..4].copy_from_slice(&size.to_le_bytes());
        self.0.write_all(&bytes)
    }

    /// The next message, or `None` where the stream ends.
    pub(crate) fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let mut size = [0; 4];
        if rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut size[..1]))? == 0 {
            return Ok(None);
        }
        self.0.read_exact(&mut size[1..])?;
        let size = u32::from_le_bytes(size);
        if size > MESSAGE_SIZE_BYTES_MAX {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        let mut bytes = vec![0; size as usize];
        self.0.read_exact(&mut bytes)?;
        Ok(Some(serde_json::from_slice(&bytes)?))
    }

    pub(crate) fn send_terminal(&mut self, terminal: BorrowedFd<'_>) -> io::Result<()> {
        self.send(&Message::Terminal)?;
        send_descriptors(self.0.as_fd(), &[terminal])
    }

    pub(crate) fn receive_terminal(&mut self) -> io::Result<OwnedFd> {
        let mut descriptors = Vec::new();
        receive_descriptors(self.0.as_fd(), &mut descriptors)?;
        descriptors.pop().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Whether the other side is gone.
    pub(crate) fn is_closed(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut polled = [PollFd::new(&self.0, PollFlags::RDHUP)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0)
    }
}

/// Descriptors travel with one byte, which is what a stream needs to carry them.
fn send_descriptors(socket: BorrowedFd<'_>, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(descriptors));
    sendmsg(socket, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive_descriptors(socket: BorrowedFd<'_>, descriptors: &mut Vec<OwnedFd>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let before = descriptors.len();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if descriptors.len() == before { Err(io::Error::other("no descriptor came")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Channel, Channel) {
        let (ours, theirs) = Channel::pair().unwrap();
        (ours, Channel::new(theirs))
    }

    fn spec() -> Spec {
        let mount =
            MountSpec { target: "/x".into(), source: SourceSpec::Detached(1), flags: MountFlags::default() };
        let place = NewPlace {
            root: 0,
            readonly_root: false,
            nodev: false,
            masked: true,
            mounts: vec![mount],
            hostname: "box".to_owned(),
            domainname: String::new(),
            machine_uts: false,
            machine_ipc: false,
            machine_cgroups: false,
            machine_devices: false,
            sysctls: Vec::new(),
            etc: Vec::new(),
            etc_writable: false,
            network: NetworkSpec::Host,
            shm_size_bytes: 1,
        };
        Spec {
            place: Place::New(Box::new(place)),
            process: Process::new(["/bin/true"]),
            insecure: false,
            terminal: None,
            own_stdio: true,
            seccomp: None,
        }
    }

    #[test]
    fn messages_come_in_order_and_then_the_end() {
        let (mut init, mut parent) = pair();
        let messages = [
            Message::Note(Note::NoSeccomp),
            Message::Stub(Stub { path: "a/b".into(), directory: true, parent_modified: (-1, 999) }),
            Message::Failed(Failure::Step { step: "mount".to_owned(), path: Some("/x".into()), errno: 1 }),
            Message::Failed(Failure::User(user::Error::UnknownUser("u".to_owned()))),
            Message::Executing,
        ];
        for message in &messages {
            init.send(message).unwrap();
        }
        drop(init);
        for message in messages {
            assert_eq!(parent.receive::<Message>().unwrap(), Some(message));
        }
        assert!(parent.is_closed());
        assert_eq!(parent.receive::<Message>().unwrap(), None);
    }

    #[test]
    fn a_spec_carries_descriptors_over_several_batches() {
        let (mut parent, mut init) = pair();
        let null = std::fs::File::open("/dev/null").unwrap();
        for count in [0, 1, BATCH_MAX, BATCH_MAX + 1, 3 * BATCH_MAX] {
            let descriptors = vec![null.as_fd(); count];
            parent.send_spec(&spec(), &descriptors).unwrap();
            let (received, owned) = init.receive_spec().unwrap();
            assert_eq!(owned.len(), count);
            assert_eq!(received.process.args, ["/bin/true"]);
            assert!(matches!(received.place, Place::New(place) if place.mounts.len() == 1));
        }
    }

    #[test]
    fn a_broken_stream_is_an_error_never_a_panic() {
        let cases: [&[u8]; 4] =
            [b"\x05\x00", b"\x05\x00\x00\x00ab", b"\xff\xff\xff\xff", b"\x02\x00\x00\x00{]"];
        for bytes in cases {
            let (mut init, mut parent) = pair();
            init.0.write_all(bytes).unwrap();
            drop(init);
            assert!(parent.receive::<Message>().is_err(), "{bytes:?}");
        }
    }
}
